"What `grade` asks of the answers to the exercises of the chapter `compare`."

import math
import random


def check_1(answer):
    "Sharper or better?"
    assert isinstance(answer, tuple) and len(answer) == 2, (
        "Give a pair: True or False, and a number."
    )
    learned, by = answer
    assert learned is False, (
        "Compare the greedy answers: no temperature changes those."
    )
    assert math.isclose(by, -0.2, abs_tol=1e-6), (
        "The policy's greedy answers, less the start's."
    )


def _curves(kind, n, scale, rng):
    "Curves of a run that fails in one way, or is healthy."

    def line(begin, end):
        noise = 0.03 * abs(end - begin + 0.1)
        return [
            begin + (end - begin) * i / (n - 1) + noise * rng.uniform(-1, 1)
            for i in range(n)
        ]

    curves = {
        'reward': line(-scale, scale),
        'length': line(10 * scale, 9 * scale),
        'entropy': line(0.4, 0.22),
    }
    curves['kl'] = [1.5 * (1 - math.exp(-6 * i / n)) for i in range(n)]
    curves['uneven'] = [1.0 - 0.1 * rng.random() for _ in range(n)]
    if kind == 'kl':
        curves |= {
            'kl': [150 * (i / n) ** 2 for i in range(n)],
            'reward': line(-scale, -4 * scale),
        }
    if kind == 'length':
        curves['length'] = line(10 * scale, 45 * scale)
    if kind == 'entropy':
        curves |= {
            'entropy': [0.4 * math.exp(-5 * i / n) for i in range(n)],
            'uneven': line(1, 0.3),
        }
    if kind == 'nothing':
        flat = dict.fromkeys(('uneven', 'reward', 'kl'), [0.0] * n)
        curves |= flat | {
            'length': line(10 * scale, 10 * scale),
            'entropy': line(0.4, 0.4),
        }
    return curves


def check_2(answer):
    "A watchman."
    rng = random.Random(0)
    for kind in ('', 'kl', 'length', 'entropy', 'nothing'):
        for n, scale in ((20, 1.0), (60, 3.0), (200, 0.5)):
            said = answer(_curves(kind, n, scale, rng))
            assert said == kind, (
                f"A run of {n} steps, {kind or 'healthy'}: it says {said!r}."
            )


def check_3(answer):
    "How many prompts."
    assert answer != 900, "Both means have an error."
    assert abs(answer - 1800) <= 5, (
        "The variance of a difference of two independent means is the sum of theirs."
    )
