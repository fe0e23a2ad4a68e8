"What `grade` asks of the answers to the exercises of the chapter `sft`."
import random

from llmbook.text.batches import IGNORE


def check_1(answer):
    "The loss of a batch of two conversations."
    answer = float(answer)
    assert abs(answer - 1.6) > 0.02, (
        "That is the mean of two means; a long answer has more labels than a short one.")
    assert abs(answer - 2.1) > 0.02, "The questions do not count."
    assert abs(answer - 1.0) < 0.02, (
        "Add up the nats of all answer tokens, and divide by how many there are.")


def _masks():
    "Masks of conversations of one to four turns, with the mask of the last answer."
    rng = random.Random(0)
    for turns in (1, 2, 3, 4) * 5:
        asked, start = [], 0
        for _ in range(turns):
            asked += [False] * rng.randint(1, 5)
            start = len(asked)
            asked += [True] * rng.randint(1, 4)
        rest = [False] * rng.randint(0, 2)
        yield asked + rest, [False] * start + asked[start:] + rest


def check_2(answer):
    "Only the last answer."
    for asked, wanted in _masks():
        before = list(asked)
        found = answer(asked)
        assert found is not None, "Return a list of True and False."
        assert asked == before, "Leave the list that you are given as it is."
        assert len(found) == len(wanted), f"{len(found)} entries for {len(wanted)} tokens."
        assert list(map(bool, found)) == wanted, f"Of {before}: {list(found)}."


def check_3(answer):
    "Labels that belong to their places."
    rng = random.Random(1)
    for asked, _ in _masks():
        ids = [rng.randrange(10, 99) for _ in asked]
        labels = answer(list(ids), list(asked))
        assert labels is not None and len(labels) == len(ids) - 1, (
            "A label for each token but the last.")
        for place, label in enumerate(labels):
            wanted = ids[place + 1] if asked[place + 1] else IGNORE
            where = f"ids {ids}, asked {[int(a) for a in asked]}, place {place}"
            assert int(label) == wanted, f"{where}: {int(label)}, not {wanted}."


def check_4(answer):
    "How many questions leak."
    def row(question, reply='yes'): return [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]
    train = [row('Name a colour.', 'red'), row('What is 2 and 2?'), row('Who are you?')]
    cases = [([row('Name a colour.', 'blue')], 1.0), ([row('name  a colour. '), row('What is 2 and 3?')], 0.5),
             ([row('red'), row('yes')], 0.0), ([row('WHO ARE\nYOU?')], 1.0), ([row('Name a colour. Now!')] * 3, 0.0)]
    later = row('Hello.') + row('Name a colour.')
    cases.append(([later], 0.0)) # it is the first question that counts
    for val, wanted in cases:
        found = answer(train, val)
        assert found is not None, "Return a share."
        assert abs(float(found) - wanted) < 1e-9, (
            f"{[messages[0]['content'] for messages in val]}: {float(found)}, not {wanted}.")
