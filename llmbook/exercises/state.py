"What `grade` asks of the answers to the exercises of the chapter `state`."
from random import Random

from llmbook.text.state import Event, State, _hand, _look, _walk


def check_1(answer):
    "The price of three qualities and three nouns, in nats."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "How many words are left for the first, the second and the third? All are alike; add up the logarithms, in nats."
    assert abs(answer - 14.313) < 0.06, hint


def _happenings(seed):
    "A small story as events, and the state that it ends in."
    r, people, things, places = Random(seed), ['Mira', 'Odo', 'Ana'], ['lamp', 'rope'], ['mill', 'barn', 'cave']
    s = State(cast=people, things=things, walks=dict.fromkeys(people, 0))
    s.where = {x: r.choice(places) for x in people + things}
    events = [Event('be', n, place=s.where[n]) for n in people] + [Event('lie', None, t, s.where[t]) for t in things]
    for _ in range(10):
        who = r.choice(people)
        here, others = s.where[who], s.company(who)
        deeds = [Event('go', who, place=p) for p in places if p != here]
        deeds += [Event('take', who, t, here) for t in s.lying(here)]*2
        for t in s.carried(who): deeds += [Event('leave', who, t, here)] + [Event('give', who, t, here, n) for n in others]*2
        e = r.choice(deeds)
        if e.verb == 'go': _walk(s, who, e.place)
        else: _hand(s, e.thing, {'take': who, 'leave': here, 'give': e.other}[e.verb])
        events.append(e)
        _look(s, s.where[who])
    return events, s


def check_2(answer):
    "Where everything is after the events."
    for seed in range(40):
        events, s = _happenings(seed)
        got = answer(list(events))
        assert isinstance(got, dict), "Return a dict."
        for x in s.cast + s.things:
            assert x in got, f"Nothing is said about {x}."
            assert got[x] == s.where.get(s.where[x], s.where[x]), f"The place of {x} is off after {len(events)} events."


def check_3(answer):
    "Who remembers a thing where it no longer is."
    for seed in range(40):
        s = _happenings(seed)[1]
        got = answer(s)
        assert got is not None, "Return a list."
        for (name, thing), place in s.seen.items():
            wrong = s.where.get(s.where[thing], s.where[thing]) != place
            if wrong: assert (name, thing) in got, f"{name} is mistaken about the {thing}, and not listed."
            else: assert (name, thing) not in got, f"{name} is right about the {thing}, and yet listed."
