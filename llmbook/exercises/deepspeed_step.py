"What `grade` asks of the answers to the exercises of the chapter `deepspeed_step`."
import math

STEPS = [ # nats and tokens of each micro-batch, for each rank
    [([6., 2.], [1, 3]), ([6., 1.], [3, 2])],
    [([10.], [5]), ([4.], [1]), ([9.], [6])],
    [([7., 1., 4.], [2, 1, 3]), ([0., 2., 1.], [0, 4, 1])],
]


def check_1(answer):
    "What a rank hands to a library that adds over ranks and divides by the micro-batches."
    for ranks in STEPS:
        world, accum = len(ranks), len(ranks[0][0])
        all_nats = sum(sum(nats) for nats, _ in ranks)
        all_tokens = sum(sum(tokens) for _, tokens in ranks)
        handed_in = 0.0
        for nats, tokens in ranks:
            for own_nats, own_tokens in zip(nats, tokens):
                handed_in += answer(own_nats, own_tokens, all_tokens, world, accum)
        found, right = handed_in / accum, all_nats / all_tokens
        case = f"{world} ranks, micro-batches per rank: {accum}"
        made = f"The library makes {found:.3f} of it, not {right:.3f}."
        assert math.isclose(found, right), f"{case}. {made}"


def check_2(answer):
    "Forward passes until the scale fits."
    assert answer == 5, "Write down each scale that is tried, and what becomes of the largest number."


class _Group:
    "A rank's view of all ranks: notes what it asks, and answers what it was told to."
    def __init__(self, said): self.said, self.flags = said, []

    def any_rank(self, flag):
        self.flags.append(bool(flag))
        return self.said


def _ask_all(answer, asked, full, said):
    "The answers of all ranks, and what each has asked."
    groups, stops = [_Group(said) for _ in asked], []
    for group, own_asked, own_full in zip(groups, asked, full):
        stop = answer(group, bool(own_asked), bool(own_full))
        stops.append(bool(stop))
    return stops, [group.flags for group in groups]


ASKED_AND_FULL = [((0, 0), (0, 0)), ((1, 0), (0, 0)), ((0, 0), (0, 1)), ((1, 1), (1, 0))] # of two ranks


def check_3(answer):
    "Two ranks that stop together."
    for asked, full in ASKED_AND_FULL:
        case = f"Asked {asked}, full {full}"
        _, flags = _ask_all(answer, asked, full, said=False)
        calls = [len(flags_of_rank) for flags_of_rank in flags]
        assert calls[0] == calls[1], f"{case}: {calls} calls of any_rank; one rank waits for ever."
        assert calls[0] == 1, f"{calls[0]} calls of any_rank; one is enough."
        any_said = any(flag for flags_of_rank in flags for flag in flags_of_rank)
        stops, _ = _ask_all(answer, asked, full, said=any_said)
        assert stops[0] == stops[1], f"{case}: one rank stops and the other does not."
        wanted = any(asked + full)
        assert stops[0] == wanted, f"{case}: they should {'stop' if wanted else 'continue'}."
