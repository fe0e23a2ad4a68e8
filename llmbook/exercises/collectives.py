"What `grade` asks of the answers to the exercises of the chapter `collectives`."
import math


def check_1(answer):
    "Bytes of two ways."
    assert None not in answer, "Two numbers are expected."
    ring, star = answer
    assert math.isclose(ring, 4.8, abs_tol=0.005), "The ring: 8 turns, a fifth of the tensor in each."
    assert math.isclose(star, 12, abs_tol=0.005), "Rank 0 sends the sum to each of the others."


def check_2(answer):
    "Which part goes to the left in which turn."
    for world in (1, 2, 3, 5):
        val = [[[r] for _ in range(world)] for r in range(world)] # held[r][p]: whose numbers are in part p of rank r
        for turn in range(world - 1):
            out = [answer(r, world, turn) for r in range(world)]
            assert all(type(p) is int and 0 <= p < world for p in out), f"Part {out} of {world}: return a part's number."
            news = [val[r][p] for r, p in enumerate(out)]
            for r, p in enumerate(out): val[(r - 1) % world][p] = val[(r - 1) % world][p] + news[r]
        done = [[p for p in range(world) if sorted(val[r][p]) == list(range(world))] for r in range(world)]
        assert sorted(done) == [[p] for p in range(world)], f"{world} ranks end with the finished parts {done}, not one each."


def check_3(answer):
    "Everybody hears the left neighbour, and nobody waits for ever."
    for world in (2, 3, 4, 5):
        plans, heard = [list(answer(r, world)) for r in range(world)], set()
        while any(plans):
            heads = [plan[0] if plan else None for plan in plans]
            pairs = [(r, h[1]) for r, h in enumerate(heads) if h and h[0] == 'send' and heads[h[1]] == ('receive', r)]
            assert pairs, f"{world} ranks wait for ever. They wait to {', '.join(h[0] if h else 'do nothing' for h in heads)}."
            for r in pairs[0]: plans[r].pop(0)
            heard.add(pairs[0])
        assert heard == {(r, (r + 1) % world) for r in range(world)}, f"{world} ranks heard {sorted(heard)}: (from, to)."


def check_4(answer):
    "Seconds of one all-reduce."
    for given, seconds in (((7e9, 2, 2, 100), 1.12), ((124e6, 4, 8, 10), 0.6944), ((1e9, 4, 1, 10), 0)):
        found = answer(*given)
        assert found is not None, "Return a number of seconds."
        assert math.isclose(found, seconds, rel_tol=1e-3), f"{given}: {seconds} s, not {found:.3g}."
