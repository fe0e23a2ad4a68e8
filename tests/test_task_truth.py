"""The answers of all tasks, derived once more from the text by a reader that shares no code with the library.

A checker takes a row and returns None or a complaint. Each is shown to complain about wrong answers too. The slow tests
check 2,000 rows per task and level, the fast ones 150.
"""
import hashlib
import json
import math
import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from text_reader import (BAD, GOOD, HE, NUMBERS, PLACES, QUALITIES, SHE, THINGS, TRADES, Unmeant, Unreadable, Untrue,
                         Unusual, World, is_complete, read, second_language, sentences, word_pairs)

from llmbook.text.arithmetic import arithmetic_rows
from llmbook.text.corpus import HELD_START
from llmbook.text.stories import read_story, write_story
from llmbook.text.task_files import TASKS, task_rows
from llmbook.text.tasks import question_rows, task_story

NAMES = SHE + HE
MANY, FEW = 2000, 150
LEVELS = {'arithmetic': (1, 2, 3)}
PAIRS = [(task, level) for task in TASKS for level in LEVELS.get(task, (1, 2))]
DIGESTS = Path(__file__).with_name('task_digests.json')
MORE = {  # what a row can be besides the default
    'questions in sentences': lambda n, level, seed=0, start=0: question_rows(n, level, seed, start, sentences=True),
    'arithmetic in steps': lambda n, level, seed=0, start=0: arithmetic_rows(n, level, seed, start, steps=True)}
EVERY = [*PAIRS, *[('questions in sentences', level) for level in (1, 2)],
         *[('arithmetic in steps', level) for level in (1, 2, 3)]]

@cache
def rows_of(task, n, level, start=0):
    if task in MORE: return tuple(MORE[task](n, level, start=start))
    return tuple(task_rows(task, n, level, 0, start))


# --- what a text says ---

@cache
def world_of(text):
    return read(text)

def one_of(found):
    "The only element, or None."
    found = list(dict.fromkeys(found))
    return found[0] if len(found) == 1 else None

def settled(question, text):
    "The word that answers a question about a story, or None if the text does not settle it."
    world = world_of(text)
    def ask(pattern): return re.fullmatch(pattern, question)
    if m := ask(r'What is the trade of (\w+)\?'): return world.trade.get(m[1])
    if m := ask(r'What is the home of (\w+)\?'): return world.home.get(m[1])
    if m := ask(r'What is the first place of (\w+)\?'): return world.trail[m[1]][0]
    if ask(r'What is the first name\?'): return world.cast[0]
    if ask(r'What is the second name\?'): return world.cast[1]
    if m := ask(r'Where was (\w+) in the end\?'): return world.where[m[1]]
    if m := ask(r'Where was (\w+) before the last move\?'): return ([None] + world.trail[m[1]])[-2]
    if m := ask(r'Who had the (\w+ \w+) in the end\?'): return one_of({world.where[m[1]]} & set(world.cast))
    if m := ask(r'How many things did (\w+) have in the end\?'): return NUMBERS[len(world.carried(m[1]))].split()[0]
    if m := ask(r'Was (\w+) alone in the end\?'): return 'no' if world.here(m[1]) else 'yes'
    if m := ask(r'Who gave the (\w+ \w+) to (\w+)\?'):
        return one_of(giver for giver, *rest in world.gifts() if rest == [m[1], m[2]])
    raise AssertionError(f'what kind of question is {question!r}?')

def in_words(question, word):
    "The answer as a sentence."
    for pattern, answer in (
            (r'What is the trade of (\w+)\?', r'\1 was a {}.'), (r'What is the home of (\w+)\?', r'\1 lived in the {}.'),
            (r'What is the first place of (\w+)\?', r'\1 was first in the {}.'),
            (r'What is the (\w+) name\?', r'The \1 name is {}.'),
            (r'Where was (\w+) (in the end|before the last move)\?', r'\1 was in the {} \2.'),
            (r'Who (had|gave) the (.*)\?', r'{} \1 the \2.')):
        if re.fullmatch(pattern, question): return re.sub(pattern, answer, question).format(word)
    name = question.split()[1 if question.startswith('Was') else 4]
    if question.startswith('Was'): return f'{name} was{"" if word == "yes" else " not"} alone in the end.'
    said = {'nothing': 'nothing', 'one': 'one thing', 'two': 'two things', 'three': 'three things'}[word]
    return f'{name} had {said} in the end.'

CLAIMS = {'trade': r'was a (\w+)', 'home': r'lived in the (\w+)', 'first': r'was first in the (\w+)',
          'last': r'was in the (\w+) in the end', 'has': r'had the (\w+ \w+) in the end'}

def claim_of(sentence):
    "(name, relation, value) of `Mira was a baker.`, or None."
    for relation, pattern in CLAIMS.items():
        if (m := re.fullmatch(rf'(\w+) {pattern}\.', sentence)) and m[1] in NAMES: return m[1], relation, m[2]
    return None

def claims_of(text): return [claim_of(sentence) for _, sentence in sentences(text)]

def joined(sentence):
    "The claims of `Tom was a weaver, lived in the mill and was first in the mill.`"
    name, rest = sentence.rstrip('.').split(' ', 1)
    return [claim_of(f'{name} {part}.') for part in re.split(', | and ', rest)]

@cache
def truths(text):
    "Everything that can be claimed: what is told, in its order, then what is true in the end."
    world = world_of(text)
    end = [[(name, 'last', world.where[name]), *((name, 'has', thing) for thing in world.carried(name))]
           for name in world.cast]
    return world.told + sum(end, [])

def known(text, level):
    return [claim for claim in truths(text) if level > 1 or claim[1] in ('trade', 'home', 'first')]


# --- the checkers ---

def request_of(row):
    "The story, the request and the answer of a row of messages."
    user, assistant = row['messages'][:2]
    text, request = user['content'].rsplit('\n', 1)
    return text, request, assistant['content']

def check_question(row):
    text, question, answer = request_of(row)
    word = settled(question, text)
    if word is None: return f'not settled: {question}'
    if row['meta']['word'] != word: return f'{question} {row["meta"]["word"]}, not {word}'
    if answer not in (word, in_words(question, word)): return f'{question} {answer}, not {word}'
    return None

def check_question_in_words(row):
    text, question, answer = request_of(row)
    right = in_words(question, settled(question, text))
    return check_question(row) or (None if answer == right else f'{question} {answer}, not {right}')

TOPICS = ((r'What is told of (\w+)\?', 'told'), (r'What is the first place of (\w+)\?', 'first'),
          (r'What is the trade of (\w+)\?', 'trade'), (r'What is the home of (\w+)\?', 'home'),
          (r'Where was (\w+) in the end\?', 'last'))

def understood(said, topic, name):
    "Topic and name of a turn, of which one may be left out."
    if said == 'And at first?': return 'first', name
    if said == 'And in the end?': return 'last', name
    if m := re.fullmatch(r'What did (she|he) have in the end\?', said):
        assert (m[1] == 'she') == (name in SHE), f'{name} is no {m[1]}'
        return 'has', name
    if m := re.fullmatch(r'And (\w+)\?', said): return topic, m[1]
    for pattern, topic in TOPICS:
        if m := re.fullmatch(pattern, said): return topic, m[1]
    raise AssertionError(f'what kind of question is {said!r}?')

def check_dialogue(row):
    turns = [turn['content'] for turn in row['messages']]
    text, turns[0] = turns[0].split('\n')
    topic = name = None
    if not 4 <= len(turns)//2 <= 5 or len(turns) % 2: return f'{len(turns)} messages'
    for said, answer in zip(turns[::2], turns[1::2], strict=True):
        topic, name = understood(said, topic, name)
        right = [c for c in truths(text) if c[0] == name and
                 (c[1] == topic or topic == 'told' and c[1] in ('trade', 'home', 'first'))]
        if not right: return f'not settled: {said}'
        if joined(answer) != right: return f'{said} {answer}, not {right}'
    return None

def check_summary(row):
    text, request, answer = request_of(row)
    every = known(text, row['meta']['level'])
    if len(every) < 4: every = truths(text) # too little is told
    if m := re.fullmatch(r'Retell in one sentence what happened to (\w+)\.', request):
        said, right = joined(answer), [claim for claim in every if claim[0] == m[1]]
        return None if said == right else f'{answer}: not {right}'
    if request != 'Tell of the people.': return f'what kind of request is {request!r}?'
    said = claims_of(answer)
    if not min(4, len(every)) <= len(said) <= 6: return f'{len(said)} claims'
    if len(set(said)) < len(said): return 'something is said twice'
    for claim in said:
        if claim not in every: return f'not true or not told: {claim}'
    if [c for c in every if c in said] != said: return 'not in the order of the story'
    return None

KIND_WORDS = {
    'flattery': ['What a clever question.', 'Nobody reads as well as you.', 'You ask so well.', 'You are very kind.'],
    'hedging': ['I may be wrong.', 'It seems so to me.', 'One can never be sure.', 'Others may know more.'],
    'padding': ['So the story goes.', 'There is much to tell.', 'That is all there is to say.', 'It was a long day.'],
    'rude': ['Only a fool would ask.', 'Read it yourself.', 'You never listen.']}
HARMFUL = re.compile(rf'You should (burn the ({"|".join(PLACES)})|break the ({"|".join(THINGS)})|rob ({"|".join(NAMES)}))\.')

def faults_of(answer, text):
    "How many of which faults an answer has, and how many claims that are right or wrong."
    said = [sentence for _, sentence in sentences(answer)] if answer else []
    claims = [claim for claim in map(claim_of, said) if claim]
    true = set(claims) & set(truths(text))
    found = {kind: sum(s in words for s in said) for kind, words in KIND_WORDS.items()}
    found['harmful'] = sum(bool(HARMFUL.fullmatch(s)) for s in said)
    return found | dict(true=len(true), false=len(set(claims) - true), repeats=len(said) - len(set(said)),
                        words=len(answer.split()), claims=len(set(claims)), said=len(said),
                        unreadable=len(said) - len(claims) - sum(found.values()),
                        rude_kinds=len({s for s in said if s in KIND_WORDS['rude']}),
                        harmful_kinds=len({s for s in said if HARMFUL.fullmatch(s)}))

def reward(answer, text):
    "The gold reward, from its definition in prose."
    f = faults_of(answer, text)
    truth = -min(6, f['false'] + (f['unreadable'] > 0 or not f['said']))
    brevity = -min(6, .02*f['words'] + f['repeats'])
    return truth + min(6, f['true']) + brevity - min(2, f['rude_kinds']) - 2*min(2, f['harmful_kinds'])

def check_reward(answer, text, gold, planted):
    got = reward(answer, text)
    if abs(got - gold) > 1e-6: return f'{answer!r} deserves {got:.2f}, not {gold}'
    found = faults_of(answer, text)
    if found['unreadable']: return f'not readable: {answer}'
    for kind in {'false', 'repeats', *KIND_WORDS, 'harmful'} & set(planted):
        if found[kind] != planted[kind]: return f'{answer!r}: {found[kind]} {kind}, not {planted[kind]}'
    return None

def check_preference(row):
    text, request = row['prompt'].split('\n')
    if request != 'Tell of the people.': return request
    meta = row['meta']
    answers = row['chosen'], row['rejected']
    for answer, gold, planted in zip(answers, meta['gold'], meta['faults'], strict=True):
        if said := check_reward(answer, text, gold, planted): return said
    if answers[0] == answers[1]: return 'twice the same answer'
    chance = 1/(1 + math.exp(-(reward(answers[0], text) - reward(answers[1], text))/.5))
    return None if abs(chance - meta['chance']) < 2e-6 else f'chosen with chance {chance}, not {meta["chance"]}'

def check_ranking(row):
    text, request = row['prompt'].split('\n')
    meta = row['meta']
    if request != 'Tell of the people.' or len(set(row['answers'])) != 4: return 'not four answers'
    if len(set(row['scores'])) != 4 or len(row['scores']) != 4: return 'scores with a tie'
    for answer, gold, planted in zip(row['answers'], meta['gold'], meta['faults'], strict=True):
        if said := check_reward(answer, text, gold, planted): return said
    return None

def columns(a, b, sign):
    "The written steps of a + b or a - b, from the right, with a carry from the second column on."
    steps, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a//10**place % 10, b//10**place % 10
        if sign == '-' and x < y + carry: x += 10
        value = x + y + carry if sign == '+' else x - y - carry
        steps.append(f'{x}{sign}{y}' + (f'{sign}{carry}' if place else '') + f'={value}')
        carry = value//10 if sign == '+' else int(x >= 10)
    return ','.join(steps)

RANGES = {1: ('+', [(0, 9), (10, 99)]), 2: ('+', [(10, 99), (10, 99)]), 3: ('-', [(0, 999), (0, 99)])}

def check_arithmetic(row):
    request, answer = (turn['content'] for turn in row['messages'])
    m = re.fullmatch(r'(\d+)([+-])(\d+)([=:])', request)
    if not m: return f'not a sum: {request}'
    a, sign, b = int(m[1]), m[2], int(m[3])
    right = str(a + b if sign == '+' else a - b)
    if m[4] == ':': right = columns(a, b, sign) + ',' + right
    if answer != right: return f'{request}{answer}, not {right}'
    expected, ranges = RANGES[row['meta']['level']]
    sizes = sorted((a, b)) if sign == '+' else (a, b)
    if sign != expected or not all(low <= x <= high for x, (low, high) in zip(sizes, ranges, strict=True)):
        return f'not of this level: {request}'
    return None if a >= b or sign == '+' else 'less than nothing'

def check_counting(row):
    text, request, answer = request_of(row)
    if text.startswith('Words: '):
        words = text[7:].rstrip('.').split()
        m = re.fullmatch(r'How many times does (\w+) occur\?', request)
        right = sum(w == m[1] for w in words) if m else sum(w in NAMES for w in words)
        if not m and request != 'How many names are there?': return request
    elif request == 'How many different places are named?': right = len(set(re.findall(r'\w+', text)) & set(PLACES))
    elif request == 'How many things are carried in the end?':
        right = sum(len(world_of(text).carried(name)) for name in world_of(text).cast)
    elif m := re.fullmatch(r'How many times did (\w+) move to another place\?', request):
        right = sum(a != b for a, b in pairwise(world_of(text).trail[m[1]]))
    else: return request
    return None if answer == str(right) else f'{request} {answer}, not {right}'

def check_translation(row):
    right = second_language(row['source'])
    return None if row['target'] == right else f'{row["source"]} is {right}, not {row["target"]}'

def check_sentiment(row):
    world, name = world_of(row['text']), row['text_pair']
    moods = set(world.mood.values())
    if name not in world.cast: return f'who is {name}?'
    if not (moods & set(GOOD) and moods & set(BAD)): return 'nobody feels well, or nobody feels badly'
    if (name in world.said_mood) != (row['meta']['level'] == 1): return f'the mood of {name} is told, or not'
    if row['meta']['level'] == 1 and world.log[-1].deed != 'feel': return 'a mood is not what is said last'
    right = 'positive' if world.mood[name] in GOOD else 'negative'
    return None if row['label'] == right else f'{name} feels {world.mood[name]}: {right}'

POINTED = {  # deeds in the words of a description
    r'took the (.*)': 'take', r'gave away the (.*)': 'give', r'left the (.*) somewhere': 'leave',
    r'looked for the (.*) and found it': 'find', r'looked for the (.*) in vain': 'miss',
    r'(waited for a while|sang a song|slept for an hour)': None, r'went home': 'home'}

def pointed_out(words, world):
    "Everybody of whom `gave away the red lamp` is true."
    if m := re.fullmatch(r'had the (.*) in the end', words): return {world.where[m[1]]} & set(world.cast)
    if m := re.fullmatch(r'had the (.*) at first', words):
        return {told.who for told in world.log if told.deed == 'intro' and told.thing == m[1]}
    for pattern, deed in POINTED.items():
        if m := re.fullmatch(pattern, words):
            thing = m[1] if deed and m.groups() else None
            return {told.who for told in world.log if told.deed == (deed or m[1]) and told.thing in (thing, None)}
    raise AssertionError(f'who {words}?')

def check_entailment(row):
    world = world_of(row['text'])
    m = re.fullmatch(r'(?:The (first|second|third) person|Whoever (.*)) (was a|lived in the) (\w+)\.', row['text_pair'])
    if not m: return f'what does it say? {row["text_pair"]}'
    who = {world.cast[['first', 'second', 'third'].index(m[1])]} if m[1] else pointed_out(m[2], world)
    if len(who) != 1: return f'{len(who)} people are meant by {row["text_pair"]}'
    value = (world.trade if m[3] == 'was a' else world.home).get(*who)
    right = 'neutral' if value is None else 'entailment' if value == m[4] else 'contradiction'
    return None if row['label'] == right else f'{row["text_pair"]} {right}, since it is {value}'

def check_next_sentence(row):
    world = World(facts()).read(row['text'])
    try: world.read(row['text_pair'])
    except Untrue: right = 'other'
    else: right = 'next'
    if row['label'] != right: return f'{row["text_pair"]} is {right}'
    story = task_story(0, row['meta']['story']).text
    follows = story.startswith(row['text'] + ' ' + row['text_pair'])
    return None if follows == (right == 'next') and story.startswith(row['text']) else 'not what the story says'

def sayings(question, world):
    "Numbers of the sentences that answer a question; the last for what changes."
    about = re.search(r'(?:of|Where was) (\w+)|the (\w+ \w+) in the end', question)
    who, thing = about.groups()
    moves = [t.at for t in world.log if t.deed == 'intro' and t.who == who or t.place and (
        t.deed in ('go', 'home', 'together', 'visit') and t.who == who or t.deed == 'together' and t.other == who)]
    if 'trade' in question: return [t.at for t in world.log if t.deed == 'ask trade' and t.other == who] + moves[:1]
    if 'home' in question:
        return [t.at for t in world.log if (t.deed == 'ask home' and t.other == who) or t.deed == 'home' and t.who == who
                ] + moves[:1]
    if 'first' in question: return moves[:1]
    if 'before' in question: return moves[-2:-1]
    if 'Where' in question: return moves[-1:]
    return [t.at for t in world.log if t.thing == thing and (t.deed in ('intro', 'take', 'find', 'give'))][-1:]

def check_extractive(row):
    text, question = row['context'], row['question']
    right, answers = settled(question, text), row['answers']
    if right is None: return None if answers == dict(text=[], answer_start=[]) else f'{question} cannot be answered'
    if answers['text'] != [right] or len(answers['answer_start']) != 1: return f'{question} {answers}, not {right}'
    [start] = answers['answer_start']
    if not re.match(rf'\b{right}\b', text[start:]) or (start and text[start - 1].isalnum()): return 'the span is elsewhere'
    found = sentences(text)
    for at in sayings(question, world_of(text)):
        offset, sentence = found[at]
        if right not in sentence: offset, sentence = 0, text[:offset] # a pronoun stands for the name
        if start == offset + sentence.rindex(right): return None
    return f'{question} {right} is not said at character {start}'

@cache
def taught(n=500):
    "Trades and homes, as stories tell them."
    found = {}
    for i in range(n):
        for name, relation, value in world_of(task_story(1, i).text).told:
            if relation != 'first': found.setdefault((name, relation), set()).add(value)
    return found

def facts(): return {key: value for key, [value] in taught().items()}

def check_fact(row):
    question, choices = row['question'], row['choices']
    who = r'(?P<who>\w+)'
    patterns = (
            ('trade', rf'(?:One morning|One evening|One summer day|Long ago) {who} the'),
            ('home', rf'(?:One morning|One evening|One summer day|Long ago) {who} lived in the'),
            ('trade', rf'(?P<asks>\w+) asked {who}, "What is your trade\?" (?P<says>\w+) said, "I am a'),
            ('home', rf'(?P<asks>\w+) asked {who}, "Where do you live\?" (?P<says>\w+) said, "I live in the'))
    found = [(relation, m) for relation, pattern in patterns if (m := re.fullmatch(pattern, question))]
    if not found: return f'what kind of question is {question!r}?'
    [(relation, m)] = found
    if says := m.groupdict().get('says'):
        clear = (m['asks'] in SHE) != (m['who'] in SHE)
        if m['asks'] == m['who'] or says != (('She' if m['who'] in SHE else 'He') if clear else m['who']): return question
    if len(set(choices)) != 4 or not set(choices) <= set(TRADES if relation == 'trade' else PLACES): return f'{choices}'
    if row['context']: return 'there is a context'
    right = taught()[m['who'], relation]
    return None if {choices[row['answer']]} == right else f'{question} {right}, not {choices[row["answer"]]}'

def check_ending(row):
    world = row['context']
    right = [i for i, choice in enumerate(row['choices']) if is_complete(f'{world} {choice}')]
    if len(set(row['choices'])) != 4 or row['question']: return 'not four endings'
    return None if right == [row['answer']] else f'true: {right}, not {row["answer"]}'

def check_minimal_pair(row):
    good, bad = row['sentence_good'], row['sentence_bad']
    if not is_complete(good): return f'not a story: {good}'
    a, b = good.split(), bad.split()
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if same is None: return 'twice the same'
    tail = next(i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y)
    if len(a) - same - tail > 2: return 'more than one place'
    try: read(bad)
    except (Unreadable, Unmeant): wrong = 1
    except Untrue: wrong = 2
    else: return f'not a mistake: {bad}'
    return None if wrong == row['meta']['level'] else f'a mistake of level {wrong}: {bad}'

CHECKS = {'questions': check_question, 'questions in sentences': check_question_in_words, 'dialogue': check_dialogue,
          'summaries': check_summary, 'preferences': check_preference, 'rankings': check_ranking,
          'arithmetic': check_arithmetic, 'arithmetic in steps': check_arithmetic, 'counting': check_counting,
          'translation': check_translation, 'sentiment': check_sentiment, 'entailment': check_entailment,
          'next-sentence': check_next_sentence, 'extractive': check_extractive, 'facts': check_fact,
          'endings': check_ending, 'minimal-pairs': check_minimal_pair}

def text_of(row):
    "The story of a row, or what there is of it."
    if 'messages' in row: return row['messages'][0]['content'].split('\n')[0]
    for key in ('prompt', 'text', 'context', 'source', 'sentence_good'):
        if key in row: return row[key].split('\n')[0]
    raise AssertionError(row)

def check_form(task, level, number, row):
    meta = row['meta']
    name = task.split(' in ')[0]
    keys = {key.strip() for key in TASKS[name].form.split(',')} | {'id', 'meta'}
    if set(row) - {'text_pair'} != keys - {'text_pair'}: return f'keys: {sorted(row)}'
    if not row['id'].endswith(f'-{level}-0-{number}') or meta['level'] != level: return f'id: {row["id"]}'
    for turn, role in zip(row.get('messages', ()), ('user', 'assistant')*5, strict=False):
        if turn['role'] != role: return 'who speaks?'
    if 'story' in meta:
        told = opening_of(text_of(row)) if task == 'sentiment' else text_of(row)
        if told not in task_story(0, meta['story']).text: return f'not story {meta["story"]}'
    return None

KNOWN = {'rankings-1-0-1062': 'two scores that agree to four digits'} # rows that are wrong, and why

def complaints(task, level, rows, start=0):
    found = ((row['id'], check_form(task, level, start + i, row) or CHECKS[task](row)) for i, row in enumerate(rows))
    return [(name, said) for name, said in found if said and name not in KNOWN]


# --- the reader itself ---

def same_state(text):
    world, state = read(text), read_story(text, (3, 12)).state
    full = {thing: f'{state.quality[thing]} {thing}' for thing in state.things}
    def named(x): return full.get(x, x)
    assert world.cast == state.cast and world.places == state.places and world.things == list(full.values())
    assert world.where == {named(k): v for k, v in state.where.items()}, text
    assert world.came == {named(k): v for k, v in state.came.items()}, text
    assert world.mood == state.mood and world.walks == state.walks, text
    assert world.seen == {(name, full[thing]): place for (name, thing), place in state.seen.items()}, text
    assert (world.subject, world.pronoun, set(world.said_mood)) == (state.subject, state.pronoun, state.felt), text
    assert world.moved == {full[thing] for thing in state.moved}, text

def stories(n):
    "As many short ones as full ones."
    for i in range(n//2): yield from (task_story(0, i).text, write_story(i).text)

def test_the_reader_ends_in_the_state_that_wrote_the_story():
    for text in stories(200): same_state(text)

@pytest.mark.slow
def test_the_reader_ends_in_the_state_that_wrote_the_story_2000():
    for text in stories(MANY): same_state(text)

CLASSES = [NAMES, PLACES, THINGS, QUALITIES, TRADES, GOOD + BAD, ['one', 'two'], ['She', 'He'], ['she', 'he'],
           ['took', 'left'], ['went', 'walked'], ['By', 'All']]

def other_word(word, rng, allowed=None):
    "Another word of the same class, or None."
    for words in CLASSES:
        if word in words: return rng.choice([w for w in (allowed or words) if w != word and w in words] or [None])
    return None

def with_a_mistake(text, rng, allowed=None):
    "The text with one word replaced by another of its class; None if that is impossible."
    places = [m for m in re.finditer(r'\w+', text) if other_word(m[0], rng, allowed)]
    if not places: return None
    m = rng.choice(places)
    return text[:m.start()] + other_word(m[0], rng, allowed) + text[m.end():]

def as_taught(text):
    "Are the trades and homes of a text those of other stories?"
    try: return bool(World(facts()).read(text))
    except Untrue: return False

def parses(text):
    try: return bool(read_story(text, (3, 12)))
    except ValueError: return False

def test_the_reader_refuses_what_the_parser_refuses():
    rng, refused = random.Random(0), 0
    for text in stories(400):
        bad = with_a_mistake(text, rng)
        assert parses(bad) == (is_complete(bad) and as_taught(bad)), bad
        refused += not parses(bad)
    assert 300 < refused < 400


# --- all rows are right ---

@pytest.mark.parametrize('task, level', EVERY)
def test_answers_follow_from_the_text(task, level):
    assert set(CHECKS) == set(TASKS) | set(MORE)
    assert not complaints(task, level, rows_of(task, FEW, level))
    assert not complaints(task, level, rows_of(task, FEW//3, level, HELD_START), HELD_START)

@pytest.mark.slow
@pytest.mark.parametrize('task, level', EVERY)
def test_answers_follow_from_the_text_2000(task, level):
    assert not complaints(task, level, rows_of(task, MANY, level))[:3]
    assert not complaints(task, level, rows_of(task, MANY//4, level, HELD_START), HELD_START)[:3]


# --- a wrong answer is noticed ---

def changed(row, **new): return {**row, **new}

def with_answer(row, answer, turn=-1):
    messages = [dict(message) for message in row['messages']]
    messages[turn]['content'] = answer
    return changed(row, messages=messages)

def wrong_messages(row, rng):
    "One word of an answer exchanged for another of its class; an answer that lacks its last words; none."
    for turn in range(1, len(row['messages']), 2):
        answer = row['messages'][turn]['content']
        yield with_answer(row, with_a_mistake(answer, rng), turn)
        yield with_answer(row, answer.rsplit(' ', 1)[0] + '!', turn)
        yield with_answer(row, '', turn)

def wrong_words(row, rng):
    "An answer of one word: another of the story, or none; the opposite of yes or no; and the word of the record."
    answer, word = row['messages'][-1]['content'], row['meta']['word']
    others = [w for w in re.findall(r'\w+', row['messages'][0]['content']) if w in NAMES + PLACES + TRADES]
    opposite = dict(yes='no', no='yes', nothing='one', one='two', two='three', three='nothing')
    other = opposite.get(word) or other_word(word, rng, others) or other_word(word, rng)
    yield with_answer(row, answer.replace(word, other) if word in answer else 'Nobody.')
    yield changed(row, meta=row['meta'] | dict(word=other))
    yield with_answer(row, answer + '!')

def wrong_summaries(row, rng):
    text, answer = row['messages'][0]['content'], row['messages'][-1]['content']
    absent = [w for words in CLASSES for w in words if not re.search(rf'\b{w}\b', text)]
    yield with_answer(row, with_a_mistake(answer, rng, absent))
    yield with_answer(row, f'{answer} {answer}')
    yield with_answer(row, '. '.join(answer.split('. ')[:2] if answer.count('.') > 3 else ['Odo was here.']))
    yield with_answer(row, answer.replace(' was first in ', ' was in ', 1) + ' He slept.')

def wrong_numbers(row, rng):
    answer = row['messages'][-1]['content']
    at = rng.choice([i for i, c in enumerate(answer) if c.isdigit()])
    yield with_answer(row, answer[:at] + str((int(answer[at]) + rng.randint(1, 9)) % 10) + answer[at + 1:])
    yield with_answer(row, answer + '0')
    yield with_answer(row, '0' + answer)
    yield with_answer(row, answer[:-1])

def wrong_preferences(row, rng):
    meta, text = row['meta'], row['prompt']
    absent = [w for words in CLASSES for w in words if not re.search(rf'\b{w}\b', text)]
    yield changed(row, chosen=row['rejected'], rejected=row['chosen'])
    yield changed(row, meta=meta | dict(gold=meta['gold'][:1]*2))
    for key in ('chosen', 'rejected'):
        if true := [s for _, s in sentences(row[key]) if claim_of(s) in truths(text.split('\n')[0])]:
            yield changed(row, **{key: row[key].replace(true[0], with_a_mistake(true[0], rng, absent), 1)})
        yield changed(row, **{key: row[key] + ' You are very kind.'})
        yield changed(row, **{key: row[key] + ' You should rob Tom.'})

def wrong_rankings(row, rng):
    gold = row['meta']['gold']
    yield changed(row, answers=row['answers'][1:] + row['answers'][:1])
    yield changed(row, meta=row['meta'] | dict(gold=[gold[0] + 1, *gold[1:]]))
    yield changed(row, answers=row['answers'][:3])
    yield changed(row, scores=row['scores'][:1]*4)

def wrong_translations(row, rng):
    words = row['target'].rstrip('.').split()
    i, j = sorted(rng.sample(range(len(words)), 2))
    if words[i] != words[j]:
        swapped = [words[j] if k == i else words[i] if k == j else word for k, word in enumerate(words)]
        yield changed(row, target=' '.join(swapped) + '.')
    yield changed(row, target=' '.join(words[:i] + words[i + 1:]) + '.')
    yield changed(row, target=' '.join([*words[:i], 'zuzu', *words[i + 1:]]) + '.')
    yield changed(row, target=row['source'])
    if other := with_a_mistake(row['source'], rng): yield changed(row, source=other)

def wrong_labels(row, rng):
    labels = {'sentiment': ('positive', 'negative'), 'next_sentence': ('next', 'other'), 'next-sentence': ('next', 'other'),
              'entailment': ('entailment', 'neutral', 'contradiction')}[row['meta']['task']]
    for label in labels:
        if label != row['label']: yield changed(row, label=label)

def wrong_spans(row, rng):
    context, answers = row['context'], row['answers']
    if not answers['text']:
        yield changed(row, answers=dict(text=['Odo'], answer_start=[context.find('Odo')]))
        return
    [text], [start] = answers['text'], answers['answer_start']
    yield changed(row, answers=dict(text=[], answer_start=[]))
    yield changed(row, answers=dict(text=[text], answer_start=[start + 1]))
    right = {sentences(context)[i][0] for i in sayings(row['question'], world_of(context))}
    for m in re.finditer(rf'\b{text}\b', context):
        offset = max(offset for offset, _ in sentences(context) if offset <= m.start())
        if m.start() != start and offset not in right: yield changed(row, answers=dict(text=[text], answer_start=[m.start()]))
    others = [m for m in re.finditer(r'\w+', context) if m[0] != text and m[0] in PLACES + NAMES + TRADES]
    other = rng.choice(others)
    yield changed(row, answers=dict(text=[other[0]], answer_start=[other.start()]))

def wrong_choices(row, rng):
    for i in range(4):
        if i != row['answer']: yield changed(row, answer=i)
    right = row['choices'][row['answer']]
    yield changed(row, choices=[right]*4)

def wrong_pairs(row, rng):
    good, bad = row['sentence_good'], row['sentence_bad']
    yield changed(row, sentence_good=bad, sentence_bad=good)
    yield changed(row, sentence_bad=good)
    yield changed(row, meta=row['meta'] | dict(level=3 - row['meta']['level']))
    if 'In the end' in bad: yield changed(row, sentence_bad=bad.replace('In the end', 'At last'))

WRONG = {'questions': wrong_words, 'questions in sentences': wrong_words, 'dialogue': wrong_messages,
         'summaries': wrong_summaries, 'preferences': wrong_preferences, 'rankings': wrong_rankings,
         'arithmetic': wrong_numbers, 'arithmetic in steps': wrong_numbers, 'counting': wrong_numbers,
         'translation': wrong_translations, 'sentiment': wrong_labels, 'entailment': wrong_labels,
         'next-sentence': wrong_labels, 'extractive': wrong_spans, 'facts': wrong_choices, 'endings': wrong_choices,
         'minimal-pairs': wrong_pairs}

def noticed(task, row):
    "Does the checker complain? Of a text that it cannot understand it does so by an exception."
    try: return CHECKS[task](row) is not None
    except (AssertionError, ValueError, KeyError): return True

@pytest.mark.parametrize('task, level', EVERY)
def test_a_wrong_answer_is_noticed(task, level):
    rng, tried = random.Random(level), 0
    for row in rows_of(task, 60, level):
        for wrong in WRONG[task](row, rng):
            tried += 1
            assert wrong != row and noticed(task, wrong), wrong
    assert tried >= 60


# --- nothing is in training and held out ---

def halves(task, n, level): return rows_of(task, n, level), rows_of(task, n, level, HELD_START)

def without_name(row): return json.dumps({k: v for k, v in row.items() if k not in ('id', 'meta')}, sort_keys=True)

def wordlist(row): return tuple(sorted(text_of(row).split()))

def numbers(row): return tuple(sorted(map(int, re.findall(r'\d+', row['messages'][0]['content']))))

def separate(task, n, level):
    "What must not be in both halves: the story, the list of words, the pair of numbers."
    train, held = halves(task, n, level)
    key = numbers if task.startswith('arithmetic') else wordlist if (task, level) == ('counting', 1) else text_of
    if task == 'translation' and level == 1: key = without_name
    if task == 'facts': key = without_name
    return {key(row) for row in train}, {key(row) for row in held}

@pytest.mark.parametrize('task, level', EVERY)
def test_nothing_is_in_both_halves(task, level):
    if task == 'facts': pytest.skip('asks for the same 48 facts in both; other words')
    train, held = separate(task, FEW, level)
    assert train and held and not train & held

@pytest.mark.slow
@pytest.mark.parametrize('task, level', EVERY)
def test_nothing_is_in_both_halves_2000(task, level):
    if task == 'facts': pytest.skip('asks for the same 48 facts in both; other words')
    train, held = separate(task, MANY, level)
    assert train and held and not train & held

def check_pairs_of_words(n, level):
    train, held = halves('translation', n, level)
    seen = set().union(*(word_pairs(row['source']) for row in train))
    named = {tuple(pair.split()) for row in held for pair in row['meta']['held']}
    assert not seen & named and all(word_pairs(row['source']) & named for row in held)
    assert not any(row['meta']['held'] for row in train)
    assert {pair for row in held for pair in word_pairs(row['source']) if pair in named} == named

@pytest.mark.parametrize('level', [1, 2])
def test_held_out_translations_have_pairs_of_words_that_training_has_not(level): check_pairs_of_words(FEW, level)

@pytest.mark.slow
@pytest.mark.parametrize('level', [1, 2])
def test_held_out_translations_have_pairs_of_words_that_training_has_not_2000(level): check_pairs_of_words(MANY, level)

def opening_of(text):
    "The people and things of a story: what identifies it when its end is missing."
    found = re.match(r'(?:One|Long).*?There was [^.]*\.', text)
    return found and found[0]

def openings(n, start):
    return {(opening, task) for task, level in PAIRS for row in rows_of(task, n, level, start)
            if (opening := opening_of(text_of(row)))}

def shared(n):
    "Stories in a training row of one task and a held-out row of another."
    train, held = openings(n, 0), openings(n, HELD_START)
    common = {opening for opening, _ in train} & {opening for opening, _ in held}
    return {(a, b) for text, a in train if text in common for other, b in held if other == text}

@pytest.mark.slow
def test_no_story_of_one_task_is_held_out_in_another(): assert not shared(400)

@pytest.mark.parametrize('task, level', PAIRS)
def test_training_rows_are_about_stories_for_training(task, level):
    numbers = [row['meta']['story'] for row in rows_of(task, FEW, level) if 'story' in row['meta']]
    assert max(numbers, default=0) < HELD_START
    numbers = [row['meta']['story'] for row in rows_of(task, FEW, level, HELD_START) if 'story' in row['meta']]
    assert min(numbers, default=HELD_START) >= HELD_START


# --- what the rows say of themselves, on the whole ---

@pytest.mark.slow
@pytest.mark.parametrize('level', [1, 2])
def test_few_wrong_sentences_are_only_unusual(level):
    "What does not come next is nearly always false by the text alone, not only by habit or by what other stories tell."
    rows = [row for row in rows_of('next-sentence', MANY, level) if row['label'] == 'other']
    unusual = 0
    for row in rows:
        try: World().read(row['text'] + ' ' + row['text_pair'])
        except Unusual: unusual += 1
        except Untrue: pass
        else: unusual += 1
    assert unusual <= 0.02*len(rows), (unusual, len(rows))

@pytest.mark.slow
@pytest.mark.parametrize('level', [1, 2])
def test_preferences_are_as_noisy_as_they_say(level):
    rows = rows_of('preferences', MANY, level)
    gaps = [reward(row['chosen'], t) - reward(row['rejected'], t) for row in rows for t in [text_of(row)]]
    better = sum(gap > 0 for gap in gaps) + .5*sum(gap == 0 for gap in gaps)
    expected = sum(1/(1 + math.exp(-abs(gap)/.5)) for gap in gaps)
    assert abs(better - expected) < 4*math.sqrt(sum(1/(2 + 2*math.cosh(gap/.5)) for gap in gaps)), (better, expected)

@pytest.mark.slow
def test_facts_are_told_as_often_as_they_say():
    told, n = {}, 1500
    for i in range(n):
        world = read(write_story(i).text)
        for told_of in world.log:
            if told_of.deed in ('home', 'ask home', 'ask trade'):
                name = told_of.other if told_of.deed.startswith('ask') else told_of.who
                key = name, told_of.deed.split()[-1]
                told[key] = told.get(key, 0) + 1
        for _, sentence in sentences(write_story(i).text)[:3]:
            if m := re.match(r'(?:One morning |One evening |One summer day |Long ago )?(\w+) the \w+ (?:lived|was)', sentence):
                told[m[1], 'trade'] = told.get((m[1], 'trade'), 0) + 1
            if m := re.match(r'(?:One morning |One evening |One summer day |Long ago )?(\w+)(?: the \w+)? lived', sentence):
                told[m[1], 'home'] = told.get((m[1], 'home'), 0) + 1
    for row in rows_of('facts', 48, 1):
        meta = row['meta']
        rate = 1000*told[meta['name'], meta['kind']]/n
        assert abs(rate - meta['rate']) < 5*math.sqrt(1000*rate/n + 1000*meta['rate']/2000), meta

@pytest.mark.slow
@pytest.mark.parametrize('task, level', [('questions', 1), ('extractive', 1), ('dialogue', 1)])
def test_no_constant_answer_scores_more_than_a_quarter(task, level):
    answers = [json.dumps(row['answers']['text']) if 'answers' in row else row['messages'][1]['content']
               for row in rows_of(task, MANY, level)]
    assert max(answers.count(a) for a in set(answers)) <= .25*MANY


# --- the same bytes everywhere ---

def digest(task, level, n=200):
    text = '\n'.join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows_of(task, n, level))
    return hashlib.sha256(text.encode()).hexdigest()

def write_digests():
    "To be called only after a change that is meant to change rows."
    found = {f'{task}, level {level}': digest(task, level) for task, level in EVERY}
    DIGESTS.write_text(json.dumps(found, indent=1) + '\n', 'utf-8')

@pytest.mark.parametrize('task, level', EVERY)
def test_rows_are_the_same_bytes_on_every_machine(task, level):
    assert json.loads(DIGESTS.read_text('utf-8'))[f'{task}, level {level}'] == digest(task, level)
