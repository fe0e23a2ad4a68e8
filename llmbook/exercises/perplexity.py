"What `grade` asks of the answers to the exercises of the chapter `perplexity`."
import math

import numpy as np

from llmbook.evaluation.perplexity import bits_per_byte
from llmbook.model.ngram import Ngram
from llmbook.text.batches import sliding_windows


def near(answer, value, tolerance):
    "Is the answer this number, about?"
    return math.isclose(float(answer), value, abs_tol=tolerance)


def check_1(answer):
    "A perplexity by way of bits per byte."
    assert not near(answer, 1.25, 0.01), "That is bits per byte, which both models pay."
    assert not near(answer, 40, 0.5), "Bits grow in proportion to bytes; a perplexity does not."
    right = 2**6.25
    assert near(answer, right, right/100), "How many bits does A pay per token, per byte, and B per token?"


NAMES = ('ash', 'oak', 'elm')


def race(gaps, noises):
    "Costs of three models on 60 documents that all of them find hard or easy alike; both are in nats per token."
    rng = np.random.default_rng(2)
    sizes = rng.integers(20, 200, 60)
    hard = sizes * rng.gamma(4, 0.5, 60)
    costs = {}
    for name, gap, noise in zip(NAMES, gaps, noises):
        costs[name] = hard + sizes*(gap + noise*rng.standard_normal(60))
    return costs, sizes


def long_and_short():
    "Oak is better on twenty long documents, ash on forty short ones."
    sizes = np.repeat([400, 10], [20, 40])
    ash = sizes * np.repeat([1.1, 0.7], [20, 40])
    return {'ash': ash, 'oak': sizes*1., 'elm': sizes*2.}, sizes


RACES = ( # gaps, noises; the winner
    ((0.1, 0, 0.1), (0.02, 0.02, 0.02), 'oak'),
    ((0, 0.08, 0.001), (0.05, 0.05, 0.05), None),
    ((0.3, 0.2, 0), (0.1, 0.1, 0.1), 'elm'),
    ((0, 0, 0), (0.1, 0.1, 0.1), None),
    ((0, 0.1, 0.6), (0.02, 0.02, 2), None),
    ((0, 0.012, 0.1), (0.05, 0.05, 0.05), None),
)


def check_2(answer):
    "The winner, if the paired differences are clear."
    cases = [('twenty long documents and forty short ones', *long_and_short(), 'oak')]
    for gaps, noises, right in RACES:
        case = f"gaps of {gaps} nats per token, noise {noises}"
        cases.append((case, *race(gaps, noises), right))
    for case, costs, sizes, right in cases:
        before = {name: cost.copy() for name, cost in costs.items()}
        found = answer(costs, sizes)
        kept = all((costs[name] == before[name]).all() for name in before)
        assert kept, "The costs that were handed in have changed."
        assert found == right, f"{case}: {right!r} is right, not {found!r}."


WINDOWS = ((10, 4, 2), (9, 4, 4), (3, 8, 4), (64, 16, 5), (17, 16, 1)) # questions, window, stride


def check_3(answer):
    "Windows in which each question counts once."
    for n, block, stride in WINDOWS:
        case = f"{n} questions, windows of {block}, stride {stride}"
        found = [tuple(window) for window in answer(n, block, stride)]
        asked = []
        for _, end, first in found: asked += range(first, end)
        assert sorted(asked) == list(range(n)), f"{case}: counted are {asked[:12]}"
        for start, end, first in found:
            assert end - start <= block, f"{case}: a window is too long."
            assert start <= first, f"{case}: a question is counted outside its window."
        right = sliding_windows(n, block, stride)
        assert found == right, f"{case}: {right}, not {found}"


def byte_ids(texts):
    "Texts as bytes, each eight higher, between begin and end."
    documents = []
    for text in texts:
        shifted = [byte + 8 for byte in text.encode()]
        documents.append([1, *shifted, 2])
    return documents


def check_4(answer):
    "Bits per byte of an n-gram over bytes."
    train = ['the mill and the lamp', 'é è é è'] * 3
    val = ['the lamp', 'é and è']
    for n in (1, 3):
        counted = Ngram(n, 280).fit(byte_ids(train))
        right = bits_per_byte(counted.nats(byte_ids(val)), val).mean
        found = answer(train, val, n)
        assert found is not None, "Return a number."
        same = math.isclose(found, right, rel_tol=1e-6)
        assert same, f"n={n}: {right:.3f} bits per byte, not {found:.3f}."
