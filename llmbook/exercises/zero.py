"What `grade` asks of the answers to the exercises of the chapter `zero`."
import math


def check_1(answer):
    "Gigabytes a rank keeps."
    assert not math.isclose(float(answer), 208/16, rel_tol=0.01), "That is stage 3; at stage 2 the weights are whole."
    assert not math.isclose(float(answer), 71.5, rel_tol=0.01), "bf16 weights take two bytes, and so do their gradients."
    assert math.isclose(float(answer), 37.375, rel_tol=0.01), "Two bytes a weight are whole, fourteen are cut in sixteen."


def check_2(answer):
    "The largest model that fits."
    for given, right in (((80e9, 8, 3, 'bf16'), 40e9), ((24e9, 1, 0, 'fp32'), 1.5e9), ((80e9, 64, 2, 'bf16'), 80e9/(2 + 14/64))):
        found = answer(*given)
        assert found is not None and math.isclose(found, right, rel_tol=0.01), f"{given}: {right:.3g} weights, not {found}."
