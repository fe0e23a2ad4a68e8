"What `grade` asks of the answers to the exercises of the chapter `transformer`."
import math

import torch

from llmbook.core import generator
from llmbook.model.transformer import Block, Config, count_parameters


def _block_size(n_embd, n_hidden, n_head, n_kv_head):
    "Parameters of a Llama-shaped block."
    config = Config(n_embd=n_embd, n_hidden=n_hidden, n_head=n_head, n_kv_head=n_kv_head)
    with torch.device('meta'):
        return count_parameters(Block(config))


def check_1(answer):
    "The parameters of one block."
    n = _block_size(64, 172, 4, 2)
    assert answer != n - 2*64, "Two norms have a gain for each coordinate."
    assert answer != n + 2*64*32, "Two key/value heads of size 16 make `k` and `v` half as large as `q`."
    hint = "Attention has q, k, v and o, the other part gate, up and down"
    assert answer == n, f"{hint}; {answer} is not their sum."


def check_2(answer):
    "A feed-forward part that makes up for fewer key/value heads."
    shapes = (
        (768, 2048, 12, 4, 64), (64, 172, 4, 1, 4), (4096, 11008, 32, 8, 256),
        (128, 344, 4, 4, 8), (128, 340, 4, 4, 8), (96, 100, 6, 2, 1))
    for C, hidden, heads, kv_heads, multiple in shapes:
        found = answer(C, hidden, heads, kv_heads, multiple)
        case = f"Width {C}, {hidden} inside, {kv_heads} of {heads} heads, multiples of {multiple}"
        assert isinstance(found, int), "Return a whole number."
        assert found > 0 and found % multiple == 0, f"{case}: {found} is not a multiple."
        wanted = _block_size(C, hidden, heads, heads)
        here = _block_size(C, found, heads, kv_heads)
        assert here >= wanted, f"{case}: with {found} the block has {here:,} weights, fewer than {wanted:,}."
        smaller = _block_size(C, found - multiple, heads, kv_heads) if found > multiple else 0
        assert smaller < wanted, f"{case}: {found} is more than is needed."


def check_3(answer):
    "A norm that looks at one token."
    x = torch.randn(2, 5, 8, generator=generator(0, 'transformer.3'))
    changed = x.clone()
    changed[:, -1] *= 10
    normed = answer(x)
    moved = (answer(changed) - normed).abs().amax((0, 2))
    assert moved[:-1].max() == 0, "The last token is ten times as long, and the earlier ones feel it."
    size = normed.square().mean(-1).sqrt()
    assert torch.allclose(size, torch.ones(2, 5), atol=1e-3), \
        "No token sees a later one, but a token's entries are not of size 1."
    direction = (normed * x).sum(-1) / (normed.norm(dim=-1) * x.norm(dim=-1))
    assert torch.allclose(direction, torch.ones(2, 5), atol=1e-4), \
        "The size is right, but a token points in another direction than before."


def check_4(answer):
    "Nats per token as bits per byte."
    log2 = math.log(2)
    cases = (
        (log2, 8, 'eight by', 1.0), (math.log(256), 3, 'the old mill', 2.0),
        (log2, 12, 'émigré', 1.5), (2.0, 2, '日本', 2 / 3 / log2))
    for nats, n_tokens, text, right in cases:
        found = answer(nats, n_tokens, text)
        assert found is not None, "Return a number."
        hint = f"{text!r}, {n_tokens} tokens at {nats:.2f} nats"
        assert math.isclose(found, right, rel_tol=1e-6), f"{hint}: {right:.2f} bits per byte, not {found:.2f}."
