"Weights in parts: read by us and by transformers, and never two models in one folder."

import errno
import os

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from llmbook.core import UserError
from llmbook.files import read_json
from llmbook.model import weight_shards
from llmbook.model.bert_format import save_encoder
from llmbook.model.checkpoints import load_encoder, load_model
from llmbook.model.encoder_heads import MaskedLM
from llmbook.model.encoders import EncoderConfig
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.model.weight_shards import save_weights, split_weights, weight_files
from llmbook.text.bpe import train_tokenizer


@pytest.fixture(scope='module')
def tokenizer(): return train_tokenizer(['the lamp was in the mill and the boat was in the harbour. '] * 8, 280)


def decoder(seed): return Transformer(Config(280, 64, 2, 4, 2, 32, 48, 'llama', True), seed=seed).eval()


def same(a, b): return a.keys() == b.keys() and all(torch.equal(w, b[name]) for name, w in a.items())


def names_in(folder): return sorted(p.name for p in folder.iterdir() if 'safetensors' in p.name)


def test_parts_by_hand():
    sizes = {'a': 4, 'b': 4, 'c': 9, 'd': 1, 'e': 3}
    assert split_weights(sizes, 8) == [['a', 'b'], ['c'], ['d', 'e']]
    assert split_weights(sizes, 1) == [['a'], ['b'], ['c'], ['d'], ['e']]
    assert split_weights(sizes, 21) == [['a', 'b', 'c', 'd', 'e']] and split_weights(sizes, 20)[0] == ['a', 'b', 'c', 'd']
    assert split_weights({'a': 0}, 1) == [['a']]


@pytest.mark.parametrize('shard_bytes', [20_000, 7_000, 1, 10**9])
def test_both_sides_read_the_parts(tmp_path, tokenizer, shard_bytes):
    ours, ids = decoder(0), torch.arange(20)[None] + 30
    save_model(ours, tokenizer, tmp_path, shard_bytes=shard_bytes)
    files = weight_files(tmp_path)
    assert len(files) == (1 if shard_bytes == 10**9 else len(names_in(tmp_path)) - 1)
    assert same(load_model(tmp_path)[0].state_dict(), ours.state_dict())
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report['missing_keys'] and not report['unexpected_keys']
    torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=1e-5, rtol=1e-5)
    for file in files:
        numbers = [w.nbytes for w in load_file(file).values()]
        assert sum(numbers) <= shard_bytes or len(numbers) == 1
    if len(files) == 1: return
    index = read_json(tmp_path/'model.safetensors.index.json')
    assert index['metadata']['total_size'] == sum(w.nbytes for file in files for w in load_file(file).values())
    theirs.save_pretrained(tmp_path/'theirs', max_shard_size=shard_bytes) # the same rule of cutting, in another order of names
    assert read_json(tmp_path/'theirs/model.safetensors.index.json')['metadata'] == index['metadata']


def test_an_encoder_in_parts(tmp_path, tokenizer):
    ours = MaskedLM(EncoderConfig(280, 64, 2, 4, 32, 48), True, seed=1).eval()
    save_encoder(ours, tokenizer, tmp_path, dtype=torch.bfloat16, shard_bytes=5000)
    assert len(weight_files(tmp_path)) > 4
    back = load_encoder(tmp_path)[0].state_dict()
    assert same(back, {name: w.bfloat16().float() for name, w in ours.state_dict().items()})
    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(theirs.bert.embeddings.word_embeddings.weight, back['embed.weight'])


def test_a_folder_holds_one_model(tmp_path, tokenizer):
    "One file, then parts, then more parts, then fewer, then one file: nothing of the model before is left."
    for seed, most in enumerate((10**9, 20_000, 5_000, 30_000, 10**9)):
        (tmp_path/'.model-00001-of-00009.safetensors.tmp').touch() # a killed process left it
        save_model(decoder(seed), tokenizer, tmp_path, shard_bytes=most)
        index = tmp_path/'model.safetensors.index.json'
        named = set(read_json(index)['weight_map'].values()) | {index.name} if index.exists() else {'model.safetensors'}
        assert names_in(tmp_path) == sorted(named)
        assert same(load_model(tmp_path)[0].state_dict(), decoder(seed).state_dict())


def test_a_full_disk_leaves_the_old_model(tmp_path, tokenizer, monkeypatch):
    save_model(decoder(0), tokenizer, tmp_path, shard_bytes=20_000)
    before, calls, save = names_in(tmp_path), [], weight_shards.save_file
    def full(tensors, path, **more):
        calls.append(path)
        if len(calls) == 2: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path, **more)
    monkeypatch.setattr(weight_shards, 'save_file', full)
    with pytest.raises(OSError, match='No space'): save_model(decoder(1), tokenizer, tmp_path, shard_bytes=5_000)
    assert [name for name in names_in(tmp_path) if not name.startswith('.')] == before
    assert same(load_model(tmp_path)[0].state_dict(), decoder(0).state_dict())
    monkeypatch.undo()
    save_model(decoder(1), tokenizer, tmp_path)
    assert names_in(tmp_path) == ['model.safetensors'] and same(load_model(tmp_path)[0].state_dict(), decoder(1).state_dict())


def test_what_is_refused(tmp_path):
    with pytest.raises(UserError, match='parts of 0 bytes: give at least 1'):
        save_weights({'w': torch.zeros(2)}, tmp_path, shard_bytes=0)
    save_weights({'w': torch.zeros(2), 'v': torch.ones(2)}, tmp_path, shard_bytes=8)
    (tmp_path/'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(UserError, match='no model-00002-of-00002.safetensors in it'): weight_files(tmp_path)


def test_other_files_stay(tmp_path):
    for name in ('adapter_model.safetensors', 'notes.txt', 'model-a.safetensors', 'mymodel.safetensors'): (tmp_path/name).touch()
    save_weights({'w': torch.zeros(2)}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['adapter_model.safetensors', 'model-a.safetensors', 'model.safetensors',
                                                          'mymodel.safetensors', 'notes.txt']
