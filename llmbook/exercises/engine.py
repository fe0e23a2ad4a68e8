"What `grade` asks of the answers to the exercises of the chapter `engine`."


def check_1(answer):
    "A deal of batches."
    for n, world in ((3, 2), (1, 4), (8, 4), (0, 2), (7, 3)):
        hands = [answer(n, world, rank) for rank in range(world)]
        assert len({len(hand) for hand in hands}) == 1, f"{n} batches, {world} ranks: not all make as many calls."
        counted = sorted(i for hand in hands for i, counts in hand if counts)
        assert counted == list(range(n)), f"{n} batches, {world} ranks: counted are {counted}."
        assert all(0 <= i < n for hand in hands for i, _ in hand), "A call needs a batch that exists."
        assert len(hands[0]) == -(-n // world), f"{n} batches, {world} ranks: {len(hands[0])} calls are too many."
