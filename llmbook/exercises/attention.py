"What `grade` asks of the answers to the exercises of the chapter `attention`."
import math

import torch
from torch import Tensor

from llmbook.model.attention import attend, causal_mask, rotary_angles, rotate


def check_1(answer):
    "The average by hand."
    received = float(answer)
    assert received < 99, "The fourth key is in the future."
    right = math.isclose(received, 17, abs_tol=0.01)
    assert right, "What do the zeros change in q · k, and what in the number it is divided by?"


def check_2(answer):
    "Prompts that are padded on the left."
    lengths = torch.tensor([5, 3, 1])
    mask = answer(lengths, 5)
    good = isinstance(mask, Tensor) and mask.dtype == torch.bool
    assert good, "Return a bool tensor."
    shape = tuple(mask.shape)
    hint = f"The shape is (B,1,T,T), here (3,1,5,5), not {shape}."
    assert shape == (3, 1, 5, 5), hint
    full, some, one = mask[:, 0]
    assert some.diagonal().all(), "Every position sees itself, padding too."
    assert not mask.triu(1).any(), "A position sees a later one."
    assert full.all(0)[0] and full.sum() == 15, "A prompt without padding has the causal mask."
    assert not some[2:, :2].any(), "Length 3 of 5: a real token sees padding."
    seen = [[0], [1], [2], [2, 3], [2, 3, 4]]
    for t, row in enumerate(some):
        found = row.nonzero().flatten().tolist()
        hint = f"Length 3 of 5: position {t} should see {seen[t]}, not {found}."
        assert found == seen[t], hint
    assert one.sum() == 5, "Length 1 of 5: nobody sees anybody else."


def _whole_pass(q, k, v):
    "Head by head, over the whole text."
    cos, sin = rotary_angles(torch.arange(8), 4)
    q = rotate(q, cos, sin)
    k = rotate(k, cos, sin)
    n = q.size(1) // k.size(1)
    outputs = []
    for h, head in enumerate(q.split(1, dim=1)):
        g = h // n
        keys = k.narrow(1, g, 1)
        values = v.narrow(1, g, 1)
        out = attend(head, keys, values, causal_mask(8))
        outputs.append(out)
    return torch.cat(outputs, 1)


def check_3(answer):
    "The newest positions of a grouped, rotary head."
    rng = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 8, 4, generator=rng)
    for G, T in ((4, 8), (4, 3), (4, 1), (2, 8), (2, 3), (1, 3)):
        k, v = torch.randn(2, 2, G, 8, 4, generator=rng)
        newest = q[:, :, -T:]
        expected = _whole_pass(q, k, v)[:, :, -T:]
        found = answer(newest, k, v)
        difference = (found - expected).abs().max()
        case = f"{T} queries and 8 keys, 4 query heads and {G} key heads"
        hint = f"{case}: the outputs are off by {difference:.2f}."
        assert difference < 1e-5, hint


def check_4(answer):
    "The window that holds a share of the last mentions."
    words = 'a b a c c d b'.split()  # distances 2, 1, 5
    for share, window in ((0.3, 1), (0.6, 2), (0.9, 5), (1.0, 5)):
        found = answer(words, share)
        hint = f"'a b a c c d b', share {share}: the window is {window}, not {found}."
        assert found == window, hint
    words = ['x-y', 'z', 'x', 'x-y']
    found = answer(words, 1)
    hint = f"{words}, share 1: the window is 3, not {found}."
    assert found == 3, hint
    found = answer(['once'], 0.9)
    assert found == 0, "A text without a repeated word needs no window: 0."
