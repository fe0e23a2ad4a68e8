"Collectives: what the ring adds up and sends, for every kind of number, size and world."
from functools import partial

import pytest
import torch
import torch.distributed as dist
from test_ranks import failure
from torch import nn
from torch.nn import functional as F

from llmbook.core import generator
from llmbook.scale.collectives import all_reduce_bytes, ring_all_reduce, ring_exchange
from llmbook.scale.ranks import launch

KINDS = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2, torch.int64: 0, torch.int32: 0, torch.uint8: 0}
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (3, 5), (1000,)]


def numbers(rank, kind, shape):
    x = torch.randn(shape, generator=generator(0, 'ring', rank, shape))
    return x.to(kind) if kind.is_floating_point else (10*x.abs()).to(kind)


def sums():
    "On every rank, for every kind and shape: what the ring and PyTorch make of it, and the bytes sent."
    found = {}
    for kind in KINDS:
        for shape in SHAPES:
            ring, torchs = (numbers(dist.get_rank(), kind, shape) for _ in range(2))
            sent = ring_all_reduce(ring)
            dist.all_reduce(torchs)
            found[kind, shape] = ring, torchs, sent
    return found


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_the_ring_is_an_all_reduce(world):
    each = launch(sums, world)
    for (kind, shape), (ring, torchs, _) in each[0].items():
        inputs = [numbers(r, kind, shape) for r in range(world)]
        close = partial(torch.testing.assert_close, rtol=KINDS[kind], atol=KINDS[kind])
        for found in (ring, torchs): close(found, sum(inputs[1:], inputs[0]))
        if world <= 2: assert torch.equal(ring, torchs), (kind, shape) # only one order
        n, item = inputs[0].numel(), inputs[0].element_size()
        for rank in range(world):
            for ours, theirs in zip(each[rank][kind, shape][:2], (ring, torchs)): assert torch.equal(ours, theirs)
            assert abs(each[rank][kind, shape][2] - all_reduce_bytes(n*item, world)) <= 2*(world - 1)*item


def test_the_ring_refuses_what_it_could_not_change():
    assert 'view' in failure(ring_all_reduce, 2, torch.ones(4, 4).t()[1:])


@pytest.mark.parametrize('world', [2, 3])
def test_exchange_is_a_turn_of_the_ring(world):
    def turn():
        rank = torch.tensor([dist.get_rank()], dtype=torch.int16)
        return ring_exchange(rank, into := torch.empty_like(rank)), into.item()
    assert launch(turn, world) == [(2, (r - 1) % world) for r in range(world)]


def shares(model, batch, mean=False):
    "Loss and gradient of the whole batch, from this rank's rows; or the mean of the ranks' means."
    mine = {k: v[dist.get_rank()::dist.get_world_size()] for k, v in batch.items()}
    count = (mine['labels'] >= 0).sum()
    if mean: count = count * dist.get_world_size()
    else: dist.all_reduce(count)
    loss, flat = gradient(model, mine, count)
    dist.all_reduce(loss)
    ring_all_reduce(flat)
    return loss.item(), flat


def gradient(model, batch, count):
    loss = F.cross_entropy(model(batch['ids']).flatten(0, 1), batch['labels'].flatten(), ignore_index=-1, reduction='sum') / count
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach(), torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize('world', [1, 2, 3])
def test_gradient_of_many_is_that_of_one(world):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(40, 16), nn.Tanh(), nn.Linear(16, 40))
    ids = torch.randint(40, (7, 9), generator=generator(0, 'ids'))
    labels = ids[:, 1:].masked_fill(torch.arange(8) >= torch.arange(1, 8)[:, None], -1) # counts of 1 to 7
    batch = dict(ids=ids[:, :-1], labels=labels)
    loss, whole = gradient(model, batch, (labels >= 0).sum())
    each = launch(shares, world, model, batch)
    for l, g in each:
        assert abs(l - loss.item()) < 1e-6 and (g - whole).abs().max() < 1e-6 and torch.equal(g, each[0][1])
    averaged = launch(shares, world, model, batch, True)[0][1]
    assert ((averaged - whole).abs().max() > 1e-3) == (world > 1) # a mean of means is caught
