"Attention against PyTorch and transformers' Llama: outputs, gradients, masks, caches, packed rows, sliced heads."

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, jacrev, vmap
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaConfig, LlamaRotaryEmbedding

from llmbook.model.attention import (
    Attention, attend, causal_mask, fused_attend, repeat_kv, rotary_angles, rotate, segment_mask,
)

SHAPES = [(1, 1, 1, 1, 2), (2, 3, 5, 5, 4), (3, 2, 4, 9, 8), (1, 4, 1, 7, 16), (2, 2, 33, 33, 6)]  # B, H, T, S, D


def same(ours, theirs, tol=1e-5): torch.testing.assert_close(ours, theirs, atol=tol, rtol=tol)


def qkv(B, H, T, S, D, G=None):
    g = torch.Generator().manual_seed(B * 1000 + T * 10 + D)
    shapes = (B, H, T, D), (B, G or H, S, D), (B, G or H, S, D)
    return [torch.randn(shape, generator=g, requires_grad=True) for shape in shapes]


def masks(B, H, T, S):
    g = torch.Generator().manual_seed(T)
    yield None
    yield causal_mask(T, S)
    for shape in ((T, S), (B, 1, T, S), (B, H, T, S)):
        yield (torch.rand(shape, generator=g) < 0.5) | causal_mask(T, S).triu(S - T)  # everybody sees itself
    yield torch.rand((B, 1, 1, S), generator=g).lt(0.5) | (torch.arange(S) == 0)  # padding


def gradients(y, inputs):
    weight = torch.linspace(-1, 1, y.numel()).view_as(y)
    return torch.autograd.grad((y * weight).sum(), inputs)


@pytest.mark.parametrize('shape', SHAPES)
def test_attend_equals_pytorch_forward_and_backward(shape):
    inputs = qkv(*shape)
    for mask in masks(*shape[:4]):
        theirs = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        theirs_back = gradients(theirs, inputs)
        for f in (attend, fused_attend):
            ours = f(*inputs, mask)
            same(ours, theirs)
            for a, b in zip(gradients(ours, inputs), theirs_back): same(a, b)


@pytest.mark.parametrize('shape', SHAPES)
def test_causal_means_the_last_rows_of_the_triangle(shape):
    inputs, (B, H, T, S, _) = qkv(*shape), shape
    for mask in masks(B, H, T, S):
        both = causal_mask(T, S) if mask is None else mask & causal_mask(T, S)
        if not both.any(-1).all(): continue
        ours, theirs = fused_attend(*inputs, mask, causal=True), attend(*inputs, both)
        same(ours, theirs)
        for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs)): same(a, b)


@pytest.mark.parametrize('G', [1, 2, 3, 6])
def test_grouped_heads_equal_pytorchs(G):
    q, k, v = qkv(2, 6, 7, 7, 4, G)
    ours = fused_attend(q, repeat_kv(k, 6 // G), repeat_kv(v, 6 // G), causal=True)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    same(ours, theirs)
    for a, b in zip(gradients(ours, (q, k, v)), gradients(theirs, (q, k, v))): same(a, b)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('f', [attend, fused_attend])
def test_a_query_that_may_look_at_nothing_gets_zeros_and_finite_slopes(f, dtype):
    inputs = [x.detach().to(dtype).requires_grad_() for x in qkv(2, 2, 5, 5, 4)]
    mask = causal_mask(5) & (torch.arange(5) >= 2)  # two tokens of padding, on the left
    y = f(*inputs, mask)
    assert y[:, :, :2].eq(0).all() and y[:, :, 2:].ne(0).all()
    for slope in gradients(y, inputs): assert slope.isfinite().all()
    assert f(*inputs, torch.zeros(5, 5, dtype=torch.bool)).eq(0).all()


def test_a_mask_takes_away_and_never_gives_the_future():
    torch.manual_seed(0)
    layer, x = Attention(32, 4, 2), torch.randn(2, 6, 32)
    everything = torch.ones(6, 6, dtype=torch.bool)
    assert torch.equal(layer(x, mask=everything), layer(x, mask=causal_mask(6)))
    same(layer(x, mask=everything), layer(x))
    same(layer(x, mask=everything, causal=False), layer(x, causal=False))
    assert (layer(x, causal=False) - layer(x)).abs().max() > 1e-3
    padding = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()[:, None, None]  # (B,1,1,S)
    same(layer(x, mask=padding)[:1, 2:], layer(x[:1, 2:]))  # what is read alone
    same(layer(x, mask=padding)[1:], layer(x[1:]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_turn_can_be_differentiated_twice_and_by_torch_func(dtype):
    x = torch.randn(2, 2, 3, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    angles = [r.to(dtype) for r in rotary_angles(torch.arange(3), 4)]
    def loss(turn): return lambda x: (turn(x, *angles) ** 3).sum()
    if dtype == torch.float64:
        leaf = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(loss(Attention.turn), leaf) and torch.autograd.gradgradcheck(loss(Attention.turn), leaf)
    for made in (grad, lambda f: vmap(grad(f)), jacrev, lambda f: jacrev(jacrev(f))):
        same(made(loss(Attention.turn))(x), made(loss(rotate))(x))
    rows = rotary_angles(torch.tensor([[0, 1, 2], [5, 6, 7]]), 4)
    same(vmap(Attention.turn)(x.float(), *rows), rotate(x.float(), *rows))


def test_learned_angles_have_slopes():
    x, (cos, sin) = torch.randn(1, 2, 3, 4), rotary_angles(torch.arange(3), 4)
    leaves = [t.clone().requires_grad_() for t in (x, cos, sin)]
    def slopes(turn): return torch.autograd.grad((turn(*leaves) ** 2 * x).sum(), leaves)
    for a, b in zip(slopes(Attention.turn), slopes(rotate)): same(a, b)


def test_masks():
    for T in range(1, 6):
        for S in range(T, 8):
            assert causal_mask(T, S).tolist() == [[s <= S - T + t for s in range(S)] for t in range(T)]
    rows = [[0, 0, 1, 1, 1], [3, 2, 2, 7, 7]]
    mask = segment_mask(torch.tensor(rows))
    assert mask.shape == (2, 1, 5, 5) and mask.dtype == torch.bool
    assert mask[:, 0].tolist() == [[[s <= t and row[s] == row[t] for s in range(5)] for t in range(5)] for row in rows]


def test_no_output_sees_a_later_input():
    torch.manual_seed(0)
    layer, x, rotary = Attention(32, 4, 2), torch.randn(2, 9, 32), rotary_angles(torch.arange(9), 8)
    for mask in (None, segment_mask(torch.tensor([[0] * 4 + [1] * 5]))):
        for t in range(9):
            changed = x.clone()
            changed[:, t] += 1
            moved = (layer(changed, rotary, mask) - layer(x, rotary, mask)).abs().amax((0, 2))
            assert moved[:t].max().item() == 0 if t else True
            assert moved[t] > 1e-3


@pytest.mark.parametrize('theta', [100.0, 10_000.0, 500_000.0])
def test_rotary_is_a_turn_and_knows_distances_only(theta):
    a, b = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    def score(m, n):
        q, k = (rotate(x, *rotary_angles(torch.tensor([p]), 16, theta)) for x, p in ((a, m), (b, n)))
        same(q.norm(), a.norm())
        return (q * k).sum()
    for m, n in ((0, 0), (5, 2), (3, 9)):
        for shift in (1, 10, 200): same(score(m + shift, n + shift), score(m, n), 1e-3)
    assert abs(score(5, 2) - score(2, 5)) > 1e-2


@pytest.mark.parametrize('dtype,tol', [(torch.float32, 1e-6), (torch.float64, 1e-6), (torch.bfloat16, 2e-2)])
def test_the_turn_of_the_layer_equals_rotate_forward_and_backward(dtype, tol):
    assert Attention.turn is not rotate
    g = torch.Generator().manual_seed(0)
    x, slope = torch.randn(2, 2, 3, 5, 8, generator=g).to(dtype)
    cos, sin = rotary_angles(torch.tensor([[0, 1, 2, 3, 4], [7, 8, 9, 100, 3]]), 8)
    turned, slopes = [], []
    for turn in (rotate, Attention.turn):
        leaf = x.clone().requires_grad_()
        turned.append(turn(leaf, cos, sin))
        slopes += torch.autograd.grad(turned[-1], leaf, slope)
    assert turned[1].dtype == slopes[1].dtype == dtype
    same(turned[1], turned[0], tol)
    same(slopes[1], slopes[0], tol)


def test_order_is_invisible_to_one_causal_layer_and_not_to_two():
    "Without positions; Haviv et al. 2022."
    q, k, v = (x.detach() for x in qkv(1, 2, 8, 8, 16))
    p, mask = torch.tensor([3, 0, 5, 2, 6, 4, 1, 7]), causal_mask(8)
    one, shuffled = attend(q, k, v, mask), attend(q[:, :, p], k[:, :, p], v[:, :, p], mask)
    same(shuffled[:, :, -1], one[:, :, -1])
    two, shuffled = attend(one, one, one, mask), attend(shuffled, shuffled, shuffled, mask)
    assert (shuffled - two)[:, :, -1].abs().max() > 0.1


def test_rotary_rows_may_have_positions_of_their_own():
    x, rows = torch.randn(2, 3, 4, 8), torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])
    whole = rotate(x, *rotary_angles(rows, 8))
    for i in range(2): same(whole[i:i+1], rotate(x[i:i+1], *rotary_angles(rows[i], 8)), 1e-7)
    assert rotate(x.bfloat16(), *rotary_angles(rows, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize('H,G,bias,head_size', [(4, 4, False, None), (4, 2, False, None), (4, 1, True, None),
                                                (4, 2, True, 24)])
def test_layer_equals_llama(H, G, bias, head_size):
    torch.manual_seed(H + G)
    ours, B, T = Attention(64, H, G, bias, head_size), 2, 11
    config = LlamaConfig(hidden_size=64, num_attention_heads=H, num_key_value_heads=G, attention_bias=bias,
                         head_dim=ours.head_size, attn_implementation='eager')
    theirs = LlamaAttention(config, layer_idx=0)
    theirs.load_state_dict({key[0] + '_proj' + key[1:]: p for key, p in ours.state_dict().items()})
    x = torch.randn(B, T, 64, requires_grad=True)
    positions = torch.stack([torch.arange(T), torch.arange(T) + 100])
    angles, rotary = LlamaRotaryEmbedding(config)(x, positions), rotary_angles(positions, ours.head_size)
    for a, b in zip(rotary, angles): same(a, b)
    hide = torch.zeros(T, T).masked_fill(~causal_mask(T), -math.inf)[None, None]
    y, z = ours(x, rotary), theirs(x, angles, attention_mask=hide)[0]
    same(y, z)
    y, z = gradients(y, [x, *ours.parameters()]), gradients(z, [x, *theirs.parameters()])
    assert len(y) == len(z) == (9 if bias else 5)
    for a, b in zip(y, z): same(a, b)


@pytest.mark.parametrize('causal', [True, False])
def test_unrotated_layer_equals_multihead_attention(causal):
    torch.manual_seed(0)
    theirs, ours, x = nn.MultiheadAttention(32, 4, batch_first=True), Attention(32, 4, bias=True), torch.randn(2, 7, 32)
    for kind in ('weight', 'bias'):
        parts = [*getattr(theirs, f'in_proj_{kind}').chunk(3), getattr(theirs.out_proj, kind)]
        for name, part in zip('qkvo', parts): getattr(getattr(ours, name), kind).data.copy_(part)
    hidden = ~causal_mask(7) if causal else None
    same(ours(x, causal=causal), theirs(x, x, x, attn_mask=hidden, need_weights=False)[0])


class Cache:
    kept = ()
    def append(self, *new):
        self.kept = [torch.cat(pair, 2) for pair in zip(self.kept, new)] if self.kept else new
        return self.kept


@pytest.mark.parametrize('cuts', [range(11), (0, 10), (0, 4, 10), (0, 1, 8, 10)])
@pytest.mark.parametrize('G', [4, 2])
def test_pieces_through_a_cache_equal_the_whole(cuts, G):
    torch.manual_seed(0)
    layer, x, rotary, cache = Attention(32, 4, G), torch.randn(2, 10, 32), rotary_angles(torch.arange(10), 8), Cache()
    cuts = list(cuts)
    pieces = [layer(x[:, a:b], [r[a:b] for r in rotary], cache=cache) for a, b in zip(cuts, cuts[1:])]
    same(torch.cat(pieces, 1), layer(x, rotary))
    assert cache.kept[0].shape == (2, G, 10, 8)


@pytest.mark.parametrize('restart', [True, False])
def test_packed_documents_equal_the_same_alone(restart):
    torch.manual_seed(0)
    layer, lengths = Attention(32, 4, 2), [5, 1, 3]
    docs = [torch.randn(1, n, 32) for n in lengths]
    segments = torch.tensor([[i for i, n in enumerate(lengths) for _ in range(n)]])
    positions = torch.cat([torch.arange(n) for n in lengths]) if restart else torch.arange(sum(lengths))
    row = layer(torch.cat(docs, 1), rotary_angles(positions, 8), segment_mask(segments))
    same(row, torch.cat([layer(doc, rotary_angles(torch.arange(doc.size(1)), 8)) for doc in docs], 1))


@pytest.mark.parametrize('world', [1, 2, 4])
def test_heads_sliced_over_ranks_add_up(world):
    torch.manual_seed(0)
    whole, x, rotary = Attention(64, 8, 4), torch.randn(2, 6, 64), rotary_angles(torch.arange(6), 8)
    total = 0
    for rank in range(world):
        part = Attention(64, 8 // world, 4 // world, head_size=8)
        for name in 'qkv': getattr(part, name).weight.data = getattr(whole, name).weight.chunk(world)[rank]
        part.o.weight.data = whole.o.weight.chunk(world, 1)[rank]
        total = total + part(x, rotary)
    same(total, whole(x, rotary))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('dtype,tol', [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_gpu_equals_cpu(dtype, tol):
    torch.manual_seed(0)
    layer, x = Attention(64, 4, 2), torch.randn(2, 33, 64)
    segments = torch.tensor([[0] * 20 + [1] * 13] * 2)
    for mask in (None, segment_mask(segments)):
        there = layer.to('cuda', dtype)(x.to('cuda', dtype), rotary_angles(torch.arange(33).cuda(), 16),
                                        None if mask is None else mask.cuda())
        here = layer.to('cpu', torch.float32)(x, rotary_angles(torch.arange(33), 16), mask)
        same(there.cpu().float(), here, tol)
