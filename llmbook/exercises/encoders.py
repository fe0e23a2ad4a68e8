"What `grade` asks of the answers to the exercises of the chapter `encoders`."

import math
import random

import torch


def check_1(answer):
    "The numbers of a small encoder."
    answer = float(answer)
    assert answer != 51_200, "Behind the tables there is a norm."
    assert answer != 50_752, "Every matrix has a bias, and a block has two norms."
    assert answer == 51_264, (
        "Three tables and a norm; in a block four matrices, then two, all with biases, and two norms."
    )


def check_2(answer):
    "Which places depend on which tokens."
    T, V = 6, 11
    table = torch.randn(V, 4, generator=torch.Generator().manual_seed(0))
    every = torch.ones(T, T)
    ways = {
        'a decoder': every.tril(),
        'an encoder': every,
        'a model that looks ahead only': every.triu(),
        'a model in which each place sees itself': torch.eye(T),
        'a window of two': every.tril() - every.tril(-2),
    }
    for name, way in ways.items():

        def model(ids, way=way):
            return way @ table[ids]

        found = answer(model, T, V)
        assert isinstance(found, torch.Tensor) and found.shape == (T, T), (
            f"Return a tensor ({T},{T})."
        )
        found = found.bool()
        turned = torch.equal(found, way.bool().T) and not torch.equal(way, way.T)
        assert not turned, "A row is the place that looks, a column the token."
        wrong = int((found != way.bool()).sum())
        assert not wrong, f"For {name}, {wrong} of {T * T} are wrong."


def check_3(answer):
    "A vector for each row, whatever its neighbours."
    x = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None]
    wanted = torch.stack([x[i, :n].mean(0) for i, n in enumerate((7, 4, 1))])
    found = answer(x.clone(), mask)
    assert torch.is_tensor(found) and found.shape == wanted.shape, "Return a tensor (B,C)."
    assert torch.allclose(found[0], wanted[0], atol=1e-5), (
        "A row without padding has the mean of its places."
    )
    assert torch.allclose(found, wanted, atol=1e-5), (
        "A row of four tokens, padded to seven, has another vector than alone."
    )
    garbage = x.masked_fill(~mask[..., None], math.nan)
    assert torch.allclose(answer(garbage, mask), wanted, atol=1e-5), (
        "NaN at a place that is padding comes through."
    )


def check_4(answer):
    "Little padding, and yet by chance."
    rng = random.Random(0)
    lengths = [min(256, 3 + int(rng.expovariate(1 / 40))) for _ in range(1000)]
    drawn = []
    for seed in range(3):
        batches = [list(batch) for batch in answer(list(lengths), 32, seed)]
        assert sorted(i for batch in batches for i in batch) == list(range(1000)), (
            "Every row is read once."
        )
        sizes = sorted(map(len, batches))
        assert sizes == [8] + [32] * 31, "Every batch but one has 32 rows."
        places = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        share = 1 - sum(lengths) / places
        assert share <= 0.15, f"{share:.0%} of the places are padding."
        longest = [max(lengths[i] for i in batch) for batch in batches]
        rises = sum(a <= b for a, b in zip(longest, longest[1:]))
        assert 5 < rises < 26, "The batches come in the order of their lengths."
        drawn.append(batches)
    again = [list(batch) for batch in answer(list(lengths), 32, 0)]
    assert again == drawn[0], "The same seed gives other batches."
    assert drawn[0] != drawn[1], "Another seed gives the same order."
    kinds = [set(map(frozenset, batches)) for batches in drawn]
    assert len(kinds[0] & kinds[1]) < 20, "Another seed gives the same batches, in another order."
