"What `grade` asks of the answers to the exercises of the chapter `perplexity`."
import math

import numpy as np

from llmbook.evaluation.perplexity import bits_per_byte, rate
from llmbook.model.ngram import Ngram
from llmbook.text.batches import sliding_windows


def check_1(answer):
    "Bits a byte from a perplexity."
    answer = float(answer)
    assert not math.isclose(answer, math.log2(32), abs_tol=0.01), "That is bits per token; a token has four bytes."
    assert not math.isclose(answer, math.log(32) / 4, abs_tol=0.01), "Those are nats; a bit is 0.69 of them."
    assert math.isclose(answer, 1.25, abs_tol=0.005), "Bits a token first: how many doublings make 32?"


def check_2(answer):
    "The paired difference, in standard errors."
    rng = np.random.default_rng(2)
    sizes = rng.integers(20, 200, 60)
    hard = sizes * rng.gamma(4, 0.5, 60)
    for gap in (0.05, -0.02, 0):
        a, b = hard + sizes * (gap + 0.1 * rng.standard_normal(60)), hard
        found, right = answer(a, b, sizes), rate(a - b, sizes)
        assert found is not None, "Return a number."
        assert found * right.mean > 0, "The sign is that of a - b."
        z = right.mean / right.error
        assert math.isclose(found, z, rel_tol=0.02), f"The difference is {z:.2f} paired errors from zero, not {found:.2f}."


def check_3(answer):
    "Windows in which each question counts once."
    for n, block, stride in ((10, 4, 2), (9, 4, 4), (3, 8, 4), (64, 16, 5), (17, 16, 1)):
        found = [tuple(w) for w in answer(n, block, stride)]
        case = f"{n} questions, windows of {block}, stride {stride}"
        asked = [q for start, end, first in found for q in range(first, end)]
        assert sorted(asked) == list(range(n)), f"{case}: counted are {asked[:12]}"
        assert all(end - start <= block and start <= first for start, end, first in found), f"{case}: a window is too long."
        assert found == sliding_windows(n, block, stride), f"{case}: {sliding_windows(n, block, stride)}, not {found}"


def check_4(answer):
    "Bits a byte of an n-gram over bytes."
    train, val = ['the mill and the lamp', 'é è é è'] * 3, ['the lamp', 'é and è']
    def ids(texts): return [[1, *(b + 8 for b in t.encode()), 2] for t in texts]
    for n in (1, 3):
        right = bits_per_byte(Ngram(n, 264).fit(ids(train)).nats(ids(val)), val).mean
        found = answer(train, val, n)
        assert found is not None, "Return a number."
        assert math.isclose(found, right, rel_tol=1e-6), f"n={n}: {right:.3f} bits per byte, not {found:.3f}."
