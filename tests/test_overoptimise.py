"Best of n, counted group by group; the laws; and near misses of the exercises."
import math
import random
from itertools import combinations

import pytest

from llmbook.align.overoptimise import best_of_n, best_of_n_kl, fit_law, law_terms
from llmbook.exercises import overoptimise as checks


def all_groups(worth, points, n):
    groups = list(combinations(range(len(worth)), n))
    return sum(worth[max(group, key=lambda i: (points[i], i))] for group in groups) / len(groups)


@pytest.mark.parametrize('size, n', [(1, 1), (5, 1), (5, 3), (8, 8), (9, 4)])
def test_best_of_n_is_the_mean_over_all_groups(size, n):
    rng = random.Random(size)
    worth, points = ([rng.choice([0., 1., 2.5, rng.random()]) for _ in range(size)] for _ in range(2)) # with equal ones
    assert math.isclose(best_of_n(worth, points, n), all_groups(worth, points, n))


def test_the_distance_of_best_of_n():
    assert best_of_n_kl(1) == 0 and math.isclose(best_of_n_kl(2), math.log(2) - 0.5)


@pytest.mark.parametrize('kind, second', [('rl', math.log(3)), ('best-of-n', 3.)])
def test_the_laws_by_hand(kind, second):
    gain = law_terms([9.], kind)[0] @ [2., 0.5] # d is 3
    assert math.isclose(gain, 3 * (2 - 0.5 * second))
    assert fit_law([1., 4., 9.], law_terms([1., 4., 9.], kind) @ [2., 0.5], kind) == pytest.approx((2, 0.5, 0), abs=1e-12)


def fails(check, answer):
    with pytest.raises(AssertionError): check(answer)


def test_exercises_refuse_near_misses():
    right = next(n for n in range(1, 999) if best_of_n_kl(n) >= 3)
    checks.check_1(right)
    for wrong in (..., right - 1, right + 1, math.exp(3)): fails(checks.check_1, wrong)
    checks.check_2(lambda a, b: (a / b / 2)**2)
    for wrong in (lambda a, b: a / b / 2, lambda a, b: math.exp(2 * (a / b - 1)), lambda a, b: None): fails(checks.check_2, wrong)
    def half(worth, points, n, better=True):
        def kept(group):
            ranked = sorted(group, key=points.__getitem__)
            return ranked[n // 2:] if better else ranked[:n // 2]
        means = [sum(worth[i] for i in kept(group)) / (n // 2) for group in combinations(range(len(worth)), n)]
        return sum(means) / len(means)
    checks.check_3(half)
    fails(checks.check_3, best_of_n)
    fails(checks.check_3, lambda w, p, n: half(w, p, n, better=False))
