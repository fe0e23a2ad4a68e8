"What `grade` asks of the answers to the exercises of the chapter `decontaminate`."
import random
import re


def _words(text):
    "Runs of letters and digits, in lower case."
    return re.findall(r'\w+', text.lower())


def _grams(text, n):
    "The n-grams of a text."
    words = _words(text)
    return {tuple(words[i:i+n]) for i in range(len(words) - n + 1)}


def check_1(answer):
    "The n-grams that two changed words leave."
    ten, thirteen = map(int, answer)
    assert thirteen <= ten, "Longer grams are harder to find, not easier."
    assert ten == 11, "n = 10: which runs of unchanged words are left?"
    assert thirteen == 2, "n = 13: a run of 13 words is one 13-gram; a shorter one is none."


def _given_away(test, page, n):
    "The share of a test's words in a run that a page has too, but for one word."
    said, read = _words(test), _words(page)
    known = set()
    for i in range(len(said) - n + 1):
        runs = [read[j:j+n] for j in range(len(read) - n + 1)]
        others = [sum(a != b for a, b in zip(said[i:i+n], run)) for run in runs]
        if min(others, default=n) <= 1: known |= set(range(i, i + n))
    return len(known) / len(said)


def check_2(answer):
    "The share of a test that a page gives away, where one word of a run may be another."
    words = [f'w{i}' for i in range(40)]
    test = ' '.join(words)
    def run(first, last): return ' '.join(words[first:last])
    rng = random.Random(0)
    a, b = (' '.join(rng.choice('abc') for _ in range(60)) for _ in range(2))
    cases = [
        (test, test, 10, "the test itself"), (test, 'nothing of it', 3, "another text"), (test, run(0, 9), 10, "too few words"),
        (test, f'{run(5, 12).upper()}, x {run(13, 20)}.', 15, "15 words of the test, the middle one replaced"),
        (test, f'{run(5, 10)} x {run(11, 15)} x {run(16, 20)}', 15, "15 words of the test, two of them replaced"),
        (test, f'{run(0, 12)} . . {run(4, 16)}', 12, "two runs that overlap in the test"),
        (test, f'{run(0, 5)} {run(6, 20)}', 16, "a word left out: the words behind it are no longer in step"),
        (a, b, 5, "the same three words in another order")]
    for test, page, n, what in cases:
        share, found = _given_away(test, page, n), answer(test, page, n)
        assert found is not None, "Return a share."
        hint = f"A page with {what}, n = {n}: {share:.3f} of the test, not {float(found):.3f}."
        assert abs(float(found) - share) < 1e-9, hint


def check_3(answer):
    "A page without the test in it, and otherwise the same."
    test = 'The lamp is red, and the mill is old.'
    before, after = 'Well -- we said:\n\n"', '". That, at least, is what "they" say!'
    other = 'The lamp: is\nred -- and the   mill is old.'
    for copy in (test, test.upper(), other, 'the lamp is red and the mill is old.'):
        page = before + copy + after
        found = answer(page, test)
        assert found is not None, "Return the page."
        hint = f"A page with {copy[:14]!r}...: its rest has changed, or the test is still in it."
        assert found == before + '.' + after, hint
    page = 'The lamp is redder, and the mill is old. Another page.'
    assert answer(page, test) == page, "This page does not hold the test: 'redder' is not 'red'."
    rng = random.Random(0)
    words = [f'w{rng.randrange(6)}' for _ in range(400)]
    wanted = ' '.join(words[200:204])
    at = next(i for i in range(400) if words[i:i+4] == words[200:204])
    rest = ' '.join(words[:at]) + '  ' + ' '.join(words[at+4:])
    found = answer(' '.join(words), wanted)
    assert found.split() == rest.split(), "Cut out the first place, and that alone."


def check_4(answer):
    "(texts, test, n): the smallest n that suspects the source alone."
    texts, test, n = answer
    assert len(texts) >= 20, f"Give at least 20 texts; here are {len(texts)}."
    assert len(_words(test)) >= 40, f"The test needs 40 words; it has {len(_words(test))}."
    sources = [text for text in texts if ' '.join(_words(test)) in ' '.join(_words(text))]
    assert len(sources) == 1, f"The test must be in one of the texts; it is in {len(sources)}."
    def suspects(n): return sum(bool(_grams(text, n) & _grams(test, n)) for text in texts)
    n = int(n)
    assert suspects(n) == 1, f"With n = {n} there are {suspects(n)} suspects."
    assert n == 1 or suspects(n - 1) > 1, f"With n = {n - 1} it is the only suspect too."
