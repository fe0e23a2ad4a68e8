"Seeds that never change, guesses at a name, the environment of a run."

import json

import pytest
import torch

from llmbook.core import UserError, current_rank, did_you_mean, environment, generator, rank_zero_first, seed_of


def test_seeds_never_change():
    assert seed_of(0, 'init') == 1749912909633406932 and seed_of(0) == seed_of(False)
    assert seed_of(0, 'a', 'b') != seed_of(0, 'ab') and seed_of(0, 1) == seed_of(0, '1') and seed_of(1,
            'a') != seed_of(0, 1, 'a')
    assert all(0 <= seed_of(s, 'x') < 2**63 for s in (*range(-5, 200), 2**70))
    assert torch.equal(torch.rand(5, generator=generator(3, 'x')), torch.rand(5, generator=generator(3, 'x')))
    assert generator(3, 'x').initial_seed() != generator(3, 'y').initial_seed()


def test_nearest():
    assert did_you_mean('step', ['steps', 'size']) == ", did you mean 'steps'?" and did_you_mean('banana',
            ['steps']) == '' == did_you_mean('x', [])


def test_environment(monkeypatch):
    found = environment()
    assert list(found) == ['python', 'versions', 'commit', 'system', 'cores', 'threads',
            'device'] and json.dumps(found)
    assert found['versions']['torch'].startswith('2.') and found['device']
    monkeypatch.setenv('PATH', '')
    assert environment()['commit'] is None


def test_one_process_is_rank_0_and_goes_straight_through():
    with rank_zero_first(): assert current_rank() == 0
    with pytest.raises(UserError, match='once'), rank_zero_first(): raise UserError('once')
