"What `grade` asks of the answers to the exercises of the chapter `completion`."
import random


def check_1(answer):
    "A shuffle that leaves the global generator and the caller's list alone."
    rows = list(range(8))
    before = random.getstate()
    orders = [answer(list(rows), seed) for seed in range(40)]
    untouched = random.getstate() == before
    again = [answer(list(rows), seed) for seed in range(40)]
    random.setstate(before)
    for order in orders:
        assert sorted(order) == rows, f"Each row once: {order} is not an order of {rows}."
    assert orders == again, "The same seed gives another order the second time."
    firsts = {order[0] for order in orders}
    assert len(firsts) > 4, "Over many seeds, nearly every row should come first once."
    assert untouched, "Python's global generator has moved: the training will draw other numbers next."
    given = list(rows)
    for seed in range(5): answer(given, seed)
    random.setstate(before)
    assert given == rows, "The global generator is left alone, but the rows of the training are in another order."
