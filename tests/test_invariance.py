"Same maths, any layout, same loss: one process against many, at every stage, before and after a change of layout."

import pytest
import torch

import layouts
from layouts import ALLOWED, LAYOUTS, Doubled, Dropped, MeanOfMeans, Poisoned, Twice, Uneven, advance, local, off, same_trajectory
from needs import needs

from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE

pytestmark = needs('deepspeed', 'scale')
MUTANTS = {'mean of means': (MeanOfMeans(), None), 'gradient times two': (Doubled(), None), 'a dropped rank': (Dropped(), None),
           "another's slice": (None, Twice())}


@pytest.fixture(scope='module')
def alone(): return advance(local())


@pytest.fixture(scope='module')
def found():
    "Every layout's trajectory, and the mutants': one launch for each number of ranks."
    out = {}
    for world in sorted({ranks for ranks, _ in LAYOUTS.values()}):
        cases = {name: (flags, None, None) for name, (ranks, flags) in LAYOUTS.items() if ranks == world}
        if world == 2:
            cases['lora'] = dict(zero=2, lora=4), None, None
            for name, (objective, stream) in MUTANTS.items():
                for zero in (0, 2): cases[name, zero] = (dict(zero=zero), objective, stream)
            for name, (objective, stream) in layouts.OBJECTIVES.items():
                cases[name] = dict(zero=2, accum=4, **layouts.MODELS.get(name, {})), objective(), stream()
        each = launch(layouts.trajectories, world, list(cases.values()))
        assert all(ranks == each[0] for ranks in each), 'the ranks do not agree on losses and norms'
        out |= dict(zip(cases, each[0]))
    return out


def test_the_trajectory_says_something(alone):
    losses, norms = alone
    assert losses[0] - losses[-1] >= 0.5
    assert min(norms) > layouts.CLIP # clipping acts on every step
    counts = [int((Uneven(r, 4)[0]['labels'] != IGNORE).sum()) for r in range(4)]
    assert max(counts) > 1.5*min(counts)


@pytest.mark.parametrize('name', LAYOUTS)
def test_layout(alone, found, name): same_trajectory(found[name], alone)


def test_adapters_alone_are_trained(found):
    losses, norms = advance(local(lora=4))
    same_trajectory(found['lora'], (losses, norms))
    assert losses[0] - losses[-1] >= 0.35 and sum(norm > layouts.CLIP for norm in norms) >= 25


@pytest.mark.parametrize('name', layouts.OBJECTIVES)
def test_objective(found, name):
    objective, stream = layouts.OBJECTIVES[name]
    losses, norms = advance(local(**layouts.MODELS.get(name, {})), objective=objective(), stream=stream())
    same_trajectory(found[name], (losses, norms))
    assert losses[-1] < 0.8*losses[0] and max(norms) > layouts.CLIP


@pytest.mark.parametrize('name', MUTANTS)
@pytest.mark.parametrize('zero', [0, 2])
def test_mutants_are_caught(alone, found, name, zero):
    with pytest.raises(AssertionError, match='is off by'): same_trajectory(found[name, zero], alone)
    assert max(value / ALLOWED[what] for what, value in off(found[name, zero], alone).items()) > 100 # and by far


# A change of layout in the middle

def half_way(folder, stages):
    "On every rank: ten steps, save, ten more; at every stage. The second ten, and the state at the end."
    out = {}
    for zero in stages:
        engine = layouts.sharded(zero=zero)
        advance(engine, 10)
        engine.save(folder/f'zero{zero}')
        out[zero] = advance(engine, 10), engine.state()
        engine.close()
    return out


def go_on(folder, pairs):
    "On every rank: load what a stage saved into another, and take ten steps."
    out = {}
    for was, now in pairs:
        engine = layouts.sharded(zero=now)
        engine.load(folder/f'zero{was}')
        assert engine.steps == 10
        out[was, now] = advance(engine, 10), engine.state()
        engine.close()
    return out


STAGES = (0, 1, 2, 3)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved')
    return folder, launch(half_way, 2, folder, STAGES)[0]


@pytest.fixture(scope='module')
def resumed(saved):
    pairs = [(was, now) for was in STAGES for now in STAGES]
    few = [(was, now) for was in (1, 2, 3) for now in (1, 2, 3)]
    return {world: launch(go_on, world, saved[0], chosen)[0] for world, chosen in ((1, pairs), (2, pairs), (4, few))}


@pytest.mark.slow
@pytest.mark.parametrize('world', [1, 2, 4])
def test_change_of_layout_on_resume(alone, resumed, world):
    losses, norms = alone
    for (was, now), (ours, _) in resumed[world].items():
        apart = off(ours, (losses[10:20], norms[10:20]))
        assert apart['loss'] <= 1e-5 and apart['norm'] <= 1e-3, f'ZeRO-{was} on 2 ranks, then ZeRO-{now} on {world}: {apart}'


@pytest.mark.slow # the fast tests of faults resume after a kill
@pytest.mark.parametrize('zero', STAGES)
def test_same_layout_goes_on_in_the_same_bits(saved, resumed, zero):
    (undisturbed, whole), (ours, state) = saved[1][zero], resumed[2][zero, zero]
    assert ours == undisturbed
    assert state.keys() == whole.keys() and {'weight', 'exp_avg', 'exp_avg_sq', 'step'} <= {k.split('.')[0] for k in state}
    for name in whole: assert torch.equal(state[name], whole[name]), name


def test_one_process_reads_what_many_wrote_and_the_reverse(saved, alone, tmp_path):
    engine = local()
    engine.load(saved[0]/'zero3')
    assert off(advance(engine, 10), [values[10:20] for values in alone])['loss'] <= 1e-5
    engine = local()
    advance(engine, 10)
    engine.save(tmp_path/'zero9')
    ours, _ = launch(go_on, 2, tmp_path, [(9, 2)])[0][9, 2]
    assert off(ours, [values[10:20] for values in alone])['loss'] <= 1e-5


# A number that is none

def poisoned(stages):
    "On every rank: the step after which nothing may have moved, and the one after that."
    out = {}
    for zero in stages:
        for where in ('loss', 'gradient'):
            engine, objective, stream = layouts.sharded(zero=zero, accum=2), Poisoned(1, rank=1, where=where), None
            advance(engine, 1, objective)
            before, stream = engine.state(), Uneven(engine.rank, engine.world)
            stats = engine.step(stream[1], objective)
            after = engine.state()
            out[zero, where] = stats, all(torch.equal(before[n], after[n]) for n in before), advance(engine, 2, objective)
            engine.close()
    return out


def test_a_nan_of_one_rank_is_skipped_by_all():
    for found in launch(poisoned, 2, STAGES):
        for (zero, where), (stats, still, (losses, norms)) in found.items():
            theirs = Uneven(1, 2)[1]['rows'].tolist()
            assert still, f'ZeRO-{zero}, {where}: something has moved'
            assert torch.tensor(losses + norms).isfinite().all(), f'ZeRO-{zero}, {where}: it does not recover'
            if where == 'loss': assert stats['skipped'] == theirs and stats['skipped_ranks'] == [1], stats
            else: assert set(theirs) < set(stats['skipped']), stats
