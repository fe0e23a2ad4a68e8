"What `grade` asks of the answers to the exercises of the chapter `stories`."
import gzip

from llmbook.text.stories import write_story


def check_1(answer):
    "Blind minus exact by kind, nats per choice."
    sample = [write_story(i) for i in range(20)]
    got = answer(sample)
    assert isinstance(got, dict), "Return a dict."
    paid = {}
    for story in sample:
        rows = zip(story.choices, story.costs, strict=True)
        for (kind, _), (exact, blind) in rows:
            gaps = paid.setdefault(kind, [])
            gaps.append(exact - blind)
    for kind, gaps in paid.items():
        assert kind in got, f"The kind `{kind}` is missing."
        average = sum(gaps)/len(gaps)
        close = abs(got[kind] - average) < 1e-6
        assert close, f"Not the average gap of one choice of the kind `{kind}`."


def check_2(answer):
    "Bits of gzip that a text costs less after another text, per byte of UTF-8."
    def size(text):
        packed = gzip.compress(text.encode())
        return len(packed)
    mill = 'Grüße aus der Mühle. '*20
    bread = 'Grüße aus der Bäckerei. '*20
    story = write_story(0).text
    other = write_story(1).text
    pairs = [(mill, bread), (story, other), (other, story), (mill, story)]
    for first, second in pairs:
        got = answer(first, second)
        assert got is not None, "Return a number."
        alone = size(second)
        after = size(first + second) - size(first)
        right = 8*(alone - after)/len(second.encode())
        hint = "It takes two prices of the second text, and the units are bits and bytes."
        assert abs(got - right) < 0.02*abs(right) + 1e-6, hint


def check_3(answer):
    "Stories until the error of their mean price is 0.1 nats."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "The chapter shows the spread of one price. How does the error of a mean fall?"
    assert abs(answer - 10_900) < 700, hint
