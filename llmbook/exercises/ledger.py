"What `grade` asks of the answers to the exercises of the chapter `ledger`."
import math

from llmbook.text.ledger import Reader, derivations


def check_1(answer):
    "The entropy of the changed tiny world, in bits."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Start with the entropy of the name. Odo's choice adds to it only in the stories about Odo."
    assert abs(answer - 1.4197) < 0.006, hint


PREFIX_FREE = [(' lamp', ' rope'), (' to the', ' took'), (' Mira',),
               (' lamp.', ' lamps.', ' lamp,')]
NOT_PREFIX_FREE = [(' red', ' red lamp'), (' red lamp', ' rope', ' red'), ('', ' red'),
                   (' mill', ' mill'), (' walk', ' barn', ' walked')]


def check_2(answer):
    "No surface begins another, and none occurs twice."
    cases = [(surfaces, True) for surfaces in PREFIX_FREE]
    cases += [(surfaces, False) for surfaces in NOT_PREFIX_FREE]
    for surfaces, expected in cases:
        options = [(surface.strip(), surface) for surface in surfaces]
        got = answer(options)
        assert got is not None, "Return True or False."
        assert bool(got) == expected, f"Wrong for the surfaces {list(surfaces)}."


HOME_TALE = {' went home late.': 1/2, ' went home soon.': 1/8,
             ' went away late.': 3/10, ' went away soon.': 3/40}


def check_3(answer):
    "The texts of `home_tale` with their probabilities, one derivation each, all readable."
    told = derivations(answer)
    texts = [text for text, _ in told]
    assert len(set(texts)) == len(texts), "Some text still has two derivations."
    assert set(texts) == set(HOME_TALE), "The texts are not those of `home_tale`."
    for text, logp in told:
        right = math.isclose(math.exp(logp), HOME_TALE[text])
        assert right, f"The probability of {text!r} is off. In how many ways can it come about?"
        source = Reader(text)
        answer(source)
        whole = source.size == len(text)
        same = math.isclose(source.logp, logp)
        assert whole and same, f"Read back, {text!r} gives other choices."
