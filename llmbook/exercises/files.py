"What `grade` asks of the answers to the exercises of the chapter `files`."
import os
from pathlib import Path


def check_1(answer):
    "A file that survives an iterator that breaks down."
    import tempfile
    def broken():
        yield 'new'
        raise RuntimeError
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'notes.txt'
        answer(path, iter(['old', 'text']))
        assert path.read_text() == 'old\ntext\n', "Two lines, each with its end, should be in the file."
        try: answer(path, broken())
        except RuntimeError: pass
        else: raise AssertionError("The error was swallowed: whoever called should hear of it.")
        assert path.read_text() == 'old\ntext\n', "After the breakdown the file should hold what it held before."
        assert len(os.listdir(folder)) == 1, "Something was left lying beside the file."


def check_2(answer):
    "Names of the files that changed."
    old, new = {'a': '1', 'b': '2', 'c': '3'}, {'a': '1', 'b': '9', 'd': '4'}
    assert answer(old, old) is not None, "Return a set of names."
    assert set(answer(old, old)) == set(), "Nothing changed between a manifest and itself."
    assert set(answer(old, new)) == {'b', 'c', 'd'}, "b has another checksum, c is gone, d is new."


def check_3(answer):
    "Is a name safe?"
    for name in ('model.safetensors', 'trainer/rng-0.x', 'a..b'): assert answer(name), f"{name!r} is harmless."
    for name in ('../x', '/etc/passwd', 'a/../../x', '..', '', 'a//b', 'C:\\x', '.hidden'):
        assert not answer(name), f"{name!r} was let through."
