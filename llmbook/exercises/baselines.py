"What `grade` asks of the answers to the exercises of the chapter `baselines`."

import math

import torch


def check_1(answer):
    "One right answer in a group of 8, and one in a group of 64."
    answer = float(answer)
    assert abs(answer - 1.125) > 0.06, (
        "Those are the advantages before the division."
    )
    assert abs(answer - 3) > 0.06, (
        "Divide by the standard deviation with one less in the denominator, as `std` does."
    )
    assert abs(answer - 3.18) < 0.05, (
        "Divide each advantage by the standard deviation of its own group."
    )


def _length(p, points, baseline):
    "Mean of the squared length of the gradient."
    total = 0.0
    for y, chance in enumerate(p.tolist()):
        score = [float(y == other) - q for other, q in enumerate(p.tolist())]
        total += (
            chance * (points[y].item() - baseline) ** 2 * sum(s * s for s in score)
        )
    return total


def check_2(answer):
    "The constant that leaves the least variance."

    def found(p, points):
        value = answer(p.clone(), points.clone())
        assert value is not None, "Return a number."
        value = torch.as_tensor(value, dtype=torch.float64)
        assert value.numel() == 1, (
            f"One number, not a tensor of shape {tuple(value.shape)}."
        )
        return value.item()

    even = torch.full((4,), 0.25)
    points = torch.tensor([3.0, 0.0, 1.0, 0.0])
    assert math.isclose(found(even, points), 1, rel_tol=1e-4), (
        "Four answers are equally likely: their scores are equally long."
    )
    g = torch.Generator().manual_seed(0)
    for n in (2, 3, 6):
        p = (2 * torch.randn(n, generator=g)).softmax(0)
        points = torch.randn(n, generator=g)
        value = found(p, points)
        least = _length(p, points, value)
        nearby = [_length(p, points, value + step) for step in (-0.01, 0.01)]
        assert least < min(nearby), (
            f"{n} answers that are not equally likely: another baseline near {value:.3f} has less variance."
        )


def check_3(answer):
    "Which means survive micro-batches."
    names = {str(name).lower() for name in answer}
    known = {'token', 'sequence', 'constant'}
    assert names <= known, f"The aggregations are {', '.join(sorted(known))}."
    for name in sorted(known):
        needs_tokens = name == 'token'
        assert (name in names) != needs_tokens, (
            "Which denominators are the same in each micro-batch, and which are not?"
        )


def check_4(answer):
    "Groups that are large enough to differ."

    def found(p, wanted):
        K = answer(p, wanted)
        assert K is not None, "Return a number of answers."
        return int(K)

    assert found(0.5, 0.5) == 2, (
        "Two answers with even chances differ in half of the cases."
    )
    for p, wanted in ((0.1, 0.5), (0.9, 0.5), (0.3, 0.95), (0.98, 0.7)):
        K = found(p, wanted)
        for size, enough in ((K, True), (K - 1, False)):
            if size < 2:
                continue
            alike = p**size + (1 - p) ** size
            assert (1 - alike >= wanted) == enough, (
                f"p = {p}, wanted {wanted}: {K} is not the smallest. A group may be all wrong, or all right."
            )
