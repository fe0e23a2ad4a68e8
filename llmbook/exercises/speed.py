"What `grade` asks of the answers to the exercises of the chapter `speed`."
import math


def check_1(answer):
    "Model FLOPs utilisation."
    mfu = float(answer)
    assert not math.isclose(mfu, 42.24, rel_tol=0.02), "That is in percent; give a share, between 0 and 1."
    assert math.isclose(mfu, 0.4224, rel_tol=0.02), "How many operations per weight and token, forward and backward?"
