"What `grade` asks of the answers to the exercises of the chapter `labels`."
import random
from collections import Counter


def check_1(answer):
    "The best guess for each hypothesis, weighted."
    share = float(answer)
    assert abs(share - 0.5) < 0.005, f"{share:.3f} is not it: for each hypothesis take its most frequent label."


def check_2(answer):
    "As many rows as possible, and every second half fair."
    rng = random.Random(0)
    for n in (0, 1, 6, 60):
        rows = []
        for i in range(n):
            label = rng.choice(['next', 'other', 'other'])
            rows.append({'number': i, 'text_pair': f'sentence {rng.randrange(5)}', 'label': label})
        kept = answer([dict(row) for row in rows])
        assert kept is not None, "Return the rows to keep."
        kept = list(kept)
        numbers = [row['number'] for row in kept]
        assert numbers == sorted(set(numbers)), "Keep the order, and each row once at most."
        before = Counter((row['text_pair'], row['label']) for row in rows)
        after = Counter((row['text_pair'], row['label']) for row in kept)
        for pair in {row['text_pair'] for row in rows}:
            sides = after[pair, 'next'], after[pair, 'other']
            assert sides[0] == sides[1], f"One second half occurs {sides[0]} times as next and {sides[1]} as other."
            most = min(before[pair, 'next'], before[pair, 'other'])
            assert sides[0] == most, f"{most} rows of each label could be kept for one second half; {sides[0]} were."
        first = Counter()
        for row in rows:
            key = row['text_pair'], row['label']
            first[key] += 1
            wanted = first[key] <= after[key]
            assert wanted == (row['number'] in numbers), "Where some have to go, the later ones do."


def _stories(count, length):
    "Stories of sentences that occur once."
    return [[f'Sentence {i} of story {number}.' for i in range(length)] for number in range(count)]


def check_3(answer):
    "Neither half knows the label."
    for count, length in ((4, 5), (7, 3)):
        stories = _stories(count, length)
        triples = [tuple(triple) for triple in answer(stories)]
        assert len(triples) == 2 * count * (length - 1), f"{len(triples)} triples are not as many as before."
        texts, sentences = Counter(), Counter()
        true = {(' '.join(story[:i]), story[i]) for story in stories for i in range(1, length)}
        for text, sentence, label in triples:
            sign = 1 if label == 'next' else -1
            texts[text] += sign
            sentences[sentence] += sign
            assert ((text, sentence) in true) == (label == 'next'), f"{sentence!r} has the wrong label once."
        assert set(texts) == {text for text, _ in true}, "Other texts than before."
        assert not any(texts.values()), "The text knows the label."
        assert not any(sentences.values()), "The sentence alone still knows something about the label."
        number = {' '.join(story[:i]): k for k, story in enumerate(stories) for i in range(1, length)}
        for text, sentence, label in triples:
            near = stories[(number[text] + (label != 'next')) % count]
            assert sentence in near, "A wrong sentence has to come from the next story."


def check_4(answer):
    "Own rows, and no half that knows anything."
    rows = [(str(text), str(question), str(label)) for text, question, label in answer]
    assert len(rows) >= 8, f"Give at least 8 rows; here are {len(rows)}."
    assert len(set(rows)) == len(rows), "A row occurs twice."
    assert {label for _, _, label in rows} == {'yes', 'no'}, "The labels are yes and no, both."
    for half, what in ((0, 'text'), (1, 'question')):
        counts = Counter()
        for row in rows: counts[row[half]] += 1 if row[2] == 'yes' else -1
        assert len(counts) >= 3, f"At least three values of the {what}, please."
        worst = max(counts, key=lambda value: abs(counts[value]))
        assert not counts[worst], f"The {what} {worst!r} occurs more often with one label."
    assert len({row[:2] for row in rows}) == len(rows), "The same pair has two labels."
