"Choices as batches: what is asked where, the order over ranks, mismatches, rows with a label, and what is refused."

import json

import numpy as np
import pytest
import torch

from llmbook.align.chat_template import ChatTemplate
from llmbook.align.messages import Choice, choice_of
from llmbook.align.pairs import (EncodedChoice, PairStream, annotated_pairs, encode_choices, fill_choices, fit_together,
                                 labelled_of, mismatched, pair_batches, pairs_of, read_labelled)
from llmbook.core import UserError
from llmbook.model.checkpoints import book_model
from llmbook.text.batches import IGNORE
from llmbook.text.preferences import Annotator, preference_rows
from llmbook.text.tasks import task_story
from llmbook.text.unpack import Skipped


@pytest.fixture(scope='module')
def tokenizer(): return book_model()[1]


@pytest.fixture(scope='module')
def template(tokenizer): return ChatTemplate(tokenizer)


@pytest.fixture(scope='module')
def encoded(template): return encode_choices([choice_of(row, 'world') for row in preference_rows(30)], template, 256)


def ask(text, answers, scores=None):
    return Choice(text, [{'role': 'user', 'content': text}], answers, scores, {}, f'rows, {text}')


def numbers(*lengths):
    "A choice of ids that count upwards: the prompt, then the answers."
    first, *others = lengths
    return EncodedChoice('', np.arange(1, first + 1), [np.arange(50, 50 + n) for n in others], None)


# Which choices share a batch

def test_choices_that_share_batches():
    pair, tie = ask('a', ['1', '2']), ask('b', ['1', '2'], [1., 1.])
    three, tied = ask('c', ['1', '2', '3'], [3., 2., 1.]), ask('d', ['1', '2', '3'], [3., 2., 2.])
    assert fit_together([pair, tie]) and fit_together([three, three._replace(scores=None)])
    assert not fit_together([pair, three]) and not fit_together([three, tied]) and not fit_together([tied])


# What a batch asks

def test_a_row_by_hand():
    batch = fill_choices([numbers(3, 2, 4)], [7], 8, pad=99)
    assert batch['ids'].tolist() == [[[1, 2, 3, 50, 99, 99, 99, 99], [1, 2, 3, 50, 51, 52, 99, 99]]]
    no = IGNORE
    assert batch['labels'].tolist() == [[[no, no, 50, 51, no, no, no, no], [no, no, 50, 51, 52, 53, no, no]]]
    assert batch['rows'].tolist() == [7] and batch['tie'].tolist() == [False] and batch['margin'].tolist() == [0]


def test_labels_are_the_answer_with_its_end_mark_and_nothing_else(template, tokenizer):
    talk = [{'role': 'user', 'content': 'Hello.'}, {'role': 'assistant', 'content': 'Good day.'},
            {'role': 'user', 'content': 'Go on.'}]
    [choice] = encode_choices([Choice('a', talk, ['Ana was a baker.', 'No.'], None, {}, '')], template, 256)
    batch = fill_choices([choice], [0], 64, tokenizer.pad)
    said = [row[row != IGNORE].tolist() for row in batch['labels'][0]]
    assert [tokenizer.decode(ids, skip_special_tokens=False) for ids in said] == ['Ana was a baker.<|end|>', 'No.<|end|>']
    for ids, row in zip(batch['ids'][0], batch['labels'][0]):
        whole = template.encode([*talk, {'role': 'assistant', 'content': tokenizer.decode(row[row != IGNORE].tolist())}]).ids
        assert ids[:len(whole) - 1].tolist() == whole[:-1]


def test_facts_of_scores(template):
    rows = [ask('a', ['x', 'y'], [2., 0.5]), ask('b', ['x', 'y'], [1., 1.]), ask('c', ['x', 'y'])]
    choices = encode_choices(rows, template, 64)
    batch = fill_choices(choices, range(3), 32)
    assert batch['tie'].tolist() == [False, True, False] and batch['margin'].tolist() == [1.5, 0, 0] and 'good' not in batch


def test_lists_become_pairs_in_their_order():
    pairs = pairs_of(ask('q', ['a', 'b', 'c'], [3., 3., 1.]))
    assert [(p.answers, p.scores) for p in pairs] == [(['a', 'b'], [3, 3]), (['a', 'c'], [3, 1]), (['b', 'c'], [3, 1])]
    assert [p.scores for p in pairs_of(ask('q', ['a', 'b']))] == [None] and len({p.id for p in pairs}) == 3


# Streams

def test_ranks_hold_what_one_process_holds(encoded):
    stream = PairStream(encoded, 6, 256, seed=1, columns={'ref': torch.randn(30, 2)})
    for step in (0, 4, 11): # within an epoch, and over its end
        whole, parts = stream[step], [stream.slice(rank, 3)[step] for rank in range(3)]
        for name in whole: assert torch.equal(torch.stack([p[name] for p in parts], 1).flatten(0, 1), whole[name]), name
        assert torch.equal(whole['ref'], stream.columns['ref'][whole['rows']])
        assert whole['ids'].size(-1) % 16 == 0


def test_an_epoch_shows_each_row_once_in_an_order_of_the_seed(encoded):
    orders = [[i for step in range(5) for i in PairStream(encoded, 6, 256, seed)[step]['rows'].tolist()] for seed in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(30)) and orders[0] == orders[1] != orders[2]


def test_width_is_that_of_the_global_batch():
    stream = PairStream([numbers(3, 2, 4), numbers(30, 5, 40)], 2, 100)
    assert {stream.slice(rank, 2)[0]['ids'].size(-1) for rank in range(2)} == {80}
    assert PairStream([numbers(30, 5, 40)], 1, 70)[0]['ids'].size(-1) == 70


def test_measured_in_order_of_length(encoded):
    stream = PairStream(encoded, 6, 256)
    batches = list(pair_batches(stream, 8))
    assert sorted(i for b in batches for i in b['rows'].tolist()) == list(range(30))
    widths = [b['ids'].size(-1) for b in batches]
    assert widths == sorted(widths) and len(set(widths)) > 1


def test_mismatches_are_answers_to_another_prompt():
    same = [EncodedChoice(str(i), np.array([i // 3, 0]), [np.array([100 + i])], None) for i in range(12)] # three rows a prompt
    mates = [int(choice.answers[0][0]) - 100 for choice in mismatched(same, 8)]
    assert all(i // 3 != mate // 3 for i, mate in enumerate(mates))
    assert mates != [int(c.answers[0][0]) - 100 for c in mismatched(same, 8, seed=1)]
    long = mismatched([numbers(6, 2, 2), numbers(2, 9, 9)._replace(prompt=np.array([8, 9]))], 8)
    assert [c.places for c in long] == [8, 3] and len(long[0].answers[0]) == 3 # cut to fit
    with pytest.raises(UserError, match='same prompt'): mismatched(same[:3], 8)


# What is refused

def test_too_long_is_refused_or_counted(template):
    rows = [ask('short', ['a', 'b']), ask('long', ['a', 'b c d e f g h i j k l m n o p'])]
    with pytest.raises(UserError, match=r'rows, long: \d+ tokens, the model reads 12; shorten it, or give --skip-bad'):
        encode_choices(rows, template, 12)
    skipped = Skipped(lenient=True)
    assert [c.id for c in encode_choices(rows, template, 12, skipped)] == ['short'] and skipped == {'rows that are too long': 1}


def test_lists_that_cannot_share_a_batch():
    with pytest.raises(UserError, match='rows with 2 and 3 answers'): PairStream([numbers(3, 1, 1), numbers(3, 1, 1, 1)], 1, 8)
    with pytest.raises(UserError, match='equal scores in a list of 3'):
        PairStream([numbers(3, 1, 1, 1)._replace(scores=[2., 1., 1.])], 1, 8)
    with pytest.raises(UserError, match='no rows'): PairStream([], 1, 8)
    with pytest.raises(UserError, match='do not divide'): PairStream([numbers(3, 1, 1)], 3, 8).slice(0, 2)


# Rows with a label, and labels of the annotator

def test_rows_with_a_label(tmp_path, template):
    rows = [{'prompt': 'p', 'completion': 'yes', 'label': True}, {'prompt': 'q', 'completion': 'no', 'label': 0},
            {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}, {'prompt': 'r', 'completion': 'x', 'label': 'up'}]
    (tmp_path/'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    skipped = Skipped(lenient=True)
    found = list(read_labelled(tmp_path/'rows.jsonl', skipped))
    assert [(c.answers, c.scores) for c in found] == [(['yes'], [1]), (['no'], [0]), (['good', 'bad'], None)]
    assert skipped == {'rows without a label': 1}
    assert fill_choices(encode_choices(found[:2], template, 64), [0, 1], 16)['good'].tolist() == [True, False]
    with pytest.raises(UserError, match='row 4: label is "up"; give true'): list(read_labelled(tmp_path/'rows.jsonl'))
    assert labelled_of(rows[0], 'w').prompt == [{'role': 'user', 'content': 'p'}]


def test_annotated_pairs_follow_the_annotator():
    stories = [task_story(0, i) for i in range(200)]
    told = [['There is much to tell.', ' ', 'Read it yourself.', 'Read it yourself.']] * 200
    rows = annotated_pairs(stories, told, Annotator(0.5), seed=3)
    assert len(rows) == 200 and rows == annotated_pairs(stories, told, Annotator(0.5), seed=3)
    assert {choice_of(row, 'own').answers[0] for row in rows} == {row['chosen'] for row in rows}
    share = sum(row['meta']['gold'][0] > row['meta']['gold'][1] for row in rows) / 200 # by .96
    assert 0.8 < share < 0.95 # the chance is 0.87
    sure = annotated_pairs(stories, told, Annotator(0.01))
    assert all(row['meta']['gold'][0] > row['meta']['gold'][1] for row in sure)
