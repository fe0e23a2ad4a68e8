"Repetition: shares by the definition, thresholds as published, and datatrove as the authority."
import pickle
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.lesson import grade
from llmbook.text import repetition as R
from llmbook.text.corpus import pydoc_documents, world_documents
from llmbook.text.pipeline import apply_rules
from llmbook.text.repetition import REPETITION, limit_duplicate_parts, limit_repeated_ngrams, limit_top_ngrams
from needs import needs

few_words = st.lists(st.sampled_from(['a', 'bb', 'ccc', 'd']), max_size=40)


def by_definition(words, n):
    "The share of characters in n-grams that occurred before, word by word."
    ngrams = [tuple(words[i:i+n]) for i in range(len(words) - n + 1)]
    inside = [any(0 <= i - k < len(ngrams) and ngrams[i-k] in ngrams[:i-k] for k in range(n)) for i in range(len(words))]
    return sum(len(word) for word, mark in zip(words, inside) if mark) / max(1, len(''.join(words)))


@settings(max_examples=150, deadline=None)
@given(few_words, st.integers(1, 11))
def test_repeated_share_is_its_definition(words, n):
    share = R._repeated_share(words, n)
    assert share == by_definition(words, n) and 0 <= R._repeated_share(words, n + 1) <= share < 1


@settings(max_examples=150, deadline=None)
@given(few_words, st.integers(1, 5))
def test_top_share(words, n):
    ngrams = [tuple(words[i:i+n]) for i in range(len(words) - n + 1)]
    most = max(map(ngrams.count, ngrams), default=0)
    shares = [0.0] if most < 2 else []
    for ngram in {ngram for ngram in ngrams if ngrams.count(ngram) == most > 1}:
        inside = {i + k for i, other in enumerate(ngrams) if other == ngram for k in range(n)}
        shares.append(sum(len(words[i]) for i in inside) / len(''.join(words)))
    assert R._top_share(words, n) in shares


def page(text): return {'id': 'page', 'text': text}


def numbers(n): return [f'w{i:04}' for i in range(n)]  # words that are all different, of five characters


@pytest.mark.parametrize('text, reason', [
    ('\n'.join(['a'] * 4 + [c for c in 'bcdefgh']), ''),  # 3 of 11 lines, 3 of 11 characters: over one fifth
    ('\n'.join(['a'] * 4 + [c * 9 for c in 'bcdefg']), ''),  # 3 of 10 is not more than 0.3
    ('\n'.join(['a'] * 4 + [c * 9 for c in 'bcdef']), 'too many duplicate lines'),
    ('a\n\nb\n\n' * 2 + 'ccccccccc\n\nddddddd', 'too many duplicate paragraphs'),
    ('one line\nanother one\n\none line\nanother one', 'too many duplicate paragraphs'), ('', '')])
def test_lines_and_paragraphs(text, reason):
    document = page(text)
    result = limit_duplicate_parts(document, characters=1)
    assert result == reason if reason else result is document


def test_characters_of_lines():
    text = 'xxxx\nxxxx\n' + '\n'.join(chr(97 + i) * 3 for i in range(4))  # 4 of 20 characters
    assert limit_duplicate_parts(page(text))['text'] == text
    assert limit_duplicate_parts(page(text[:-1])) == 'too many duplicate lines'


@pytest.mark.parametrize('n, share', [(2, 0.20), (3, 0.18), (4, 0.16)])
def test_thresholds_of_the_most_frequent(n, share):
    words = numbers(500)
    times = round(share * 500 / n)
    for i in range(times): words[i*n*2:i*n*2+n] = [f'v{k:04}' for k in range(n)]
    on_it = R._top_share(words, n)
    assert abs(on_it - share) < 0.01
    limits = ((n, on_it),)
    assert isinstance(limit_top_ngrams(page(' '.join(words)), most=limits), dict)
    assert limit_top_ngrams(page(' '.join(words)), most=((n, on_it - 1e-9),)) == 'one phrase too often'
    assert dict(R.limit_top_ngrams.__wrapped__.__defaults__[0])[n] == share


@pytest.mark.parametrize('n', range(5, 11))
def test_thresholds_of_repeated_ones(n):
    share = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}[n]
    copied = round(share * 1000)
    def text(copied, other=numbers(1000)):  # runs of exactly n words that occurred before
        words = list(other)
        for i in range(copied // n): words[500+i*(n+1):500+i*(n+1)+n] = other[i*n:i*n+n]
        return page(' '.join(words))
    fits, too_many = copied - n, copied + n
    assert isinstance(limit_repeated_ngrams(text(fits)), dict)
    assert limit_repeated_ngrams(text(too_many), most=((n, share),)) == 'too many repeated phrases'
    assert limit_repeated_ngrams(text(too_many)) == 'too many repeated phrases'


def test_promises_of_a_rule():
    code = page('a\n' * 9) | {'meta': {'format': 'code'}}
    for rule in map(pickle.loads, map(pickle.dumps, REPETITION)):
        assert rule(code) is code
        for text in ('', 'one', 'one two three four five six'):
            document = page(text)
            assert rule(document) is document


def test_limits_in_any_order():
    words = numbers(40)
    text = ' '.join(word for i in range(0, 40, 5) for word in words[i:i+5] + words[i:i+5] + [f'x{i:04}'])
    limits = (5, 0.3), (10, 0.3)  # half of it is repeated in runs of five, nothing in runs of ten
    for most in (limits, limits[::-1]): assert limit_repeated_ngrams(page(text), most=most) == 'too many repeated phrases'


def test_answers_to_exercises_that_look_right():
    assert not grade('repetition.1', (5, 6)) and not grade('repetition.1', (6,))
    assert not grade('repetition.2', lambda words: 0)
    assert not grade('repetition.3', lambda text, source, n: 0)
    assert not grade('repetition.4', lambda texts, n, sizes: dict.fromkeys(sizes, 0.0))


@pytest.mark.slow
@needs('datatrove', 'peers')
def test_datatrove_but_for_what_is_explained():
    from datatrove.data import Document
    from datatrove.pipeline.filters import gopher_repetition_filter as theirs
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Splitter(WordTokenizer):
        def word_tokenize(self, text): return text.split()
        def sent_tokenize(self, text): return [text]
        def span_tokenize(self, text): return [(0, len(text))]

    samples = [' '.join(document['text'].split()) for document in [*pydoc_documents(), *world_documents(700)]]
    samples += [' '.join(words[i:i+150]) for words in map(str.split, samples[:434]) for i in range(0, len(words), 150)]
    assert len(samples) > 3000
    their_filter = theirs.GopherRepetitionFilter(language=Splitter(''))

    def top(ngrams):  # marked, and only if it occurs twice
        words = ngrams[0].split() + [ngram.split()[-1] for ngram in ngrams[1:]]
        return R._top_share(words, len(ngrams[0].split())) * len(' '.join(words))

    def repeated(words, n): return R._repeated_share(words, n) * len(' '.join(words))

    def refused(text): return their_filter.filter(Document(text=text, id='')) is not True
    ours = [apply_rules(page(text), REPETITION)[0] is None for text in samples]
    assert sum(ours) > 100
    as_installed = [refused(text) for text in samples]
    assert sum(a != b for a, b in zip(ours, as_installed)) < 0.1 * len(samples)
    with patch.multiple(theirs, find_top_duplicate=top, find_all_duplicate=repeated):
        assert [refused(text) for text in samples] == ours
