"What `grade` asks of the answers to the exercises of the chapter `overoptimise`."

import math
import random
from itertools import combinations


def check_1(answer):
    "The number of answers."
    assert isinstance(answer, int), "give a whole number"

    def away(n):
        return math.log(n) + 1 / n - 1

    assert away(answer) >= 3, (
        f"{answer} answers are {away(answer):.3f} nats away: too few"
    )
    assert away(answer - 1) < 3, "fewer are enough"


def _gain(kl, alpha, beta):
    "The law of best-of-n."
    return math.sqrt(kl) * (alpha - beta * math.sqrt(kl))


def check_2(peak):
    "The best distance."
    for alpha, beta in ((1.5, 0.5), (0.8, 0.4), (2.0, 1.9)):
        kl = peak(alpha, beta)
        assert kl is not None, "it returns nothing"
        here, less, more = (
            _gain(nats, alpha, beta) for nats in (kl, kl * 0.98, kl * 1.02)
        )
        assert here >= max(less, more), (
            f"for alpha {alpha}, beta {beta} the law is higher beside {kl:.2f} nats"
        )


def check_3(half_of_n):
    "The better half."
    rng = random.Random(3)
    for size, n in ((4, 2), (7, 4), (6, 6)):
        worth, points = ([rng.gauss(0, 1) for _ in range(size)] for _ in range(2))
        total, groups = 0.0, list(combinations(range(size), n))
        for group in groups:
            ranked = sorted((points[i], worth[i]) for i in group)
            total += sum(value for _, value in ranked[-(n // 2) :]) / (n // 2)
        given = half_of_n(worth, points, n)
        assert given is not None, "it returns nothing"
        assert math.isclose(given, total / len(groups), abs_tol=1e-9), (
            f"with {n} of {size} answers it gives {given:.4f}"
        )
