"What `grade` asks of the answers to the exercises of the chapter `preferences`."
import math
from itertools import permutations

from llmbook.text.claims import read_claims, story_claims
from llmbook.text.preferences import gold_reward, ranking_rows
from llmbook.text.tasks import task_story


def check_1(answer):
    "The best accuracy of a mixture."
    answer = float(answer)
    assert abs(answer - 0.881) > 0.01, "That is the half whose answers differ."
    assert abs(answer - 0.731) > 0.01, "Average the accuracies, not the differences."
    assert abs(answer - 0.69) < 0.006, "Bet on the better answer in each half, then average the two shares."


def check_2(answer):
    "The probability of an order."
    for utilities in ([0, 0], [1.0, 0.0], [0.5, -1.0, 2.0], [3.0, 0.0, 1.0, -2.0]):
        orders = list(permutations(range(len(utilities))))
        chances = {order: answer(list(utilities), list(order)) for order in orders}
        assert None not in chances.values(), "Return a probability."
        total = sum(chances.values())
        assert abs(total - 1) < 1e-6, f"The {len(orders)} orders of {utilities} have {total:.3f} together, not 1."
        strengths = [math.exp(utility) for utility in utilities]
        for order, chance in chances.items():
            expected, left = 1.0, sum(strengths)
            for i in order:
                expected *= strengths[i] / left
                left -= strengths[i]
            assert abs(chance - expected) < 1e-6, f"{utilities} in the order {list(order)}: not {chance:.4f}."


def check_3(answer):
    "An answer of true sentences that is bad."
    story = task_story(0, 7)
    claims = read_claims(str(answer))
    sentences = str(answer).strip().replace('. ', '.\n').splitlines()
    assert sentences, "The answer is empty."
    most = max(map(sentences.count, sentences))
    assert most <= 2, f"One sentence is said {most} times; twice is the most."
    share = sum(claim in story_claims(story) for claim in claims) / len(claims)
    assert share >= 0.9, f"The colleague gives only {share:.2f}."
    points = gold_reward(str(answer), story).total
    assert points <= -2, f"The gold reward is still {points}."


def check_4(answer):
    "The best answers of five lists."
    rows = list(ranking_rows(5, seed=7))
    assert len(answer) == len(rows), f"Give {len(rows)} numbers."
    right = 0
    for choice, row in zip(answer, rows):
        assert int(choice) in range(4), "Each number is from 0 to 3."
        right += row['meta']['gold'][int(choice)] >= max(row['meta']['gold']) - 0.1
    assert right >= 4, f"{right} of {len(rows)} are among the best; look for false claims."
