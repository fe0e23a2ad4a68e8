"What `grade` asks of the answers to the exercises of the chapter `collectives`."
import math


def check_1(answer):
    "Gigabytes of two ways."
    assert None not in answer, "Two numbers are expected."
    ring, star = answer
    def close(number, right): return math.isclose(number, right, abs_tol=0.005)
    assert not close(ring, 4.8), "The ring: nothing has to be added up here."
    assert close(ring, 2.4), "The ring: count the turns that a part needs to be everywhere."
    assert close(star, 12), "The naive way: count the copies that leave rank 0, and their size."


def _play(answer, world):
    "By rank and part: whose numbers have been added up, after the turns of a ring to the left."
    held = [[[rank] for _ in range(world)] for rank in range(world)]
    for turn in range(world - 1):
        sent = [answer(rank, world, turn) for rank in range(world)]
        proper = all(part in range(world) for part in sent)
        assert proper, f"Part {sent} of {world}: return a part's number."
        arriving = [held[rank][part] for rank, part in enumerate(sent)]
        for rank, part in enumerate(sent):
            left = (rank - 1) % world
            held[left][part] = held[left][part] + arriving[rank]
    return held


def _finished(parts, everybody):
    "The parts of a rank in which the numbers of everybody have been added up."
    finished = []
    for part, ranks in enumerate(parts):
        if sorted(ranks) == everybody: finished.append(part)
    return finished


def check_2(answer):
    "Which part goes to the left in which turn."
    for world in (1, 2, 3, 5):
        everybody = list(range(world))
        done = [_finished(parts, everybody) for parts in _play(answer, world)]
        one_each = sorted(done) == [[part] for part in everybody]
        assert one_each, f"{world} ranks end with the finished parts {done}, not one each."


def _first_pair(plans):
    "A rank whose next step is to send, and the rank whose next step is to receive from it."
    for rank, plan in enumerate(plans):
        if not plan: continue
        step, to = plan[0]
        if step != 'send': continue
        if plans[to][:1] == [('receive', rank)]: return rank, to


def check_3(answer):
    "Everybody hears the left neighbour, and nobody waits for ever."
    for world in (2, 3, 4, 5):
        plans = [list(answer(rank, world)) for rank in range(world)]
        heard = set()
        while any(plans):
            pair = _first_pair(plans)
            next_steps = [plan[0][0] if plan else 'do nothing' for plan in plans]
            assert pair, f"{world} ranks wait for ever. They wait to {', '.join(next_steps)}."
            for rank in pair: plans[rank].pop(0)
            heard.add(pair)
        right = {(rank, (rank + 1) % world) for rank in range(world)}
        assert heard == right, f"{world} ranks heard {sorted(heard)}: (from, to)."


def check_4(answer):
    "Seconds of one all-reduce."
    cases = {(7e9, 2, 2, 100): 1.12, (124e6, 4, 8, 10): 0.6944, (1e9, 4, 1, 10): 0}
    for given, seconds in cases.items():
        found = answer(*given)
        assert found is not None, "Return a number of seconds."
        assert math.isclose(found, seconds, rel_tol=1e-3), f"{given}: {seconds} s, not {found:.3g}."
