"What `grade` asks of the answers to the exercises of the chapter `engine`."
import math


def check_1(answer):
    "Gigabytes a rank keeps."
    assert not math.isclose(float(answer), 208/16, rel_tol=0.01), "That is stage 3; at stage 2 the weights are whole."
    assert not math.isclose(float(answer), 71.5, rel_tol=0.01), "bf16 weights take two bytes, and so do their gradients."
    assert math.isclose(float(answer), 37.375, rel_tol=0.01), "Two bytes a weight are whole, fourteen are cut in sixteen."


def check_2(answer):
    "A deal of batches."
    for n, world in ((3, 2), (1, 4), (8, 4), (0, 2), (7, 3)):
        hands = [answer(n, world, rank) for rank in range(world)]
        assert len({len(hand) for hand in hands}) == 1, f"{n} batches, {world} ranks: not all make as many calls."
        counted = sorted(i for hand in hands for i, counts in hand if counts)
        assert counted == list(range(n)), f"{n} batches, {world} ranks: counted are {counted}."
        assert all(0 <= i < n for hand in hands for i, _ in hand), "A call needs a batch that exists."
        assert len(hands[0]) == -(-n // world), f"{n} batches, {world} ranks: {len(hands[0])} calls are too many."


def check_3(answer):
    "What a rank hands to a library that averages."
    for nats, tokens in (([6., 6.], [1, 3]), ([10., 4., 9.], [5, 1, 6]), ([7., 0.], [2, 0])):
        world, right = len(nats), sum(nats) / sum(tokens)
        found = sum(answer(s, n, sum(tokens), world) for s, n in zip(nats, tokens)) / world
        assert not math.isclose(found*world, right), f"{world} ranks: {world} times too small; the average divides once more."
        assert math.isclose(found, right), f"Nats {nats} over {tokens} tokens: the average is {found:.3f}, not {right:.3f}."


def check_4(answer):
    "The largest model that fits."
    for given, right in (((80e9, 8, 3, 'bf16'), 40e9), ((24e9, 1, 0, 'fp32'), 1.5e9), ((80e9, 64, 2, 'bf16'), 80e9/(2 + 14/64))):
        found = answer(*given)
        assert found is not None and math.isclose(found, right, rel_tol=0.01), f"{given}: {right:.3g} weights, not {found}."
