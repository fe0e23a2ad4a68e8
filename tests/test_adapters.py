"Adapters on disk: peft's format both ways, the base that belongs to one, and what is refused."
import json
import shutil

import pytest
import torch
from needs import needs
from safetensors.torch import load_file, save_file

from llmbook.core import UserError, generator
from llmbook.files import atomic_folder, read_json, write_json
from llmbook.model.adapters import ADAPTER, BASE, WEIGHTS, Adapted, LowRank, find_base, is_adapter, save_adapter
from llmbook.model.adapters import read_settings, weights_fingerprint
from llmbook.model.checkpoints import load_model, load_reward_model
from llmbook.model.heads import reward_model_from
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer

SHAPES = {'llama': {}, 'gpt2': {}, 'qwen2': {}, 'untied': {'arch': 'llama', 'tied': False, 'n_kv_head': 2}}


def config_of(name):
    shape = dict(vocab_size=40, block_size=64, n_layer=2, n_head=4, n_kv_head=4, n_embd=32, n_hidden=48)
    return Config(**shape | {'arch': name} | SHAPES[name])


def layers_of(model): return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and 'blocks.' in n]


def draw(model, layers, rank=3, seed=0):
    "Thin matrices of a size that moves logits by about one."
    rng, out = generator(seed, 'thin'), {}
    for name in layers:
        rows, columns = model.get_submodule(name).weight.shape
        out[name] = LowRank(torch.randn(rank, columns, generator=rng)*.1, torch.randn(rows, rank, generator=rng)*.1)
    return out


def ids(): return torch.randint(40, (2, 20), generator=generator(0, 'ids'))


@pytest.fixture
def pair(tmp_path):
    "A base, and an adapter for two of its layers."
    base = Transformer(config_of('llama'), 0).eval()
    save_model(base, None, tmp_path/'base')
    lora = draw(base, ['blocks.0.attention.q', 'blocks.1.mlp.down'])
    save_adapter(Adapted(lora, {}, 3, 6), base.config, tmp_path/'adapter', tmp_path/'base')
    return base, lora, tmp_path


@pytest.mark.parametrize('name', SHAPES)
def test_what_is_written_is_what_is_merged(tmp_path, name):
    base = Transformer(config_of(name), 0).eval()
    save_model(base, None, tmp_path/'base')
    lora, gain = draw(base, layers_of(base)), {'norm.weight': torch.full((32,), 3.0)}
    save_adapter(Adapted(lora, gain, 3, 6), base.config, tmp_path/'adapter', tmp_path/'base')
    found, _ = load_model(tmp_path/'adapter')
    for key, w in found.state_dict().items():
        was, thin = base.state_dict()[key], lora.get(key.removesuffix('.weight'))
        wanted = gain.get(key, was) if thin is None else was + 2 * thin.b @ thin.a
        torch.testing.assert_close(w, wanted, msg=key)
    assert (found(ids()) - base(ids())).abs().max() > .1


def test_a_tokenizer_of_its_own_and_a_checkpoint(pair):
    _, lora, folder = pair
    words = train_tokenizer(['the lamp was in the mill ' * 9], 300)
    base = Transformer(Config(300, 64, 2, 4, 4, 32, 48), 0).eval()
    save_model(base, words, folder/'other')
    step = folder/'run/checkpoints/step-00000003'
    with atomic_folder(step, step=3) as stage: save_adapter(Adapted(lora, {}, 3, 6), base.config, stage, folder/'other')
    model, tokenizer = load_model(folder/'run')
    assert tokenizer.encode('the lamp').ids == words.encode('the lamp').ids and model.folder == step
    assert read_json(step/BASE)['relative'] == '../../../other' and is_adapter(step) and not is_adapter(folder/'other')


def test_an_adapter_of_an_adapter(pair):
    base, lora, folder = pair
    second = draw(base, ['blocks.0.attention.q'], seed=1)
    save_adapter(Adapted(second, {}, 3, 3), base.config, folder/'second', folder/'adapter')
    found = load_model(folder/'second')[0].state_dict()['blocks.0.attention.q.weight']
    (a, b), (c, d) = lora['blocks.0.attention.q'], second['blocks.0.attention.q']
    torch.testing.assert_close(found, base.state_dict()['blocks.0.attention.q.weight'] + 2*b@a + d@c)
    fingerprint = weights_fingerprint(folder/'adapter')
    shift(folder/'base/model.safetensors', 'model.norm.weight')
    (folder/'adapter'/BASE).unlink()
    assert weights_fingerprint(folder/'adapter') != fingerprint # the base below has changed


def shift(path, name, by=1e-3):
    tensors = load_file(path)
    tensors[name] = tensors[name] + by
    save_file(tensors, path, {'format': 'pt'})


def test_the_base_is_found_or_one_line_says_why(pair):
    _, _, folder = pair
    def said(words):
        with pytest.raises(UserError, match=words) as e: load_model(folder/'adapter')
        assert '\n' not in str(e.value)
    assert find_base(folder/'adapter') == folder/'base'
    shutil.copytree(folder, folder/'all')
    shutil.move(folder/'base', folder/'gone')
    said('an adapter whose base .*base is not there; put it back, or write the folder of its base into adapter_config.json')
    assert load_model(folder/'all/adapter') # they were moved together
    shutil.move(folder/'gone', folder/'base')
    shift(folder/'base/model.safetensors', 'model.norm.weight')
    said('an adapter whose base .*base has other weights than it was trained on')
    (folder/'adapter'/BASE).unlink()
    assert load_model(folder/'adapter') # nothing to compare with, as in one from peft
    settings = read_json(folder/'adapter'/ADAPTER)
    wrong = {None: 'an adapter without a base', str(folder/'adapter'): 'its own base', 'meta/llama': 'is not there'}
    for name, words in wrong.items():
        write_json(folder/'adapter'/ADAPTER, settings | {'base_model_name_or_path': name})
        said(words)


SETTINGS = {
    'use_dora': ({'use_dora': True}, 'use_dora: only plain LoRA'), 'no rank': ({'r': 0}, "'r' is 0"),
    'pissa': ({'init_lora_weights': 'pissa'}, 'has changed the base'), 'loha': ({'peft_type': 'LOHA'}, "'LOHA'; only LORA"),
    'bias': ({'bias': 'all'}, "bias 'all'"), 'lora_bias': ({'lora_bias': True}, 'lora_bias'),
    'replicas': ({'layer_replication': [[0, 1]]}, 'layer_replication'), 'NaN': ({'lora_alpha': 'NaN'}, "'lora_alpha' is"),
    'rank': ({'r': 4}, 'rank 3 in adapter_model.safetensors, and 4'),
    'a pattern': ({'rank_pattern': {'(a+)+b': 3}}, 'only names and numbers'),
    'words': ({'alpha_pattern': {'q_proj': 'x'}}, 'only names'),
    'variant': ({'use_something_new': True}, 'use_something_new'),
}


@pytest.mark.parametrize('name', SETTINGS)
def test_settings_that_are_refused(pair, name):
    base, _, folder = pair
    change, words = SETTINGS[name]
    write_json(folder/'adapter'/ADAPTER, read_json(folder/'adapter'/ADAPTER) | change)
    with pytest.raises(UserError, match=words) as e: load_model(folder/'adapter')
    assert '\n' not in str(e.value)


def q(part): return f'base_model.model.model.layers.0.self_attn.q_proj.{part}'


TENSORS = {
    'NaN': ({q('lora_A.weight'): torch.full((3, 32), float('nan'))}, 'NaN'),
    'no B': ({q('lora_B.weight'): None}, 'no place'), 'no A': ({q('lora_A.weight'): None}, 'no place'),
    'ranks': ({q('lora_B.weight'): torch.ones(32, 2)}, 'no place'), 'vector': ({q('lora_A.weight'): torch.ones(3)}, 'no place'),
    'shape': ({q('lora_B.weight'): torch.ones(31, 3)}, r'of another shape; it changes blocks.0.attention.q.weight by \(31, 32\)'),
    'magnitude': ({q('lora_magnitude_vector'): torch.ones(32)}, 'vector: a llama of 2 blocks has no place'),
    'layer': ({q('lora_A.weight').replace('.0.', '.7.'): torch.ones(3, 32)}, 'no place'),
    'prefix': ({'x': torch.ones(1)}, 'begin with'),
    'whole': ({'base_model.model.model.norm.weight': torch.ones(31)}, 'of another shape'),
}


@pytest.mark.parametrize('name', TENSORS)
def test_weights_that_are_refused(pair, name):
    _, _, folder = pair
    change, words = TENSORS[name]
    tensors = load_file(folder/'adapter'/WEIGHTS) | change
    save_file({name: w for name, w in tensors.items() if w is not None}, folder/'adapter'/WEIGHTS)
    with pytest.raises(UserError, match=words) as e: load_model(folder/'adapter')
    assert '\n' not in str(e.value)


def test_files_that_are_refused(pair):
    base, _, folder = pair
    (folder/'adapter'/WEIGHTS).rename(folder/'adapter/adapter_model.bin')
    with pytest.raises(UserError, match='only safetensors are read, never pickles'): load_model(folder/'adapter')
    (folder/'adapter'/WEIGHTS).write_bytes(b'nonsense')
    with pytest.raises(UserError, match='the weights do not open'): load_model(folder/'adapter')


# Reward models

@pytest.mark.parametrize('pool', [True, False])
@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_a_reward_model_is_its_base_and_what_is_new(tmp_path, arch, pool):
    save_model(Transformer(config_of(arch), 0), None, tmp_path/'base')
    judge = reward_model_from(load_model(tmp_path/'base')[0], 3, pool).eval()
    judge.score.weight.data.fill_(.5)
    lora = draw(judge, [name for name in layers_of(judge) if not name.startswith(judge.fresh)])
    whole = {name: w for name, w in judge.state_dict().items() if name.startswith(judge.fresh)}
    save_adapter(Adapted(lora, whole, 3, 6), judge.config, tmp_path/'adapter', tmp_path/'base', pad=3)
    found, _ = load_reward_model(tmp_path/'adapter')
    assert found.pad == 3 and found.config == judge.config and read_settings(tmp_path/'adapter')['task_type'] == 'SEQ_CLS'
    state = judge.state_dict()
    for name, thin in lora.items(): state[f'{name}.weight'] += 2 * thin.b @ thin.a
    with torch.no_grad(): torch.testing.assert_close(found(ids()), judge(ids()), atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match='a reward model, which scores answers'): load_model(tmp_path/'adapter')
    with pytest.raises(UserError, match='a language model, which gives no scores'): load_reward_model(tmp_path/'base')
    (tmp_path/'adapter'/BASE).unlink() # then the base says how texts are filled up
    assert load_reward_model(tmp_path/'adapter')[0].pad == 0


# Beside peft

def in_peft(folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder/'base'), folder/'adapter').eval()


@pytest.mark.slow
@needs('peft', 'peers')
@pytest.mark.parametrize('name', SHAPES)
def test_peft_opens_what_we_write(tmp_path, name):
    from transformers import AutoModelForCausalLM
    base = Transformer(config_of(name), 0).eval()
    save_model(base, None, tmp_path/'base')
    whole = {name: w + 1 for name, w in base.state_dict().items() if name.startswith(('norm.', 'blocks.1.norm2.'))}
    save_adapter(Adapted(draw(base, layers_of(base)[3:]), whole, 3, 7), base.config, tmp_path/'adapter', tmp_path/'base')
    with torch.no_grad():
        ours = load_model(tmp_path/'adapter')[0](ids())
        for theirs in (in_peft(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path/'adapter').eval()):
            torch.testing.assert_close(theirs(ids()).logits, ours, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(in_peft(tmp_path).merge_and_unload()(ids()).logits, ours, atol=2e-5, rtol=1e-5)
    assert (ours - base(ids())).abs().max() > .1


@pytest.mark.slow
@needs('peft', 'peers')
@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('settings', [
    {}, {'use_rslora': True}, {'rank_pattern': {'down_proj': 2, 'c_fc': 5}, 'alpha_pattern': {'mlp.c_fc': 4}},
    {'modules_to_save': ['norm', 'ln_f']}], ids=lambda s: next(iter(s), 'plain'))
def test_we_open_what_peft_writes(tmp_path, name, settings):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM
    base = Transformer(config_of(name), 0).eval()
    save_model(base, None, tmp_path/'base')
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path/'base')
    theirs = get_peft_model(theirs, LoraConfig(r=3, lora_alpha=5, target_modules='all-linear', task_type='CAUSAL_LM', **settings))
    rng = generator(0, 'trained')
    with torch.no_grad():
        for p in theirs.parameters():
            if p.requires_grad: p.add_(torch.randn(p.shape, generator=rng)*.1)
        theirs.eval().save_pretrained(tmp_path/'adapter')
        torch.testing.assert_close(load_model(tmp_path/'adapter')[0](ids()), theirs(ids()).logits, atol=2e-5, rtol=1e-5)
    assert json.loads((tmp_path/'adapter'/ADAPTER).read_text())['base_model_name_or_path'] == str(tmp_path/'base')


@pytest.mark.slow
@needs('peft', 'peers')
@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_peft_opens_a_reward_model(tmp_path, arch):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification
    save_model(Transformer(config_of(arch), 0), None, tmp_path/'base')
    judge = reward_model_from(load_model(tmp_path/'base')[0], 3).eval()
    judge.score.weight.data.fill_(.5)
    lora = draw(judge, [name for name in layers_of(judge) if not name.startswith(judge.fresh)])
    whole = {name: w for name, w in judge.state_dict().items() if name.startswith(judge.fresh)}
    save_adapter(Adapted(lora, whole, 3, 6), judge.config, tmp_path/'adapter', tmp_path/'base', pad=3)
    layers = {'n_layer' if arch == 'gpt2' else 'num_hidden_layers': 3} # one more than the base has
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path/'base', num_labels=1, pad_token_id=3, **layers)
    theirs = PeftModel.from_pretrained(theirs, tmp_path/'adapter').eval()
    ours = load_reward_model(tmp_path/'adapter')[0]
    with torch.no_grad(): torch.testing.assert_close(theirs(ids()).logits[:, 0], ours(ids()), atol=2e-5, rtol=1e-4)
