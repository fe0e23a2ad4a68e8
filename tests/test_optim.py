"Optimisers and schedules against torch's, on random shapes; and the corner points."
import math
import random
from copy import deepcopy

import pytest
import torch
from torch import nn

from llmbook.core import generator
from llmbook.train.optim import (AdamW, Muon, _orthogonalise, clip_grads, param_groups, warmup_cosine,
                                 warmup_stable_decay)


def shapes(draw): return [[draw.randint(1, 7) for _ in range(draw.randint(0, 3))] for _ in range(draw.randint(1, 5))]


def tensors(sizes, g): return [torch.randn(s, generator=g).requires_grad_() for s in sizes]


@pytest.mark.parametrize('seed', range(25))
def test_adamw_is_torchs(seed):
    "Random shapes, rates, memories, decays; gradients over six orders of magnitude, some of them missing or zero."
    draw, g = random.Random(seed), generator(seed, 'adamw')
    ours = tensors(shapes(draw), g)
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    how = dict(lr=10**draw.uniform(-4, -2), betas=(draw.choice([0.0, 0.5, 0.9]), draw.choice([0.5, 0.95, 0.999])),
               eps=draw.choice([1e-8, 1e-6]), weight_decay=draw.choice([0, 0.1, 1]))
    idle = draw.randrange(len(ours)) if len(ours) > 1 else None
    a, b = AdamW(ours, **how), torch.optim.AdamW(theirs, **how)
    for _ in range(100):
        a.param_groups[0]['lr'] = b.param_groups[0]['lr'] = how['lr'] * draw.uniform(0.1, 1)
        for i, (p, q) in enumerate(zip(ours, theirs)):
            p.grad = None if i == idle else torch.randn(p.shape, generator=g) * 10**draw.uniform(-3, 3) * draw.choice([0, 1, 1])
            q.grad = None if p.grad is None else p.grad.clone()
        a.step()
        b.step()
        for p, q in zip(ours, theirs): torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)
    a.zero_grad()
    assert all(p.grad is None for p in ours)


def loud(p, name): p.grad = torch.randn(p.shape, generator=generator(0, name))


@pytest.mark.parametrize('kind', [AdamW, Muon])
def test_an_optimiser_as_torch_has_them(kind):
    "Groups with settings of their own, zero_grad, closure; the state goes to a twin, which then walks with it."
    matrix, vector = torch.ones(3, 4).requires_grad_(), torch.ones(5).requires_grad_()
    groups = [dict(params=[matrix], lr=0.5, matrix=True), dict(params=[vector], weight_decay=0.0)]
    optimizer = kind(groups, lr=0.01)
    assert isinstance(optimizer, torch.optim.Optimizer) and [g['lr'] for g in optimizer.param_groups] == [0.5, 0.01]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad(set_to_none=False)
        loss = matrix.square().sum() + vector.square().sum()
        loss.backward()
        return loss
    before = [p.detach().clone() for p in (matrix, vector)]
    assert optimizer.step(closure) == 17 and optimizer.step() is None
    assert (matrix - before[0]).abs().mean() > 2 * (vector - before[1]).abs().mean() # the rate of its group
    twins = [p.detach().clone().requires_grad_() for p in (matrix, vector)]
    twin = kind([dict(params=[twins[0]], matrix=True), dict(params=[twins[1]])])
    twin.load_state_dict(deepcopy(optimizer.state_dict()))
    for step in range(3):
        for o, params in ((optimizer, (matrix, vector)), (twin, twins)):
            for i, p in enumerate(params): loud(p, (step, i))
            o.step()
    assert torch.equal(matrix, twins[0]) and torch.equal(vector, twins[1])
    optimizer.zero_grad()
    assert matrix.grad is None
    with pytest.raises(ValueError): kind([matrix], lr=-1)


def test_torch_loads_what_ours_saved():
    ours, theirs = (torch.ones(4).requires_grad_() for _ in range(2))
    how = dict(lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    a, b = AdamW([ours], **how), torch.optim.AdamW([theirs], **how)
    for step in range(6):
        loud(ours, step), loud(theirs, step)
        if step == 3:
            theirs.data.copy_(ours)
            b.load_state_dict(deepcopy(a.state_dict() | {'param_groups': b.state_dict()['param_groups']}))
        a.step()
        if step >= 3: b.step()
    torch.testing.assert_close(ours, theirs)


def test_decay_in_the_gradient_is_another_optimiser():
    "The check above would see the mistake that this chapter is about."
    p, q = (torch.ones(4).requires_grad_() for _ in range(2))
    a, b = AdamW([p], lr=0.01, weight_decay=0.1), torch.optim.Adam([q], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for t in range(20):
        p.grad, q.grad = (torch.randn(4, generator=generator(0, t)) for _ in range(2))
        a.step()
        b.step()
    assert (p - q).abs().max() > 1e-3


@pytest.mark.parametrize('seed', range(25))
def test_clipping_is_torchs(seed):
    draw, g = random.Random(seed), generator(seed, 'clip')
    ours = tensors(shapes(draw), g)
    for p in ours: p.grad = torch.randn(p.shape, generator=g) * 10**draw.uniform(-3, 3)
    theirs, before = [p.detach().clone() for p in ours], [p.grad.clone() for p in ours]
    for p, q in zip(ours, theirs): q.grad = p.grad.clone()
    limit = 10**draw.uniform(-2, 2)
    torch.testing.assert_close(clip_grads(ours, 0), torch.cat([x.flatten() for x in before]).norm())
    assert all(torch.equal(p.grad, x) for p, x in zip(ours, before))  # 0 only measures
    torch.testing.assert_close(clip_grads(iter(ours), limit), nn.utils.clip_grad_norm_(theirs, limit))
    for p, q in zip(ours, theirs): torch.testing.assert_close(p.grad, q.grad)


def test_clipping_passes_over_missing_gradients_and_shows_nan():
    p, q = torch.zeros(2), torch.zeros(3)
    p.grad = torch.tensor([3., 4])
    assert clip_grads([p, q], 1) == 5 and math.isclose(p.grad.norm(), 1, rel_tol=1e-5)
    p.grad = torch.tensor([3., math.nan])
    assert clip_grads([p, q], 1).isnan()


def test_clipping_nothing_is_torchs():
    for params in ([], [torch.zeros(2)]):
        for limit in (0, 1): assert clip_grads(params, limit) == nn.utils.clip_grad_norm_(params, 1) == 0


def test_groups_hold_every_weight_once():
    model = nn.Sequential(nn.Embedding(10, 4), nn.LayerNorm(4), nn.Linear(4, 10), nn.Conv1d(2, 3, 1), nn.Linear(4, 4))
    model[2].weight = model[0].weight  # tied
    model[4].weight.requires_grad_(False)  # frozen
    decay, none = param_groups(model, 0.3)
    assert decay['weight_decay'] == 0.3 and none['weight_decay'] == 0
    found = decay['params'] + none['params']
    assert {id(p) for p in found} == {id(p) for p in model.parameters() if p.requires_grad} and len(found) == len(set(found))
    assert all(p.ndim >= 2 for p in decay['params']) and all(p.ndim < 2 for p in none['params'])


@pytest.mark.parametrize('make', [warmup_cosine, warmup_stable_decay])
@pytest.mark.parametrize('steps, warmup', [(1000, 100), (1000, 0), (10, 9), (1, 0), (2, 1), (7, 3)])
def test_schedules_at_their_corners(make, steps, warmup):
    at = make(0.5, steps, warmup, floor=0.2)
    rates = [at(t) for t in range(steps)]
    assert all(0 < r <= 0.5 for r in rates)
    if warmup: assert rates[0] == 0.5 / warmup and rates[warmup - 1] == 0.5
    elif steps > 1: assert rates[0] == 0.5
    assert all(a < b for a, b in zip(rates[:warmup], rates[1:warmup]))
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1:]))
    for late in (steps, steps + 1, 10*steps): assert warmup > late or math.isclose(at(late), 0.1)


@pytest.mark.parametrize('make', [warmup_cosine, warmup_stable_decay])
def test_a_rise_from_zero(make):
    at, usual = make(0.5, 100, 10, from_zero=True), make(0.5, 100, 10)
    assert [at(t) for t in range(11)] == pytest.approx([0.05*t for t in range(11)])
    assert [at(t) for t in range(10, 100)] == [usual(t) for t in range(10, 100)]
    assert make(0.5, 100, from_zero=True)(0) == 0.5


def test_cosine_is_torchs():
    p = torch.zeros(1, requires_grad=True)
    sgd = torch.optim.SGD([p], lr=3e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 200, eta_min=3e-4)
    at = warmup_cosine(3e-3, 200)
    for t in range(200):
        assert math.isclose(at(t), theirs.get_last_lr()[0], rel_tol=1e-6)
        sgd.step()
        theirs.step()


def test_stable_then_one_minus_the_root():
    at = warmup_stable_decay(2.0, 1000, 50, decay=0.1)
    assert {at(t) for t in range(49, 901)} == {2.0}
    assert math.isclose(at(925), 2 * (1 - 0.5)) and math.isclose(at(1000), 0, abs_tol=1e-12)


def test_muon_walks_with_torchs_and_adam_beside_it():
    g = torch.Generator().manual_seed(0)
    for shape in ((24, 40), (40, 24), (16, 16)):
        a, b = torch.randn(shape, generator=g), torch.randn(7, generator=g)
        c, d, start = a.clone(), b.clone(), a.clone()
        ours = Muon([dict(params=[a], matrix=True, weight_decay=0.1), dict(params=[b])], lr=0.01)
        theirs = (torch.optim.Muon([c], lr=0.01, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'),
                  torch.optim.Adam([d], lr=0.01, betas=(0.9, 0.95)))
        for _ in range(30):
            for p, q in zip((a, b), (c, d)): p.grad = torch.randn(p.shape, generator=g); q.grad = p.grad.clone()
            for o in (ours, *theirs): o.step()
        torch.testing.assert_close(b, d, atol=1e-5, rtol=0)
        assert (a - c).norm() < 0.02 * (a - start).norm()  # torch's iteration runs in 16 bits


def test_orthogonalise_evens_the_singular_values():
    g = torch.Generator().manual_seed(1)
    for shape in ((64, 32), (32, 64), (8, 200)):
        s = torch.linalg.svdvals(_orthogonalise(torch.randn(shape, generator=g)))
        assert 0.5 < s.min() and s.max() < 1.3
