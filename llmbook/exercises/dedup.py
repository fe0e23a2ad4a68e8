"What `grade` asks of the answers to the exercises of the chapter `dedup`."
import random
from itertools import combinations


def check_1(answer):
    "The middle of an S-curve."
    share = 1 - (1 - float(answer)**4)**32
    assert abs(share - 0.5) < 0.03, f"At {float(answer):.3f} a share of {share:.2f} meets."


def check_2(answer):
    "The longest text of each group."
    rng = random.Random(0)
    for n in (1, 5, 40):
        roots = []
        for i in range(n):
            earlier = rng.randrange(i + 1)
            alone = earlier == i or rng.random() < 0.3
            roots.append(i if alone else roots[earlier])
        texts = ['x' * rng.randrange(1, 6) for _ in range(n)]
        kept = answer(roots, texts)
        assert kept is not None, "Return the numbers of the texts to keep."
        kept = [int(i) for i in kept]
        assert kept == sorted(kept), "Ascending order, please."
        groups = sorted(roots[i] for i in kept)
        assert groups == sorted(set(roots)), "One text of each group has to be kept."
        for i in kept:
            group = [j for j in range(n) if roots[j] == roots[i]]
            longest = max(len(texts[j]) for j in group)
            hint = f"A text of {len(texts[i])} letters was kept; its group has one of {longest}."
            assert len(texts[i]) == longest, hint
            first = min(j for j in group if len(texts[j]) == longest)
            assert i == first, "Of several longest texts, keep the first."


def _groups_of(pairs, n):
    "The first member of each text's group."
    roots = list(range(n))
    def find(i):
        while roots[i] != i:
            roots[i] = roots[roots[i]]
            i = roots[i]
        return i
    for a, b in pairs:
        a, b = sorted((find(a), find(b)))
        roots[b] = a
    return [find(i) for i in range(n)]


class _Counted(int):
    "A key that counts how often it is compared, so that a quadratic answer ends early."
    compared = 0
    def __eq__(self, other):
        _Counted.compared += 1
        assert _Counted.compared < 1_000_000, "The work still grows with the square."
        return int(self) == int(other)
    __hash__ = int.__hash__


def check_3(answer):
    "Few pairs, the same groups."
    rng = random.Random(0)
    for keys in ([1, 2, 1, 3, 2, 1], [rng.randrange(40) for _ in range(300)], [7] * 2000):
        pairs = [(int(a), int(b)) for a, b in answer(keys)]
        assert len(pairs) <= len(keys), f"{len(pairs):,} pairs for {len(keys):,} texts."
        wanted = [keys.index(key) for key in keys]
        assert _groups_of(pairs, len(keys)) == wanted, "Equal keys make a group, others do not."
    _Counted.compared = 0
    pairs = answer([_Counted(7)] * 30_000)
    assert len(pairs) == 29_999, "30,000 equal texts need 29,999 pairs."


def _sets(texts):
    "Shingles of five words of each text."
    words = [text.lower().split() for text in texts]
    return [{tuple(w[i:i+5]) for i in range(len(w) - 4)} for w in words]


def check_4(answer):
    "(texts, i, j): the only two that are similar."
    texts, i, j = answer
    i, j = sorted((int(i), int(j)))
    assert len(texts) >= 20, f"Give at least 20 texts; here are {len(texts)}."
    shortest = min(len(text.split()) for text in texts)
    assert shortest >= 50, f"Each text needs 50 words; the shortest has {shortest}."
    sets = _sets(texts)
    similar = {}
    for a, b in combinations(range(len(texts)), 2):
        similarity = len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b]))
        if similarity >= 0.8 or (a, b) == (i, j): similar[a, b] = similarity
    mine = similar.pop((i, j), 0)
    assert 0.8 <= mine <= 0.95, f"The two have a similarity of {mine:.3f}."
    assert not similar, f"Texts {next(iter(similar), None)} are similar too; leave one of them out."
