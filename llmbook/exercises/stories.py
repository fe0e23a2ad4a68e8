"What `grade` asks of the answers to the exercises of the chapter `stories`."
import gzip

from llmbook.text.stories import write_story


def check_1(answer):
    "Blind minus exact by kind, nats per choice."
    sample = [write_story(i) for i in range(20)]
    got = answer(sample)
    assert isinstance(got, dict), "Return a dict."
    paid = {}
    for s in sample:
        for (kind, _), (exact, blind) in zip(s.choices, s.costs, strict=True): paid.setdefault(kind, []).append(exact - blind)
    for kind, gaps in paid.items():
        assert kind in got, f"The kind `{kind}` is missing."
        assert abs(got[kind] - sum(gaps)/len(gaps)) < 1e-6, f"Not the average gap of a choice of the kind `{kind}`."


def check_2(answer):
    "Bits of gzip per byte of UTF-8."
    for text in ('Grüße aus der Mühle. '*40, write_story(0).text):
        raw = text.encode()
        got, want = answer(text), 8*len(gzip.compress(raw))/len(raw)
        assert got is not None, "Return a number."
        assert abs(got - want) < 0.02*want, "Eight bits for each byte that gzip makes, shared by the bytes of the text."


def check_3(answer):
    "Stories until the error of their mean price is 0.1 nats."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "The error is the spread of one price divided by the root of how many there are; solve for how many."
    assert abs(answer - 10_900) < 700, hint
