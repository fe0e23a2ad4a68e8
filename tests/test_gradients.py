"Scalar against torch.autograd and against nudges; descend against torch.optim.SGD."

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from llmbook.model.gradients import Node, Scalar, _history, descend, numeric_gradient

UNARY = [lambda x: (x * 0.1).exp(), lambda x: (x * x + 1).log(), lambda x: x.tanh(), lambda x: x.relu(), lambda x: -x,
         lambda x: (x * 0.5) ** 3, lambda x: (x * x + 2) ** -1.5, lambda x: 1 / (x * x + 2), lambda x: 3 - x,
         lambda x: 2 * x + 1, lambda x: x / 4]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a.tanh() * b, lambda a, b: a / (b * b + 1)]
STEPS = st.lists(st.tuples(st.integers(0, len(UNARY) + len(BINARY) - 1), st.integers(0, 99), st.integers(0, 99)),
                 min_size=1, max_size=25)


def formula(steps, leaves):
    made = list(leaves)
    for f, i, j in steps:
        a, b = made[i % len(made)], made[j % len(made)]
        made.append(UNARY[f](a) if f < len(UNARY) else BINARY[f - len(UNARY)](a, b))
    return sum(made[1:], made[0])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(STEPS, st.lists(st.floats(-2, 2).filter(lambda v: abs(v) > 1e-6), min_size=3, max_size=3))
def test_scalar_equals_autograd(steps, values):
    ours = [Scalar(v) for v in values]
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    y, z = formula(steps, ours), formula(steps, theirs)
    assert math.isclose(y.value, z.item(), rel_tol=1e-12, abs_tol=1e-12)
    y.backward()
    z.backward()
    for a, b in zip(ours, theirs): assert math.isclose(a.grad, b.grad.item(), rel_tol=1e-10, abs_tol=1e-10)


@pytest.mark.parametrize('f,v,slope', [
    (lambda x: x + 2, 3.0, 1), (lambda x: 2 + x, 3.0, 1), (lambda x: x - 2, 3.0, 1), (lambda x: 2 - x, 3.0, -1),
    (lambda x: x * 2, 3.0, 2), (lambda x: x / 2, 3.0, 0.5), (lambda x: 2 / x, 4.0, -1 / 8), (lambda x: x ** 3, 2.0, 12),
    (lambda x: x ** 0, 2.0, 0), (lambda x: x.exp(), 0.0, 1), (lambda x: x.log(), 4.0, 0.25), (lambda x: x.tanh(), 0.0, 1),
    (lambda x: x.relu(), 2.0, 1), (lambda x: x.relu(), -2.0, 0), (lambda x: x.relu(), 0.0, 0), (lambda x: -x, 1.0, -1),
    (lambda x: x * x + x, 3.0, 7), (lambda x: x - x, 3.0, 0), (lambda x: x, 3.0, 1)])
def test_slopes_known_by_heart(f, v, slope):
    x = Scalar(v)
    f(x).backward()
    assert math.isclose(x.grad, slope, abs_tol=1e-12)


def test_gradients_add_over_walks():
    x = Scalar(2.0)
    y = (x * x).tanh() * x
    y.backward()
    once = x.grad
    y.backward()
    assert math.isclose(x.grad, 2 * once)
    (x * 10).backward()
    assert math.isclose(x.grad, 2 * once + 10)


def test_a_shared_node_is_walked_once_and_in_order():
    x, y = Scalar(1.0), None
    y = x
    for _ in range(60): y = y + y  # 2**60 ways through 61 nodes
    y.backward()
    assert x.grad == 2.0 ** 60 and len(_history(y)) == 61
    order = _history(y)
    assert all(order.index(p) < order.index(n) for n in order for p in n.parents)


def test_a_deep_graph_does_not_overflow_the_stack():
    x = Scalar(0.0)
    y = x
    for _ in range(20_000): y = y + 1.0
    y.backward()
    assert y.value == 20_000 and x.grad == 1.0


def test_node_with_slopes_by_hand():
    a, b = Node(2.0), Node(5.0)
    c = Node(10.0, (a, b), (5.0, 2.0))
    c.backward()
    assert (a.grad, b.grad, c.grad) == (5.0, 2.0, 1.0) and repr(a) == 'Node(2, grad=5)'


def test_softmax_and_cross_entropy_have_slope_p_minus_y():
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = logits.softmax(0) - F.one_hot(torch.tensor(4), 7)
    z = [Scalar(v) for v in logits.tolist()]
    (sum((v.exp() for v in z), Scalar(0.0)).log() - z[4]).backward()
    torch.testing.assert_close(torch.tensor([v.grad for v in z], dtype=torch.float64), want, atol=1e-12, rtol=0)
    torch.testing.assert_close(numeric_gradient(lambda t: F.cross_entropy(t, torch.tensor(4)), logits), want, atol=1e-9, rtol=0)


def test_numeric_gradient_equals_autograd_and_leaves_x_alone():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    before, f = x.detach().clone(), lambda t: (t.sin() * t.cumsum(1)).sum()
    grad, = torch.autograd.grad(f(x), x)
    torch.testing.assert_close(numeric_gradient(f, x.detach()), grad, atol=1e-8, rtol=0)
    turned = numeric_gradient(lambda t: f(t.T), x.detach().T)  # not contiguous
    torch.testing.assert_close(turned, grad.T, atol=1e-8, rtol=0)
    assert torch.equal(x.detach(), before)


def test_descend_equals_torchs_sgd():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, generator=g), torch.randn(20, generator=g)
    start = torch.randn(4, generator=g), torch.zeros(1)
    ours, theirs = [[p.clone().requires_grad_() for p in start] for _ in range(2)]
    def loss(params): return (x @ params[0] + params[1] - y).tanh().square().mean()
    losses, optimiser = descend(lambda: loss(ours), iter(ours), 30, 0.3), torch.optim.SGD(theirs, lr=0.3)
    for step in range(30):
        value = loss(theirs)
        assert math.isclose(losses[step], value.item(), rel_tol=1e-6)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    for a, b in zip(ours, theirs): torch.testing.assert_close(a, b)
    assert losses[-1] < losses[0] and all(p.grad is None for p in ours)
