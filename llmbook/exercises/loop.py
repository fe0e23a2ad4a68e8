"What `grade` asks of the answers to the exercises of the chapter `loop`."
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import nn

from llmbook.text.batches import split_batch
from llmbook.train.loop import sum_counts


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
        found = [answer(model, b, counts)[1].get('accuracy') for b in parts]
        assert None not in found, "The metrics have no 'accuracy'."
        accuracy = sum(map(float, found))
        assert math.isclose(accuracy, 4/7, abs_tol=1e-5), f"{len(parts)} parts add up to {accuracy:.3f}, not to 4/7."


def check_3(answer):
    "A file that survives a kill."
    def die(*_, **__): raise KeyboardInterrupt
    with TemporaryDirectory() as folder:
        path = Path(folder)/'state.txt'
        path.write_text('old')
        try:
            with patch('os.replace', die), patch('os.rename', die): answer(path, 'new')
        except KeyboardInterrupt: pass
        assert path.exists() and path.read_text() == 'old', "Killed before the rename, and the old file is gone."
        answer(path, 'new')
        assert path.read_text() == 'new', "The new text did not arrive."
        assert os.listdir(folder) == ['state.txt'], "Something was left lying about."


def check_4(answer):
    "How often to save."
    for given, steps in (((0.5, 4, 5), 759), ((2, 30, 24), 1138), ((600, 1, 0.1), 1)):
        found = answer(*given)
        assert isinstance(found, int) and found >= 1, "Return a whole number of steps, at least 1."
        assert abs(found - steps) <= 1, f"{given}: about {steps} steps, not {found}."
