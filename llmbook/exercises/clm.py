"What `grade` asks of the answers to the exercises of the chapter `clm`."
import math

import torch

from llmbook.core import generator
from llmbook.model.transformer import token_log_probs
from llmbook.text.batches import IGNORE, split_batch
from llmbook.train.clm import CLM
from llmbook.train.step import share_of, sum_counts


def check_1(answer):
    "Padding, seen in a first loss."
    share = float(answer)
    assert not math.isclose(share, 25.1, abs_tol=1), "Give a share, between 0 and 1."
    assert not math.isclose(share, 8.1 / math.log(50257), abs_tol=0.02), "That is the share of places that are learned."
    assert math.isclose(share, 1 - 8.1 / math.log(50257), abs_tol=0.02), "What would the loss be without padding, in nats?"


def check_2(answer):
    "An objective with a z-loss."
    draws = generator(0, 'clm.2')
    table = torch.randn(12, 12, generator=draws)
    ids = torch.randint(12, (3, 5), generator=draws)
    padding = torch.arange(5) >= torch.tensor([[5], [2], [1]])
    labels = ids.roll(-1, 1).masked_fill(padding, IGNORE)
    batch = {'ids': ids, 'labels': labels, 'rows': torch.arange(3)}
    def model(ids, positions=None, segments=None, targets=None):
        logits = table[ids]
        return logits if targets is None else token_log_probs(logits, targets)
    keep = labels != IGNORE
    z = table[ids].logsumexp(-1)[keep].square().mean()
    plain = share_of(model, batch, CLM(), CLM().counts(batch))[0]
    for micro in (None, 1):
        parts = split_batch(batch, micro)
        counts = sum_counts(answer.counts(b) for b in parts)
        found = [share_of(model, b, answer, counts) for b in parts]
        assert all('z' in m for _, m in found), "The metrics have no 'z'."
        got = sum(float(m['z']) for _, m in found)
        assert math.isclose(got, z, rel_tol=1e-4), f"{len(parts)} parts: z adds up to {got:.3f}, not to {z:.3f}."
        loss = sum(float(share) for share, _ in found)
        right = plain + 1e-4*z
        assert math.isclose(loss, right, rel_tol=1e-5), f"{len(parts)} parts: the loss is {loss:.4f}, not {right:.4f}."


def check_3(answer):
    "The summed loss of a batch."
    logits = torch.randn(2, 6, 9, generator=generator(0, 'clm.3'))
    labels = torch.tensor([[3, 1, 4, 1, 5, 2], [6, 5, 2, IGNORE, IGNORE, IGNORE]])
    right = -token_log_probs(logits, labels).sum()
    found = float(answer(logits, labels))
    assert not math.isclose(found, right / 9, rel_tol=1e-4), "That is the mean; shares need the sum."
    assert math.isclose(found, right, rel_tol=1e-4), f"The sum over the nine labels is {right:.2f}, not {found:.2f}."


def check_4(answer):
    "Steps and epochs of a run."
    cases = (
        ((1e6, 5e6, 16, 256), 4883, 4.0),
        ((124e6, 10e9, 512, 1024), 4731, 0.248),
        ((10, 1e6, 1, 512), 1, 512e-6),
    )
    for given, steps, epochs in cases:
        found = answer(*given)
        assert found is not None and len(found) == 2, "Return (steps, epochs)."
        assert found[0] == steps, f"{given}: {steps} steps, not {found[0]}."
        assert math.isclose(found[1], epochs, rel_tol=0.01), f"{given}: the text is read {epochs} times, not {found[1]}."
