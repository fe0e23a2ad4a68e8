"What `grade` asks of the answers to the exercises of the chapter `trainer_state`."
import math


def check_1(answer):
    "The size of a Muon run's state."
    gigabytes = float(answer)
    assert not math.isclose(gigabytes, 12, abs_tol=0.05), "That is Adam's: two averages for every weight."
    assert math.isclose(gigabytes, 8.4, abs_tol=0.05), "Four bytes per number: the weights, then the averages of each kind."
