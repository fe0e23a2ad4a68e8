"What `grade` asks of the answers to the exercises of the chapter `generate`."
import math

import torch
from torch import Tensor

from llmbook.model.generate import keep_top_p


def check_1(answer):
    "Top-p by hand."
    assert not math.isclose(float(answer), 0.5, abs_tol=1e-3), "Cut tokens lose their share: divide what is left anew."
    assert math.isclose(float(answer), 2/3, abs_tol=1e-3), "Which tokens are needed to reach 0.7?"


def check_2(answer):
    "Min-p."
    logits = torch.tensor([[8., 4, 2, 1], [1, 1, 1, 1]]).log()
    for p, left in ((0.5, [2, 4]), (0.2, [3, 4]), (0.01, [4, 4]), (1.0, [1, 4])):
        kept = answer(logits, p)
        assert isinstance(kept, Tensor), "Return the logits, with minus infinity where a token goes."
        found = kept.isfinite().sum(-1).tolist()
        assert found == left, f"min-p {p} leaves {left} tokens of the two rows, not {found}."
    assert torch.equal(answer(logits, 0.01), logits), "Logits that stay must not change."


def check_3(answer):
    "Top-p, repaired."
    rows = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    for p in (0.05, 0.5, 0.95):
        found, left = answer(rows, p), keep_top_p(rows, p)
        assert found.isfinite().any(-1).all(), f"For p={p} a row has no token left."
        assert torch.equal(found, left), f"For p={p} the kept tokens should reach p together, and be the fewest that do."


def check_4(answer):
    "How often the likeliest follower is right."
    found = answer('a b a b a c a b a c b a'.split())  # first half: a -> b twice, c once; b -> a
    assert found is not None, "Return a share."
    assert math.isclose(found, 3/5, abs_tol=1e-6), "Count in the first six words; of the last six's five pairs three are right."
    assert answer('x y p q'.split()) == 0, "A word that was never seen is never right."
