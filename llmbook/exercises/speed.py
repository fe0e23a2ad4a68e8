"What `grade` asks of the answers to the exercises of the chapter `speed`."
import math


def check_1(answer):
    "Tokens per second, from the model FLOPs utilisation."
    tokens = float(answer)
    whole = math.isclose(tokens, 9470, rel_tol=0.02)
    assert not whole, "That is the rate at an `mfu` of 1."
    right = math.isclose(tokens, 5682, rel_tol=0.02)
    assert right, "How many operations does a token take, forward and backward?"
