"Next-token prediction: shares add up, packed equals alone, and `pretrain` survives kills, wrong flags and foreign models."
import json
import math

import pytest
import torch

from llmbook.core import UserError
from llmbook.files import read_json, read_jsonl
from llmbook.model.checkpoints import load_model
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text import corpus
from llmbook.text.batches import IGNORE, Stream, split_batch
from llmbook.text.store import TokenStore, write_store
from llmbook.text.bpe import save_tokenizer, train_tokenizer
from llmbook.text.corpus import world_documents
from llmbook.train import clm
from llmbook.train.clm import CLM, validation_batches, pretrain, world_tokens
from llmbook.train.step import share_of, sum_counts

SMALL = dict(block_size=64, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)


def write(folder, vocab_size=300, val=True, docs=40, start=0):
    documents = list(world_documents(docs, start=start))
    tokenizer = train_tokenizer((d['text'] for d in documents), vocab_size)
    save_tokenizer(tokenizer, folder)
    write_store(folder, {'train': documents} | ({'val': list(world_documents(8, 0, 999))} if val else {}), tokenizer)
    return tokenizer


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Tokens, tokens without a held split, and a model that reads them."
    d = tmp_path_factory.mktemp('clm')
    tokenizer = write(d/'tokens')
    write(d/'bare', val=False)
    save_model(Transformer(Config(vocab_size=300, **SMALL), 0), tokenizer, d/'model')
    return d


def share(model, batch, counts): return share_of(model, batch, CLM(), counts)[0]


def test_first_loss_is_log_V(made):
    batch, model = Stream(TokenStore(made/'tokens'), 4, 64)[0], Transformer(Config(vocab_size=300, **SMALL), 3)
    assert share(model, batch, CLM().counts(batch)).item() == pytest.approx(math.log(300), abs=0.03)


@pytest.mark.parametrize('micro', [1, 2, 3, 8])
def test_shares_add_up(made, micro):
    batch, model = Stream(TokenStore(made/'tokens'), 8, 64)[2], Transformer(Config(vocab_size=300, **SMALL), 3)
    batch['labels'][1, 5:] = IGNORE
    batch['labels'][6] = IGNORE  # a row that learns nothing
    whole = share(model, batch, CLM().counts(batch))
    gradient = torch.autograd.grad(whole, model.embed.weight)[0]
    parts = split_batch(batch, micro)
    counts = sum_counts(CLM().counts(p) for p in parts)
    added = sum(share(model, p, counts) for p in parts)
    torch.testing.assert_close(added, whole)
    torch.testing.assert_close(torch.autograd.grad(added, model.embed.weight)[0], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_packed_equals_alone(made, arch):
    model = Transformer(Config(vocab_size=300, arch=arch, **SMALL), 3)
    for p in model.parameters(): p.data *= 4  # strong enough for the others to be heard
    batch, one = Stream(TokenStore(made/'tokens'), 4, 64)[1], {'tokens': 1}
    alone = 0
    for r in range(4):
        for s in batch['segments'][r].unique():
            here = batch['segments'][r] == s
            part = {k: batch[k][r, here][None] for k in ('ids', 'labels', 'positions')}
            if s: alone += share(model, part, one)
    assert batch['segments'].max() > 1
    torch.testing.assert_close(share(model, batch, one), alone, atol=1e-3, rtol=1e-5)
    blind = share(model, {k: batch[k] for k in ('ids', 'labels')}, one)
    assert (blind - alone).abs() > 1


def test_future_moves_no_earlier_loss(made):
    model = Transformer(Config(vocab_size=300, **SMALL), 3)
    batch = Stream(TokenStore(made/'tokens'), 1, 64)[0]
    batch = {k: v for k, v in batch.items() if k in ('ids', 'labels')}
    batch['labels'][:, 20:] = IGNORE
    before = share(model, batch, {'tokens': 1})
    batch['ids'][:, 20:] = 9
    assert torch.equal(share(model, batch, {'tokens': 1}), before)


def test_batch_rows(made):
    val = TokenStore(made/'tokens', 'val')
    questions = sum(len(val[i]) - 1 for i in range(len(val)))
    def learnt(batches): return sum(int((b['labels'] != IGNORE).sum()) for b in batches)
    assert learnt(validation_batches(val, 64)) == questions
    assert learnt(validation_batches(val, 64, most=1)) == len(val[0]) - 1
    assert learnt(validation_batches(val, 64, tokens=50)) == 50


def run(made, out, **flags):
    own = dict(tokens=str(made/'tokens'), model=str(made/'model'), steps=4, batch_size=4, lr=1e-2, eval_every=2)
    return pretrain(**own | {'out': str(out)} | flags)


def test_continues_from_a_model(made, tmp_path):
    folder = run(made, tmp_path/'a', steps=1, lr=1e-9)
    was, now = (load_model(f)[0] for f in (made/'model', folder))
    assert now.config == was.config
    for p, q in zip(was.parameters(), now.parameters()): torch.testing.assert_close(p, q, atol=1e-6, rtol=0)
    assert read_json(tmp_path/'a/config.json')['args']['model'] == str(made/'model')


def test_block_size_of_the_model(made, tmp_path):
    "A shorter row trains a model without changing how far it reads."
    folder = run(made, tmp_path/'a', block_size=32)
    assert load_model(folder)[0].config.block_size == 64
    assert {r['step'] for r in read_jsonl(tmp_path/'a/log.jsonl') if 'val_loss' in r} == {2, 4}


def test_learns_and_says_so_once_more(made, tmp_path, capsys):
    run(made, tmp_path/'a', steps=60, eval_every=30)
    rows = list(read_jsonl(tmp_path/'a/log.jsonl'))
    losses = [r['loss'] for r in rows if 'loss' in r]
    assert losses[-1] < losses[0] - 0.5 and [r for r in rows if 'val_loss' in r][-1]['val_loss'] < 5.2
    assert run(made, tmp_path/'a', steps=60, eval_every=30).name == 'step-00000060'
    assert list(read_jsonl(tmp_path/'a/log.jsonl')) == rows


def test_without_a_held_split(made, tmp_path):
    run(made, tmp_path/'a', tokens=str(made/'bare'), model=None, eval_every=0, steps=1)
    with pytest.raises(UserError, match='holds nothing out'): run(made, tmp_path/'b', tokens=str(made/'bare'), model=None)
    assert not (tmp_path/'b').exists()


def test_watch_gets_the_row(made, tmp_path):
    seen = []
    run(made, tmp_path/'a', on_eval=lambda decoder, step, row, say: seen.append((step, sorted(row))))
    assert seen == [(2, ['val_loss']), (4, ['val_loss'])]


@pytest.mark.parametrize('flags, words', [
    (dict(steps=0), '--steps 0'), (dict(batch_size=0), '--batch-size 0'), (dict(block_size=0), '--block-size 0'),
    (dict(lr=0.0), '--lr 0.0'),
    (dict(lr=math.nan), '--lr nan'), (dict(warmup=-0.1), '--warmup -0.1'), (dict(warmup=1.5), '--warmup 1.5'),
    (dict(beta2=1.0), '--beta2 1'),
    (dict(save_every=-1), '--save-every -1'), (dict(clip=math.nan), '--clip nan'), (dict(size='nanno'), "did you mean 'nano'?"),
    (dict(tokens=None, model=None, vocab_size=100), '--vocab-size 100'), (dict(tokens=None, stories=0), '--stories 0'),
    (dict(block_size=65), 'reads 64 tokens at most'), (dict(model=None, block_size=9_000_000), 'shorter than one block'),
    (dict(tokens='nowhere'), 'nowhere'), (dict(model='nowhere'), 'nowhere: no such folder')])
def test_complains_before_it_leaves_anything(made, tmp_path, flags, words):
    with pytest.raises(UserError) as e: run(made, tmp_path/'out', **flags)
    assert words in str(e.value) and '\n' not in str(e.value)
    assert not (tmp_path/'out').exists()


def test_foreign_tokens(made, tmp_path):
    write(tmp_path/'larger', 320)
    write(tmp_path/'same', 300, start=5000, docs=20)
    with pytest.raises(UserError, match='a checkpoint of another shape; its vocabulary is 300, that of the tokens is 320'):
        run(made, tmp_path/'a', tokens=str(tmp_path/'larger'))
    with pytest.raises(UserError, match='another tokenizer'): run(made, tmp_path/'a', tokens=str(tmp_path/'same'))
    (tmp_path/'larger/tokenizer.json').write_bytes((made/'tokens/tokenizer.json').read_bytes())
    with pytest.raises(UserError, match='another tokenizer'): run(made, tmp_path/'a', tokens=str(tmp_path/'larger'), model=None)


def test_world_of_the_models_own_tokenizer(made, tmp_path):
    run(made, tmp_path/'a', tokens=None, stories=30)
    assert TokenStore(tmp_path/'a/tokens').meta['tokenizer'] == TokenStore(made/'tokens').meta['tokenizer']


def test_a_kill_while_tokens_are_written(made, tmp_path, monkeypatch):
    "Wherever the writing stops, the same command starts over and ends with the same tokens."
    flags = dict(tokens=None, model=None, vocab_size=300, stories=30, steps=1, block_size=64)
    monkeypatch.setattr(clm, 'world_documents', lambda n, *a: corpus.world_documents(min(n, 30), *a))
    import os
    replace, whole = os.replace, {}
    def names(): return {p.name: p.read_bytes() for p in (tmp_path/'a/tokens').iterdir()}
    run(made, tmp_path/'a', **flags)
    whole = names()
    for last in range(1, len(whole) + 1):
        out, calls = tmp_path/f'kill{last}', []
        def die(a, b, calls=calls, last=last):
            if 'tokens' in str(b): calls.append(b)
            if len(calls) == last: raise KeyboardInterrupt
            return replace(a, b)
        monkeypatch.setattr(os, 'replace', die)
        with pytest.raises(KeyboardInterrupt): run(made, out, **flags)
        monkeypatch.setattr(os, 'replace', replace)
        run(made, out, **flags)
        assert {p.name: p.read_bytes() for p in (out/'tokens').iterdir()} == whole
    assert json.loads(whole['tokens.json'])['vocab_size'] == 300


def test_fewer_merges_than_asked(made, tmp_path):
    "A small world has no 5,000 tokens; the model takes what there is."
    world_tokens(tmp_path/'tokens', 20, 5000, 0)
    V = TokenStore(tmp_path/'tokens').meta['vocab_size']
    assert V < 5000
    folder = run(made, tmp_path/'a', tokens=str(tmp_path/'tokens'), model=None, steps=1, block_size=64)
    assert load_model(folder)[0].config.vocab_size == V
