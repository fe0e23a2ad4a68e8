"""The engine's edges: nothing to measure or to learn, rows that do not divide, other shapes, fp16's scale, a rank's memory.

That layouts agree over whole runs is held by `test_invariance.py`. Functions that ranks run stand here, where a launched
process finds them.
"""
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist

import layouts
from layouts import CLIP, CONFIG, LR, Uneven, advance, local, off
from llmbook.core import UserError
from llmbook.model.generate import generate
from llmbook.model.transformer import Transformer
from llmbook.scale.deepspeed_step import LossScale, ds_config
from llmbook.scale.engine import (DeepSpeedEngine, DeepSpeedOptions, check_engine, engine_flags, engine_options,
                                  rehearse)
from llmbook.scale.ranks import launch
from llmbook.scale.zero import zero_bytes, zero_sent
from llmbook.text.batches import IGNORE
from llmbook.train.clm import CLM
from llmbook.train.step import LocalEngine, LocalOptions, Speed

many = pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs the extra scale')
STAGES, WIDE = (0, 1, 2, 3), replace(CONFIG, vocab_size=400, n_embd=64, n_hidden=128)
SHAPES = {'untied': replace(CONFIG, tied=False), 'gpt2': replace(CONFIG, arch='gpt2', n_hidden=128)}


def sharded(zero, config=CONFIG, **flags):
    return DeepSpeedEngine(Transformer(config, 0), lambda step: LR, clip=CLIP, zero=zero, persist=0, **flags)


def close_to(ours, theirs):
    return ours.keys() >= theirs.keys() and all(math.isclose(ours[k], theirs[k], rel_tol=1e-5) for k in theirs)


def val(n): return [Uneven()[1000 + i] for i in range(n)]


class Two(CLM):
    "Two denominators, and metrics that are a tensor, a float and an int."
    def counts(self, batch): return super().counts(batch) | {'rows': len(batch['rows'])}

    def loss(self, log_probs, batch, counts):
        loss, _ = super().loss(log_probs, batch, counts)
        return loss, {'twice': 2*loss, 'share': len(batch['rows']) / counts['rows'], 'rank': 0}


def unlabelled(batch): return batch | {'labels': torch.full_like(batch['labels'], IGNORE)}


# What ranks run

def edges():
    "On every rank and at every stage: measurements and steps that have something odd about them."
    out = {}
    for zero in STAGES:
        engine, found = sharded(zero, micro=3), {} # 4 rows a rank: micro-batches of 3 and 1
        stream = Uneven(engine.rank, engine.world)
        found['val'] = {n: engine.evaluate(val(n), Two()) for n in (0, 1, 3)} # before the first step
        found['steps'] = [engine.step(stream[t], Two()) for t in range(2)]
        batch = stream[2] if engine.rank == 0 else unlabelled(stream[2])
        found['one without labels'] = engine.step(batch, CLM())
        before = engine.state()
        found['all without labels'] = engine.step(unlabelled(stream[3]), CLM())
        found['still'] = all(torch.equal(v, before[n]) for n, v in engine.state().items())
        found['after'] = engine.step(stream[4], CLM())
        with pytest.raises(RuntimeError, match='load before the first step'): engine.load(None)
        engine.close()
        engine.close()
        out[zero] = found
    return out


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


def half(folder):
    "On every rank: fp16, which DeepSpeed refuses on a processor unless it is told that there is a GPU."
    import llmbook.scale.engine as scale
    deepspeed = scale.import_deepspeed()
    scale.check_engine = lambda *_: None
    type(deepspeed.accelerator.get_accelerator()).is_fp16_supported = lambda self: True
    out = {}
    for zero in (1, 2, 3):
        engine, tried = sharded(zero, speed=Speed('fp16'), accum=2), []
        engine.start()
        def override(scale, tried=tried, known=engine.optimizer.override_loss_scale): return tried.append(scale) or known(scale)
        engine.optimizer.override_loss_scale = override
        engine.scale = LossScale(2.0**24, 7)
        found = advance(engine, 1) # far too much for fp16
        count = len(tried)
        engine.scale = LossScale(2.0**10, 998)
        more = advance(engine, 3)
        engine.save(folder)
        saved = engine.scale.value, engine.scale.calm
        before = engine.state()
        poisoned = engine.step(Uneven(engine.rank, 2)[4], layouts.Poisoned(4, rank=1))
        still = all(torch.equal(v, before[n]) for n, v in engine.state().items())
        ours = found[0] + more[0], found[1] + more[1]
        engine.close()
        out[zero] = ours, tried[:count], tried[count:], saved, poisoned, still
    engine = sharded(1, speed=Speed('fp16'))
    engine.load(folder)
    return out, (engine.scale.value, engine.scale.calm)


def kept(cases):
    "On every rank: bytes of the tensors that the formula is about."
    def size(tensors): return sum(t.numel()*t.element_size() for t in tensors if t is not None)
    out = {}
    for zero, precision in cases:
        engine, found = sharded(zero, WIDE, speed=Speed(precision)), {}
        ds, names = engine.start().ds, engine.names
        wrapped, step = engine.optimizer, ds.step
        def gradients(ds=wrapped, names=names):
            if hasattr(ds, 'grad_partitions_flat_buffer'): return size([ds.grad_partitions_flat_buffer])
            return size([p.grad for p in names]) or size([t for ts in ds.averaged_gradients.values() for t in ts])
        def look(found=found, gradients=gradients, step=step):
            found['gradients'] = gradients()
            return step()
        ds.step = look
        advance(engine, 2)
        base = wrapped.optimizer if zero else wrapped
        found['weights'] = size([p.ds_tensor if zero == 3 else p for p in names])
        found['master'] = size(base.state) if zero else 0
        found['moments'] = size([t for memory in base.state.values() for t in memory.values() if t.ndim])
        out[zero, precision] = found
        del ds.step # it holds on to the optimiser
        engine.close()
    return out


# Edges

@pytest.fixture(scope='module')
def found():
    ranks = launch(edges, 2)
    assert repr(ranks[0]) == repr(ranks[1]), 'the ranks do not agree'
    return ranks[0]


@many
@pytest.mark.parametrize('zero', STAGES)
def test_edges(found, zero):
    ours, engine = found[zero], local()
    assert ours['val'] == ours['val'] | {0: {}}
    for n in (1, 3): assert close_to(ours['val'][n], engine.evaluate(val(n), Two()))
    for t, stats in enumerate(ours['steps']): assert close_to(stats, engine.step(Uneven()[t], CLM()))
    assert ours['steps'][0]['rows'] == 8 and ours['steps'][0]['share'] == pytest.approx(1)
    assert ours['steps'][0]['twice'] == pytest.approx(2*ours['steps'][0]['loss'])
    batch = Uneven()[2]
    batch['labels'][1::2] = IGNORE
    assert close_to(ours['one without labels'], engine.step(batch, CLM()))
    nothing = ours['all without labels']
    assert math.isnan(nothing['loss']) and nothing['skipped_ranks'] == [0, 1] and ours['still'], 'a step without labels moves'
    assert close_to(ours['after'], engine.step(Uneven()[4], CLM()))


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


@many
def test_muon_at_stage_0(tmp_path):
    (ours, same), _ = launch(muon, 2, tmp_path)
    engine = local(optimizer='muon')
    assert same and off(ours, advance(engine, 4))['loss'] < 1e-5
    engine = local(optimizer='muon')
    engine.load(tmp_path)
    assert off(advance(engine, 2), [values[2:] for values in ours])['loss'] < 1e-5


# fp16

@pytest.mark.parametrize('before, overflow, after', [
    ((8.0, 5), True, (4.0, 0)), ((1.0, 5), True, (1.0, 0)), ((8.0, 5), False, (8.0, 6)), ((8.0, 999), False, (16.0, 0)),
    ((2.0**24, 999), False, (2.0**24, 0))])
def test_loss_scale(before, overflow, after):
    scale = LossScale(*before)
    scale.update(overflow)
    assert (scale.value, scale.calm) == after


@many
def test_fp16_halves_tries_again_and_doubles(tmp_path):
    theirs = advance(local(), 4)
    found, loaded = launch(half, 2, tmp_path)[0]
    for zero, (ours, first, then, saved, poisoned, still) in found.items():
        assert first == [2.0**24 / 2**i for i in range(len(first))] and len(first) > 3, (zero, first)
        assert then == [2.0**10, 2.0**10, 2.0**11, 2.0**11], f'ZeRO-{zero}: doubled after the thousandth calm step: {then}'
        assert saved == loaded == (2.0**11, 1)
        assert off(ours, theirs)['loss'] < 1e-2, zero
        assert poisoned['skipped_ranks'] == [1] and still and math.isnan(poisoned['loss']), f'ZeRO-{zero}: a NaN is no overflow'


# What is kept and sent

@many
def test_zero_bytes_is_what_a_rank_keeps():
    parameters = sum(p.numel() for p in Transformer(WIDE).parameters())
    cases = [(0, 'fp32'), (0, 'bf16'), (1, 'fp32'), (2, 'bf16'), (3, 'fp32'), (3, 'bf16')]
    for (zero, precision), parts in launch(kept, 2, cases)[0].items():
        said = zero_bytes(parameters, 2, zero, precision)
        if zero == 1: # after the backward pass DeepSpeed drops gradients of others early; the formula counts the peak
            assert parts['gradients'] <= (4 if precision == 'fp32' else 2)*parameters
            parts['gradients'] = (4 if precision == 'fp32' else 2)*parameters
        assert sum(parts.values()) == pytest.approx(said, rel=0.01), (zero, precision, parts)


def test_formulas():
    assert [round(zero_bytes(7.5, 64, zero, 'bf16'), 1) for zero in STAGES] == [120.0, 31.4, 16.6, 1.9]
    assert [zero_bytes(1, 1, zero) for zero in STAGES] == [16, 20, 20, 20]
    assert [zero_bytes(1, 2, zero, 'fp16', offload=True) for zero in (1, 2, 3)] == [4, 2, 0]
    assert [zero_sent(1, 2, zero) for zero in STAGES] == [4, 4, 4, 6] and zero_sent(7, 1, 3) == 0
    assert zero_sent(1, 2, 0, 'bf16') == 4 and zero_sent(1, 2, 3, 'bf16') == 3


def test_ds_config():
    assert ds_config()['gradient_clipping'] == 0 and ds_config(1, clip=0.3)['gradient_clipping'] == 0.3
    for zero in STAGES:
        config = ds_config(zero, offload=zero > 0, precision='bf16')
        assert config['zero_optimization']['stage'] == zero and ('bf16' in config) == (zero > 0)
        assert ('offload_param' in config['zero_optimization']) == (zero == 3)
        assert ('offload_optimizer' in config['zero_optimization']) == (zero > 0)
    assert ds_config(2, precision='fp16')['fp16']['loss_scale'] == 1.0 # static: the engine keeps the scale
    assert not any('fp16' in ds_config(2, precision=p) for p in ('fp32', 'bf16'))


# Flags

@pytest.mark.parametrize('flags, words', [
    (dict(zero=4), '--zero 4: the stages are'), (dict(zero=-1), '--zero -1'), (dict(offload=True), '--offload: needs --zero 1'),
    (dict(zero=0, offload=True), '--offload: needs'), (dict(precision='fp64'), '--precision fp64: give fp32'),
    (dict(precision='fp16'), '--precision fp16: needs --zero 1'), (dict(zero=0, precision='fp16'), 'needs --zero 1'),
    (dict(micro=0), '--micro 0: at least 1'), (dict(accum=-3), '--accum -3: at least 1'),
    (dict(hang_timeout=0), '--hang-timeout 0'),
    (dict(hang_timeout=math.nan), '--hang-timeout nan'), (dict(speed='auto', zero=0), '--speed auto: .* leave out --precision'),
    (dict(speed='auto', precision='bf16'), '--speed auto')])
def test_flags_that_do_not_fit(flags, words):
    with pytest.raises(UserError, match=words) as e: engine_options(**flags)
    assert '\n' not in str(e.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_fp16_is_refused_on_a_processor():
    with pytest.raises(UserError, match='needs a GPU; on a processor give bf16'): engine_options(zero=2, precision='fp16')


def test_muon_is_refused_where_matrices_are_cut():
    for zero in (1, 2, 3):
        with pytest.raises(UserError, match=f'--optimizer muon: .* ZeRO-{zero}'): check_engine(zero, False, 'fp32', 'muon')
    check_engine(0, False, 'fp32', 'muon')


def test_one_process_keeps_its_own_engine():
    assert engine_flags()['zero'] is None and engine_options(micro=4, precision='bf16') == LocalOptions(4, speed=Speed('bf16'))
    assert engine_options().speed == 'exact'


@many
def test_a_stage_makes_it_deepspeed():
    assert engine_options(zero=2, offload=True, accum=2) == DeepSpeedOptions(2, True, accum=2)


# Alone, and by the reader

ALONE = """
import layouts
from llmbook.scale.engine import engine_options
from llmbook.scale.ranks import launched
engine = engine_options(zero=3, micro=2).build(layouts.Transformer(layouts.CONFIG, 0), lambda step: layouts.LR, clip=layouts.CLIP)
print(*layouts.advance(engine, 2)[0], engine.world, launched())
"""


@many
def test_the_only_rank_of_one():
    path = str(next(p for p in sys.path if p.endswith('tests')))
    code = f'import sys; sys.path.insert(0, {path!r})\n' + ALONE
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert not [line for line in done.stderr.splitlines() if 'WARNING' not in line], done.stderr
    *losses, world, one_of_many = done.stdout.split()
    assert [float(x) for x in losses] == pytest.approx(advance(local(), 2)[0], abs=1e-5)
    assert (world, one_of_many) == ('1', 'False')


@many
def test_rehearse(tmp_path):
    batches = [Uneven()[t] for t in range(3)]
    ours, others = launch(rehearse, 2, batches, [dict(zero=3, offload=True), dict(zero=0, accum=2)], val(3), tmp_path, CONFIG)
    assert ours == others and len(ours) == 2
    theirs, engine = [], LocalEngine(Transformer(CONFIG, 0), lambda step: 1e-2, clip=0.2)
    for b in batches: theirs.append(engine.step(b, CLM()))
    theirs.append(engine.evaluate(val(3), CLM()))
    for stats in ours:
        for a, b in zip(stats, theirs, strict=True): assert close_to(a, b)
    engine.load(tmp_path)
    assert engine.steps == 3 and not dist.is_initialized()
