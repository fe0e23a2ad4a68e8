"""One step of DeepSpeed: its settings, sums over ranks, fp16's scale. Functions that ranks run are here, where a launched process
finds them."""
import builtins
import math
from importlib.util import find_spec

import layouts
import pytest
import torch
from layouts import CLIP, CONFIG, LR, Uneven, advance, local, off
from torch import nn

from llmbook.core import UserError
from llmbook.model.transformer import Transformer
from llmbook.scale.deepspeed_step import (LossScale, RankGroup, _drop_frozen, add_shares, ds_config, import_deepspeed,
                                          skipped_rows)
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.scale.ranks import launch
from llmbook.train.step import Speed

many = pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs the extra scale')
STAGES = (0, 1, 2, 3)


def sharded(zero, config=CONFIG, **flags):
    return DeepSpeedEngine(Transformer(config, 0), lambda step: LR, clip=CLIP, zero=zero, persist=0, **flags)


def half(folder):
    "On every rank: fp16, which DeepSpeed refuses on a processor unless it is told that there is a GPU."
    import llmbook.scale.engine as scale
    deepspeed = scale.import_deepspeed()
    scale._check_engine = lambda *_: None
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


def agreement():
    "On every rank: what it hears from the others."
    rank, group = torch.distributed.get_rank(), RankGroup()
    group.device = torch.device('cpu')
    sums = group.sum({'a': rank + 1, 'b': torch.tensor([1., rank])})
    return (sums['a'], sums['b'].tolist(), group.sum({}), group.any_rank(rank == 1), group.any_rank(False), group.broadcast(rank),
            skipped_rows([10 + rank, 20 + rank], rank == 1), skipped_rows([10 + rank], False))


@many
def test_ranks_agree():
    said = (3.0, [2.0, 1.0], {}, True, False, 0, {'skipped': [11, 21], 'skipped_ranks': [1]},
            {'skipped': [10, 11], 'skipped_ranks': [0, 1]})
    assert launch(agreement, 2) == [said, said]


def test_add_shares_in_64_bits():
    sums = {}
    for counted in (True, False, True): add_shares(sums, {'loss': torch.tensor(1.5), 'rows': 2}, torch.device('cpu'), counted)
    assert {name: (s.item(), s.dtype) for name, s in sums.items()} == {'loss': (3.0, torch.float64), 'rows': (4.0, torch.float64)}
    add_shares(sums, {'loss': torch.tensor(math.nan), 'new': 1}, torch.device('cpu'), counted=False)
    assert sums['loss'] == 3.0 and sums['new'] == 0.0 # what is not counted may be NaN, and its name is learned


def test_ds_config():
    assert ds_config()['gradient_clipping'] == 0 and ds_config(1, clip=0.3)['gradient_clipping'] == 0.3
    for zero in STAGES:
        config = ds_config(zero, offload=zero > 0, precision='bf16')
        assert config['zero_optimization']['stage'] == zero and ('bf16' in config) == (zero > 0)
        assert ('offload_param' in config['zero_optimization']) == (zero == 3)
        assert ('offload_optimizer' in config['zero_optimization']) == (zero > 0)
    assert ds_config(2, precision='fp16')['fp16']['loss_scale'] == 1.0 # static: the engine keeps the scale
    assert not any('fp16' in ds_config(2, precision=p) for p in ('fp32', 'bf16'))


@pytest.mark.parametrize('error, words', [
    (ModuleNotFoundError("No module named 'deepspeed'", name='deepspeed'), 'not installed'),
    (ModuleNotFoundError("No module named 'hjson'", name='hjson'), "cannot be imported .ModuleNotFoundError: No .* 'hjson'"),
    (AttributeError('two\nlines'), 'cannot be imported .AttributeError: two lines'),
    (OSError('libcudart.so.11.0: cannot open'), 'OSError: libcudart'), (RuntimeError('CUDA'), 'RuntimeError: CUDA')])
def test_a_missing_or_broken_deepspeed_is_one_line(monkeypatch, error, words):
    real = builtins.__import__
    def broken(name, *args): return real(name, *args) if name.split('.')[0] != 'deepspeed' else fail(error)
    monkeypatch.setattr(builtins, '__import__', broken)
    with pytest.raises(UserError, match=f"DeepSpeed is .*{words}.*pip install 'llmbook.scale.'") as e: import_deepspeed()
    assert '\n' not in str(e.value)


def fail(error): raise error


def test_no_empty_group_reaches_deepspeed():
    "Nor a frozen weight, whoever made the optimiser."
    a, b, c = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), False), nn.Parameter(torch.ones(2), False)
    optimizer = torch.optim.AdamW([dict(params=[b]), dict(params=[a, c], lr=7.0)])
    optimizer.add_param_group(dict(params=[]))
    _drop_frozen(optimizer)
    [group] = optimizer.param_groups
    assert group['params'][0] is a and len(group['params']) == 1 and group['lr'] == 7.0


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
