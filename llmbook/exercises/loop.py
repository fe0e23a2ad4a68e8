"What `grade` asks of the answers to the exercises of the chapter `loop`."

def check_1(answer):
    "How often to save."
    for given, steps in (((0.5, 4, 5), 759), ((2, 30, 24), 1138), ((600, 1, 0.1), 1)):
        found = answer(*given)
        assert isinstance(found, int) and found >= 1, "Return a whole number of steps, at least 1."
        assert abs(found - steps) <= 1, f"{given}: about {steps} steps, not {found}."


def check_2(answer):
    "Steps computed by a run that is killed twice."
    assert float(answer) == 1070, "From which checkpoint does each start begin, and where does it end?"


def check_3(answer):
    "Early stopping, read off the log."
    cases = (([3, 2, 1], 2, False), ([3, 2, 2.5], 2, False), ([3, 2, 2.5, 2.2], 2, True), ([3, 2, 2.5, 2.2, 1.9], 2, False),
             ([3, 2, 2.5, 2.2, 2.1, 1.9], 3, False), ([3, 2, 2.5, 2.2, 2.1], 3, True), ([1], 1, False), ([1, 1], 1, True))
    for losses, patience, right in cases:
        rows = []
        for i, nats in enumerate(losses, 1): rows += [{'step': i, 'loss': 9 - i, 'tokens': 100*i}, {'step': i, 'val_loss': nats}]
        for log in (rows, rows + [{'step': len(losses) + 1, 'loss': 0.5, 'tokens': 999}]):
            found = answer(log, patience)
            assert found is not None, "Return True or False."
            assert bool(found) == right, f"held out {losses}, patience {patience}: {right} is right, not {bool(found)}."
