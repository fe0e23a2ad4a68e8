"What `grade` asks of the answers to the exercises of the chapter `engine`."
import math


DEALS = [(3, 2), (1, 4), (8, 4), (0, 2), (7, 3)] # batches, ranks


def check_1(answer):
    "A division of batches into blocks."
    for n, world in DEALS:
        case = f"{n} batches, {world} ranks"
        ranks = [answer(n, world, rank) for rank in range(world)]
        assert None not in ranks, "No answer so far."
        calls = {len(pairs) for pairs in ranks}
        assert len(calls) == 1, f"{case}: the ranks make different numbers of calls."
        counted = [number for pairs in ranks for number, counts in pairs if counts]
        assert sorted(counted) == list(range(n)), f"{case}: the batches {counted} are counted."
        assert counted == sorted(counted), f"{case}: the ranks count {counted}; these are not blocks."
        existing = all(0 <= number < n for pairs in ranks for number, _ in pairs)
        assert existing, f"{case}: every call needs a batch that exists."
        needed = -(-n // world)
        assert calls == {needed}, f"{case}: {len(ranks[0])} calls are more than necessary."


def check_2(answer):
    "Forward passes per rank and step, before and after."
    before, after = answer
    assert before == 4, "Before: write down the rows of one rank, and cut them up."
    assert after == 5, "After: write down the rows of one rank, and cut them up."


def _run(*pairs):
    "What steps returned: losses and norms; a NaN is a skipped step."
    steps = [{'loss': loss, 'grad_norm': norm} for loss, norm in pairs]
    return [step if math.isfinite(step['loss']) else step | {'skipped': [1]} for step in steps]


BASE = _run((5.0, 2.0), (4.0, 1.0), (3.0, 0.5))
SKIPPING = _run((5.0, 2.0), (math.nan, math.nan))
CASES = [ # two runs, do they agree, why
    (BASE, BASE, True, "a run agrees with itself"),
    (BASE, _run((5.0 + 5e-7, 2.0), (4.0, 1.0005), (3.0, 0.5)), True, "this is rounding"),
    (BASE, _run((5.0, 2.0), (4.0001, 1.0), (3.0, 0.5)), False, "a loss is off"),
    (BASE, _run((5.0, 1.0), (4.0, 0.5), (3.0, 0.25)), False, "the norms are half as large"),
    (BASE, _run((5.0, 2.0), (4.0, 1.0), (3.0, 0.502)), False, "a norm is off by four thousandths"),
    (BASE, BASE[:2], False, "one of them is shorter"),
    (SKIPPING, SKIPPING, True, "both skipped the same step"),
    (BASE[:2], SKIPPING, False, "one of them skipped a step"),
]


def check_3(answer):
    "Do two runs agree?"
    for one, two, wanted, why in CASES:
        verdict = answer(one, two)
        assert verdict is not None, "No answer so far."
        assert bool(verdict) == wanted, f"You say {bool(verdict)}, but {why}."
