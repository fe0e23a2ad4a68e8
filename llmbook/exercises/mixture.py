"What `grade` asks of the answers to the exercises of the chapter `mixture`."
import math

import numpy as np

from llmbook.text.mixture import quota

_MIXTURES = [[1, 1], [5, 3, 2], [0.9, 0.07, 0.02, 0.01], [1, 6, 6, 2], [1]]


def check_1(answer):
    "(share of the middle source, epochs of the smallest), at a temperature of 4."
    share, epochs = map(float, answer)
    roots = [size ** 0.25 for size in (81, 16, 1)]
    in_all = sum(roots)
    assert share <= 1, "The share is a fraction of 1."
    right = math.isclose(share, roots[1] / in_all, abs_tol=0.005)
    assert right, "The share: take the fourth root of each size."
    right = math.isclose(epochs, 60 * roots[2] / in_all, abs_tol=0.05)
    assert right, "The epochs: its tokens in the run, over its size."


def check_2(answer):
    "Sources that take turns by quota."
    for weights in _MIXTURES:
        given = [0] * len(weights)
        for k in range(200):
            received = answer(list(weights), k)
            assert received is not None, "Return the source and how many of its rows came before."
            source, before = map(int, received)
            assert 0 <= source < len(weights), f"{weights}, place {k}: there is no source {source}."
            right = before == given[source]
            case = f"{weights}, place {k}"
            assert right, f"{case}: {given[source]} rows of source {source} came before, not {before}."
            given[source] += 1
            wanted = quota(weights, k + 1)
            case = f"{weights}: the first {k + 1} places"
            assert given == wanted, f"{case} hold {given}, and the quotas are {wanted}."


def _check_change(answer, old, new, n):
    "One change of weights after n rows."
    previous = [0] * len(old)
    shares = np.array(new) / sum(new)
    for k in range(n + 120):
        received = answer(list(old), list(new), n, k)
        assert received is not None, "Return a list of numbers."
        counts = [int(count) for count in received]
        case = f"{old}, then {new} after {n} rows; {k} rows"
        assert sum(counts) == k, f"{case}: the numbers add up to {sum(counts)}."
        steps = [b - a for a, b in zip(previous, counts)]
        assert min(steps) >= 0, f"{case}: a source has given fewer rows than one row earlier."
        assert max(steps) <= 1, f"{case}: a source gives {max(steps)} rows at once."
        if k <= n:
            kept = counts == quota(old, k)
            assert kept, f"{case}: what is before the border must stay as it was."
        else:
            off = np.array(counts) - quota(old, n) - (k - n) * shares
            assert np.abs(off).max() <= 2, f"{case}: since the border, the shares are not the new ones."
        previous = counts


def check_3(answer):
    "Other weights from some row on."
    for old, new in (([1, 1], [9, 1]), ([5, 3, 2], [1, 1, 1]), ([1, 0], [1, 2]), ([0.2, 0.8], [1, 0])):
        for n in (0, 37, 100): _check_change(answer, old, new, n)


def _most_epochs(sizes, tokens, temperature):
    "How often the source is read that is read most often."
    powers = np.array(sizes, float) ** (1 / temperature)
    return (tokens * powers / powers.sum() / sizes).max()


def check_4(answer):
    "The highest temperature at which no source is read too often."
    cases = [([900, 90, 10], 1000, 4), ([900, 90, 10], 1000, 30), ([10, 900, 90], 500, 3)]
    cases += [([5, 4, 50], 59, 1.2), ([300, 200], 500, 4), ([300, 200], 2500, 4)]
    for sizes, tokens, most in cases:
        received = answer(list(sizes), tokens, most)
        case = f"sizes {sizes}, {tokens} tokens, {most} epochs"
        if _most_epochs(sizes, tokens, 1) > most:
            assert received is None, f"{case}: even at 1 it is more; the answer is None."
            continue
        assert received is not None, f"{case}: there is such a temperature."
        assert 1 <= received <= 100, f"{case}: {received} is not from 1 to 100."
        fits = _most_epochs(sizes, tokens, received / 1.01) <= most
        assert fits, f"{case}: at {received:.3g} a source is read too often."
        warmer = received * 1.01
        too_warm = warmer >= 100 or _most_epochs(sizes, tokens, warmer) > most
        assert too_warm, f"{case}: it may be warmer than {received:.3g}."
