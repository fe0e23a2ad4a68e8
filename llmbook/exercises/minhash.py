"What `grade` asks of the answers to the exercises of the chapter `minhash`."
import numpy as np

from llmbook.text.minhash import _EMPTY, _bin_minima


def check_1(answer):
    "Similarities after ten changed words, together and apart."
    together, apart = map(float, answer)
    assert apart < together, "Which copy loses more shingles?"
    assert abs(together - 82 / 110) < 0.002, "Ten neighbours: how many shingles have one of them?"
    assert abs(apart - 46 / 146) < 0.002, "Far apart: each word is in five shingles of its own."


def check_2(answer):
    "Containment from the similarity and two sizes."
    rng = np.random.default_rng(0)
    cases = (100, 1000, 100), (50, 60, 30), (10, 10, 0), (7, 7, 7), (500, 20, 15)
    for size, other_size, both in cases:
        a = set(rng.permutation(size).tolist())
        b = set(range(both)) | set(range(1000, 1000 + other_size - both))
        similarity = len(a & b) / len(a | b)
        found = answer(similarity, size, other_size)
        assert found is not None, "Return the containment."
        hint = f"{both} of {size} shingles are in the other text, of {other_size}; not {float(found):.3f}."
        assert abs(float(found) - both / size) < 1e-9, hint


def _pair(length, changed, seed):
    "Bin minima of two texts of random words, and their true similarity."
    rng = np.random.default_rng(seed)
    words = [f'w{i}' for i in rng.integers(10**9, size=length)]
    others = words.copy()
    for i in rng.permutation(length)[:changed]: others[i] = f'x{rng.integers(10**9)}'
    a, b = ({tuple(w[i:i+5]) for i in range(length - 4)} for w in (words, others))
    return *_bin_minima([' '.join(words), ' '.join(others)]), len(a & b) / len(a | b)


def check_3(answer):
    "An estimate that is right on average, for texts of any length."
    assert int(_EMPTY) == 2**32 - 1
    for length, changed in ((12, 1), (40, 2), (100, 10), (1000, 20)):
        errors = []
        for seed in range(300):
            minima, others, similarity = _pair(length, changed, seed)
            errors.append(float(answer(minima, others)) - similarity)
        off = float(np.mean(errors))
        assert abs(off) < 0.02, f"Texts of {length} words: off by {off:+.3f} on average."


def check_4(answer):
    "(paragraphs, i, j): the two most similar of them."
    paragraphs, i, j = answer
    assert len(paragraphs) >= 20, f"Give at least 20 paragraphs; here are {len(paragraphs)}."
    shortest = min(len(p.split()) for p in paragraphs)
    assert shortest >= 30, f"Each paragraph needs 30 words; the shortest has {shortest}."
    assert i != j, "Give two different places."
    sets = []
    for p in paragraphs:
        words = p.lower().split()
        sets.append({tuple(words[k:k+3]) for k in range(len(words) - 2)})
    def alike(a, b): return len(sets[a] & sets[b]) / len(sets[a] | sets[b])
    best = max(alike(a, b) for a in range(len(sets)) for b in range(a))
    assert best > 0, "No two of these paragraphs have anything in common; add more."
    mine = alike(int(i), int(j))
    assert mine > best - 1e-9, f"These two: {mine:.3f}; there are two with {best:.3f}."
