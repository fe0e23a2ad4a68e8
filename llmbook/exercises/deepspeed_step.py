"What `grade` asks of the answers to the exercises of the chapter `deepspeed_step`."
import math


def check_1(answer):
    "What a rank hands to a library that averages."
    for nats, tokens in (([6., 6.], [1, 3]), ([10., 4., 9.], [5, 1, 6]), ([7., 0.], [2, 0])):
        world, right = len(nats), sum(nats) / sum(tokens)
        found = sum(answer(s, n, sum(tokens), world) for s, n in zip(nats, tokens)) / world
        assert not math.isclose(found*world, right), f"{world} ranks: {world} times too small; the average divides once more."
        assert math.isclose(found, right), f"Nats {nats} over {tokens} tokens: the average is {found:.3f}, not {right:.3f}."
