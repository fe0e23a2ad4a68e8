"Claims: what the text makes true and nothing else, read back as written; rows that keep their promises."

import json
import random
import re
from collections import Counter
from hashlib import sha256
from itertools import product
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from llmbook.core import UserError
from llmbook.lesson import grade
from llmbook.text import claims as claims_module
from llmbook.text.claims import (Claim, claim_sentence, dialogue_rows, is_true, read_claims, story_claims,
                                 summary_rows)
from llmbook.text.corpus import HELD_START
from llmbook.text.state import HOME, NAMES, PLACES, QUALITIES, SHORT, THINGS, TRADE, TRADES
from llmbook.text.stories import read_story, write_story
from llmbook.text.tasks import task_story

ROOT = Path(__file__).resolve().parents[1]
MAKERS = [summary_rows, dialogue_rows]
NAME, PLACE, THING = '|'.join(NAMES), '|'.join(PLACES), f"(?:{'|'.join(QUALITIES)}) (?:{'|'.join(THINGS)})"
WHO = f'(?:{NAME}|[Ss]he|[Hh]e)'

RULES = [(kind, re.compile(f'{WHO} {pattern}')) for kind, pattern in (
    ('intro', f'(?:the (\\w+) )?(lived|was) in the ({PLACE})(?: with a ({THING}))?\\.'),
    ('with', f'went with ({NAME}) to the ({PLACE})'), ('home', f'went home to the ({PLACE})'),
    ('walk', f'(?:went|walked) to the ({PLACE})'), ('walk', f'visited (?:{NAME}) in the ({PLACE})'),
    ('take', f'(?:took|picked up) the ({THING})'), ('take', f'looked for the ({THING}) and found it'),
    ('put', f'left the ({THING}) in the ({PLACE})'), ('put', f'gave the ({THING}) to ({NAME})'),
    ('ask', f'asked ({NAME}), "'), ('trade', 'said, "I am a (\\w+)\\."'), ('lives', f'said, "I live in the ({PLACE})\\."'))]


def claims_from_text(text):
    "All true claims as sentences, from the text alone."
    said, at, has, subject, partner = set(), {}, {}, None, None
    for thing, place in re.findall(f'(?:There was|and) a ({THING}) in the ({PLACE})', text): has[thing] = place
    for sentence in re.findall(r'[A-Z][^.?"]*(?:"[^"]*"|[.])', text):
        sentence = re.sub(r'^(?:Then|Soon|Later|One morning|One evening|One summer day|Long ago) ', '', sentence)
        head = re.match(r'\w+', sentence)[0]
        if ' said, ' in sentence: subject = partner
        elif head in NAMES: subject = head
        for kind, pattern in RULES:
            m = pattern.match(sentence)
            if not m: continue
            got = m.groups()
            if kind == 'intro':
                trade, verb, at[subject], thing = got
                said.add(f'{subject} was first in the {at[subject]}.')
                if trade: said.add(f'{subject} was a {trade}.')
                if verb == 'lived': said.add(f'{subject} lived in the {at[subject]}.')
                if thing: has[thing] = subject
            elif kind == 'with': at[subject] = at[got[0]] = got[1]
            elif kind == 'home':
                at[subject] = got[0]
                said.add(f'{subject} lived in the {got[0]}.')
            elif kind == 'walk': at[subject] = got[0]
            elif kind == 'take': has[got[0]] = subject
            elif kind == 'put': has[got[0]] = got[1]
            elif kind == 'ask': partner = got[0]
            elif kind == 'trade': said.add(f'{subject} was a {got[0]}.')
            elif kind == 'lives': said.add(f'{subject} lived in the {got[0]}.')
            break
    said |= {f'{name} was in the {place} in the end.' for name, place in at.items()}
    return said | {f'{owner} had the {thing} in the end.' for thing, owner in has.items() if owner in at}


def told(sentences): return {s for s in sentences if not s.endswith(' in the end.')}


def content(row): return [message['content'] for message in row['messages']]


def split_answer(answer):
    "The claims of an answer as sentences of their own, without `read_claims`."
    sentences = []
    for sentence in re.findall(r'[^.]+\.', answer):
        name, rest = sentence.strip(' .').split(' ', 1)
        sentences += [f'{name} {part}.' for part in re.split(', | and ', rest)]
    return sentences


def untrue(row):
    "Claims of a row's answers that its own text does not make true."
    text = content(row)[0].rsplit('\n', 1)[0]
    true = claims_from_text(text)
    return [s for answer in content(row)[1::2] for s in split_answer(answer) if s not in true]


@pytest.mark.parametrize('start', [0, HELD_START])
def test_the_text_alone_gives_the_same_claims(start):
    for i in range(start, start + 300):
        story = task_story(0, i)
        sentences = list(map(claim_sentence, story_claims(story)))
        assert len(sentences) == len(set(sentences)) and set(sentences) == claims_from_text(story.text), story.text


def test_long_stories_too():
    for i in range(100):
        story = write_story(i)
        assert set(map(claim_sentence, story_claims(story))) == claims_from_text(story.text)


def test_a_story_that_is_read_has_the_same_claims():
    for i in range(50):
        story = task_story(3, i)
        assert story_claims(read_story(story.text, SHORT)) == story_claims(story)


def test_every_relation_by_hand():
    story = task_story(0, 182)
    assert story.text == (
        'One morning Tom the weaver lived in the castle with a green pot. Mira was in the castle. There was a black '
        'lamp in the harbour and a white mirror in the forest. Then Tom gave the green pot to Mira. He now had '
        'nothing. Later he went to the valley. In the end the green pot was with Mira, and Tom felt lonely.')
    assert list(map(tuple, story_claims(story))) == [
        ('Tom', 'trade', 'weaver'), ('Tom', 'home', 'castle'), ('Tom', 'first', 'castle'), ('Mira', 'first', 'castle'),
        ('Tom', 'last', 'valley'), ('Mira', 'last', 'castle'), ('Mira', 'has', 'green pot')]


def test_a_claim_needs_the_story():
    for i in range(30):
        story = task_story(0, i)
        true = claims_from_text(story.text)
        for name in NAMES:
            for relation, fact in (('trade', TRADE), ('home', HOME)):
                claim = Claim(name, relation, fact[name])
                assert is_true(claim, story) == (claim_sentence(claim) in true)
            if name not in story.text: assert not any(claim.name == name for claim in story_claims(story))
    told_of = [story_claims(task_story(0, i)) for i in range(500)]
    people = sum(len({claim.name for claim in some}) for some in told_of)
    for relation in ('trade', 'home'):
        share = sum(claim.relation == relation for some in told_of for claim in some) / people
        assert 0.5 < share < 0.7  # true of the cast without reading on; if it rises, claims need the story less


def all_claims():
    values = {'trade': TRADES, 'home': PLACES, 'first': PLACES, 'last': PLACES,
              'has': [f'{q} {t}' for q in QUALITIES for t in THINGS]}
    return [Claim(name, r, value) for name in NAMES for r in values for value in values[r]]


def test_what_is_written_is_read():
    every = all_claims()
    assert len(every) == 24 * (10 + 3*12 + 8*18) == len(set(map(claim_sentence, every)))
    assert read_claims(' '.join(map(claim_sentence, every))) == every
    rng = random.Random(0)
    for _ in range(300):
        name = rng.choice(NAMES)
        some = [claim._replace(name=name) for claim in rng.sample(every, rng.randint(1, 7))]
        assert read_claims(claims_module._one_sentence(some)) == some


@pytest.mark.parametrize('text, read', [
    ('', []), (' \n ', []), ('Mira was a baker', [None]), ('Mira was a baker..', [None]), ('.', [None]),
    ('Mira was a baker.Mira was a smith.', [None]), ('mira was a baker.', [None]), ('Mira was a baker!', [None]),
    ('She was a baker.', [None]), ('Hans was a baker.', [None]), ('Mira was a giant.', [None]), ('Mira', [None]),
    ('Mira was in the mill.', [None]), ('Mira had the lamp in the end.', [None]), ('Mira  was a baker.', [None]),
    ('Mira was a baker and Tom was a smith.', [None]), ('Mira was a baker and flew.', [None]),
    ('Mira was a mill.', [None]), ('Mira lived in the baker.', [None]), (' and , and .', [None]),
    ('Mira was a baker.\nIt rained. Mira was a baker.', ['trade', None, 'trade']),
    ('Mira was a baker. Mira was in', ['trade', None]), ('Mira was a baker, lived in the mill.', ['trade', 'home']),
    ('Mira was a smith and had the red lamp in the end.', ['trade', 'has'])])
def test_what_is_no_claim(text, read):
    assert [claim and claim.relation for claim in read_claims(text)] == read


@pytest.mark.parametrize('make, level', product(MAKERS, (1, 2)))
def test_rows_depend_on_their_number_alone(make, level):
    rows = list(make(40, level, 7))
    assert rows[:10] == list(make(10, level, 7)) and rows[30:] == list(make(10, level, 7, 30))
    assert rows != list(make(40, level, 8)) and len({row['id'] for row in rows}) == 40
    assert json.loads(json.dumps(rows)) == rows


def test_the_same_bytes_on_every_machine():
    "Changes only if the rows are meant to change; hashes of strings differ from process to process."
    rows = [row for make, level in product(MAKERS, (1, 2)) for row in make(20, level, 1)]
    assert sha256(json.dumps(rows).encode()).hexdigest()[:16] == 'eb911823f24c6bfc'


@pytest.mark.parametrize('make, level', product(MAKERS, (1, 2)))
def test_held_out_rows_are_others(make, level):
    train, held = (list(make(300, level, 0, start)) for start in (0, HELD_START))
    def stories(rows): return {content(row)[0].rsplit('\n', 1)[0] for row in rows}
    assert not stories(train) & stories(held) and not {r['id'] for r in train} & {r['id'] for r in held}


@pytest.mark.parametrize('make, task', [(summary_rows, 'summaries'), (dialogue_rows, 'dialogue')])
@pytest.mark.parametrize('level', [0, 3, '1', True, 1.0])
def test_a_wrong_level_is_one_line(make, task, level):
    with pytest.raises(UserError, match=f'--level {level}: {task} has level 1 or 2') as e: make(1, level)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('make, level', product(MAKERS, (1, 2)))
def test_answers_follow_from_the_text(make, level):
    for row in make(300, level): assert not untrue(row), row


@pytest.mark.parametrize('level', [1, 2])
def test_summaries(level):
    for row in summary_rows(300, level):
        i = row['meta']['story']
        assert row['id'] == f'summaries-{level}-0-{i}' and row['meta'].items() >= dict(task='summaries', level=level).items()
        assert [m['role'] for m in row['messages']] == ['user', 'assistant']
        prompt, answer = content(row)
        text, request = prompt.split('\n')
        true, said = claims_from_text(text), split_answer(answer)
        assert text == task_story(0, i).text and len(said) == len(set(said))
        usable = told(true) if level == 1 and len(told(true)) > 3 else true
        assert set(said) <= usable
        if row['meta']['kind'] == 'people':
            assert request == 'Tell of the people.' and 4 <= len(said) <= 6 and i % 2 == 0
            assert answer == ' '.join(said) and {s.split()[0] for s in said} == {s.split()[0] for s in true}
            order = [claim_sentence(claim) for claim in story_claims(task_story(0, i))]
            assert said == sorted(said, key=order.index)
        else:
            name = row['meta']['name']
            assert request == f'Retell in one sentence what happened to {name}.' and i % 2 == 1
            assert answer.count('.') == 1 and set(said) == {s for s in usable if s.startswith(f'{name} ')} and len(said) > 1


@pytest.mark.parametrize('level', [1, 2])
def test_dialogues(level):
    "Each answer from the text and the turns before, by other code."
    pronouns = 0
    for row in dialogue_rows(300, level):
        text, first_question = content(row)[0].split('\n')
        true = claims_from_text(text)
        questions, replies = [first_question, *content(row)[2::2]], content(row)[1::2]
        assert [m['role'] for m in row['messages']] == ['user', 'assistant'] * len(questions)
        assert 4 <= len(questions) <= (4 if level == 1 else 5) and len(set(questions)) == len(questions)
        assert row['meta']['task'] == 'dialogue' and row['id'].startswith(f'dialogue-{level}-0-')
        assert row['meta']['kind'] == f"{row['meta']['topics'][0]} {row['meta']['topics'][2]}"
        name, topic = None, None
        for question, reply, meant in zip(questions, replies, row['meta']['names'], strict=True):
            name = next((word for word in re.findall(r'\w+', question) if word in NAMES), name)
            if 'told' in question: topic = ''
            elif 'have in' in question: topic = 'had the '
            elif 'first' in question: topic = 'was first '
            elif ' end?' in question: topic = 'was in '
            usable = told(true) if topic == '' else true
            wanted = {s for s in usable if s.startswith(f'{name} {topic}')}
            assert wanted and set(split_answer(reply)) == wanted and reply.count('.') == 1 and name == meant
            pronouns += bool(re.search(r'did (she|he) have', question))
    assert (pronouns > 50) == (level == 2)


def test_an_injected_mistake_is_seen():
    rng = random.Random(0)
    for make, level in product(MAKERS, (1, 2)):
        for row in make(60, level):
            answer = row['messages'][-1]['content']
            old = rng.choice(re.findall(f'{PLACE}|{"|".join(TRADES)}|{"|".join(THINGS)}', answer))
            new = rng.choice([word for words in (PLACES, TRADES, THINGS) if old in words for word in words
                              if word not in content(row)[0]])
            row['messages'][-1]['content'] = answer.replace(old, new)
            assert untrue(row)
            said = read_claims(row['messages'][-1]['content'])
            assert not all(is_true(claim, task_story(0, row['meta']['story'])) for claim in said)


def test_no_answer_is_frequent():
    for make, level in product(MAKERS, (1, 2)):
        replies = [answer for row in make(500, level) for answer in content(row)[1::2]]
        assert Counter(replies).most_common(1)[0][1] < 0.06 * len(replies)


def test_the_name_does_not_give_a_retelling_away():
    rows = [row for row in summary_rows(1000) if row['meta']['kind'] == 'retell']
    hits = 0
    for row in rows:
        name = row['meta']['name']
        hits += content(row)[1] == (f'{name} was a {TRADE[name]}, lived in the {HOME[name]} and was first in '
                                    f'the {HOME[name]}.')
    assert hits < 0.25 * len(rows)


def test_rows_fit_into_256_tokens():
    tokenizer = Tokenizer.from_file(str(ROOT/'llmbook/assets/nano-pretrain/tokenizer.json'))
    for make in MAKERS:
        for row in make(250):
            tokens = sum(len(tokenizer.encode(text).ids) + 4 for text in content(row))  # 4: who speaks, the end
            assert tokens <= 256, (tokens, row)


@pytest.mark.parametrize('exercise, answer', [
    ('claims.1', 8.5), ('claims.1', 'eight'), ('claims.2', lambda summary, story: 1), ('claims.2', len),
    ('claims.3', lambda story, rng: None), ('claims.3', lambda story, rng: Claim('Mira', 'first', 'moon')),
    ('claims.4', ()), ('claims.4', ('word ' * 60, 'word', 'word word word word')), ('claims.4', 7)])
def test_wrong_answers(exercise, answer):
    assert not grade(exercise, answer)
