"What `grade` asks of the answers to the exercises of the chapter `world`."
import gzip

from llmbook.text.world import is_story, write_story


BROKEN = ('One summer day Tom the weaver was in the tower with a small coin. Dora the painter was in the tower. '
          'Nora lived in the harbour with a blue pot. There was a black mirror in the tower. Nora walked to the '
          'market. Tom took the black mirror. He gave the small coin to Dora. He looked for the blue pot in '
          'vain. He went to the school and met Nora. Tom felt glad. In the end the black mirror was with Tom, '
          'and Nora felt lonely.')


def check_1(answer):
    "The entropy of the changed tiny world, in bits."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Weigh Odo's own entropy by how often Odo is drawn, and add the bit for the name."
    assert abs(answer - 1.4056) < 0.006, hint


def check_2(answer):
    "Blind minus exact by kind, nats a story."
    sample = [write_story(i) for i in range(20)]
    got = answer(sample)
    assert isinstance(got, dict), "Return a dict."
    assert 'thing' in got, "The keys are the kinds: thing, place, ..."
    want = sum(s.logp - s.blind for s in sample)/20
    assert abs(sum(got.values()) - want) < 1e-6, "All kinds together must be the whole gap, in nats a story."
    forced = sum(-b for s in sample for (k, _), (_, b) in zip(s.choices, s.costs, strict=True) if k == 'thing')/20
    assert abs(got['thing'] - forced) < 1e-6, "The share of the kind `thing` is off."


def check_3(answer):
    "One word changed, and the text is a story."
    old, new = BROKEN.split(), answer.split()
    assert len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == 1, "Change exactly one word."
    assert is_story(answer), "Not a story yet: ask `parse` where it stops."


def check_4(answer):
    "Bits of gzip a byte of UTF-8."
    for text in ('Grüße aus der Mühle. '*40, write_story(0).text):
        raw = text.encode()
        got, want = answer(text), 8*len(gzip.compress(raw))/len(raw)
        assert got is not None, "Return a number."
        assert abs(got - want) < 0.02*want, "Eight bits for each byte that gzip makes, shared by the bytes of the text."
