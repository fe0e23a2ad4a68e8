"What `grade` asks of the answers to the exercises of the chapter `loop`."


KEPT = ( # seconds per step, seconds per save, hours, steps between saves; steps that are kept
    ((1, 20, 1, 75), 2775),
    ((1, 20, 1, 3000), 3000),
    ((1, 20, 1, 4000), 0),
    ((1, 20, 1, 1), 171),
    ((2, 30, 5, 1000), 8000),
    ((2, 30, 5, 500), 8500),
    ((0.5, 4, 0.1, 100), 600),
)


def check_1(answer):
    "Steps that are kept when every job is stopped after the same time."
    for given, right in KEPT:
        seconds_per_step, _, hours, _ = given
        found = answer(*given)
        assert found is not None, "Return a number of steps."
        complete = found >= 0 and float(found).is_integer()
        assert complete, f"{given}: {found} is no number of steps."
        most = hours * 3600 / seconds_per_step
        assert found <= most, f"{given}: {found} steps do not fit into the time."
        question = "What happens to a step that no save follows?"
        assert found == right, f"{given}: {right} steps are kept, not {found}. {question}"


def check_2(answer):
    "Steps computed by a run whose machine fails at regular intervals."
    hint = "Write down, for each start, the step that it begins with and the step that it ends with."
    assert float(answer) == 1600, hint


def log_of(losses):
    "Rows of training and of measurement, in turn."
    rows = []
    for step, nats in enumerate(losses, 1):
        rows.append({'step': step, 'loss': 9 - step, 'tokens': 100*step})
        rows.append({'step': step, 'val_loss': nats})
    return rows


STOPS = ( # held-out losses, patience; is it time to stop?
    ([1], 1, False),
    ([1, 1], 1, True),
    ([2, 3], 2, False),
    ([3, 2, 1], 2, False),
    ([3, 2, 2.5], 2, False),
    ([3, 2.5, 3.5], 2, False),
    ([3, 2, 2.5, 1.9], 2, False),
    ([3, 2, 2.5, 2.2], 2, True),
    ([3, 2, 2.5, 2.2, 1.9], 3, False),
    ([3, 2, 2.5, 2.2, 2.1], 3, True),
    ([3, 2, 2.5, 1.9, 1.95, 2], 2, True),
    ([1, 3, 2.5, 2.7], 2, True), # written with more patience
)


def check_3(answer):
    "Early stopping, read off the log."
    for losses, patience, right in STOPS:
        found = answer(log_of(losses), patience)
        assert found is not None, "Return True or False."
        case = f"held out {losses}, patience {patience}"
        assert bool(found) == right, f"{case}: {right} is right, not {bool(found)}."
