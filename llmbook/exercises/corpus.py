"What `grade` asks of the answers to the exercises of the chapter `corpus`."
import itertools
import json
from collections import Counter

from llmbook.text.corpus import hold_out


def _documents(texts:dict[str, str])->list[dict]:
    "Documents by their ids."
    return [{'id': name, 'text': text} for name, text in texts.items()]


def _jsonl_row(text:str)->str:
    "A text as a row of jsonl, its characters as they are."
    return json.dumps({'text': text}, ensure_ascii=False)


def check_1(answer):
    "The held-out part of five documents."
    lengths = {'a': 40, 'b': 30, 'c': 20, 'd': 6, 'e': 4}
    texts = {name: 'x' * n for name, n in lengths.items()}
    _, val = hold_out(_documents(texts), 0.25)
    names, sizes = zip(*answer)
    total = sum(sizes)
    assert total == 25, f"A quarter of 100 characters is held out; yours add up to {total}."
    right_sizes = tuple(len(d['text']) for d in val)
    right_names = tuple(d['id'] for d in val)
    assert sizes == right_sizes, "Where among the 100 characters is the border?"
    assert names == right_names, "Look again at the id of the second half of a cut document."


def check_2(answer):
    "Groups of ids whose texts are equal up to case and white space."
    texts = ['The lamp.', 'a mill', ' the\n lamp. ', 'The  Lamp.', 'amill', 'A MILL', 'barn']
    numbered = {str(i): text for i, text in enumerate(texts)}
    documents = _documents(numbered)
    found = answer(documents) or []
    groups = sorted(map(list, found))
    assert all(len(group) > 1 for group in groups), "A document without a copy is not a group."
    lamps = ['0', '2', '3']
    shown = ', '.join(repr(texts[int(i)]) for i in lamps)
    assert lamps in groups, f"{shown} belong together, in this order."
    assert ['1', '4', '5'] not in groups, "'a mill' and 'amill' are different texts."
    right = [lamps, ['1', '5']]
    assert groups == right, f"There should be two groups, of 3 and 2; here are {groups}."


def _rows_by_splitlines(packed):
    "The function of exercise 3, as it was given."
    return [json.loads(line) for line in packed.splitlines() if line.strip()]


def _texts_of(read, packed):
    "The texts that a function reads, or None where it fails."
    try: return [row['text'] for row in read(packed)]
    except ValueError: return None


def check_3(answer):
    "(a text that breaks the given function, a function that reads every row)."
    text, read = answer
    assert isinstance(text, str), "Give a text that breaks the function first."
    packed = _jsonl_row(text)
    before = _texts_of(_rows_by_splitlines, packed)
    assert before != [text], "The function above reads this text without a mistake."
    assert _texts_of(read, packed) == [text], "Your function does not read your own text back."
    texts = ['one', 'two\u2028lines', 'a\x85b', 'four\\lines', 'five\nlines', '']
    rows = [_jsonl_row(text) for text in texts]
    for end in ('\n', '\r\n'):
        packed = end.join(rows) + end + end
        found = _texts_of(read, packed)
        where = f"rows ended with {end!r}"
        assert found is not None, f"A row was cut, or an empty line parsed; {where}."
        assert found == texts, f"Not all of {len(texts)} texts came back as they were; {where}."


def check_4(answer):
    "(texts, k): the k most frequent words are just enough for half of the text."
    texts, k = answer
    words = ' '.join(texts).lower().split()
    assert len(words) >= 1000, f"Give at least 1,000 words; here are {len(words)}."
    counts = sorted(Counter(words).values(), reverse=True)
    covered = list(itertools.accumulate(counts))
    enough = next(i for i, total in enumerate(covered, 1) if 2 * total >= len(words))
    assert k >= enough, f"The {k} most frequent words make up less than half of the text."
    assert k == enough, "Fewer words would do."
