"What `grade` asks of the answers to the exercises of the chapter `batches`."
import numpy as np
import torch

from llmbook.text.batches import IGNORE
from llmbook.text.bpe import PAD


def check_1(answer):
    "Rows and padding by hand."
    rows, lost = answer
    assert rows == 4, "The pieces are 8, 5, 4, 3, 3 and 2; the longest goes first, each into the fullest row with room."
    assert lost == 4 * 8 - 25, "Rows times eight, less all the questions."


def check_2(answer):
    "Documents out of a packed batch."
    values = dict(ids=[[5, 6, 7, 5, 8], [5, 9, PAD, PAD, PAD]], segments=[[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]],
                  labels=[[6, 7, 2, 8, 2], [9, 2, IGNORE, IGNORE, IGNORE]], rows=[0, 1])
    found = answer({k: torch.tensor(v) for k, v in values.items()})
    assert found is not None, "It returns nothing so far."
    found = [list(map(int, d)) for d in found]
    assert len(found) == 3, f"There are 3 documents in the batch, the answer has {len(found)}; segment 0 is padding."
    assert all(d[-1] == 2 for d in found), "The last token of a document is only in the labels."
    assert found == [[5, 6, 7, 2], [5, 8, 2], [5, 9, 2]], f"The first document is [5, 6, 7, 2], not {found[0]}."


def check_3(answer):
    "An order for each seed and epoch."
    was = np.random.get_state()[1].tolist()
    orders = {(s, e): list(answer(s, e, 50)) for s in range(4) for e in range(4)}
    assert all(sorted(o) == list(range(50)) for o in orders.values()), "Each order holds every row once."
    assert list(answer(2, 3, 50)) == orders[2, 3], "Asked twice, the same (seed, epoch) gives different orders."
    same = [(a, b) for a in orders for b in orders if a < b and orders[a] == orders[b]]
    assert not same, f"(seed, epoch) {same[0][0]} and {same[0][1]} have the same order." if same else ''
    assert np.random.get_state()[1].tolist() == was, "numpy's global generator was changed: somebody else's draws move."


def check_4(answer):
    "(lengths, block): the smallest power of two that cuts at most a tenth of the documents."
    lengths, block = np.asarray(answer[0]), int(answer[1])
    assert len(lengths) >= 20 and lengths.min() >= 2, "Give the lengths of 20 documents or more."
    assert block > 0 and block & (block - 1) == 0, f"{block} is not a power of two."
    cut, less = ((lengths - 1 > b).mean() for b in (block, block / 2))
    assert cut <= 0.1, f"With {block} places {cut:.0%} of the documents are cut."
    assert less > 0.1, f"Half of it would do: with {block // 2} places {less:.0%} are cut."
