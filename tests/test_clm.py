"Next-token prediction: shares add up, packed equals alone, and `pretrain` survives kills, wrong flags and foreign models."
import json
import math
import shutil

import pytest
import torch

from llmbook.core import Diverged, UserError, explain
from llmbook.files import read_json, read_jsonl, write_json
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


def write(folder, vocab_size=316, val=True, docs=40, start=0):
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
    save_model(Transformer(Config(vocab_size=316, **SMALL), 0), tokenizer, d/'model')
    return d


def share(model, batch, counts): return share_of(model, batch, CLM(), counts)[0]


def test_first_loss_is_log_V(made):
    batch, model = Stream(TokenStore(made/'tokens'), 4, 64)[0], Transformer(Config(vocab_size=316, **SMALL), 3)
    assert share(model, batch, CLM().counts(batch)).item() == pytest.approx(math.log(316), abs=0.03)


@pytest.mark.parametrize('micro', [1, 2, 3, 8])
def test_shares_add_up(made, micro):
    batch, model = Stream(TokenStore(made/'tokens'), 8, 64)[2], Transformer(Config(vocab_size=316, **SMALL), 3)
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
    model = Transformer(Config(vocab_size=316, arch=arch, **SMALL), 3)
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
    model = Transformer(Config(vocab_size=316, **SMALL), 3)
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
    (dict(save_every=-1), '--save-every -1'), (dict(clip=math.nan), '--clip nan'), (dict(clip=math.inf), '--clip inf'),
    (dict(weight_decay=math.inf), '--weight-decay inf'), (dict(weight_decay=math.nan), '--weight-decay nan'),
    (dict(warmup=math.nan), '--warmup nan'), (dict(lr=math.inf), '--lr inf'), (dict(steps=10**8), '--steps 100000000'),
    (dict(batch_size=10**12), '--batch-size'),
    (dict(stories=10**15, tokens=None), '--stories'), (dict(size='nanno'), "did you mean 'nano'?"),
    (dict(tokens=None, model=None, vocab_size=100), '--vocab-size 100'), (dict(tokens=None, stories=0), '--stories 0'),
    (dict(block_size=65), 'reads 64 tokens at most'), (dict(model=None, block_size=9_000_000), 'shorter than one block'),
    (dict(tokens='nowhere'), 'nowhere'), (dict(model='nowhere'), 'nowhere: no such folder')])
def test_complains_before_it_leaves_anything(made, tmp_path, flags, words):
    with pytest.raises(UserError) as e: run(made, tmp_path/'out', **flags)
    assert words in str(e.value) and '\n' not in str(e.value)
    assert not (tmp_path/'out').exists()


def test_foreign_tokens(made, tmp_path):
    write(tmp_path/'larger', 320)
    write(tmp_path/'same', 316, start=5000, docs=20)
    with pytest.raises(UserError, match='a checkpoint of another shape; its vocabulary is 316, that of the tokens is 320'):
        run(made, tmp_path/'a', tokens=str(tmp_path/'larger'))
    with pytest.raises(UserError, match='another tokenizer'): run(made, tmp_path/'a', tokens=str(tmp_path/'same'))
    (tmp_path/'larger/tokenizer.json').write_bytes((made/'tokens/tokenizer.json').read_bytes())
    with pytest.raises(UserError, match='another tokenizer'): run(made, tmp_path/'a', tokens=str(tmp_path/'larger'), model=None)


def test_world_of_the_models_own_tokenizer(made, tmp_path):
    run(made, tmp_path/'a', tokens=None, stories=30)
    assert TokenStore(tmp_path/'a/tokens').meta['tokenizer'] == TokenStore(made/'tokens').meta['tokenizer']


@pytest.mark.slow
def test_a_kill_while_tokens_are_written(made, tmp_path, monkeypatch):
    "Wherever the writing stops, the same command starts over and ends with the same tokens."
    flags = dict(tokens=None, model=None, vocab_size=316, stories=30, steps=1, block_size=64)
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
    assert json.loads(whole['tokens.json'])['vocab_size'] == 316


def test_fewer_merges_than_asked(made, tmp_path):
    "A small world has no 5,000 tokens; the model takes what there is."
    world_tokens(tmp_path/'tokens', 20, 5000, 0)
    V = TokenStore(tmp_path/'tokens').meta['vocab_size']
    assert V < 5000
    folder = run(made, tmp_path/'a', tokens=str(tmp_path/'tokens'), model=None, steps=1, block_size=64)
    assert load_model(folder)[0].config.vocab_size == V


# Inputs by content, one process to a folder, and a dead run

def base(made, folder, **flags): return run(made, folder, **dict(save_every=2, eval_every=0) | flags)


def test_tokens_are_known_by_their_content(made, tmp_path, monkeypatch):
    "However the path is written; a moved copy is the same, and other ids under the old name are refused."
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made/'tokens', 'tokens')
    run(made, 'a', tokens='tokens')
    log = (tmp_path/'a/log.jsonl').read_bytes()
    for path in ('./tokens', 'tokens/', '../' + tmp_path.name + '/tokens', str(tmp_path/'tokens')): run(made, 'a', tokens=path)
    shutil.move('tokens', 'moved')
    run(made, 'a', tokens='moved')
    assert (tmp_path/'a/log.jsonl').read_bytes() == log and read_json('a/config.json')['args']['tokens'] == 'tokens'
    monkeypatch.setenv('HOME', str(tmp_path))
    run(made, '~/a', tokens='~/moved')
    ids = bytearray((tmp_path/'moved/train.ids.npy').read_bytes())
    ids[-2] ^= 1
    (tmp_path/'moved/train.ids.npy').write_bytes(ids)
    with pytest.raises(UserError, match='--tokens: moved does not hold what this run began with; .*--fresh') as e:
        run(made, 'a', tokens='moved')
    assert '\n' not in str(e.value)


def test_own_tokens_are_known_by_their_content(made, tmp_path):
    flags = dict(tokens=None, stories=30, steps=1, eval_every=0)
    run(made, tmp_path/'a', **flags)
    run(made, tmp_path/'a', **flags)
    shutil.copytree(made/'tokens', tmp_path/'a/tokens', dirs_exist_ok=True)
    with pytest.raises(UserError, match='--tokens: .*a/tokens does not hold what this run began with'):
        run(made, tmp_path/'a', **flags)


def test_the_starting_run_may_go_on(made, tmp_path):
    "The run keeps to the checkpoint that it began with; once it has one of its own, that may be rotated away."
    base(made, tmp_path/'base', steps=2, keep=1)
    with pytest.raises(KeyboardInterrupt): run(made, tmp_path/'early', model=str(tmp_path/'base'), on_eval=interrupt)
    run(made, tmp_path/'late', model=str(tmp_path/'base'), save_every=2)
    whole = state(tmp_path/'late')
    shutil.rmtree(tmp_path/'late/checkpoints/step-00000004')
    shutil.copytree(tmp_path/'base/checkpoints/step-00000002', tmp_path/'base/checkpoints/step-00000004')
    edit(tmp_path/'base/checkpoints/step-00000004/manifest.json', step=4) # a newer one
    for name in ('early', 'late'):
        run(made, tmp_path/name, model=str(tmp_path/'base'), save_every=2 if name == 'late' else 0)
        assert state(tmp_path/name) == whole, name
    assert read_json(tmp_path/'late/config.json')['start'] == str(tmp_path/'base/checkpoints/step-00000002')
    shutil.rmtree(tmp_path/'base/checkpoints/step-00000002')
    shutil.rmtree(tmp_path/'late/checkpoints/step-00000004')
    run(made, tmp_path/'late', model=str(tmp_path/'base'), save_every=2)
    assert state(tmp_path/'late') == whole
    shutil.rmtree(tmp_path/'base')
    run(made, tmp_path/'late', model=str(tmp_path/'base'), save_every=2)
    with pytest.raises(UserError, match='--model: .*model does not hold what this run began with'): run(made, tmp_path/'late')


def interrupt(*_): raise KeyboardInterrupt


def edit(path, **changes): write_json(path, read_json(path) | changes)


def state(folder): return (folder/'checkpoints/step-00000004/trainer/state.safetensors').read_bytes()


def test_another_starting_model_is_refused(made, tmp_path):
    shutil.copytree(made/'model', tmp_path/'model')
    run(made, tmp_path/'a', model=str(tmp_path/'model'))
    shutil.move(tmp_path/'model', tmp_path/'copy')
    run(made, tmp_path/'a', model=str(tmp_path/'copy'))
    save_model(Transformer(Config(vocab_size=316, **SMALL), 1), load_model(made/'model')[1], tmp_path/'copy')
    with pytest.raises(UserError, match='--model: .*copy does not hold what this run began with; .*--fresh'):
        run(made, tmp_path/'a', model=str(tmp_path/'copy'))


@pytest.mark.parametrize('out', ['file', 'file/deep', 'dangling', '/dev/null', 'x' * 300])
def test_a_place_for_no_run_is_refused_before_any_work(made, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').write_text('x')
    (tmp_path/'dangling').symlink_to('file/nowhere')
    monkeypatch.setattr(clm, 'load_model', pytest.fail)
    monkeypatch.setattr(clm, 'world_tokens', pytest.fail)
    for tokens in (None, str(made/'tokens')):
        with pytest.raises(UserError, match='--out') as e: run(made, out, tokens=tokens)
        assert '\n' not in str(e.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dangling', 'file']


def test_fresh_leaves_a_foreign_model_alone(made, tmp_path):
    shutil.copytree(made/'model', tmp_path/'model')
    before = {p.name: p.read_bytes() for p in (tmp_path/'model').iterdir()}
    for fresh in (False, True):
        with pytest.raises(UserError, match='give another --out'): run(made, tmp_path/'model', fresh=fresh)
    assert {p.name: p.read_bytes() for p in (tmp_path/'model').iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ['model']


def test_a_dead_run_is_not_called_done(made, tmp_path, capsys):
    for _ in range(2):
        with pytest.raises(Diverged, match='lower --lr') as e: run(made, tmp_path/'a', steps=60, lr=10.0, eval_every=0)
        assert explain(e.value)[1] == 3 and '\n' not in explain(e.value)[0]
    assert 'done' not in capsys.readouterr().out and list((tmp_path/'a/checkpoints').glob('step-*'))


def test_a_folder_called_best_is_not_the_newest(made, tmp_path):
    folder = run(made, tmp_path/'a', steps=2)
    shutil.copytree(folder, folder.with_name('step-best'))
    shutil.copytree(folder, folder.with_name('step-00000010-copy'))
    assert run(made, tmp_path/'a', steps=2, keep=1).name == 'step-00000002'
    assert len(list(folder.parent.iterdir())) == 3
