"Folders against transformers, both ways; what hostile, broken and half-written folders do."

import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llmbook.core import UserError, generator
from llmbook.files import atomic_folder, find_damage, read_json, write_json
from llmbook.model.checkpoints import book_model, load_model, model_folder, newest_checkpoint
from llmbook.model.completion import generate_text
from llmbook.model.hf_format import config_from_hf, from_hf, hf_config, load_weights, save_model, to_hf
from llmbook.model.generate import generate
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
    whole = (tmp_path/'model.safetensors').read_bytes()
    for content in (b'', b'x', whole[:-1], whole[:100], b'\xff' * 200, pickle.dumps(print)):
        (tmp_path/'model.safetensors').write_bytes(content)
        with pytest.raises(UserError, match='do not open'): load_model(tmp_path)
    (tmp_path/'model.safetensors').unlink()
    (tmp_path/'pytorch_model.bin').write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match='never pickles'): load_model(tmp_path)
    (tmp_path.parent/'secret.safetensors').write_bytes(whole)
    for name in ('../secret.safetensors', str(tmp_path.parent/'secret.safetensors'), '..', '.hidden', 'a/b.safetensors'):
        write_json(tmp_path/'model.safetensors.index.json', {'weight_map': {'w': name}})
        with pytest.raises(UserError, match='not a regular file name'): load_model(tmp_path)
    for index in ([], {}, {'weight_map': []}, {'weight_map': {'w': 3}}, {'weight_map': {'w': 'model-1.safetensors'}}):
        write_json(tmp_path/'model.safetensors.index.json', index)
        with pytest.raises(UserError) as e: load_model(tmp_path)
        assert '\n' not in str(e.value)


def checkpoint(run, step, model, tokenizer=None):
    with atomic_folder(run/'checkpoints'/f'step-{step:08d}', step=step, world=1) as stage:
        save_model(model, tokenizer, stage)
        (stage/'trainer').mkdir()
        save_file({'m': torch.ones(3)}, stage/'trainer'/'state.safetensors')
    return run/'checkpoints'/f'step-{step:08d}'


def test_manifest_faults(tmp_path, capsys):
    model = small(40)
    old, new = (checkpoint(tmp_path, step, model) for step in (1, 2))
    table = read_json(new/'manifest.json')
    assert table['step'] == 2 and table['format'] == 1 and 'trainer/state.safetensors' in table['files']
    assert find_damage(new) == ''
    kept = tmp_path/'kept'
    shutil.copytree(new, kept)
    weights, trainer = 'model.safetensors', 'trainer/state.safetensors'
    raw = (new/weights).read_bytes()

    def names(*pairs): return lambda: write_json(new/'manifest.json', table | {'files': table['files'] | dict(pairs)})
    harms = {
        f'{weights} was changed': lambda: (new/weights).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1])),
        f'{weights} was changed or': lambda: (new/weights).write_bytes(raw[:-1]),
        f'{trainer} is missing': (new/trainer).unlink,
        f'{weights} is missing': (new/weights).unlink,
        'adapter_config.json is not in its manifest': lambda: (new/'adapter_config.json').write_text('{}'),
        'trainer/more.safetensors is not in': lambda: (new/'trainer/more.safetensors').write_text(''),
        "'../kept/README.md' in its manifest is not a regular name": names(('../kept/README.md', 'x')),
        "'/etc/passwd' in its manifest": names(('/etc/passwd', 'x')), "'a//b' in its": names(('a//b', 'x')),
        "'trainer/../README.md' in": names(('trainer/../README.md', 'x')), "'.hidden' in": names(('.hidden', 'x')),
        'no readable manifest': (new/'manifest.json').unlink,
        'no readable manifest (': lambda: (new/'manifest.json').write_text('[1, '),
        'no readable manifest (T': lambda: write_json(new/'manifest.json', [1]),
        'no readable manifest (A': lambda: write_json(new/'manifest.json', table | {'files': 3}),
        'format 2, not 1': lambda: write_json(new/'manifest.json', table | {'format': 2}),
    }
    for words, harm in harms.items():
        shutil.rmtree(new); shutil.copytree(kept, new)
        assert newest_checkpoint(tmp_path) == new and not capsys.readouterr().out
        harm()
        assert newest_checkpoint(tmp_path) == old
        said = capsys.readouterr().out
        assert words in said and said.count('\n') == 1 and new.name in said and new.is_dir()
        if (new/'manifest.json').exists():
            with pytest.raises(UserError): load_model(new)
    shutil.rmtree(new); shutil.copytree(kept, new)
    (new/'model.gguf').write_text('')  # what no reader of ours opens may lie there
    assert newest_checkpoint(tmp_path) == new and load_model(tmp_path)[0].config == model.config


def test_files_are_readable_by_all(tmp_path, tokenizer):
    folder = checkpoint(tmp_path, 1, small(tokenizer.get_vocab_size()), tokenizer)
    for path in folder.rglob('*'):
        if path.is_file() and 'trainer' not in path.parts: assert stat.S_IMODE(path.stat().st_mode) == 0o644, path


def fill(folder, word):
    for name in ('a.json', 'b.safetensors', 'trainer/c.json'):
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/name).write_text(word)


def write_and_die(folder, at):
    "Replace a checkpoint in a child process, which kills itself at its line number `at`."
    def child():
        count = itertools.count(1)
        def trace(frame, event, arg):
            if event == 'line' and next(count) == at: os.kill(os.getpid(), signal.SIGKILL)
            return trace if 'json' not in frame.f_code.co_filename else None
        sys.settrace(trace)
        with atomic_folder(folder, step=1) as stage: fill(stage, 'new')
        sys.settrace(None)
        os._exit(0)
    process = multiprocessing.get_context('fork').Process(target=child)
    process.start(); process.join()
    return process.exitcode == 0


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('replaces', [True, False])
def test_killed_at_any_line_old_or_new_is_there(tmp_path, replaces):
    folder, states = tmp_path/'run/checkpoints/step-00000002', []
    other = folder.with_name('step-00000001')
    for at in itertools.count(3, 71):
        shutil.rmtree(tmp_path/'run', ignore_errors=True)
        with atomic_folder(folder if replaces else other, step=1) as stage: fill(stage, 'old')
        done = write_and_die(folder, at)
        found = newest_checkpoint(tmp_path/'run')
        words = {(found/name).read_text() for name in ('a.json', 'b.safetensors', 'trainer/c.json')}
        assert len(words) == 1
        states += words
        with atomic_folder(folder.with_name('step-00000003')) as stage: fill(stage, 'newer')  # the run goes on
        assert not list(folder.parent.glob('.*')) and (folder if replaces else other).is_dir()
        if done: break
    assert states == ['old'] * states.count('old') + ['new'] * states.count('new') and len(set(states)) == 2


def test_a_folder_that_stepped_aside_is_found_and_put_back(tmp_path):
    folder = checkpoint(tmp_path, 7, small(40))
    hidden = folder.rename(folder.with_name(f'.{folder.name}.old'))  # killed between the two renames
    assert newest_checkpoint(tmp_path) == hidden and load_model(tmp_path)
    for end in ('tmp', 'gone'): (folder.parent/f'.step-00000003.{end}'/'x').mkdir(parents=True)
    checkpoint(tmp_path, 8, small(40))
    assert sorted(p.name for p in folder.parent.iterdir()) == ['step-00000007', 'step-00000008']


def test_an_exception_while_filling_leaves_the_old_folder(tmp_path):
    folder = checkpoint(tmp_path, 1, small(40))
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as stage: fill(stage, str(1 // 0))
    assert newest_checkpoint(tmp_path) == folder


def test_bf16_folder_is_half_the_size_and_loads_as_fp32(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    for dtype in (torch.float32, torch.bfloat16): save_model(model, tokenizer, tmp_path/str(dtype), dtype)
    sizes = [(tmp_path/str(d)/'model.safetensors').stat().st_size for d in (torch.bfloat16, torch.float32)]
    assert 0.45 < sizes[0] / sizes[1] < 0.6 and read_json(tmp_path/'torch.bfloat16/config.json')['dtype'] == 'bfloat16'
    for a, b in zip(model.state_dict().values(), load_model(tmp_path/'torch.bfloat16')[0].state_dict().values()):
        assert b.dtype == torch.float32 and torch.equal(a.bfloat16().float(), b)


def test_names_go_there_and_back():
    for arch, tied in itertools.product(('llama', 'gpt2'), (True, False)):
        model = small(40, arch, tied)
        state = model.state_dict()
        back = from_hf(to_hf(state, model.config), model.config)
        assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)


def test_other_special_tokens(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    save_model(model, tokenizer, tmp_path)
    j, ids = read_json(tmp_path/'config.json'), tokenizer.encode('the lamp', add_special_tokens=False).ids
    for bos, eos, start, end in ((9, 9, [9], 9), (None, None, [], None), (50256, 50256, [], None), (5, [6, 7], [5], 6)):
        write_json(tmp_path/'config.json', j | dict(bos_token_id=bos, eos_token_id=eos))
        wanted = tokenizer.decode(generate(model, torch.tensor([start + ids]), 20, 0, end=end)[0].tolist())
        assert generate_text(str(tmp_path), 'the lamp', n=20, temperature=0) == [wanted]
    write_json(tmp_path/'config.json', j | dict(bos_token_id=None))
    with pytest.raises(UserError, match='--prompt'): generate_text(str(tmp_path), '')


def test_what_is_not_there(tmp_path, tokenizer):
    (tmp_path/'run/checkpoints').mkdir(parents=True); (tmp_path/'empty').mkdir()
    save_model(small(40), None, tmp_path/'mute')
    calls = {'no such folder': lambda: model_folder(tmp_path/'no'), 'no complete checkpoint': lambda: load_model(tmp_path/'run'),
             'no such file': lambda: load_model(tmp_path/'empty'),
             'no tokenizer': lambda: generate_text(str(tmp_path/'mute'), 'x'),
             'no trained model': lambda: book_model('nothing')}
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as e: call()
        assert '\n' not in str(e.value)
    save_model(small(tokenizer.get_vocab_size()), tokenizer, tmp_path/'m')
    with pytest.raises(UserError, match='fills the context'): generate_text(str(tmp_path/'m'), 'the lamp ' * 100)
