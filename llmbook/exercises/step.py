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
    expected = nn.functional.one_hot(ids + 1, 10)
    return 9.0 * expected


def check_2(answer):
    "A metric that adds up."
    for micro in (None, 1):
        parts = split_batch(_ROWS, micro)
        counts = sum_counts(answer.counts(part) for part in parts)
        accuracy = 0
        for part in parts:
            _, metrics = share_of(_successor, part, answer, counts)
            assert 'accuracy' in metrics, "The metrics have no 'accuracy'."
            accuracy += float(metrics['accuracy'])
        problem = f"{len(parts)} parts add up to {accuracy:.3f}, not to 4/7."
        assert math.isclose(accuracy, 4/7, abs_tol=1e-5), problem


def check_3(answer):
    "A loss that is divided and averaged afterwards."
    nats = (6., 6., 1., 2., 5., 3.)
    counts = (1, 3, 4, 2, 2, 6)
    for world, accum in ((1, 1), (2, 1), (1, 3), (3, 2)):
        parts = world * accum
        tokens = sum(counts[:parts])
        arrives = 0
        for part in nats[:parts]:
            returned = answer(part, tokens, world, accum)
            arrives += float(returned) / accum / world
        loss = sum(nats[:parts]) / tokens
        problem = f"World {world}, accum {accum}: what arrives is not the loss of the batch."
        assert math.isclose(arrives, loss, rel_tol=1e-6), problem


def check_4(answer):
    "How much a token counts in a mean of means."
    for lengths, micro, right in _UNJUST:
        case = f"{lengths} in parts of {micro}"
        returned = answer(lengths, micro) or []
        factors = [float(factor) for factor in returned]
        assert len(factors) == len(right), f"{case}: return {len(right)} numbers."
        rounded = [round(factor, 3) for factor in factors]
        for factor, expected in zip(factors, right):
            close = math.isclose(factor, expected, rel_tol=1e-3)
            assert close, f"{case}: not {rounded}."
