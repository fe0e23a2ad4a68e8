"What `grade` asks of the answers to the exercises of the chapter `step`."
import math

import torch
from torch import nn

from llmbook.text.batches import split_batch
from llmbook.train.step import share_of, sum_counts


def check_1(answer):
    "The loss of three micro-batches."
    assert math.isclose(float(answer), 2.6, abs_tol=0.005), "Turn each mean back into a sum first."


def check_2(answer):
    "A metric that adds up."
    ids = torch.tensor([[1, 2, 3, 4], [2, 2, 0, 0], [5, 0, 0, 0]])
    labels = torch.tensor([[2, 3, 4, 9], [9, 9, -100, -100], [6, -100, -100, -100]])  # 4 of 7 are one more than the id
    def model(ids, *_): return 9 * nn.functional.one_hot(ids + 1, 10).float()
    for micro in (None, 1):
        parts = split_batch({'ids': ids, 'labels': labels, 'rows': torch.arange(3)}, micro)
        counts = sum_counts(answer.counts(b) for b in parts)
        found = [share_of(model, b, answer, counts)[1].get('accuracy') for b in parts]
        assert None not in found, "The metrics have no 'accuracy'."
        accuracy = sum(map(float, found))
        assert math.isclose(accuracy, 4/7, abs_tol=1e-5), f"{len(parts)} parts add up to {accuracy:.3f}, not to 4/7."


def check_3(answer):
    "A loss whose gradients are averaged over processes."
    nats, counts = (6., 6., 1.), (1, 3, 4)
    for world in (1, 2, 3):
        shares = [float(answer(n, sum(counts[:world]), world)) for n in nats[:world]]
        right, found = sum(nats[:world]) / sum(counts[:world]), sum(shares) / world
        assert math.isclose(found, right, rel_tol=1e-6), f"{world} processes: the average is {found:.3f}, not {right:.3f}."


def check_4(answer):
    "How much a token counts in a mean of means."
    cases = ([10, 30, 60], 1, [10/3, 10/9, 5/9]), ([1, 3, 2, 2], 2, [1, 1]), ([8, 8, 1, 1], 2, [9/16, 4.5])
    for lengths, micro, right in cases:
        found = answer(lengths, micro)
        assert found is not None and len(found) == len(right), f"{lengths} in parts of {micro}: return {len(right)} numbers."
        close = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(found, right))
        assert close, f"{lengths} in parts of {micro}: not {[round(float(a), 3) for a in found]}."
