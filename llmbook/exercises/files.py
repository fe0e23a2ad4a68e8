"What `grade` asks of the answers to the exercises of the chapter `files`."
import json
import os
from pathlib import Path


def _doubled(numbers): return [2*number for number in numbers]

def _breaks_down(numbers): raise RuntimeError


def check_1(answer):
    "A JSON file that survives a change that breaks down, and a kill."
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        path, same_bytes = Path(folder)/'notes.json', Path(folder)/'second name'
        path.write_text('[1, 2]')
        os.link(path, same_bytes) # a second name of the file that is there now
        answer(path, _doubled)
        assert json.loads(path.read_text()) == [2, 4], "The file should hold what `change` returned."
        beside = same_bytes.read_text() == '[1, 2]'
        assert beside, "The new text was written over the old: a kill in between would leave half of it."
        try: answer(path, _breaks_down)
        except RuntimeError: pass
        else: raise AssertionError("The error was swallowed: whoever called should hear of it.")
        text = path.read_text() if path.exists() else ''
        kept = text and json.loads(text) == [2, 4]
        assert kept, "After an error the file should hold what it held before."
        assert len(os.listdir(folder)) == 2, "Something was left lying beside the file."


def check_2(answer):
    "Names of the files that changed."
    old = {'a': '1', 'b': '2', 'c': '3'}
    new = {'a': '1', 'b': '9', 'd': '4'}
    assert answer(old, old) is not None, "Return a set of names."
    assert set(answer(old, old)) == set(), "Nothing changed between a manifest and itself."
    assert set(answer(old, new)) == {'b', 'c', 'd'}, "b has another checksum, c is gone, d is new."


HARMLESS = ['summer/Ærø 1.jpg', 'a..b', 'x', '2024/07/me.png']
HARMFUL = {
    'A name that leads out of the folder': ['../x', 'a/../../x', '..', 'a/..'],
    'An absolute name': ['/etc/passwd'],
    'A name with an empty part': ['', 'a//b', 'a/'],
    'A name for Windows': ['C:\\x', 'a\\..\\..\\x'],
    'A hidden name': ['.hidden', 'a/.b'],
}


def check_3(answer):
    "Is a name safe?"
    for name in HARMLESS: assert answer(name), f"{name!r} is harmless."
    for kind, names in HARMFUL.items():
        assert not any(answer(name) for name in names), f"{kind} was let through."
