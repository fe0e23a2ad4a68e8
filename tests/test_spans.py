"Extractive answers: the span is in the sentence that answers, and what the text leaves open has none."

import re
from collections import Counter
from functools import cache

import pytest

from llmbook.core import UserError
from llmbook.text.corpus import HELD_START
from llmbook.text.spans import extractive_rows
from llmbook.text.state import NAMES, PLACES, PRONOUN, TRADES
from llmbook.text.stories import read_story

PLACE = '|'.join(PLACES)
STARTS = r'(?:One morning |One evening |One summer day |Long ago |Then |Soon |Later )?'


@cache
def rows_of(level, start=0, n=80): return list(extractive_rows(n, level, start=start))


def sentences(text):
    "(position, words) of each sentence; what is said belongs to the sentence that asks."
    starts = [0] + [m.end() for m in re.finditer(r'(?<=[.!"]) (?=[A-Z])(?!\w+ said,)', text)]
    return [(a, text[a:b].strip()) for a, b in zip(starts, starts[1:] + [len(text)])]


def read(text):
    "(position, words, actor) of each sentence, with `she` and `he` resolved by the last one of that kind."
    last, found = {}, []
    for position, words in sentences(text):
        first = re.match(STARTS + r'(\w+)', words)[1]
        actor = first if first in NAMES else last.get(first.lower())
        found.append((position, words, actor))
        if ' said, ' in words: # the one who answers is spoken of next
            other = re.search(r' asked (\w+),', words)[1]
            last[PRONOUN[other]] = other
        elif actor: last[PRONOUN[actor]] = actor
    return found


def trail(text, name):
    "(position, place) of where a person was, from first to last."
    spots = []
    for position, words, actor in read(text):
        patterns = [rf'^{STARTS}\w+(?: the \w+)? (?:lived|was) in the ({PLACE})', rf'(?:went|walked)(?: home)? to the ({PLACE})',
                    rf' visited \w+ in the ({PLACE})', rf' went with \w+ to the ({PLACE})']
        moves = [m for m in (re.search(pattern, words) for pattern in patterns) if m]
        companion = re.search(r' went with (\w+) to', words)
        if moves and (actor == name or companion and companion[1] == name):
            spots.append((position + moves[0].start(1), moves[0][1]))
    return spots


def told(text, name, words):
    "(position, word) of what a sentence first tells of somebody's trade or home."
    for position, sentence, actor in read(text):
        found = re.match(rf'{STARTS}{name} the ({words})\b', sentence) if words == '|'.join(TRADES) else None
        if words == PLACE and actor == name:
            found = re.search(rf' lived in the ({PLACE})| went home to the ({PLACE})', sentence)
        asked = re.search(r' asked (\w+),', sentence)
        if not found and asked and asked[1] == name: found = re.search(rf'"I (?:am a|live in the) ({words})\."', sentence)
        if found:
            group = found.lastindex
            return position + found.start(group), found[group]
    return None


def owner(text, thing):
    "(position, name) of who has a thing in the end; the name before the end of the last sentence that hands it on."
    found = None
    for position, words, actor in read(text):
        given = re.search(rf' gave the {thing} to (\w+)', words)
        if given: found = position + given.start(1), given[1]
        elif re.search(rf' with a {thing}\.| took the {thing}\.| picked up the {thing}\.| for the {thing} and found', words):
            end = position + len(words)
            found = [m.start() for m in re.finditer(rf'\b{actor}\b', text[:end])][-1], actor
        elif re.search(rf' left the {thing} in', words): found = None
    return found


def expected(row):
    "(position, word) that answers, or None, derived from the text alone."
    text, question = row['context'], row['question']
    about = re.search(r'of (\w+)\?|was (\w+) |had the (.+) in the end', question)
    about = next(group for group in about.groups() if group)
    if 'trade' in question: return told(text, about, '|'.join(TRADES))
    if 'home' in question: return told(text, about, PLACE)
    if 'had the' in question: return owner(text, about)
    spots = trail(text, about)
    if 'first place' in question: return spots[0]
    if 'before' in question: return spots[-2] if len(spots) > 1 else None
    return spots[-1]


def agrees(row):
    answers, wanted = row['answers'], expected(row)
    given = list(zip(answers['answer_start'], answers['text']))
    return given == ([wanted] if wanted else [])


@pytest.mark.parametrize('level', [1, 2])
def test_spans_follow_from_the_text(level):
    for start in (0, HELD_START):
        for row in rows_of(level, start): assert agrees(row), (row, expected(row))


@pytest.mark.parametrize('level', [1, 2])
def test_a_wrong_span_is_noticed(level):
    moved = 0
    for row in rows_of(level):
        answers = row['answers']
        if not answers['text']:
            assert not agrees(row | {'answers': {'text': ['mill'], 'answer_start': [row['context'].find('mill')]}})
            continue
        [word], [start] = answers['text'], answers['answer_start']
        assert not agrees(row | {'answers': {'text': [], 'answer_start': []}})
        for other in re.finditer(rf'\b{word}\b', row['context']):
            if other.start() == start: continue
            moved += 1
            assert not agrees(row | {'answers': {'text': [word], 'answer_start': [other.start()]}})
    assert moved > 25


@pytest.mark.parametrize('level', [1, 2])
def test_rows_depend_on_their_number_alone(level):
    rows = rows_of(level)
    assert list(extractive_rows(10, level)) == rows[:10]
    assert list(extractive_rows(3, level, start=4)) == rows[4:7]
    assert next(extractive_rows(1, level, seed=1))['context'] != rows[0]['context']


@pytest.mark.parametrize('level', [1, 2])
def test_rows_are_well_formed(level):
    for number, row in enumerate(rows_of(level)):
        assert list(row) == ['id', 'context', 'question', 'answers', 'meta'] and row['id'] == f'extractive-{level}-0-{number}'
        assert list(row['answers']) == ['text', 'answer_start']
        assert len(row['answers']['text']) == len(row['answers']['answer_start']) <= 1
        for word, start in zip(*row['answers'].values()):
            assert re.match(rf'\b{word}\b', row['context'][start:]) and (start == 0 or not row['context'][start - 1].isalpha())
        assert len(re.findall(r'\w+|[^\w\s]', row['context'] + row['question'])) < 250
        read_story(row['context'], (3, 12))


def test_no_story_is_in_both_parts():
    for level in (1, 2):
        train, held = rows_of(level), rows_of(level, HELD_START)
        assert all(row['meta']['story'] < HELD_START for row in train)
        assert all(row['meta']['story'] >= HELD_START for row in held)
        assert not {row['context'] for row in train} & {row['context'] for row in held}


def test_no_constant_is_good_and_questions_do_not_know_whether_there_is_an_answer():
    answers = Counter(''.join(row['answers']['text']) for row in rows_of(1) + rows_of(1, HELD_START))
    assert '' not in answers and max(answers.values()) < 0.25 * 160
    kinds = {}
    for row in rows_of(2) + rows_of(2, HELD_START):
        kinds.setdefault(row['meta']['kind'], []).append(not row['answers']['text'])
    assert not any(kinds.pop('where')) and set(kinds) == {'trade', 'home', 'before', 'who'}
    for kind, empty in kinds.items(): assert 0.15 < sum(empty) / len(empty) < 0.65, kind


@pytest.mark.parametrize('level', [0, 3, '1', True])
def test_a_bad_level_is_refused_in_one_line(level):
    with pytest.raises(UserError) as refused: next(extractive_rows(1, level))
    assert '\n' not in str(refused.value) and 'extractive' in str(refused.value)
