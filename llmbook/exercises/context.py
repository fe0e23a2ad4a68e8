"What `grade` asks of the answers to the exercises of the chapter `context`."
import math

import numpy as np

from llmbook.evaluation.context import context_gain


def remembering(documents):
    "A toy reader: an id costs less the more often it has occurred, and all cost more without exactly one begin."
    def cost(ids):
        paid = sum(2 / (1 + ids[:i].count(ids[i])) for i in range(1, len(ids)))
        return paid * (1 + abs(ids.count(1) - 1))
    return np.array([cost(list(ids)) for ids in documents])


def frequencies_only(documents):
    "A toy reader that looks at nothing but the id itself."
    return np.array([sum(0.1 * i for i in ids[1:]) for ids in documents])


BEGINNINGS = [[1, 5, 6, 7, 5, 8], [1, 9, 9, 4], [1, 6, 3, 6, 3, 6, 3, 8], [1, 7]]
OTHERS = [[1, 7, 2], [1, 4], [1, 5, 5, 5, 8], [1, 9, 7]]
SENTENCES = [[5, 6], [9, 4, 4], [3, 6, 5, 8], [7]]


def check_1(answer):
    "A gain from a small table."
    answer = float(answer)
    assert not math.isclose(answer, 1.3 / 3, abs_tol=0.005), "Long sentences count more: sum over sum."
    assert not math.isclose(answer, 2, abs_tol=0.005), "That is nats per sentence."
    assert math.isclose(answer, 0.3, abs_tol=0.005), "Add up the differences, signs included, and all tokens."


def check_2(answer):
    "How far back a reader looks."
    for keep in (1, 3, 100):
        def cut(ids, keep=keep): return ids if len(ids) <= keep + 1 else ids[:1] + ids[-keep:]
        right = context_gain(remembering, BEGINNINGS, SENTENCES, [cut(ids) for ids in BEGINNINGS])
        before = [list(ids) for ids in BEGINNINGS]
        found = answer(remembering, before, [list(ids) for ids in SENTENCES], keep)
        assert found is not None and len(found) == 2, "Return a `Rate`: mean and error."
        assert before == BEGINNINGS, "The beginnings that were handed in have changed."
        assert math.isclose(found[0], right.mean, abs_tol=1e-6), (
            f"keep {keep}: {right.mean:.3f} nats per token for a toy reader, not {found[0]:.3f}.")
        assert math.isclose(found[1], right.error, abs_tol=1e-6), f"keep {keep}: the mean is right, the error is not."


def check_3(answer):
    "A gain that a unigram does not have."
    found = answer(frequencies_only, BEGINNINGS, SENTENCES, OTHERS)
    assert found is not None and len(found) == 2, "Return a `Rate`: mean and error."
    assert abs(found[0]) < 1e-9, f"A reader of single ids gains {found[0]:.3f}; it must be 0. What else differs between the two?"
    found = answer(remembering, BEGINNINGS, SENTENCES, OTHERS)
    right = context_gain(remembering, BEGINNINGS, SENTENCES, OTHERS)
    assert math.isclose(found[0], right.mean, abs_tol=1e-6), f"A reader with a memory gains {right.mean:.3f}, not {found[0]:.3f}."
    assert math.isclose(found[1], right.error, abs_tol=1e-6), "The mean is right, the error is not."
