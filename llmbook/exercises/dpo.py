"What `grade` asks of the answers to the exercises of the chapter `dpo`."
import math

import torch
from torch.nn import functional as F


def check_1(answer):
    "The best policy over three answers."
    answer = float(answer)
    assert abs(answer - 0.665) > 0.02, "Its share of e^r alone: the reference counts as well."
    assert abs(answer - 0.2) > 0.01, "That is the reference."
    assert abs(answer - 0.529) < 0.006, (
        "Multiply each probability of the reference by e^(r / beta), then divide by their sum.")


def _ranked(ratios, beta):
    "Plackett and Luce, place by place."
    total = 0.
    for row in ratios:
        rewards = beta * row
        for place in range(len(rewards) - 1): total -= rewards[place] - rewards[place:].logsumexp(0)
    return total / len(ratios)


def check_2(answer):
    "A loss for lists."
    g = torch.Generator().manual_seed(0)
    for k, beta in ((2, 0.1), (3, 0.5), (4, 1.0)):
        ratios = 3 * torch.randn(5, k, generator=g)
        found = answer(ratios.clone(), beta)
        assert found is not None, "Return the losses, (B,)."
        assert tuple(found.shape) == (5,), (
            f"Of 5 lists there are 5 losses, not {tuple(found.shape)}.")
        if k == 2:
            pair = -F.logsigmoid(beta * (ratios[:, 0] - ratios[:, 1]))
            assert torch.allclose(found, pair, atol=1e-5), (
                "For lists of two it must be the loss of DPO.")
        expected = torch.stack([_ranked(row[None], beta) for row in ratios])
        assert torch.allclose(found, expected, atol=1e-4), (
            f"Wrong for lists of {k}: each place chooses among those that are left.")


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
