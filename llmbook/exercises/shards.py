"What `grade` asks of the answers to the exercises of the chapter `shards`."


def check_1(answer):
    "Which numbers of which parameters a rank holds."
    for sizes, world in (([6, 4], 2), ([3, 5, 4], 3), ([7, 1, 2], 4), ([2, 9], 1), ([1], 2), ([10, 3, 3, 1], 2)):
        length, total = -(-sum(sizes) // world), sum(sizes)
        flat = [(i, j) for i, size in enumerate(sizes) for j in range(size)]
        for rank in range(world):
            found = answer(list(sizes), world, rank)
            assert found is not None and found is not ..., "No answer so far."
            held = [(i, j) for i, first, end in found for j in range(first, end)]
            wanted = flat[min(rank*length, total):min((rank + 1)*length, total)]
            assert held == wanted, f"Sizes {sizes}, rank {rank} of {world}: that is not the piece of the vector."
            assert all(first < end for _, first, end in found), f"Sizes {sizes}: an empty piece of a parameter is left out."
