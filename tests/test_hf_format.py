"Model folders against transformers, both ways; what hostile and broken ones do."

import copy
import itertools
import json
import math
import os
import pickle
import resource
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM)

from llmbook.core import UserError, generator
from llmbook.files import read_json, write_json
from llmbook.model.checkpoints import load_model
from llmbook.model.completion import generate_text
from llmbook.model.generate import generate
from llmbook.model.hf_format import config_from_hf, from_hf, hf_config, load_weights, save_model, to_hf
from llmbook.model.transformer import SIZES, Config, Transformer, config_for
from llmbook.text.bpe import BEGIN, END, save_tokenizer, train_tokenizer
from llmbook.text.framing import TextTokenizer

TEXTS = ['the lamp was in the mill and the boat was in the harbour. ' * 3, 'Odo went to the mill. Mira took the lamp.'] * 4


@pytest.fixture(scope='module')
def tokenizer(): return train_tokenizer(TEXTS, 300)


def small(vocab_size, arch='llama', tied=True, n_kv_head=None, **more):
    return Transformer(Config(vocab_size, 64, 2, 4, n_kv_head or 4, 32, 48, arch, tied, **more), seed=0).eval()


def ids_of(vocab_size): return torch.randint(vocab_size, (2, 20), generator=generator(0, 'ids'))


@torch.no_grad()
def same_logits(ours, theirs):
    ids = ids_of(ours.config.vocab_size)
    torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('arch,tied,n_kv_head', [
    ('llama', True, 4), ('llama', False, 2), ('llama', True, 1), ('gpt2', True, 4), ('gpt2', False, 4)])
def test_transformers_opens_what_we_save(tmp_path, tokenizer, arch, tied, n_kv_head):
    constants = dict(theta=123.0, eps=1e-4) if arch == 'llama' else {}
    ours = small(tokenizer.get_vocab_size(), arch, tied, n_kv_head, **constants)
    save_model(ours, tokenizer, tmp_path)
    theirs, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    same_logits(ours, theirs)
    ids = words('the lamp', return_tensors='pt').input_ids
    assert ids.tolist() == [tokenizer.encode('the lamp').ids] and ids[0, 0] == BEGIN
    text = words.decode(theirs.generate(ids, do_sample=False, max_new_tokens=30)[0], skip_special_tokens=True)
    assert text == tokenizer.decode(generate(ours, ids, 30, 0, end=END)[0].tolist())
    assert generate_text(str(tmp_path), 'the lamp', n=30, temperature=0) == [text]
    back, _ = load_model(tmp_path)
    assert back.config == ours.config and not back.training
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), back.state_dict().values()))
    assert (back.head.weight is back.embed.weight) == tied


def theirs(arch, **more):
    torch.manual_seed(0)
    if arch == 'gpt2': return GPT2LMHeadModel(GPT2Config(vocab_size=90, n_positions=64, n_embd=48, n_layer=2, n_head=3, **more))
    more = dict(num_key_value_heads=2, rope_theta=500.0, max_position_embeddings=64) | more
    return LlamaForCausalLM(LlamaConfig(vocab_size=90, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
                                        num_attention_heads=6, **more))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('size', ['50GB', '40KB'])
@pytest.mark.parametrize('arch,more', [
    ('gpt2', {}), ('gpt2', {'n_inner': 100}), ('gpt2', {'activation_function': 'gelu'}), ('gpt2', {'tie_word_embeddings': False}),
    ('llama', {}), ('llama', {'tie_word_embeddings': True}), ('llama', {'num_key_value_heads': 6, 'rms_norm_eps': 1e-3})])
def test_we_open_what_transformers_saves(tmp_path, arch, more, size, dtype):
    theirs(arch, **more).to(dtype).save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path/'model.safetensors.index.json').exists() == (size == '40KB')
    ours, words = load_model(tmp_path)
    assert words is None and next(ours.parameters()).dtype == torch.float32
    same_logits(ours, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))


def test_folders_as_the_hub_has_them(tmp_path):
    model = theirs('gpt2')
    model.save_pretrained(tmp_path)
    state = {k.removeprefix('transformer.'): v for k, v in load_file(tmp_path/'model.safetensors').items()}
    state |= {f'h.{i}.attn.bias': torch.ones(1, 1, 64, 64).tril() for i in range(2)}
    state |= {f'h.{i}.attn.masked_bias': torch.tensor(-1e4) for i in range(2)}
    save_file(state, tmp_path/'model.safetensors')
    keep = ('model_type', 'vocab_size', 'n_positions', 'n_embd', 'n_layer', 'n_head', 'layer_norm_epsilon', 'activation_function')
    j = {k: v for k, v in read_json(tmp_path/'config.json').items() if k in keep}
    write_json(tmp_path/'config.json', j | {'torch_dtype': 'float32', 'n_ctx': 64, 'n_inner': None})
    same_logits(load_model(tmp_path)[0], model)
    model, folder = theirs('llama'), tmp_path/'llama'
    model.save_pretrained(folder)
    j = {k: v for k, v in read_json(folder/'config.json').items() if k not in ('rope_parameters', 'dtype', 'head_dim')}
    write_json(folder/'config.json', j | {'rope_theta': 500.0, 'rope_scaling': None, 'torch_dtype': 'float32'})
    same_logits(load_model(folder)[0], model)


def test_config_goes_there_and_back():
    for size, arch, tied in itertools.product(SIZES, ('llama', 'gpt2'), (True, False)):
        config = config_for(size, 50257, arch, tied=tied)
        assert config_from_hf(json.loads(json.dumps(hf_config(config)))) == config


def test_names_go_there_and_back():
    for arch, tied in itertools.product(('llama', 'gpt2'), (True, False)):
        model = small(40, arch, tied)
        state = model.state_dict()
        back = from_hf(to_hf(state, model.config), model.config)
        assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)


LLAMA3 = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
PEERS = { # kind, settings of transformers' config
    'llama': ('llama', {}),
    'llama-tied': ('llama', dict(tie_word_embeddings=True)),
    'llama3': ('llama', dict(rope_parameters=LLAMA3)),
    'llama-linear': ('llama', dict(rope_parameters=dict(rope_type='linear', factor=2.0, rope_theta=500.0))),
    'llama-dynamic': ('llama', dict(rope_parameters=dict(rope_type='dynamic', factor=2.0))),
    'llama-biases': ('llama', dict(attention_bias=True, mlp_bias=True, head_dim=10, hidden_act='gelu')),
    'qwen2': ('qwen2', {}), 'qwen2-tied': ('qwen2', dict(tie_word_embeddings=True)),
    'qwen3': ('qwen3', dict(head_dim=12)),
    'qwen3-tied': ('qwen3', dict(head_dim=12, tie_word_embeddings=True, attention_bias=True)),
    'qwen3-yarn': ('qwen3', dict(head_dim=16, rope_parameters=dict(
        rope_type='yarn', factor=4.0, original_max_position_embeddings=16))),
}


@pytest.mark.parametrize('name', PEERS)
def test_folders_of_four_families_there_and_back(tmp_path, name):
    "Logits equal transformers' own; special ids, several ends among them, survive; what we save it opens again."
    kind, more = PEERS[name]
    torch.manual_seed(0)
    size = dict(vocab_size=90, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
                num_key_value_heads=2, max_position_embeddings=64, bos_token_id=7, eos_token_id=[5, 3], pad_token_id=8)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **copy.deepcopy(size | more))).eval()
    for p in model.parameters(): p.data.add_(0.05 * torch.randn(p.shape))  # biases and gains too
    model.save_pretrained(tmp_path/'theirs')
    ours, _ = load_model(tmp_path/'theirs')
    same_logits(ours, model)
    save_model(ours, None, tmp_path/'ours')
    again, _ = load_model(tmp_path/'ours')
    assert again.config == ours.config and again.special_ids == (7, (5, 3), 8)
    for file in ('config.json', 'generation_config.json'):
        j = read_json(tmp_path/'ours'/file)
        assert (j['bos_token_id'], j['eos_token_id'], j['pad_token_id']) == (7, [5, 3], 8)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path/'ours')
    same_logits(ours, theirs)
    assert theirs.config.tie_word_embeddings == model.config.tie_word_embeddings


def test_both_spellings_of_the_rotary_settings():
    j = hf_config(small(40).config)
    del j['rope_parameters']
    old = {key: value for key, value in LLAMA3.items() if key != 'rope_type'} | {'type': 'llama3'}
    for given in (dict(rope_parameters=LLAMA3 | {'rope_theta': 5e5}), dict(rope_scaling=old, rope_theta=5e5),
                  dict(rope_scaling=LLAMA3, rope_parameters={'rope_theta': 5e5, 'rope_type': 'llama3'})):
        config = config_from_hf(j | given)
        assert config.theta == 5e5 and config.rope == LLAMA3, given
    clash = dict(rope_parameters={'rope_type': 'default', 'rope_theta': 5e5}, rope_scaling={'type': 'linear', 'factor': 2.0})
    with pytest.raises(UserError, match='disagree about rope_type'): config_from_hf(j | clash)


@pytest.mark.parametrize('odd,words', [
    (dict(model_type='mamba'), 'mamba'), (dict(model_type=['llama']), 'model_type'),
    (dict(attention_bias=True), 'bias is missing'),
    (dict(head_dim=64), r'k_proj.weight is \(32, 32\), not'), (dict(hidden_act='relu'), 'hidden_act'),
    (dict(rope_parameters=dict(rope_type='longrope')), 'longrope'),
    (dict(num_hidden_layers=None), 'num_hidden_layers'),
    (dict(rope_parameters={'full_attention': {'rope_type': 'default'}}), 'per layer'),
    (dict(rope_parameters={'rope_type': 'linear', 'factor': 'two'}), 'factor'),
    (dict(rope_parameters={'rope_type': 3}), 'rope_type'),
    (dict(rope_parameters={'rope_type': 'default', 'partial_rotary_factor': 0.5}), 'partial_rotary_factor'),
    (dict(rope_parameters={'rope_type': 'default', 'rope_theta': -1.0}), 'rope_theta'),
    (dict(rope_parameters=[1]), 'rope_parameters'),
    (dict(hidden_size='wide'), 'hidden_size'), (dict(num_attention_heads=0), 'num_attention_heads'),
    (dict(num_attention_heads=5, head_dim=None), 'heads'), (dict(num_key_value_heads=-1), 'num_key_value_heads'),
    (dict(vocab_size=8_000_000), r'embed_tokens.weight is \(40, 32\), not \(8000000, 32\)'),
    (dict(vocab_size=1e40), 'vocab_size'),
    (dict(vocab_size=True), 'vocab_size'), (dict(hidden_size=2.5), 'hidden_size'),
    (dict(num_hidden_layers=10**9), 'num_hidden_layers'),
    (dict(num_hidden_layers=9000), 'is missing'), (dict(rms_norm_eps='small'), 'rms_norm_eps'),
    (dict(rms_norm_eps=-1), 'rms_norm_eps'),
    (dict(tie_word_embeddings='yes'), 'tie_word_embeddings'), (dict(num_local_experts=8), 'num_local_experts'),
    (dict(quantization_config={'bits': 4}), 'quantization_config'),
    (dict(layer_types=['linear_attention']), 'linear_attention'),
    (dict(model_type='qwen2', use_sliding_window=True, sliding_window=16, max_window_layers=1), 'sliding_window'),
    (dict(model_type='qwen3', use_sliding_window=True, sliding_window=16, layer_types=['sliding_attention'] * 2),
     'sliding_window')])
def test_other_models_are_refused_in_one_line(tmp_path, odd, words):
    save_model(small(40), None, tmp_path)
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | odd)
    with pytest.raises(UserError, match=words) as e: load_model(tmp_path)
    assert '\n' not in str(e.value) and tmp_path.name in str(e.value)


def test_a_config_that_is_no_object_or_too_deep(tmp_path):
    save_model(small(40), None, tmp_path)
    for text in ('[]', '3', 'null', '{', '[' * 100_000 + ']' * 100_000, '{"model_type": ' * 5000 + '1' + '}' * 5000, ''):
        (tmp_path/'config.json').write_text(text)
        with pytest.raises(UserError, match=tmp_path.name) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)


def test_a_large_config_is_refused_before_memory_is_taken(tmp_path):
    save_model(small(40), None, tmp_path)
    large = dict(vocab_size=8_000_000, hidden_size=256, head_dim=None)
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | large)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match='another shape'): load_model(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes; it took 8 GB


def test_other_gpt2s_are_refused(tmp_path):
    for odd in (dict(activation_function='relu'), dict(scale_attn_by_inverse_layer_idx=True), dict(scale_attn_weights=False),
                dict(add_cross_attention=True), dict(n_inner=-1), dict(n_head='three')):
        with pytest.raises(UserError, match=next(iter(odd))): config_from_hf(hf_config(small(40, 'gpt2').config) | odd)


def test_shapes_that_no_family_has_are_not_saved(tmp_path):
    for change, words in ((dict(norm='layer'), 'norm'), (dict(qk_norm=True), 'qk_norm'), (dict(qkv_bias=True), 'bias'),
                          (dict(arch='gpt2', n_kv_head=2), 'n_kv_head'), (dict(arch='gpt2', head_dim=6), 'head_dim')):
        model = Transformer(Config(40, 64, 2, 4, **dict(n_kv_head=4, n_embd=32, n_hidden=48) | change))
        with pytest.raises(UserError, match=words): save_model(model, None, tmp_path/'no')
    assert not (tmp_path/'no').exists()


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size() - 1)
    words = 'the tokenizer has 300 tokens and the model rows for 299'
    with pytest.raises(UserError, match=words): save_model(model, tokenizer, tmp_path)
    save_model(model, None, tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    with pytest.raises(UserError, match='300 tokens .* 299') as e: load_model(tmp_path)
    assert tmp_path.name in str(e.value)


def test_special_ids_are_those_of_the_tokenizer(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    for begin, ends, pad, eos in ((1, (2,), 0, 2), (None, (9, 2), None, [9, 2]), (4, (), 3, None)):
        save_model(model, TextTokenizer(tokenizer, begin, ends, pad), tmp_path)
        for file in ('config.json', 'generation_config.json'):
            j = read_json(tmp_path/file)
            assert (j['bos_token_id'], j['eos_token_id'], j['pad_token_id']) == (begin, eos, pad)


def test_weights_of_another_shape_or_without_a_place(tmp_path):
    save_model(small(40, tied=False), None, tmp_path)
    weights = load_file(tmp_path/'model.safetensors')
    name = 'model.layers.1.self_attn.q_proj'
    for change, words in (({f'{name}.weight': torch.zeros(32, 31)}, r'q_proj.weight is \(32, 31\), not \(32, 32\)'),
                          ({f'{name}.bias': torch.zeros(32)}, f'{name}.bias'),
                          ({'model.layers.2.mlp.up_proj.weight': torch.zeros(1)}, 'layers.2')):
        save_file(weights | change, tmp_path/'model.safetensors')
        with pytest.raises(UserError, match=words) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)
    save_file({k: v for k, v in weights.items() if k != 'lm_head.weight'}, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='lm_head.weight is missing'): load_model(tmp_path)
    with pytest.raises(UserError, match='another shape'): load_weights(small(41), small(40).state_dict(), 'x')


def test_broken_and_hostile_weights(tmp_path):
    save_model(small(40), None, tmp_path)
    complete = (tmp_path/'model.safetensors').read_bytes()
    for content in (b'', b'x', complete[:-1], complete[:100], b'\xff' * 200, pickle.dumps(print)):
        (tmp_path/'model.safetensors').write_bytes(content)
        with pytest.raises(UserError, match='do not open'): load_model(tmp_path)
    (tmp_path/'model.safetensors').unlink()
    (tmp_path/'pytorch_model.bin').write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match='never pickles'): load_model(tmp_path)
    (tmp_path.parent/'secret.safetensors').write_bytes(complete)
    outside = str(tmp_path.parent/'secret.safetensors')
    for name in ('../secret.safetensors', outside, '..', '.hidden', 'a/b.safetensors', 3, None, ['a']):
        write_json(tmp_path/'model.safetensors.index.json', {'weight_map': {'w': name}})
        with pytest.raises(UserError, match='not a regular file name'): load_model(tmp_path)
    for index in ([], {}, 3, None, {'weight_map': []}, {'weight_map': {}}, {'weight_map': {'w': 'model-1.safetensors'}}):
        write_json(tmp_path/'model.safetensors.index.json', index)
        with pytest.raises(UserError, match=tmp_path.name) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)


@pytest.mark.parametrize('what', ['config.json', 'model.safetensors'])
def test_pipes_and_folders_do_not_hang(tmp_path, what):
    for make, words in ((os.mkfifo, 'a pipe'), (os.mkdir, 'a folder'), (lambda p: os.symlink('nowhere', p), 'no such file')):
        folder = tmp_path/words.replace(' ', '-')
        save_model(small(40), None, folder)
        (folder/what).unlink()
        make(folder/what)
        with pytest.raises(UserError, match=words): load_model(folder)


def test_weights_of_other_types_and_broken_numbers(tmp_path):
    save_model(small(40), None, tmp_path)
    weights, name = load_file(tmp_path/'model.safetensors'), 'model.layers.1.mlp.up_proj.weight'
    for dtype in (torch.int8, torch.int64, torch.float8_e4m3fn, torch.bool):
        save_file(weights | {name: weights[name].to(dtype)}, tmp_path/'model.safetensors')
        with pytest.raises(UserError, match=f'{name}: weights of type'): load_model(tmp_path)
    for number in (math.nan, math.inf, -math.inf):
        broken = weights[name].clone()
        broken[3, 4] = number
        for dtype in (torch.float32, torch.bfloat16):
            save_file(weights | {name: broken.to(dtype)}, tmp_path/'model.safetensors')
            with pytest.raises(UserError, match=f'{name}: holds NaN or infinity') as e: load_model(tmp_path)
            assert tmp_path.name in str(e.value)
    save_file(weights | {name: weights[name].double()}, tmp_path/'model.safetensors')
    assert load_model(tmp_path)[0]


def test_shards_that_overlap_or_are_missing(tmp_path):
    theirs('llama').save_pretrained(tmp_path, max_shard_size='40KB')
    shards = sorted(tmp_path.glob('model-*.safetensors'))
    first, second = (load_file(p) for p in shards[:2])
    save_file(second | dict(list(first.items())[:1]), shards[1])
    with pytest.raises(UserError, match='in model-00001.* and in model-00002'): load_model(tmp_path)
    save_file(dict(list(second.items())[1:]), shards[1])
    with pytest.raises(UserError, match='is missing'): load_model(tmp_path)
    shards[1].unlink()
    with pytest.raises(UserError, match='no model-00002'): load_model(tmp_path)


@pytest.mark.parametrize('umask,mode', [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664), (0o077, 0o600)])
def test_modes_follow_the_umask(tmp_path, tokenizer, umask, mode):
    before = os.umask(umask)
    try: save_model(small(tokenizer.get_vocab_size()), tokenizer, tmp_path)
    finally: os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {mode}


def test_a_disk_that_refuses_modes_does_not_end_a_save(tmp_path, monkeypatch):
    def refuse(*_): raise PermissionError('no modes here')
    monkeypatch.setattr(os, 'chmod', refuse)
    save_model(small(40), None, tmp_path)
    assert load_model(tmp_path) and not list(tmp_path.glob('.*'))


def test_bf16_folder_is_half_the_size_and_loads_as_fp32(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    for dtype in (torch.float32, torch.bfloat16): save_model(model, tokenizer, tmp_path/str(dtype), dtype)
    sizes = [(tmp_path/str(d)/'model.safetensors').stat().st_size for d in (torch.bfloat16, torch.float32)]
    assert 0.45 < sizes[0] / sizes[1] < 0.6 and read_json(tmp_path/'torch.bfloat16/config.json')['dtype'] == 'bfloat16'
    for a, b in zip(model.state_dict().values(), load_model(tmp_path/'torch.bfloat16')[0].state_dict().values()):
        assert b.dtype == torch.float32 and torch.equal(a.bfloat16().float(), b)


def test_two_output_matrices_where_the_config_has_one(tmp_path):
    "Transformers follows the file then; whoever followed the config would drop a matrix without a word."
    untied = Transformer(Config(vocab_size=40, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32, tied=False), 0)
    def saved_as_tied():
        save_model(untied, None, tmp_path)
        write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | {'tie_word_embeddings': True})
    saved_as_tied()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.lm_head.weight, untied.head.weight)
    with pytest.raises(UserError, match='lm_head.weight: not the embedding'): load_model(tmp_path)
    with torch.no_grad(): untied.head.weight.copy_(untied.embed.weight)  # two copies of one matrix are as good as one
    saved_as_tied()
    assert load_model(tmp_path)[0].config.tied
