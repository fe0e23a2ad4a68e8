"What `grade` asks of the answers to the exercises of the chapter `core`."
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
