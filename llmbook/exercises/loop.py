"What `grade` asks of the answers to the exercises of the chapter `loop`."


def check_1(answer):
    "Steps that are kept when every job is stopped after the same time."
    cases = (
        ((1, 20, 1, 75), 2775), ((1, 20, 1, 3000), 3000), ((1, 20, 1, 4000), 0), ((1, 20, 1, 1), 171),
        ((2, 30, 5, 1000), 8000), ((2, 30, 5, 500), 8500), ((0.5, 4, 0.1, 100), 600),
    )
    for given, right in cases:
        found = answer(*given)
        assert found is not None, "Return a number of steps."
        assert found >= 0 and float(found).is_integer(), f"{given}: {found} is no number of steps."
        assert found <= given[2] * 3600 / given[0], f"{given}: {found} steps do not fit into the time."
        assert found == right, f"{given}: {right} steps are kept, not {found}. What happens to a step that no save follows?"


def check_2(answer):
    "Steps computed by a run whose machine fails at regular intervals."
    assert float(answer) == 1600, "Write down, for each start, the step that it begins with and the step that it ends with."


def log_of(losses):
    "Rows of training and of measurement, in turn."
    rows = []
    for i, nats in enumerate(losses, 1):
        rows += [{'step': i, 'loss': 9 - i, 'tokens': 100*i}, {'step': i, 'val_loss': nats}]
    return rows


def check_3(answer):
    "Early stopping, read off the log; every log is one that a run with this rule can have."
    cases = (
        ([3, 2, 1], 2, False), ([3, 2, 2.5], 2, False), ([3, 2, 2.5, 2.2], 2, True), ([3, 2, 2.5, 1.9], 2, False),
        ([3, 2, 2.5, 2.2, 1.9], 3, False), ([3, 2, 2.5, 2.2, 2.1], 3, True), ([1], 1, False), ([1, 1], 1, True),
        ([3, 2, 2.5, 1.9, 1.95, 2], 2, True), ([2, 3], 2, False),
    )
    for losses, patience, right in cases:
        found = answer(log_of(losses), patience)
        assert found is not None, "Return True or False."
        assert bool(found) == right, f"held out {losses}, patience {patience}: {right} is right, not {bool(found)}."
