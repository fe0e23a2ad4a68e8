"What `grade` asks of the answers to the exercises of the chapter `lesson`."


def _mean(xs): return sum(xs) / len(xs)

def _running_mean(xs):
    mean = 0.0
    for n, x in enumerate(xs, 1): mean += (x - mean) / n
    return mean

def _emptying(xs):
    total, n = 0, len(xs)
    while xs: total += xs.pop()
    return total / n

WRONG = {
    "says 2 to everything": lambda xs: 2,
    "gives the sum": sum,
    "gives the largest": max,
    "gives the middle one": lambda xs: sorted(xs)[len(xs) // 2],
    "rounds down": lambda xs: sum(xs) // len(xs),
    "leaves out the sign": lambda xs: abs(_mean(xs)),
    "gives the middle of the smallest and the largest": lambda xs: (min(xs) + max(xs)) / 2,
    "gives nothing": lambda xs: None,
    "empties the list": _emptying,
}


def check_1(answer):
    "The check of an exercise about the mean of a list."
    for right in (_mean, _running_mean):
        try: answer(right)
        except AssertionError: raise AssertionError("A right answer was refused.") from None
    for what, function in WRONG.items():
        try: answer(function)
        except AssertionError as e: assert str(e), f"A function that {what} got no hint."
        except Exception: continue # a check that breaks down refuses too
        else: raise AssertionError(f"A function that {what} was let through.")
