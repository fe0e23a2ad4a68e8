"What `grade` asks of the answers to the exercises of the chapter `lora`."
import math

import torch

from llmbook.core import generator


def check_1(answer):
    "Gigabytes of training a model of 70 billion weights with adapters."
    found = float(answer)
    def near(right): return math.isclose(found, right, rel_tol=0.005)
    assert not near(140.8), "That is without the gradients and averages of the adapters."
    assert not near(1120), "That is full fine-tuning."
    assert not near(283.2), "Two bytes per frozen weight: it is in bf16."
    assert near(143.2), "Frozen weights have two bytes each. What does a trained number have?"


def _random(draws, *size): return torch.randn(size, generator=draws)


def check_2(answer):
    "One adapter in place of two."
    draws = generator(0, 'lora.2')
    for rows, columns, first, second in ((5, 7, 2, 3), (4, 4, 1, 1)):
        a, b = _random(draws, first, columns), _random(draws, rows, first)
        c, d = _random(draws, second, columns), _random(draws, rows, second)
        found = answer((a, b, 2.0), (c, d, 0.5))
        assert found is not None and len(found) == 2, "Return (A, B)."
        A, B = found
        right = 2.0*b@a + 0.5*d@c
        assert A.size(0) == B.size(1), f"A has {A.size(0)} rows and B {B.size(1)} columns."
        assert A.size(0) <= first + second, f"Rank {A.size(0)} is more than the two need."
        assert (B@A).shape == right.shape, f"B A is {tuple((B@A).shape)}, not {tuple(right.shape)}."
        close = torch.allclose(B@A, right, atol=1e-4)
        assert close, f"B A is off by {(B@A - right).abs().max():.2g}; mind the factors."


def check_3(answer):
    "An adapter from a model that was fully fine-tuned."
    draws = generator(0, 'lora.3')
    W = _random(draws, 12, 8)
    for rank, more in ((2, 0.0), (3, 0.05)):
        change = _random(draws, 12, rank) @ _random(draws, rank, 8) + more*_random(draws, 12, 8)
        found = answer(W, W + change, rank)
        assert found is not None and len(found) == 2, "Return (A, B)."
        A, B = found
        shapes = tuple(A.shape), tuple(B.shape)
        assert shapes == ((rank, 8), (12, rank)), (
            f"A and B are {shapes}, not {((rank, 8), (12, rank))}.")
        best = torch.linalg.svdvals(change)[rank:].square().sum().sqrt()
        error = (B@A - change).norm()
        assert error <= best*1.01 + 1e-3, (
            f"B A misses the change by {error:.3f}; {best:.3f} is possible.")


def check_4(answer):
    "Bits per weight, with fewer values and smaller blocks."
    found = float(answer)
    assert not math.isclose(found, 4), "The absmax has 16 bits, and 32 weights share it."
    assert not math.isclose(found, 4.5), "How many bits does it take to name one of eight values?"
    assert not math.isclose(found, 3), "Each block keeps its absmax too."
    assert math.isclose(found, 3.5), "The bits of a code, and a 32nd of those of an absmax."


def check_5(answer):
    "The alpha of plain LoRA that stands in for one of rsLoRA."
    found = float(answer)
    assert not math.isclose(found, 16), (
        "The same alpha, divided by 16 and no longer by its root, is another factor.")
    assert not math.isclose(found, 4), "That is the factor; which alpha gives it?"
    assert math.isclose(found, 64), "Which factor did it have, and which alpha gives the same one?"
