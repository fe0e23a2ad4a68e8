"What `grade` asks of the answers to the exercises of the chapter `quality`."
import random

from llmbook.text.toxicity import TextScorer


def check_1(answer):
    "What a lottery keeps of a corpus of mostly bad pages."
    answer = float(answer)
    assert abs(answer - 99) > 0.5, "That is their share before the lottery, which keeps more of the good ones."
    assert answer > 1, "Count the kept pages of both scores, and give the percentage of those of score 0."
    assert abs(answer - 31.3) < 0.8, "A page of score s is kept with probability (2 - s) to the power of -9."


def check_2(answer):
    "An alpha for a share."
    rng = random.Random(0)
    cases = {'all alike': [0.5] * 10, 'even': [i / 100 for i in range(100)],
             'two kinds': [0.99] * 50 + [0.01] * 50, 'random': [rng.random() for _ in range(300)]}
    for name, scores in cases.items():
        for share in (0.02, 0.3, 0.9):
            alpha = answer(list(scores), share)
            assert alpha is not None, "Return alpha."
            expected = sum((2 - score) ** -float(alpha) for score in scores) / len(scores)
            assert abs(expected - share) < 1e-4, f"{name}: with this alpha {expected:.4f} is kept, not {share}."


def check_3(answer):
    "The better half of each length."
    def text(name, words): return ' '.join([name] + ['word'] * (words - 1))
    quality = {'a': 0.1, 'b': 0.2, 'c': 0.3, 'd': 0.95, 'e': 0.9, 'f': 0.8, 'g': 0.5}
    lengths = {'a': 3, 'd': 25, 'b': 9, 'e': 21, 'c': 5, 'f': 29, 'g': 12}
    documents = [text(name, words) for name, words in lengths.items()]
    kept = answer(list(documents), lambda text: quality[text.split()[0]])
    assert kept is not None, "Return the texts that are kept."
    names = [text.split()[0] for text in kept]
    for group in ('abc', 'def', 'g'):
        n = sum(name in group for name in names)
        wanted = (len(group) + 1) // 2
        shortest, longest = min(lengths[x] for x in group), max(lengths[x] for x in group)
        assert n == wanted, f"{n} texts of {shortest} to {longest} words are kept, not {wanted}."
    assert set(names) == set('bcdeg'), "In a group the texts with the higher scores stay."
    assert names == list('dbecg'), "The kept texts are to be in their original order."


def check_4(answer):
    "(scorer, texts, how much higher complete texts score than their first ten words)."
    scorer, texts, difference = answer
    assert isinstance(scorer, TextScorer), "Give the scorer that train_scorer returns."
    assert len(set(texts)) >= 20, f"Give 20 different texts or more; here are {len(set(texts))}."
    shortest = min(len(text.split()) for text in texts)
    assert shortest >= 20, f"Every text needs 20 words or more; one has {shortest}."
    scores = [scorer(text) for text in texts]
    assert max(scores) - min(scores) > 1e-6, "All texts have the same score; train on two heaps that differ."
    starts = [scorer(' '.join(text.split()[:10])) for text in texts]
    right = (sum(scores) - sum(starts)) / len(texts)
    difference = float(difference)
    assert abs(right) < 0.005 or abs(difference + right) > 0.005, "Subtract the score of the first ten words."
    assert abs(difference - right) < 0.005, "Average the scores of complete texts, and those of the first ten words."
