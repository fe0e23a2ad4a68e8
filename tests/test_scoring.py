"Rules beside a reward model, and the log-probabilities of answers, on values worked out by hand."

import pytest

from llmbook.align.messages import choice_of
from llmbook.align.scoring import RULES, answer_nats
from llmbook.model.checkpoints import book_model
from llmbook.text.claims import claim_sentence, story_claims
from llmbook.text.preferences import REQUEST, honest_answer
from llmbook.text.tasks import task_story


def test_rules_score_what_they_say():
    claims = story_claims(task_story(0, 5))[:2]
    answer = ' '.join(map(claim_sentence, [claims[0], claims[0], claims[1]]))
    counts = [RULES[name](answer) for name in ('more claims win', 'more distinct claims win')]
    assert counts == [3, 2] and RULES['the shorter wins']('one two') > RULES['the shorter wins'](answer)
    assert RULES['more claims win']('No claim at all') == 0


def test_log_probabilities_are_those_of_the_answer_alone():
    model, tokenizer = book_model('sft')
    story = task_story(0, 5)
    honest = honest_answer(story, 2)
    row = {'prompt': f'{story.text}\n{REQUEST}', 'chosen': honest, 'rejected': 'Nothing to tell.'}
    alone = choice_of(row, 'row 1')
    [[good, bad]] = answer_nats(model, tokenizer, [alone])
    assert 0 > good > bad
    [_, beside] = answer_nats(model, tokenizer, [alone._replace(answers=['Short.', honest * 3]), alone])
    assert beside == pytest.approx([good, bad], abs=1e-3)
