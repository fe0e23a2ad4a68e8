"What `grade` asks of the answers to the exercises of the chapter `core`."
from llmbook.core import seed_of


def check_1(answer):
    "Three comparisons of seeds."
    pairs = [
        (seed_of(0, 'a', 'b'), seed_of(0, 'ab')),
        (seed_of(0, 1), seed_of(0, '1')),
        (seed_of(1, 'a'), seed_of(0, 1, 'a')),
    ]
    assert len(answer) == 3, "Three truth values are expected."
    right = [said == (a == b) for said, (a, b) in zip(answer, pairs)]
    assert all(right), "Not all three are so: write down for each what is hashed."


def check_2(answer):
    "An order for each seed and epoch."
    import random
    items, state = [f'page {i}' for i in range(20)], random.getstate()
    kept = list(items)
    cases = [(seed, epoch) for seed in range(3) for epoch in range(3)]
    orders = {case: answer(items, *case) for case in cases}
    assert None not in orders.values(), "No answer so far."
    assert items == kept, "The list that was handed in has changed."
    assert random.getstate() == state, "The global stream has moved: use a stream of your own."
    for order in orders.values():
        shuffled = sorted(order) == sorted(kept) and order != kept
        assert shuffled, "The items must all be there, in another order."
    for case in reversed(cases):
        again = answer(items, *case)
        assert again == orders[case], "The same seed and epoch gave two orders."
    seen = {}
    for case, order in orders.items():
        same = seen.setdefault(tuple(order), case)
        assert same == case, f"Seed and epoch {same} have the same order as {case}."
