"""Shards and names: other decoders and optimisers change the layout, and all ranks read complete weights. Functions that ranks
run are here, where a launched process finds them."""
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from layouts import CLIP, CONFIG, LR, advance, local, off
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from llmbook.core import UserError, generator
from llmbook.model.generate import generate
from llmbook.model.transformer import Transformer
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.scale.ranks import launch
from llmbook.train.step import LocalEngine, Speed

many = pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs the extra scale')
SHAPES = {'untied': replace(CONFIG, tied=False), 'gpt2': replace(CONFIG, arch='gpt2', n_hidden=128)}


def sharded(zero, config=CONFIG, **flags):
    return DeepSpeedEngine(Transformer(config, 0), lambda step: LR, clip=CLIP, zero=zero, persist=0, **flags)


# What ranks run

def shapes(folder):
    "On every rank: other decoders, saved before any step and after three, read by another stage."
    out = {}
    for (name, config), (zero, then) in zip(SHAPES.items(), ((1, 3), (3, 1)), strict=True):
        at = folder/name
        engine = sharded(zero, config)
        engine.save(at/'0')
        first = advance(engine, 3)
        engine.save(at/'3')
        engine.close()
        engine = sharded(then, config)
        engine.load(at/'3')
        rest = advance(engine, 3)
        engine.close()
        engine = sharded(then, config)
        engine.load(at/'0')
        assert engine.steps == 0
        out[name] = (first[0] + rest[0], first[1] + rest[1]), advance(engine, 3)
        engine.close()
    return out


def written(zero):
    "On every rank: what the model writes after two steps, and a step after that."
    engine = sharded(zero)
    advance(engine, 2)
    kept = sum(p.numel() for p in engine.names)
    with engine.full_weights(), torch.no_grad():
        ids = generate(engine.model.eval(), torch.tensor([[3, 4, 5]]), 8, temperature=0.0)
    return kept, ids.tolist(), advance(engine, 1)


def muon(folder):
    "On every rank: steps of Muon, saved after two."
    engine = sharded(0, optimizer='muon')
    first = advance(engine, 2)
    engine.save(folder)
    rest = advance(engine, 2)
    engine.close()
    engine = sharded(0, optimizer='muon')
    engine.load(folder)
    return (first[0] + rest[0], first[1] + rest[1]), rest == advance(engine, 2)


class Counting(Transformer):
    "A frozen embedding, a frozen gain, and a buffer that changes in every forward pass of training."
    def __init__(self):
        super().__init__(CONFIG, 0)
        self.register_buffer('seen', torch.zeros((), dtype=torch.int64))
        self.register_buffer('scratch', torch.ones(2), persistent=False)
        for p in (self.embed.weight, self.norm.weight): p.requires_grad_(False)

    def forward(self, *args, **kwargs):
        if self.training: self.seen += 1
        return super().forward(*args, **kwargs)


def frozen(folder):
    "On every rank and at every stage: two steps, a save, and what a fresh engine makes of it."
    out = {}
    for zero, precision in ((0, 'fp32'), (1, 'fp32'), (2, 'fp32'), (3, 'fp32'), (1, 'bf16'), (3, 'bf16')):
        first, second = (DeepSpeedEngine(Counting(), lambda step: LR, clip=CLIP, zero=zero, persist=0, speed=Speed(precision))
                         for _ in range(2))
        at = folder/f'{zero}{precision}'
        losses = advance(first, 2)[0]
        first.save(at)
        state, weights = first.state(), {name: weight.clone() for name, weight in first.weights()}
        second.load(at)
        out[zero, precision] = losses + advance(second, 1)[0], state, weights['embed.weight'], second.model.seen.item()
        first.close()
        second.close()
    return out


class LowRank(nn.Module):
    "A frozen matrix, packed away as whole numbers, and two thin ones beside it that learn."
    def __init__(self, linear):
        super().__init__()
        self.packed = nn.Parameter(linear.weight.detach().view(torch.uint8), requires_grad=False)
        self.down = nn.Parameter(torch.randn(2, linear.in_features, generator=generator(0, 'down')))
        self.up = nn.Parameter(torch.zeros(linear.out_features, 2))

    def forward(self, x): return F.linear(x, self.packed.view(torch.float32)) + x @ self.down.T @ self.up.T


def low_rank():
    "A decoder that is frozen but for what is added to its queries and values: no gain learns, nor the embedding."
    model = Transformer(CONFIG, 0).requires_grad_(False)
    for block in model.blocks:
        for name in 'qv': setattr(block.attention, name, LowRank(getattr(block.attention, name)))
    return model


def nearly_all_frozen(folder):
    "On every rank and at some stages: two steps, a save, and two more steps of this engine and of a fresh one."
    out = {}
    for zero in (0, 2, 3):
        first, second = (DeepSpeedEngine(low_rank(), lambda step: LR, clip=CLIP, zero=zero, persist=0) for _ in range(2))
        losses = advance(first, 2)[0]
        first.save(folder/str(zero))
        weights = {name: weight.clone() for name, weight in first.weights()}
        second.load(folder/str(zero))
        out[zero] = losses + advance(first, 2)[0], losses + advance(second, 2)[0], weights
        first.close()
        second.close()
    return out


def muon_and_frozen(folder): return muon(folder/'muon'), frozen(folder/'frozen'), nearly_all_frozen(folder/'low')


# What comes of it

@pytest.mark.slow
@many
def test_other_shapes_change_layout(tmp_path):
    for name, (ours, anew) in launch(shapes, 2, tmp_path)[0].items():
        def alone(name=name): return LocalEngine(Transformer(SHAPES[name], 0), lambda step: LR, clip=CLIP)
        theirs = advance(alone(), 6)
        assert off(ours, theirs)['loss'] < 1e-5 and off(anew, [values[:3] for values in theirs])['loss'] < 1e-5, name
        engine = alone()
        engine.load(tmp_path/name/'3')
        assert off(advance(engine, 3), [values[3:] for values in theirs])['loss'] < 1e-5


@many
def test_all_ranks_may_generate_from_shards():
    engine = local()
    advance(engine, 2)
    with torch.no_grad(): theirs = generate(engine.model.eval(), torch.tensor([[3, 4, 5]]), 8, temperature=0.0).tolist()
    after = advance(engine, 1)
    for size, ids, ours in launch(written, 2, 3):
        assert size == 0 and ids == theirs and off(ours, after)['loss'] < 1e-5


@pytest.fixture(scope='module')
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp('others')
    return folder, launch(muon_and_frozen, 2, folder)


@many
def test_muon_at_stage_0(others):
    folder, [((ours, same), *_), _] = others
    engine = local(optimizer='muon')
    assert same and off(ours, advance(engine, 4))['loss'] < 1e-5
    engine = local(optimizer='muon')
    engine.load(folder/'muon')
    assert off(advance(engine, 2), [values[2:] for values in ours])['loss'] < 1e-5


@many
def test_frozen_weights_and_buffers_are_in_the_state(others):
    _, [(_, found, _), _] = others
    engine = LocalEngine(Counting(), lambda step: LR, clip=CLIP)
    theirs, initial = advance(engine, 3)[0], engine.model.embed.weight.detach()
    for (zero, precision), (losses, state, embed, seen) in found.items():
        exact = zero == 0 or precision == 'fp32'
        kept = initial if exact else initial.bfloat16().float() # no master copy: what the model computes with
        assert losses == pytest.approx(theirs, abs=1e-5 if exact else 0.05), (zero, precision)
        assert torch.equal(embed, kept) and torch.equal(state['weight.embed.weight'], kept), (zero, precision)
        assert [name for name in state if 'embed' in name] == ['weight.embed.weight'], 'a frozen weight has moments'
        assert state['buffer.seen'] == 2 and seen == 3 and 'buffer.scratch' not in state, (zero, precision)


@many
def test_all_weights_but_a_few_thin_ones_are_frozen(others):
    folder, [(_, _, found), _] = others
    initial, engine = dict(low_rank().named_parameters()), LocalEngine(low_rank(), lambda step: LR, clip=CLIP)
    theirs = advance(engine, 4)[0]
    for zero, (ours, resumed, weights) in found.items():
        assert ours == pytest.approx(theirs, abs=1e-5) and resumed == pytest.approx(theirs, abs=1e-5), zero
        assert weights.keys() == initial.keys()
        for name, p in initial.items():
            assert weights[name].dtype == p.dtype and torch.equal(weights[name], p) != p.requires_grad, (zero, name)
        state = load_file(folder/f'low/{zero}/state.safetensors')
        moments = {key.removeprefix('exp_avg.') for key in state if key.startswith('exp_avg.')}
        assert moments == {name for name, p in initial.items() if p.requires_grad}, zero
        engine = LocalEngine(low_rank(), lambda step: LR, clip=CLIP)
        engine.load(folder/f'low/{zero}')
        assert advance(engine, 2)[0] == pytest.approx(theirs[2:], abs=1e-5), zero


def test_nothing_to_train_is_one_line():
    for engine, flags in ((DeepSpeedEngine, {'zero': 1}), (LocalEngine, {})):
        model = Transformer(CONFIG, 0).requires_grad_(False)
        with pytest.raises(UserError, match='all its weights are frozen'): engine(model, lambda step: LR, **flags)
