"What `grade` asks of the answers to the exercises of the chapter `spans`."
import random


def check_1(answer):
    "One of several places, by chance."
    rows = float(answer)
    assert abs(rows - 78.33) < 0.5, f"{rows:.1f} rows are not it: a word that occurs twice is right half of the time."


def check_2(answer):
    "Characters to tokens."
    rng = random.Random(0)
    for _ in range(100):
        offsets, at = [], 0
        for _ in range(12):
            at += rng.randrange(2)
            size = rng.randint(1, 5)
            offsets.append((at, at + size))
            at += size
        first = rng.randrange(12)
        last = min(11, first + rng.randrange(3))
        start = rng.randrange(*offsets[first])
        end = rng.randint(max(start, offsets[last][0]) + 1, offsets[last][1])
        found = tuple(answer(list(offsets), start, 'x' * (end - start)))
        hint = f"An answer from {start} to {end} in tokens {offsets}: {found} instead of {(first, last)}."
        assert found == (first, last), hint
    assert tuple(answer([(0, 3), (4, 6)], None, '')) == (0, 0), "Without an answer it is (0, 0)."


def check_3(answer):
    "Cleaned contexts whose answers still point at the same words."
    context = 'A  mill  stood by the  river.   Mira went to the mill  and met  Odo.'
    for start in (3, 49, None):
        answers = {'text': ['mill'], 'answer_start': [start]} if start else {'text': [], 'answer_start': []}
        if start: assert context[start:start + 4] == 'mill'
        row = answer({'context': context, 'answers': {key: list(value) for key, value in answers.items()}})
        clean = ' '.join(context.split())
        assert row['context'] == clean, "The context should have single spaces."
        wanted = [len(' '.join(context[:start].split())) + 1] if start else []
        given = list(row['answers']['answer_start'])
        assert given == wanted, f"The answer begins at {wanted}, not at {given}."
        assert list(row['answers']['text']) == answers['text'], "The words of the answer do not change."


def check_4(answer):
    "A word that occurs before the place that answers, and is not in the question."
    context, question, answers = str(answer['context']), str(answer['question']), answer['answers']
    assert len(context.split()) >= 20, f"At least 20 words, please; here are {len(context.split())}."
    assert question.strip().endswith('?'), "A question ends with a question mark."
    [text], [start] = answers['text'], answers['answer_start']
    there = context[int(start):int(start) + len(text)]
    assert text and there == text, f"At {start} the context has {there!r}, not {text!r}."
    beside = context[:int(start)][-1:] + context[int(start) + len(text):][:1]
    word = len(text) > 2 and not any(character.isalnum() for character in beside)
    assert word, "The answer should be a whole word of three letters or more."
    assert text.lower() not in question.lower(), "The question should not contain its answer."
    first = context.find(text)
    assert first != int(start), "This is the first occurrence; a search would find it."
