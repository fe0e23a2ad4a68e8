"What `grade` asks of the answers to the exercises of the chapter `gradients`."
import math

import torch

from llmbook.model.gradients import Scalar


def check_1(answer):
    "Two slopes by hand."
    a, b = answer
    assert not math.isclose(a, 5), "`a` is in both factors: add what comes along both ways."
    assert math.isclose(a, 7), "By `a`: along the first factor the slope is a + b, along the second it is a."
    assert math.isclose(b, 2), "By `b`: only the second factor holds it, and that is multiplied by a."


def check_2(answer):
    "A sigmoid with its slope."
    for v in (-3.0, 0.0, 1.5):
        x = Scalar(v)
        y = answer(x)
        assert isinstance(y, Scalar), "Return a Scalar, so that the walk can continue."
        y.backward()
        s = 1 / (1 + math.exp(-v))
        assert math.isclose(y.value, s), f"At {v} the value is {s:.3f}, not {y.value:.3f}."
        assert math.isclose(x.grad, s * (1 - s)), f"At {v} the slope is {s * (1 - s):.3f}, not {x.grad:.3f}."


def check_3(answer):
    "A loop that forgets nothing it needs, and nothing more."
    w = torch.tensor([3.0, -2.0], requires_grad=True)
    losses = answer(lambda: (w ** 2).sum(), [w], 3, 0.25)
    assert losses is not None, "Return the losses."
    right = [3 * 0.5 ** 3, -2 * 0.5 ** 3]
    assert torch.allclose(w.detach(), torch.tensor(right)), f"Three halvings end at {right}, not at {w.tolist()}."
    assert losses == [13.0, 3.25, 0.8125], f"The losses before each step are 13, 3.25 and 0.8125, not {losses}."


def check_4(answer):
    "The best table's loss on a text."
    for text, right in (('abababab', 0.0), ('aabbaabba', 1.0), ('abacabaca', 0.5), ('éé', 0.0)):
        found = answer(text)
        assert found is not None, "Return a number."
        assert math.isclose(found, right, abs_tol=1e-6), f"{text!r}: {right} bits per byte after the first, not {found:.3f}."
