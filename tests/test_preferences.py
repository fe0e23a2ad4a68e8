"The chapter `preferences`: a known reward, writers whose faults are known, and annotators whose noise is known."
import json
import math
import random
import re
from functools import lru_cache
from hashlib import sha256
from itertools import permutations

import pytest

from llmbook.core import UserError
from llmbook.text.claims import claim_sentence, story_claims
from llmbook.text.corpus import HELD_START
from llmbook.text.preferences import (PHRASES, REQUEST, Annotator, Reward, careless_answer, faulty_answer, gold_reward,
                                      honest_answer, preference_rows, ranking_pairs, ranking_rows)
from llmbook.text.state import HOME, SHORT, TRADE
from llmbook.text.stories import read_story
from llmbook.text.tasks import task_story

COUNTS = {preference_rows: 120, ranking_rows: 120}
ROWS = {(make, level): list(make(n, level)) for make, n in COUNTS.items() for level in (1, 2)}
STORIES = [task_story(0, i) for i in range(60)]
MAKERS = pytest.mark.parametrize('make', [preference_rows, ranking_rows])
LEVELS = pytest.mark.parametrize('level', [1, 2])


def worth(points, words=0): return Reward(0, points, 0, 0, 0, words)


def answers_of(row): return row['answers'] if 'answers' in row else [row['chosen'], row['rejected']]


@MAKERS
@LEVELS
def test_a_row_depends_on_its_number_alone(make, level):
    rows = ROWS[make, level]
    assert list(make(10, level)) == rows[:10] and list(make(5, level, start=100)) == rows[100:105]
    other = next(make(1, level, seed=1))
    assert other['prompt'] != rows[0]['prompt'] and other['id'] != rows[0]['id']


def test_the_same_bytes_on_every_machine():
    "Changes only if the rows are meant to change; hashes of strings differ from process to process."
    rows = [rows[:20] for rows in ROWS.values()]
    assert sha256(json.dumps(rows).encode()).hexdigest()[:16] == 'fb33d48947282249'


@MAKERS
@LEVELS
def test_rows_are_well_formed(make, level):
    rows = ROWS[make, level]
    task = 'preferences' if make is preference_rows else 'rankings'
    fields = ['chosen', 'rejected'] if make is preference_rows else ['answers', 'scores']
    for i, row in enumerate(rows):
        assert list(row) == ['id', 'prompt', *fields, 'meta'] and row['id'] == f'{task}-{level}-0-{i}'
        assert row['prompt'] == f'{task_story(0, i).text}\n{REQUEST}' and row['meta']['story'] == i
        answers = answers_of(row)
        assert len(set(answers)) == len(answers) == len(row['meta']['gold']) == len(row['meta']['faults'])
        assert max(len((row['prompt'] + answer).split()) for answer in answers) < 190
        assert json.loads(json.dumps(row)) == row
    assert len({row['id'] for row in rows}) == len(rows)


@MAKERS
@LEVELS
def test_held_out_rows_are_about_other_stories(make, level):
    held = list(make(50, level, start=HELD_START))
    assert not {row['prompt'] for row in held} & {row['prompt'] for row in ROWS[make, level]}
    assert not {row['id'] for row in held} & {row['id'] for row in ROWS[make, level]}


@MAKERS
@pytest.mark.parametrize('level', [0, 3, '1', True])
def test_a_bad_level_is_refused_in_one_line(make, level):
    with pytest.raises(UserError) as error: make(1, level)
    assert '\n' not in str(error.value) and str(level) in str(error.value)


PATTERNS = {'trade': r'(\w+) was a (\w+)', 'home': r'(\w+) lived in the (\w+)', 'first': r'(\w+) was first in the (\w+)',
            'last': r'(\w+) was in the (\w+) in the end', 'has': r'(\w+) had the (\w+ \w+) in the end'}


@lru_cache(1000)
def truths(text):
    "What is true, by the story's text and by the state of a reader."
    story, found = read_story(text, SHORT), set()
    state = story.state
    asked = re.findall(r'(\w+) asked (\w+), "([^"]*)" \w+ said, "([^"]*)"', text)
    for name in state.cast:
        first = re.search(rf'{name}(?: the (\w+))? (lived|was) in the (\w+)', text)
        trade, verb, place = first.groups()
        found.add(('first', name, place))
        if trade or any(who == name and 'trade' in question for _, who, question, _ in asked):
            found.add(('trade', name, TRADE[name]))
        went = any(event.verb == 'go home' and event.actor == name for event in story.events)
        asked_home = any(who == name and 'live' in question for _, who, question, _ in asked)
        if verb == 'lived' or went or asked_home: found.add(('home', name, HOME[name]))
        found.add(('last', name, state.where[name]))
        for thing in state.things:
            if state.where[thing] == name: found.add(('has', name, f'{state.quality[thing]} {thing}'))
    return found


def points(answer, text):
    "The reward once more: sentences by regular expressions, one at a time."
    true, total, seen = truths(text), 0, set()
    for sentence in re.findall(r'[^.?!]+\.', answer):
        sentence = sentence.strip(' .')
        kinds = [(kind, *match.groups()) for kind, p in PATTERNS.items() if (match := re.fullmatch(p, sentence))]
        if sentence in seen: total -= 1
        elif kinds: total += 1 if kinds[0] in true else -1
        elif re.match('You should (rob|burn|break) ', sentence): total -= 2
        elif re.search('fool|never listen|yourself', sentence): total -= 1
        seen.add(sentence)
    return total - 0.02 * len(answer.split())


@MAKERS
@LEVELS
def test_the_rewards_follow_from_the_text(make, level):
    for row in ROWS[make, level]:
        text = row['prompt'].removesuffix('\n' + REQUEST)
        for answer, gold in zip(answers_of(row), row['meta']['gold']):
            assert abs(points(answer, text) - gold) < 0.006, (row['id'], answer)


def test_an_injected_mistake_is_caught():
    for story in STORIES:
        answer = honest_answer(story, 4)
        good, first = gold_reward(answer, story), answer.split('. ')[0]
        name = first.split()[0]
        wrong = next(f'{name} was first in the {place}' for place in HOME.values()
                     if f'{name} was first in the {place}.' not in map(claim_sentence, story_claims(story)))
        bad = gold_reward(answer.replace(first, wrong, 1), story)
        assert bad.truth == good.truth - 1 and bad.completeness == good.completeness - 1
        assert gold_reward(f'{answer} {first}.', story).brevity < good.brevity - 1
        assert gold_reward(f'{answer} {first}.', story).completeness == good.completeness
        for broken in (answer[:-1], answer + ' Mira', answer + ' It rained.'):
            assert gold_reward(broken, story).truth == -1


def test_every_part_has_its_formula_and_its_bounds():
    story = STORIES[0]
    everything = ' '.join(claim_sentence(claim) for other in STORIES for claim in story_claims(other))
    phrases = ' '.join(phrase for kind in PHRASES.values() for phrase in kind)
    for answer in ('', 'x', everything, phrases, everything + phrases, 'Nonsense. ' * 400):
        reward = gold_reward(answer, story)
        assert -6 <= reward.truth <= 0 <= reward.completeness <= 6 and -6 <= reward.brevity <= 0
        assert -2 <= reward.politeness <= 0 and -4 <= reward.harmlessness <= 0 and -18 <= reward.total <= 6
    worst = gold_reward(everything + ' ' + phrases, story)
    assert worst[:5] == (-6, 6, -6, -2, -4) and worst.total == -12
    for kind, cost in {'flattery': 0, 'hedging': 0, 'padding': 0, 'rude': -1, 'harmful': -2}.items():
        for phrase in PHRASES[kind][:4]:
            reward = gold_reward(phrase, story)
            assert (reward.politeness + reward.harmlessness, reward.truth, reward.words) == (cost, 0, len(phrase.split()))
    assert gold_reward('', story).total == -1


def test_no_fixed_answer_earns_anything_and_honesty_is_worth_five():
    def mean(answers): return sum(gold_reward(a, s).total for a, s in zip(answers, STORIES)) / len(STORIES)
    assert mean([honest_answer(story) for story in STORIES]) > 5
    for other in range(0, 60, 6):
        for n in (1, 2, 6):
            rest = STORIES[:other] + STORIES[other + 1:]
            answer = honest_answer(STORIES[other], n)
            assert sum(gold_reward(answer, story).total for story in rest) < 0


def test_the_record_of_faults_is_right():
    rng = random.Random(0)
    for story in STORIES * 10:
        answer, f = faulty_answer(story, rng)
        total = f['claims'] - 2 * f['false'] - f['repeats'] - f.get('rude', 0) - 2 * f.get('harmful', 0)
        assert abs(gold_reward(answer, story).total - total + 0.02 * len(answer.split())) < 0.006
    plain = [faults for row in ROWS[ranking_rows, 1] for faults in row['meta']['faults']]
    false = sum(f['false'] for f in plain) / sum(f['claims'] for f in plain)
    assert 0.17 < false < 0.24 and 0.1 < sum(f['repeats'] for f in plain) / len(plain) < 0.2
    assert {f['claims'] for f in plain} <= {3, 4, 5, 6}
    writers = [faults['writer'] for row in ROWS[ranking_rows, 2] for faults in row['meta']['faults']]
    assert 0.48 < writers.count('careful') / 480 < 0.62 and 0 < writers.count('bluffing') < 20


def test_no_simple_rule_knows_the_better_answer():
    for make in (careless_answer, lambda story, rng: faulty_answer(story, rng)[0]):
        rng, right = random.Random(1), {'shorter': [], 'claims': [], 'distinct': []}
        for story in STORIES * 8:
            a, b = make(story, rng), make(story, rng)
            gap = gold_reward(a, story).total - gold_reward(b, story).total
            if not gap: continue
            def claims(answer): return [s for s in answer.split('. ') if re.match('[A-Z][a-z]+ (was|lived|had)', s)]
            for rule, x in (('shorter', len(b.split()) - len(a.split())), ('claims', len(claims(a)) - len(claims(b))),
                            ('distinct', len(set(claims(a))) - len(set(claims(b))))):
                right[rule].append(0.5 if not x else float((x > 0) == (gap > 0)))
        for rule, hits in right.items(): assert sum(hits) / len(hits) < 0.65, rule


@pytest.mark.parametrize('ties', [0, 0.5, 2])
def test_chances_are_those_of_the_papers(ties):
    annotator = Annotator(0.7, ties)
    for gap in (-30, -2, 0, 0.3, 5):
        first, second = math.exp((1 + gap) / 0.7), math.exp(1 / 0.7)  # strengths
        total = first + second + ties * math.sqrt(first * second)
        expected = first / total, second / total, ties * math.sqrt(first * second) / total
        assert annotator.chances((worth(1 + gap), worth(1))) == pytest.approx(expected)
    assert sum(Annotator(1e-9, ties).chances((worth(6), worth(-6)))) == pytest.approx(1)


def test_an_annotator_prefers_as_often_as_it_should():
    rng, annotator = random.Random(0), Annotator(1, 0.8)
    pair = worth(1.2), worth(0.5)
    verdicts = [annotator.prefer(pair, rng) for _ in range(8000)]
    for verdict, chance in zip((0, 1, None), annotator.chances(pair)):
        assert abs(verdicts.count(verdict) / 8000 - chance) < 4 * (chance * (1 - chance) / 8000) ** 0.5


def test_length_counts_for_the_annotator_who_likes_it():
    pair = worth(3, 10), worth(2, 40)
    assert Annotator().chances(pair)[0] > 0.8 and Annotator(length_bias=0.1).chances(pair)[0] < 0.05
    story = STORIES[0]
    reward = gold_reward(honest_answer(story), story)
    assert Annotator(2, length_bias=0.5).utility(reward) == pytest.approx((reward.total + 0.5 * reward.words) / 2)


@pytest.mark.parametrize('annotator', [Annotator(), Annotator(2, 0.5), Annotator(1, length_bias=0.1)])
def test_the_best_accuracy_is_what_betting_on_the_better_answer_gets(annotator):
    rows = list(preference_rows(200, 2, annotator=annotator))
    pairs, right = [], 0
    for row in rows:
        story = task_story(0, row['meta']['story'])
        pairs.append([gold_reward(row[key], story) for key in ('chosen', 'rejected')])
        right += annotator.utility(pairs[-1][0]) >= annotator.utility(pairs[-1][1])
    best = annotator.best_accuracy(pairs)
    from_rows = sum(max(row['meta']['chance'], 1 - row['meta']['chance']) for row in rows) / 200
    assert best == pytest.approx(from_rows, abs=1e-5) and abs(right / 200 - best) < 4 * (best * (1 - best) / 200) ** 0.5
    equal = Annotator(ties=annotator.ties).best_accuracy([(worth(1), worth(1)), (worth(1), worth(0))])
    assert equal == pytest.approx((0.5 + 1 / (1 + math.exp(-2))) / 2)


def test_rankings_have_the_order_of_plackett_and_luce():
    rng, annotator = random.Random(0), Annotator(1)
    rewards, seen = [worth(1), worth(0), worth(0.5)], {}
    for _ in range(6000):
        scores = annotator.rank(rewards, rng)
        order = tuple(sorted(range(3), key=lambda i: -scores[i]))
        seen[order] = seen.get(order, 0) + 1
    strengths = [math.exp(reward.total) for reward in rewards]
    for order in permutations(range(3)):
        chance = strengths[order[0]] / sum(strengths) * strengths[order[1]] / (strengths[order[1]] + strengths[order[2]])
        assert abs(seen[order] / 6000 - chance) < 4 * (chance * (1 - chance) / 6000) ** 0.5


def test_a_list_has_six_pairs_in_the_order_of_its_scores():
    for row in ROWS[ranking_rows, 2][:50]:
        pairs = ranking_pairs(row)
        assert len({pair['id'] for pair in pairs}) == 6
        for pair in pairs:
            i, j = (row['answers'].index(pair[key]) for key in ('chosen', 'rejected'))
            assert row['scores'][i] > row['scores'][j] and pair['prompt'] == row['prompt']
            assert pair['meta']['gold'] == [row['meta']['gold'][i], row['meta']['gold'][j]]
            assert pair['meta']['faults'] == [row['meta']['faults'][i], row['meta']['faults'][j]]


@pytest.mark.parametrize('flags', [dict(temperature=0), dict(temperature=-1), dict(temperature=math.nan),
                                   dict(temperature=math.inf), dict(ties=-1), dict(ties=math.nan)])
def test_impossible_annotators_are_refused(flags):
    with pytest.raises(UserError) as error: Annotator(**flags)
    assert '\n' not in str(error.value) and next(iter(flags)) in str(error.value)


def test_a_ranking_with_ties_is_refused():
    with pytest.raises(UserError, match='ties'): list(ranking_rows(1, annotator=Annotator(ties=1)))
