"What `grade` asks of the answers to the exercises of the chapter `report`."
import math


def check_1(answer):
    "How much larger the second model's archive is."
    answer = float(answer)
    bits = 3.0 / math.log(2) / 3.9
    assert not math.isclose(answer, 3.0 / 3.9 / 1.2, abs_tol=0.01), "Bring both to the same unit first."
    assert not math.isclose(answer, 1.2 / bits, abs_tol=0.01), "The other way round: how much more does the second need?"
    assert math.isclose(answer, bits / 1.2, abs_tol=0.01), "How many bits does the second model need for a byte?"


def check_2(answer):
    "What is missing in a config."
    full = {'args': {'seed': 0, 'steps': 5}, 'device': 'x', 'commit': 'y', 'versions': {'torch': '2.13'}}

    def found(config):
        names = answer(config)
        assert names is not None, "Return the names."
        return sorted(names)

    assert found(full) == [], "Nothing is missing in a config that has all four."
    assert found(full | {'commit': None}) == ['commit'], "A commit that is None tells nothing."
    assert found(full | {'versions': {}}) == ['versions'], "An empty dict of versions tells nothing."
    assert found({'args': {'steps': 5}, 'device': 'x'}) == ['commit', 'seed', 'versions'], "The seed is among the arguments."
    assert found({'device': 'x', 'seed': 1}) == ['commit', 'seed', 'versions'], "There may be no arguments at all."


def check_3(answer):
    "A verdict that respects the error."
    assert answer(-0.30, 0.01) == 'first', "A lower cost is better."
    assert answer(0.30, 0.01) == 'second', "A lower cost is better."
    assert answer(-0.01, 0.02) == answer(0.03, 0.02) == 'no difference', "That difference is within its error."
    assert answer(0.30, math.nan) == 'no difference', "What if the error is not known?"
