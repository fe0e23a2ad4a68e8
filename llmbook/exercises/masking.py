"What `grade` asks of the answers to the exercises of the chapter `masking`."

from collections import Counter

import numpy as np


def check_1(answer):
    "Two words hidden, one asked about."
    answer = float(answer)
    assert abs(answer - 0.4 / 0.7) > 0.02, "The first word is hidden too: more texts remain."
    assert abs(answer - 0.6) > 0.02, "The shares of the texts that remain must add up to one."
    assert abs(answer - 2 / 3) < 0.006, (
        "Which texts agree with what is visible, and how probable is each?"
    )


def check_2(answer):
    "Spans of neighbours that do not overlap."
    counts = Counter()
    for seed in range(300):
        found = answer(20, 3, 2, np.random.default_rng(seed))
        assert found is not None, "Return the places."
        places = [int(place) for place in found]
        assert places == sorted(set(places)), "Every place once, and in order."
        assert len(places) == 6, (
            f"Two spans of three places are six places, not {len(places)}: do yours overlap?"
        )
        assert 0 <= places[0] and places[-1] < 20, "A place outside of the row."
        runs = [places[:3], places[3:]]
        assert all(run[2] - run[0] == 2 for run in runs), "Three places of a span are neighbours."
        counts.update([places[0], ('last', places[-1])])
    assert counts[0] and counts['last', 19], (
        "A span may begin at the first place, and end at the last one."
    )
    assert len(counts) > 20, "Draw the spans at random."


def check_3(answer):
    "Rows without a mask."
    answer = float(answer)
    assert abs(answer - 0.1) > 0.01, "Two of the three kinds leave no mask."
    assert abs(answer - 0.2) < 0.01, (
        "One draw decides for all places of a row: which draws give no mask?"
    )


def check_4(answer):
    "Tokens that are part of a longer word."
    words = np.array([-1, 1, 2, 2, 3, 4, 4, 4, 5, -1])
    found = answer(words.copy())
    assert found is not None, "Return a share."
    found = float(found)
    assert abs(found - 0.7) > 0.02, "Special tokens have no word: leave them out."
    assert abs(found - 2 / 5) > 0.02, "The share of tokens, not of words."
    assert abs(found - 5 / 8) < 1e-3, (
        f"Of eight ordinary tokens five are part of a longer word, not {found:.3f}."
    )
    assert abs(float(answer(np.array([-1, 1, 2, 3, -1])))) < 1e-9, "No word here has two tokens."
