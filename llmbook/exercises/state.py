"What `grade` asks of the answers to the exercises of the chapter `state`."
from random import Random

from llmbook.text.state import Event, State, _hand, _look, _walk

PEOPLE = ['Mira', 'Odo', 'Ana']
THINGS = ['lamp', 'rope']
PLACES = ['mill', 'barn', 'cave']
CARRIERS = ['ring', 'pot', 'basket', 'box', 'bag', 'Odo']


def check_1(answer):
    "The price of three qualities and three nouns, in nats."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Both words of the first thing leave fewer words for the second. Prices are in nats."
    assert abs(answer - 14.313) < 0.06, hint


def _possible(s, who):
    "What `who` can do next, as events; taking and giving come twice, to be frequent."
    place = s.where[who]
    goals = [goal for goal in PLACES if goal != place]
    events = [Event('go', who, place=goal) for goal in goals]
    events += [Event('take', who, thing, place) for thing in s.lying(place)]*2
    others = s.company(who)
    for thing in s.carried(who):
        events.append(Event('leave', who, thing, place))
        events += [Event('give', who, thing, place, other) for other in others]*2
    return events


def _happenings(seed):
    "A small story as events, and the state that it ends in."
    r = Random(seed)
    s = State(cast=PEOPLE, things=THINGS)
    s.walks = dict.fromkeys(PEOPLE, 0)
    s.where = {name: r.choice(PLACES) for name in PEOPLE + THINGS}
    events = [Event('be', name, place=s.where[name]) for name in PEOPLE]
    events += [Event('lie', None, thing, s.where[thing]) for thing in THINGS]
    for _ in range(10):
        who = r.choice(PEOPLE)
        event = r.choice(_possible(s, who))
        events.append(event)
        if event.verb == 'go': _walk(s, who, event.place)
        elif event.verb == 'take': _hand(s, event.thing, who)
        elif event.verb == 'leave': _hand(s, event.thing, event.place)
        else: _hand(s, event.thing, event.other)
        _look(s, s.where[who])
    return events, s


def check_2(answer):
    "Where everything is after the events."
    for seed in range(40):
        events, s = _happenings(seed)
        got = answer(list(events))
        assert isinstance(got, dict), "Return a dict."
        for name in s.cast + s.things:
            assert name in got, f"The result says nothing about {name}."
            spot = s.where[name]
            right = s.where.get(spot, spot)
            assert got[name] == right, f"After {len(events)} events the place of {name} is wrong."


def check_3(answer):
    "The place at the end of chains of one to six links."
    for seed in range(40):
        r = Random(seed)
        links = r.randint(1, 6)
        chain = r.sample(CARRIERS, links)
        place = r.choice(PLACES)
        spots = [*chain[1:], place]
        where = dict(zip(chain, spots, strict=True))
        for name in chain:
            got = answer(dict(where), name)
            assert got is not None, "Return a place."
            assert got == place, f"With the links {where} the result for {name!r} is {got!r}."
