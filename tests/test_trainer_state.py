"The state of a run: by name, in the same bits, and never into a model of another shape."
import pytest
import torch
from layouts import CONFIG, Uneven, local
from safetensors.torch import load_file, save_file
from torch import nn

from llmbook.core import UserError, generator
from llmbook.files import read_json, write_json
from llmbook.model.transformer import Config, Transformer
from llmbook.train.clm import CLM
from llmbook.train.optim import AdamW, Muon
from llmbook.train.step import LocalEngine
from llmbook.train.trainer_state import load_training, random_state, save_training, set_random, write_state


def test_a_checkpoint_of_another_shape(tmp_path):
    local().save(tmp_path/'a/trainer')
    for change, what in ((dict(n_hidden=96), r'is \(64, 32\) in the file and \(96, 32\) in the model'),
                         (dict(n_layer=1), r'is \(32, 32\) in the file and missing in the model'),
                         (dict(n_layer=3), r'is missing in the file and \(32,\) in the model'),
                         (dict(tied=False), r'head.weight is missing in the file')):
        other = LocalEngine(Transformer(Config(**{**vars(CONFIG), **change}), 0), lambda step: 1e-2)
        with pytest.raises(UserError, match='of another shape; .*' + what): other.load(tmp_path/'a/trainer')


def test_loading_brings_back_moments_and_forgets_others(tmp_path):
    engine, stream = local(), Uneven()
    engine.save(tmp_path/'new')
    for t in range(3): engine.step(stream[t], CLM())
    engine.save(tmp_path/'three')
    kept = load_file(tmp_path/'three/state.safetensors')
    assert 'exp_avg.embed.weight' in kept and kept['step.embed.weight'] == 3
    engine.load(tmp_path/'new')
    assert engine.steps == 0 and not engine.optimizer.state
    engine.load(tmp_path/'three')
    assert engine.steps == 3 and len(engine.optimizer.state) == len(engine.names)


def test_a_rank_that_was_not_saved_begins_its_own_stream(tmp_path):
    "It depends on the step and the rank, and on nothing that happened in between."
    def draw(steps, rank):
        set_random(tmp_path/str(steps), rank)
        return torch.rand(()).item()
    for steps in (3, 4): write_state(tmp_path/str(steps), {'weight.w': torch.ones(1)}, [random_state()], steps=steps)
    first = torch.rand(()).item()
    assert draw(3, 0) == draw(4, 0) == first  # the saved rank is back where it was
    streams = [draw(steps, rank) for steps in (3, 4) for rank in (1, 2)]
    assert len({*streams, first}) == 5 and streams == [draw(steps, rank) for steps in (3, 4) for rank in (1, 2)]


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_either_optimizer_resumes_in_the_same_bits(tmp_path, optimizer):
    def steps(engine, first, last): return [engine.step(Uneven()[t], CLM())['loss'] for t in range(first, last)]
    whole, half, again = (local(optimizer=optimizer) for _ in range(3))
    losses = steps(whole, 0, 12)
    steps(half, 0, 5)
    half.save(tmp_path/'trainer')
    again.load(tmp_path/'trainer')
    assert steps(again, 5, 12) == losses[5:] and losses[-1] < losses[0]
    for p, q in zip(again.model.parameters(), whole.model.parameters()): assert torch.equal(p, q)


def with_buffer(value):
    engine = local()
    engine.model.register_buffer('seen', torch.tensor([value, 2.0]))
    engine.model.register_buffer('scratch', torch.ones(1), persistent=False)
    return engine


def test_buffers_come_back(tmp_path):
    with_buffer(7.0).save(tmp_path/'a/trainer')
    saved = load_file(tmp_path/'a/trainer/state.safetensors')
    assert [key for key in saved if key.startswith('buffer.')] == ['buffer.seen']
    engine = with_buffer(0.0)
    engine.load(tmp_path/'a/trainer')
    assert engine.model.seen.tolist() == [7, 2]
    local().save(tmp_path/'old/trainer') # a state without them
    engine.load(tmp_path/'old/trainer')
    assert engine.model.seen.tolist() == [7, 2]
    engine.model.seen = torch.zeros(3)
    with pytest.raises(UserError, match=r'buffer.seen is \(2,\) in the file and \(3,\) in the model'):
        engine.load(tmp_path/'a/trainer')


def frozen():
    engine = LocalEngine(Transformer(CONFIG, 0).requires_grad_(True), lambda step: 1e-2)
    engine.model.embed.weight.requires_grad_(False)
    return LocalEngine(engine.model, lambda step: 1e-2, clip=0.2)


def test_a_frozen_weight(tmp_path):
    "It stays, it is saved, and the others resume in the same bits."
    whole, half, again = (frozen() for _ in range(3))
    start = whole.model.embed.weight.clone()
    losses = [whole.step(Uneven()[t], CLM())['loss'] for t in range(6)]
    for t in range(3): half.step(Uneven()[t], CLM())
    with torch.no_grad(): again.model.embed.weight.zero_()
    half.save(tmp_path/'trainer')
    again.load(tmp_path/'trainer')
    assert [again.step(Uneven()[t], CLM())['loss'] for t in range(3, 6)] == losses[3:]
    assert torch.equal(again.model.embed.weight, start) and torch.equal(whole.model.embed.weight, start)


def facts(folder, text): (folder/'trainer.json').write_text(text)


def tensors(folder, name, **tensors): save_file(tensors, folder/name)


def add(folder, name):
    path = folder/'state.safetensors'
    save_file(load_file(path) | {name: torch.zeros(3)}, path)


BROKEN = {
    'steps as text': lambda f: facts(f, '{"steps": "3"}'), 'no steps': lambda f: facts(f, '{"world": 1}'),
    'null': lambda f: facts(f, 'null'), 'nested': lambda f: facts(f, '[' * 100_000),
    'negative': lambda f: facts(f, '{"steps": -1}'),
    'no world': lambda f: facts(f, '{"steps": 3, "world": 0}'), 'NaN': lambda f: facts(f, '{"steps": NaN}'),
    'rng of a wrong shape': lambda f: tensors(f, 'rng-0.safetensors', torch=torch.zeros(3, dtype=torch.uint8)),
    'rng of a wrong type': lambda f: tensors(f, 'rng-0.safetensors', torch=torch.zeros(5056)),
    'rng without torch': lambda f: tensors(f, 'rng-0.safetensors', other=torch.zeros(3)),
    'rng cut': lambda f: (f/'rng-0.safetensors').write_bytes(b'x'),
    'state cut': lambda f: (f/'state.safetensors').write_bytes((f/'state.safetensors').read_bytes()[:1000]),
    'state gone': lambda f: (f/'state.safetensors').unlink(),
    'moment of a wrong shape': lambda f: add(f, 'exp_avg.norm.gain'),
    'moment of nothing': lambda f: add(f, 'exp_avg.x'),
    'step of a wrong shape': lambda f: add(f, 'step.embed.weight'),
}


@pytest.mark.parametrize('how', BROKEN)
def test_a_trainer_that_was_edited_is_one_line(tmp_path, how):
    engine = local()
    engine.step(Uneven()[0], CLM())
    engine.save(tmp_path/'trainer')
    BROKEN[how](tmp_path/'trainer')
    with pytest.raises(UserError) as e: local().load(tmp_path/'trainer')
    assert '\n' not in str(e.value) and str(tmp_path) in str(e.value)


OPTIMIZERS = {
    'sgd': lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    'torch adamw': lambda params: torch.optim.AdamW(params, lr=0.01),
    'adamw': lambda params: AdamW(params, lr=0.01), 'fused': lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    'rmsprop': lambda params: torch.optim.RMSprop(params, lr=0.01),
    'muon': lambda params: Muon([dict(params=list(params))], lr=0.01),
}


def pair(kind, width=8):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 1))
    return model, OPTIMIZERS[kind](model.parameters())


def walk(model, optimizer, first, last):
    for t in range(first, last):
        optimizer.param_groups[0]['lr'] *= 0.9
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=generator(t))).square().mean().backward()
        optimizer.step()
    return [v.clone() for v in model.state_dict().values()]


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_a_training_without_our_engine_resumes_in_the_same_bits(tmp_path, kind):
    whole, (model, optimizer) = walk(*pair(kind), 0, 6), pair(kind)
    walk(model, optimizer, 0, 3)
    for step in (2, 3): save_training(tmp_path/'a', model, optimizer, step) # the second replaces the first
    model, optimizer = pair(kind)
    with torch.no_grad():
        for p in model.parameters(): p.zero_()
    torch.manual_seed(9)
    assert load_training(tmp_path/'a', model, optimizer) == 3
    assert all(map(torch.equal, walk(model, optimizer, 3, 6), whole))
    assert {p.suffix for p in (tmp_path/'a').rglob('*') if p.is_file()} == {'.json', '.safetensors'}


def test_save_and_load_training_refuse(tmp_path):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/notes').write_text('x')
    (tmp_path/'file').write_text('x')
    for place in ('mine', 'file'):
        with pytest.raises(UserError, match='something else'): save_training(tmp_path/place, *pair('sgd'), 1)
    assert (tmp_path/'mine/notes').exists()
    model, optimizer = pair('sgd')
    walk(model, optimizer, 0, 1)
    save_training(tmp_path/'a', model, optimizer, 1)
    with pytest.raises(UserError, match='of another shape'): load_training(tmp_path/'a', *pair('sgd', 9))
    two = torch.optim.SGD([dict(params=[p]) for p in model.parameters()], lr=1)
    with pytest.raises(UserError, match='other groups'): load_training(tmp_path/'a', model, two)
    path = tmp_path/'a/trainer/state.safetensors'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match='changed or cut short'): load_training(tmp_path/'a', model, optimizer)
    with pytest.raises(UserError, match='no readable manifest'): load_training(tmp_path/'none', model, optimizer)


@pytest.mark.parametrize('change, words', [(dict(steps=7), 'trainer.json is that of step 7'), (None, 'torch.int64')])
def test_the_state_of_another_step_and_moments_of_whole_numbers(tmp_path, change, words):
    engine, folder = local(), tmp_path/'step-00000003/trainer'
    engine.steps = 3
    engine.save(folder)
    if change: write_json(folder/'trainer.json', read_json(folder/'trainer.json') | change)
    else:
        state = load_file(folder/'state.safetensors')
        name = next(iter(engine.names.values()))
        save_file(state | {f'exp_avg.{name}': torch.zeros(state[f'weight.{name}'].shape, dtype=torch.int64)},
                  folder/'state.safetensors')
    with pytest.raises(UserError, match=words): local().load(folder)
