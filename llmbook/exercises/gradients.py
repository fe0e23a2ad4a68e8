"What `grade` asks of the answers to the exercises of the chapter `gradients`."
import math

import torch

from llmbook.model.gradients import Scalar, descend


def check_1(answer):
    "Two slopes by hand."
    a, b = answer
    assert not math.isclose(a, 5), "`a` is in both factors: add what comes along both ways."
    assert math.isclose(a, 7), "With respect to `a`: there are two ways from it to y. What comes along each?"
    assert math.isclose(b, 2), "With respect to `b`: only the second factor holds it. What is that multiplied by?"


def check_2(answer):
    "A sigmoid with its slope."
    for v in (-3.0, 0.0, 1.5):
        x = Scalar(v)
        y = answer(x)
        assert isinstance(y, Scalar), "Return a Scalar, so that the walk can continue."
        y.backward()
        s = 1 / (1 + math.exp(-v))
        slope = s * (1 - s)
        assert math.isclose(y.value, s), f"At {v} the value is {s:.3f}, not {y.value:.3f}."
        assert math.isclose(x.grad, slope), f"At {v} the slope is {slope:.3f}, not {x.grad:.3f}."


_TARGETS = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 5.0], [2.0, 2.0], [-4.0, 1.0], [6.0, 0.0]])


def _piece(w, part):
    "A function that returns the mean loss of some targets, and their number."
    def piece():
        squares = (w - part) ** 2
        return squares.sum(1).mean(), len(part)
    return piece


def _check_cut(answer, sizes, steps, case):
    "The targets in pieces of these sizes, against all of them at once."
    ours = torch.zeros(2, requires_grad=True)
    parts = _TARGETS.split(sizes)
    pieces = [_piece(ours, part) for part in parts]
    losses = answer(pieces, [ours], steps, 0.2)
    assert losses is not None, "Return the losses."
    theirs = torch.zeros(2, requires_grad=True)
    whole = _piece(theirs, _TARGETS)
    expected = descend(lambda: whole()[0], [theirs], steps, 0.2)
    end, goal = ours.tolist(), theirs.tolist()
    right = torch.allclose(ours, theirs, atol=1e-5)
    assert right, f"{case}: the whole text at once ends at {goal}, this at {end}."
    right = torch.allclose(torch.tensor(losses), torch.tensor(expected), rtol=1e-5)
    assert right, f"{case}: the losses of the whole text are {expected}, not {losses}."


def check_3(answer):
    "Pieces of a text, trained as the whole text would be."
    _check_cut(answer, [6], 1, "One piece, one step")
    _check_cut(answer, [6], 3, "One piece, three steps")
    _check_cut(answer, [3, 3], 1, "Two equal pieces, one step")
    _check_cut(answer, [1, 2, 3], 1, "Three uneven pieces, one step")
    _check_cut(answer, [1, 5], 3, "Two uneven pieces, three steps")


def check_4(answer):
    "The lowest loss of a table that sees the byte two places before."
    cases = {'abababab': 0, 'aabb': 0, 'abacabad': 1/3, 'abcabdabcabdab': 1/3, 'éé': 0}
    for text, bits in cases.items():
        found = answer(text)
        assert found is not None, "Return a number."
        right = math.isclose(found, bits, abs_tol=1e-6)
        assert right, f"{text!r}: {bits:.3f} bits for each byte after the second, not {found:.3f}."
