"The step: shares add up however the batch is split; NaN and infinity move nothing."
import math

import pytest
import torch
from layouts import CLIP, Doubled, MeanOfMeans, Poisoned, Uneven, advance, local, same_trajectory

from llmbook.text.batches import IGNORE, split_batch
from llmbook.train.clm import CLM
from llmbook.train.step import sum_counts


def trajectory(objective, micro): return advance(local(micro=micro), objective=objective)


@pytest.fixture(scope='module')
def whole(): return trajectory(CLM(), None)


def test_the_trajectory_says_something(whole):
    losses, norms = whole
    assert losses[0] - losses[-1] >= 0.5
    assert min(norms) > CLIP  # clipping acts on every step
    counts = [CLM().counts(b)['tokens'].item() for b in split_batch(Uneven()[0], 1)]
    assert max(counts) > 2*min(counts)


@pytest.mark.parametrize('micro', [4, 1])
def test_accumulation_changes_nothing(whole, micro): same_trajectory(trajectory(CLM(), micro), whole)


@pytest.mark.parametrize('mutant, what', [(MeanOfMeans, 'loss|norm'), (Doubled, 'norm')])
def test_mutants_are_caught(whole, mutant, what):
    with pytest.raises(AssertionError, match=what): same_trajectory(trajectory(mutant(), 1), whole)


def test_counts_and_metrics_add_up():
    class Rows(CLM):
        def loss(self, log_probs, batch, counts):
            return super().loss(log_probs, batch, counts)[0], {'rows_seen': len(batch['rows']), 'share': torch.tensor(0.25)}
    batch = Uneven()[0]
    stats = local(micro=2).step(batch, Rows())
    assert stats['rows_seen'] == 8 and stats['share'] == 1 and stats['tokens'] == (batch['labels'] != IGNORE).sum()
    assert sum_counts([{'a': 1}, {'a': torch.tensor(2), 'b': 3}]) == {'a': 3, 'b': 3}


def test_evaluate_is_the_loss_and_learns_nothing():
    engine, batch = local(), Uneven()[0]
    before = [p.clone() for p in engine.names]
    found = engine.evaluate(split_batch(batch, 1), CLM())
    assert all(map(torch.equal, before, engine.names)) and all(p.grad is None for p in engine.names)
    assert math.isclose(found['loss'], engine.step(batch, CLM())['loss'], abs_tol=1e-5)


@pytest.mark.parametrize('where', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_moves_nothing(where):
    engine, stream, objective = local(micro=2), Uneven(), Poisoned(1, where=where)
    engine.step(stream[0], objective)
    before = [p.clone() for p in engine.names]
    moments = [s['exp_avg'].clone() for s in engine.optimizer.state.values()]
    stats = engine.step(stream[1], objective)
    assert stats['skipped'] == stream[1]['rows'].tolist() and engine.steps == 2
    assert not math.isfinite(stats['loss' if where == 'loss' else 'grad_norm'])
    assert all(map(torch.equal, before, engine.names))
    assert all(map(torch.equal, moments, [s['exp_avg'] for s in engine.optimizer.state.values()]))
    assert 'skipped' not in engine.step(stream[2], objective)
