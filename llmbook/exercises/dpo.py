"What `grade` asks of the answers to the exercises of the chapter `dpo`."
import math

import torch


def check_1(answer):
    "The best policy over three answers."
    answer = float(answer)
    assert abs(answer - 0.665) > 0.02, "Its share of e^r alone: the reference counts as well."
    assert abs(answer - 0.2) > 0.01, "That is the reference."
    assert abs(answer - 0.529) < 0.006, (
        "Multiply each probability of the reference by e^(r / beta), then divide by their sum.")


def _best(ref, rewards, beta):
    "The policy that is best for these rewards."
    weights = ref * (rewards / beta).exp()
    return weights / weights.sum()


def check_2(answer):
    "The strength of the tie, from the best policy."
    def found(policy, ref, rewards):
        beta = answer(policy.clone(), ref.clone(), rewards.clone())
        assert beta is not None, "Return beta."
        beta = torch.as_tensor(beta, dtype=torch.float32)
        assert beta.numel() == 1, f"One number, not a tensor of shape {tuple(beta.shape)}."
        return beta.item()
    hand = torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2]), torch.tensor([0., 1.])
    beta = found(*hand)
    more = found(*hand[:2], hand[2] + 3)
    assert math.isclose(beta, more, rel_tol=1e-3), (
        "Three more points for every answer change your beta, but they do not change the best policy.")
    assert math.isclose(beta, 1 / math.log(4), rel_tol=1e-3), (
        "Wrong for the example by hand and a policy that says A and B equally often: "
        f"with your {beta:.3f} another policy is best.")
    g = torch.Generator().manual_seed(0)
    for k, true in ((3, 0.1), (4, 0.5), (5, 2.)):
        ref = torch.rand(k, generator=g).softmax(0)
        rewards = torch.rand(k, generator=g)
        rewards[1] = rewards[0]
        policy = _best(ref, rewards, true)
        beta = found(policy, ref, rewards)
        assert math.isfinite(beta), "Some answers have equal rewards: what do they say about beta?"
        assert math.isclose(beta, true, rel_tol=1e-2), (
            f"Wrong for {k} answers, of which two have equal rewards.")


def check_3(answer):
    "Which losses see the prompt."
    names = {str(name).lower() for name in answer}
    known = {'dpo', 'ipo', 'kto', 'orpo', 'simpo'}
    assert names <= known, f"The losses are {', '.join(sorted(known))}."
    assert 'dpo' not in names, (
        "In the margin of DPO the prompt's log-probability comes twice, once with a minus.")
    missing = sorted(known - {'dpo'} - names)
    assert not missing, (
        f"{len(missing)} more: which of them divide by the length, or look at one answer alone?")


def check_4(answer):
    "How far a length alone gets."
    def row(chosen, rejected): return {'prompt': 'Why?', 'chosen': chosen, 'rejected': rejected}
    rows = [row('a b c', 'a'), row('a', 'a b'), row('a b', 'c d'), row('a b c d', 'a b')]
    found = answer(rows)
    assert found is not None, "Return a share."
    assert not math.isclose(found, 0.5), "A tie counts half."
    assert math.isclose(found, 0.625), (
        f"Of four pairs two are longer and one is as long: not {found:.3f}.")
    assert math.isclose(answer([row('a bb c', 'aaaaaaaaaaaaa')]), 1), "Count words, not characters."
    assert math.isclose(answer([row('a', 'b c')] * 3), 0), (
        "A chosen answer that is shorter counts nothing.")
