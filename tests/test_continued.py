"Continued pretraining: every held-out text is measured apart, exactly, and without a trace in the model."
import copy

import pytest
import torch

from llmbook.core import UserError
from llmbook.model.transformer import Config, Transformer
from llmbook.text.batches import document_batches
from llmbook.text.bpe import save_tokenizer, train_tokenizer
from llmbook.text.corpus import world_documents
from llmbook.text.store import TokenStore, write_store
from llmbook.train.clm import CLM, validation_batches
from llmbook.train.continued import losses_on, watch_texts
from llmbook.train.step import LocalEngine

SMALL = dict(block_size=64, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Two folders of tokens with different held-out stories, one without any, and a decoder."
    folder = tmp_path_factory.mktemp('continued')
    documents = list(world_documents(12))
    tokenizer = train_tokenizer((d['text'] for d in documents), 300)
    parts = {'one': {'train': documents[:6], 'val': documents[6:8]}, 'two': {'train': documents[:6], 'val': documents[8:]},
             'none': {'train': documents[:6]}}
    for name, splits in parts.items():
        save_tokenizer(tokenizer, folder/name)
        write_store(folder/name, splits, tokenizer)
    return folder, Transformer(Config(vocab_size=tokenizer.get_vocab_size(), **SMALL), seed=0)


def held(folder): return {name: validation_batches(TokenStore(folder/name, 'val'), 64) for name in ('one', 'two')}


def test_each_text_is_measured_as_if_alone(made):
    folder, model = made
    texts = held(folder)
    losses = losses_on(model, texts)
    assert list(losses) == ['one', 'two'] and losses['one'] != losses['two']
    for name, batches in texts.items():
        alone = LocalEngine(model, lambda step: 0.0).evaluate(batches, CLM())['loss']
        assert losses[name] == alone


def test_batches_count_by_their_tokens(made):
    "A mean over batches would be another number: the second one here is much smaller."
    sure = copy.deepcopy(made[1])
    with torch.no_grad(): sure.embed.weight.mul_(30) # a fresh decoder finds all tokens alike
    rows = [[2, *range(20, 60), 3], [2, 21, 3]]
    batches = list(document_batches(rows, 64, size=1))
    means = [losses_on(sure, {'a': [batch]})['a'] for batch in batches]
    both = losses_on(sure, {'a': batches})['a']
    sizes = sorted(int((batch['labels'] >= 0).sum()) for batch in batches)
    assert sizes == [2, 41]
    assert both == pytest.approx((2*means[0] + 41*means[1]) / 43, rel=1e-5)
    assert abs(both - sum(means) / 2) > 1e-2


@pytest.mark.parametrize('training', [True, False])
def test_looking_leaves_no_trace(made, training):
    folder, model = made
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    losses_on(model, held(folder))
    assert model.training is training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_watched_texts_are_said_and_logged(made):
    folder, model = made
    said = []
    look = watch_texts({'old': folder/'one', 'new': str(folder/'two')}, 64)
    row = look(model, 7, {'val_loss': 1.0}, said.append)
    losses = losses_on(model, held(folder))
    assert row == {'val_loss on old': losses['one'], 'val_loss on new': losses['two']}
    assert said == [f"step 7: old {losses['one']:.2f}, new {losses['two']:.2f}"]


def test_a_text_that_holds_nothing_out_is_refused(made):
    folder, _ = made
    with pytest.raises(UserError, match='val'): watch_texts({'none': folder/'none'}, 64)
