"What `grade` asks of the answers to the exercises of the chapter `optim`."
import math

import torch


def check_1(answer):
    "Adam's first step."
    assert math.isclose(float(answer), 0.998, abs_tol=1e-4), "The step is lr times the sign of the gradient, whatever its size."


def check_2(answer):
    "A schedule of two straight lines."
    at = answer(2.0, 100, 10)
    for step, lr in ((0, 0.2), (9, 2.0), (10, 2.0), (28, 1.6), (55, 1.0), (100, 0.0)):
        assert math.isclose(at(step), lr, abs_tol=1e-6), f"lr 2, 100 steps, warm-up 10: at step {step} {lr}, not {at(step):.3f}."
    assert answer(1.0, 10, 0)(0) == 1.0, "Without warm-up it starts at the top."


def check_3(answer):
    "Clip without turning."
    given, params = (torch.tensor([3., 0]), torch.tensor([4.]), torch.tensor([0.])), [torch.zeros(n) for n in (2, 1, 1)]
    for limit, factor in ((1, 0.2), (2.5, 0.5), (7, 1)):
        for p, g in zip(params, given): p.grad = g.clone()
        answer(params, limit)
        for p, g in zip(params, given):
            assert torch.allclose(p.grad, factor * g, atol=1e-4), f"Limit {limit}: {g.tolist()} became {p.grad.tolist()}."


def check_4(answer):
    "Choose a learning rate."
    nan, inf = math.nan, math.inf
    for losses, best in (({0.1: 3, 0.3: 2, 1: 2.5}, 0.3), ({0.1: 3, 0.3: 2, 1: nan}, 0.3), ({0.03: 2, 0.1: inf, 0.3: nan}, None),
                         ({3: nan, 1: 2, 0.1: 4, 0.3: 3}, 1), ({0.1: 3, 0.3: 2, 1: 1.5}, None), ({0.1: nan, 1: nan}, None)):
        assert (found := answer(losses)) == best, f"{losses}: {best}, not {found}."
