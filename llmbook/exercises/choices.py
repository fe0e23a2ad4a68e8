"What `grade` asks of the answers to the exercises of the chapter `choices`."
import random
import re
from collections import Counter

from llmbook.text.state import NEGATIVE, POSITIVE
from llmbook.text.tasks import task_story


def check_1(answer):
    "Two parts, known or guessed."
    share = float(answer)
    assert 0 <= share <= 1, f"An accuracy is between 0 and 1; here is {share}."
    assert abs(share - 0.72) < 0.004, f"{share:.3f} is not it; a part that is guessed is right half of the time."


def check_2(answer):
    "Each value is false as often as it is true, and never where it is true."
    rng = random.Random(0)
    for n in (4, 7, 12, 25):
        for _ in range(20):
            counts = [n // 2, *rng.choices(range(1, 4), k=n)]
            values = [f'v{i}' for i, count in enumerate(counts) for _ in range(count)][:n]
            rng.shuffle(values)
            rows = [(f'name{i}', value) for i, value in enumerate(values)]
            received = answer(list(rows))
            assert received is not None, "Return a list of (name, wrong value)."
            received = [tuple(row) for row in received]
            assert [row[0] for row in received] == [row[0] for row in rows], "The same names in the same order, please."
            true = [row for row in received if row in rows]
            assert not true, f"{true[0]} is true." if true else ''
            wanted, have = Counter(values), Counter(row[1] for row in received)
            uneven = [value for value in wanted | have if wanted[value] != have[value]]
            assert not uneven, f"A value is true {wanted[uneven[0]]} times and false {have[uneven[0]]} times."


def _drawn_moods(n, seed):
    "(true ending, false ending) of stories, the false mood drawn from all moods."
    rng = random.Random(seed)
    for i in range(n):
        text = task_story(3, 10_000*seed + i).text
        ending = text[text.rindex('In the end'):]
        words, mood = ending[:-1].rsplit(' ', 1)
        other = rng.choice([word for word in POSITIVE + NEGATIVE if word != mood])
        yield ending, f'{words} {other}.', rng.random() < 0.5


def mood_pairs(
    n:int, # how many
    seed:int, # of the pairs
)->list[tuple[str, str]]: # endings, of which one is true
    "Pairs of last sentences that differ in the mood."
    return [(false, true) if turned else (true, false) for true, false, turned in _drawn_moods(n, seed)]


def check_3(answer):
    "Better than chance without the story."
    pairs = list(_drawn_moods(300, 7))
    points = 0
    for true, false, turned in pairs:
        a, b = (false, true) if turned else (true, false)
        choice = answer(a, b)
        assert choice in (0, 1), f"Return 0 or 1, not {choice!r}."
        points += choice == turned
    share = points/len(pairs)
    assert share >= 0.7, f"{share:.2f} of the pairs are right."


def _difference(good, bad):
    "The words of each that are not shared at the beginning or at the end."
    good, bad = list(good), list(bad)
    while good and bad and good[0] == bad[0]: del good[0], bad[0]
    while good and bad and good[-1] == bad[-1]: del good[-1], bad[-1]
    return good, bad


def check_4(answer):
    "Ten pairs that neither length nor unknown words give away."
    pairs = [tuple(re.findall(r'\w+|[^\w\s]', text) for text in pair) for pair in answer]
    assert len(pairs) >= 10, f"At least ten pairs; here are {len(pairs)}."
    known = {word for good, _ in pairs for word in good}
    for good, bad in pairs:
        assert good != bad, f"The same twice: {' '.join(good)}"
        most = max(map(len, _difference(good, bad)))
        assert most <= 3, f"They differ over {most} words: {' '.join(bad)}"
        new = [word for word in bad if word not in known]
        assert not new, f"{new[0]!r} is in none of the good ones." if new else ''
    longer = sum(len(bad) > len(good) for good, bad in pairs)
    shorter = sum(len(bad) < len(good) for good, bad in pairs)
    assert longer == shorter, f"{longer} bad ones are longer and {shorter} are shorter."
