"What `grade` asks of the answers to the exercises of the chapter `guard`."
from itertools import combinations_with_replacement


class _Board:
    "A store of strings on which several ranks fail, each while the one before is busy with it."
    def __init__(self, answer, ranks, starts):
        self.answer = answer
        self.values = {}
        self.calls = 0
        self.coming = list(zip(starts, ranks[1:])) # (after how many calls in all, rank)
        self.speakers = []
        self.ask(ranks[0])
        while self.coming: self.ask_next()

    def ask(self, rank):
        if self.answer(self, rank): self.speakers.append(rank)

    def ask_next(self):
        _, rank = self.coming.pop(0)
        self.ask(rank)

    def called(self):
        "Count a call; the next rank may come before its result is used."
        self.calls += 1
        if self.coming and self.calls >= self.coming[0][0]: self.ask_next()

    def get(self, key):
        value = self.values.get(key, '')
        self.called()
        return value

    def set(self, key, value):
        self.values[key] = value
        self.called()

    def compare_set(self, key, expected, value):
        if self.values.get(key, '') == expected: self.values[key] = value
        there = self.values.get(key, '')
        self.called()
        return there


def _check_speakers(answer, ranks, starts):
    "As many ranks speak as should."
    speakers = len(_Board(answer, ranks, starts).speakers)
    expected = min(2, len(ranks))
    when = ''.join(f', rank {r} after call {n} to the board' for r, n in zip(ranks[1:], starts))
    problem = f"{speakers} of {len(ranks)} speak, {expected} should."
    assert speakers == expected, f"Rank {ranks[0]} fails{when}: {problem}"


def check_1(answer):
    "The first two speak, however their calls to the board come between each other."
    for ranks in ([0], [5], [1, 0], [3, 7], [0, 1, 2], [9, 4, 6], [2, 8, 1, 5]):
        for starts in combinations_with_replacement(range(1, 7), len(ranks) - 1):
            _check_speakers(answer, ranks, starts)
