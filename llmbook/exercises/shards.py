"What `grade` asks of the answers to the exercises of the chapter `shards`."

CASES = [([6, 4], 2), ([3, 5, 4], 3), ([7, 1, 2], 4), ([2, 9], 1), ([1], 2), ([10, 3, 3, 1], 2)] # sizes, ranks


def check_1(answer):
    "Which numbers of which parameters a rank holds."
    for sizes, world in CASES:
        length = -(-sum(sizes) // world)
        vector = []
        for i, size in enumerate(sizes): vector += [(i, j) for j in range(size)]
        for rank in range(world):
            triples = answer(list(sizes), world, rank)
            assert triples is not None and triples is not ..., "No answer so far."
            held = []
            for i, first, end in triples: held += [(i, j) for j in range(first, end)]
            wanted = vector[rank*length:(rank + 1)*length]
            case = f"Sizes {sizes}, rank {rank} of {world}: you return {triples}"
            assert held == wanted, f"{case}; that is not what this rank holds."
            empty = [triple for triple in triples if triple[1] >= triple[2]]
            assert not empty, f"{case}; leave out what is empty."
