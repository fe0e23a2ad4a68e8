"What `grade` asks of the answers to the exercises of the chapter `core`."
import os
from pathlib import Path

from llmbook.core import seed_of


def check_1(answer):
    "Three comparisons of seeds."
    pairs = [(seed_of(0, 'a', 'b'), seed_of(0, 'ab')), (seed_of(0, 1), seed_of(0, '1')),
             (seed_of(1, 'a'), seed_of(0, 1, 'a'))]
    assert len(answer) == 3, "Three truth values are expected."
    for which, said, (a, b) in zip('abc', answer, pairs): assert said == (a == b), f"({which}) is not so: look at what is hashed."


def check_2(answer):
    "A shuffle that is a function of the seed."
    import random
    items, state = list(range(20)), random.getstate()
    first, again, other = answer(items, 0), answer(items, 0), answer(items, 1)
    assert items == list(range(20)), "The list that was handed in has changed."
    assert random.getstate() == state, "The global stream has moved: use a stream of your own."
    assert sorted(first) == items and first != items, "The items must all be there, in another order."
    assert first == again, "The same seed gave two orders."
    assert first != other, "Another seed should give another order."


def check_3(answer):
    "A file that survives an iterator that breaks down."
    import tempfile
    def broken():
        yield 'new'
        raise RuntimeError
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'notes.txt'
        answer(path, iter(['old', 'text']))
        assert path.read_text() == 'old\ntext\n', "Two lines, each with its end, should be in the file."
        try: answer(path, broken())
        except RuntimeError: pass
        else: raise AssertionError("The error was swallowed: whoever called should hear of it.")
        assert path.read_text() == 'old\ntext\n', "After the breakdown the file should hold what it held before."
        assert len(os.listdir(folder)) == 1, "Something was left lying beside the file."
