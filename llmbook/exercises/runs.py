"What `grade` asks of the answers to the exercises of the chapter `runs`."


class _Killed(BaseException):
    "Not an `Exception`, so that no answer catches it by accident."


class _Disk:
    "What survives a kill: a list, and how far everything is complete."
    def __init__(self): self.numbers, self.complete, self.lives = [], 0, None

    def _live(self):
        if self.lives is None: return
        if self.lives == 0: raise _Killed
        self.lives -= 1

    def done(self):
        self._live()
        return self.complete

    def listed(self):
        self._live()
        return list(self.numbers)

    def append(self, i):
        self._live()
        self.numbers.append(i)

    def finish(self, i):
        self._live()
        self.complete = i

    def forget(self, i):
        self._live()
        self.numbers = [number for number in self.numbers if number <= i]


def _start(program, disk, n, lives):
    "Run a program until it ends or is killed."
    disk.lives = lives
    try: program(disk, n)
    except _Killed: pass


def check_1(answer):
    "A list that survives a kill."
    n = 4
    disk = _Disk()
    answer(disk, n)
    assert disk.numbers == [1, 2, 3, 4], f"Undisturbed, the list is {disk.numbers}."
    once = [(first,) for first in range(20)]
    twice = [(first, second) for first in range(20) for second in range(10)]
    for kills in once + twice:
        disk = _Disk()
        for lives in kills: _start(answer, disk, n, lives)
        _start(answer, disk, n, None)
        calls = ' and then '.join(str(lives + 1) for lives in kills)
        complete = sorted(disk.numbers) == [1, 2, 3, 4]
        assert complete, f"Killed before call {calls}: in the end the list is {disk.numbers}."
