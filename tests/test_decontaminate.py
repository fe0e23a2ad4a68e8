"Exactly the words of evaluation text are cut out, whatever the script, and what is dropped has a reason."

import pickle
import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import needs

from llmbook.core import UserError
from llmbook.text.decontaminate import _WORD, evaluation_grams, ignore_common, without_evaluation
from llmbook.text.pipeline import apply_rules, rule_name

ALPHABET = ['a', 'B', 'c', 'dd', 'É', 'İ', '漢', '字', ' ', ' ', ' ', '. ', '-', '\n', '“', '\u2003']
TEXT = st.lists(st.sampled_from(ALPHABET), max_size=40).map(''.join)


def words_of(text): return [word.lower() for word in _WORD.findall(text)]


def grams_of(text, n):
    words = words_of(text)
    return [tuple(words[i:i+n]) for i in range(len(words) - n + 1)]


def words_left(text, known, n):
    words, dirty = words_of(text), set()
    for i, gram in enumerate(grams_of(text, n)):
        if gram in known: dirty |= set(range(i, i + n))
    return [word for i, word in enumerate(words) if i not in dirty]


def some_text(rng, length): return ' '.join(f'word{rng.randrange(3000)}' for _ in range(length))


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3), TEXT, st.integers(1, 4))
def test_the_words_of_a_test_and_no_others(tests, page, n):
    known = {gram for test in tests for gram in grams_of(test, n)}
    if not known:
        with pytest.raises(UserError, match=f'none has {n} words'): evaluation_grams(tests, n)
        return
    document = {'id': 'x', 'text': page, 'url': 'u'}
    result = without_evaluation(document, evaluation_grams(tests, n), window=0, shortest=1, most=10**6)
    wanted = words_left(page, known, n)
    if wanted == words_of(page): assert result is document
    elif isinstance(result, str): assert result == 'evaluation text' and not wanted
    else: assert words_of(result['text']) == wanted and result['url'] == 'u'


def test_windows_and_pieces():
    rng = random.Random(0)
    test, before, after = some_text(rng, 20), some_text(rng, 100), some_text(rng, 100)
    grams = evaluation_grams([test])
    page = {'id': 'x', 'text': f'{before} {test} {after}'}
    text = without_evaluation(page, grams)['text']
    first, last = text.split('\n\n')
    assert before.startswith(first) and after.endswith(last)
    assert len(first) == len(before) + 1 - 200 and abs(len(last) - (len(after) + 1 - 200)) <= 1
    assert page['text'] == f'{before} {test} {after}'  # untouched
    short = f'{before[:300]} {test} {after[-500:]}'  # 100 characters are left of the first part
    assert '\n\n' not in without_evaluation({'text': short}, grams)['text']
    assert without_evaluation({'text': f'{before[:300]} {test}'}, grams) == 'evaluation text'
    assert after.endswith(without_evaluation({'text': f'{before[:50]} {test} {after}'}, grams)['text'])
    assert without_evaluation({'text': f'{before[:300]} {test}'}, grams, window=0)['text'] == before[:300].strip()


@pytest.mark.parametrize('quotes, most, kept', [(9, 10, True), (10, 10, False), (3, 2, False), (1, 2, True)])
def test_too_many_pieces(quotes, most, kept):
    rng = random.Random(0)
    test = some_text(rng, 15)
    text = some_text(rng, 100) + ''.join(f' {test} {some_text(rng, 100)}' for _ in range(quotes))
    result = without_evaluation({'text': text}, evaluation_grams([test]), most=most)
    assert isinstance(result, dict) == kept and (kept or result == 'evaluation text in many places')


def test_as_a_rule():
    grams = evaluation_grams(['one two three four five'], 4)
    rule = partial(without_evaluation, grams=grams)
    again = pickle.loads(pickle.dumps(rule))  # noqa: S301
    assert rule_name(rule) == 'without_evaluation'
    assert apply_rules({'id': '1', 'text': 'ONE: two -- three; four'}, [again]) == (None, 'without_evaluation', 'evaluation text')
    assert apply_rules({'id': '1', 'text': 'one two three'}, [again])[0] == {'id': '1', 'text': 'one two three'}


def test_common_grams():
    rng = random.Random(0)
    proverb, test = some_text(rng, 14), some_text(rng, 30)
    grams = evaluation_grams([proverb, test])
    for n, left in ((3, len(grams.hashes)), (4, len(grams.hashes) - 2)):
        pages = [{'text': f'{proverb} {proverb} {some_text(rng, 5)}'} for _ in range(n)] + [{'text': test}]
        assert len(ignore_common(grams, pages, 3).hashes) == left
    assert np.isin(ignore_common(grams, pages, 3).hashes, grams.hashes).all()


@pytest.mark.slow
@needs('lm_eval', 'peers')
def test_as_the_janitor_cuts():
    "The evaluation harness' own tool, in its Python version, on text without punctuation inside words."
    from lm_eval.decontamination.janitor import Janitor
    rng = random.Random(0)
    tests = [some_text(rng, 30) for _ in range(20)]
    janitor = Janitor(too_dirty_cutoff=10**6)
    for test in tests: janitor.register_contaminant_python(test)
    grams, cut = evaluation_grams(tests), 0
    for i in range(100):
        parts = [some_text(rng, rng.randrange(20, 120)) for _ in range(4)]
        for test in rng.sample(tests, rng.randrange(3)):
            parts.insert(rng.randrange(5), test[:rng.randrange(60, 240)].upper() + '.')
        text = '. '.join(parts)
        result = without_evaluation({'text': text}, grams)
        ours = [] if isinstance(result, str) else result['text'].split('\n\n')
        theirs = janitor.clean_python(text)
        ours, theirs = ([piece.strip() for piece in pieces if len(piece) > 204] for pieces in (ours, theirs))
        cut += theirs != [text]
        assert len(ours) == len(theirs), i
        for a, b in zip(ours, theirs):  # a border is counted in or out by a character
            assert (a in b or b in a) and abs(len(a) - len(b)) <= 2
    assert cut > 30
