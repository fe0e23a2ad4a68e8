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
    "The loss of a yes as one operation: value and slope, for logits of any size."
    for v in (0.0, 1.5, -3.0, 1000.0, -1000.0):
        x = Scalar(v)
        y = _yes_loss(answer, x)
        a_scalar = hasattr(y, 'parents') and hasattr(y, 'backward')  # also of a notebook's own class
        assert a_scalar, "Return a Scalar, so that the walk can continue."
        only = len(y.parents) == 1 and y.parents[0] is x
        assert only, "One operation: its only parent is the Scalar that it gets."
        logits = torch.tensor([0.0, v], dtype=torch.float64, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(1))
        loss.backward()
        value, slope = loss.item(), logits.grad[1].item()
        right = math.isclose(y.value, value, rel_tol=1e-7, abs_tol=1e-9)
        assert right, f"At {v} the loss is {value:.3f}, not {y.value:.3f}."
        y.backward()
        right = math.isclose(x.grad, slope, rel_tol=1e-7, abs_tol=1e-9)
        assert right, f"At {v} the slope is {slope:.3f}, not {x.grad:.3f}."


def _yes_loss(answer, x):
    "The answer at one logit, with a hint in place of an error of arithmetic."
    try:
        return answer(x)
    except (OverflowError, ValueError, ZeroDivisionError) as error:
        hint = "Which exponentials stay small there?"
        raise AssertionError(f"At {x.value:.0f}: {error}. {hint}") from error


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
    assert right, f"{case}: the parameters should end at {goal}, not at {end}."
    right = torch.allclose(torch.tensor(losses), torch.tensor(expected), rtol=1e-5)
    assert right, f"{case}: the losses should be {expected}, not {losses}."


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
