"Kneser-Ney by arrays against the formula in a dictionary, as a distribution, and its hash."

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from llmbook.core import UserError
from llmbook.model.ngram import Ngram, _keys_of, _look_up, _tally, uniform_nats, windows

V = 7
FEW = settings(max_examples=40, deadline=None, derandomize=True)
DOCUMENTS = st.lists(st.lists(st.integers(0, V - 1), min_size=2, max_size=15), min_size=1, max_size=6)


def padded(ids, n): return [V] * (n - 2) + ids if n > 1 else ids[1:]


def slow_grams(documents, n):
    return [tuple(p[i:i+n]) for ids in documents for p in [padded(ids, n)] for i in range(len(p) - n + 1)]


def slow_p(documents, gram, d):
    "The formula, with sets of n-grams in place of counts of counts."
    grams = Counter(slow_grams(documents, len(gram)))
    p = 1 / V
    for k in range(1, len(gram) + 1):
        if k == len(gram): counts = grams
        else: counts = Counter(g[-k:] for g in {g[-k-1:] for g in grams})  # once for each id before it
        after = {g: c for g, c in counts.items() if g[:-1] == gram[-k:-1]}
        if not after: continue
        own = max(after.get(gram[-k:], 0) - d, 0)
        p = (own + d * len(after) * p) / sum(after.values())
    return p


@FEW
@given(DOCUMENTS, DOCUMENTS, st.integers(1, 4), st.floats(0.1, 0.9))
def test_equal_to_the_formula(train, val, n, d):
    grams = windows(val, n, V)
    assert list(map(tuple, grams.tolist())) == slow_grams(val, n)
    p = Ngram(n, V, d).fit(train).probability(grams)
    assert np.allclose(p, [slow_p(train, tuple(g), d) for g in grams.tolist()], rtol=1e-10)


@FEW
@given(DOCUMENTS, st.integers(1, 5), st.floats(0, 1), st.integers(0, 9))
def test_all_next_ids_add_up_to_one(train, n, d, seed):
    model = Ngram(n, V, d).fit(train)
    contexts = np.random.default_rng(seed).integers(V + 1, size=(30, n - 1))  # mostly unseen, some of blanks
    contexts = np.concatenate([contexts, windows(train, n, V)[:, :-1]])
    grams = np.concatenate([np.repeat(contexts, V, 0), np.tile(np.arange(V), len(contexts))[:, None]], 1)
    p = model.probability(grams)
    assert (p >= 0).all() and np.allclose(p.reshape(-1, V).sum(1), 1, atol=1e-12)


@FEW
@given(DOCUMENTS, st.integers(1, 4))
def test_nats_are_those_of_the_documents(documents, n):
    model = Ngram(n, V).fit(documents)
    apart = [model.nats([d])[0] for d in documents]  # no context from the document before
    assert np.allclose(model.nats(documents), apart)
    assert np.allclose(model.nats(documents + [[1]]), [*apart, 0])  # nothing to guess in it
    assert np.allclose(uniform_nats(documents, V), [(len(d) - 1) * math.log(V) for d in documents])


def test_bigram_keeps_the_counts_of_tokens():
    "Kneser and Ney's condition: summed over what was read, the bigram model expects each token as often as it came."
    rng = np.random.default_rng(0)
    documents = [rng.choice(V, 200, p=np.arange(1, V + 1) / 28).tolist() for _ in range(20)]
    model, grams = Ngram(2, V).fit(documents), windows(documents, 2, V)
    asked = np.stack([np.repeat(grams[:, 0], V), np.tile(np.arange(V), len(grams))], 1)
    expected = model.probability(asked).reshape(-1, V).sum(0)
    assert np.allclose(expected, np.bincount(grams[:, 1], minlength=V), rtol=0.01)


def test_a_frequent_word_of_one_context_is_not_likely_elsewhere():
    lama, cat, dalai, black = range(4)
    text = [4, *[dalai, lama] * 6, 4, cat, 5, cat, 6, cat]
    bigram = Ngram(2, V).fit([text])
    p = bigram.probability(np.array([[black, lama], [black, cat], [dalai, lama], [dalai, cat]]))
    assert p[1] > p[0] and p[2] > 0.8 > 0.1 > p[3]


@pytest.mark.parametrize('shape', [(1200, 1200), (34,) * 4, *(pytest.param(shape, marks=pytest.mark.slow)
                                                                   for shape in ((110, 110, 110), (17,) * 5))])
def test_keys_never_meet(shape):
    N = math.prod(shape)
    ids = np.stack(np.unravel_index(np.arange(N), shape), 1)
    for grams in (ids, ids + 50_000, ids * 64):
        keys = _keys_of(grams)
        assert len(np.unique(keys)) == N
        upper = np.unique(keys >> np.uint64(32), return_counts=True)[1]
        assert (upper * (upper - 1) // 2).sum() < 3 * N * N / 2**33  # not much worse than chance


def test_tally_and_look_up():
    grams = np.random.default_rng(0).integers(5, size=(500, 3))
    (keys, counts, contexts, total, kinds), distinct = _tally(grams)
    true = Counter(map(tuple, grams.tolist()))
    assert sorted(map(tuple, distinct.tolist())) == sorted(true)
    assert _look_up(keys, counts, _keys_of(distinct)).tolist() == [true[tuple(g)] for g in distinct.tolist()]
    heads = _keys_of(distinct[:, :-1])
    def after(h): return [c for g, c in true.items() if g[:2] == tuple(h[:2])]
    assert _look_up(contexts, total, heads).tolist() == [sum(after(h)) for h in distinct.tolist()]
    assert _look_up(contexts, kinds, heads).tolist() == [len(after(h)) for h in distinct.tolist()]
    assert _look_up(keys, counts, _keys_of(grams[:3] + 9)).tolist() == [0, 0, 0]


def test_mistakes_have_one_line():
    with pytest.raises(UserError, match='no text to count'): Ngram(3, V).fit([])
    with pytest.raises(UserError, match='order 0'): Ngram(0, V)
