"What `grade` asks of the answers to the exercises of the chapter `batches`."
import itertools
import random

import numpy as np
import torch

from llmbook.text.batches import IGNORE, pack, split_documents
from llmbook.text.bpe import PAD


def check_1(answer):
    "Rows and padding by hand."
    sizes = split_documents([8, 18, 7, 8, 4], 10)[:, 2]
    rows, lost = answer
    ribbon, alone = -(-sizes.sum() // 10), len(sizes)
    assert rows != ribbon, "That many would do if pieces could be cut to fill the gaps."
    assert rows != alone, "Some pieces share a row, if questions are counted and not tokens."
    best_fit = len(pack(sizes, 10))
    assert rows == best_fit, "The longest piece first, each into the fullest row with room."
    empty = rows * 10 - sizes.sum()
    assert lost == empty, "The places of all rows, less all the questions."


def check_2(answer):
    "Documents out of a packed batch."
    ids = torch.tensor([[5, 6, 7, 5, 8], [5, 9, PAD, PAD, PAD]])
    labels = torch.tensor([[6, 7, 2, 8, 2], [9, 2, IGNORE, IGNORE, IGNORE]])
    segments = torch.tensor([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]])
    batch = dict(ids=ids, labels=labels, segments=segments, positions=positions)
    batch['rows'] = torch.arange(2)
    found = answer(batch)
    assert found is not None, "It returns nothing so far."
    found = [list(map(int, document)) for document in found]
    n = len(found)
    assert n == 3, f"There are 3 documents in the batch, the answer has {n}; segment 0 is padding."
    complete = all(document[-1] == 2 for document in found)
    assert complete, "The last token of a document is only in the labels."
    expected = [[5, 6, 7, 2], [5, 8, 2], [5, 9, 2]]
    assert found == expected, f"The documents are {expected}, in this order, not {found}."


def _batch(rows):
    "A batch of rows of 200 places, the last 20 of them padding, each token its own number."
    numbers = torch.tensor(rows)
    places = torch.arange(200)
    ids = 1000 * numbers[:, None] + places + 10
    labels = ids + 1
    segments = torch.ones_like(ids)
    positions = places.repeat(len(rows), 1)
    ids[:, 180:] = PAD
    labels[:, 180:] = IGNORE
    segments[:, 180:] = 0
    positions[:, 180:] = 0
    return dict(ids=ids, labels=labels, segments=segments, positions=positions, rows=numbers)


def _equal(a, b, names):
    "Whether two batches agree in these tensors."
    return all(torch.equal(a[name], b[name]) for name in names)


def _random_states():
    "The state of every global generator, as something to compare."
    numpy = np.random.get_state()[1].tolist()
    return random.getstate(), numpy, torch.get_rng_state().tolist()


def _blanked(answer, batch, seed=0, step=0):
    "Which labels an answer blanks, once it is known to change nothing else."
    before = {name: values.clone() for name, values in batch.items()}
    found = answer(batch, seed, step)
    untouched = _equal(batch, before, before)
    assert untouched, "The batch that was given has been changed; return a new one."
    others = set(batch) - {'labels'}
    assert _equal(found, batch, others), "Only labels may be blanked; everything else stays."
    labels, given = found['labels'], batch['labels']
    gone = labels == IGNORE
    kept = labels == given
    assert (gone | kept).all(), "A label is either kept or IGNORE."
    return gone & (given != IGNORE)


def _check_slices(answer, batch, blanked):
    "Whether every rank of every world blanks its rows as the complete batch does."
    for world in (2, 4, 8):
        for rank in range(world):
            part = {name: values[rank::world] for name, values in batch.items()}
            alone = _blanked(answer, part)
            same = torch.equal(alone, blanked[rank::world])
            assert same, f"Rank {rank} of {world} blanks other labels than the complete batch."


def check_3(answer):
    "Labels blanked at random, alike for everybody who asks."
    states = _random_states()
    rows = [7, 0, 12, 3, 5, 31, 2, 9]
    batch = _batch(rows)
    blanked = _blanked(answer, batch)
    fraction = blanked.sum().item() / (180 * len(rows))
    assert 0.06 < fraction < 0.14, f"About a tenth of the labels should go; {fraction:.0%} do."
    pairs = list(itertools.product(range(3), range(3)))
    variants = {pair: _blanked(answer, batch, *pair) for pair in pairs}
    again = torch.equal(variants[0, 0], blanked)
    assert again, "Asked again for the same step, it blanks other labels."
    _check_slices(answer, batch, blanked)
    different = {tuple(row.tolist()) for row in blanked}
    assert len(different) == len(rows), "Two rows of a batch have the same places blanked."
    for a, b in itertools.combinations(pairs, 2):
        other = not torch.equal(variants[a], variants[b])
        assert other, f"(seed, step) {a} and {b} blank the same labels."
    assert _random_states() == states, "A global generator was used: somebody else's draws move."


def check_4(answer):
    "(lengths, block): the smallest power of two that cuts at most a tenth of the documents."
    lengths, block = np.asarray(answer[0]), int(answer[1])
    assert len(lengths) >= 20 and lengths.min() >= 2, "Give the lengths of 20 documents or more."
    assert block > 0 and block & (block - 1) == 0, f"{block} is not a power of two."
    def cut(places):
        return (lengths - 1 > places).mean()
    assert cut(block) <= 0.1, f"With {block} places {cut(block):.0%} of the documents are cut."
    less = cut(block / 2)
    assert less > 0.1, "A smaller power of two would do."
