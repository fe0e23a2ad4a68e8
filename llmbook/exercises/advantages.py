"What `grade` asks of the answers to the exercises of the chapter `advantages`."

import math

import torch


def _definition(rewards, values, after, gamma, lam):
    "Advantages of one answer as a double sum, with a value after its last token."
    nexts = [*values[1:], after]
    surprises = [r + gamma * n - v for r, n, v in zip(rewards, nexts, values)]
    T = len(surprises)
    return [
        sum((gamma * lam) ** (i - t) * surprises[i] for i in range(t, T))
        for t in range(T)
    ]


def check_1(answer):
    "The lambda that takes the blame off a token."
    answer = [float(value) for value in answer]
    assert len(answer) == 2, "Two numbers: lambda, and the advantage of the first token."
    lam, first = answer
    assert 0 <= lam <= 1, "Lambda lies between 0 and 1."
    assert not math.isclose(lam, 0.4, abs_tol=2e-3), (
        "The second token has a reward of its own, the penalty."
    )
    rewards, values = [-0.1, -0.1, 2.0], [0.9, 1.7, 1.5]
    right = _definition(rewards, values, 0.0, 1.0, lam)
    assert math.isclose(right[1], 0, abs_tol=2e-3), (
        f"With that lambda the second token's advantage is {right[1]:.2f}: work out the surprises first."
    )
    assert math.isclose(first, right[0], abs_tol=5e-3), (
        "Lambda is right. To the first surprise the second token adds a part of its advantage, not of its surprise."
    )


def check_2(answer):
    "Advantages of answers that were cut."
    g = torch.Generator().manual_seed(0)
    for gamma, lam in ((1.0, 0.5), (0.9, 0.95), (0.9, 0.0), (0.97, 1.0)):
        rewards, values = torch.randn(2, 3, 6, generator=g)
        after = torch.randn(3, generator=g)
        kept = rewards.clone()
        found = answer(rewards, values.clone(), after.clone(), gamma, lam)
        assert found is not None, "Return the advantages."
        assert torch.equal(rewards, kept), (
            "Your function has changed the rewards that it was given; copy them first."
        )
        right = torch.tensor(
            [
                _definition(*row, gamma, lam)
                for row in zip(rewards.tolist(), values.tolist(), after.tolist())
            ]
        )
        assert found.shape == right.shape, (
            f"Of shape {tuple(right.shape)}, not {tuple(found.shape)}."
        )
        assert torch.allclose(found[:, -1], right[:, -1], atol=1e-4), (
            f"Wrong at the last token, with gamma {gamma}: its surprise contains the discounted value of what follows."
        )
        assert torch.allclose(found, right, atol=1e-4), (
            f"Wrong with gamma {gamma} and lambda {lam}."
        )


def check_3(answer):
    "Whitening with the padding."
    answer = float(answer)
    shares = torch.tensor(
        [3.0, -3.0] + [0.0] * 6
    )  # a quarter of the places, mean 0
    factor = (shares[:2].std(correction=0) / shares.std(correction=0)).item()
    assert not math.isclose(answer, 1 / factor, rel_tol=1e-3), (
        "Larger, not smaller: one divides by the standard deviation."
    )
    assert not math.isclose(answer, factor**2, rel_tol=1e-3), (
        "That is the factor of the variance."
    )
    assert math.isclose(answer, factor, rel_tol=1e-2), (
        "What do the zeros do to the mean of the squares?"
    )


def check_4(answer):
    "Explained variance without what a prompt alone says."
    g = torch.Generator().manual_seed(0)
    prompts = torch.tensor([4, 4, 4, 9, 9, 9, 9, 2, 2])
    level = torch.tensor([5.0, 5.0, 5.0, -5.0, -5.0, -5.0, -5.0, 0.0, 0.0])
    luck = torch.randn(9, generator=g)
    luck = luck - torch.stack([luck[prompts == p].mean() for p in prompts])
    returns = level + luck

    def found(values):
        result = answer(values.clone(), returns.clone(), prompts.clone())
        assert result is not None, "Return a number."
        return float(result)

    only_prompts = found(level)
    assert abs(only_prompts) < 1e-4, (
        f"A critic that knows only the prompts should score 0, not {only_prompts:.2f}."
    )
    assert math.isclose(found(returns), 1, abs_tol=1e-4), (
        "A critic that foresees everything should score 1."
    )
    assert math.isclose(found(3 * level + luck / 2), 0.75, abs_tol=1e-3), (
        "A critic that foresees half of each answer's luck, and is wrong about the prompts, should score 0.75."
    )
