"Stories and their prices: reading undoes writing, and the probabilities add up to one."
import math
import re
from collections import Counter
from copy import deepcopy

import pytest

from llmbook.text import state
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.grammar import _finish, is_story, parse, tell
from llmbook.text.ledger import Reader, Source, derivations
from llmbook.text.state import NAMES, SHORT, TURNS, State, _opening
from llmbook.text.stories import _KINDS, accepted, facts, frequencies, read_story, write_story

STORIES = [write_story(seed) for seed in range(400)]
SCENE = ('One morning Mira the baker lived in the mill with a red lamp. Tom the weaver was in the mill. '
         'There was a blue rope in the barn.')


def test_reading_undoes_writing():
    for s in STORIES:
        again = read_story(s.text)
        assert parse(s.text) == s.choices and again.events == s.events
        assert again.logp == pytest.approx(s.logp, abs=1e-9)
        assert again.blind == pytest.approx(s.blind, abs=1e-9)


def test_stories_differ_and_are_bounded():
    assert len({s.text for s in STORIES}) == len(STORIES)
    assert max(len(re.findall(r"\w+|[^\w\s]", s.text)) for s in STORIES) <= 200


def test_following_the_story_is_worth_something():
    words = sum(len(re.findall(r"\w+|[^\w\s]", s.text)) for s in STORIES)
    assert sum(s.logp - s.blind for s in STORIES) / words >= 0.25


def test_the_same_story_for_the_same_seed(): assert write_story(7).text == STORIES[7].text != STORIES[8].text


def last_sentences():
    "The total probability of all ways to end a story after one more sentence, and the repeated texts."
    scene = State()
    _opening(Reader(SCENE), scene)

    def program(source):
        s = deepcopy(scene)
        s.turns = TURNS[1] - 1
        _finish(source, s)
    ends = derivations(program)
    return sum(math.exp(logp) for _, logp in ends), len(ends) - len({text for text, _ in ends})


def test_probabilities_add_up_to_one():
    total, twice = last_sentences()
    assert total == pytest.approx(1, abs=1e-9) and twice == 0


def test_a_missing_factor_is_noticed(monkeypatch):
    choose = Source.choose

    def forgetful(self, kind, options, weights=None):
        before = self.logp
        value = choose(self, kind, options, weights)
        if kind == 'quality': self.logp = before
        return value
    monkeypatch.setattr(Source, 'choose', forgetful)
    assert last_sentences()[0] == pytest.approx(2.05, abs=0.2)


def test_all_stories_of_a_reduced_world_add_up_to_one(monkeypatch):
    "And every kind of choice that is not forced there matters to the total."
    reduced = {'NAMES': ('Mira', 'Tom'), 'HOME': {'Mira': 'mill', 'Tom': 'mill'},
               '_PLACES_BUT': {None: [('mill', ' mill')]}, '_TIMES': state._TIMES[:1],
               'THINGS': ('lamp', 'rope', 'bell'), 'QUALITIES': ('red', 'blue', 'green')}
    for name, value in reduced.items(): monkeypatch.setattr(state, name, value)
    free = {kind: dict.fromkeys(surfaces, 0.) for kind, surfaces in _KINDS.items()}
    paths = []

    def program(source):
        source.table = free
        tell(source, (0, 0))
        paths.append(source)
    told = derivations(program)
    assert len({text for text, _ in told}) == len(told) == 41_472
    assert sum(math.exp(logp) for _, logp in told) == pytest.approx(1, abs=1e-9)
    without = Counter()  # kind -> total of a ledger that forgets it
    for source in paths:
        price = Counter()
        for (kind, _), (logp, _) in zip(source.choices, source.costs, strict=True):
            price[kind] += logp
        for kind in price:
            without[kind] += math.exp(source.logp - price[kind])
    noticed = {kind for kind, total in without.items() if total > 1.5}
    assert noticed == {'newcomer', 'intro', 'with', 'new quality', 'new thing', 'more', 'quality', 'companion'}


def test_the_blind_oracle_knows_every_surface():
    for kind, row in frequencies().items():
        assert sum(map(math.exp, row.values())) == pytest.approx(1), kind
        assert set(_KINDS[kind]) == set(row), kind
    assert all(surface in _KINDS[kind] for s in STORIES for kind, surface in s.choices)


def test_facts_have_rates():
    rates = {(f.name, f.relation): f.rate for f in facts()}
    assert len(rates) == 2*len(NAMES) and min(rates.values()) > 0
    assert rates['Mira', 'home'] > rates[NAMES[-1], 'home']


def test_a_text_that_is_no_story_has_no_price():
    with pytest.raises(ValueError, match='character'): read_story('Once upon a time.')


def test_held_out_stories_are_others():
    train, val = ({d['text'] for d in world_documents(300, 0, start)} for start in (0, HELD_START))
    assert not train & val


def test_accepted_is_where_reading_stops():
    "The same place that `read_story` names, for a complete story, a beginning, a lie and what follows a story."
    for s in STORIES[:50]:
        cut, more = s.text[:len(s.text)//2], s.text + ' More.'
        lie = s.text.replace(' the', ' a', 1)
        assert accepted(s.text) == len(s.text)
        for text in (cut, more, lie, '', 'Mira'):
            with pytest.raises(ValueError) as e: read_story(text)
            assert f'at character {accepted(text)} ' in str(e.value)
    assert accepted(STORIES[0].text + ' More.') == len(STORIES[0].text)


def test_short_stories_are_stories_of_their_own():
    for seed in range(200):
        story = write_story(seed, SHORT)
        again = read_story(story.text, SHORT)
        assert again.logp == story.logp and again.state == story.state and SHORT[0] <= story.state.turns <= SHORT[1] + 1
        assert is_story(story.text, (SHORT[0], TURNS[1])) and len(story.text) < 700
    assert sum(is_story(write_story(seed, SHORT).text) for seed in range(200)) < 80 # too short for the others
