"Measuring: the alarm rings only for a cheat, the stage writes what it returns, and complains in one line."
import json
import math

import pytest
import torch

from llmbook.core import UserError
from llmbook.evaluation import measure
from llmbook.evaluation.measure import evaluate, print_task, read_results, text_task, world_task
from llmbook.evaluation.perplexity import as_ids, ngram_nats
from llmbook.files import write_json
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.outputs import FolderLock
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
        out, err = capsys.readouterr()
        assert 'of 2 held-out documents\n' in out and '-0.500 ± 0.100 above the floor' in out
        assert 'warning' not in out and ('warning' in err) == under and 'beginning' not in out
    print_task('world', world | {'under_floor': False, 'context_gain': 0.866, 'context_gain_error': 0.021})
    line = "  a sentence costs 0.87 ± 0.02 nats per token less after its own story's beginning than after another's\n"
    assert line in capsys.readouterr().out


def test_evaluate(world, tmp_path, capsys):
    val, tokenizer, _, ids = world
    save_model(decoder(500), tokenizer, tmp_path/'model')
    (tmp_path/'a.txt').write_text(val[0]['text'])
    found = evaluate(str(tmp_path/'model'), ['text'], text=str(tmp_path/'a.txt'), out=str(tmp_path/'out'))
    kept = (tmp_path/'out/results.json').read_text()
    assert 'NaN' not in kept and json.loads(kept)['tasks']['text']['bits_per_byte_error'] is None
    unknown = {'bits_per_byte_error': None}
    assert read_results(tmp_path/'out/results.json')['text'] | unknown == found['text'] | unknown
    assert found['text']['tokens'] == len(ids[0]) - 1 and 'bits' in capsys.readouterr().out
    alone = text_task(decoder(500), tokenizer, [{'text': val[0]['text']}])
    assert json.dumps(found['text']) == json.dumps(alone)


@pytest.mark.parametrize('flags, words', [
    (dict(tasks=['wrold']), ['--tasks wrold', "did you mean 'world'?"]), (dict(tasks=['text']), ['--text']),
    (dict(docs=1), ['--docs 1', 'at least 2']), (dict(docs=-5), ['--docs -5']), (dict(tasks=[]), ['--tasks: empty']),
    (dict(seed=-1), ['--seed -1']), (dict(seed=2**63), ['--seed 9223372036854775808']), (dict(out=''), ['--out: empty']),
    (dict(text='{d}/x.txt'), ['x.txt', '--tasks text']), (dict(model=''), ['--model: empty']),
    (dict(model='{d}/nan', tasks=['text'], text='{d}/t.txt'), ['nan']),
    (dict(out='{d}/small/config.json'), ['a file is in the way']), (dict(model='{d}/none'), ['no such folder']),
    (dict(model='{d}/bare'), ['no tokenizer']), (dict(tasks=['text'], text='{d}/none.txt'), ['none.txt', 'no such file'])])
def test_evaluate_complains(flags, words, tmp_path):
    save_model(decoder(500), None, tmp_path/'bare')
    save_model(decoder(500), train_tokenizer(['the mill'] * 3, 280), tmp_path/'small')
    broken = decoder(500)
    with torch.no_grad(): next(broken.parameters())[:] = math.nan
    (tmp_path/'t.txt').write_text('the mill')
    save_model(broken, train_tokenizer(['the mill'] * 3, 280), tmp_path/'nan')
    flags = {k: v.format(d=tmp_path) if isinstance(v, str) else v for k, v in flags.items()}
    with pytest.raises(UserError) as e: evaluate(**dict(model=str(tmp_path/'small')) | flags)
    assert all(w in str(e.value) for w in words) and '\n' not in str(e.value)


def test_results_add_up_and_nothing_is_lost(tmp_path, monkeypatch, capsys):
    "Another task is added; another model, other documents, or a file that is not ours is refused; --fresh sets aside."
    tokenizer = train_tokenizer(['the mill'] * 3, 280)
    for name, seed in (('a', 1), ('b', 2)): save_model(Transformer(decoder(280).config, seed), tokenizer, tmp_path/name)
    monkeypatch.setattr(measure, 'pydoc_documents', lambda: [{'id': 'p', 'text': 'the pages of the mill'}])
    (tmp_path/'t.txt').write_text('the lamp\n')
    (tmp_path/'u.txt').write_text('the boat\n')
    path = tmp_path/'out'/'results.json'
    def tasks(): return json.loads(path.read_text())['tasks']
    def run(model, *names, **more): return evaluate(str(tmp_path/model), list(names), out=str(tmp_path/'out'), **more)
    run('a', 'text', text=str(tmp_path/'t.txt'))
    text = tasks()['text']
    run('a', 'pydoc')
    assert list(tasks()) == ['text', 'pydoc'] and tasks()['text'] == text
    before = path.read_bytes()
    refused = {'another model': lambda: run('b', 'pydoc'),
               'other documents': lambda: run('a', 'text', text=str(tmp_path/'u.txt'))}
    for words, call in refused.items():
        with pytest.raises(UserError, match=words) as e: call()
        assert '\n' not in str(e.value) and '--fresh' in str(e.value) and path.read_bytes() == before
    (tmp_path/'t2.txt').write_text('the lamp\n')
    run('a', 'text', text=str(tmp_path/'t2.txt')) # the same documents under another name
    assert path.read_bytes() == before
    run('b', 'pydoc', fresh=True)
    assert list(tasks()) == ['pydoc'] and (tmp_path/'out/results.json.old1').read_bytes() == before
    for foreign in ('{}', '[1]', '{"tasks": {}}', 'mine', json.dumps(json.loads(before) | {'settings': []})):
        path.write_text(foreign)
        for fresh in (False, True):
            with pytest.raises(UserError, match='not written by llmbook evaluate') as e: run('a', 'pydoc', fresh=fresh)
            assert path.read_text() == foreign
    path.write_text(json.dumps(json.loads(before) | {'tasks': {'text': {'bits_per_byte': 'x'}}}))
    with pytest.raises(UserError, match="'bits_per_byte' is .x.;"): run('a', 'pydoc')
    with FolderLock(tmp_path/'out'): # of this process, so nobody is refused
        assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['.lock', 'results.json', 'results.json.old1']


def test_what_is_left_out_is_said(tmp_path, capsys):
    save_model(decoder(280), train_tokenizer(['the mill'] * 3, 280), tmp_path/'m')
    (tmp_path/'t').mkdir()
    for name, text in (('a.txt', 'the mill'), ('b.txt', ' \n'), ('c.pdf', 'x')): (tmp_path/'t'/name).write_text(text)
    evaluate(str(tmp_path/'m'), ['text'], text=str(tmp_path/'t'))
    out, err = capsys.readouterr()
    assert '1 held-out document' in out and 'left out: empty documents: 1' in err and '.pdf' in err


def test_results_that_are_damaged(tmp_path):
    path = tmp_path/'results.json'
    good = {'ladder': [{'name': 'model', 'nats': 1.0, 'error': None}], 'bits_per_byte': 2.0, 'tokens': 3, 'under_floor': False}
    write_json(path, {'tasks': {'t': good | {'perplexity': 1e300}}})
    assert read_results(path)['t'] == good | {'perplexity': 1e300}
    wrong = [None, 3, 'x', [], {'t': None}, {'t': []}, {'t': {'tokens': -1}}, {'t': {'tokens': 1.5}},
             {'t': {'bits_per_byte': '2'}},
             {'t': {'ladder': {}}}, {'t': {'ladder': [None]}}, {'t': {'ladder': [{'nats': 1}]}}, {'t': {'under_floor': 0}},
             {'t': {'bits_per_byte': 10**400}}, {'t': {'ladder': [{'name': 'a', 'nats': True}]}}]
    for tasks in wrong:
        path.write_text(json.dumps({'tasks': tasks}))
        with pytest.raises(UserError, match='results.json') as e: read_results(path)
        assert '\n' not in str(e.value) and len(str(e.value)) < 300
