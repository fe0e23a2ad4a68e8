"What `grade` asks of the answers to the exercises of the chapter `toxicity`."
import math

from llmbook.text.toxicity import _ALWAYS, _WORDS


def check_1(answer):
    "Few pages are toxic."
    answer = float(answer)
    assert answer >= 2, "1 % is the share of harmless pages that are flagged; here the flagged pages are the whole."
    assert round(answer) == 68, "Count the toxic and the harmless pages that are dropped, of a million."


def check_2(answer):
    "Quotation marks in pairs."
    two = 'A board of 10" was cut.\nA rope of 5" too.'
    cases = {
        'one quotation': ('He wrote "get lost" to her.', 'He wrote  to her.'),
        'two quotations': ('"No," said Ana. "Never."', ' said Ana. '),
        'no quotation': ('Nothing here.', 'Nothing here.'),
        'a mark alone': ('A board of 10" and a rope', 'A board of 10" and a rope'),
        'a mark in each of two paragraphs': (two, two),
        'a pair and a mark': ('"Yes" and a 10" board', ' and a 10" board'),
        'a curly pair': ('“Go,” he said. “Now.”', ' he said. '),
        'a mark alone, then a pair in the next paragraph': ('10" wide\n"Yes," said Ana.', '10" wide\n said Ana.'),
        'a straight mark before a curly pair': ('A 10" board, “no” and more', 'A 10" board,  and more'),
        'a curly mark in each of two paragraphs': ('“One.\n“Two.”', '“One.\n')}
    for name, (text, left) in cases.items():
        result = answer(text)
        assert result is not None, "Return the text."
        assert result == left, f"{name}: {text!r} should leave {left!r}."


def check_3(answer):
    "The threshold that no group pays too much for."
    cases = {
        'one group': ([[.1, .9], [.2, .3], [.4], [.1, .1, .6]], 'aaaa', .25, .6),
        'two groups, one of them small': ([[.1], [.2], [.3], [.1], [.2], [.3], [.7], [.8]], 'aaaaaabb', .25, .8),
        'half of each may go': ([[.2, .9], [.5], [.4, .6], [.3]], 'abab', .5, .6),
        'nothing may go': ([[.2, .7], [.9, .1, .1], [.3]], 'aba', 0, .9),
        'the same probability twice': ([[.8], [.8, .1], [.3], [.2]], 'aaaa', .25, .8)}
    for name, (pages, groups, lost, wanted) in cases.items():
        result = answer([list(page) for page in pages], list(groups), lost)
        assert result is not None, "Return a probability."
        dropped = [max(page) > result for page in pages]
        for group in sorted(set(groups)):
            own = [bad for bad, writer in zip(dropped, groups) if writer == group]
            assert sum(own) <= lost * len(own), f"{name}: group {group} loses {sum(own)} of {len(own)} pages."
        assert math.isclose(result, wanted), f"{name}: a lower threshold would do."


def check_4(answer):
    "(messages, how many of them have a listed word only inside of others)."
    messages, extra = list(answer[0]), answer[1]
    assert len(set(messages)) >= 20, "Give at least 20 different messages, as a list of strings."
    assert min(len(message.split()) for message in messages) >= 3, "A message has at least three words."
    lower = [message.lower() for message in messages]
    whole = [not _ALWAYS.isdisjoint(_WORDS.findall(text)) for text in lower]
    inside = [any(word in text for word in _ALWAYS) for text in lower]
    right = sum(b and not a for a, b in zip(whole, inside))
    assert right, "No message has one; take more messages, until one has."
    assert extra == right or extra != sum(inside), "Messages with a listed word as a whole word count here too."
    assert extra == right, f"It is {right} of these {len(messages)} messages, not {extra}."
