"What `grade` asks of the answers to the exercises of the chapter `next_sentence`."

from collections import Counter

import numpy as np


def check_1(answer):
    "Two denominators."
    answer = float(answer)
    assert abs(answer - 39.6 / 22) > 0.01, "Every kind of question has its own count."
    assert abs(answer - 2.85) < 0.006, (
        "Add up the nats of each kind, and divide by the number of its questions."
    )


def check_2(answer):
    "A wrong text of the same document."
    counts = Counter()
    for seed in range(600):
        begin = answer(10, 3, 2, np.random.default_rng(seed))
        assert begin is not None, "Sentences 4 and 5 would do, for example: return a number."
        counts[int(begin)] += 1
    assert 3 not in counts, "What begins at `cut` follows."
    assert min(counts) > 3, "A sentence of the first text."
    assert max(counts) < 9, "They must fit into the document."
    assert len(counts) == 5, "All places where they fit should be drawn."
    assert max(counts.values()) < 1.6 * min(counts.values()), "Draw evenly."
    assert answer(5, 3, 2, np.random.default_rng(0)) is None, "Where nothing fits, return None."


def check_3(answer):
    "A text that gives itself away."
    answer = float(answer)
    assert abs(answer - 0.5) > 0.01, "That is a coin. Look at the first words of the second text."
    assert abs(answer - 1) < 0.005, (
        "Can a true second text begin with *One morning*? Can a wrong one begin otherwise?"
    )


def check_4(answer):
    "How far a word in common gets."

    def pair(text, other, label):
        return {'text': text, 'text_pair': other, 'label': label}

    pairs = [
        pair('The lantern burns.', 'A Lantern is bright.', 0),
        pair('The lantern burns.', 'A kettle boils.', 1),
        pair('The lamp burns.', 'The lamp is bright.', 0),
        pair('The lamp and the hammer.', 'Another hammer.', 1),
        pair('Kitchens.', 'kitchens', 0),
    ]
    found = answer(pairs)
    assert found is not None, "Return a share."
    assert abs(found - 0.4) > 1e-6, (
        "0 means that the second text follows: guess 0 if they share a word."
    )
    assert abs(found - 0.2) > 1e-6, "The case of a letter should not matter."
    assert abs(found - 0.6) < 1e-6, (
        f"Three of five, not {found:.2f}: only words of six letters or more count."
    )
