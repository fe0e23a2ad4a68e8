"What `grade` asks of the answers to the exercises of the chapter `grpo`."

import math

import torch


def check_1(answer):
    "Groups with both kinds of answers."
    answer = float(answer)
    assert abs(answer - 6.9) > 0.1, "Those are the groups without a right answer."
    assert abs(answer - 1.6) > 0.1, (
        "A group teaches if at least one of its eight answers is right, not if a certain one is."
    )
    assert abs(answer - 9.11) < 0.06, (
        "A group teaches nothing if all of its answers are wrong, or all right. How likely is that?"
    )


def _loss(log_probs, before, A, low, high):
    "The loss of an answer whose ratio is the geometric mean of its tokens'."
    s = (log_probs - before).mean().exp()
    return -torch.minimum(s * A, s.clamp(1 - low, 1 + high) * A)


def check_2(answer):
    "Derivatives of GSPO's loss for one answer."
    g = torch.Generator().manual_seed(0)
    cases = [
        ('a single token', torch.tensor([0.1]), 1.0),
        ('three tokens', torch.tensor([0.2, -0.1, 0.05]), 1.0),
        (
            'a good answer that has risen far',
            torch.tensor([0.5, 0.4, 0.1, 0.2]),
            2.0,
        ),
        (
            'a good answer that has fallen far',
            torch.tensor([-0.5, -0.4, -0.3]),
            2.0,
        ),
        ('a bad answer that has risen far', torch.tensor([0.5, 0.4, 0.3]), -1.0),
        (
            'a bad answer that has fallen far',
            torch.tensor([-0.5, -0.4, -0.3]),
            -1.0,
        ),
        (
            'one token out of range, the answer in it',
            torch.tensor([0.6, -0.3, -0.3]),
            1.5,
        ),
        ('seven tokens', 0.1 * torch.randn(7, generator=g), -0.7),
    ]
    for name, log_ratios, A in cases:
        found = answer(log_ratios.clone(), A, 0.2, 0.3)
        assert found is not None, "Return a tensor of T numbers."
        found = torch.as_tensor(found, dtype=torch.float32)
        assert found.shape == log_ratios.shape, (
            f"{len(log_ratios)} tokens, and a result of shape {tuple(found.shape)}."
        )
        log_probs = log_ratios.clone().requires_grad_()
        _loss(log_probs, torch.zeros_like(log_ratios), A, 0.2, 0.3).backward()
        right = log_probs.grad
        assert torch.allclose(found, right, atol=1e-5), (
            f"Wrong for {name}, with log-ratios {log_ratios.numpy().round(2)}."
        )


def check_3(answer):
    "Who sees the scale of the points."
    names = {str(name).lower().replace('-', '_') for name in answer}
    known = {'reinforce', 'rloo', 'grpo', 'dr_grpo', 'dapo', 'gspo'}
    assert names <= known, f"The relatives are {', '.join(sorted(known))}."
    blind = {name for name in known if name in ('grpo', 'dapo', 'gspo')}
    assert not names & blind, (
        "One of yours does not see the scale: what happens to its advantages if all points are divided?"
    )
    missing = len(known - blind - names)
    assert not missing, (
        f"{missing} more: go through the column of the table that says what is divided."
    )


def check_4(answer):
    "A rule for fractions."
    cases = [
        ('3', '3', 1),
        ('The answer is 12', '12', 1),
        ('12 of 13', '12', 0),
        ('3/4', '0.75', 1),
        ('it is 6/8.', '3/4', 1),
        ('-0.5', '-1/2', 1),
        ('0.5', '-0.5', 0),
        ('1,250 in all', '1250', 1),
        ('no idea', '0', 0),
        ('', '4', 0),
        ('3/0', '3', 0),
        ('first 4, then 1/3', '1/3', 1),
        ('0.3333', '1/3', 0),
        ('7.0', '7', 1),
        ('75', '7', 0),
    ]
    for given, reference, points in cases:
        try:
            found = answer(given, reference)
        except Exception as e:
            raise AssertionError(
                f"{given!r} ends in {type(e).__name__}: a rule must not fail."
            ) from None
        assert found is not None, "Return 0 or 1."
        assert math.isclose(float(found), points), (
            f"The answer {given!r} is paid {found}, where the result is {reference!r}."
        )
