"What `grade` asks of the answers to the exercises of the chapter `kl`."

import math

import torch


def check_1(answer):
    "Four estimates from one answer of two tokens."
    answer = [float(value) for value in answer]
    assert len(answer) == 4, "Four numbers: k1, k2 and k3 by token, and k3 of the answer."
    ratios = [math.log(0.5 / 0.1), math.log(0.1 / 0.5)]
    k2 = sum(x * x / 2 for x in ratios)
    k3 = sum(math.exp(-x) - 1 + x for x in ratios)
    assert not math.isclose(answer[1], k2 / 2, abs_tol=0.02), (
        "Add the estimates of the two tokens up; do not average them."
    )
    names = 'k1 by token', 'k2 by token', 'k3 by token', 'k3 of the answer'
    for name, value, right in zip(names, answer, (0, k2, k3, 0)):
        assert math.isclose(value, right, abs_tol=0.02), (
            f"{name}: the log-ratios of the two tokens have opposite signs. "
            "By token, put each into the formula, then add; for the answer, add first."
        )


def _estimates(answer, now, old, ref):
    "What an answer says about all tokens of a vocabulary."
    found = answer(now.clone(), old.clone(), ref.clone())
    assert found is not None, "Return the estimates."
    found = torch.as_tensor(found, dtype=torch.float64)
    assert found.shape == now.shape, (
        f"One estimate for each sample, of shape {tuple(now.shape)}, not {tuple(found.shape)}."
    )
    return found


def check_2(answer):
    "The divergence, from samples of an older policy."
    g = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(30, generator=g, dtype=torch.float64).log_softmax(0)

    old, ref = draw(), draw()
    for name, now in (
        ('the version that wrote', old),
        ('a version that has moved', draw()),
    ):
        found = _estimates(answer, now, old, ref)
        mean = (old.exp() * found).sum().item()
        true = (now.exp() * (now - ref)).sum().item()
        assert math.isclose(mean, true, rel_tol=1e-6), (
            f"For {name} the mean over samples should be {true:.3f}; yours is {mean:.3f}."
        )
        assert (found > -1e-9).all(), "Some of your estimates are negative."
        some = _estimates(answer, now[:9], old[:9], ref[:9])
        assert torch.allclose(some, found[:9]), "Each estimate depends on its own sample alone."


def check_3(answer):
    "What is logged if answers are sharper than their log-probabilities say."
    answer = float(answer)
    up, down = math.log(0.8 / 0.5), math.log(0.2 / 0.5)
    sharp = 0.8**2 / (0.8**2 + 0.2**2)
    own = sharp * math.log(sharp / 0.5) + (1 - sharp) * math.log((1 - sharp) / 0.5)
    assert not math.isclose(answer, 0.8 * up + 0.2 * down, abs_tol=0.01), (
        "That is the policy at temperature 1, for both."
    )
    assert not math.isclose(answer, own, abs_tol=0.01), (
        "That is the sharper policy's own divergence. The log-probabilities are still those of temperature 1."
    )
    assert math.isclose(answer, sharp * up + (1 - sharp) * down, abs_tol=0.01), (
        "Weigh the two log-ratios at temperature 1 by how often each answer is drawn."
    )


def check_4(answer):
    "The tokens that contribute most."
    tokens = [
        ['the', 'cat', 'sat'],
        ['the', 'dog', 'ran', 'the'],
        ['a', 'dog', 'the'],
    ]
    ratios = [[0.6, 1.5, -0.2], [0.6, -2.0, 0.1, 0.6], [0.3, -2.5, 0.6]]
    found = answer([list(row) for row in tokens], [list(row) for row in ratios], 3)
    assert found is not None, "Return a list of tokens."
    found = [item[0] if isinstance(item, tuple) else item for item in found]
    assert len(found) == 3, f"Asked for 3 tokens, got {len(found)}."
    assert 'dog' not in found, (
        "The log-ratios of 'dog' are negative, so it takes away from the divergence."
    )
    assert found[0] != 'cat', (
        "'cat' has the largest single value, but another has the larger sum."
    )
    assert found == ['the', 'cat', 'a'], (
        "Sum the log-ratios of each token over all answers, and sort, the largest first."
    )
    assert len(answer(tokens, ratios, 1)) == 1, "The number n is not always 3."
