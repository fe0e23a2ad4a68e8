"Lower-casing and stop words: what was thrown away comes back from the decisions alone, and every decision is paid for."
import math
import random

import pytest

from llmbook.train.lowered import (_LETTERS, _PIECE, STOP_WORDS, Decision, Restorer, _raised, case_decisions, lowered,
                                   stop_word_decisions, without_stop_words)

HARD = ['', ' ', 'the', 'The the THE tHe', 'a-the  b', 'İstanbul ß STRASSE ẞ ſ K', 'ΣΑΣ ας Of\nthe', "isn't it. It IS\t",
        '  the ', 'x_a a_x the1 1the', 'Dž dž DŽ', 'ﬁ ﬀ the']


def spell(low, outcomes):
    case = next(outcomes)
    if case == 'title': return _raised(low[0]) + low[1:]
    if case == 'upper': return _raised(low)
    if case == 'lower': return low
    return ''.join(_raised(letter) if next(outcomes) == 'True' else letter for letter in low)


def with_case(low, outcomes): return _LETTERS.sub(lambda found: spell(found[0], outcomes), low)


def with_stop_words(stripped, outcomes):
    parts = []
    for piece in [*_PIECE.findall(stripped), '']:
        while word := next(outcomes): parts.append(spell(word, outcomes) + (' ' if next(outcomes) == 'True' else ''))
        parts.append(piece)
    return ''.join(parts)


def texts():
    rng = random.Random(0)
    words = ['the', 'Of', 'IS', 'cat', 'Will', 'McX', 'ß', 'İ', 'a_b', 'not', '7', 'Σας']
    marks = [' ', '  ', '\n', '. ', '-', ', ', "'"]
    for _ in range(300): yield ''.join(rng.choice(words) + rng.choice(marks) for _ in range(rng.randrange(12)))


@pytest.mark.parametrize('text', HARD)
def test_hard_texts_come_back(text):
    assert with_case(lowered(text), iter([c.outcome for c in case_decisions(text)])) == text
    assert with_stop_words(without_stop_words(text), iter([c.outcome for c in stop_word_decisions(text)])) == text


def test_texts_come_back():
    for text in texts():
        assert with_case(lowered(text), iter([c.outcome for c in case_decisions(text)])) == text
        assert with_stop_words(without_stop_words(text), iter([c.outcome for c in stop_word_decisions(text)])) == text


@pytest.mark.parametrize('text', HARD)
def test_lowered_keeps_length_and_stays(text):
    low = lowered(text)
    assert len(low) == len(text) and lowered(low) == low


def test_case_contexts_are_known_from_the_lowered_text():
    "Two texts that differ only in case ask their first decisions in the same contexts."
    one, two = (list(case_decisions(text)) for text in ('Will it? it will', 'will IT? It WILL'))
    assert [decision.contexts for decision in one] == [decision.contexts for decision in two]


def test_gap_contexts_hold_nothing_that_comes_later():
    one, two = (list(stop_word_decisions(text)) for text in ('names of the files', 'names of a files'))
    known = [decision.outcome for decision in one].index('the') + 1 # the first decision that differs must not know itself
    assert [decision.contexts for decision in one[:known]] == [decision.contexts for decision in two[:known]]


def test_another_list():
    assert without_stop_words('the cat sat', frozenset({'cat'})) == 'the sat'
    gaps = [decision for decision in stop_word_decisions('the cat sat', frozenset({'cat'})) if decision.contexts[0][0] == 'gap']
    assert {decision.among for decision in gaps} == {2} and [decision.outcome for decision in gaps] == ['', 'cat', '', '']
    assert all(word == lowered(word) for word in STOP_WORDS)


def test_probabilities_add_up():
    "In contexts that were seen often, once and never."
    words = [*'abc', '']
    restorer = Restorer().fit(Decision(word, 4, (('x',), ('x', n % 2))) for n, word in enumerate('aabbbaab'))
    for contexts in ((), (('x',),), (('x',), ('x', 0)), (('x',), ('x', 9)), (('y',), ('y', 1))):
        assert math.isclose(sum(2 ** -restorer.bits([Decision(word, 4, contexts)]) for word in words), 1)


def test_bits_by_hand():
    assert Restorer().bits([Decision('a', 8, ())]) == 3
    restorer = Restorer().fit([Decision('title', 2, ('will',))] * 3)
    assert math.isclose(restorer.bits([Decision('lower', 2, ('will',))]), 3)
    assert math.isclose(restorer.bits([Decision('title', 2, ('will',))] * 2), 2 * math.log2(8 / 7))
