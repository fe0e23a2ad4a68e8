"What `grade` asks of the answers to the exercises of the chapter `confusion`."

import math
import random

import numpy as np


def check_1(answer):
    "How far a rare alarm can be trusted."
    answer = float(answer)
    assert abs(answer - 0.8) > 0.01, (
        "That is the recall: the share of the urgent letters that is found."
    )
    assert abs(answer - 0.895) > 0.01, "That is the accuracy."
    assert abs(answer - 40 / 135) < 0.006, (
        "Count the letters that are called urgent, and how many of those are."
    )


def check_2(answer):
    "Accurate, and of little use."
    matrix = np.array(answer)
    assert matrix.shape == (3, 3), f"Three rows of three counts, not {matrix.shape}."
    assert (matrix >= 0).all() and (matrix == matrix.round()).all(), (
        "Counts are whole numbers, and not negative."
    )
    right = matrix.diagonal()
    assert (right > 0).all(), "Every class needs a row that was guessed right."
    accuracy = right.sum() / matrix.sum()
    assert accuracy >= 0.9, f"The accuracy is {accuracy:.2f}: let one class be far more frequent."
    macro = (2 * right / (matrix.sum(0) + matrix.sum(1))).mean()
    assert macro <= 0.5, f"The macro F1 is {macro:.2f}: let the rare classes be missed more often."


def _f1(threshold, chances, labels):
    "F1 of class 1 with a threshold."
    said = [chance >= threshold for chance in chances]
    return 2 * sum(a and b for a, b in zip(said, labels)) / (sum(said) + sum(labels))


def check_3(answer):
    "A threshold for the largest F1."
    rng = random.Random(0)
    cases = [
        ([0.9, 0.8, 0.3, 0.2], [1, 0, 1, 0]),
        ([0.2, 0.1], [0, 1]),
        ([0.6, 0.6, 0.4], [1, 0, 1]),
    ]
    for _ in range(20):
        labels = [rng.random() < 0.3 for _ in range(12)]
        labels[0] = True
        cases.append(
            (
                [round(rng.random() * 0.5 + 0.4 * label, 3) for label in labels],
                [int(label) for label in labels],
            )
        )
    for chances, labels in cases:
        found = answer(list(chances), list(labels))
        assert found is not None, "Return a threshold."
        assert any(math.isclose(found, chance) for chance in chances), (
            f"{found} is not among the chances."
        )
        reached = _f1(min(chances, key=lambda chance: abs(chance - found)), chances, labels)
        best = max(_f1(chance, chances, labels) for chance in chances)
        assert reached > best - 1e-9, (
            f"For one case your threshold gives an F1 of {reached:.2f}, and {best:.2f} is possible: try them all."
        )


def check_4(answer):
    "A difference on the same rows."

    def found(first, second):
        pair = answer(list(first), list(second))
        assert pair is not None and len(pair) == 2, "Return two numbers."
        return float(pair[0]), float(pair[1])

    same = found([True, False, True, True], [True, False, True, True])
    assert abs(same[0]) < 1e-9, "Equal answers have no difference."
    assert abs(same[1]) < 1e-9, "Two models that never disagree have no error in their difference."
    both = [True] * 390 + [False] * 80
    mean, error = found(both + [True] * 20 + [False] * 10, both + [False] * 20 + [True] * 10)
    assert math.isclose(mean, 0.02, abs_tol=1e-6), (
        f"The first has ten more of 500 rows right, which is not {mean:.3f}."
    )
    assert error < 0.02 or error > 0.03, (
        "That is the error of two separate draws; the rows are the same."
    )
    assert math.isclose(error, math.sqrt((30 / 500 - 0.02**2) / 500), rel_tol=0.01), (
        f"Not {error:.4f}: the error of a mean is the deviation over the root of the number of rows."
    )
