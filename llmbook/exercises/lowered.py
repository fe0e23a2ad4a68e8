"What `grade` asks of the answers to the exercises of the chapter `lowered`."

import math


def check_1(answer):
    "The whole bill of a simple restorer."
    answer = float(answer)
    assert abs(answer - 1.95) > 0.002, "That is the lowered text alone."
    assert abs(answer - 2.45) > 0.002, "The case was counted in bits per word, the rest per byte."
    assert abs(answer - 2.033) < 0.002, (
        "How many bits does it take to say, word by word, which of two cases it has?"
    )


def check_2(answer):
    "Decisions that bring digits back."

    def made(text):
        decisions = answer(text)
        assert decisions is not None, "Return a list of decisions."
        return list(decisions)

    text = 'In 1999, 7 of 10.'
    decisions = made(text)
    assert [str(decision.outcome) for decision in decisions] == list('1999710'), (
        "One decision for each digit, in order; the outcome is the digit."
    )
    assert all(decision.among == 10 for decision in decisions), (
        "How many digits are possible, each time?"
    )
    assert all(len(decision.contexts) for decision in decisions), "Give every decision a context."
    for other in ('In 1998, 7 of 10.', 'In 1999, 7 of 95.', 'In 1234, 5 of 67.'):
        for one, two in zip(decisions, made(other)):
            assert one.contexts == two.contexts, (
                "A context holds a digit that is not known by then: this one, or a later one."
            )
            if str(one.outcome) != str(two.outcome):
                break
    assert made('none') == [], "A text without digits needs no decision."


def check_3(answer):
    "Bits per byte of the original, with all that was lost."
    bill = answer(100 * math.log(2), 20, 'x' * 60)
    assert bill is not None, "Return a number."
    assert math.isclose(bill, 2), (
        f"100 bits in nats, 20 bits and 60 bytes are 2 bits per byte, not {bill:.3f}."
    )
    assert math.isclose(answer(100 * math.log(2), 20, 'ß' * 30), 2), "30 letters ß have 60 bytes."


def check_4(answer):
    "Sentences that look alike when they are simplified."
    sentences = ['It is open.', 'It is not open.', 'We close.', 'We close.', 'we wait.', 'We wait.']

    def drop(text):
        return text.replace('not ', '')

    found = answer(list(sentences), drop)
    assert found is not None, "Return a set of sentences."
    found = set(found)
    assert 'We close.' not in found, "The same sentence twice is no confusion."
    assert found == {'It is open.', 'It is not open.'}, (
        "Two sentences become one when 'not' is dropped."
    )
    assert set(answer(list(sentences), str.lower)) == {'we wait.', 'We wait.'}, (
        "Use the function that is given."
    )
    assert set(answer(list(sentences), str)) == set(), (
        "If nothing is simplified, nothing is confused."
    )
