"Examinations: the same bytes, rows that are well formed, answers that the text alone confirms, and nothing to guess by."
import json
import random
import re
from collections import Counter

import pytest

from llmbook.core import UserError
from llmbook.text import choices
from llmbook.text.corpus import HELD_START
from llmbook.text.choices import ending_rows, fact_rows, minimal_pair_rows
from llmbook.text.grammar import is_story
from llmbook.text.state import HOME, NEGATIVE, POSITIVE, SHORT, TRADE
from llmbook.text.stories import facts, read_story

TASKS = {'facts': fact_rows, 'endings': ending_rows, 'minimal-pairs': minimal_pair_rows}
ROWS = {(task, level): list(make(150, level)) for task, make in TASKS.items() for level in (1, 2)}
HELD = {(task, level): list(make(48, level, start=HELD_START)) for task, make in TASKS.items() for level in (1, 2)}
CASES = pytest.mark.parametrize('task, level', ROWS)


def words(text): return re.findall(r'\w+|[^\w\s]', text)


def right(row): return row['choices'][row['answer']]


def ending_problem(row):
    "What is wrong with a row of endings, judged by the end of the story read from its text."
    try: state = read_story(f"{row['context']} {right(row)}", (3, 12)).state
    except ValueError: return 'the right ending ends no story'
    for i, choice in enumerate(row['choices']):
        where = re.fullmatch(r'In the end the (\w+) (\w+) was (?:in the|with) (\w+), and (\w+) felt (\w+)\.', choice)
        quality, thing, spot, who, mood = where.groups()
        true = (state.quality[thing], state.where[thing], state.mood[who]) == (quality, spot, mood)
        if true != (i == row['answer']): return f'choice {i} is {true}'
    return None


def fact_problem(row):
    "What is wrong with a row of facts, judged by the words of its question."
    question = row['question']
    asked = re.search(r'asked (\w+),', question) or re.search(r'(\w+) (?:lived in )?the$', question)
    value = (HOME if question.endswith('in the') else TRADE)[asked[1]]
    return None if right(row) == value and row['choices'].count(value) == 1 else f'{asked[1]}: {value}'


@CASES
def test_same_seed_same_bytes_and_prefix(task, level):
    make = TASKS[task]
    def first(n, **how): return json.dumps(list(make(n, level, **how)))
    assert first(10) == json.dumps(ROWS[task, level][:10]) == first(10, seed=0)
    assert json.dumps(list(make(3, level, start=7))) == json.dumps(ROWS[task, level][7:10])
    assert first(10, seed=1) != first(10)
    assert list(make(0, level)) == []


def test_bytes_do_not_depend_on_the_machine():
    row = HELD['facts', 2][0]
    assert row['question'] == 'Ines asked Odo, "What is your trade?" He said, "I am a'
    assert row['choices'] == ['weaver', 'teacher', 'miller', 'farmer']
    stories = [row['meta']['story'] for row in HELD['endings', 2][:4]]
    assert stories == [26_000_000_000, 1_000_000_001, 1_000_000_002, 6_000_000_003]


@CASES
def test_rows_are_well_formed(task, level):
    for number, row in enumerate(ROWS[task, level]):
        assert row['id'] == f'{task}-{level}-0-{number}'
        assert row['meta']['task'] == task and row['meta']['level'] == level and row['meta']['kind']
        assert json.loads(json.dumps(row)) == row
        if task == 'minimal-pairs': assert row.keys() == {'id', 'sentence_good', 'sentence_bad', 'meta'}
        else:
            assert row.keys() == {'id', 'context', 'question', 'choices', 'answer', 'meta'}
            assert len(set(row['choices'])) == 4 and bool(row['context']) == (task == 'endings')
            assert len({len(words(choice)) for choice in row['choices']}) == 1


@pytest.mark.parametrize('task', ['endings', 'minimal-pairs'])
@pytest.mark.parametrize('level', [1, 2])
def test_training_and_held_out_rows_share_no_story(task, level):
    key = 'context' if task == 'endings' else 'sentence_good'
    train, held = ({row[key] for row in rows[task, level]} for rows in (ROWS, HELD))
    assert not train & held and len(train) == 150 and len(held) == 48
    numbers = [row['meta']['story'] % HELD_START for row in ROWS[task, level] + HELD[task, level]]
    assert numbers == [*range(150), *range(48)]


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('level', [0, 3, '1', None])
def test_a_bad_level_is_refused_in_one_line(task, level):
    with pytest.raises(UserError) as e: TASKS[task](1, level)
    assert task in str(e.value) and str(level) in str(e.value) and '\n' not in str(e.value)


@pytest.mark.parametrize('level', [1, 2])
def test_facts_are_facts(level):
    rows = ROWS['facts', level] + HELD['facts', level]
    assert [fact_problem(row) for row in rows] == [None]*len(rows)
    assert fact_problem(rows[0] | {'answer': (rows[0]['answer'] + 1) % 4})
    rates = {(fact.name, fact.relation): fact.rate for fact in facts()}
    for row in rows: assert row['meta']['rate'] == rates[row['meta']['name'], row['meta']['kind']]


@pytest.mark.parametrize('level', [1, 2])
@pytest.mark.parametrize('start', [0, 48, HELD_START])
def test_the_choices_of_facts_tell_nothing(level, start):
    rows = list(fact_rows(48, level, start=start))
    assert len({(row['meta']['name'], row['meta']['kind']) for row in rows}) == 48
    asked, offered = Counter(map(right, rows)), Counter(value for row in rows for value in row['choices'])
    assert all(offered[value] == 4*n for value, n in asked.items())
    for k in range(20):
        order = sorted(offered)
        random.Random(k).shuffle(order)  # any liking for values is right in a quarter
        assert sum(max(row['choices'], key=order.index) == right(row) for row in rows) == 12


def test_the_asker_is_a_trap():
    for row in ROWS['facts', 2]:
        asker = row['question'].split()[0]
        own = (TRADE if row['meta']['kind'] == 'trade' else HOME)[asker]
        assert own in row['choices'] and own != right(row)


@pytest.mark.parametrize('task', ['facts', 'endings'])
@pytest.mark.parametrize('level', [1, 2])
def test_every_position_once_in_four_rows(task, level):
    answers = [row['answer'] for row in HELD[task, level]]
    assert all(sorted(answers[i:i + 4]) == [0, 1, 2, 3] for i in range(0, 48, 4))
    assert len({tuple(answers[i:i + 4]) for i in range(0, 48, 4)}) > 3


@pytest.mark.parametrize('level', [1, 2])
def test_one_ending_is_true(level):
    rows = ROWS['endings', level]
    assert [ending_problem(row) for row in rows] == [None]*len(rows)
    assert all(ending_problem(row | {'answer': (row['answer'] + 1) % 4}) for row in rows[:5])
    for row in rows:
        verdicts = [is_story(f"{row['context']} {choice}", SHORT) for choice in row['choices']]
        assert verdicts == [i == row['answer'] for i in range(4)]


@pytest.mark.parametrize('level', [1, 2])
def test_endings_use_the_storys_own_words(level):
    known = set(POSITIVE + NEGATIVE) | set(words('In the end the was in with and felt , .'))
    for row in ROWS['endings', level]:
        assert {word for choice in row['choices'] for word in words(choice)} - known <= set(words(row['context']))


@pytest.mark.parametrize('level', [1, 2])
def test_endings_cross_two_parts(level):
    "So that no choice is more like the others than another."
    for row in ROWS['endings', level]:
        sets = [set(words(choice)) for choice in row['choices']]
        assert len({sum(len(a & b) for b in sets) for a in sets}) <= 2
        first = [choice.split(' was ')[0] for choice in row['choices']]
        spots = [choice.split(' was ')[1].split(',')[0] for choice in row['choices']]
        moods = [choice.split(' felt ')[1] for choice in row['choices']]
        varied = first if level == 1 else moods
        assert set(Counter(spots).values()) == set(Counter(varied).values()) == {2}
        assert len(set(moods if level == 1 else first)) == 1


def test_at_level_1_nobody_has_moved_the_thing_and_at_level_2_somebody_has():
    for level in (1, 2):
        for row in ROWS['endings', level]:
            thing = right(row).split()[5]
            handled = rf'(took|picked up|left|gave|looked for) the \w+ {thing}'
            moved = any('in vain' not in sentence and re.search(handled, sentence)
                        for sentence in row['context'].split('. '))
            assert moved == (level == 2), (thing, row['context'])


def test_another_seed_has_other_positions():
    answers = [[row['answer'] for row in fact_rows(48, seed=seed)] for seed in (0, 1)]
    assert answers[0] != answers[1]


def test_moods_do_not_tell_who_has_the_thing():
    handling = {'happy', 'proud', 'thankful', 'relieved', 'sad', 'calm'}
    for row in ROWS['endings', 2]:
        assert not handling & {choice.split()[-1][:-1] for choice in row['choices']}


@pytest.mark.parametrize('level', [1, 2])
def test_good_is_accepted_and_bad_is_refused(level):
    for row in ROWS['minimal-pairs', level] + HELD['minimal-pairs', level]:
        assert is_story(row['sentence_good'], SHORT) and not is_story(row['sentence_bad'], SHORT)


def difference(row):
    good, bad = words(row['sentence_good']), words(row['sentence_bad'])
    while good and bad and good[0] == bad[0]: del good[0], bad[0]
    while good and bad and good[-1] == bad[-1]: del good[-1], bad[-1]
    return good, bad


def test_level_1_breaks_the_grammar_in_one_place():
    rows = ROWS['minimal-pairs', 1]
    assert Counter(row['meta']['kind'] for row in rows) == {'article': 50, 'order': 50, 'pronoun': 50}
    lengths = Counter()
    for row in rows:
        good, bad = difference(row)
        lengths[len(bad) - len(good)] += 1
        if row['meta']['kind'] == 'article': assert {*good, *bad} < {'the', 'a'} and len(good + bad) == 1
        if row['meta']['kind'] == 'order': assert good == bad[::-1] and len(good) == 2
        if row['meta']['kind'] == 'pronoun':
            assert [good[0].lower(), bad[0].lower()] in (['she', 'he'], ['he', 'she'])
    assert lengths == {0: 100, -1: 25, 1: 25}
    pronouns = Counter(difference(row)[0][0].lower() for row in rows if row['meta']['kind'] == 'pronoun')
    assert pronouns == {'she': 25, 'he': 25}


def test_level_2_contradicts_the_story_in_one_word():
    rows = ROWS['minimal-pairs', 2]
    assert Counter(row['meta']['kind'] for row in rows) == {'place': 50, 'person': 50, 'mood': 50}
    for row in rows:
        (good,), (bad,) = difference(row)
        if row['meta']['kind'] == 'mood': assert {good, bad} <= {*POSITIVE, *NEGATIVE}
        else: assert bad in words(row['sentence_good']) and (good in TRADE) == (row['meta']['kind'] == 'person')
        end = r'In the end the \w+ (\w+) was (?:in the|with) (\w+), and (\w+) felt (\w+)\.'
        state = read_story(row['sentence_good'], (3, 12)).state
        for key, true in (('sentence_good', True), ('sentence_bad', False)):
            thing, spot, who, mood = re.search(end, row[key]).groups()
            agrees = state.where[thing] == spot and state.mood[who] == mood
            if true or row['sentence_good'].rsplit('In the end', 1)[1] != row[key].rsplit('In the end', 1)[1]:
                assert agrees == true


def test_what_looks_at_one_thing_only_stays_near_chance():
    for level in (1, 2):
        rows = ROWS['endings', level] + HELD['endings', level]
        for rule in (lambda c: -len(c), lambda c: c.split()[-1], lambda c: c.split(' was ')[1]):
            share = sum(max(row['choices'], key=rule) == right(row) for row in rows)/len(rows)
            assert 0.14 < share < 0.36, (level, share)


def test_a_change_that_is_no_mistake_would_be_seen(monkeypatch):
    class Careless(choices._Marker):
        def find(self, options, weights, total):
            i = super().find(options, weights, total)
            self.marks[-1] = (self.marks[-1][0], 1)
            return i
    monkeypatch.setattr(choices, '_Marker', Careless)
    assert any(is_story(row['sentence_bad'], SHORT) for row in minimal_pair_rows(120, 2))
