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


# width, hidden, heads, key/value heads, multiple
_SHAPES = (
    (768, 2048, 12, 4, 64), (64, 172, 4, 1, 4), (4096, 11008, 32, 8, 256),
    (128, 344, 4, 4, 8), (128, 340, 4, 4, 8), (96, 100, 6, 2, 1))


def check_2(answer):
    "A feed-forward part that makes up for fewer key/value heads."
    for C, hidden, heads, kv_heads, multiple in _SHAPES:
        found = answer(C, hidden, heads, kv_heads, multiple)
        case = f"Width {C}, {hidden} inside, {kv_heads} of {heads} heads, multiples of {multiple}"
        assert isinstance(found, int), "Return a whole number."
        assert found > 0, f"{case}: {found} is no width."
        assert found % multiple == 0, f"{case}: {found} is not a multiple."
        wanted = _block_size(C, hidden, heads, heads)
        own = _block_size(C, found, heads, kv_heads)
        assert own >= wanted, f"{case}: with {found} the block has {own:,} weights, fewer than {wanted:,}."
        if found == multiple: continue
        smaller = _block_size(C, found - multiple, heads, kv_heads)
        assert smaller < wanted, f"{case}: {found} is more than is needed."


def check_3(answer):
    "A norm over the row so far."
    x = torch.randn(2, 5, 8, generator=generator(0, 'transformer.3'))
    x[:, 2] *= 3
    given = x.clone()
    normed = answer(x)
    assert torch.equal(x, given), "The stream that was given must not be changed."
    assert isinstance(normed, torch.Tensor) and normed.shape == x.shape, "Return a tensor of the shape of `x`."
    other_row = x.clone()
    other_row[1] *= 10
    moved = (answer(other_row) - normed).abs()
    assert moved[0].max() < 1e-6, "A row's result depends on another row."
    last_changed = x.clone()
    last_changed[:, -1] *= 10
    moved = (answer(last_changed) - normed).abs()
    assert moved[:, :-1].max() < 1e-6, "A token's result depends on something that it must not depend on."
    for t in range(5):
        so_far = x[:, :t + 1].flatten(1)
        size = so_far.square().mean(1, keepdim=True).sqrt()
        hint = f"Token {t} (counted from 0) is not divided by the root mean square of the {t + 1} so far."
        assert torch.allclose(normed[:, t], x[:, t] / size, atol=1e-3), hint


def check_4(answer):
    "What an untrained model pays per byte."
    cases = (
        (lambda text: list(text.encode()), 256, 'the old mill', 8.0),
        (str.split, 2**15, 'the old mill', 3.75),
        (list, 1024, 'émigré', 7.5),
        (lambda text: [3, 1], 8, '日本', 1.0))
    for encode, vocab_size, text, right in cases:
        found = answer(encode, vocab_size, text)
        assert found is not None, "Return a number."
        tokens = len(encode(text))
        hint = f"{text!r} as {tokens} tokens of {vocab_size:,}"
        assert math.isclose(found, right, rel_tol=1e-6), f"{hint}: {found:.2f} bits per byte is not what it pays."
