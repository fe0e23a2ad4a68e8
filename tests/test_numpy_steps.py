"Steps in numpy write what the decoder writes, in every mix with steps that are not."
import copy
import pickle
import warnings

import pytest
import torch

from llmbook.core import UserError, generator
from llmbook.model.decode import Decoding
from llmbook.model.generate import KVCache, generate
from llmbook.model.numpy_steps import NumpyDecoding, for_writing
from llmbook.model.shape import config_for
from llmbook.model.transformer import Transformer


def small(arch='llama', **more):
    model = Transformer(config_for('nano', 60, arch=arch, n_layer=2, block_size=48, **more), 1).eval()
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator(0, name))
        p.data += 0.1 * noise if p.ndim < 2 else 0.05 * noise
    return model


@pytest.mark.parametrize('arch, more', [('llama', {}), ('qwen2', {}), ('qwen3', {}), ('llama', {'n_kv_head': 1}),
                                        ('llama', {'o_bias': True, 'mlp_bias': True}), ('qwen3', {'tied': False})])
def test_the_same_text(arch, more):
    model = small(arch, **more)
    fast = for_writing(model)
    assert type(fast) is NumpyDecoding
    for B in (1, 5, 70): # the last is more than a step takes
        ids = torch.randint(60, (B, 7), generator=generator(0, 'ids', B))
        ours, theirs = generate(fast, ids, 30, 0.), generate(model, ids, 30, 0.)
        assert (ours == theirs).all(1).float().mean() > 0.9 # two tokens may be equally likely, up to rounding


def test_rows_that_leave_and_steps_of_several_tokens():
    model = small('qwen3')
    fast, cache, plain = NumpyDecoding(model), [KVCache(room=4) for _ in range(2)], [KVCache() for _ in range(2)]
    g = generator(0, 'rows')
    def both(ids, **given):
        with torch.no_grad(): logits = [m(ids, cache=c, **given) for m, c in ((fast, cache), (model, plain))]
        torch.testing.assert_close(*logits, atol=2e-4, rtol=1e-3)
    both(torch.randint(60, (3, 4), generator=g))
    both(torch.randint(60, (3, 1), generator=g))
    for layer in (*cache, *plain): layer.keep(torch.tensor([2, 0]))
    both(torch.randint(60, (2, 1), generator=g))
    both(torch.randint(60, (2, 1), generator=g), mask=torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]))
    both(torch.randint(60, (2, 5), generator=g)) # read as usual
    both(torch.randint(60, (2, 3), generator=g), mask=torch.arange(15) >= torch.tensor([[2], [0]]))
    both(torch.randint(60, (2, 3), generator=g), mask=torch.ones(2, 1, 3, 18, dtype=torch.bool)) # still causal
    assert cache[0].length == plain[0].length == 18


def test_the_head_is_numpy_too():
    fast, cache = NumpyDecoding(small()), [KVCache() for _ in range(2)]
    ids = torch.randint(60, (2, 5), generator=generator(0, 'ids'))
    fast(ids, cache=cache)
    hidden = fast.hidden(ids[:, :1], cache=cache)
    assert fast.views is not None and fast.head(hidden).abs().max() > 0
    fast.views.out = (0 * fast.views.out[0], None)
    assert fast.head(hidden).abs().max() == 0 and fast.head(hidden.repeat(33, 1, 1)).abs().max() > 0 # 66 are PyTorch's


def test_keys_keep_their_order_in_memory():
    fast, cache = NumpyDecoding(small()), [KVCache(room=8) for _ in range(2)]
    ids = torch.randint(60, (4, 7), generator=generator(0, 'ids'))
    with torch.no_grad():
        fast(ids, cache=cache)
        assert cache[0].k.stride(3) == 1 # as a prompt leaves them
        for _ in range(3): # the second needs more room
            fast(ids[:, :1], cache=cache)
            assert cache[0].k.stride(2) == 1 == cache[0].v.stride(3)
        cache[0].keep(torch.tensor([3, 0]))
    assert cache[0].k.stride(2) == 1 and cache[0].k.shape == cache[0].v.shape


def test_it_travels_and_refuses_like_the_decoder():
    model = small()
    fast = NumpyDecoding(model)
    ids = torch.randint(60, (1, 47), generator=generator(0, 'ids'))
    before = generate(fast, ids[:, :5], 5, 0.)
    assert fast.views is not None
    sent = pickle.loads(pickle.dumps(fast)) # noqa: S301 (our own)
    for other in (sent, copy.deepcopy(fast)):
        assert other.views is None and torch.equal(generate(other, ids[:, :5], 5, 0.), before)
    cache = [KVCache() for _ in range(2)]
    fast(ids, cache=cache)
    fast(ids[:, :1], cache=cache)
    with pytest.raises(UserError, match='49 .* 48'): fast(ids[:, :1], cache=cache)
    with pytest.raises(UserError, match='48 to 48'): fast(ids[:, :1], torch.tensor([[48]]), cache=cache)


def test_masks_are_refused_as_by_the_decoder():
    fast, cache = NumpyDecoding(small()), [KVCache() for _ in range(2)]
    ids = torch.randint(60, (2, 5), generator=generator(0, 'ids'))
    fast(ids, cache=cache)
    for mask, said in ((torch.ones(2, 5), r'\(2, 5\)'), (torch.ones(2, 6), 'float32')):
        with pytest.raises(UserError, match=said): fast(ids[:, :1], mask=mask, cache=cache)


def test_a_gate_far_below_zero_is_silent():
    model = small()
    model.embed.weight.data *= 100
    for block in model.blocks: block.mlp.gate.weight.data *= 1000
    fast, cache, plain = NumpyDecoding(model), [KVCache() for _ in range(2)], [KVCache() for _ in range(2)]
    ids = torch.randint(60, (2, 5), generator=generator(0, 'ids'))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('error')
        for new in (ids, ids[:, :1]): logits = [m(new, cache=c) for m, c in ((fast, cache), (model, plain))]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('arch, more', [('gpt2', {}), ('gpt2', {'norm': 'rms', 'activation': 'silu'}),
                                        ('llama', {'norm': 'layer'}), ('llama', {'activation': 'gelu'})])
def test_other_decoders_are_laid_out(arch, more):
    assert type(for_writing(small(arch, **more))) is Decoding
