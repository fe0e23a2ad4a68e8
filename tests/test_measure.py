"Measuring: the alarm rings only for a cheat, the stage writes what it returns, and complains in one line."
import json

import pytest
import torch

from llmbook.core import UserError
from llmbook.evaluation.measure import evaluate, print_task, text_task, world_task
from llmbook.evaluation.perplexity import as_ids, ngram_nats
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, world_documents


@pytest.fixture(scope='module')
def world():
    "Stories held out, their tokenizer, and ids of stories to count and of the held-out ones."
    train, val = list(world_documents(300)), list(world_documents(60, 0, HELD_START))
    tokenizer = train_tokenizer((d['text'] for d in train), 500)
    return val, tokenizer, as_ids(tokenizer, train), as_ids(tokenizer, val)


def decoder(V):
    config = Config(vocab_size=V, block_size=256, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, n_hidden=64)
    return Transformer(config, seed=1)


class Heart(torch.nn.Module):
    "Knows documents by heart: after each beginning of one of them, the next token is all but certain."
    def __init__(self, documents, V):
        super().__init__()
        self.w, self.config = torch.nn.Parameter(torch.zeros(V)), Config(vocab_size=V, block_size=256)
        self.next = {tuple(d[:k]): d[k] for d in documents for k in range(1, len(d))}

    def forward(self, batch, *_):
        out = torch.zeros(*batch.shape, len(self.w))
        for r, row in enumerate(batch.tolist()):
            for t in range(len(row)): out[r, t, self.next.get(tuple(row[:t + 1]), 0)] = 20
        return out


def test_alarm(world):
    "`under_floor` rings for a model that knows the stories by heart, and for no other."
    val, tokenizer, seen, ids = world
    counted = ngram_nats(ids, seen, 500)
    honest = world_task(decoder(500), tokenizer, val, counted)
    assert not honest['under_floor'] and [r['name'] for r in honest['ladder']][-1] == 'exact floor'
    assert world_task(Heart(ids, 500), tokenizer, val, counted)['under_floor']


def test_context_gain(world):
    "An untrained model follows nothing; one that knows the stories by heart loses everything with its own beginning."
    val, tokenizer, seen, ids = world
    counted = ngram_nats(ids, seen, 500)
    fresh = world_task(decoder(500), tokenizer, val, counted)
    assert abs(fresh['context_gain']) < 0.05 and fresh['context_gain_error'] < 0.05
    heart = world_task(Heart(ids, 500), tokenizer, val, counted)
    assert heart['context_gain'] > 10 and heart['context_gain'] > 5 * heart['context_gain_error']


def test_print_task(capsys):
    "A document in the singular, no error where there is none, and the warning only where it belongs."
    text = {'tokens': 7, 'documents': 1, 'bits_per_byte': 2.0, 'nats_per_byte': 1.386, 'bits_per_byte_error': float('nan')}
    print_task('text', text)
    assert capsys.readouterr().out == 'text: 7 tokens of 1 held-out document\n  2.000 bits (1.386 nats) per byte\n'
    world = {'tokens': 7, 'documents': 2, 'above_floor': -0.5, 'above_floor_error': 0.1, 'gap_closed': 1.5}
    for under in (False, True):
        print_task('world', world | {'under_floor': under})
        out = capsys.readouterr().out
        assert 'of 2 held-out documents\n' in out and '-0.500 ± 0.100 above the floor' in out
        assert ('warning' in out) == under and 'beginning' not in out
    print_task('world', world | {'under_floor': False, 'context_gain': 0.866, 'context_gain_error': 0.021})
    line = "  a sentence costs 0.87 ± 0.02 nats per token less after its own story's beginning than after another's\n"
    assert line in capsys.readouterr().out


def test_evaluate(world, tmp_path, capsys):
    val, tokenizer, _, ids = world
    save_model(decoder(500), tokenizer, tmp_path/'model')
    (tmp_path/'a.txt').write_text(val[0]['text'])
    found = evaluate(str(tmp_path/'model'), ['text'], text=str(tmp_path/'a.txt'), out=str(tmp_path/'out'))
    assert json.dumps(json.loads((tmp_path/'out/results.json').read_text())['tasks']) == json.dumps(found)
    assert found['text']['tokens'] == len(ids[0]) - 1 and 'bits' in capsys.readouterr().out
    alone = text_task(decoder(500), tokenizer, [{'text': val[0]['text']}])
    assert json.dumps(found['text']) == json.dumps(alone)


@pytest.mark.parametrize('flags, words', [
    (dict(tasks=['wrold']), ['--tasks wrold', "did you mean 'world'?"]), (dict(tasks=['text']), ['--text']),
    (dict(docs=1), ['--docs 1', 'at least 2']), (dict(model='{d}/none'), ['no such folder']),
    (dict(model='{d}/bare'), ['no tokenizer']), (dict(tasks=['text'], text='{d}/none.txt'), ['none.txt', 'no such file'])])
def test_evaluate_complains(flags, words, tmp_path):
    save_model(decoder(500), None, tmp_path/'bare')
    save_model(decoder(500), train_tokenizer(['the mill'] * 3, 264), tmp_path/'small')
    flags = {k: v.format(d=tmp_path) if isinstance(v, str) else v for k, v in flags.items()}
    with pytest.raises(UserError) as e: evaluate(**dict(model=str(tmp_path/'small')) | flags)
    assert all(w in str(e.value) for w in words) and '\n' not in str(e.value)
