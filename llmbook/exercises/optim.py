"What `grade` asks of the answers to the exercises of the chapter `optim`."
import math

import torch

_TWO_LINES = {0: 0.2, 9: 2.0, 10: 2.0, 28: 1.6, 55: 1.0, 100: 0.0}  # step: learning rate
_SWEEPS = (  # losses by learning rate, and which to choose
    ({0.1: 3, 0.3: 2, 1: 2.5}, 0.3),
    ({0.1: 3, 0.3: 2, 1: math.nan}, 0.3),
    ({0.03: 2, 0.1: math.inf, 0.3: math.nan}, None),
    ({3: math.nan, 1: 2, 0.1: 4, 0.3: 3}, 1),
    ({0.1: 3, 0.3: 2, 1: 1.5}, None),
    ({0.1: math.nan, 1: math.nan}, None),
)


def check_1(answer):
    "Adam's first two steps."
    hint = "Work out both memories after each gradient, and divide each by the total weight given so far."
    assert math.isclose(float(answer), 0.90526, abs_tol=5e-4), hint


def check_2(answer):
    "A schedule of two straight lines."
    at = answer(2.0, 100, 10)
    for step, lr in _TWO_LINES.items():
        problem = f"lr 2, 100 steps, warm-up 10: at step {step} {lr}, not {at(step):.3f}."
        assert math.isclose(at(step), lr, abs_tol=1e-6), problem
    assert math.isclose(answer(1.0, 10, 0)(0), 1.0, abs_tol=1e-6), "Without warm-up it starts at the top."


def check_3(answer):
    "A loop that follows a schedule."
    generator = torch.Generator().manual_seed(3)
    start, *gradients = torch.randn(7, 5, generator=generator)
    rates = [0.1, 0.05, 0.2, 0.02, 0.1, 0.3]
    for n in range(1, len(gradients) + 1):
        w, right = start.clone(), start.clone()
        answer(w, [g.clone() for g in gradients[:n]], rates.__getitem__)
        _follow(right, gradients[:n], rates)
        off = (w - right).abs().max().item()
        assert off < 1e-4, f"After {n} of {len(gradients)} gradients a weight is off by {off:.3f}."


def _follow(w, gradients, rates):
    "Move `w` in place, by torch's AdamW."
    optimizer = torch.optim.AdamW([w], betas=(0.9, 0.95), weight_decay=0.1)
    for g, lr in zip(gradients, rates):
        optimizer.param_groups[0]['lr'] = lr
        w.grad = g
        optimizer.step()


def check_4(answer):
    "Choose a learning rate."
    for losses, best in _SWEEPS:
        rate = answer(losses)
        assert rate == best, f"{losses}: {best}, not {rate}."
