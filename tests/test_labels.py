"Sentiment, entailment and next sentences: labels that follow from the text, and halves that know nothing."

import itertools
import re
from collections import Counter
from functools import cache

import pytest

from llmbook.core import UserError
from llmbook.text.corpus import HELD_START
from llmbook.text.labels import LABELS, entailment_rows, next_sentence_rows, sentiment_rows, shortcut_accuracy
from llmbook.text.state import NEGATIVE, POSITIVE
from llmbook.text.stories import accepted, read_story

TASKS = {'sentiment': sentiment_rows, 'entailment': entailment_rows, 'next-sentence': next_sentence_rows}
SETS = list(itertools.product(TASKS, (1, 2)))


@cache
def rows_of(task, level, start=0, n=100): return list(TASKS[task](n, level, start=start))


def follows(text, sentence): return accepted(f'{text} {sentence}') == len(text) + len(sentence) + 1


def felt(text, name, level):
    "The sides of the moods that a text says of a person, or that it lets follow."
    if level == 1: moods = re.findall(rf'\b{name} felt (\w+)\.', text)[-1:]
    else: moods = [mood for mood in POSITIVE + NEGATIVE if follows(text, f'{name} felt {mood}.')]
    return {'positive' if mood in POSITIVE else 'negative' for mood in moods}


def told_by_words(text, subject, relation):
    "What the opening says of the first, second or third person; None if nothing."
    opening = text[:text.index(' There was a ')]
    people = re.findall(r'([A-Z][a-z]+)(?: the (\w+))? (lived|was) in the (\w+)', opening)
    name, trade, verb, place = people[('first', 'second', 'third').index(subject.split()[1])]
    if relation == 'trade': return trade or None
    return place if verb == 'lived' else None


DEEDS = {'had the (.+) at first': 'have', 'took the (.+)': 'take', 'left the (.+) somewhere': 'leave',
         'gave away the (.+)': 'give', 'looked for the (.+) and found it': 'find', 'looked for the (.+) in vain': 'miss'}


def meant(story, subject):
    "The people whom `Whoever ...` points out."
    quality = story.state.quality
    for pattern, verb in DEEDS.items():
        found = re.fullmatch('Whoever ' + pattern, subject)
        if found: return {e.actor for e in story.events if e.verb == verb and f'{quality[e.thing]} {e.thing}' == found[1]}
    found = re.fullmatch('Whoever had the (.+) in the end', subject)
    if found: return {story.state.where[thing] for thing in quality if f'{quality[thing]} {thing}' == found[1]}
    return {e.actor for e in story.events if e.verb == 'idle' and e.value == subject.split()[1]}


def told_by_story(text, subject, relation):
    "The same of whom the story points out, from the events that are read back."
    story = read_story(text, (3, 12))
    [name] = meant(story, subject)
    verbs = {'trade': {'trade': 'actor', 'ask trade': 'other'},
             'home': {'live': 'actor', 'go home': 'actor', 'ask home': 'other'}}[relation]
    for event in story.events:
        if event.verb in verbs and getattr(event, verbs[event.verb]) == name: return event.value or event.place
    return None


def true_labels(row):
    "Labels that agree with the text, derived without the module."
    task, level, text, pair = row['meta']['task'], row['meta']['level'], row['text'], row['text_pair']
    if task == 'sentiment': return felt(text, pair, level)
    if task == 'next-sentence': return {'next' if follows(text, pair) else 'other'}
    subject, relation, value = re.fullmatch(r'(.+) (was a|lived in the) (\w+)\.', pair).groups()
    relation = 'trade' if relation == 'was a' else 'home'
    told = (told_by_words if level == 1 else told_by_story)(text, subject, relation)
    return {'neutral' if told is None else 'entailment' if told == value else 'contradiction'}


@pytest.mark.parametrize('task,level', SETS)
def test_labels_follow_from_the_text_and_a_wrong_one_is_noticed(task, level):
    for row in rows_of(task, level):
        assert true_labels(row) == {row['label']}, row
    for row, wrong in itertools.product(rows_of(task, level)[:8], LABELS[task]):
        agrees = true_labels(row | {'label': wrong}) == {wrong}
        assert agrees == (wrong == row['label'])


@pytest.mark.parametrize('task,level', SETS)
def test_rows_depend_on_their_number_alone(task, level):
    make, rows = TASKS[task], rows_of(task, level)
    assert list(make(10, level)) == rows[:10]
    assert list(make(3, level, start=4)) == rows[4:7]
    assert next(make(1, level, seed=1))['text'] != rows[0]['text']
    assert list(make(0, level)) == []


@pytest.mark.parametrize('task,level', SETS)
def test_rows_are_well_formed(task, level):
    for number, row in enumerate(rows_of(task, level)):
        assert list(row) == ['id', 'text', 'text_pair', 'label', 'meta']
        assert row['id'] == f'{task}-{level}-0-{number}'
        assert row['label'] in LABELS[task]
        assert {'task', 'level', 'kind', 'story'} <= set(row['meta'])
        assert len(re.findall(r'\w+|[^\w\s]', row['text'] + row['text_pair'])) < 250
        assert row['text'] == row['text'].strip() and row['text'][-1] in '."'


@pytest.mark.parametrize('task,level', SETS)
def test_no_story_is_in_both_parts(task, level):
    train, held = rows_of(task, level), rows_of(task, level, HELD_START)
    assert all(row['meta']['story'] < HELD_START for row in train)
    assert all(row['meta']['story'] >= HELD_START for row in held)
    openings = [{row['text'].split(' There was')[0] for row in rows} for rows in (train, held)]
    assert not openings[0] & openings[1]
    assert len({(row['text'], row['text_pair']) for row in train}) == len(train)


@pytest.mark.parametrize('task,level', SETS)
def test_neither_half_knows_the_label(task, level):
    train, held = rows_of(task, level), rows_of(task, level, HELD_START)
    chance = 1/len(LABELS[task])
    for half in ('text', 'text_pair'):
        share = shortcut_accuracy(train, held, lambda row, half=half: re.findall(r'\w+', row[half]))
        assert share < chance + 0.16, (half, share)
    counts = Counter(row['label'] for row in train + held)
    assert max(counts.values()) < (chance + 0.11) * 200


def test_each_text_admits_every_label():
    for row in rows_of('sentiment', 2)[:40]:
        story = re.findall(r'[A-Z][a-z]+', row['text'])
        people = sorted({word for word in story if word in row['text'].split(' There was')[0]})
        sides = [felt(row['text'], name, 2) for name in people if name not in ('Long', 'One')]
        assert {'positive'} in sides and {'negative'} in sides
    for row in rows_of('entailment', 1):
        relation = 'trade' if 'was a' in row['text_pair'] else 'home'
        told = [told_by_words(row['text'], f'The {n} person', relation) for n in ('first', 'second', 'third')]
        assert None in told and len(set(told)) == 3
        assert row['text_pair'].split()[-1].strip('.') in told


def test_moods_are_not_said_at_level_2():
    for row in rows_of('sentiment', 2):
        name = row['text_pair']
        assert 'In the end' not in row['text']
        said = re.findall(rf'\b{name} felt (\w+)\.$', row['text'])
        assert not said
    for row in rows_of('sentiment', 1): assert len(re.findall(r' felt \w+\.', row['text'])) >= 2


def test_wrong_sentences_of_level_2_differ_in_the_thing():
    for row in rows_of('next-sentence', 2):
        things = re.findall(r'(?:a|the) ((?:red|blue|green|white|black|yellow|small|large) \w+)', row['text'])
        [named] = set(re.findall(r'the ((?:red|blue|green|white|black|yellow|small|large) \w+)', row['text_pair']))
        assert named in things and '"' not in row['text_pair']


def test_shortcuts_are_found_where_there_are_some():
    rows = [{'text': f'a{i}', 'text_pair': 'b' if i % 2 else 'c', 'label': 'yes' if i % 2 else 'no'} for i in range(40)]
    assert shortcut_accuracy(rows, rows, lambda row: [row['text_pair']]) == 1
    assert shortcut_accuracy(rows, rows, lambda row: []) == 0.5
    assert shortcut_accuracy(rows[:20], rows[20:], lambda row: [row['text']]) == 0.5


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('level', [0, 3, '1', True])
def test_a_bad_level_is_refused_in_one_line(task, level):
    with pytest.raises(UserError) as refused: next(TASKS[task](1, level))
    assert '\n' not in str(refused.value) and task in str(refused.value)
