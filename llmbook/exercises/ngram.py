"What `grade` asks of the answers to the exercises of the chapter `ngram`."
import math

import numpy as np

from llmbook.model.ngram import Ngram, windows


def check_1(answer):
    "Shares of `b`: of all letters, and of all kinds of pairs."
    raw, kinds = map(float, answer)
    assert math.isclose(raw, 3/10, abs_tol=1e-3), "The first share: how many of the ten letters are b?"
    assert math.isclose(kinds, 1/6, abs_tol=2e-3), "The second: list the pairs, each once; how many of them end in b?"


def check_2(answer):
    "The distribution after any context."
    documents = [[1, 4, 5, 6, 2], [1, 4, 5, 7, 2], [1, 6, 5, 6, 2]]
    for n in (1, 2, 3, 4):
        model = Ngram(n, 8).fit(documents)
        for context in ([1], [1, 4], [1, 4, 5], [1, 3, 3, 4, 5]):
            p = answer(model, context)
            assert p is not None, "It returns nothing so far."
            assert np.shape(p) == (8,), f"One probability for each of 8 ids is needed; here are {np.shape(p)}."
            assert abs(np.sum(p) - 1) < 1e-9, f"Order {n} after {context}: the probabilities add up to {np.sum(p):.3f}."
            true = model.probability(np.array([windows([context + [i]], n, 8)[-1] for i in range(8)]))
            assert np.allclose(p, true), f"Order {n} after {context}: only the last {n - 1} ids count, with blanks before."


def check_3(answer):
    "One step of interpolation."
    for counts, d in (([3, 1, 0, 0], 0.75), ([1, 1, 1, 0], 0.5), ([0, 9, 0, 0], 0.9)):
        shorter = np.array([0.1, 0.2, 0.3, 0.4])
        p = np.asarray(answer(np.array(counts), shorter, d))
        assert (p >= 0).all(), f"Counts {counts}: a probability below zero."
        assert abs(p.sum() - 1) < 1e-9, f"Counts {counts}, d={d}: the probabilities add up to {p.sum():.3f}."
        true = (np.maximum(np.array(counts) - d, 0) + d * np.count_nonzero(counts) * shorter) / sum(counts)
        assert np.allclose(p, true), f"Counts {counts}: what was taken is d for each kind, shared out as `shorter` says."


def check_4(answer):
    "(train, held, vocab_size, order): the best order from 1 to 6."
    train, val, vocab_size, order = answer
    assert sum(map(len, train)) >= 5000 and sum(map(len, val)) >= 500, "Give 5,000 ids to count and 500 held out."
    assert not set(map(tuple, train)) & set(map(tuple, val)), "A held-out document is among those that are counted."
    nats = {n: Ngram(n, vocab_size).fit(train).nats(val).sum() for n in range(1, 7)}
    best = min(nats, key=nats.get)
    assert order in nats, f"{order} is not an order from 1 to 6."
    assert order == best, f"Order {order} costs {nats[order] - nats[best]:.0f} nats more than another one."
