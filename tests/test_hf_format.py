"Model folders against transformers, both ways; what hostile and broken ones do."

import itertools
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llmbook.core import UserError, generator
from llmbook.files import read_json, write_json
from llmbook.model.checkpoints import load_model
from llmbook.model.completion import generate_text
from llmbook.model.generate import generate
from llmbook.model.hf_format import config_from_hf, from_hf, hf_config, load_weights, save_model, to_hf
from llmbook.model.transformer import SIZES, Config, Transformer, config_for
from llmbook.text.bpe import BEGIN, END, train_tokenizer

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
    ('gpt2', {}), ('gpt2', {'n_inner': 100}), ('gpt2', {'tie_word_embeddings': False}),
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


@pytest.mark.parametrize('odd,words', [
    (dict(model_type='mamba'), 'mamba'), (dict(attention_bias=True), 'attention_bias'), (dict(mlp_bias=True), 'mlp_bias'),
    (dict(head_dim=64), 'head_dim'), (dict(hidden_act='gelu'), 'hidden_act'),
    (dict(rope_parameters=dict(rope_type='yarn')), 'yarn'), (dict(num_hidden_layers=None), 'n_layer'),
    (dict(rope_parameters=None, rope_scaling=dict(type='linear', factor=2.0)), 'linear'),
    (dict(hidden_size='wide'), 'head_dim'), (dict(num_attention_heads=0), 'head_dim'), (dict(num_attention_heads=5), 'heads')])
def test_other_llamas_are_refused_in_one_line(tmp_path, odd, words):
    save_model(small(40), None, tmp_path)
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | odd)
    with pytest.raises(UserError, match=words) as e: load_model(tmp_path)
    assert '\n' not in str(e.value) and tmp_path.name in str(e.value)


def test_other_gpt2s_are_refused(tmp_path):
    for odd in (dict(activation_function='relu'), dict(scale_attn_by_inverse_layer_idx=True), dict(scale_attn_weights=False)):
        with pytest.raises(UserError, match=next(iter(odd))): config_from_hf(hf_config(small(40, 'gpt2').config) | odd)


def test_weights_of_another_shape_or_without_a_place(tmp_path):
    save_model(small(40, tied=False), None, tmp_path)
    weights = load_file(tmp_path/'model.safetensors')
    name = 'model.layers.1.self_attn.q_proj'
    for change, words in (({f'{name}.weight': torch.zeros(32, 31)}, r'attention.q.weight is \(32, 31\), not \(32, 32\)'),
                          ({f'{name}.bias': torch.zeros(32)}, f'{name}.bias'),
                          ({'model.layers.2.mlp.up_proj.weight': torch.zeros(1)}, 'layers.2')):
        save_file(weights | change, tmp_path/'model.safetensors')
        with pytest.raises(UserError, match=words) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)
    save_file({k: v for k, v in weights.items() if k != 'lm_head.weight'}, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='head.weight is missing'): load_model(tmp_path)
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
    for name in ('../secret.safetensors', str(tmp_path.parent/'secret.safetensors'), '..', '.hidden', 'a/b.safetensors'):
        write_json(tmp_path/'model.safetensors.index.json', {'weight_map': {'w': name}})
        with pytest.raises(UserError, match='not a regular file name'): load_model(tmp_path)
    for index in ([], {}, {'weight_map': []}, {'weight_map': {'w': 3}}, {'weight_map': {'w': 'model-1.safetensors'}}):
        write_json(tmp_path/'model.safetensors.index.json', index)
        with pytest.raises(UserError) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)


def test_bf16_folder_is_half_the_size_and_loads_as_fp32(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    for dtype in (torch.float32, torch.bfloat16): save_model(model, tokenizer, tmp_path/str(dtype), dtype)
    sizes = [(tmp_path/str(d)/'model.safetensors').stat().st_size for d in (torch.bfloat16, torch.float32)]
    assert 0.45 < sizes[0] / sizes[1] < 0.6 and read_json(tmp_path/'torch.bfloat16/config.json')['dtype'] == 'bfloat16'
    for a, b in zip(model.state_dict().values(), load_model(tmp_path/'torch.bfloat16')[0].state_dict().values()):
        assert b.dtype == torch.float32 and torch.equal(a.bfloat16().float(), b)
