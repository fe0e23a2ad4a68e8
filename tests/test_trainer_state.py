"The state of a run: by name, in the same bits, and never into a model of another shape."
import pytest
import torch
from layouts import CONFIG, Uneven, local
from safetensors.torch import load_file

from llmbook.core import UserError
from llmbook.model.transformer import Config, Transformer
from llmbook.train.clm import CLM
from llmbook.train.step import LocalEngine
from llmbook.train.trainer_state import random_state, set_random, write_state


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
