"What `grade` asks of the answers to the exercises of the chapter `generate`."
import math

import torch
from torch import Tensor

from llmbook.core import generator
from llmbook.model.generate import KVCache
from llmbook.model.transformer import Config, Transformer


def check_1(answer):
    "Top-p by hand."
    p = float(answer)
    whole = math.isclose(p, 0.5, abs_tol=1e-3)
    assert not whole, "Cut tokens lose their share: divide what is left anew."
    right = math.isclose(p, 2/3, abs_tol=1e-3)
    assert right, "Which tokens are needed to reach 0.7?"


def check_2(answer):
    "Min-p."
    logits = torch.tensor([[8., 4, 2, 1], [1, 1, 1, 1]]).log()
    for p, left in ((0.5, [2, 4]), (0.2, [3, 4]), (0.01, [4, 4]), (1.0, [1, 4])):
        kept = answer(logits, p)
        assert isinstance(kept, Tensor), "Return the logits, with minus infinity where a token goes."
        finite = kept.isfinite()
        found = finite.sum(-1).tolist()
        hint = f"min-p {p} leaves {left} tokens of the two rows, not {found}."
        assert found == left, hint
    kept = answer(logits, 0.01)
    same = torch.equal(kept, logits)
    assert same, "Logits that stay must not change."


@torch.no_grad()
def _rewritten(model, text, take_back, n):
    "The logits of new tokens after the last n of a text were taken back, and what they should be."
    new = torch.tensor([[4, 8, 15]])
    cache = [KVCache() for _ in model.blocks]
    model(text, cache=cache)
    take_back(cache, n)
    ours = model(new, cache=cache)
    T = text.size(1)
    kept = text[:, :T - n]
    rewritten = torch.cat([kept, new], 1)
    whole = model(rewritten)
    return ours, whole[:, -3:]


def check_3(answer):
    "A cache that forgets the last positions."
    shape = dict(n_layer=2, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
    config = Config(vocab_size=20, block_size=200, **shape)
    model = Transformer(config, seed=0)
    for p in model.parameters():
        p.data.mul_(3)  # so that the logits are not all alike
    for T, n in ((10, 3), (10, 0), (10, 9), (130, 40)):
        rng = generator(0, 'text', T)
        text = torch.randint(20, (1, T), generator=rng)
        ours, theirs = _rewritten(model, text, answer, n)
        off = (ours - theirs).abs().max()
        hint = f"{n} of {T} tokens taken back: the next logits are off by {off:.2f}."
        assert off < 1e-4, hint


def check_4(answer):
    "How often the likeliest follower is right."
    words = 'a b a b a c a b a c b a'.split()  # first half: a -> b twice, c once; b -> a
    found = answer(words)
    assert found is not None, "Return a share."
    right = math.isclose(found, 3/5, abs_tol=1e-6)
    assert right, "Count in the first six words; of the last six's five pairs three are right."
    unseen = answer('x y p q'.split())
    assert unseen == 0, "A word that was never seen is never right."
