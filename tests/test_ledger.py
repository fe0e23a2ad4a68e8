"The ledger: texts are priced exactly, reading undoes writing, and any other text is refused."
import math
from collections import Counter

import pytest

from llmbook.text.ledger import Reader, Source, Writer, derivations


def tale(source):
    who = source.choose('name', [('Mira', 'Mira'), ('Odo', 'Odo')], [3, 1])
    source.literal(' took the')
    options = [(x, f' {x}.') for x in ('lamp', 'rope')]
    source.choose('thing', options[:1] if who == 'Mira' else options)


EXACT = {'Mira took the lamp.': 3/4, 'Odo took the lamp.': 1/8, 'Odo took the rope.': 1/8}


def written(seed, table=None):
    source = Writer(seed, table)
    tale(source)
    return source


def test_the_ledger_is_exact():
    told = dict(derivations(tale))
    assert len(derivations(tale)) == len(told) == len(EXACT)
    for text, p in EXACT.items():
        source = Reader(text)
        tale(source)
        assert math.exp(told[text]) == pytest.approx(p) and math.exp(source.logp) == pytest.approx(p)


def test_a_wrong_factor_is_noticed(monkeypatch):
    choose = Source.choose

    def forgetful(self, kind, options, weights=None):
        before = self.logp
        value = choose(self, kind, options, weights)
        if kind == 'name': self.logp = before
        return value
    monkeypatch.setattr(Source, 'choose', forgetful)
    assert sum(math.exp(logp) for _, logp in derivations(tale)) > 1.5


def test_writing_draws_what_the_ledger_says():
    n = 4000
    drawn = Counter(''.join(written(seed).parts) for seed in range(n))
    for text, p in EXACT.items():
        assert abs(drawn[text] - n*p) < 4*(n*p*(1 - p))**0.5


def test_reading_undoes_writing():
    table = {'name': {'Mira': -1., 'Odo': -2.}, 'thing': {' lamp.': -3., ' rope.': -4.}}
    for seed in range(50):
        w = written(seed, table)
        r = Reader(''.join(w.parts), table)
        tale(r)
        assert r.choices == w.choices and r.costs == w.costs and r.logp == w.logp and r.size == w.size
        assert sum(exact for exact, _ in w.costs) == pytest.approx(w.logp)


def test_a_reader_stops_where_the_program_stops():
    text = 'Odo took the rope.'
    source = Reader(text + ' More.')
    tale(source)
    assert source.size == len(text)


def test_the_same_text_for_the_same_seed(): assert written(3).parts == written(3).parts


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="at character 13 expected ' lamp.', found ' rope.'"):
        tale(Reader('Mira took the rope.'))
    with pytest.raises(ValueError, match='at character 4'): tale(Reader('Mira gave'))


def test_two_derivations_of_one_text_are_listed_twice():
    def red(source):
        source.choose('quality', [(None, ''), ('red', ' red')])
        source.choose('thing', [('lamp', ' lamp'), ('red lamp', ' red lamp')])
    assert Counter(text for text, _ in derivations(red))[' red lamp'] == 2
