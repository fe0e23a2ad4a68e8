"Perplexity: each token once, errors that hold, the floor that nobody passes, the same loss as transformers."
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.core import UserError
from llmbook.evaluation.perplexity import (
    as_ids, bits_per_byte, gap_closed, ngram_nats, document_nats, evaluate, oracle_nats, ladder, questions, rate, text_task,
    world_task,
)
from llmbook.model.hf_format import save_model
from llmbook.model.ngram import Ngram
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, world_documents


@pytest.fixture(scope='module')
def world():
    "Stories to count, stories held out, their tokenizer, and ids of both."
    train, val = list(world_documents(300)), list(world_documents(60, 0, HELD_START))
    tokenizer = train_tokenizer((d['text'] for d in train), 500)
    return train, val, tokenizer, as_ids(tokenizer, train), as_ids(tokenizer, val)


def decoder(V, **changes):
    own = dict(block_size=256, n_layer=2, n_head=2, n_kv_head=1, n_embd=32, n_hidden=64)
    return Transformer(Config(vocab_size=V, **own | changes), seed=1)


class Even(torch.nn.Module):
    "Every token has the same chance, so a document's cost counts its questions."
    def __init__(self, V, block_size):
        super().__init__()
        self.w, self.config = torch.nn.Parameter(torch.zeros(V)), Config(vocab_size=V, block_size=block_size)

    def forward(self, ids, *_): return self.w.expand(*ids.shape, -1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(2, 90), min_size=1, max_size=12), st.integers(1, 16), st.integers(1, 16), st.integers(1, 5))
def test_windows_count_each_token_once(lengths, block_size, stride, size):
    documents = [[1, *[9] * (n - 2), 2] for n in lengths]
    nats = document_nats(Even(10, block_size), documents, size, min(stride, block_size))
    np.testing.assert_allclose(nats, questions(documents) * math.log(10), rtol=1e-6)


def test_windows_see_what_they_may(world):
    "A stride of one gives every question the longest context there is; checked question by question."
    ids, model = world[4][0], decoder(500, block_size=16).eval()
    def logits(t): return model(torch.tensor([ids[max(0, t - 16):t]]))[0, -1].double()
    with torch.no_grad(): slow = sum(-logits(t).log_softmax(-1)[ids[t]].item() for t in range(1, len(ids)))
    assert document_nats(model, [ids], stride=1)[0] == pytest.approx(slow, abs=1e-4)


def test_order_batch_and_mode_change_nothing(world):
    documents, model = world[4][:12], decoder(500).train()
    nats = document_nats(model, documents)
    assert model.training
    np.testing.assert_allclose(document_nats(model, documents[::-1], size=3)[::-1], nats, rtol=1e-6)


@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_equals_transformers(world, arch, tmp_path):
    from transformers import AutoModelForCausalLM
    model = decoder(500, arch=arch, n_kv_head=2)
    save_model(model, world[2], tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    nats = document_nats(model, world[4][:8])
    for ids, own in zip(world[4][:8], nats):
        row = torch.tensor([ids])
        with torch.no_grad(): assert own / (len(ids) - 1) == pytest.approx(theirs(row, labels=row).loss.item(), abs=1e-5)


def test_rate_equals_bootstrap():
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 400, 80)
    amounts = sizes * rng.gamma(6, 0.3, 80)
    found = rate(amounts, sizes)
    k = rng.integers(80, size=(4000, 80))
    again = amounts[k].sum(1) / sizes[k].sum(1)
    assert found.mean == pytest.approx(amounts.sum() / sizes.sum())
    assert found.error == pytest.approx(again.std(), rel=0.1)
    assert rate(3 * sizes, sizes) == (3, pytest.approx(0, abs=1e-12))
    assert math.isnan(rate(amounts[:1], sizes[:1]).error) # one document shows no spread


def test_bits_do_not_depend_on_the_tokenizer():
    "The same distribution over texts, cut in two ways, costs the same bits per byte."
    assert bits_per_byte(np.array([8, 16]) * math.log(2), ['abcd', 'éfghij']).mean == pytest.approx(24 / 11)


def test_nobody_passes_the_floor(world):
    train, val, tokenizer, seen, ids = world
    floor, sizes = oracle_nats(val)['exact floor'], questions(ids)
    costs = {n: Ngram(n, 500).fit(seen).nats(ids) for n in (1, 3, 5, 8)}
    costs |= {'blind': oracle_nats(val)['unigram by kind'], 'model': document_nats(decoder(500), ids)}
    for name, nats in costs.items():
        above = rate(nats - floor, sizes)
        assert above.mean > 3 * above.error, name
    cheat = rate(Ngram(9, 500, 0.1).fit(ids).nats(ids) - floor, sizes)
    assert cheat.mean < -3 * cheat.error


def test_alarm(world):
    "`under_floor` rings for a model that knows the stories by heart, and for no other."
    train, val, tokenizer, seen, ids = world
    counted = ngram_nats(ids, seen, 500)
    honest = world_task(decoder(500), tokenizer, val, counted)
    assert not honest['under_floor'] and [r['name'] for r in honest['ladder']][-1] == 'exact floor'

    class Heart(Even):
        def forward(self, batch, *_):
            table = {tuple(d[:k]): d[k] for d in ids for k in range(1, len(d))}
            out = torch.zeros(*batch.shape, 500)
            for r, row in enumerate(batch.tolist()):
                for t in range(len(row)): out[r, t, table.get(tuple(row[:t + 1]), 0)] = 20
            return out
    assert world_task(Heart(500, 256), tokenizer, val, counted)['under_floor']


def test_closed_and_ladder(world):
    ids = world[4]
    costs = oracle_nats(world[1])
    half = (costs['unigram by kind'] + costs['exact floor']) / 2
    for model, share in ((costs['unigram by kind'], 0), (half, 0.5), (costs['exact floor'], 1)):
        assert gap_closed(ladder(costs | {'model': model}, ids)) == pytest.approx(share)


def test_evaluate(world, tmp_path, capsys):
    train, val, tokenizer, _, ids = world
    save_model(decoder(500), tokenizer, tmp_path/'model')
    (tmp_path/'a.txt').write_text(val[0]['text'])
    found = evaluate(str(tmp_path/'model'), ['text'], text=str(tmp_path/'a.txt'), out=str(tmp_path/'out'))
    assert json.dumps(json.loads((tmp_path/'out/results.json').read_text())['tasks']) == json.dumps(found)
    assert found['text']['tokens'] == len(ids[0]) - 1 and 'bits' in capsys.readouterr().out
    alone = text_task(decoder(500), tokenizer, [{'text': val[0]['text']}])
    assert json.dumps(found['text']) == json.dumps(alone)


@pytest.mark.parametrize('flags, words', [
    (dict(tasks=['wrold']), ['--tasks wrold', "did you mean 'world'?"]), (dict(tasks=['text']), ['--text']),
    (dict(docs=1), ['--docs 1', 'at least 2']), (dict(model='{d}/none'), ['no such folder']),
    (dict(model='{d}/bare'), ['no tokenizer']), (dict(tasks=['text'], text='{d}/none.txt'), ['none.txt', 'no such file'])])
def test_evaluate_complains(flags, words, tmp_path):
    save_model(decoder(500), None, tmp_path/'bare')
    save_model(decoder(500), train_tokenizer(['the mill'] * 3, 264), tmp_path/'small')
    flags = {k: v.format(d=tmp_path) if isinstance(v, str) else v for k, v in flags.items()}
    with pytest.raises(UserError) as e: evaluate(**dict(model=str(tmp_path/'small')) | flags)
    assert all(w in str(e.value) for w in words) and '\n' not in str(e.value)
