"What `grade` asks of the answers to the exercises of the chapter `step`."
import math

import torch
from torch import nn

from llmbook.text.batches import split_batch
from llmbook.train.step import share_of, sum_counts

_ROWS = dict(  # 4 of the 7 labels are one more than their id
    ids=torch.tensor([[1, 2, 3, 4], [2, 2, 0, 0], [5, 0, 0, 0]]),
    labels=torch.tensor([[2, 3, 4, 9], [9, 9, -100, -100], [6, -100, -100, -100]]),
    rows=torch.arange(3))
_UNJUST = (  # lengths, rows in a micro-batch, how much a token of each part counts
    ([10, 30, 60], 1, [10/3, 10/9, 5/9]),
    ([1, 3, 2, 2], 2, [1, 1]),
    ([8, 8, 1, 1], 2, [9/16, 4.5]),
)


def check_1(answer):
    "The loss of two micro-batches."
    loss = float(answer)
    assert not math.isclose(loss, 4, abs_tol=0.005), "That is the mean of the means."
    assert math.isclose(loss, 3.4, abs_tol=0.005), "Turn means back into sums."


def _successor(ids, *_):
    "A model that always expects the next higher id."
    return 9 * nn.functional.one_hot(ids + 1, 10).float()


def check_2(answer):
    "A metric that adds up."
    for micro in (None, 1):
        parts = split_batch(_ROWS, micro)
        counts = sum_counts(answer.counts(b) for b in parts)
        metrics = [share_of(_successor, b, answer, counts)[1] for b in parts]
        assert all('accuracy' in m for m in metrics), "The metrics have no 'accuracy'."
        accuracy = sum(float(m['accuracy']) for m in metrics)
        problem = f"{len(parts)} parts add up to {accuracy:.3f}, not to 4/7."
        assert math.isclose(accuracy, 4/7, abs_tol=1e-5), problem


def check_3(answer):
    "A loss that is divided and averaged afterwards."
    nats, counts = (6., 6., 1., 2., 5., 3.), (1, 3, 4, 2, 2, 6)
    for world, accum in ((1, 1), (2, 1), (1, 3), (3, 2)):
        parts = world * accum
        tokens = sum(counts[:parts])
        returned = [float(answer(n, tokens, world, accum)) for n in nats[:parts]]
        arrives = sum(returned) / accum / world
        loss = sum(nats[:parts]) / tokens
        problem = f"World {world}, accum {accum}: what arrives is not the loss of the batch."
        assert math.isclose(arrives, loss, rel_tol=1e-6), problem


def check_4(answer):
    "How much a token counts in a mean of means."
    for lengths, micro, right in _UNJUST:
        case = f"{lengths} in parts of {micro}"
        factors = [float(a) for a in answer(lengths, micro) or ()]
        assert len(factors) == len(right), f"{case}: return {len(right)} numbers."
        close = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(factors, right))
        assert close, f"{case}: not {[round(a, 3) for a in factors]}."
