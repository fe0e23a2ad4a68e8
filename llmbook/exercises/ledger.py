"What `grade` asks of the answers to the exercises of the chapter `ledger`."
import math

from llmbook.text.ledger import Reader, derivations


def check_1(answer):
    "The entropy of the changed tiny world, in bits."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Weigh Odo's own entropy by how often Odo is drawn, and add the bit for the name."
    assert abs(answer - 1.4056) < 0.006, hint


def check_2(answer):
    "No surface begins another, and none occurs twice."
    cases = [((' lamp', ' rope'), True), ((' red', ' red lamp'), False), ((' red lamp', ' rope', ' red'), False),
             (('', ' red'), False), ((' mill', ' mill'), False), ((' to the', ' took'), True), ((' Mira',), True),
             ((' walk', ' barn', ' walked'), False), ((' lamp.', ' lamps.', ' lamp,'), True)]
    for surfaces, want in cases:
        got = answer([(s.strip(), s) for s in surfaces])
        assert got is not None, "Return True or False."
        assert bool(got) == want, f"Wrong for the surfaces {list(surfaces)}."


def check_3(answer):
    "Three texts with the probabilities 1/4, 1/2 and 1/4, one derivation each, all of them readable."
    told = derivations(answer)
    texts = [text for text, _ in told]
    assert len(set(texts)) == len(texts), "Some text still has two derivations."
    assert set(texts) == {' red'*n + ' lamp' for n in range(3)}, "The texts are not those of `red_tale`."
    for text, logp in told:
        want = 1/2 if text == ' red lamp' else 1/4
        assert math.isclose(math.exp(logp), want), f"The probability of {text!r} is not that of `red_tale`."
        source = Reader(text)
        answer(source)
        assert source.size == len(text) and math.isclose(source.logp, logp), f"Read back, {text!r} gives other choices."
