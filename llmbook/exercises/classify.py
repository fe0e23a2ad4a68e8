"What `grade` asks of the answers to the exercises of the chapter `classify`."

import math


def check_1(answer):
    "What learns while the body is frozen."
    answer = float(answer)
    pooler, head = 768 * 769, 3 * 769
    assert answer != head, "The pooler learns as well."
    assert answer not in (768 * 768 + 3 * 768, pooler + 3 * 768, 768 * 768 + head), (
        "Both layers have biases."
    )
    assert answer == pooler + head, (
        "Add up two layers: from the width to the width, and from the width to the classes."
    )


def check_2(answer):
    "Labels until an accuracy is reached."

    def found(target, curve):
        n = answer(target, list(curve))
        assert n is not None, "Return a number of labels."
        return float(n)

    curve = [(4, 0.2), (16, 0.6), (64, 0.6), (256, 1.0)]
    assert found(0.1, curve) == 4, (
        "The first point is above the target already: its number of labels is enough."
    )
    assert found(1.1, curve) == math.inf, (
        "An accuracy that is never reached takes infinitely many labels."
    )
    half = found(0.4, curve)
    assert not math.isclose(half, 10), "Half-way on a logarithmic axis is not half-way in labels."
    assert math.isclose(half, 8, rel_tol=1e-3), (
        f"From 4 to 16 labels half of the way is done at 8, not at {half:.1f}."
    )
    assert math.isclose(found(0.6, curve), 16, rel_tol=1e-3), (
        "Where a target is reached exactly, and first, counts."
    )
    assert math.isclose(found(0.8, curve), 128, rel_tol=1e-3), "Wrong between 64 and 256 labels."


def check_3(answer):
    "What does not change a loss."
    names = {str(name).lower() for name in answer}
    known = {'padding', 'rows', 'texts', 'micro', 'classes'}
    assert names <= known, f"The names are {', '.join(sorted(known))}."
    assert 'texts' not in names, "One of them gives the encoder other positions and other types."
    missing = len(known - {'texts'} - names)
    assert not missing, (
        f"{missing} more: what does a mean over rows depend on, and what is only a name?"
    )


def check_4(answer):
    "Texts that are in both parts."

    def rows(*texts):
        return [{'text': text, 'label': str(i)} for i, text in enumerate(texts)]

    train = rows('A fine lamp.', 'a poor  lamp')
    share = answer(train, rows('a poor lamp', 'A FINE LAMP.', 'a fine lamp', 'another'))
    assert share is not None, "Return a share."
    assert not math.isclose(share, 0), (
        "A row may have another label or another id, and yet the same text."
    )
    assert math.isclose(share, 0.5), (
        "Capitals and spaces do not count, and a full stop does: two of four."
    )
    twice = answer(rows('a'), rows('a', 'a', 'a', 'b'))
    assert math.isclose(twice, 0.75), "Count held-out rows, not different texts."
