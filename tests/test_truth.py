"What each stage taught: shares, errors, rivals and policies, on values worked out by hand."
from math import isclose, sqrt
from statistics import pstdev

import pytest

from llmbook.align import truth
from llmbook.align.scoring import RULES
from llmbook.model.checkpoints import book_model
from llmbook.text.corpus import HELD_START
from llmbook.text.preferences import REQUEST
from llmbook.text.tasks import question_rows


@pytest.fixture(scope='module')
def tuned(): return book_model('sft')


def test_constants_come_from_rows_that_are_not_held_out(monkeypatch):
    starts = []
    def counted(n, level=1, **more):
        starts.append(more)
        return question_rows(50, level, **more)
    monkeypatch.setattr(truth, 'question_rows', counted)
    constants = truth.best_constants(50)
    assert set(constants) == {'trade', 'home', 'first place', 'first name', 'second name'}
    assert starts == [{}] and HELD_START > 50


def test_shares_by_kind():
    rows = [{'meta': {'kind': kind}} for kind in ('home', 'home', 'trade')]
    assert truth.share_by_kind(rows, [True, False, True]) == {'home': 0.5, 'all': pytest.approx(2/3), 'trade': 1.0}
    with pytest.raises(ValueError): truth.share_by_kind(rows, [True])


def test_error_treats_groups_as_independent():
    mean, error = truth.share_and_error([1, 1, 0, 0], 'aabb')
    assert mean == 0.5 and isclose(error, 0.5/sqrt(2))
    assert isclose(truth.share_and_error([1, 1, 0, 0], range(4))[1], 0.25)


def test_preferred_counts_ties_half():
    share, error = truth.preferred([1, 2, 3, 3], [1, 1, 1, 4])
    assert share == 0.625 and isclose(error, pstdev([0.5, 1, 1, 0])/2)


def test_base_models_are_judged_kindly_and_fit_the_context(tuned):
    base, tokenizer = book_model()
    rows = list(question_rows(6, start=HELD_START, sentences=True))
    for shots in (0, 3): assert len(truth.prompted(base, tokenizer, rows, shots)) == 6
    ids = truth._prompt_ids(rows[0], rows[1:], tokenizer, 200)
    assert len(ids) <= 200
    alone = truth._prompt_ids(rows[0], [], tokenizer, 10) # at least the question
    assert truth._prompt_ids(rows[0], rows[1:], tokenizer, 10) == alone


def test_pairs_without_a_judge_and_policies(tuned):
    model, tokenizer = tuned
    judged = truth.pairs_judged(None, model, tokenizer, 6)
    assert 'accuracy' not in judged and set(judged['others']) == {*RULES, "the model's own log-probability"}
    assert all(0 <= share <= 1 for share in judged['others'].values()) and 0.5 <= judged['best'] <= 1
    table, example = truth.policies_compared({'one': model, 'same': model}, tokenizer, 4)
    assert table['same']['wins'] == 0.5 and table['same']['wins_error'] == 0 and 'wins' not in table['one']
    assert [answer['policy'] for answer in example['answers']] == ['one', 'same'] and REQUEST in example['prompt']
