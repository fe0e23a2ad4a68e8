"Advantages and distances against their definitions, written again in plain Python and numpy, on random input."

import math

import numpy as np
import pytest
import torch

from llmbook.align.advantages import explained_variance, gae, whiten
from llmbook.align.kl import KLControl, kl_estimate


def answers(seed, N=7, T=11):
    "Rewards and values of answers of uneven lengths, with values, and rewards, in the padding too."
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (N,), generator=g)
    lengths[0], lengths[1] = T, 1
    asked = torch.arange(T) < lengths[:, None]
    rewards, values = torch.randn(2, N, T, generator=g, dtype=torch.float64)
    return rewards, values, asked


def double_sum(rewards, values, gamma, lam):
    "The definition: each surprise, times a weight for each token before it."
    T = len(rewards)
    surprises = [rewards[t] + (gamma * values[t + 1] if t + 1 < T else 0) - values[t] for t in range(T)]
    return [sum((gamma * lam)**(i - t) * surprises[i] for i in range(t, T)) for t in range(T)]


@pytest.mark.parametrize('gamma', (1., 0.9))
@pytest.mark.parametrize('lam', (0., 0.6, 0.95, 1.))
@pytest.mark.parametrize('shift', (0, 3))
def test_gae_is_the_double_sum(gamma, lam, shift):
    rewards, values, asked = (torch.nn.functional.pad(given, (shift, 0)) for given in answers(0)) # behind a prompt
    advantages, returns = gae(rewards, values, asked, gamma, lam)
    for row in range(len(values)):
        own = asked[row]
        right = double_sum(rewards[row, own].tolist(), values[row, own].tolist(), gamma, lam)
        right = torch.tensor(right, dtype=torch.float64)
        torch.testing.assert_close(advantages[row, own], right)
        torch.testing.assert_close(returns[row, own], right + values[row, own])
    assert not advantages[~asked].any() and not returns[~asked].any()


def test_gae_does_not_look_into_the_padding():
    rewards, values, asked = answers(1)
    found = gae(rewards, values, asked)
    junk = torch.where(asked, 0, 1e6).double()
    for other, same in zip(gae(rewards + junk, values - junk, asked), found): assert torch.equal(other, same)
    wider = gae(*(torch.nn.functional.pad(given, (0, 5)) for given in (rewards, values, asked)))
    for other, same in zip(wider, found): assert torch.equal(other[:, :asked.size(1)], same)


def test_gae_at_the_ends_of_the_scale():
    rewards, values, asked = answers(2)
    advantages, returns = gae(rewards, values, asked, 1., 1.)
    paid = (rewards * asked).flip(1).cumsum(1).flip(1) # from here on
    torch.testing.assert_close(advantages[asked], (paid - values)[asked])
    torch.testing.assert_close(returns[asked], paid[asked])
    after = torch.cat([(values * asked)[:, 1:], torch.zeros(len(values), 1)], 1)
    torch.testing.assert_close(gae(rewards, values, asked, 0.9, 0.)[0][asked], (rewards + 0.9*after - values)[asked])


def test_gae_leaves_its_input_alone():
    given = answers(3)
    kept = [each.clone() for each in given]
    gae(*given)
    for each, same in zip(given, kept): assert torch.equal(each, same)


def test_whiten():
    values, _, asked = answers(4)
    kept = values[asked].numpy()
    right = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-8)
    np.testing.assert_allclose(whiten(values, asked)[asked].numpy(), right)
    np.testing.assert_allclose(whiten(values, asked, center=False)[asked].numpy(), right + kept.mean())
    for center in (True, False): assert not whiten(values, asked, center)[~asked].any()
    junk = torch.where(asked, 0, 1e6).double()
    assert torch.equal(whiten(values + junk, asked), whiten(values, asked))
    alike = whiten(torch.full((2, 3), 5.), torch.ones(2, 3, dtype=torch.bool))
    assert alike.abs().max() < 1e-3 # no division by zero


def test_explained_variance():
    g = np.random.default_rng(0)
    values, returns = g.normal(size=(2, 40))
    right = 1 - np.var(returns - values) / np.var(returns)
    assert math.isclose(explained_variance(torch.tensor(values), torch.tensor(returns)), right)
    returns = torch.tensor(returns)
    for guess, score in ((returns, 1), (returns + 3, 1), (torch.full_like(returns, 2.), 0), (-returns, -3), (2*returns, 0)):
        assert math.isclose(explained_variance(guess, returns), score, abs_tol=1e-9)
    assert math.isfinite(explained_variance(torch.tensor([1., 2.]), torch.tensor([3., 3.])))


def pair(seed, size=1., V=40):
    "Log-probabilities of a policy and of a reference."
    g = torch.Generator().manual_seed(seed)
    ref = torch.randn(V, generator=g, dtype=torch.float64)
    return (ref + size * torch.randn(V, generator=g, dtype=torch.float64)).log_softmax(0), ref.log_softmax(0)


@pytest.mark.parametrize('size', (0.01, 0.3, 1., 3.))
def test_estimators_by_their_formulas(size):
    log_p, log_q = pair(0, size)
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    formulas = {'k1': np.log(p / q), 'k2': np.log(p / q)**2 / 2, 'k3': q/p - 1 - np.log(q / p)}
    for kind, right in formulas.items():
        np.testing.assert_allclose(kl_estimate(log_p - log_q, kind).numpy(), right, rtol=1e-9, atol=1e-12)
    true = (p * np.log(p / q)).sum()
    for kind in ('k1', 'k3'):
        assert math.isclose((log_p.exp() * kl_estimate(log_p - log_q, kind)).sum().item(), true, rel_tol=1e-9)


def test_k3_is_never_negative_in_32_bits():
    x = torch.logspace(-12, 1, 200_000)
    for ratios in (x, -x):
        found = kl_estimate(ratios, 'k3')
        assert (found >= 0).all()
        large = x > 1e-3
        right = (torch.expm1(-ratios.double()) + ratios.double())[large]
        torch.testing.assert_close(found[large].double(), right, rtol=2e-3, atol=0)
    assert (kl_estimate(torch.zeros(3), 'k3') == 0).all()


def test_what_the_estimators_pull_at():
    "As a loss k1 has no gradient, k2 that of the divergence, k3 that of the divergence the other way round."
    log_p, log_q = pair(1)
    scores = log_p.clone().requires_grad_()
    def pull(loss): return torch.autograd.grad(loss(scores.log_softmax(0)), scores)[0]
    def as_loss(kind): return pull(lambda log_p: (log_p.detach().exp() * kl_estimate(log_p - log_q, kind)).sum())
    p, q = log_p.exp(), log_q.exp()
    divergence = (p * (log_p - log_q)).sum()
    torch.testing.assert_close(as_loss('k1'), torch.zeros_like(p), atol=1e-12, rtol=0)
    torch.testing.assert_close(as_loss('k2'), p * (log_p - log_q - divergence)) # worked out on paper
    torch.testing.assert_close(as_loss('k3'), p - q)


@pytest.mark.parametrize('kl, factor', ((6., 1.), (6.6, 1.01), (5.4, 0.99), (7.2, 1.02), (60., 1.02), (0., 0.98), (-5., 0.98)))
def test_controller(kl, factor):
    control = KLControl(0.3, 6.)
    control.update(kl)
    assert math.isclose(control.beta, 0.3 * factor)


def test_controller_without_a_target_and_with_a_gain():
    control = KLControl(0.3)
    control.update(100.)
    assert control.beta == 0.3
    control = KLControl(0.3, 6., gain=0.5)
    for _ in range(3): control.update(60.)
    assert math.isclose(control.beta, 0.3 * 1.1**3)
