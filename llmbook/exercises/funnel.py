"What `grade` asks of the answers to the exercises of the chapter `funnel`."
import itertools
import math
import random


def check_1(answer):
    "Three shares."
    answer = tuple(answer)
    assert len(answer) == 3, "Give three numbers: recall, precision, good text lost."
    recall, precision, lost = answer
    assert math.isclose(recall, 0.75, abs_tol=0.001), (
        "Recall: of the spam that there is, how much is gone?")
    assert math.isclose(precision, 0.9375, abs_tol=0.001), (
        "Precision: of the pages that were dropped, how many were spam?")
    assert math.isclose(lost, 0.0225, abs_tol=0.0003), (
        "Good text: words of dropped pages and deleted words, of all good words.")


def _page(name, story, keep=True):
    return {'id': name, 'text': '', 'meta': {'story': story, 'keep': keep}}


def check_2(answer):
    "Words of stories that are not in what was kept."
    story, other = ' '.join(f'a{i}' for i in range(10)), ' '.join(f'b{i}' for i in range(10))
    pages = [_page('a', story), _page('b', other), _page('spam', '', False), _page('c', story, False)]
    complete = [{'id': 'a', 'text': story}, {'id': 'b', 'text': other}]
    filled = ' '.join(word for word in story.split() if word != 'a3') + ' subscribe to our weekly newsletter now'
    between = story.replace('a5', 'a5 click here')
    jumped = 'a8 a9 a0 x a1 x a2 x a3' # the longest run is a8 a9, but more words are in order without it
    cases = {'everything is there': (complete, 0), 'one page was dropped': (complete[:1], 0.5),
             'both pages were dropped': ([], 1),
             'a word is missing, and a line was left in': ([{'id': 'a', 'text': filled}, complete[1]], 1/20),
             'a line was left in the middle': ([{'id': 'a', 'text': between}, complete[1]], 0),
             'half of a page is missing': ([{'id': 'a', 'text': story[:len(story)//2]}, complete[1]], 5/20),
             'a sentence was moved to the front': ([{'id': 'a', 'text': jumped}, complete[1]], 6/20)}
    for name, (kept, wanted) in cases.items():
        lost = answer(pages, kept)
        assert lost is not None, "Return the share."
        assert math.isclose(float(lost), wanted, abs_tol=1e-9), (
            f"{name}: {float(lost):.3f} is lost, you say; it is {wanted:.3f}.")


def check_3(answer):
    "A number of documents."
    assert float(answer) == int(answer), "A whole number of documents."
    assert 0.98 ** int(answer) <= 0.05, (
        "With so few, one in 20 readers would find no good document although 2 % are good.")
    assert 0.98 ** (int(answer) - 1) > 0.05, "Fewer are enough."


def _cost(steps):
    "Milliseconds that a document costs on average."
    total, left = 0, 1
    for ms, survive in steps:
        total += left * ms
        left *= survive
    return total


def check_4(answer):
    "The order that costs least."
    rng = random.Random(0)
    cases = [[(2.0, 0.95), (0.02, 0.88), (1.0, 0.3)], [(1.0, 1.0), (5.0, 0.1), (2.0, 0.9)]]
    cases += [[(rng.uniform(0.01, 5), rng.uniform(0.05, 0.99)) for _ in range(n)] for n in (1, 2, 3, 4, 5, 5, 5)]
    for steps in cases:
        order = answer(list(steps))
        assert order is not None, "Return the pairs in their new order."
        order = [tuple(step) for step in order]
        assert sorted(order) == sorted(steps), "Return the same pairs, each of them once."
        best = min(map(_cost, itertools.permutations(steps)))
        shown = ', '.join(f'({ms:.2f}, {survive:.2f})' for ms, survive in steps)
        assert _cost(order) <= best * (1 + 1e-9), (
            f"{shown}: yours costs {_cost(order):.3f} ms, the best order {best:.3f} ms.")
    many = [(rng.uniform(0.01, 5), rng.uniform(0.05, 0.99)) for _ in range(8)]
    assert len(list(answer(list(many)))) == 8, "Eight filters must be possible too."
