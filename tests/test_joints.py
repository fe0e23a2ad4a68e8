"""The joints: what every engine offers, on one process and on many. Functions that ranks run live here, where a launched
process finds them."""
import pytest
import torch
from layouts import CLIP, CONFIG, LR, Uneven, advance, local, sharded
from needs import needs

from llmbook.joints import Engine, Objective, Scorer
from llmbook.model.transformer import Transformer
from llmbook.scale.engine import DeepSpeedEngine, DeepSpeedOptions, engine_options
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE
from llmbook.train.clm import CLM
from llmbook.train.step import Host, LocalEngine, LocalOptions, share_of

many = needs('deepspeed', 'scale')
STAGES = (0, 2, 3)


def members(protocol): return {n for n in [*vars(protocol), *protocol.__annotations__] if not n.startswith('_')}


def test_every_joint_is_there():
    engine = local()
    for protocol in (Engine, Scorer): assert all(hasattr(engine, name) for name in members(protocol))
    assert all(hasattr(CLM(), name) for name in members(Objective)) and members(Engine) > {'step', 'sum', 'data_rank'}
    assert members(Engine) - {'model'} <= {*dir(DeepSpeedEngine), 'rank', 'world', 'data_rank', 'data_world', 'steps', 'layout'}
    assert (engine.rank, engine.world, engine.data_rank, engine.data_world) == (0, 1, 0, 1)


def test_score_is_a_forward_pass_row_by_row():
    for micro in (None, 3):
        engine, batch = local(micro=micro), Uneven()[5]
        found = engine.score(batch, CLM())['log_probs']
        with torch.no_grad(): whole = engine.model(*CLM().inputs(batch))
        torch.testing.assert_close(found, whole)
        assert not found.requires_grad and (found[batch['labels'] == IGNORE] == 0).all() and (found <= 0).all()
        counts = CLM().counts(batch)
        assert -found.sum() / counts['tokens'] == pytest.approx(share_of(engine.model, batch, CLM(), counts)[0].item())
        assert all(p.grad is None for p in engine.names)


def test_one_process_agrees_with_itself():
    engine = local()
    found = engine.sum({'a': 1, 'b': torch.tensor([1., 2.]), 'c': torch.tensor(0.5)})
    assert found['a'] == 1 and found['b'].tolist() == [1, 2] and found['c'] == 0.5
    assert engine.broadcast('x') == 'x' and engine.any_rank(True) and not engine.any_rank(False)
    names = dict(engine.weights())
    assert names.keys() == set(engine.names.values()) and all(torch.equal(names[n], p) for p, n in engine.names.items())


@pytest.mark.parametrize('options', [LocalOptions(), LocalOptions(micro=3)])
def test_options_build_and_freeze(options):
    assert isinstance(options.build(Transformer(CONFIG, 0), lambda step: LR, clip=CLIP), LocalEngine)
    frozen = options.freeze(Transformer(CONFIG, 0))
    assert type(frozen) is Host and not any(p.requires_grad for p in frozen.model.parameters())
    torch.testing.assert_close(frozen.score(Uneven()[5], CLM()), local().score(Uneven()[5], CLM()))


def test_the_flags_choose():
    assert engine_options(accum=2) == LocalOptions(accum=2) and engine_options().zero is None


# What ranks run

def joints():
    "On every rank, at some stages: what the engine answers before and after two steps, and what a frozen model says."
    out = {}
    for zero in STAGES:
        engine = sharded(zero=zero, micro=2)
        batch, found = Uneven(engine.data_rank, engine.data_world)[5], {}
        found['where'] = engine.rank, engine.world, engine.data_rank, engine.data_world
        found['before'] = engine.score(batch, CLM())['log_probs']
        advance(engine, 2)
        found['after'] = engine.score(batch, CLM())['log_probs']
        found['sum'] = engine.sum({'a': 1 + engine.rank, 'b': torch.tensor([1., engine.rank])})
        found['weights'] = {name: w.clone() for name, w in engine.weights()}
        found['said'] = engine.broadcast(engine.rank), engine.any_rank(engine.rank == 1), engine.any_rank(False)
        frozen = DeepSpeedOptions(zero).freeze(Transformer(CONFIG, 0))
        found['frozen'] = frozen.score(batch, CLM())['log_probs']
        found['kept'] = sum(p.numel() for p in frozen.model.parameters())
        found['next'] = advance(engine, 1)
        engine.close()
        out[zero] = found
    return out


@pytest.fixture(scope='module')
def ranks(): return launch(joints, 2)


@many
@pytest.mark.parametrize('zero', STAGES)
def test_many_ranks_answer_as_one(ranks, zero):
    engine, batch = local(), Uneven()[5]
    before = engine.score(batch, CLM())['log_probs']
    advance(engine, 2)
    after, losses = engine.score(batch, CLM())['log_probs'], advance(engine, 1)
    weights = dict(local_after(2).weights())
    for rank, found in enumerate(r[zero] for r in ranks):
        assert found['where'] == (rank, 2, rank, 2)
        torch.testing.assert_close(found['before'], before[rank::2], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found['after'], after[rank::2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found['frozen'], before[rank::2], atol=1e-5, rtol=1e-5)
        assert found['sum']['a'] == 3 and found['sum']['b'].tolist() == [2, 1]
        assert found['said'] == (0, True, False)
        assert found['weights'].keys() == weights.keys()
        for name, w in weights.items(): torch.testing.assert_close(found['weights'][name].cpu(), w, atol=1e-5, rtol=1e-4)
        assert found['next'][0] == pytest.approx(losses[0], abs=1e-5), 'asking has changed the training'
        assert (found['kept'] == 0) == (zero == 3) # nothing complete is left on a rank


def local_after(steps):
    engine = local()
    advance(engine, steps)
    return engine
