"What `grade` asks of the answers to the exercises of the chapter `attention`."
import math

import torch
from torch import Tensor

from llmbook.model.attention import attend, causal_mask


def check_1(answer):
    "The average by hand."
    assert math.isclose(float(answer), 5, abs_tol=0.01), "The exponentials are 1, 2 and 5; divide by their sum."


def check_2(answer):
    "A window of recent positions."
    mask = answer(6, 3)
    assert isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == (6, 6), "Return a (T,T) bool tensor."
    assert mask.diagonal().all(), "Every position sees itself."
    assert not mask.triu(1).any(), "A position sees a later one."
    expected = [[t - 3 < s <= t for s in range(6)] for t in range(6)]
    assert mask.tolist() == expected, "With window=3, position 5 sees 3, 4 and 5, and 1 sees 0 and 1."
    assert torch.equal(answer(5, 9), causal_mask(5)), "A window longer than the text is the causal mask."


def check_3(answer):
    "Attention of the newest positions."
    q, k, v = torch.randn(3, 2, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    whole = attend(q, k, v, causal_mask(8))
    for T in (8, 3, 1):
        difference = (answer(q[:, :, -T:], k, v) - whole[:, :, -T:]).abs().max()
        assert difference < 1e-5, f"With {T} queries and 8 keys the outputs are off by {difference:.2f}."


def check_4(answer):
    "The window that holds a share of the last mentions."
    words = 'a b a c c d b'.split()  # distances 2, 1, 5
    for share, window in ((0.3, 1), (0.6, 2), (0.9, 5), (1.0, 5)):
        found = answer(words, share)
        assert found == window, f"{' '.join(words)!r}, share {share}: the window is {window}, not {found}."
    assert answer(['once'], 0.9) == 0, "A text without a repeated word needs no window: 0."
