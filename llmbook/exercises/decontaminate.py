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


def check_2(answer):
    "The share of a test that a page gives away."
    words = [f'w{i}' for i in range(40)]
    test = ' '.join(words)
    def run(first, last): return ' '.join(words[first:last])
    cases = [
        (f'Before. {run(5, 17).upper()}, after.', 10, 12 / 40, "12 words of the test in a row"),
        (f'{run(0, 10)} x {run(10, 20)} y', 10, 20 / 40, "two runs of 10 words"),
        (f'{run(0, 9)} x {run(20, 29)}', 10, 0, "two runs of 9 words, n = 10"),
        (f'{run(0, 12)} x {run(4, 16)}', 12, 16 / 40, "two runs that overlap in the test"),
        (test, 10, 1, "the test itself"), ('nothing of it', 3, 0, "another text")]
    for page, n, share, what in cases:
        found = answer(test, page, n)
        assert found is not None, "Return a share."
        hint = f"A page with {what}: {share:.3f} of the test, not {float(found):.3f}."
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
