"What `grade` asks of the answers to the exercises of the chapter `zero`."
import math


def check_1(answer):
    "How many ranks are enough."
    found = float(answer)
    assert found != 6, "That divides everything; what does stage 2 leave complete on every rank?"
    assert found != 5, "That leaves no room for what is complete on every rank."
    assert found >= 13, "The states of a rank do not fit into 40 GB."
    assert found == 13, "It fits, but fewer ranks would be enough."


def check_2(answer):
    "The largest model that fits."
    cases = {
        (80e9, 8, 3, 'bf16'): 40e9,
        (24e9, 1, 0, 'fp32'): 1.5e9,
        (80e9, 64, 2, 'bf16'): 80e9/(2 + 14/64),
        (40e9, 4, 1, 'fp32'): 40e9/11,
    }
    for given, right in cases.items():
        found = answer(*given)
        assert found is not None, "No answer so far."
        close = math.isclose(found, right, rel_tol=0.01)
        assert close, f"{given}: the states of {found:.3g} weights do not fill it."


def check_3(answer):
    "Gigabytes sent per step of four micro-batches at stage 2."
    found = float(answer)
    half = 24.375
    def close(halves): return math.isclose(found, halves*half, rel_tol=0.01)
    assert not close(2), "That is one micro-batch. Can its gradients wait for those of the next?"
    assert not close(8), "That is four steps. What happens once per step, however many micro-batches it has?"
    assert close(5), "Which of the two halves is sent in every micro-batch?"
