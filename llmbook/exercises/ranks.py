"What `grade` asks of the answers to the exercises of the chapter `ranks`."


def check_1(answer):
    "What a process takes, on three machines and on two."
    assert len(answer) == 3, "Three numbers are expected."
    first, many, later = answer
    assert first == 6, "RANK counts over all machines, LOCAL_RANK on one; both begin at zero."
    assert many == 8, "The step from text to text is the world. Count until the texts end."
    assert later == 12, "The same process, but the world has changed, and the step with it."


def check_2(answer):
    "Slices of all ranks, side by side."
    for speeds in ([1], [1, 1], [3, 1], [1, 1, 1], [2, 5, 3, 1], [1, 4, 4, 4, 1, 7]):
        for n in (0, 1, 7, 10, 12, 100):
            slices = [answer(n, rank, speeds) for rank in range(len(speeds))]
            case = f"{n} numbers, speeds {speeds}"
            assert None not in slices, "Return two numbers."
            taken = [i for first, end in slices for i in range(first, end)]
            in_order = taken == list(range(n))
            assert in_order, f"{case}: {slices} is not each number once and in order."
            for (first, end), speed in zip(slices, speeds):
                size, fair = end - first, n*speed/sum(speeds)
                assert abs(size - fair) < 1, f"{case}: {size} numbers where {fair:.2f} would be fair."


class _Text(str):
    "A text that notes when it is sent to another process, where it arrives as a plain one."
    sent = 0
    def __reduce_ex__(self, protocol):
        _Text.sent += 1
        return str, (str(self),)


def check_3(answer):
    "The longest text, wherever it is, and found by ranks."
    for words in ('one three two four', 'seventeen six', 'a bee can do every fine game again'):
        texts = [_Text(word) for word in words.split()]
        _Text.sent = 0
        found = answer(texts)
        assert found is not None, "Return a text."
        longest = max(len(text) for text in texts)
        assert found in texts and len(found) == longest, f"Of {words.split()} you return {found!r}."
        assert _Text.sent >= len(texts), "Not all texts were sent to ranks: let them do the search."
