"What `grade` asks of the answers to the exercises of the chapter `ngram`."
import math

import numpy as np

from llmbook.model.ngram import Ngram, windows

_DOCUMENTS = [[1, 4, 5, 6, 2], [1, 4, 5, 7, 2], [1, 6, 5, 6, 2]]  # of exercise 2
_CONTEXTS = [[1], [1, 4], [1, 4, 5], [1, 3, 3, 4, 5]]
_SHORTER = np.array([0.1, 0.2, 0.3, 0.4])  # of exercise 3: what the shorter context says
_STEPS = [([3, 1, 0, 0], 0.75), ([1, 1, 1, 0], 0.5), ([4.25, 0.25, 0, 0], 0.75),
          ([0.5, 0.25, 0, 2], 0.5), ([0.25, 0, 0, 0], 0.9)]  # counts and discounts


def check_1(answer):
    "Shares of `b`: of all letters, and of all kinds of pairs."
    letters, pairs = map(float, answer)
    right = math.isclose(letters, 3/10, abs_tol=1e-3)
    assert right, "The first share: how many of the ten letters are b?"
    right = math.isclose(pairs, 1/6, abs_tol=2e-3)
    assert right, "The second: list each pair once; how many of them end in b?"


def _check_distribution(answer, model, context):
    "One context, asked of one model."
    case = f"Order {model.n} after {context}"
    p = answer(model, context)
    assert p is not None, "It returns nothing so far."
    shape = np.shape(p)
    hint = f"One probability for each of 8 ids is needed; the shape is {shape}."
    assert shape == (8,), hint
    total = np.sum(p)
    hint = f"{case}: the probabilities add up to {total:.3f}."
    assert abs(total - 1) < 1e-9, hint
    grams = []
    for i in range(8):
        rows = windows([context + [i]], model.n, 8)
        grams.append(rows[-1])
    expected = model.probability(np.array(grams))
    right = np.allclose(p, expected)
    hint = f"{case}: only the last {model.n - 1} ids count, with blanks before."
    assert right, hint


def check_2(answer):
    "The distribution after any context."
    for n in range(1, 5):
        model = Ngram(n, 8).fit(_DOCUMENTS)
        for context in _CONTEXTS:
            _check_distribution(answer, model, context)


def _check_step(answer, counts, d):
    "One context's counts, one discount."
    counts = np.array(counts, float)
    p = answer(counts.copy(), _SHORTER.copy(), d)
    p = np.asarray(p)
    case = f"Counts {counts.tolist()}, d={d}"
    assert (p >= 0).all(), f"{case}: a probability below zero."
    total = p.sum()
    hint = f"{case}: the probabilities add up to {total:.3f}."
    assert abs(total - 1) < 1e-9, hint
    kept = np.maximum(counts - d, 0)
    given = (counts - kept).sum() * _SHORTER
    expected = (kept + given) / counts.sum()
    right = np.allclose(p, expected)
    hint = "they add up to one, but what is given is not what was taken, shared as `shorter` says."
    assert right, f"{case}: {hint}"


def check_3(answer):
    "One step of interpolation, with counts that need not be whole numbers."
    for counts, d in _STEPS:
        _check_step(answer, counts, d)
    p = answer(np.zeros(4), _SHORTER.copy(), 0.75)
    right = np.allclose(p, _SHORTER)
    assert right, "All counts zero: this context knows nothing. Who does?"


def check_4(answer):
    "(train, held, vocab_size, order): the best order from 1 to 6."
    train, held, vocab_size, order = answer
    enough = sum(map(len, train)) >= 5000
    enough = enough and sum(map(len, held)) >= 500
    assert enough, "Give 5,000 ids to count and 500 held out."
    counted = set(map(tuple, train))
    leaked = counted.intersection(map(tuple, held))
    assert not leaked, "A held-out document is among those that are counted."
    nats = {}
    for n in range(1, 7):
        model = Ngram(n, vocab_size).fit(train)
        nats[n] = model.nats(held).sum()
    assert order in nats, f"{order} is not an order from 1 to 6."
    best = min(nats.values())
    worse = nats[order] - best
    hint = f"Order {order} costs {worse:.0f} nats more than another one."
    assert worse == 0, hint
