"What `grade` asks of the answers to the exercises of the chapter `ppo`."

import math

import torch

from ..align.ppo import clipped_policy_loss


def check_1(answer):
    "The pulls on four tokens."
    answer = float(answer)
    assert not math.isclose(answer, 0, abs_tol=0.01), (
        "That is the sum if nothing is clipped."
    )
    assert not math.isclose(answer, -0.9, abs_tol=0.01), (
        "A token that moved the wrong way is still pulled back."
    )
    assert not math.isclose(answer, 1, abs_tol=0.01), (
        "The pull is the ratio times the advantage, not the advantage alone."
    )
    assert math.isclose(answer, 0.5, abs_tol=0.01), (
        "Which tokens have gone far enough in the direction that their advantage asks for?"
    )


def check_2(answer):
    "The derivative of the clipped gain."

    def compare(ratios, advantages, low, high, say):
        log_ratio = torch.tensor(ratios).log()
        advantages = torch.tensor(advantages)
        leaf = log_ratio.clone().requires_grad_()
        (-clipped_policy_loss(leaf, advantages, low, high)).sum().backward()
        found = answer(log_ratio.clone(), advantages.clone(), low, high)
        assert found is not None, "Return the pulls."
        found = torch.as_tensor(found, dtype=torch.float32)
        assert found.shape == log_ratio.shape, (
            f"One pull per token: not the shape {tuple(found.shape)}."
        )
        assert torch.allclose(found, leaf.grad, atol=1e-4), say

    compare(
        [1.1, 0.9],
        [1.0, -2.0],
        0.2,
        0.2,
        "Wrong for tokens inside the band: by the chain rule, how does the ratio enter?",
    )
    compare(
        [1.5, 0.5],
        [1.0, -1.0],
        0.2,
        0.2,
        "A token that has gone far enough is still pulled.",
    )
    compare(
        [0.5, 1.5],
        [1.0, -1.0],
        0.2,
        0.2,
        "A token that moved the wrong way must be pulled back.",
    )
    compare(
        [1.25, 1.35, 0.75, 0.85],
        [1.0, 1.0, -1.0, -1.0],
        0.2,
        0.3,
        "Wrong where `low` and `high` differ.",
    )
    g = torch.Generator().manual_seed(0)
    ratios = (torch.rand(200, generator=g) * 2 + 0.05).tolist()
    compare(
        ratios,
        torch.randn(200, generator=g).tolist(),
        0.1,
        0.4,
        "Wrong for one of 200 random tokens.",
    )


def check_3(answer):
    "What does not matter at the first step."
    names = {str(name).lower().replace('-', '_').strip('_') for name in answer}
    known = {
        'clip_ratio',
        'dual_clip',
        'value_clip',
        'value_weight',
        'stop_kl',
        'beta',
        'lam',
        'unended',
    }
    assert names <= known, f"The settings are {', '.join(sorted(known))}."
    limits = {name for name in known if name.endswith(('clip', 'ratio', '_kl'))}
    assert not names & {'value_weight'}, (
        "The body is shared: the critic's gradient moves the policy's weights too."
    )
    assert not names & {'beta', 'lam', 'unended'}, (
        "One of these goes into the advantages, which are computed before the first step."
    )
    missing = limits - names
    assert not missing, (
        f"{len(missing)} more: what does a setting do when every ratio is 1 and every guess is unchanged?"
    )


PROMPT = 'What did the baker do in the morning?'
FIRST, SECOND = (
    'She opened her shop early.',
    'Then fresh bread went onto every shelf.',
)


def check_4(answer):
    "A reward that is not earned cheaply."
    filler = ' '.join(f'and thing{i % 25} too' for i in range(17))
    answers = {
        'ordinary': f'{FIRST} {SECOND}',
        'empty': '',
        'repeated': ' '.join([FIRST] * 10),
        'copied': PROMPT,
        'padded': f'{FIRST} {SECOND} {filler}',
    }

    def earned(texts):
        found = answer([PROMPT] * len(texts), list(texts))
        assert found is not None, "Return a number for each answer."
        found = [float(value) for value in found]
        assert len(found) == len(texts), (
            f"{len(found)} numbers for {len(texts)} answers."
        )
        assert all(math.isfinite(value) for value in found), (
            "Every reward must be a finite number."
        )
        return found

    found = dict(zip(answers, earned(answers.values())))
    cheap = {
        'empty': "An empty answer",
        'repeated': "One sentence said ten times",
        'copied': "A copy of the prompt",
        'padded': "Filler behind an answer",
    }
    for name, what in cheap.items():
        assert found['ordinary'] > found[name], (
            f"{what} earns {found[name]:.2f}, the ordinary answer {found['ordinary']:.2f}."
        )
    assert earned([answers['ordinary']]) == [found['ordinary']], (
        "The same answer must earn the same, whatever is beside it."
    )
