"Perplexity: each token once, errors that hold, the floor that nobody passes, the same loss as transformers."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llmbook.evaluation.measure import text_task
from llmbook.evaluation.perplexity import (
    as_ids, bits_per_byte, document_nats, gap_closed, in_digits, ladder, oracle_nats, plus_minus, questions, rate,
)
from llmbook.model.checkpoints import load_model
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


def test_closed_and_ladder(world):
    ids = world[4]
    costs = oracle_nats(world[1])
    half = (costs['unigram by kind'] + costs['exact floor']) / 2
    for model, share in ((costs['unigram by kind'], 0), (half, 0.5), (costs['exact floor'], 1)):
        assert gap_closed(ladder(costs | {'model': model}, ids)) == pytest.approx(share)


def bytes_with(specials):
    "A tokenizer of bytes with special tokens in front, in their order."
    chars = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *chars])}, []))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    rust.add_special_tokens(list(specials))
    return rust


@pytest.mark.parametrize('kind', ['llama', 'gpt2'])
def test_folders_of_other_ids_cost_what_transformers_says(kind, tmp_path):
    """Folders that transformers wrote, with its own ids: several ends, or one token that begins and ends.

    Their tokenizer.json also cuts and pads, as it does after a call that was saved."""
    import transformers as hf
    names = ['<eot>', '<pad>', '<im_end>', '<bos>'] if kind == 'llama' else ['<|endoftext|>']
    rust = bytes_with(names)
    rust.enable_truncation(3)
    rust.enable_padding(pad_id=0, pad_token=names[0], length=12)
    V = rust.get_vocab_size()
    if kind == 'llama':
        sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        ids = dict(bos_token_id=3, eos_token_id=[2, 0], pad_token_id=1)
        config = hf.LlamaConfig(vocab_size=V, max_position_embeddings=64, **ids, **sizes)
        begin, ends = 3, (2, 0)
    else:
        config = hf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
        begin, ends = 0, (0,)
    torch.manual_seed(0)
    theirs = hf.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    rust.save(str(tmp_path/'tokenizer.json'))
    ours, tokenizer = load_model(tmp_path)
    assert (tokenizer.begin, tokenizer.ends) == (begin, ends)
    texts = ['Odo slept in the mill.', f'{names[0]} is text, and so is é', 'x', 'the river ' * 4]
    ids = [[begin, *tokenizer.encode_texts([text])[0], ends[0]] for text in texts]
    assert as_ids(tokenizer, [{'text': text} for text in texts]) == ids and len(ids[3]) == 42
    wanted = []
    for row in ids:
        row = torch.tensor([row])
        with torch.no_grad(): wanted.append(theirs(row, labels=row).loss.item() * (row.size(1) - 1))
    np.testing.assert_allclose(document_nats(ours, ids), wanted, atol=1e-5 * 42)
    task = text_task(ours, tokenizer, [{'text': text} for text in texts])
    assert task['nats_per_token'] == pytest.approx(sum(wanted) / sum(len(row) - 1 for row in ids), abs=1e-5)
    assert task['bytes'] == sum(len(text.encode()) for text in texts) and task['tokens'] == sum(len(row) - 1 for row in ids)


def test_a_document_of_no_tokens_asks_nothing():
    assert questions([[], [1], [1, 2]]).tolist() == [0, 0, 1]
    np.testing.assert_allclose(document_nats(Even(10, 16), [[], [1], [1, 2]]), [0, 0, math.log(10)], rtol=1e-6)


def test_numbers_that_are_not_known():
    assert plus_minus(None) == plus_minus(math.nan) == '' and plus_minus(0.1234) == ' ± 0.123'
    assert plus_minus(0.1234, 2) == ' ± 0.12'
    assert in_digits(None) == in_digits(math.nan) == 'not known' and in_digits(1.5) == '1.500' and in_digits(-2, 1) == '-2.0'
