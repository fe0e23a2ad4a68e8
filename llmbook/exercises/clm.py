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
    learned = 8.1 / math.log(50257)
    padding = 1 - learned
    assert not math.isclose(share, 100*padding, abs_tol=1), "Give a share, between 0 and 1."
    assert not math.isclose(share, learned, abs_tol=0.02), "That is the share of places that are learned."
    right = math.isclose(share, padding, abs_tol=0.02)
    assert right, "What would the loss be without padding, in nats?"


TABLE = torch.randn(12, 12, generator=generator(0, 'clm.2')) # logits that follow each id


def toy_model(ids, positions=None, segments=None, targets=None):
    "A model that looks at one id."
    logits = TABLE[ids]
    return logits if targets is None else token_log_probs(logits, targets)


def padded_batch():
    "Three rows of five ids, the last two of them padded."
    ids = torch.tensor([[3, 9, 0, 4, 7], [5, 2, 11, 8, 1], [6, 10, 3, 0, 2]])
    lengths = torch.tensor([[5], [2], [1]])
    padding = torch.arange(5) >= lengths
    labels = ids.roll(-1, 1).masked_fill(padding, IGNORE)
    rows = torch.arange(3)
    return {'ids': ids, 'labels': labels, 'rows': rows}


def check_2(answer):
    "An objective with a z-loss."
    batch = padded_batch()
    logits = TABLE[batch['ids']]
    learned = batch['labels'] != IGNORE
    z = logits.logsumexp(-1)[learned].square().mean()
    plain = share_of(toy_model, batch, CLM(), CLM().counts(batch))[0]
    right = plain + 1e-4*z
    for micro in (None, 1):
        parts = split_batch(batch, micro)
        counts = sum_counts(answer.counts(part) for part in parts)
        found = [share_of(toy_model, part, answer, counts) for part in parts]
        assert all('z' in metrics for _, metrics in found), "The metrics have no 'z'."
        parts_of_z = [float(metrics['z']) for _, metrics in found]
        got = sum(parts_of_z)
        same = math.isclose(got, z, rel_tol=1e-4)
        assert same, f"{len(parts)} parts: z adds up to {got:.3f}, not to {z:.3f}."
        loss = sum(float(share) for share, _ in found)
        same = math.isclose(loss, right, rel_tol=1e-5)
        assert same, f"{len(parts)} parts: the loss is {loss:.4f}, not {right:.4f}."


def check_3(answer):
    "The summed loss of a batch."
    draws = generator(0, 'clm.3')
    logits = torch.randn(2, 6, 9, generator=draws)
    labels = torch.tensor([[3, 1, 4, 1, 5, 2], [6, 5, 2, IGNORE, IGNORE, IGNORE]])
    right = -token_log_probs(logits, labels).sum()
    found = float(answer(logits, labels))
    mean = math.isclose(found, right / 9, rel_tol=1e-4)
    assert not mean, "That is the mean; shares need the sum."
    same = math.isclose(found, right, rel_tol=1e-4)
    assert same, f"The sum over the nine labels is {right:.2f}, not {found:.2f}."


PLANS = ( # parameters, tokens, rows, block size; steps, epochs
    ((1e6, 5e6, 16, 256), 4883, 4.0),
    ((124e6, 10e9, 512, 1024), 4731, 0.248),
    ((10, 1e6, 1, 512), 1, 512e-6),
)


def check_4(answer):
    "Steps and epochs of a run."
    for given, steps, epochs in PLANS:
        found = answer(*given)
        assert found is not None and len(found) == 2, "Return (steps, epochs)."
        assert found[0] == steps, f"{given}: {steps} steps, not {found[0]}."
        same = math.isclose(found[1], epochs, rel_tol=0.01)
        assert same, f"{given}: the text is read {epochs} times, not {found[1]}."
