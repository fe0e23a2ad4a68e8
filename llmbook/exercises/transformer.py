"What `grade` asks of the answers to the exercises of the chapter `transformer`."
import math

import torch
from torch.nn import functional as F

from llmbook.core import generator
from llmbook.model.transformer import Block, Config, count_parameters


def check_1(answer):
    "The parameters of one block."
    n = count_parameters(Block(Config(n_embd=64, n_head=4, n_kv_head=2, n_hidden=172)))
    assert answer != n - 2*64, "Two norms have a gain for each coordinate."
    assert answer != n + 2*64*32, "Two key/value heads of size 16 make `k` and `v` half as large as `q`."
    assert answer == n, f"Attention has q, k, v and o, the other part gate, up and down; {answer} is not their sum."


def check_2(answer):
    "The hidden width of SwiGLU."
    for C, multiple, hidden in ((128, 8, 344), (256, 8, 688), (1024, 16, 2736), (768, 256, 2048), (4096, 256, 11008)):
        found = answer(C, multiple)
        assert isinstance(found, int), "Return a whole number."
        assert found == hidden, f"Width {C}, multiples of {multiple}: the hidden width is {hidden}, not {found}."


def check_3(answer):
    "A norm that looks at one token."
    x = torch.randn(2, 5, 8, generator=generator(0, 'transformer.3'))
    changed = x.clone()
    changed[:, -1] *= 10
    moved = (answer(changed) - answer(x)).abs().amax((0, 2))
    assert moved[:-1].max() == 0, "The last token is ten times as long, and the earlier ones feel it."
    torch.testing.assert_close(answer(x), F.rms_norm(x, (8,)), msg="No token sees another, but the size is not one.")


def check_4(answer):
    "Nats per token as bits per byte."
    for nats, n_tokens, text, right in ((math.log(2), 8, 'eight by', 1.0), (math.log(256), 3, 'the old mill', 2.0),
                                        (math.log(2), 12, 'émigré', 1.5), (2.0, 2, '日本', 2 / 3 / math.log(2))):
        found, case = answer(nats, n_tokens, text), f"{text!r}, {n_tokens} tokens at {nats:.2f} nats"
        assert found is not None, "Return a number."
        assert math.isclose(found, right, rel_tol=1e-6), f"{case}: {right:.2f} bits per byte, not {found:.2f}."
