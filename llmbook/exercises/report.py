"What `grade` asks of the answers to the exercises of the chapter `report`."
import math


def check_1(answer):
    "From bits per byte and nats per token to bytes per token."
    answer = float(answer)
    assert not math.isclose(answer, 3.0 / 1.2, abs_tol=0.01), "Nats over bits: bring both to the same unit first."
    assert math.isclose(answer, 3.0 / math.log(2) / 1.2, abs_tol=0.02), "How many bits does a token cost, how many a byte?"


def check_2(answer):
    "What is missing in a config."
    full = {'args': {'seed': 0, 'steps': 5}, 'device': 'x', 'commit': 'y', 'versions': {}}
    assert answer(full) == [], "Nothing is missing there."
    assert answer(full | {'commit': None}) == ['commit'], "A commit that is None is missing."
    assert sorted(answer({'args': {'steps': 5}, 'device': 'x'})) == ['commit', 'seed', 'versions'], "seed is among args."
    assert answer(full | {'args': {'seed': 0}}) == [], "Seed 0 is a seed."
