"Sampling and the cache against transformers' warpers, against counted frequencies, and against the naive loop."

import math

import pytest
import torch
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from llmbook.core import UserError, generator
from llmbook.model.generate import KVCache, generate, keep_top_k, keep_top_p, next_token
from llmbook.model.transformer import Config, Transformer

SHAPES = [dict(arch='llama', n_kv_head=4), dict(arch='llama', n_kv_head=2), dict(arch='gpt2', n_kv_head=4)]


def small(arch='llama', n_kv_head=4, block_size=150):
    model = Transformer(Config(60, block_size, 2, 4, n_kv_head, 32, 64, arch), seed=0)
    for p in model.parameters(): p.data.mul_(3)  # so that the choices are not all alike
    return model.eval()


def prompt(B=2, T=7): return torch.randint(60, (B, T), generator=generator(0, 'prompt', B, T))


@torch.no_grad()
def naive(model, ids, n, **choice):
    for _ in range(n): ids = torch.cat([ids, next_token(model(ids)[:, -1], **choice)[:, None]], 1)
    return ids


@pytest.mark.parametrize('k', [1, 2, 9, 50, 80])
def test_top_k_equals_transformers_ties_included(k):
    rows = 3 * torch.randn(500, 50, generator=generator(0, 'k'))
    for logits in (rows, rows.round()):
        assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize('p', [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_equals_transformers(p):
    rows = 3 * torch.randn(500, 50, generator=generator(0, 'p'))
    assert torch.equal(keep_top_p(rows, p), TopPLogitsWarper(p)(None, rows))


def test_top_p_keeps_the_fewest_that_reach_p():
    probs = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    for p, n in ((0.0, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.95, 4), (1.0, 4)):
        assert keep_top_p(probs.log(), p).isfinite().sum(-1).tolist() == [n, n]


@pytest.mark.parametrize('choice', [dict(), dict(temperature=0.5), dict(temperature=1.7), dict(top_k=3), dict(top_p=0.8),
                                    dict(temperature=1.3, top_k=6, top_p=0.7)])
def test_draws_follow_the_probabilities(choice):
    logits, n = torch.randn(12, generator=generator(0, 'toy')) * 1.5, 40_000
    draws = torch.bincount(next_token(logits.expand(n, -1), rng=generator(1, 'draws'), **choice), minlength=12)

    def off(temperature=1.0, top_k=None, top_p=1.0):
        kept = keep_top_p(keep_top_k(logits / temperature, top_k or 12), top_p)
        p = kept.softmax(-1)
        return ((draws - n*p).abs() / (n * p * (1 - p)).sqrt().clamp(min=1e-9)).max()
    assert off(**choice) < 4.5
    assert off(**choice | dict(temperature=choice.get('temperature', 1.0) * 1.15)) > 6  # the check can fail


def test_temperature_zero_is_the_likeliest_whatever_else_is_asked():
    logits = torch.randn(100, 30, generator=generator(0, 'zero'))
    assert torch.equal(next_token(logits, 0, top_k=5, top_p=0.3), logits.argmax(-1))
    assert torch.equal(next_token(logits, 1e-3, rng=generator(0, 'cold')), logits.argmax(-1))
    assert torch.equal(next_token(logits, 2.0, top_k=1, rng=generator(0, 'one')), logits.argmax(-1))
    assert torch.equal(next_token(logits, 2.0, top_p=0.0, rng=generator(0, 'one')), logits.argmax(-1))


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('cuts', [range(141), (0, 140), (0, 63, 64, 65, 140), (0, 1, 100, 140)])
@torch.no_grad()
def test_pieces_through_the_cache_equal_the_whole(shape, cuts):
    model, ids, cuts = small(**shape), prompt(2, 140), list(cuts)
    cache = [KVCache() for _ in model.blocks]
    pieces = torch.cat([model(ids[:, a:b], cache=cache) for a, b in zip(cuts, cuts[1:])], 1)
    torch.testing.assert_close(pieces, model(ids), atol=1e-5, rtol=1e-5)
    assert cache[0].length == 140 and cache[0].k.size(2) <= 2 * 140


@pytest.mark.parametrize('shape', SHAPES)
def test_cached_text_is_the_naive_text(shape):
    model = small(**shape)
    for choice in (dict(temperature=0), dict(temperature=1.1, top_k=20, top_p=0.9)):
        drawn = [f(model, prompt(), 70, **choice, rng=generator(0, 'text')) for f in (naive, generate)]
        assert torch.equal(*drawn)


def test_every_position_is_computed_once():
    model, seen = small(), []
    model.embed.register_forward_hook(lambda module, args, out: seen.append(args[0].size(1)))
    generate(model, prompt(1, 9), 20)
    assert seen == [9] + [1] * 19


def test_rows_that_end_go_on_with_end_and_leave_the_others_alone():
    model, ids = small(), prompt(4, 5)
    free = generate(model, ids, 60, temperature=0)
    end = free[0, 20].item()
    out = generate(model, ids, 60, temperature=0, end=end)
    for a, b in zip(free.tolist(), out.tolist()):
        where = a.index(end, 5) if end in a[5:] else len(a)
        assert b[:where] == a[:where][:len(b)] and set(b[where:]) <= {end}
    alone = generate(model, ids[:1], 60, temperature=0, end=end)
    assert alone.size(1) == free[0].tolist().index(end, 5) + 1  # stops when all have ended


def test_any_of_several_ends_stops_a_row():
    model, ids = small(), prompt(3, 5)
    free = generate(model, ids, 60, temperature=0)
    ends = [free[0, 30].item(), free[1, 20].item()]
    for given in (ends, tuple(ends)):
        out = generate(model, ids, 60, temperature=0, end=given)
        for a, b in zip(free[:, 5:].tolist(), out[:, 5:].tolist()):
            where = min([a.index(end) for end in ends if end in a], default=len(a))
            assert b[:where + 1] == a[:where + 1][:len(b)] and set(b[where + 1:]) <= {ends[0]}
    assert torch.equal(generate(model, ids, 60, temperature=0, end=[]), free)


def test_repeatable_and_leaves_the_model_and_the_global_generator_as_they_were():
    model = small().train()
    state = torch.get_rng_state()
    a, b = (generate(model, prompt(), 30, rng=generator(3, 'text')) for _ in range(2))
    assert torch.equal(a, b) and model.training and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(a, generate(model, prompt(), 30, rng=generator(4, 'text')))
    assert not a.requires_grad


def test_a_draw_that_fails_leaves_the_model_in_training():
    model = small().train()
    model.embed.weight.data.fill_(math.nan)
    with pytest.raises(RuntimeError): generate(model, prompt(), 3)
    assert model.training


def test_stops_at_the_block_and_says_what_cannot_be_asked():
    model = small(block_size=12)
    assert generate(model, prompt(2, 7), 100).shape == (2, 12)
    assert generate(model, prompt(2, 7), 0).shape == (2, 7)
    for ids, choice, words in ((prompt(1, 12), {}, '12 tokens fills the context of 12'), (prompt(1, 13), {}, '13 tokens'),
                               (prompt(1, 0), {}, 'empty'), (prompt(), dict(temperature=-0.1), 'temperature -0.1'),
                               (prompt(), dict(temperature=math.nan), 'temperature nan'), (prompt(), dict(top_k=0), 'top_k 0'),
                               (prompt(), dict(top_p=0), 'top_p 0'), (prompt(), dict(top_p=1.1), 'top_p 1.1')):
        with pytest.raises(UserError, match=words): generate(model, ids, 3, **choice)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_gpu_writes_from_ids_and_generators_of_the_cpu():
    model = small()
    here = generate(model, prompt(), 30, temperature=0)
    model.cuda()
    assert torch.equal(generate(model, prompt(), 30, temperature=0), here)
    assert generate(model, prompt(), 30, rng=generator(0, 'text')).device.type == 'cpu'


def test_a_temperature_close_to_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 2.0], [-50.0, -80.0, 1e4]])
    for temperature in (0, 5e-324, 1e-45, 1e-30, 1e-6, 1e-5):
        assert next_token(logits, temperature).tolist() == [1, 2]
