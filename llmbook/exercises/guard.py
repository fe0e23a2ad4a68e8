"What `grade` asks of the answers to the exercises of the chapter `guard`."
from functools import partial


class _Board:
    "A store of texts. After the given number of calls, something else happens in between."
    def __init__(self, calls): self.values, self.calls, self.meanwhile = {}, calls, None

    def _called(self):
        self.calls -= 1
        if self.calls == 0: self.meanwhile()

    def get(self, key):
        value = self.values.get(key, '')
        self._called()
        return value

    def set(self, key, value):
        self.values[key] = value
        self._called()

    def compare_set(self, key, expected, value):
        if self.values.get(key, '') == expected: self.values[key] = value
        there = self.values[key]
        self._called()
        return there


def _ask(answer, board, rank, heard): heard[rank] = bool(answer(board, rank))


def check_1(answer):
    "One of two ranks speaks, at whatever moment the other comes."
    for calls in range(1, 5):
        heard, board = {}, _Board(calls)
        board.meanwhile = partial(_ask, answer, board, 1, heard)
        _ask(answer, board, 0, heard)
        if 1 not in heard: _ask(answer, board, 1, heard)
        speakers = [r for r, speaks in heard.items() if speaks]
        when = f"Rank 1 asks just after call {calls} of rank 0 to the board"
        assert speakers, f"{when}: nobody speaks."
        assert len(speakers) == 1, f"{when}: both speak."
