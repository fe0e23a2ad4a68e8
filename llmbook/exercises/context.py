"What `grade` asks of the answers to the exercises of the chapter `context`."
import math

import numpy as np

from llmbook.evaluation.context import context_gain
from llmbook.evaluation.perplexity import rate


def remembering(documents):
    "A toy reader: an id is cheaper the more often it has occurred, and all are dearer without exactly one begin."
    nats = []
    for ids in documents:
        seen = list(ids[:1])
        paid = 0.
        for token in ids[1:]:
            paid += 2 / (1 + seen.count(token))
            seen.append(token)
        wrong_begins = abs(seen.count(1) - 1)
        nats.append(paid * (1 + wrong_begins))
    return np.array(nats)


def loyal(documents):
    "A toy reader: an id costs 1 in the story that the document began with, and 2 in another; a story is ten ids."
    nats = []
    for ids in documents:
        story = ids[1] // 10
        strange = sum(i // 10 != story for i in ids[1:])
        nats.append(float(len(ids) - 1 + strange))
    return np.array(nats)


BEGINNINGS = [[1, 5, 6, 7, 5, 8], [1, 9, 9, 4], [1, 6, 3, 6, 3, 6, 3, 8], [1, 7]]
SENTENCES = [[5, 6], [9, 4, 4], [3, 6, 5, 8], [7]]


def check_1(answer):
    "A gain from a small table."
    answer = float(answer)
    assert not math.isclose(answer, 1.3 / 3, abs_tol=0.005), "Long sentences count more: sum over sum."
    assert not math.isclose(answer, 2, abs_tol=0.005), "That is nats per sentence."
    assert math.isclose(answer, 0.3, abs_tol=0.005), "Add up the differences, signs included, and all tokens."


def assert_rate(found, right, case):
    "The right mean, and the right error."
    assert found is not None and len(found) == 2, "Return a `Rate`: mean and error."
    same = math.isclose(found[0], right[0], abs_tol=1e-6)
    assert same, f"{case}: {right[0]:.3f} nats per token, not {found[0]:.3f}."
    same = math.isclose(found[1], right[1], abs_tol=1e-6)
    assert same, f"{case}: the mean is right, the error is not."


def shortened(ids, keep):
    "The first id and the last `keep`."
    return ids if len(ids) <= keep + 1 else ids[:1] + ids[-keep:]


def check_2(answer):
    "How far back a reader looks."
    for keep in (1, 3, 100):
        before = [list(ids) for ids in BEGINNINGS]
        cut = [shortened(ids, keep) for ids in before]
        right = context_gain(remembering, before, SENTENCES, cut)
        found = answer(remembering, before, SENTENCES, keep)
        assert before == BEGINNINGS, "The beginnings that were handed in have changed."
        assert_rate(found, right, f"a toy reader, keep {keep}")


def against_all(nats, beginnings, sentences):
    "The gain against every other beginning: each story's strangers are averaged before the rate."
    def cost(before):
        together = [b + s for b, s in zip(before, sentences)]
        return nats(together) - nats(before)
    own = cost(beginnings)
    more = []
    for k in range(1, len(beginnings)):
        strangers = beginnings[k:] + beginnings[:k]
        more.append(cost(strangers) - own)
    return rate(np.mean(more, axis=0), np.array([len(s) for s in sentences]))


def check_3(answer):
    "A gain against all strangers."
    beginnings = [[1, 10*i, 10*i + 1] for i in range(1, 5)]
    sentences = [[10*i + 2]*i for i in range(1, 5)]
    found = answer(loyal, beginnings, sentences)
    assert_rate(found, (1, 0), "a reader that pays one nat per token more after each stranger")
    right = against_all(remembering, BEGINNINGS, SENTENCES)
    found = answer(remembering, BEGINNINGS, SENTENCES)
    assert_rate(found, right, "a reader with a memory")
