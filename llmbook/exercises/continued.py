"What `grade` asks of the answers to the exercises of the chapter `continued`."

import math


def check_1(answer):
    "One letter, two texts, a quarter of old rows."
    answer = float(answer)
    assert abs(answer - 0.368) > 0.006, "That is without any old text."
    assert abs(answer - 0.551) > 0.006, "That is the loss itself; how far above its lowest is it?"
    assert abs(answer - 0.226) < 0.006, (
        "Where does training end with a quarter of old rows? Then compare two losses on the old text."
    )


def check_2(answer):
    "Recipes that no other beats."
    ends = {'a': (1.0, 3.0), 'b': (0.9, 3.2), 'c': (2.0, 2.9), 'd': (1.1, 3.1), 'e': (2.0, 3.5)}
    names = answer(dict(ends))
    assert names is not None, "Return names."
    names = list(names)
    assert 'd' not in names and 'e' not in names, (
        "A recipe is among them that another beats on both texts."
    )
    assert names == ['a', 'b', 'c'], (
        "Each of three recipes is the best one for somebody, whatever its sum."
    )
    ends = {'x': (1.0, 3.0), 'y': (1.0, 2.9)}
    assert list(answer(ends)) == ['y'], (
        "As good on the one text and better on the other: that is enough to beat it."
    )
    ends = {'q': (1.0, 3.0), 'p': (1.0, 3.0)}
    assert list(answer(ends)) == ['p', 'q'], (
        "Two recipes that end alike do not beat each other; and sort the names."
    )
    assert list(answer({})) == [], "Without recipes there are no names."


def check_3(answer):
    "Which checkpoint to keep."
    curve = [(10, 0.9, 3.2), (20, 1.0, 3.0), (30, 1.3, 2.5), (40, 1.0, 3.1), (50, 1.6, 2.0)]
    step = answer(list(curve), 0.8, 0.25)
    assert step != 50, "At step 50 the old text costs twice what it did, and the mean excuses it."
    assert step != 40, "The last one that is allowed is not the best one."
    assert step == 20, (
        f"Of the steps 10, 20 and 40, which are allowed, take the best on the new text: not {step}."
    )
    assert answer(list(curve), 0.8, 0.01) is None, (
        "If every step has forgotten too much, there is none to keep."
    )
    assert answer(list(curve), 0.8, 9) == 50, (
        "If forgetting does not matter, the best one on the new text counts."
    )


def check_4(answer):
    "The largest share of old text."
    share = answer(100, 300, 1)
    assert share is not None, "Return a share."
    assert not math.isclose(share, 1 / 3), "A share of all rows, not of the new ones."
    assert math.isclose(share, 1 / 4), (
        f"100 old tokens and 300 new ones, each read once: not {share:.3f}."
    )
    assert math.isclose(answer(100, 300, 3), 1 / 2), (
        "Three passes through the old text are as long as the new one."
    )
    assert math.isclose(answer(50, 1000, 4), 1 / 6), (
        "Wrong for 50 old tokens, 1,000 new ones and four passes."
    )
