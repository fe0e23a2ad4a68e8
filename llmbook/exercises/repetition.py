"What `grade` asks of the answers to the exercises of the chapter `repetition`."
import math
import random


def check_1(answer):
    "Two ways to cover nine words."
    answer = tuple(answer)
    assert len(answer) == 2, "Give two numbers of words: most frequent, occurred before."
    assert all(0 <= n <= 9 for n in answer), "There are nine words in all."
    assert answer[0] == 6, "The most frequent 3-gram: at which places does it begin?"
    assert answer[1] == 5, "3-grams that occurred before: mark their words, and count the marks."


def _longest(words):
    "The length of the longest run that occurs at two places."
    best = 0
    for i in range(len(words)):
        for k in range(i + 1, len(words)):
            n = 0
            while k + n < len(words) and words[i + n] == words[k + n]: n += 1
            best = max(best, n)
    return best


def check_2(answer):
    "The longest run that occurs twice."
    rng = random.Random(0)
    texts = ['', 'one', 'all are different', 'ha ha ha', 'a b c a b d a b c', 'x ' * 17]
    for _ in range(60):
        letters = 'abc'[:rng.randint(1, 3)]
        texts.append(' '.join(rng.choices(letters, k=rng.randint(2, 60))))
    for text in texts:
        words = text.split()
        wanted, received = _longest(words), answer(list(words))
        assert received is not None, "Return a number."
        shown = text if len(text) < 40 else text[:37] + '...'
        assert received == wanted, f"{shown!r}: {received} is not the length of the longest run."


def check_3(answer):
    "The share of a text that is copied from a source."
    rng = random.Random(2)
    cases = [('so it is so it is', 'it was', 2), ('a long story', 'a', 2), ('a story', '', 1), ('', 'a story', 1),
             ('now the long story', 'the long story the long story', 2)]
    for _ in range(40):
        text, source = (' '.join(rng.choices('a bb ccc dddd'.split(), k=rng.randint(1, 25))) for _ in range(2))
        cases.append((text, source, rng.randint(1, 4)))
    for text, source, n in cases:
        words, inside = text.split(), set()
        for i in range(len(words) - n + 1):
            if ' ' + ' '.join(words[i:i+n]) + ' ' in ' ' + source + ' ': inside |= set(range(i, i + n))
        wanted = sum(len(words[i]) for i in inside) / max(1, len(''.join(words)))
        received = answer(text, source, n)
        assert received is not None, "Return a share, 0 to 1."
        hint = f"{text!r}, source {source!r}, n={n}: {received:.3f} is not the share of its characters that is copied."
        assert math.isclose(received, wanted, abs_tol=1e-9), hint


def _repeated(words, n):
    "The share of characters in n-grams that occurred before."
    inside = set()
    ngrams = [words[i:i+n] for i in range(len(words) - n + 1)]
    for i, ngram in enumerate(ngrams):
        if ngram in ngrams[:i]: inside |= set(range(i, i + n))
    return sum(len(words[i]) for i in inside) / len(''.join(words))


def check_4(answer):
    "Repetition by the length of the pieces."
    rng = random.Random(1)
    words = 'ab cde fghi jklmn o'.split()
    texts = [' '.join(rng.choices(words, k=k)) for k in (7, 25, 60, 101)] + ['']
    sizes = (5, 10, 25, 50, 500)
    for n in (1, 2, 3):
        received = answer(list(texts), n, sizes)
        assert isinstance(received, dict), "Return a dict from size to share."
        assert 500 not in received, "No text has 500 words, so there is no share for pieces of 500."
        for size in sizes[:-1]:
            assert size in received, f"The size {size} is missing."
            pieces = []
            for words in map(str.split, texts):
                pieces += [words[i:i+size] for i in range(0, len(words) - size + 1, size)]
            wanted = sum(_repeated(piece, n) for piece in pieces) / len(pieces)
            hint = f"{n}-grams, {size} words: {received[size]:.4f} is not the average over complete pieces."
            assert math.isclose(received[size], wanted, abs_tol=1e-9), hint
