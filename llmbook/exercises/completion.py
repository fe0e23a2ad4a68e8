"What `grade` asks of the answers to the exercises of the chapter `completion`."
import torch


def check_1(answer):
    "A draw that leaves the global generator alone."
    logits = torch.log(torch.tensor([0.1, 0.6, 0.0, 0.3]))
    before = torch.get_rng_state()
    tokens = [answer(logits, seed) for seed in range(200)]
    untouched = torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)
    assert tokens == [answer(logits, seed) for seed in range(200)], "The same seed gives another token the second time."
    torch.set_rng_state(before)
    assert 2 not in tokens, "Token 2 has no probability and was drawn."
    assert all(abs(tokens.count(i) / 200 - p) < 0.12 for i, p in ((0, 0.1), (1, 0.6), (3, 0.3))), \
        "Over many seeds, tokens do not come as often as their probabilities say."
    assert untouched, "The global generator was changed: the training's random numbers move."
