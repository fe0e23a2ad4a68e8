"What `grade` asks of the answers to the exercises of the chapter `perplexity`."
import math

import numpy as np

from llmbook.evaluation.perplexity import bits_per_byte
from llmbook.model.ngram import Ngram
from llmbook.text.batches import sliding_windows


def check_1(answer):
    "A perplexity by way of bits per byte."
    answer = float(answer)
    assert not math.isclose(answer, 1.25, abs_tol=0.01), "That is bits per byte, which both models pay."
    assert not math.isclose(answer, 40, abs_tol=0.5), "Bits grow in proportion to bytes; a perplexity does not."
    assert math.isclose(answer, 2**6.25, rel_tol=0.01), "How many bits does A pay per token, per byte, and B per token?"


def race(gaps, noise):
    "Costs of three models on 60 documents that all of them find hard or easy alike; `gaps` is in nats per token."
    rng = np.random.default_rng(2)
    sizes = rng.integers(20, 200, 60)
    hard = sizes * rng.gamma(4, 0.5, 60)
    names = ('ash', 'oak', 'elm')
    return {name: hard + sizes*(gap + noise*rng.standard_normal(60)) for name, gap in zip(names, gaps)}, sizes


def check_2(answer):
    "The winner, if the paired differences are clear."
    cases = (((0.1, 0, 0.1), 0.02, 'oak'), ((0, 0.08, 0.001), 0.05, None), ((0.3, 0.2, 0), 0.1, 'elm'), ((0, 0, 0), 0.1, None))
    for gaps, noise, right in cases:
        costs, sizes = race(gaps, noise)
        before = {name: cost.copy() for name, cost in costs.items()}
        found = answer(costs, sizes)
        assert all((costs[name] == before[name]).all() for name in before), "The costs that were handed in have changed."
        case = f"gaps of {gaps} nats per token, noise {noise}"
        assert found == right, f"{case}: {right!r} is right, not {found!r}."


def check_3(answer):
    "Windows in which each question counts once."
    for n, block, stride in ((10, 4, 2), (9, 4, 4), (3, 8, 4), (64, 16, 5), (17, 16, 1)):
        found = [tuple(w) for w in answer(n, block, stride)]
        right = sliding_windows(n, block, stride)
        case = f"{n} questions, windows of {block}, stride {stride}"
        asked = [q for _, end, first in found for q in range(first, end)]
        assert sorted(asked) == list(range(n)), f"{case}: counted are {asked[:12]}"
        for start, end, first in found:
            assert end - start <= block, f"{case}: a window is too long."
            assert start <= first, f"{case}: a question is counted outside its window."
        assert found == right, f"{case}: {right}, not {found}"


def check_4(answer):
    "Bits per byte of an n-gram over bytes."
    train, val = ['the mill and the lamp', 'é è é è'] * 3, ['the lamp', 'é and è']
    def ids(texts): return [[1, *(b + 8 for b in t.encode()), 2] for t in texts]
    for n in (1, 3):
        nats = Ngram(n, 264).fit(ids(train)).nats(ids(val))
        right = bits_per_byte(nats, val).mean
        found = answer(train, val, n)
        assert found is not None, "Return a number."
        assert math.isclose(found, right, rel_tol=1e-6), f"n={n}: {right:.3f} bits per byte, not {found:.3f}."
