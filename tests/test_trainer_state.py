"The state of a run: by name, in the same bits, and never into a model of another shape."
import pytest
import torch
from layouts import CONFIG, Uneven, local
from safetensors.torch import load_file

from llmbook.core import UserError
from llmbook.model.transformer import Config, Transformer
from llmbook.train.clm import CLM
from llmbook.train.step import LocalEngine


def test_a_checkpoint_of_another_shape(tmp_path):
    local().save(tmp_path/'a/trainer')
    for change in (dict(n_hidden=96), dict(n_layer=1), dict(n_layer=3), dict(tied=False)):
        other = LocalEngine(Transformer(Config(**{**vars(CONFIG), **change}), 0), lambda step: 1e-2)
        with pytest.raises(UserError, match='of another shape; '): other.load(tmp_path/'a/trainer')


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
