"What `grade` asks of the answers to the exercises of the chapter `rotary_scaling`."
import math

import torch

from llmbook.model.attention import rotate
from llmbook.model.rotary_scaling import scaled_angles


def check_1(answer):
    "Three kinds of planes."
    answer = tuple(answer)
    assert len(answer) == 3, "Give three numbers: kept, mixed, divided."
    assert sum(answer) == 8, "There are eight planes in all."
    assert answer == (4, 1, 3), "A speed is radians per token, and a turn is 2 pi of them: how many in 1,000 tokens?"


def check_2(answer):
    "A base that slows the slowest plane down."
    for theta, D, factor in ((10_000.0, 16, 8.0), (10_000.0, 128, 4.0), (500_000.0, 4, 2.0), (10_000.0, 8, 1.0)):
        slowest = theta ** (2/D - 1)
        base = answer(theta, D, factor)
        assert base is not None, "Return the base."
        new = float(base) ** (2/D - 1)
        hint = f"base {theta:,.0f}, heads of size {D}: the slowest plane is {slowest / new:.3f} times slower, not {factor}."
        assert math.isclose(slowest / new, factor, rel_tol=1e-6), hint


def _scores(q, k, turn):
    "Query times key, both turned, at eight positions."
    cos, sin = turn
    return rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2)


def check_3(answer):
    "One number in place of larger cosines and sines."
    rng = torch.Generator().manual_seed(0)
    positions, theta = torch.arange(8), 10_000.0
    yarn = dict(rope_type='yarn', factor=4.0, original_max_position_embeddings=64)
    cases = {'a plain recipe': {}, 'a larger factor': {'factor': 16.0}, 'attention_factor': {'attention_factor': 1.5},
             'mscale': {'mscale': 2.0, 'mscale_all_dim': 0.5}}
    for D in (8, 64):
        q, k = (torch.randn(1, 1, 8, D, generator=rng) for _ in range(2))
        for name, more in cases.items():
            rope = yarn | more
            wanted = _scores(q, k, scaled_angles(positions, D, theta, rope)) / math.sqrt(D)
            same_speed = scaled_angles(positions, D, theta, rope | {'attention_factor': 1.0})
            scale = answer(rope, D)
            assert scale is not None, "Return the number."
            received = _scores(q, k, same_speed) * float(scale)
            ratio = (received.norm() / wanted.norm()).item()
            assert abs(ratio - 1) < 1e-4, f"{name}: the scores are {ratio:.3f} times what they should be."
