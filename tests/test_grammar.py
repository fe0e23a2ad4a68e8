"The grammar: reading undoes writing, the events agree with the state, and what is no story is refused."
import re
from copy import deepcopy

import pytest

from llmbook.text.grammar import _VERBS, _read, _turn, is_story, parse, tell
from llmbook.text.ledger import Writer, derivations
from llmbook.text.state import State, _opening


def written(seed):
    source = Writer(seed)
    return source, tell(source)


STORIES = [written(seed) for seed in range(300)]
TEXTS = [''.join(source.parts) for source, _ in STORIES]


def follow(events):
    "Where everything is, from the events alone."
    where = {}
    for e in events:
        if e.verb in ('live', 'be', 'go', 'go home', 'visit'): where[e.actor] = e.place
        if e.verb == 'go' and e.other: where[e.other] = e.place
        if e.verb in ('lie', 'leave'): where[e.thing] = e.place
        if e.verb in ('have', 'take', 'find'): where[e.thing] = e.actor
        if e.verb == 'give': where[e.thing] = e.other
    return where


def test_reading_undoes_writing():
    for (source, state), text in zip(STORIES, TEXTS, strict=True):
        again, end = _read(text)
        assert parse(text) == again.choices == source.choices and end == state
        assert again.logp == pytest.approx(source.logp, abs=1e-9)


def test_events_agree_with_the_state():
    assert all(follow(state.events) == state.where for _, state in STORIES)


def test_every_verb_is_told():
    told = {surface for source, _ in STORIES for kind, surface in source.choices if kind == 'verb'}
    assert told == {surface for _, ways, _ in _VERBS for _, surface in ways}


def test_stories_are_bounded():
    assert max(len(re.findall(r"\w+|[^\w\s]", text)) for text in TEXTS) <= 200


def test_no_verb_begins_another():
    words = [surface for _, ways, _ in _VERBS for _, surface in ways]
    assert not [(a, b) for a in words for b in words if a != b and b.startswith(a)]


def test_the_sentences_of_a_state_are_different_texts():
    for seed in range(20):
        s = State()
        _opening(Writer(seed), s)
        sentences = derivations(lambda source, s=s: _turn(source, deepcopy(s), s.cast[0]))
        assert len({text for text, _ in sentences}) == len(sentences)


def test_what_is_no_story_is_refused():
    text = TEXTS[0]
    for wrong in (text[:-1], text + ' More.', text.replace(' was ', ' were ', 1), '', 'The lamp.'):
        assert not is_story(wrong)
    assert all(map(is_story, TEXTS[:20]))
