"What `grade` asks of the answers to the exercises of the chapter `report`."
import math


def check_1(answer):
    "From nats a token to bits a byte."
    assert not math.isclose(float(answer), 2.0 / 4, abs_tol=0.001), "That is nats a byte; a bit is ln 2 nats."
    assert math.isclose(float(answer), 2.0 / 4 / math.log(2), abs_tol=0.005), "Nats a token, over bytes a token, over ln 2."


def check_2(answer):
    "What is missing in a config."
    full = {'args': {'seed': 0, 'steps': 5}, 'device': 'x', 'git_commit': 'y', 'versions': {}}
    assert answer(full) == [], "Nothing is missing there."
    assert answer(full | {'git_commit': None}) == ['git_commit'], "A commit that is None is missing."
    assert sorted(answer({'args': {'steps': 5}, 'device': 'x'})) == ['git_commit', 'seed', 'versions'], "seed stands among args."
    assert answer(full | {'args': {'seed': 0}}) == [], "Seed 0 is a seed."
