"What `grade` asks of the answers to the exercises of the chapter `translation`."
import math
import random
from unittest.mock import patch


def check_1(answer):
    "BLEU of two outputs with one wrong word each."
    first, second = map(float, answer)
    wanted = 100 * (6/7 * 4/6 * 3/5 * 2/4) ** (1/4)
    assert abs(first - wanted) < 1, f"The first is not {first:.0f}: how many runs contain the second token?"
    assert abs(second) < 0.5, f"The second is not {second:.0f}: how many runs of four leave out the fourth token?"


def _parse_one(sentence, side):
    "The only parse of a sentence."
    from llmbook.text.translation import _trees
    trees = _trees(sentence, side)
    assert trees, f"No parse of {sentence!r}."
    assert len(trees) == 1, f"{len(trees)} parses of {sentence!r}."
    return trees[0]


def check_2(answer):
    "A new verb with two things."
    from llmbook.text import translation as t
    added = t._read_rules(answer, t.LEXICON | {'swap': 'goba'})
    rules = {symbol: t._RULES.get(symbol, []) + more for symbol, more in added.items()}
    cases = {'Mira swapped the red lamp for the blue rope.': 'Mira PAST rope-WITH blue lamp-OBJ red swap.',
             'Then she swapped the small key for the red lamp.': 'she PAST then lamp-WITH red key-OBJ small swap.',
             'Odo took the red lamp.': 'Odo PAST lamp-OBJ red take.'}
    try:
        with patch.dict(t._RULES, rules):
            t._readings.cache_clear()
            for english, gloss in cases.items():
                tree = _parse_one(english, t._ENGLISH)
                written = t._write(tree, t._GLOSS)
                assert written == gloss, f"The gloss is {written!r} instead of {gloss!r}."
                back = _parse_one(t._write(tree, t._WORDS), t._WORDS)
                assert t._write(back, t._ENGLISH) == english, f"{english!r} does not come back."
    finally: t._readings.cache_clear()


def check_3(answer):
    "New combinations of known words."
    rng = random.Random(0)
    some = [(a, b) for a in 'rbgw' for b in 'LRKCD']
    grids = [[rng.choice(some) for _ in range(n)] for n in (60, 400)]
    grids.append([('r', 'L'), ('x', 'L')] + [(a, b) for a in 'rbg' for b in 'LRK'] * 4)  # x has one pair only
    for pairs in grids:
        held = sorted(int(i) for i in answer(list(pairs)))
        assert len(set(held)) == len(held), "A sentence is held out twice."
        share = len(held) / len(pairs)
        assert 0.05 <= share <= 0.3, f"{share:.0%} of the sentences are held out."
        hidden = {pairs[i] for i in held}
        seen = {pair for i, pair in enumerate(pairs) if i not in set(held)}
        assert not hidden & seen, f"{min(hidden & seen, default='')} is on both sides."
        for place in (0, 1):
            lost = {pair[place] for pair in hidden} - {pair[place] for pair in seen}
            assert not lost, f"{min(lost, default='')} does not occur in training."


def check_4(answer):
    "(rows, share, nearer): words that cross in real translations."
    rows, share, nearer = answer
    assert len(rows) >= 10, f"Give at least 10 sentences; here are {len(rows)}."
    assert len({source for source, _, _ in rows}) == len(rows), "Two rows have the same source."
    shares = []
    for source, target, links in rows:
        assert len(links) >= 4, f"Four links, please: {source[:40]!r} has {len(links)}."
        assert len(set(map(tuple, links))) == len(links), f"{source[:40]!r} has a link twice."
        assert source != target, f"{source[:40]!r} is not translated."
        sizes = len(source.split()), len(target.split())
        for link in links:
            inside = all(0 <= i < n for i, n in zip(link, sizes, strict=True))
            assert inside, f"{source[:40]!r} has no words {tuple(link)}."
        pairs = [(a, b) for i, a in enumerate(links) for b in links[:i]]
        crossed = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in pairs)
        shares.append(crossed / len(pairs))
    wanted = sum(shares) / len(shares)
    assert math.isclose(float(share), wanted, abs_tol=0.005), f"The average is not {float(share):.3f}."
    away = {'German': abs(wanted - 3/15), 'ours': abs(wanted - 7/15)}
    assert nearer in away, f"The last part is 'German' or 'ours', not {nearer!r}."
    assert away[nearer] <= min(away.values()) + 0.01, f"{wanted:.2f} is not nearer to {nearer!r}."
