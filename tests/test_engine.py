"""The engine's edges: nothing to measure or to learn, rows that do not divide, flags that do not fit, the only rank of one.

That layouts agree over whole runs is held by `test_invariance.py`. Functions that ranks run are here, where a launched
process finds them.
"""
import math
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from layouts import CLIP, CONFIG, LR, Uneven, advance, local

from llmbook.core import UserError
from llmbook.model.transformer import Transformer
from llmbook.scale.engine import (DeepSpeedEngine, DeepSpeedOptions, _check_engine, engine_flags, engine_options,
                                  rehearse)
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE
from llmbook.train.clm import CLM
from llmbook.train.step import LocalEngine, LocalOptions, Speed

many = pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs the extra scale')
STAGES = (0, 1, 2, 3)


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


# Edges

def edges():
    "On every rank and at every stage: measurements and steps that have something odd about them."
    out = {}
    for zero in STAGES:
        engine, found = sharded(zero, micro=3), {} # 4 rows per rank: micro-batches of 3 and 1
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


# Flags

@pytest.mark.parametrize('flags, words', [
    (dict(zero=4), '--zero 4: the stages are'), (dict(zero=-1), '--zero -1'), (dict(offload=True), '--offload: needs --zero 1'),
    (dict(zero=0, offload=True), '--offload: needs'), (dict(precision='fp64'), '--precision fp64: give fp32'),
    (dict(precision='fp16'), '--precision fp16: needs --zero 1'), (dict(zero=0, precision='fp16'), 'needs --zero 1'),
    (dict(micro=0), '--micro 0: must be at least 1'), (dict(accum=-3), '--accum -3: must be at least 1'),
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
        with pytest.raises(UserError, match=f'--optimizer muon: .* ZeRO-{zero}'): _check_engine(zero, False, 'fp32', 'muon')
    _check_engine(0, False, 'fp32', 'muon')


def test_one_process_keeps_its_own_engine():
    assert engine_flags()['zero'] is None and engine_options(micro=4, precision='bf16') == LocalOptions(4, speed=Speed('bf16'))
    assert engine_options().speed == 'exact' and engine_flags(hang_timeout=math.inf)['hang_timeout'] == math.inf # waits for ever


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
