"Words, shingles and signatures against Python's own strings and sets, and against datasketch."

import math
import random
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs

from llmbook.text.dedup import pair_similarities
from llmbook.text.minhash import _EMPTY, _UNSPACED, SIZE, _bin_minima, _left_of, _word_hashes, shingle_hashes, signatures

OWN = ''.join(f'{chr(a)}-{chr(b)}' for a, b in _UNSPACED)
LETTERS = 'abcABC.,-é\u00a0\u3000 \n\t\x00\x1f漢字かแม한글😀\U00020000\U0002a6df'
TEXTS = st.lists(st.text(LETTERS, max_size=60), min_size=1, max_size=6)


def words_of(text):
    "What a word is, said with a regular expression."
    text = text.lower().replace('\xa0', ' ').replace('\u3000', ' ')
    return re.findall(rf'[{OWN}][^{OWN}\x00-\x20]*|[^{OWN}\x00-\x20]+', text)


def shingles(text, n=5):
    words = words_of(text)
    return [tuple(words[i:i+n]) for i in range(len(words) - n + 1)]


def jaccard(a, b): return len(a & b) / len(a | b) if a | b else 0


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_equal_numbers_mean_equal_words_and_shingles(texts, n):
    numbers, starts = _word_hashes(texts)
    words = [words_of(text) for text in texts]
    assert np.diff(starts).tolist() == [len(w) for w in words] and len(numbers) == starts[-1]
    named = dict(zip(sum(words, []), numbers.tolist()))
    assert [named[w] for w in sum(words, [])] == numbers.tolist() and len(set(named.values())) == len(named)
    hashes, starts = shingle_hashes(texts, n)
    every = [shingles(text, n) for text in texts]
    assert np.diff(starts).tolist() == [len(s) for s in every]
    pairs = set(zip(sum(every, []), hashes.tolist()))
    assert len(pairs) == len(set(sum(every, []))) == len(set(hashes.tolist()))


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_pairs_as_python_has_them(texts, n):
    left, right = np.divmod(np.arange(len(texts)**2), len(texts))
    sets = [set(shingles(text, n)) for text in texts]
    wanted = [jaccard(sets[i], sets[j]) for i, j in zip(left, right)]
    assert pair_similarities(texts, left, right, n).tolist() == wanted


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_a_signature_depends_on_its_own_text(texts):
    together = signatures(texts * 3)
    for text, one in zip(texts * 3, together): assert (signatures([text])[0] == one).all()
    assert ((together == _EMPTY).all(1) == [not shingles(text) for text in texts * 3]).all()


def test_long_words_and_small_differences():
    words = ['x'*n + c + 'x'*m for n in (0, 1, 6, 7, 8, 55, 56, 63, 64, 500) for m in (0, 1, 7, 8, 500) for c in 'abAé']
    words = [w for w in {w.lower() for w in words}]
    numbers, starts = _word_hashes(words)
    assert len(numbers) == len(words) == len(set(numbers.tolist()))
    numbers, _ = _word_hashes([' '.join(map(str, range(200_000)))])  # a structure that a bad hash would keep
    assert len(np.unique(numbers)) == 200_000
    high, low = numbers >> np.uint64(57), numbers & np.uint64(127)
    for bits in (high, low): assert np.bincount(bits.astype(int), minlength=128).std() < 1.3 * math.sqrt(200_000 / 128)


@pytest.mark.parametrize('text, n', [
    ('The CAT, sat.', 3), ('ネコは猫', 4), ('かな。カナ', 5), ('แมว', 3), ('ລາວ', 3), ('ខ្មែរ', 5), ('မြန်မာ', 6), ('한국어 글', 2),
    ('𠀀𪛖', 2), ('豈更', 2), ('привет мир', 2), ('नमस्ते दुनिया', 2), ('a😀b', 1), ('a\xa0b\u3000c', 3)])
def test_scripts(text, n): assert len(_word_hashes([text])[0]) == n


def test_shingles_of_few_words_fill_all_endings():
    "Of all runs of thirteen a and b; without the last mix their numbers keep the structure of the words."
    numbers = shingle_hashes([' '.join(word) for word in product('ab', repeat=13)], 13)[0]
    for bits in (numbers >> np.uint64(57), numbers & np.uint64(127)):
        counts = np.bincount(bits.astype(int), minlength=128)
        assert 0.6 * 8 < counts.std() < 1.3 * 8  # 64 each, as by chance


def test_the_order_of_words_and_the_border_of_texts_matter():
    assert len(set(shingle_hashes(['a b', 'b a', 'a a', 'b b'], 2)[0].tolist())) == 4
    assert shingle_hashes(['one two three', 'four five six'], 4)[1].tolist() == [0, 0, 0]
    a, b = shingle_hashes(['one two three', 'four'], 3), shingle_hashes(['one two three', 'five'], 3)
    assert a[0].tolist() == b[0].tolist() and len(a[0]) == 1


def test_odd_input():
    assert len(signatures([])) == 0 and signatures(['', ' \n']).shape == (2, SIZE)
    assert (signatures(['\ud800 b c d e f', 'é' * 100_000]) == _EMPTY).all(1).tolist() == [False, True]
    assert pair_similarities(['a b c d e'], np.array([0]), np.array([0])).tolist() == [1]
    long = 'a b c d e ' * 50_000
    assert pair_similarities([long, 'x ' + long], np.array([0]), np.array([1]))[0] == pytest.approx(5 / 6)


def test_the_next_full_bin_to_the_left():
    empty = np.ones((2, SIZE), bool)
    empty[0, [3, 50, 100]] = empty[1, 7] = False
    assert _left_of(empty, np.zeros(4, int), np.array([10, 60, 120, 1])).tolist() == [3, 50, 100, 100]
    assert _left_of(empty, np.array([0, 1, 1]), np.array([127, 6, 8])).tolist() == [100, 7, 7]


@pytest.mark.parametrize('words, spread', [(7, 0.2), (8, 0.15), (12, 0.07), (20, 0.035)])
def test_the_spread_of_very_short_texts(words, spread):
    rng = random.Random(0)
    texts = [' '.join(str(rng.randrange(10**9)) for _ in range(words)) for _ in range(2000)]
    shorter = [text.rsplit(' ', 1)[0] for text in texts]
    errors = (signatures(texts) == signatures(shorter)).mean(1) - (words - 5) / (words - 4)
    assert abs(errors.mean()) < 0.015 and errors.std() < spread


def planted(length, similarity, n, seed=0):
    "Pairs of texts of random words, about that similar."
    rng, pairs = random.Random(seed), []
    changes = max(1, round(length * (1 - similarity) / (1 + similarity) / 5))
    for _ in range(n):
        words = [str(rng.randrange(10**9)) for _ in range(length)]
        other = list(words)
        for i in rng.sample(range(length), min(changes, length)): other[i] = str(rng.randrange(10**9))
        pairs.append((' '.join(words), ' '.join(other)))
    return pairs


@pytest.mark.parametrize('length', [7, 14, 30, 100, 400, 2000])
@pytest.mark.parametrize('similarity', [0.3, 0.8])
def test_estimates_are_right_on_average(length, similarity):
    pairs = planted(length, similarity, 200_000 // (length + 200))
    one, other = zip(*pairs)
    truth = pair_similarities(one + other, np.arange(len(one)), np.arange(len(one)) + len(one))
    errors = (signatures(one) == signatures(other)).mean(1) - truth
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors)) + 0.002
    bound = math.sqrt(truth.mean() * (1 - truth.mean()) * (1 / SIZE + 1 / (length + 1)))
    assert length < 30 or errors.std() < 1.2 * bound  # a handful of shingles share the bins unevenly


def test_bins_hold_minima():
    "Each full bin has the smallest low half among the shingles whose seven highest bits name it."
    texts = [' '.join(map(str, range(i, i + 300))) for i in range(5)]
    minima = _bin_minima(texts)
    for text, row in zip(texts, minima):
        hashes = shingle_hashes([text])[0]
        bins, low = hashes >> np.uint64(57), hashes.astype(np.uint32)
        assert row.tolist() == [low[bins == b].min(initial=_EMPTY) for b in range(SIZE)]


@pytest.mark.slow
@needs('datasketch', 'peers')
def test_as_good_as_datasketch():
    from datasketch import MinHash
    for length in (60, 300):
        one, other = zip(*planted(length, 0.7, 600))
        truth = pair_similarities(one + other, np.arange(len(one)), np.arange(len(one)) + len(one))
        def theirs(texts): return MinHash.bulk([[' '.join(s).encode() for s in shingles(t)] for t in texts], num_perm=SIZE)
        peers = np.array([a.jaccard(b) for a, b in zip(theirs(one), theirs(other))]) - truth
        ours = (signatures(one) == signatures(other)).mean(1) - truth
        assert abs(ours.mean()) < 0.006 and ours.std() < 1.1 * peers.std()
