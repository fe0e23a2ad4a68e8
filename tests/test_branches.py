"Many answers at once: the same as one by one, whatever the shape of the model, the batch and the neighbours."
from unittest.mock import patch

import pytest
import torch
from torch import nn

from llmbook.align.branches import _Branches, _keep_likely, answer_noise, draw_tokens, sample_answers
from llmbook.core import UserError, generator
from llmbook.model.generate import generate, keep_top_p
from llmbook.model.transformer import Config, Transformer

SHAPES = {'llama': {}, 'gqa': dict(n_kv_head=2), 'gpt2': dict(arch='gpt2'), 'qk norm': dict(qk_norm=True)}
ENDS = (0, 1, 2, 3, 4)
GOLDEN = [0.892252, 0.856586, 0.995776] # the numbers of (0, 3, 1) at the first three positions


def model_of(name, block_size=40):
    shape = dict(n_layer=2, n_head=4, n_kv_head=4, n_embd=32, n_hidden=48, tied=False) | SHAPES[name]
    model = Transformer(Config(50, block_size, **shape), seed=1)
    for p in model.parameters(): p.data *= 8 if p.ndim > 1 else 1 # so that what is looked at matters
    return model.eval()


def prompts_of(n, longest=18):
    rng = generator(0, 'prompts')
    return [torch.randint(5, 50, (2 + i * 5 % (longest - 1),), generator=rng).tolist() for i in range(n)]


@torch.no_grad()
def one_by_one(model, ids, prompt, sample, n, temperature=0., top_p=None, seed=0):
    "The same in the plainest way: no cache, no mask, no neighbours."
    written = list(ids)
    for u in answer_noise(seed, [prompt], [sample], 1, n)[0, 0]:
        if len(written) >= model.config.block_size: break
        written.append(draw_tokens(model(torch.tensor([written]))[0, -1], u, temperature, top_p).item())
        if written[-1] in ENDS: break
    return written[len(ids):]


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('how', [dict(), dict(temperature=1.2), dict(temperature=0.9, top_p=0.8, seed=5)], ids=str)
def test_the_same_as_one_by_one(name, how):
    model, prompts = model_of(name), prompts_of(5)
    found = sample_answers(model, prompts, 12, samples=3, ends=ENDS, **how)
    assert found == [[one_by_one(model, ids, i, k, 12, **how) for k in range(3)] for i, ids in enumerate(prompts)]
    if not how: return
    assert len({tuple(ids) for answers in found for ids in answers}) > 10 # they are not all alike
    lengths = {len(ids) for answers in found for ids in answers}
    assert min(lengths) < 12 == max(lengths) # some end, some do not


def test_neighbours_change_nothing():
    model, prompts = model_of('gqa'), prompts_of(9)
    how = dict(n=10, temperature=1.0, ends=ENDS)
    found = sample_answers(model, prompts, samples=11, **how)
    for size in (5, 16): assert sample_answers(model, prompts, samples=11, **how, batch_size=size) == found
    assert sample_answers(model, prompts[3:5], samples=2, **how, first=3) == [answers[:2] for answers in found[3:5]]
    assert {len(answers) for answers in found} == {11} and all(ids for answers in found for ids in answers)
    others = [prompts[0], *reversed(prompts[1:])]
    assert sample_answers(model, others, samples=11, **how)[0] == found[0]
    assert sample_answers(model, prompts, samples=11, **how, seed=1) != found


@pytest.mark.slow
def test_processes_change_nothing():
    model, prompts = model_of('llama'), prompts_of(40)
    how = dict(n=12, temperature=1.0, samples=2, ends=ENDS, batch_size=8)
    with patch('llmbook.text.workers._ALONE', 0): found = sample_answers(model, prompts, **how, workers=2)
    assert found == sample_answers(model, prompts, **how)


@pytest.mark.parametrize('name', ['llama', 'gpt2'])
def test_answers_end_with_the_context(name):
    "Also where a row holds more tokens than the block size, all samples together."
    model = model_of(name, 16)
    prompts = [list(range(5, 5 + n)) for n in (15, 3, 9)]
    found = sample_answers(model, prompts, 100, samples=5, temperature=1.0)
    assert [[len(ids) for ids in answers] for answers in found] == [[16 - len(ids)] * 5 for ids in prompts]
    greedy = sample_answers(model, prompts, 100)
    alone = [generate(model, torch.tensor([ids]), 100, 0)[0].tolist() for ids in prompts]
    assert alone == [ids + answer for ids, [answer] in zip(prompts, greedy)]


def test_what_has_ended_is_not_computed():
    model, prompts, read = model_of('llama'), prompts_of(60), []
    inner = _Branches.read
    def counting(self, model, tokens, i):
        read.append(tokens.numel())
        return inner(self, model, tokens, i)
    ends = tuple(range(5, 25)) # two of five tokens
    with patch.object(_Branches, 'read', counting): found = sample_answers(model, prompts, 30, 1.0, ends=ends)
    needed = sum(len(ids) - 1 for [ids] in found)
    assert needed <= sum(read) <= needed * 4 / 3 and read[0] > 2 * read[3] # fewer than a quarter have ended


def test_noise_has_an_address():
    noise = answer_noise(7, [5, 2, 5], [0, 4, 8], 4, 6)
    assert noise.dtype == torch.float32 and 0 <= noise.min() and noise.max() < 1
    assert torch.equal(noise[1, 2, :3], answer_noise(7, [2], [6], 1, 3)[0, 0])
    assert len(noise.flatten().unique()) == noise.numel()
    for other in (answer_noise(8, [5], [0], 4, 6), answer_noise(7, [6], [0], 4, 6), answer_noise(7, [5], [4], 4, 6)):
        assert not (other == noise[:1]).any()
    assert [round(x, 6) for x in answer_noise(0, [3], [1], 1, 3)[0, 0].tolist()] == GOLDEN # on every machine



def test_no_number_draws_what_is_impossible():
    logits = torch.randn(2000, 30, generator=generator(0, 'x')) * 4
    logits[:, -3:] = logits[:, :2] = -torch.inf
    for u in (0., 1 - 2**-24, 0.5):
        drawn = draw_tokens(logits, torch.full((2000,), u))
        assert 2 <= drawn.min() and drawn.max() <= 26, u
    flat = torch.zeros(1, 4)
    assert [draw_tokens(flat, torch.tensor([u])).item() for u in (0, .2499, .25, .7499, .75)] == [0, 0, 1, 2, 3]
    sure = draw_tokens(logits.bfloat16(), torch.full((2000,), 0.999), 1e-3)
    assert (sure == logits.bfloat16().argmax(-1)).float().mean() > 0.99 # colder is surer


@pytest.mark.parametrize('vocab_size', [20, 64, 65, 500])
def test_the_short_way_to_top_p_keeps_the_same(vocab_size):
    sharp = torch.linspace(0.1, 8, 40)[:, None] * torch.randn(40, vocab_size, generator=generator(0, vocab_size))
    for p in (1e-12, 0.2, 0.7, 0.95, 0.9999):
        kept = _keep_likely(sharp.view(8, 5, -1), p)
        torch.testing.assert_close(kept, keep_top_p(sharp, p).view(8, 5, -1), rtol=0, atol=0)


def test_a_model_stays_as_it_was():
    model = model_of('llama').train()
    sample_answers(model, [[5, 6]], 3)
    assert model.training and not any(p.grad is not None for p in model.parameters())
    with patch.object(_Branches, 'read', side_effect=RuntimeError), pytest.raises(RuntimeError):
        sample_answers(model, [[5, 6]], 3)
    assert model.training
    half = nn.Module.bfloat16(model_of('gqa'))
    assert len(sample_answers(half, prompts_of(3), 5, 1.0, 2)[2][1]) == 5


@pytest.mark.parametrize('prompts, how, words', [
    ([[5], []], {}, 'prompt 1: empty'), ([[5]], dict(temperature=-1.), 'temperature -1'), ([[5]], dict(top_p=1.5), 'top_p 1.5'),
    ([[5], [5] * 40], dict(first=10), 'prompt 11: 40 tokens fill the context of 40; shorten it')])
def test_what_cannot_be_answered(prompts, how, words):
    with pytest.raises(UserError, match=words): sample_answers(model_of('llama'), prompts, **how)


def test_nothing_is_asked(): assert sample_answers(model_of('llama'), []) == []
