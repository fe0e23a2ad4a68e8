"What `grade` asks of the answers to the exercises of the chapter `ranks`."


def check_1(answer):
    "Who a process is."
    assert len(answer) == 3, "Three numbers are expected."
    rank, local, world = answer
    assert world == 12, "The world is all processes, of all machines."
    assert local == 3, "LOCAL_RANK counts on one machine, from zero."
    assert rank == 7, "RANK counts over all machines, from zero."


def check_2(answer):
    "Slices of all ranks, side by side."
    for n in (0, 1, 7, 10, 12, 100):
        for world in (1, 2, 3, 4, 7):
            slices = [answer(n, rank, world) for rank in range(world)]
            assert None not in slices, "Return two numbers."
            taken = [i for first, end in slices for i in range(first, end)]
            assert taken == list(range(n)), f"{n} numbers, {world} ranks: {slices} is not each number once and in order."
            sizes = [end - first for first, end in slices]
            assert max(sizes) - min(sizes) <= 1, f"{n} numbers, {world} ranks: the sizes are {sizes}."


def check_3(answer):
    "The longest text, wherever it is."
    for texts in (['one', 'three', 'two', 'four'], ['seventeen', 'six']):
        found = answer(texts)
        assert found is not None, "Return a text."
        assert found == max(texts, key=len), f"Of {texts} you return {found!r}."
