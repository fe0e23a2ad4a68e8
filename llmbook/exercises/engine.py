"What `grade` asks of the answers to the exercises of the chapter `engine`."
import math


def check_1(answer):
    "A deal of batches in blocks."
    for n, world in ((3, 2), (1, 4), (8, 4), (0, 2), (7, 3)):
        hands = [answer(n, world, rank) for rank in range(world)]
        assert None not in hands, "No answer so far."
        assert len({len(hand) for hand in hands}) == 1, f"{n} batches, {world} ranks: not all make as many calls."
        counted = [i for hand in hands for i, counts in hand if counts]
        assert sorted(counted) == list(range(n)), f"{n} batches, {world} ranks: counted are {counted}."
        assert counted == sorted(counted), f"{n} batches, {world} ranks: counted are {counted}, which are no blocks."
        assert all(0 <= i < n for hand in hands for i, _ in hand), "A call needs a batch that exists."
        assert len(hands[0]) == -(-n // world), f"{n} batches, {world} ranks: {len(hands[0])} calls are too many."


def check_2(answer):
    "Forward passes per rank and step, before and after."
    before, after = answer
    assert (before, after) != (24, 24), "Those are the passes of all ranks together."
    assert before == 3, "Divide the batch among the ranks first, then the rows of one rank by --micro."
    assert after == 4, "On fewer ranks each has more rows."


def check_3(answer):
    "Do two runs agree?"
    def step(loss, norm): return {'loss': loss, 'grad_norm': norm} | ({} if math.isfinite(loss) else {'skipped': [1]})
    def run(*pairs): return [step(*pair) for pair in pairs]
    nan, base = math.nan, run((5.0, 2.0), (4.0, 1.0), (3.0, 0.5))
    cases = [
        (base, base, True, "a run agrees with itself"),
        (base, run((5.0 + 5e-7, 2.0), (4.0, 1.0005), (3.0, 0.5)), True, "this is rounding"),
        (base, run((5.0, 2.0), (4.0001, 1.0), (3.0, 0.5)), False, "a loss is off"),
        (base, run((5.0, 1.0), (4.0, 0.5), (3.0, 0.25)), False, "the losses are the same, the norms are half"),
        (base, run((5.0, 2.0), (4.0, 1.0), (3.0, 0.502)), False, "the last norm is off by more than a thousandth of itself"),
        (base, base[:2], False, "one of them is shorter"),
        (run((5.0, 2.0), (nan, nan)), run((5.0, 2.0), (nan, nan)), True, "both skipped the same step"),
        (run((5.0, 2.0), (4.0, 1.0)), run((5.0, 2.0), (nan, nan)), False, "one of them skipped a step")]
    for one, two, wanted, why in cases:
        found = answer(one, two)
        assert found is not None, "No answer so far."
        assert bool(found) == wanted, f"You say {bool(found)}, but {why}."
