"The layout for decoding gives the logits and the tokens of the decoder, and rows that have ended leave the batch."

import layouts
import pytest
import torch
from needs import needs

from llmbook.align.lora import LoraOptions
from llmbook.core import generator
from llmbook.exercises import decode as checks
from llmbook.model import decode
from llmbook.model import generate as writing
from llmbook.model.decode import Decoding, for_decoding
from llmbook.model.generate import KVCache, generate
from llmbook.model.shape import ARCHS, Config
from llmbook.model.transformer import Transformer
from llmbook.scale.ranks import launch

ROPES = {'linear': {'rope_type': 'linear', 'factor': 2.0},
         'yarn': {'rope_type': 'yarn', 'factor': 2.0, 'original_max_position_embeddings': 32}}


def small(arch, **more):
    groups = 4 if arch == 'gpt2' else 2
    model = Transformer(Config(60, 64, 2, 4, groups, 32, 48, arch, **more), 0)
    for name, p in model.named_parameters():
        if p.ndim == 1: p.data += 0.5 * torch.randn(p.shape, generator=generator(0, name)) # gains, shifts and biases
        else: p.data.mul_(3) # so that the choices are not all alike
    return model.eval()


MODELS = {arch: (arch, {}) for arch in ARCHS} | {'layer norm': ('llama', {'norm': 'layer'}), 'untied': ('qwen3', {'tied': False}),
          'biases': ('llama', {'qkv_bias': True, 'o_bias': True, 'mlp_bias': True}), 'gelu': ('llama', {'activation': 'gelu'}),
          'heads normed without rotary': ('gpt2', {'norm': 'rms', 'qk_norm': True})}


def test_heads_normed_with_a_shift_stay_as_they_are():
    model = small('gpt2', qk_norm=True) # by a LayerNorm
    assert for_decoding(model) is model


@pytest.mark.parametrize('name', MODELS)
@torch.no_grad()
def test_logits_are_those_of_the_decoder(name):
    arch, more = MODELS[name]
    model = small(arch, **more)
    copy = Decoding(model)
    ids = torch.randint(60, (3, 20), generator=generator(0, 'ids'))
    mask = torch.arange(1, 21) % torch.tensor([[30], [7], [3]]) > 0 # with gaps, since nobody looks at what only comes later
    ways = [{}, {'mask': mask}, {'segments': (torch.arange(20) // 6).expand(3, -1)},
            {'positions': torch.arange(20) * torch.tensor([[1], [2], [3]])}, {'causal': False}] # stretched: a shift is not felt
    for way in ways:
        ours, theirs = (m(ids, **way)[mask] for m in (copy, model))
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    caches = [KVCache() for _ in model.blocks]
    parts = [copy(ids[:, a:b], cache=caches) for a, b in ((0, 7), (7, 8), (8, 20))]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize('rope', ROPES)
@torch.no_grad()
def test_stretched_positions(rope):
    model = small('llama', rope=ROPES[rope])
    ids = torch.randint(60, (2, 40), generator=generator(0, 'ids'))
    torch.testing.assert_close(Decoding(model)(ids), model(ids), atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_half_precision_is_near():
    model = small('llama')
    ids = torch.randint(60, (2, 20), generator=generator(0, 'ids'))
    exact, rounded = model(ids).log_softmax(-1), Decoding(model, torch.bfloat16)(ids).float().log_softmax(-1)
    assert 1e-5 < (exact - rounded).abs().mean() < 0.3


@pytest.mark.parametrize('arch', ARCHS)
def test_the_same_text(arch):
    model = small(arch)
    ids = torch.randint(60, (5, 9), generator=generator(0, 'ids'))
    assert torch.equal(generate(for_decoding(model), ids, 40, 0.), generate(model, ids, 40, 0.))


def test_what_is_copied(monkeypatch):
    model = small('llama')
    copy, ids = for_decoding(model), torch.arange(6)[None]
    before = copy(ids)
    with torch.no_grad():
        for p in model.parameters(): p.add_(1)
    assert torch.equal(copy(ids), before) # nothing is shared
    assert type(for_decoding(model)) is Decoding and not any(p.requires_grad for p in for_decoding(model).parameters())
    LoraOptions(2).apply(adapted := small('llama'))
    assert for_decoding(adapted) is adapted and for_decoding(half := small('llama').bfloat16()) is half
    monkeypatch.setattr(decode, '_LARGEST', 1000)
    assert for_decoding(model) is model


def test_rows_that_have_ended_leave(monkeypatch):
    "Each row is written as it would be alone, and fewer rows go through the model."
    model, ids = small('llama', tied=False), torch.randint(60, (8, 5), generator=generator(1, 'ids'))
    free = generate(model, ids, 40, 0.)[:, 5:]
    first = [[row.index(token) if token in row else 40 for row in free.tolist()] for token in range(60)]
    ends = [max(range(60), key=lambda token: len(set(first[token])))] # what rows write at many different places
    seen = []
    plain = Transformer.forward
    monkeypatch.setattr(Transformer, 'forward', lambda self, ids, **more: seen.append(len(ids)) or plain(self, ids, **more))
    together = generate(model, ids, 40, 0., end=ends)
    assert max(seen) <= 8 and seen[-1] < seen[0] and seen == sorted(seen, reverse=True)
    for row, alone in zip(together, ids):
        wanted = generate(model, alone[None], 40, 0., end=ends)[0]
        assert torch.equal(row[:len(wanted)], wanted) and (row[len(wanted):] == ends[0]).all()


def test_a_prompt_in_chunks(monkeypatch):
    model, ids = small('gpt2'), torch.randint(60, (2, 30), generator=generator(0, 'ids'))
    whole = generate(model, ids, 10, 0.)
    monkeypatch.setattr(writing, '_CHUNK', 7)
    assert torch.equal(generate(model, ids, 10, 0.), whole)


@needs('deepspeed', 'scale')
def test_samples_of_a_model_in_shards():
    "A run at ZeRO-3 shows what it writes on the way; there the weights are not all here to be copied."
    alone = layouts.samples(layouts.local())
    assert alone[0] != alone[1] and launch(layouts.writes, 2, 3) == [alone, alone]


def test_exercises():
    for wrong in ((50, 400), (25, 25), (25, 100)):
        with pytest.raises(AssertionError): checks.check_1(wrong)
    for wrong in (lambda w, b, D: (w / D, b), lambda w, b, D: w * D**-0.5, lambda w, b, D: (w * D**-0.5, b)):
        with pytest.raises(AssertionError): checks.check_2(wrong)
    for wrong in ('bd', ['b'], ['b', 'd', 'a']):
        with pytest.raises(AssertionError): checks.check_3(wrong)
    checks.check_3(['D', 'b'])


@pytest.mark.skipif(not decode._HAS_ONEDNN, reason='oneDNN or AVX-512 is not here')
@pytest.mark.parametrize('bias', [None, torch.randn(300, generator=generator(0, 'bias'))])
@torch.no_grad()
def test_large_products_are_the_same_in_onednn(bias, monkeypatch):
    matrix = decode._Matrix(torch.randn(300, 200, generator=generator(0, 'weight')), bias, torch.float32)
    x = torch.randn(40, 200, generator=generator(0, 'x'))
    before = torch.randn(40, 300, generator=generator(0, 'before'))
    given = before.clone()
    assert decode._for_onednn(x, matrix.weight) and not decode._for_onednn(x[:30], matrix.weight)
    assert not decode._for_onednn(x.double(), matrix.weight)
    results = []
    for has in (True, False):
        monkeypatch.setattr(decode, '_HAS_ONEDNN', has)
        results.append((matrix(x), matrix.onto(before, x)))
    for ours, theirs in zip(*results): torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert torch.equal(before, given) # `onto` leaves what it adds to
