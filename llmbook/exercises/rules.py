"What `grade` asks of the answers to the exercises of the chapter `rules`."
import json
import math
import random
from collections import Counter

from llmbook.text.rules import FINEWEB, GOPHER, drop_unended_lines, limit_words


def check_1(answer):
    "Which rules refuse a price list."
    assert not isinstance(answer, str), "Give a set of names."
    answer, names = set(answer), {rule.__name__ for rule in GOPHER + FINEWEB}
    unknown = sorted(map(str, answer - names))
    assert not unknown, f"{', '.join(unknown)}: none of the ten rules has this name."
    things = 'cup pot map key bag box jar pan'.split()
    colours = enumerate(['Red', 'Tan', 'Old', 'Big', 'New'], 12)
    lines = [f'{colour} {thing}, {price}.50 EUR' for price, colour in colours for thing in things]
    page = {'id': 'prices', 'text': '\n'.join(lines)}
    refused = {rule.__name__ for rule in GOPHER + FINEWEB if isinstance(rule(page), str)}
    assert not answer - refused, "One of these rules has nothing to say: count words, letters, ends of lines."
    assert not refused - answer, "Right as far as it goes, but more of the rules refuse it."


def _loss(values, threshold):
    "The share of values at or below a threshold."
    return sum(value <= threshold for value in values) / len(values)


def check_2(answer):
    "The threshold that drops most of the bad at a bearable loss."
    rng = random.Random(0)
    cases = [([0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.55], 0.25), ([0.2, 0.4], [0.1, 0.3], 0.0),
             ([0.1, 0.9], [0.1, 0.1], 0.4)]
    for n in (20, 50, 200):
        good = [round(rng.gauss(0.6, 0.2), 2) for _ in range(n)]
        bad = [round(rng.gauss(0.3, 0.2), 2) for _ in range(n)]
        cases += [(good, bad, most) for most in (0.0, 0.05, 0.2, 1.0)]
    for good, bad, most in cases:
        threshold = answer(list(good), list(bad), most)
        assert threshold is not None, "Return the threshold."
        lost, caught = _loss(good, threshold), _loss(bad, threshold)
        shown = f"{len(good)} good documents, at most {most:g} of them to be lost"
        assert lost <= most, f"{shown}: {threshold} loses {lost:.3g} of them."
        possible = [value for value in bad if _loss(good, value) <= most]
        best = max((_loss(bad, value) for value in possible), default=0)
        hint = f"{shown}: {threshold} drops {caught:.3g} of the bad; more is possible."
        assert math.isclose(caught, best), hint


def _page(text): return {'id': 'page', 'text': text, 'meta': {'known': ['facts']}}


def check_3(answer):
    "A rule that keeps the promises of a rule."
    link, line = 'https://a.example/x', 'A line of text.'
    pages = {'no links': ([line] * 3, False), 'more than half links': ([link, link, line], True),
             'exactly half links': ([link, line], False),
             'blank lines and half of the others links': ([link, '', line, '  ', ''], False),
             'links between blank lines': ([link, '', '', link, '', line, '', ''], True),
             'more than half links, some with http://': ([link, 'http://a.example/x', line], True),
             'nothing': ([], False)}
    reasons = set()
    for name, (lines, refused) in pages.items():
        page = _page('\n' + '\n'.join(lines) + '\n')
        before = json.dumps(page)
        result = answer(page)
        where, wanted = f"A page with {name}", 'refused' if refused else 'kept'
        assert json.dumps(page) == before, f"{where}: the rule changed the document that it was given."
        assert isinstance(result, str) == refused, f"{where}: it should be {wanted}."
        if refused: reasons.add(result)
        else: assert result is page, f"{where}: if there is no problem, the same object comes back."
    more = answer(_page('\n'.join([link] * 9)))
    assert len(reasons | {more}) == 1, "Pages are refused for several reasons; they cannot be counted."
    code = _page('\n'.join([link] * 9))
    code['meta']['format'] = 'code'
    assert answer(code) is code, "A page marked as program code: a rule for prose leaves it alone."
    third = _page(f'{link}\n{line}\n{line}')
    assert answer(third, most=0.2) == more, "The setting `most` is not used."


def check_4(answer):
    "Lines that rules take away."
    documents = [
        _page('Menu\n\nThis is a sentence.\n  Advertisement \nThis is a sentence.\nAdvertisement'),
        _page('Menu\nAnother sentence, and a longer one.\nMenu'),
        _page('Too short.\n\nMenu')]
    rules = [drop_unended_lines, three_words_at_least]
    before = json.dumps(documents)
    lost = answer(iter(documents), rules)
    assert lost is not None, "Return a Counter."
    assert json.dumps(documents) == before, "The documents have been changed."
    assert not any(not line.strip() for line in lost), "A blank line is counted."
    assert not any(line != line.strip() for line in lost), "A line has blanks at its ends."
    assert 'Too short.' in lost, "All lines of a dropped document are lost."
    assert lost['This is a sentence.'] == 0, "A line is counted that is still there."
    wanted = Counter({'Menu': 4, 'Advertisement': 2, 'Too short.': 1})
    hint = f"Three short pages: {dict(lost)}; a line that is lost twice counts twice."
    assert +Counter(lost) == wanted, hint


def three_words_at_least(document): return limit_words(document, low=3)
