"The chapter `toxicity`: a list of words, and a small classifier."
from functools import partial

import cloudpickle
import numpy as np
import pytest

from llmbook.text import toxicity
from llmbook.text.corpus import world_documents
from llmbook.text.filters import ENGLISHES
from llmbook.text.pipeline import rule_name
from llmbook.text.templates import FIRST
from llmbook.text.toxicity import not_scored_toxic, not_toxic, train_scorer

RUDE = """
You are a waste of everyone's time.
What a load of rubbish you write.
I can't stand you.
You are as dull as dishwater.
Bog off, you boring person.
Your drawings are rubbish and so are you.
You should be ashamed of yourself.
Just shut up already.
I hope your cake burns.
You’re nothing but a liar.
Everyone laughs at you behind your back.
You have the brain of a goldfish.
Go and cry to your mother.
Drop dead.
How can one person be so stupid?
YOU FILTHY PIG.
You're not worth the paper you write on.
Everything you say is a lie.
Do the world a favour and disappear.
""".strip().splitlines()

CALM = """
The children learn to read and write.
He was the son of a baker.
The soup is too thick.
You may get lost in the forest.
They asked her to go away for a week.
You are going to see a monster.
Your computer is slow.
Are you tired of your job?
Logs burn in the stove.
Brain cells need sugar.
The house was shut up for the winter.
I hope you never have to move.
I hope you fall asleep soon.
You have a dog and a pig.
Put your rubbish in the bin.
Smoking could kill you.
No one can see your password.
Stop wasting energy at home.
A heap of dirt lay by the road.
The ugly duckling was a swan.
Mr Hassan went from Scunthorpe to Assam for a class in assembly.
The dumb waiter is a small lift.
The dog smells like a wet dog.
You look great in that coat.
""".strip().splitlines()


def flagged(text): return not_toxic({'id': 'a', 'text': text}) == 'toxic words'


@pytest.mark.parametrize('text', [*FIRST['toxic'], *RUDE])
def test_insults_are_found(text): assert flagged(text)


@pytest.mark.parametrize('text', CALM)
def test_ordinary_sentences_stay(text): assert not flagged(text), toxicity._toxic_words(text)


def test_stories_and_four_kinds_of_english_stay():
    for document in world_documents(200, seed=5): assert not_toxic(document) is document
    assert not any(flagged(text) for row in ENGLISHES for text in row)


def test_one_insult_in_a_page_is_enough():
    story = next(iter(world_documents(1, seed=5)))['text']
    half = story.index('. ') + 2
    for text in FIRST['toxic']: assert flagged(story[:half] + text + ' ' + story[half:])


def test_nothing_of_what_the_page_has_around_its_text_is_toxic():
    for part in ('titles', 'inside', 'near', 'personal', 'top', 'bottom'):
        assert not [text for text in FIRST[part] if flagged(text)]


def test_words_near_you_must_be_near_and_in_the_same_sentence():
    assert flagged('You are really and always ugly.')
    assert not flagged('You drew a house, a tree, two clouds, the sun and an ugly duckling.')
    assert not flagged('The duckling was ugly. You liked it.') and flagged('It is ugly of you.')


def test_the_hints_save_only_time():
    "Without them the same is found, in sentences of every kind."
    for text in [*FIRST['toxic'], *RUDE, *CALM, 'That could make me sick', 'Someone get me out of my sight']:
        for sentence in toxicity._SENTENCE_END.split(text.lower().replace('’', "'")):
            words = toxicity._WORDS.findall(sentence)
            every = set(words) & toxicity._ALWAYS | set(toxicity._near_you(words))
            every |= {match[0] for match in toxicity._PHRASES.finditer(sentence)}
            assert set(toxicity._toxic_words(sentence)) == every


LONG = 'you are ' + 'very ' * 5000 + 'x'


@pytest.mark.parametrize('text', ['', '\n\n', '...', '\ud800', '\x00', 'you ' * 10_000, "'" * 1000, LONG])
def test_any_text_has_an_answer(text): assert not flagged(text)


@pytest.fixture(scope='module')
def scorer():
    good = [document['text'].split('. ')[0] for document in world_documents(60, seed=5)]
    return train_scorer([*FIRST['toxic'], *good], [True] * len(FIRST['toxic']) + [False] * len(good))


def test_the_classifier_separates_its_own_examples(scorer):
    assert all(scorer(text) > 0.5 for text in FIRST['toxic'])
    assert all(scorer(document['text'].split('. ')[0]) < 0.5 for document in world_documents(60, seed=5))


def test_its_probability_is_the_logistic_function_of_the_sum(scorer):
    features = toxicity._text_features('Mira sang.', True)
    total = scorer.weights[features].sum() / np.sqrt(len(features)) + scorer.bias
    assert scorer('Mira sang.') == pytest.approx(1 / (1 + np.exp(-total)))
    assert scorer('') == scorer('...') == pytest.approx(1 / (1 + np.exp(-scorer.bias)))


def test_features_are_words_pairs_and_groups_within_words():
    words_only = set(toxicity._text_features('ab cd', False))
    assert len(words_only) == 3 and len(set(toxicity._text_features('ab cd', True)) - words_only) == 6
    assert list(toxicity._text_features('Ab CD', False)) == list(toxicity._text_features('ab, cd!', False))
    assert toxicity._text_features('', True).tolist() == []


def test_training_is_repeatable_and_weights_of_examples_count():
    texts, labels = ['a b', 'c d', 'a d', 'c b'], [True, False, True, False]
    first, second = train_scorer(texts, labels), train_scorer(texts, labels)
    assert np.array_equal(first.weights, second.weights) and first.bias == second.bias
    heavy = train_scorer(texts, labels, weights=[10, 1, 10, 1])
    assert heavy('c d') > first('c d')
    assert not np.array_equal(first.weights, train_scorer(texts, labels, letters=False).weights)


def test_both_classes_count_the_same_however_many_examples_each_has():
    "Three times the same harmless examples change nothing."
    texts, labels = ['a b', 'c d', 'a d', 'c b'], [True, False, True, False]
    more = train_scorer([*texts, 'c d', 'c b', 'c d', 'c b'], [*labels, *[False] * 4])
    assert abs(more('x y') - 0.5) < 0.01 and abs(more('a c') - 0.5) < 0.01


def test_the_rule_asks_about_every_sentence(scorer):
    rule = cloudpickle.loads(cloudpickle.dumps(partial(not_scored_toxic, scorer=scorer)))
    firsts = [document['text'].split('. ')[0] for document in world_documents(3, seed=5)]
    story = {'id': 'a', 'text': '. '.join(firsts)}
    assert rule(story) is story and rule_name(rule) == 'not_scored_toxic'
    assert rule(story | {'text': story['text'] + '. ' + FIRST['toxic'][0]}) == 'toxic sentence'
    assert rule(story | {'text': ''}) == story | {'text': ''}
    assert rule(story, most=0.0) == 'toxic sentence'
    rude = story | {'text': story['text'] + '. ' + FIRST['toxic'][0]}
    assert rule(rude, most=1.0) is rude
