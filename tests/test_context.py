"Context: sentences add up to their story, the swap cancels what it must, and two estimates enclose the truth."
import math
from collections import Counter
from random import Random

import numpy as np
import pytest

from llmbook.evaluation.context import (
    _PAIR, _copied, _tell_one, context_gain, moments, retell, sentence_alone, sentence_probability, split_stories,
)
from llmbook.evaluation.perplexity import as_ids
from llmbook.model.ngram import Ngram
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.ledger import derivations
from llmbook.text.state import QUALITIES, THINGS
from llmbook.text.stories import read_story


@pytest.fixture(scope='module')
def world():
    "Stories and a tokenizer."
    stories = list(world_documents(60, 0, HELD_START))
    return stories, train_tokenizer((d['text'] for d in world_documents(200)), 500)


def test_moments_add_up_to_the_story(world):
    for story in world[0]:
        found, read = moments(story['text']), read_story(story['text'])
        assert story['text'].endswith(''.join(m.sentence for m in found)) and found[0].at > 0
        for key, oracle in (('logp', 0), ('blind', 1)):
            opening = next(i for i, (kind, _) in enumerate(read.choices) if kind == 'start')
            rest = sum(cost[oracle] for cost in read.costs[opening:])
            assert sum(getattr(m, key) for m in found) == pytest.approx(rest)
        assert all(m.sentence[0] == ' ' and m.sentence[-1] in '."' for m in found)


def test_moments_are_left_as_they_are(world):
    "Pricing a sentence changes no state."
    m = moments(world[0][0]['text'])[2]
    before = repr(m.state)
    assert sentence_probability(m.sentence, m) > 0 and repr(m.state) == before


def test_split_is_the_story(world):
    stories, tokenizer = world
    parts = split_stories(tokenizer, stories)
    for ids, before, after in zip(as_ids(tokenizer, stories), *parts, strict=True):
        assert ids[:len(before) + len(after)] == before + after and before[0] == 1 and 2 not in before + after
    assert split_stories(tokenizer, stories) == parts


def test_gain_of_counting(world):
    "A unigram gains nothing whatever takes the beginnings' place; by hand, for a reader that counts repeats."
    stories, tokenizer = world
    before, after = split_stories(tokenizer, stories)
    unigram = Ngram(1, 500).fit(as_ids(tokenizer, stories)).nats
    for others in (None, [b[:9] for b in before]):
        gain = context_gain(unigram, before, after, others)
        assert gain.mean == pytest.approx(0, abs=1e-12) and gain.error == pytest.approx(0, abs=1e-12)
    def fresh(documents): return np.array([float(len(set(d[1:]))) for d in documents])
    assert context_gain(fresh, [[1, 5], [1, 6]], [[5, 7], [6]]) == (2 / 3, pytest.approx(math.sqrt(2 * 2 / 9) / 3))


def test_retold_stories(world):
    "A story of the world, with the same opening, the same for the same seed."
    for seed, story in enumerate(world[0][:20]):
        text = retell(story['text'], seed)
        at = moments(story['text'])[0].at
        assert text[:at] == story['text'][:at] and moments(text)[0].at == at
        assert read_story(text).text == text == retell(story['text'], seed)
    assert len({retell(world[0][0]['text'], seed) for seed in range(9)}) > 7


def test_renamed_things_change_no_price(world):
    "A lamp in place of a coin: the probability at a moment stays, and that of a name is one in 144."
    for story in world[0][:20]:
        for m in moments(story['text']):
            found = [t for t in m.state.things if f'{m.state.quality[t]} {t}' in m.sentence]
            if not found: assert sentence_probability(m.sentence, m) == pytest.approx(math.exp(m.logp))
            else:
                renamed = m.sentence.replace(f'{m.state.quality[found[0]]} {found[0]}', 'small shell')
                here = sentence_probability(m.sentence, m)
                assert sentence_probability(renamed, m) == pytest.approx(here) and here >= math.exp(m.logp) / 144 * 0.999


def following(m):
    "Every sentence that may follow this moment, and its probability."
    def program(source):
        source.size = m.at
        _tell_one(source, _copied(m.state))
    paths = derivations(program)
    return [text for text, _ in paths], [math.exp(logp) for _, logp in paths]


def small_world(every):
    "The exact probability of every sentence that may follow one of these moments, with every name for its thing."
    names = [f'{quality} {thing}' for quality in QUALITIES for thing in THINGS]
    table = Counter()
    for m in every:
        for text, chance in zip(*following(m)):
            pair = _PAIR.search(text)
            called = [text.replace(pair[0], name) for name in names] if pair else [text]
            for sentence in called: table[sentence] += chance / len(called) / len(every)
    return table


def test_estimates_enclose_the_truth(world):
    "In a world of six moments, where the exact price of every sentence is known without `sentence_probability`."
    pool = [m for story in world[0] for m in moments(story['text'])]
    six, random, drawn = pool[::60][:6], Random(0), []
    table = small_world(six)
    assert table.total() == pytest.approx(1)
    for m in six:
        texts = random.choices(*following(m), k=30)
        drawn += [m._replace(sentence=text, blind=-30.) for text in texts]
    for target in drawn:
        found = np.mean([sentence_probability(target.sentence, m) for m in six])
        assert found == pytest.approx(table[target.sentence])
    exact = -np.log([table[target.sentence] for target in drawn])
    widths = []
    for count in (15, 200):
        bounds = [sentence_alone([target], random.choices(six, k=count))[0] for target in drawn]
        low, high = (np.array(bounds) - exact[:, None]).T
        noise = math.sqrt(len(drawn))
        assert low.mean() < 2 * low.std() / noise and high.mean() > -2 * high.std() / noise
        widths.append(high.mean() - low.mean())
    assert widths[1] < 0.1 < widths[0]
