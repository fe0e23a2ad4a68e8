"Stories and their prices: reading undoes writing, the probabilities add up to one, and held-out stories are others."
import math
import re
from copy import deepcopy

import pytest

from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.grammar import _MAX_TURNS, _finish, parse
from llmbook.text.ledger import Reader, Source, derivations
from llmbook.text.state import NAMES, State, _opening
from llmbook.text.stories import _KINDS, facts, frequencies, read_story, write_story

STORIES = [write_story(seed) for seed in range(400)]
SCENE = ('One morning Mira the baker lived in the mill with a red lamp. Tom the weaver was in the mill. '
         'There was a blue rope in the barn.')


def test_reading_undoes_writing():
    for s in STORIES:
        again = read_story(s.text)
        assert parse(s.text) == s.choices and again.events == s.events
        assert again.logp == pytest.approx(s.logp, abs=1e-9) and again.blind == pytest.approx(s.blind, abs=1e-9)


def test_stories_differ_and_are_bounded():
    assert len({s.text for s in STORIES}) == len(STORIES)
    assert max(len(re.findall(r"\w+|[^\w\s]", s.text)) for s in STORIES) <= 200


def test_following_the_story_is_worth_something():
    words = sum(len(re.findall(r"\w+|[^\w\s]", s.text)) for s in STORIES)
    assert sum(s.logp - s.blind for s in STORIES) / words >= 0.25


def test_the_same_story_for_the_same_seed(): assert write_story(7).text == STORIES[7].text != STORIES[8].text


def last_sentences():
    "The total probability of all ways to end a story with one sentence left, and how many texts come twice."
    scene = State()
    _opening(Reader(SCENE), scene)

    def program(source):
        s = deepcopy(scene)
        s.turns = _MAX_TURNS - 1
        _finish(source, s)
    ends = derivations(program)
    return sum(math.exp(logp) for _, logp in ends), len(ends) - len({text for text, _ in ends})


def test_probabilities_add_up_to_one():
    total, twice = last_sentences()
    assert total == pytest.approx(1, abs=1e-9) and twice == 0


def test_a_missing_factor_is_noticed(monkeypatch):
    choose = Source.choose

    def forgetful(self, kind, options, weights=None):
        before, value = self.logp, choose(self, kind, options, weights)
        if kind == 'quality': self.logp = before
        return value
    monkeypatch.setattr(Source, 'choose', forgetful)
    assert last_sentences()[0] > 1.1


def test_the_blind_oracle_knows_every_surface():
    for kind, row in frequencies().items(): assert sum(map(math.exp, row.values())) == pytest.approx(1), kind
    assert all(set(_KINDS[kind]) == set(row) for kind, row in frequencies().items())
    assert all(surface in _KINDS[kind] for s in STORIES for kind, surface in s.choices)


def test_facts_have_rates():
    rates = {(f.name, f.relation): f.rate for f in facts()}
    assert len(rates) == 2*len(NAMES) and min(rates.values()) > 0 and rates['Mira', 'home'] > rates[NAMES[-1], 'home']


def test_a_text_that_is_no_story_has_no_price():
    with pytest.raises(ValueError, match='character'): read_story('Once upon a time.')


def test_held_out_stories_are_others():
    train, val = ({d['text'] for d in world_documents(300, 0, start)} for start in (0, HELD_START))
    assert not train & val
