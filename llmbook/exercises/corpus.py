"What `grade` asks of the answers to the exercises of the chapter `corpus`."
import itertools

from llmbook.text.corpus import hold_out


def check_1(answer):
    "The held-out part of four documents."
    _, val = hold_out([{'id': name, 'text': 'x' * n} for name, n in (('a', 50), ('b', 30), ('c', 15), ('d', 5))])
    assert sum(n for _, n in answer) == 10, "A tenth of 100 characters is held out: the lengths must add up to 10."
    right = [(d['id'], len(d['text'])) for d in val]
    assert list(map(tuple, answer)) == right, "Look at the id of the second half of a cut document."


def check_2(answer):
    "Groups of ids whose texts are equal up to case and white space."
    texts = ['The lamp.', 'a mill', ' the\n lamp. ', 'The  Lamp.', 'amill', 'A MILL', 'barn']
    found = answer([{'id': str(i), 'text': t} for i, t in enumerate(texts)])
    groups = sorted(map(list, found or []))
    assert all(len(g) > 1 for g in groups), "A document without a copy is not a group."
    assert ['0', '2', '3'] in groups, "'The lamp.', ' the\\n lamp. ' and 'The  Lamp.' belong together."
    assert groups == [['0', '2', '3'], ['1', '5']], f"Two groups are expected, ['0', '2', '3'] and ['1', '5']; here are {groups}."


def check_3(answer):
    "Rows of a jsonl text."
    texts = ['one', 'two\u2028lines', 'a\x85b', 'four\\lines']
    for end in ('\n', '\r\n'):
        packed = end.join('{"text": "' + t.replace('\\', '\\\\') + '"}' for t in texts) + end + end
        try: rows = [row['text'] for row in answer(packed)]
        except ValueError: raise AssertionError("A row was cut: str.splitlines splits at more than the ends of lines.") from None
        assert rows == texts, f"The rows should hold {texts}, and hold {rows}."


def check_4(answer):
    "(texts, k): the k most frequent words are just enough for half of the text."
    words = [w for text in answer[0] for w in text.lower().split()]
    assert len(words) >= 1000, f"Give at least 1,000 words; here are {len(words)}."
    counts = {}
    for w in words: counts[w] = counts.get(w, 0) + 1
    sums = list(itertools.accumulate(sorted(counts.values(), reverse=True)))
    k = next(i for i, total in enumerate(sums, 1) if 2 * total >= len(words))
    assert answer[1] >= k, f"The {answer[1]} most frequent words make up less than half of the text."
    assert answer[1] == k, "Fewer words would do."
