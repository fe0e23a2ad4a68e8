"The story world: reading undoes writing, the prices agree, and what is no story is refused."
import re

import pytest

from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.grammar import is_story, parse
from llmbook.text.stories import read_story, write_story

STORIES = [write_story(seed) for seed in range(400)]


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


def test_what_is_no_story_is_refused():
    text = STORIES[0].text
    for wrong in (text[:-1], text + ' More.', text.replace(' was ', ' were ', 1), '', 'The lamp.'):
        assert not is_story(wrong)
    with pytest.raises(ValueError, match='character'): read_story('Once upon a time.')


def test_held_out_stories_are_others():
    train, val = ({d['text'] for d in world_documents(300, 0, start)} for start in (0, HELD_START))
    assert not train & val
