"What `grade` asks of the answers to the exercises of the chapter `zero`."
import math


def check_1(answer):
    "Gigabytes a rank keeps."
    assert not math.isclose(float(answer), 208/16, rel_tol=0.01), "That is stage 3; at stage 2 every rank has all weights."
    assert not math.isclose(float(answer), 71.5, rel_tol=0.01), "bf16 weights take two bytes, and so do their gradients."
    assert math.isclose(float(answer), 37.375, rel_tol=0.01), "Two bytes per weight are complete, fourteen are divided by sixteen."


def check_2(answer):
    "The largest model that fits."
    for given, right in (((80e9, 8, 3, 'bf16'), 40e9), ((24e9, 1, 0, 'fp32'), 1.5e9), ((80e9, 64, 2, 'bf16'), 80e9/(2 + 14/64))):
        found = answer(*given)
        assert found is not None, "No answer so far."
        assert math.isclose(found, right, rel_tol=0.01), f"{given}: the states of {found:.3g} weights do not fill it."


def check_3(answer):
    "Gigabytes sent per step of four micro-batches."
    found = float(answer)
    assert not math.isclose(found, 36.75, rel_tol=0.01), "That is one micro-batch; nothing is left for the next."
    assert not math.isclose(found, 110.25, rel_tol=0.01), "Gradients have to be added up after each micro-batch."
    assert math.isclose(found, 147, rel_tol=0.01), "Three passages of 14 GB for each micro-batch, seven eighths of it sent."
