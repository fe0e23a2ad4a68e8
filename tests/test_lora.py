"LoRA: a frozen base, adapters that learn, what is kept of them, and the same numbers as peft. Ranks run functions from here."
import copy
import io
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from killed import finished, killed_after
from layouts import CLIP, CONFIG, LR, Uneven, advance, local, same_trajectory, sharded, trajectories
from needs import needs
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from llmbook.align.lora import LoraLinear, LoraOptions, NF4Linear, add_lora, lora_options, merge_lora, merged, quantise_blocks
from llmbook.cli import main
from llmbook.core import UserError, generator
from llmbook.exercises import lora as checks
from llmbook.files import sha256_of, write_jsonl
from llmbook.joints import Adapter
from llmbook.model.adapters import ADAPTER, BASE, WEIGHTS, find_base
from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.scale.ranks import launch
from llmbook.text.bpe import train_tokenizer
from llmbook.text.preferences import preference_rows
from llmbook.text.tasks import question_rows
from llmbook.train.clm import CLM
from llmbook.train.step import LocalEngine, Speed

ROOT = Path(__file__).resolve().parents[1]


def trained(model, seed=0):
    "The same model, with something in B."
    rng = generator(seed, 'b')
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LoraLinear): layer.b.copy_(torch.randn(layer.b.shape, generator=rng)*.1)
    return model


def ids(): return torch.randint(40, (2, 12), generator=generator(0, 'ids'))


@pytest.fixture
def base(tmp_path):
    save_model(Transformer(CONFIG, 0), None, tmp_path/'base')
    return load_model(tmp_path/'base')[0]


def test_options_are_an_adapter_and_name_what_counts():
    members = {name for name in vars(Adapter) if not name.startswith('_')}
    assert members == {'apply', 'save'} and all(hasattr(LoraOptions(), name) for name in members)
    assert str(LoraOptions(8)) == 'lora 8, alpha 16' == str(LoraOptions(8, 16.0, merge=True, seed=3))
    assert str(LoraOptions(8, 3.5, qlora=True)) == 'lora 8, alpha 3.5, base in 4 bits'


def hand_layer(alpha):
    "The example of the chapter, with rank 1."
    base = torch.nn.Linear(2, 2, bias=False)
    base.weight.data = torch.eye(2)
    layer = LoraLinear(base, 1, alpha, generator(0, 'a'))
    with torch.no_grad(): layer.a.fill_(1)
    return layer


@pytest.mark.parametrize('alpha', [1, 3])
def test_one_step_by_hand(alpha):
    layer, x, target = hand_layer(alpha), torch.tensor([2., 1.]), torch.tensor([2., 3.])
    assert layer(x).tolist() == [2, 1]
    ((layer(x) - target)**2).sum().div(2).backward()
    assert layer.b.grad.tolist() == [[0], [-6*alpha]] and layer.a.grad.tolist() == [[0, 0]]
    assert layer.base.weight.grad is None
    with torch.no_grad(): layer.b -= .1*layer.b.grad
    assert layer(x).tolist() == pytest.approx([2, 1 + 1.8*alpha**2])
    layer.b.grad = None
    ((layer(x) - target)**2).sum().div(2).backward()
    slope = 1 + 1.8*alpha**2 - 3
    assert layer.a.grad.flatten().tolist() == pytest.approx([.6*alpha**2*slope*2, .6*alpha**2*slope], rel=1e-5)


@pytest.mark.parametrize('arch', ['llama', 'gpt2', 'qwen2'])
def test_every_matrix_of_the_blocks_gets_one_and_nothing_else_learns(arch):
    base = Transformer(Config(**vars(CONFIG) | {'arch': arch}), 0)
    model = add_lora(copy.deepcopy(base), 3)
    layers = [name for name, layer in model.named_modules() if isinstance(layer, LoraLinear)]
    matrices = [name for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear) and name != 'head']
    learn = {name for name, p in model.named_parameters() if p.requires_grad}
    assert layers == matrices and learn == {f'{name}.{part}' for name in layers for part in 'ab'}
    assert model.borrowed == {name for name, _ in model.named_parameters()} - learn
    with torch.no_grad(): assert torch.equal(model(ids()), base(ids()))
    a = model.blocks[1].mlp.down.a
    assert a.abs().max() <= a.size(1)**-.5 and a.std() > .5*a.size(1)**-.5
    again, other = add_lora(copy.deepcopy(base), 3), add_lora(copy.deepcopy(base), 3, seed=1)
    assert torch.equal(again.blocks[1].mlp.down.a, a) and not torch.equal(other.blocks[1].mlp.down.a, a)
    assert not torch.equal(model.blocks[0].mlp.down.a, a)


@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_merged_is_the_same_model_and_draws_no_random_numbers(arch):
    model = trained(add_lora(Transformer(Config(**vars(CONFIG) | {'arch': arch}), 0), 4, alpha=6))
    before, state = torch.get_rng_state(), {name: p.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        beside = model(ids())
        with merged(model) as plain: torch.testing.assert_close(plain(ids()), beside, atol=1e-5, rtol=1e-5)
        with pytest.raises(KeyError), merged(model): raise KeyError
        assert state.keys() == dict(model.named_parameters()).keys()
        for name, p in model.named_parameters(): assert torch.equal(p, state[name]), name
        W, layer = model.blocks[0].attention.q.base.weight.clone(), model.blocks[0].attention.q
        merge_lora(model)
        torch.testing.assert_close(model.blocks[0].attention.q.weight, W + 6/4 * layer.b @ layer.a)
        torch.testing.assert_close(model(ids()), beside, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), before) and type(model.blocks[0].mlp.up) is torch.nn.Linear


def steps(engine, first, last): return [engine.step(Uneven()[t], CLM())['loss'] for t in range(first, last)]


def test_a_run_of_adapters_resumes_in_the_same_bits(tmp_path):
    whole, half, again = (local(lora=4) for _ in range(3))
    start = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    losses = steps(whole, 0, 8)
    steps(half, 0, 4)
    half.save(tmp_path/'trainer')
    kept = load_file(tmp_path/'trainer/state.safetensors')
    assert {key.partition('.')[2] for key in kept} == {name for name in start if name.endswith(('.a', '.b'))}
    again.load(tmp_path/'trainer')
    assert steps(again, 4, 8) == losses[4:] and losses[-1] < losses[0] - .1
    for name, p in whole.model.named_parameters():
        assert torch.equal(p, dict(again.model.named_parameters())[name])
        assert torch.equal(p, start[name]) != p.requires_grad, name
    assert all(group['params'] for group in whole.optimizer.param_groups)
    with pytest.raises(UserError, match=r'another shape; blocks.0.attention.q.a is \(4, 32\) in the file and \(3, 32\)'):
        local(lora=3).load(tmp_path/'trainer')
    with pytest.raises(UserError, match='of another shape'): local().load(tmp_path/'trainer')
    local().save(tmp_path/'all/trainer')
    with pytest.raises(UserError, match='of another shape'): again.load(tmp_path/'all/trainer')


class Scored(Transformer):
    "A base with a layer that the base does not have."
    fresh = ('score', 'blocks.1')

    def __init__(self):
        super().__init__(CONFIG, 0)
        self.score = torch.nn.Linear(32, 1, bias=False)


def test_a_fresh_layer_is_trained_as_it_is():
    model = add_lora(Scored(), 2)
    learn = {name for name, p in model.named_parameters() if p.requires_grad}
    assert 'score.weight' in learn and 'blocks.1.attention.q.weight' in learn and 'blocks.0.attention.q.a' in learn
    assert not any(name.startswith('blocks.1') and name.endswith('.a') for name in learn) and 'norm.weight' not in learn


@pytest.mark.parametrize('merge', [False, True])
def test_what_is_saved_opens_as_what_was_trained(tmp_path, merge):
    words, options = train_tokenizer(['the lamp was in the mill '] * 9, 300), LoraOptions(4, merge=merge)
    save_model(Transformer(Config(**vars(CONFIG) | {'vocab_size': 300}), 0), words, tmp_path/'base')
    base, tokenizer = load_model(tmp_path/'base')
    model = trained(options.apply(base))
    options.save(model, tokenizer, tmp_path/'step')
    found, own = load_model(tmp_path/'step')
    with torch.no_grad(): torch.testing.assert_close(found(ids()), model(ids()), atol=1e-5, rtol=1e-5)
    adapter = tmp_path/'step/adapter' if merge else tmp_path/'step'
    assert (tmp_path/'step/model.safetensors').exists() == merge and find_base(adapter).samefile(tmp_path/'base')
    assert own.encode('the lamp').ids == words.encode('the lamp').ids and (tmp_path/'step/tokenizer.json').exists()
    assert model.blocks[0].attention.q.a.requires_grad # the training goes on


def test_a_base_that_changes_during_the_run_is_noticed(tmp_path, base):
    model = LoraOptions(4).apply(base)
    save_model(Transformer(CONFIG, 1), None, tmp_path/'base')
    LoraOptions(4).save(model, None, tmp_path/'step')
    with pytest.raises(UserError, match='other weights than it was trained on'): load_model(tmp_path/'step')


def test_flags():
    assert lora_options() is None and lora_options(3, lora=8, lora_alpha=4.) == LoraOptions(8, 4., seed=3)
    assert lora_options(lora=2, merge=True).merge
    for flags, words in (({'merge': True}, '--merge: needs --lora R'), ({'qlora': True}, '--qlora: needs --lora R'),
                         ({'lora_alpha': 1.}, '--lora-alpha: needs'), ({'lora': 0}, 'at least 1'),
                         ({'lora': 2, 'lora_alpha': 0.}, 'more than')):
        with pytest.raises(UserError, match=words): lora_options(**flags)


def test_without_bitsandbytes_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bitsandbytes', None)
    with pytest.raises(UserError, match=r"cannot be imported|is not installed") as e: lora_options(lora=4, qlora=True)
    assert '\n' not in str(e.value) and "pip install 'llmbook[quant]'" in str(e.value)


# QLoRA

def in_four_bits(): return add_lora(quantise_blocks(Transformer(CONFIG, 0)), 4)


def plain_twin(model):
    "A model without bitsandbytes that has the numbers of the rounded one."
    twin = copy.deepcopy(model)
    for layer in list(twin.modules()):
        if isinstance(layer, LoraLinear):
            linear = torch.nn.Linear(layer.base.in_features, layer.base.out_features, bias=False)
            linear.weight = torch.nn.Parameter(layer.base.dequantised(), requires_grad=False)
            layer.base = linear
    return twin


@pytest.mark.slow
@needs('bitsandbytes', 'quant')
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_rounded_base_computes_with_its_own_numbers(precision):
    model = in_four_bits()
    assert sum(isinstance(getattr(layer, 'base', None), NF4Linear) for layer in model.modules()) == 14
    learn = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learn == {name for name, p in add_lora(Transformer(CONFIG, 0), 4).named_parameters() if p.requires_grad}
    twin = plain_twin(model)
    ours, theirs = (LocalEngine(m, lambda step: LR, clip=CLIP, speed=Speed(precision)) for m in (model, twin))
    first = [(e.evaluate([Uneven()[9]], CLM())['loss'], e.step(Uneven()[0], CLM())['loss']) for e in (ours, theirs)]
    assert first[0] == pytest.approx(first[1], abs=1e-6 if precision == 'fp32' else 1e-2)
    tolerance = dict(abs=1e-5) if precision == 'fp32' else dict(abs=2e-2)
    assert steps(ours, 1, 20) == pytest.approx(steps(theirs, 1, 20), **tolerance)
    assert ours.evaluate([Uneven()[9]], CLM())['loss'] < first[0][0] - .1 # evaluation in between has not broken the gradients
    with torch.no_grad():
        beside = model(ids())
        with merged(model) as plain: torch.testing.assert_close(plain(ids()), beside, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@needs('bitsandbytes', 'quant')
def test_a_rounded_run_resumes_in_the_same_bits(tmp_path):
    whole, half, later = (LocalEngine(in_four_bits(), lambda step: LR, clip=CLIP) for _ in range(3))
    losses = steps(whole, 0, 6)
    steps(half, 0, 3)
    half.save(tmp_path/'trainer')
    later.load(tmp_path/'trainer')
    assert steps(later, 3, 6) == losses[3:]
    assert (tmp_path/'trainer/state.safetensors').stat().st_size < 150_000


@pytest.mark.slow
@needs('bitsandbytes', 'quant')
@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_a_rounded_base_merged_is_what_was_trained(tmp_path, arch):
    save_model(Transformer(Config(**vars(CONFIG) | {'arch': arch}), 0), None, tmp_path/'base')
    base, options = load_model(tmp_path/'base')[0], LoraOptions(4, qlora=True, merge=True)
    model = trained(options.apply(copy.deepcopy(base)))
    options.save(model, None, tmp_path/'step')
    with torch.no_grad():
        ours = model(ids())
        merged_in, beside = (load_model(tmp_path/name)[0](ids()) for name in ('step', 'step/adapter'))
    torch.testing.assert_close(merged_in, ours, atol=1e-5, rtol=1e-5)
    assert 0 < (beside - ours).abs().max() < .1 # beside the base that was not rounded


# Many ranks

CASES = [dict(zero=zero, accum=accum, lora=4) for zero in (0, 2, 3) for accum in (1, 4)]


def rounded(folder):
    "On every rank: a rounded base at some stages, saved in the middle."
    out = {}
    for zero in (0, 2):
        first, second = (DeepSpeedEngine(in_four_bits(), lambda step: LR, clip=CLIP, zero=zero) for _ in range(2))
        losses = advance(first, 3)[0]
        first.save(folder/str(zero))
        second.load(folder/str(zero))
        out[zero] = losses + advance(first, 3)[0], losses + advance(second, 3)[0]
        first.close()
        second.close()
    return out


def saved(folder):
    "On every rank: adapters are trained at every stage, saved, and resumed; what is in the folder."
    out = {}
    for zero in (0, 1, 2, 3):
        options = LoraOptions(4)
        base, _ = load_model(folder/'base')
        first = DeepSpeedEngine(options.apply(base), lambda step: LR, clip=CLIP, zero=zero, persist=0)
        assert first.optimizer.param_groups and all(group['params'] for group in first.optimizer.param_groups)
        advance(first, 4)
        with first.full_weights():
            if first.rank == 0: options.save(first.model, None, folder/str(zero))
            if first.rank == 0: LoraOptions(4, merge=True).save(first.model, None, folder/f'{zero}m')
        first.save(folder/str(zero)/'trainer')
        second = sharded(lora=4, zero=zero)
        second.load(folder/str(zero)/'trainer')
        out[zero] = advance(first, 2), advance(second, 2)
        first.close()
        second.close()
    return out


@pytest.mark.slow
@needs('deepspeed', 'scale')
@pytest.mark.parametrize('case', range(len(CASES)))
def test_layouts_change_nothing(ranks, case):
    same_trajectory(ranks[case], advance(local(lora=4)))


@pytest.fixture(scope='module')
def ranks(): return launch(trajectories, 2, [(flags, None, None) for flags in CASES])[0]


@pytest.mark.slow
@needs('deepspeed', 'scale')
def test_ranks_save_and_resume(tmp_path):
    save_model(Transformer(CONFIG, 0), None, tmp_path/'base')
    engine = local(lora=4)
    advance(engine, 4)
    found = launch(saved, 2, tmp_path)[0]
    for zero, (ours, again) in found.items(): assert ours == again, zero
    theirs = {zero: load_model(tmp_path/str(zero))[0] for zero in found}
    with torch.no_grad():
        for zero, found in theirs.items():
            for model in (found, load_model(tmp_path/f'{zero}m')[0]):
                torch.testing.assert_close(model(ids()), engine.model(ids()), atol=1e-4, rtol=1e-4)
    one = local(lora=4)
    one.load(tmp_path/'3/trainer')
    assert advance(one, 2)[0] == pytest.approx(advance(engine, 2)[0], abs=1e-5)


@pytest.mark.slow
@needs('deepspeed', 'scale')
@needs('bitsandbytes', 'quant')
def test_a_rounded_base_on_ranks(tmp_path):
    alone = advance(LocalEngine(in_four_bits(), lambda step: LR, clip=CLIP), 6)[0]
    for zero, (ours, again) in launch(rounded, 2, tmp_path)[0].items():
        assert ours == pytest.approx(alone, abs=1e-5) and ours == again, zero


# The verbs

ROWS = {'sft': lambda: question_rows(24, 1), 'dpo': lambda: preference_rows(24, 1)}


def llmbook(*args):
    "Exit code and errors of a command line."
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err), pytest.raises(SystemExit) as ended: main(list(map(str, args)))
    return ended.value.code or 0, err.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize('verb', ROWS)
def test_a_verb_trains_adapters_resumes_and_refuses(tmp_path, verb):
    base = tmp_path/'runs/base'
    save_model(*book_model(), base)
    write_jsonl(tmp_path/'rows.jsonl', ROWS[verb]())
    def run(out, *more):
        return llmbook(verb, '--model', base, '--data', tmp_path/'rows.jsonl', '--steps', 4, '--save-every', 2,
                       '--out', tmp_path/'runs'/out, '--lora', 4, *more)
    code, said = run('whole')
    assert code == 0, said
    whole, half = (tmp_path/'runs'/name/'checkpoints' for name in ('whole', 'half'))
    names = {path.name for path in (whole/'step-00000004').iterdir()}
    assert {ADAPTER, WEIGHTS, BASE, 'tokenizer.json', 'chat_template.jinja', 'trainer'} <= names
    assert 'model.safetensors' not in names
    shutil.copytree(whole.parent, half.parent)
    shutil.rmtree(half/'step-00000004')
    code, said = run('half')
    assert code == 0, said
    assert sha256_of(half/'step-00000004'/WEIGHTS) == sha256_of(whole/'step-00000004'/WEIGHTS)
    assert sha256_of(half/'step-00000002'/WEIGHTS) != sha256_of(whole/'step-00000004'/WEIGHTS)
    code, said = run('half', '--lora-alpha', 3)
    assert code == 2 and 'lora 4, alpha 8' in said and 'alpha 3' in said and said.count('\n') == 1
    code, said = run('merged', '--merge')
    assert code == 0, said
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path/'runs/merged/checkpoints/step-00000004').eval()
    some = ids() + 100
    with torch.no_grad():
        for name in ('whole', 'merged'):
            ours = load_model(tmp_path/'runs'/name)[0](some)
            torch.testing.assert_close(ours, theirs(some).logits, atol=1e-4, rtol=1e-4)
        assert (book_model()[0](some) - ours).abs().max() > 1e-3
    shutil.rmtree(whole/'step-00000004')
    shutil.rmtree(tmp_path/'runs/merged/checkpoints/step-00000004')
    base.rename(tmp_path/'elsewhere')
    for name, more in (('whole', ()), ('merged', ('--merge',))):
        code, said = run(name, *more)
        assert code == 2 and 'base' in said and said.count('\n') == 1, said


def model_files(checkpoint):
    "What is in every file of weights, of the model, the adapter and the optimiser."
    return {str(path.relative_to(checkpoint)): sha256_of(path) for path in checkpoint.rglob('*.safetensors')}


@pytest.mark.slow
@needs('bitsandbytes', 'quant')
@pytest.mark.parametrize('more', ['--merge', '--qlora'])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, more):
    save_model(*book_model(), tmp_path/'base')
    write_jsonl(tmp_path/'rows.jsonl', question_rows(60, 1))
    flags = ('--model', tmp_path/'base', '--data', tmp_path/'rows.jsonl', '--steps', 24, '--batch-size', 2, '--save-every', 3,
             '--keep', 0, '--lora', 4, more)
    killed_after(2, tmp_path/'killed', 'sft', *flags)
    for out in ('killed', 'whole'):
        said = finished('sft', *flags, '--out', tmp_path/out)
        assert ('resuming from step' in said) == (out == 'killed'), said
    killed, whole = (model_files(tmp_path/out/'checkpoints/step-00000024') for out in ('killed', 'whole'))
    assert killed == whole and len(whole) == 3 + (more == '--merge') # adapter, optimiser and random state; and the model
    assert whole != model_files(tmp_path/'whole/checkpoints/step-00000021')


# Beside peft

@pytest.mark.slow
@needs('peft', 'peers')
@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_outputs_and_gradients_are_those_of_peft(tmp_path, arch):
    from peft import PeftModel
    save_model(Transformer(Config(**vars(CONFIG) | {'arch': arch}), 0), None, tmp_path/'base')
    base, options = load_model(tmp_path/'base')[0], LoraOptions(3, 5)
    ours = trained(options.apply(base))
    options.save(ours, None, tmp_path/'adapter')
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path/'base')
    theirs = PeftModel.from_pretrained(theirs, tmp_path/'adapter', is_trainable=True)
    x, y = ids()[:, :-1], ids()[:, 1:]
    logits = theirs(x).logits
    torch.testing.assert_close(ours(x), logits, atol=1e-5, rtol=1e-5)
    F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
    (-ours(x, targets=y).mean()).backward()
    found = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    learn = [p for p in ours.parameters() if p.requires_grad]
    assert all(grad is not None for grad in found.values()) and all(p.grad.abs().max() > 0 for p in learn)
    if arch == 'gpt2': return # queries, keys and values have one adapter there, with more that learns in it
    names = {'q': 'self_attn.q_proj', 'k': 'self_attn.k_proj', 'v': 'self_attn.v_proj', 'o': 'self_attn.o_proj',
             'gate': 'mlp.gate_proj', 'up': 'mlp.up_proj', 'down': 'mlp.down_proj'}
    for i, block in enumerate(ours.blocks):
        for short, name in names.items():
            layer = getattr(block.attention if 'attn' in name else block.mlp, short)
            for part, p in (('A', layer.a), ('B', layer.b)):
                grad = found[f'base_model.model.model.layers.{i}.{name}.lora_{part}.default.weight']
                torch.testing.assert_close(p.grad, grad, atol=1e-6, rtol=1e-4)
    assert len(found) == len(learn) == 28


# Exercises

def test_exercises_refuse_near_misses():
    for answer in (140.8, 1120, 283.2, 3.2): pytest.raises(AssertionError, checks.check_1, answer)
    for answer in (3, 4, 4.5): pytest.raises(AssertionError, checks.check_4, answer)
    for answer in (4, 16, 1): pytest.raises(AssertionError, checks.check_5, answer)
    with pytest.raises(AssertionError, match='Rank 9'): # right, but wider than it must be
        checks.check_2(lambda first, second: (F.pad(torch.cat([first[0], second[0]]), (0, 0, 0, 4)),
                                              F.pad(torch.cat([first[2]*first[1], second[2]*second[1]], 1), (0, 4))))
