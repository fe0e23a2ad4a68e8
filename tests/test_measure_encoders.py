"Encoders are measured by hidden tokens and by rows: the same places for the same seed, and refusals in one line."
import math

import numpy as np
import pytest
import torch

from llmbook.core import UserError
from llmbook.evaluation.measure import evaluate, read_results
from llmbook.evaluation.measure_encoders import masked_task, rows_task, unigram_nats
from llmbook.files import write_jsonl
from llmbook.model.checkpoints import book_model
from llmbook.model.encoder_heads import MaskedLM, classifier_from
from llmbook.model.encoders import EncoderConfig
from llmbook.model.heads_on_disk import save_classifier
from llmbook.text.framing import text_tokenizer
from llmbook.train.masking import MaskedStream, Vocabulary
from llmbook.train.pretrain_encoder import text_rows

TEXTS = [' Mira the baker was in the mill with a blue rope.', ' Tom saw Ana.', ' One day it rained in the garden.'] * 3


@pytest.fixture(scope='module')
def words(): return text_tokenizer(book_model()[1])


@pytest.fixture(scope='module')
def encoder(words): return MaskedLM(EncoderConfig(words.vocab_size, 32, 1, 2, 32, 64), seed=0).eval()


def test_bits_are_those_of_the_hidden_tokens(encoder, words):
    found = masked_task(encoder, words, TEXTS, TEXTS, seed=3)
    stream = MaskedStream(text_rows(TEXTS, words, 32), Vocabulary(words), 16, 32, 3)
    costs, total, unigram, n = unigram_nats(TEXTS, words), 0., 0., 0
    for i, row in enumerate(stream.packed):
        read, places = stream.hidden_row(0, i)
        with torch.no_grad(): log_p = encoder(torch.from_numpy(read.astype(np.int64))[None])[0].log_softmax(-1)
        total -= sum(log_p[place, row.ids[place]].item() for place in places)
        unigram += sum(costs[row.ids[place]] for place in places)
        n += len(places)
    assert math.isclose(found['bits_per_masked_token'], total / n / math.log(2), rel_tol=1e-5)
    assert math.isclose(found['unigram_bits'], unigram / n / math.log(2), rel_tol=1e-6) and found['tokens'] == n


def test_broken_weights_are_said(encoder, words):
    broken = MaskedLM(encoder.config, seed=0)
    broken.norm.weight.data[0] = math.nan
    with pytest.raises(UserError, match='its weights are broken'): masked_task(broken, words, TEXTS)


@pytest.fixture
def judge(encoder, words, tmp_path):
    model = classifier_from(encoder, 2, seed=0)
    model.labels = ['bad', 'good']
    save_classifier(model, words, tmp_path/'judge')
    write_jsonl(tmp_path/'rows.jsonl', [{'text': text, 'label': ('bad', 'good')[i % 2]} for i, text in enumerate(TEXTS)])
    return tmp_path


def test_rows_from_the_command(judge, capsys):
    found = evaluate(str(judge/'judge'), ['rows'], data=str(judge/'rows.jsonl'), out=str(judge/'out'))['rows']
    assert 'accuracy' in capsys.readouterr().out and found['rows'] == len(TEXTS)
    assert read_results(judge/'out/results.json')['rows']['accuracy'] == found['accuracy']


@pytest.mark.parametrize('more, said', [
    ({}, "--tasks world: judge has learned a task.*--tasks rows --data FILE"),
    ({'tasks': ['rows']}, '--data FILE and --tasks rows go together'),
    ({'tasks': ['rows'], 'data': 'other.jsonl'}, 'of another form'),
])
def test_refusals(judge, more, said, monkeypatch):
    monkeypatch.chdir(judge)
    spans = {'context': 'Tom saw Ana.', 'question': 'Who?', 'answers': {'text': ['Ana'], 'answer_start': [8]}}
    write_jsonl('other.jsonl', [spans])
    with pytest.raises(UserError, match=said): evaluate('judge', **more)


def test_a_decoder_gives_no_labels(judge):
    with pytest.raises(UserError, match='guesses tokens and gives no labels.*llmbook classify'):
        evaluate(str(book_model()[0].folder), ['rows'], data=str(judge/'rows.jsonl'))


def test_rows_are_those_of_the_model(judge, encoder, words):
    model = classifier_from(encoder, 2, seed=0)
    model.labels = ['bad', 'good']
    with torch.no_grad(): model.score.bias.copy_(torch.tensor([9., 0.]))
    assert math.isclose(rows_task(model, words, str(judge/'rows.jsonl'))['accuracy'], 5 / 9)
