"The state: links are followed, openings leave nothing out, and reading one leads to the same state."
from llmbook.text.ledger import Reader, Writer
from llmbook.text.state import (HOME, NAMES, TRADE, State, _feel, _gifts, _hand, _look, _opening, _remembered,
                                _tell_place, _walk)


def scene():
    s = State(cast=['Mira', 'Odo'], things=['lamp'], walks={'Mira': 0, 'Odo': 0})
    s.where = {'Mira': 'mill', 'Odo': 'mill', 'lamp': 'Mira'}
    return s


def opened(seed):
    w, s = Writer(seed), State()
    _opening(w, s)
    return w, s


def test_a_carried_thing_goes_along():
    s = scene()
    _walk(s, 'Mira', 'barn')
    assert s.place_of('lamp') == 'barn' and s.carried('Mira') == ['lamp']
    assert not s.lying('barn') and not s.company('Mira')


def test_nothing_is_given_straight_back():
    s = scene()
    _hand(s, 'lamp', 'Odo')
    assert s.carried('Odo') == ['lamp'] and _gifts(s, 'Odo') == [] and s.moved == {'lamp'}


def test_what_was_seen_is_remembered_elsewhere():
    s = scene()
    _look(s, 'mill')
    assert _remembered(s, 'Odo') == []
    _walk(s, 'Mira', 'barn')
    assert _remembered(s, 'Odo') == ['lamp'] and s.seen['Odo', 'lamp'] == 'mill'


def test_a_new_mood_is_news():
    s = scene()
    s.felt.add('Mira')
    _feel(s, 'Mira', 'proud')
    assert s.mood['Mira'] == 'proud' and 'Mira' not in s.felt


def test_a_forced_word_costs_nothing():
    w, s = Writer(0), scene()
    _tell_place(w, s, 'mill')
    assert w.logp == 0 and w.choices == [('place', ' mill')]
    _tell_place(w, s, but='mill')
    assert w.logp < 0


def test_openings_are_complete_and_read_back():
    for seed in range(300):
        w, s = opened(seed)
        assert set(s.where) == set(s.cast) | set(s.things)
        assert 2 <= len(s.cast) <= 3 and 2 <= len(s.things) <= 3
        r, again = Reader(''.join(w.parts)), State()
        _opening(r, again)
        assert again == s and r.choices == w.choices


def test_names_keep_their_facts():
    "Later chapters measure whether a model learned them by heart."
    assert (TRADE['Mira'], HOME['Mira']) == ('baker', 'mill')
    assert len(NAMES) == len(TRADE) == len(HOME) == 24
    assert all(not a.startswith(b) for a in NAMES for b in NAMES if a != b)
