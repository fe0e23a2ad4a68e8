"What `grade` asks of the answers to the exercises of the chapter `trainer_state`."
import math


def check_1(answer):
    "The size of a Muon run's state."
    gigabytes = float(answer)
    adam = math.isclose(gigabytes, 12, abs_tol=0.05)
    assert not adam, "That is Adam's: two averages for every weight."
    right = math.isclose(gigabytes, 8.4, abs_tol=0.05)
    assert right, "Count bytes per number: the weights, then the averages of each kind."
