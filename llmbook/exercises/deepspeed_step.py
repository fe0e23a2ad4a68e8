"What `grade` asks of the answers to the exercises of the chapter `deepspeed_step`."
import math


def check_1(answer):
    "What a rank hands to a library that averages."
    for nats, tokens in (([6., 6.], [1, 3]), ([10., 4., 9.], [5, 1, 6]), ([7., 0.], [2, 0])):
        world, right = len(nats), sum(nats) / sum(tokens)
        found = sum(answer(s, n, sum(tokens), world) for s, n in zip(nats, tokens)) / world
        assert not math.isclose(found*world, right), f"{world} ranks: {world} times too small; the average divides once more."
        assert math.isclose(found, right), f"Nats {nats} over {tokens} tokens: the average is {found:.3f}, not {right:.3f}."


def check_2(answer):
    "Forward passes until the scale fits."
    assert answer != 7, "Those are the halvings; the pass that succeeds is one more."
    assert answer == 8, "Halve 65,536 until it is not above 900, and count the attempts."


def check_3(answer):
    "Two ranks that stop together."
    class Group:
        def __init__(self): self.flags = []
        def any_rank(self, flag):
            self.flags.append(bool(flag))
            return self.said
    for asked, full in (((0, 0), (0, 0)), ((1, 0), (0, 0)), ((0, 0), (0, 1)), ((1, 1), (1, 0))):
        groups = [Group(), Group()]
        for group, a, f in zip(groups, asked, full):
            group.said = False
            answer(group, bool(a), bool(f))
        asks = [len(group.flags) for group in groups]
        assert asks[0] == asks[1], f"Asked {asked}, full {full}: {asks} calls of any_rank; one rank waits for ever."
        assert asks[0] == 1, f"{asks[0]} calls of any_rank; one is enough."
        said = any(flag for group in groups for flag in group.flags)
        for group in groups: group.said = said
        stop = [bool(answer(group, bool(a), bool(f))) for group, a, f in zip(groups, asked, full)]
        assert stop[0] == stop[1], f"Asked {asked}, full {full}: one rank stops and the other does not."
        wanted = any(asked + full)
        assert stop[0] == wanted, f"Asked {asked}, full {full}: they should {'stop' if wanted else 'continue'}."
