"What `grade` asks of the answers to the exercises of the chapter `reward`."
import math
from random import Random

from llmbook.text.preferences import preference_rows


def check_1(answer):
    "The loss of a list, pair by pair."
    answer = float(answer)
    assert abs(answer - 1.32) > 0.02, (
        "That is for the reverse order: which differences are negative?")
    assert abs(answer - 2.01) > 0.02, "There are three pairs, not two."
    assert abs(answer - 3.32) < 0.02, (
        "For each pair: the first less the second, then the logarithm of 1 + e^-difference.")


def _ties(difference, theta):
    "Rao and Kupper, from strengths."
    first, second = math.exp(difference), 1.0
    return (theta**2 - 1) * first * second / ((first + theta*second) * (theta*first + second))


def check_2(answer):
    "The chance of a tie with a threshold."
    assert answer(0., 2.) is not None, "Return a probability."
    assert abs(answer(0.7, 1.)) < 1e-9, "With theta 1 nobody calls answers equal."
    assert abs(answer(0., 2.) - 1/3) < 1e-6, (
        f"Of equal answers and theta 2, a third are ties, not {answer(0., 2.):.3f}.")
    for difference in (-3., -0.4, 0.9, 2.5):
        for theta in (1.2, 2., 4.):
            found, expected = answer(difference, theta), _ties(difference, theta)
            assert abs(found - expected) < 1e-6, (
                f"Difference {difference:g}, theta {theta:g}: not {found:.4f}.")
            assert abs(found - answer(-difference, theta)) < 1e-9, "A tie has no direction."


def check_3(answer):
    "Changes that no comparison sees."
    assert not isinstance(answer, str), "Give a list of letters."
    found = {str(letter).strip().lower() for letter in answer}
    assert found <= set('abcd'), "The letters are a, b, c and d."
    assert 'b' not in found, (
        "A prompt's answers have different lengths: that changes their differences.")
    assert 'c' not in found, "Twice the points are twice the difference."
    assert found == {'a', 'd'}, (
        "One is missing: what is the same for all answers to a prompt cancels.")


def quiz(n=20):
    "Pairs that are at least half a point apart: prompt, two answers, and which of them is better."
    rng, found = Random(20), []
    for row in preference_rows(200, seed=20):
        first, second = row['meta']['gold']
        if abs(first - second) < 0.5: continue
        answers = [row['chosen'], row['rejected']]
        better = int(second > first)
        if rng.random() < 0.5: answers, better = answers[::-1], 1 - better
        found.append((row['prompt'], *answers, 'ab'[better]))
        if len(found) == n: return found


def check_4(answer):
    "Twenty pairs, ranked by the reader."
    truth = [better for *_, better in quiz()]
    assert not isinstance(answer, str) or len(answer) == len(truth), (
        f"Give {len(truth)} letters, one for each pair.")
    given = [str(letter).strip().lower() for letter in answer]
    assert len(given) == len(truth), (
        f"Give {len(truth)} letters, one for each pair, not {len(given)}.")
    assert set(given) <= {'a', 'b'}, "Each letter is a or b."
    right = sum(a == b for a, b in zip(given, truth))
    share = right / len(truth)
    error = math.sqrt(share * (1 - share) / len(truth))
    said = f"you agree with the true points in {right} of {len(truth)} pairs, {share:.2f} ± {error:.2f}"
    assert right >= 15, (
        f"So far {said}; 15 are a pass. Look for claims that the story does not make.")
    print(said)
