"Sums, questions that count, and their judge (chapter `arithmetic`)."
import json
import random
import re
import time
from collections import Counter
from hashlib import sha256
from itertools import islice

import pytest

from llmbook.core import UserError
from llmbook.lesson import refusal
from llmbook.text import arithmetic
from llmbook.text.arithmetic import arithmetic_rows, check_sum, counting_rows
from llmbook.text.corpus import HELD_START
from llmbook.text.state import NAMES, PLACES
from llmbook.text.stories import read_story

KINDS = [(arithmetic_rows, level, dict(steps=steps)) for level in (1, 2, 3) for steps in (False, True)]
KINDS += [(counting_rows, level, {}) for level in (1, 2)]


def said(row):
    return [message['content'] for message in row['messages']]


def pair_of(request):
    "The two summands behind a sum or a difference, smaller first."
    a, sign, b = re.fullmatch('([0-9]+)([+-])([0-9]+)[=:]', request).groups()
    a, b = int(a), int(b)
    return tuple(sorted((a, b) if sign == '+' else (a - b, b)))


def is_right(request, answer):
    "Judged by Python's whole numbers, equation by equation; nothing of the module is used."
    a, sign, b = re.fullmatch('([0-9]+)([+-])([0-9]+)[=:]', request).groups()
    *steps, result = answer.split(',')
    if result != str(int(a) + int(b) if sign == '+' else int(a) - int(b)): return False
    if request[-1] == '=': return not steps
    if len(steps) != max(len(a), len(b)): return False
    low = 0
    for place, step in enumerate(steps):
        terms, value = step.split('=')
        top, bottom, *carry = map(int, re.findall('[0-9]+', terms))
        tens = 10**place
        if (top % 10, bottom) != (int(a) // tens % 10, int(b) // tens % 10): return False
        carried = carry[0] if carry else 0
        if bool(carry) != (place > 0): return False
        if int(value) != (top + bottom + carried if sign == '+' else top - bottom - carried): return False
        below = int(a) % tens, int(b) % tens # all columns to the right
        if carried != (sum(below) // tens if sign == '+' else below[0] < below[1]): return False
        low += int(value) * tens if place == len(steps) - 1 else int(value) % 10 * tens
    return low == int(result)


@pytest.mark.parametrize('rows, level, options', KINDS)
def test_rows_depend_on_their_number_alone(rows, level, options):
    many = list(rows(60, level, 3, **options))
    assert list(rows(10, level, 3, **options)) == many[:10]
    assert list(rows(5, level, 3, 40, **options)) == many[40:45]
    assert list(map(said, rows(60, level, 4, **options))) != list(map(said, many))
    border = list(rows(4, level, 3, HELD_START - 2, **options))
    assert border[2:] == list(rows(2, level, 3, HELD_START, **options))
    assert len({row['id'] for row in many}) == 60


def test_the_same_bytes_everywhere():
    every = [list(rows(20, level, 1, start, **options)) # without stories, which have tests of their own
             for rows, level, options in KINDS[:-1] for start in (0, HELD_START)]
    digest = sha256(json.dumps(every).encode()).hexdigest()
    assert digest[:16] == '5ec6eaaa16e66130'


@pytest.mark.parametrize('rows, level, options', KINDS)
def test_rows_are_conversations(rows, level, options):
    for row in [*rows(40, level, 0, **options), *rows(40, level, 0, HELD_START, **options)]:
        assert set(row) == {'id', 'messages', 'meta'}
        assert [message['role'] for message in row['messages']] == ['user', 'assistant']
        request, answer = said(row)
        assert request and answer and answer == answer.strip() and request.isascii() and answer.isascii()
        task, _, seed, number = row['id'].rsplit('-', 3)
        assert row['meta']['task'] == task.split('-')[0] and (row['meta']['level'], int(seed)) == (level, 0)
        assert int(number) < HELD_START or int(number) - HELD_START < 40
        json.dumps(row)
    ids = [row['id'] for steps in (False, True) for row in arithmetic_rows(5, steps=steps)]
    assert len(set(ids)) == 10


@pytest.mark.parametrize('rows, level', [(arithmetic_rows, 4), (arithmetic_rows, 0), (counting_rows, 3), (counting_rows, '1')])
def test_a_bad_level_is_refused_at_once(rows, level):
    message = refusal(rows, 1, level, error=UserError)
    assert f'level {level}' in message and '\n' not in message


def test_no_pair_is_in_training_and_in_an_exam():
    sides = {0: set(), HELD_START: set()}
    texts = {0: set(), HELD_START: set()}
    for start in sides:
        for level, cards in ((1, 1400), (2, 7000), (3, 7000)):
            for seed in (0, 1):
                for row in arithmetic_rows(cards, level, seed, start):
                    sides[start].add(pair_of(said(row)[0]))
                    texts[start].add(said(row)[0])
    assert not sides[0] & sides[HELD_START]
    assert len(texts[0]) == 1282 + 6492 + 6492 and len(texts[HELD_START]) == 338 + 1608 + 1608 # all there are
    assert len(sides[0] | sides[HELD_START]) == 9 * 90 + 90 * 91 // 2


def test_every_sum_is_dealt_once_before_any_is_dealt_again():
    for level, cards in ((1, 338), (2, 1608), (3, 1608)):
        rows = [said(row)[0] for row in arithmetic_rows(2 * cards, level, 5, HELD_START)]
        assert len(set(rows[:cards])) == cards and sorted(rows[:cards]) == sorted(rows[cards:])
        assert rows[:cards] != rows[cards:]


def test_sums_have_the_right_form_and_result():
    for level, form in ((1, r'[1-9]\+[1-9]\d|[1-9]\d\+[1-9]'), (2, r'[1-9]\d\+[1-9]\d'), (3, r'[1-9]\d\d?-[1-9]\d')):
        for steps in (False, True):
            for row in islice(arithmetic_rows(300, level, 2, steps=steps), 300):
                request, answer = said(row)
                assert re.fullmatch(form, request[:-1], re.A) and request[-1] == ('=', ':')[steps]
                assert is_right(request, answer), (request, answer)
                assert check_sum(request + answer) is True
                assert row['meta']['result'] == answer.split(',')[-1] and row['meta']['steps'] == steps


def test_a_wrong_answer_is_caught_by_both_judges():
    rng = random.Random(0)
    for level in (1, 2, 3):
        for row in arithmetic_rows(100, level, steps=bool(level % 2)):
            request, answer = said(row)
            place = rng.choice([i for i, character in enumerate(answer) if character.isdigit()])
            wrong = answer[:place] + str((int(answer[place]) + rng.randint(1, 9)) % 10) + answer[place+1:]
            assert not is_right(request, wrong) and not check_sum(request + wrong), (request, wrong)


@pytest.mark.parametrize('text, verdict', [
    ('7+15=22', True), (' 7+15=22\n', True), ('0+0=0', True), ('15-15=0', True), ('1000-1=999', True),
    ('1000-1:10-1-0=9', None), ('7+15:7+5=12,0+1+1=2,22', True), ('132-47:12-7=5,13-4-1=8,1-0-1=0,85', True),
    ('7+15=23', False), ('7+15:22', False), ('7+15:7+5=12,22', False), ('7+15:7+5=12,0+1+0=2,22', False),
    ('7+15:7+5=12,0+1+1=2,23', False), ('7+15:7+5=12,0+1+1=2,22,22', None), ('15-22=7', False), ('15-22=0', False),
    ('15-22=93', False),
    ('7+15:0+1+1=2,7+5=12,22', False), ('7+15:7+5=12,0+1+1=2,0+0+0=0,22', False),
    ('7+15=022', None), ('07+15=22', None), ('7+15=00', None), ('7+15=2 2', None), ('7+15= 22', None),
    ('7 + 15 = 22', None), ('7+15=22=22', None), ('7+15=22 22', None), ('7+15=21 or 22', None), ('7+15=21\n22', None),
    ('7+15=22\n7+15=23', None), ('7+15=22\n\n1+1=2', None), ('7+15=-22', None), ('7+15=+22', None), ('7+15=22.', None),
    ('7+15=22.0', None), ('7+15=2_2', None), ('7+15=٢٢', None), ('7+15=2٢', None), ('1٢+1=13', None),
    ('7+15=２２', None), ('7+15=²²', None), ('7＋15=22', None),
    ('7+15=2\u200b2', None), ('7+15=22\x00', None), ('7+15', None), ('7+15=', None), ('', None), ('22', None),
    ('7*15=105', None), ('7+15+1=23', None), ('7-15=-8', None), ('7+15=0x16', None), ('7+15=1+1=2', None)])
def test_what_the_judge_says(text, verdict):
    assert check_sum(text) is verdict


@pytest.mark.parametrize('text', [
    '9' * 300_000 + '+1=1' + '0' * 300_000, '1' + '0' * 300_000 + '-1=' + '9' * 300_000])
def test_long_numbers_are_judged_in_linear_time(text):
    began = time.process_time()
    assert check_sum(text) is True
    assert check_sum(text[:-1] + '1') is False
    assert check_sum(text + 'x') is None
    assert time.process_time() - began < 20 # the square of the length would take hours


def test_hostile_texts_take_no_longer():
    began = time.process_time()
    digits, step = '1' * 300_000, '7+5=12,'
    for text in (digits, digits + '+', digits + '+1', digits + '+1=' + digits + 'x', '7+15:' + step * 50_000 + 'x',
                 '7+15:' + digits, '7+15:' + digits + '=', '7+15:' + '7+5=' + digits + ',', ' ' * 300_000 + '1'):
        assert not check_sum(text)
    assert check_sum('7+15:' + step * 50_000 + '22') is False
    assert time.process_time() - began < 20


def counted(row):
    "The answer, derived from the text."
    text, request = said(row)[0].rsplit('\n', 1)
    if row['meta']['level'] == 1:
        words = re.fullmatch(r'Words: (.*)\.', text)[1].split(' ')
        assert len(words) == 15
        if request == 'How many names are there?': return sum(word in NAMES for word in words)
        return words.count(re.fullmatch(r'How many times does (\w+) occur\?', request)[1])
    if request == 'How many different places are named?':
        return sum(bool(re.search(rf'\b{place}\b', text)) for place in PLACES)
    story = read_story(text, (3, 12))
    if request == 'How many things are carried in the end?':
        return sum(len(story.state.carried(name)) for name in story.state.cast)
    name = re.fullmatch(r'How many times did (\w+) move to another place\?', request)[1]
    moves = [event for event in story.events if event.verb in ('go', 'go home', 'visit')]
    return sum(event.actor == name or event.verb == 'go' and event.other == name for event in moves)


@pytest.mark.parametrize('level', [1, 2])
def test_counts_follow_from_the_text(level):
    kinds = Counter()
    for row in [*counting_rows(200, level, 7), *counting_rows(100, level, 7, HELD_START)]:
        assert said(row)[1] == str(counted(row)), row
        kinds[row['meta']['kind']] += 1
    assert min(kinds.values()) > 60 and len(kinds) == level + 1


def test_no_name_is_twice_in_a_list_of_names():
    for row in counting_rows(200):
        if row['meta']['kind'] != 'names': continue
        names = [word for word in re.findall(r'\w+', said(row)[0].split('\n')[0]) if word in NAMES]
        assert len(names) == len(set(names))


def test_no_list_is_in_training_and_in_an_exam():
    def lists(start):
        return {tuple(sorted(re.findall(r'\w+', said(row)[0].split('\n')[0]))) for row in counting_rows(1000, 1, 0, start)}
    assert not lists(0) & lists(HELD_START)
    for start in (0, HELD_START): # by the split itself, not by chance
        words = [re.findall(r'\w+', said(row)[0].split('\n')[0])[1:] for row in counting_rows(100, 1, 0, start)]
        assert all(arithmetic._held_out(*reversed(one)) == (start == HELD_START) for one in words)


def test_no_constant_answer_pays_on_level_1():
    for rows in (arithmetic_rows, counting_rows):
        by_kind = {}
        for row in rows(1000, 1): by_kind.setdefault(row['meta']['kind'], Counter())[said(row)[1]] += 1
        for counts in by_kind.values(): assert max(counts.values()) < 0.25 * sum(counts.values())


def test_a_row_fits_into_256_tokens():
    for rows, level, options in KINDS:
        most = max(len(''.join(said(row))) for row in rows(200, level, **options))
        assert most < (130 if rows is not counting_rows else 200 if level == 1 else 900)
