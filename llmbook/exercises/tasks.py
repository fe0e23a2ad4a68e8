"What `grade` asks of the answers to the exercises of the chapter `tasks`."
import re
from collections import Counter

from llmbook.text.tasks import question_rows, task_story


def check_1(answer):
    "The way from the most frequent answer of each kind to a perfect reader."
    answer = float(answer)
    assert abs(answer - 0.357) > 0.005, "That starts from the best constant. Somebody who knows the kind has more."
    assert abs(answer - 0.1625) > 0.005, "That is how far it has come; divide by how far there is to go."
    assert 0 < answer < 1, "Give a share, between 0 and 1."
    assert abs(answer - 0.2653) < 0.006, "Add up what is right in each kind, by its share of the rows."


def _thing_places(story):
    "(thing, place) of the things that the last sentence does not name."
    state, found = story.state, []
    ending = story.text.split('In the end')[-1]
    for thing in state.things:
        name = f'{state.quality[thing]} {thing}'
        spot = state.where[thing]
        if name not in ending: found.append((name, state.where.get(spot, spot)))
    return found if len({place for _, place in found}) > 1 else []


def check_2(answer):
    "Where the things are."
    for i in range(200):
        story = task_story(3, i)
        found, wanted = answer(story), _thing_places(story)
        assert found is not None, "Return a list of pairs."
        found = [tuple(pair) for pair in found]
        strangers = [place for _, place in found if place in story.state.cast]
        assert not strangers, f"{strangers[0]} is a person; the thing is where that person is."
        ending = story.text.split('In the end')[-1]
        assert not any(name in ending for name, _ in found), "The last sentence names one of your things."
        assert wanted or not found, "They are all in the same place, so none is to be asked about."
        assert found == wanted, f"For this story {wanted} was expected: {story.text}"


def check_3(answer):
    "A split by story, which stays as it is when rows are added."
    by_level = [list(question_rows(300, level, seed=5)) for level in (1, 2)]
    rows = [row for pair in zip(*by_level, strict=True) for row in pair]
    result = answer(list(rows))
    assert result is not None and len(result) == 2, "Return two lists, for training and held out."
    sides = [[row['id'] for row in part] for part in result]
    assert sorted(sides[0] + sides[1]) == sorted(row['id'] for row in rows), "Each row has to be on one side, once."
    order = {row['id']: i for i, row in enumerate(rows)}
    for side in sides: assert side == sorted(side, key=order.get), "Keep the rows in their order."
    stories = [{row['meta']['story'] for row in part} for part in result]
    both = len(stories[0] & stories[1])
    assert not both, f"{both} stories are on both sides."
    share = len(sides[1]) / len(rows)
    assert 0.05 <= share <= 0.2, f"{share:.2f} of the rows are held out."
    for part in (rows[:300], rows[100:500], rows[::-1]):
        again = {row['id'] for row in answer(list(part))[1]}
        wanted = {row['id'] for row in part} & set(sides[1])
        assert again == wanted, "Of other rows of the same collection, some have changed sides."


def check_4(answer):
    "[(text, question, answer), ...] that cannot be guessed."
    rows = [tuple(map(str, row)) for row in answer]
    assert len(rows) >= 12, f"Give 12 rows or more; here are {len(rows)}."
    assert all(len(row) == 3 for row in rows), "Each row is a text, a question and an answer."
    assert len({text for text, _, _ in rows}) == len(rows), "Two rows have the same text."
    for text, _, word in rows:
        assert word in re.findall(r'\w+', text), f"{word!r} is no word of its text: {text[:60]}"
    asked = {question for _, question, _ in rows}
    assert len(asked) >= 3, f"Ask three different questions or more; here are {len(asked)}."
    constant = max(Counter(word for _, _, word in rows).values()) / len(rows)
    assert constant <= 0.25, f"One answer is right in {constant:.2f} of the rows."
    table = sum(max(Counter(w for _, q, w in rows if q == question).values()) for question in asked) / len(rows)
    assert table <= 0.5, f"A table of questions is right in {table:.2f} of the rows."
