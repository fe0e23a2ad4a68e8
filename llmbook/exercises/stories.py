"What `grade` asks of the answers to the exercises of the chapter `stories`."
import gzip

from llmbook.text.stories import write_story


def check_1(answer):
    "Blind minus exact by kind, nats a story."
    sample = [write_story(i) for i in range(20)]
    got = answer(sample)
    assert isinstance(got, dict), "Return a dict."
    assert 'thing' in got, "The keys are the kinds: thing, place, ..."
    want = sum(s.logp - s.blind for s in sample)/20
    assert abs(sum(got.values()) - want) < 1e-6, "All kinds together must be the whole gap, in nats a story."
    forced = sum(-b for s in sample for (k, _), (_, b) in zip(s.choices, s.costs, strict=True) if k == 'thing')/20
    assert abs(got['thing'] - forced) < 1e-6, "The share of the kind `thing` is off."


def check_2(answer):
    "Bits of gzip a byte of UTF-8."
    for text in ('Grüße aus der Mühle. '*40, write_story(0).text):
        raw = text.encode()
        got, want = answer(text), 8*len(gzip.compress(raw))/len(raw)
        assert got is not None, "Return a number."
        assert abs(got - want) < 0.02*want, "Eight bits for each byte that gzip makes, shared by the bytes of the text."
