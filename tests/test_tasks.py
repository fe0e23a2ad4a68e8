"Questions about stories: answers are found again by a reader of sentences that knows nothing of the library."
import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from llmbook.core import UserError
from llmbook.exercises import tasks as checks
from llmbook.text import tasks
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.state import Event
from llmbook.text.tasks import _find_story, check_level, message_row, question_rows, questions_about, task_story

TRAIN = {level: list(question_rows(400, level)) for level in (1, 2)}
HELD = {level: list(question_rows(400, level, start=HELD_START)) for level in (1, 2)}
KINDS = {1: {'trade', 'home', 'first place', 'first name', 'second name'},
         2: {'where', 'before', 'many', 'alone', 'who', 'giver'}}


# A reader of sentences. Names are the capitalised words of the opening; nothing of the library is used.

class Reading:
    "What a text says, sentence by sentence."
    def __init__(self, text):
        self.trail, self.holder, self.trade, self.home, self.gave = {}, {}, {}, {}, defaultdict(set)
        self.she = None # whom `She` or `He` means
        text = re.sub(r'^(One \w+ (day )?|One \w+ |Long ago )', '', text)
        body, self.closing = text.split(' In the end ')
        for sentence in re.split(r'(?<=[.?!"]) (?=[A-Z])', body): self.read(sentence)

    def read(self, sentence):
        sentence = re.sub(r'^(Then|Soon|Later) ', '', sentence)
        found = re.match(r'(\w+)( the (\w+))? (lived|was) in the (\w+)(?: with a \w+ (\w+))?\.$', sentence)
        if found and found[1] not in self.trail and found[1] not in ('She', 'He'): return self.introduce(*found.groups())
        if sentence.startswith(('There was', 'By now', 'All this')):
            if sentence.startswith('There'): self.lay(sentence)
            return None
        return self.act(sentence)

    def introduce(self, name, _, trade, verb, place, thing):
        self.trail[name] = [place]
        if trade: self.trade[name] = trade
        if verb == 'lived': self.home[name] = place
        if thing: self.holder[thing] = name

    def lay(self, sentence):
        for thing, place in re.findall(r'(\w+) in the (\w+)', sentence): self.holder[thing] = place

    def act(self, sentence):
        who, rest = sentence.split(' ', 1)
        if who.lower() in ('she', 'he'): who = self.last
        self.last = who # the subject; after an exchange, whoever answered
        if rest.startswith('said,'): return self.say(who, rest)
        if found := re.match(r'asked (\w+), "(.*)"', rest):
            self.last = found[1]
        elif found := re.match(r'(went home to|went to|walked to) the (\w+)', rest):
            self.trail[who].append(found[2])
            if 'home' in found[1]: self.home[who] = found[2]
        elif found := re.match(r'went with (\w+) to the (\w+)', rest):
            for name in (who, found[1]): self.trail[name].append(found[2])
        elif found := re.match(r'visited \w+ in the (\w+)', rest): self.trail[who].append(found[1])
        elif found := re.match(r'(?:took|picked up) the \w+ (\w+)', rest): self.holder[found[1]] = who
        elif found := re.match(r'looked for the \w+ (\w+) and found it', rest): self.holder[found[1]] = who
        elif found := re.match(r'left the \w+ (\w+) in the (\w+)', rest): self.holder[found[1]] = found[2]
        elif found := re.match(r'gave the (\w+ (\w+)) to (\w+)', rest):
            self.holder[found[2]] = found[3]
            self.gave[f'{found[1]} to {found[3]}'].add(who)
        return None

    def say(self, who, rest):
        if found := re.search(r'"I am a (\w+)', rest): self.trade[who] = found[1]
        if found := re.search(r'"I live in the (\w+)', rest): self.home[who] = found[1]

    def answer(self, question):
        names = list(self.trail)
        here = {name: places[-1] for name, places in self.trail.items()}
        if question == 'What is the first name?': return names[0]
        if question == 'What is the second name?': return names[1]
        if found := re.fullmatch(r'What is the trade of (\w+)\?', question): return self.trade.get(found[1])
        if found := re.fullmatch(r'What is the home of (\w+)\?', question): return self.home.get(found[1])
        if found := re.fullmatch(r'What is the first place of (\w+)\?', question): return self.trail[found[1]][0]
        if found := re.fullmatch(r'Where was (\w+) in the end\?', question): return here[found[1]]
        if found := re.fullmatch(r'Where was (\w+) before the last move\?', question): return ([None] + self.trail[found[1]])[-2]
        if found := re.fullmatch(r'How many things did (\w+) have in the end\?', question):
            return ['nothing', 'one', 'two', 'three'][list(self.holder.values()).count(found[1])]
        if found := re.fullmatch(r'Was (\w+) alone in the end\?', question):
            return 'no' if list(here.values()).count(here[found[1]]) > 1 else 'yes'
        if found := re.fullmatch(r'Who had the \w+ (\w+) in the end\?', question): return self.holder[found[1]]
        if found := re.fullmatch(r'Who gave the (\w+ \w+ to \w+)\?', question): return '/'.join(self.gave[found[1]])
        raise AssertionError(question)


def wrong(rows):
    "Rows whose answer the reader of sentences does not find."
    bad = []
    for row in rows:
        text, question = row['messages'][0]['content'].split('\n')
        if Reading(text).answer(question) != row['messages'][1]['content']: bad.append((text, question))
    return bad


@pytest.mark.parametrize('level', [1, 2])
def test_answers_are_found_again_in_the_text(level):
    assert wrong(TRAIN[level]) == [] and wrong(HELD[level]) == []


@pytest.mark.parametrize('level', [1, 2])
def test_every_question_of_a_story_is_settled_by_its_text(level):
    for i in range(200):
        story = task_story(4, i)
        reading = Reading(story.text)
        asked = questions_about(story, level)
        assert len({question.text for question in asked}) == len(asked)
        for question in asked: assert reading.answer(question.text) == question.answer, (story.text, question)


def test_a_wrong_answer_is_noticed(monkeypatch):
    monkeypatch.setattr(tasks, 'TRADE', dict.fromkeys(tasks.TRADE, 'baker'))
    assert wrong(question_rows(300, 1))
    right = tasks._trails
    monkeypatch.setattr(tasks, '_trails', lambda story: {n: [*p, 'mill'] for n, p in right(story).items()})
    assert wrong(question_rows(300, 2))


def test_a_gift_with_two_givers_is_not_asked_about():
    story = task_story(0, 0)
    thing = story.state.things[0]
    def asked(*givers):
        gifts = [Event('give', name, thing, 'mill', 'Tom') for name in givers]
        found = questions_about(replace(story, events=gifts + story.events), 2)
        return [question.answer for question in found if question.kind == 'giver']
    assert asked('Mira') == asked('Mira', 'Mira') == ['Mira'] and asked('Mira', 'Odo') == []


@pytest.mark.parametrize('level', [1, 2])
def test_the_same_rows_whatever_their_number(level):
    rows = list(question_rows(10, level))
    assert json.dumps(rows) == json.dumps(TRAIN[level][:10]) == json.dumps(list(question_rows(10, level)))
    assert list(question_rows(5, level, start=5)) == rows[5:]
    assert list(question_rows(10, level, seed=1)) != rows


def test_bytes_that_have_been_promised():
    text = json.dumps([list(question_rows(300, level, sentences=True)) for level in (1, 2)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == '308bc59ae2ca6d16'
    row = next(question_rows(1, 2, start=2))
    assert row['id'] == 'questions-2-0-2' and row['meta']['story'] == 2
    assert row['messages'][0]['content'].startswith('One summer day Tom the weaver lived in the castle with a green drum.')
    assert task_story(0, 0).text.startswith('Long ago Emil the fisher lived in the forest with a blue rope.')


@pytest.mark.parametrize('n', [1, 2])
@pytest.mark.parametrize('i, step', [(0, -HELD_START), (HELD_START + 1, HELD_START)])
def test_a_row_takes_the_first_of_its_own_stories_that_will_do(i, step, n):
    def gifts(*stories): return [event for story in stories for event in story.events if event.verb == 'give']
    number, story, made = _find_story(0, i, gifts, n)
    groups = [[task_story(0, k + j*step) for j in range(n)] for k in range(i, number + step, n*step)]
    assert [bool(gifts(*group)) for group in groups] == [False]*(len(groups) - 1) + [True] and len(groups) > 1
    assert made == gifts(*groups[-1]) and story.text == groups[-1][0].text == task_story(0, number).text


@pytest.mark.parametrize('level', [1, 2])
def test_no_story_is_in_both(level):
    def stories(rows): return {row['messages'][0]['content'].split('\n')[0] for row in rows}
    assert len(stories(TRAIN[level])) == 400 and not stories(TRAIN[level]) & stories(HELD[level])
    assert not stories(TRAIN[level]) & {document['text'] for document in world_documents(100)}


@pytest.mark.parametrize('level', [1, 2])
@pytest.mark.parametrize('sentences', [False, True])
def test_rows_are_well_formed(level, sentences):
    rows = list(question_rows(200, level, sentences=sentences))
    assert len({row['id'] for row in rows}) == 200
    for row in rows:
        assert set(row) == {'id', 'messages', 'meta'} and json.loads(json.dumps(row)) == row
        assert [message['role'] for message in row['messages']] == ['user', 'assistant']
        request, answer = (message['content'] for message in row['messages'])
        assert request.count('\n') == 1 and request.endswith('?')
        assert len(re.findall(r'\w+|[^\w\s]', request + answer)) < 180
        meta = row['meta']
        assert meta['task'] == 'questions' and meta['level'] == level and meta['kind'] in KINDS[level]
        assert re.fullmatch(r'[A-Za-z]+', meta['word'])
        if not sentences: assert answer == meta['word']
        else: assert re.fullmatch(r'[A-Z][\w ]+\.', answer)


def test_sentences_say_the_word():
    for level in (1, 2):
        for row in question_rows(200, level, sentences=True):
            word, answer = row['meta']['word'], row['messages'][1]['content']
            if row['meta']['kind'] == 'alone': assert (' not alone' in answer) == (word == 'no')
            else: assert word in re.findall(r'\w+', answer)


def test_level_1_stands_in_the_text_and_level_2_not_in_its_last_sentence():
    for row in TRAIN[1] + HELD[1]:
        text, _ = row['messages'][0]['content'].split('\n')
        assert row['meta']['word'] in re.findall(r'\w+', text)
    for row in TRAIN[2] + HELD[2]:
        text, question = row['messages'][0]['content'].split('\n')
        if row['meta']['kind'] == 'who': assert re.search(r'the (\w+ \w+) in', question)[1] not in text.split('In the end')[1]


def test_no_constant_and_no_name_gives_level_1_away():
    rows = TRAIN[1] + HELD[1]
    assert max(Counter(row['meta']['word'] for row in rows).values()) < 0.15 * len(rows)
    for kind in KINDS[1]:
        words = Counter(row['meta']['word'] for row in rows if row['meta']['kind'] == kind)
        assert max(words.values()) < 0.25 * words.total(), kind
    table = defaultdict(Counter) # a first place by its question alone
    for row in TRAIN[1]: table[row['messages'][0]['content'].split('\n')[1]][row['meta']['word']] += 1
    first = [row for row in HELD[1] if row['meta']['kind'] == 'first place']
    hits = [table[row['messages'][0]['content'].split('\n')[1]].most_common(1) for row in first]
    right = sum(bool(hit) and hit[0][0] == row['meta']['word'] for hit, row in zip(hits, first, strict=True))
    assert right < 0.25 * len(first)


def test_kinds_are_balanced_and_many_and_alone_are_contrasted():
    for level in (1, 2):
        kinds = Counter(row['meta']['kind'] for row in TRAIN[level])
        assert set(kinds) == KINDS[level] and min(kinds.values()) > 0.03 * 400 and max(kinds.values()) < 0.4 * 400
    for kind, most in (('alone', 0.6), ('many', 0.55)):
        words = Counter(row['meta']['word'] for row in TRAIN[2] + HELD[2] if row['meta']['kind'] == kind)
        assert max(words.values()) < most * words.total()


@pytest.mark.parametrize('level', [0, 3, '1', True, 1.0, None])
def test_a_bad_level_is_refused_in_one_line(level):
    for call in (lambda: next(question_rows(1, level)), lambda: questions_about(task_story(0, 0), level),
                 lambda: check_level('questions', level)):
        with pytest.raises(UserError, match=f'^--level {level}: questions has level 1 or 2$'): call()


def test_check_level_names_the_task_and_its_levels():
    assert check_level('questions', 2) is None and check_level('spans', 1, (1,)) is None
    with pytest.raises(UserError, match=r'^--level 2: spans has level 1$'): check_level('spans', 2, (1,))


def test_message_row():
    row = message_row('a-1', 'How?', 'So.', kind='demo', story=3)
    assert row == {'id': 'a-1', 'meta': {'kind': 'demo', 'story': 3}, 'messages': [
        {'role': 'user', 'content': 'How?'}, {'role': 'assistant', 'content': 'So.'}]}


def test_exercises_refuse_near_misses():
    for bad in (0.3, 0.357, 0.163, 26.5):
        with pytest.raises(AssertionError): checks.check_1(bad)
    checks.check_1(0.27)
    def by_row(rows): return [row for i, row in enumerate(rows) if i % 10], rows[::10]
    with pytest.raises(AssertionError, match='both sides'): checks.check_3(by_row)
