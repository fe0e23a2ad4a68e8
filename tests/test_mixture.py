"Mixtures: quotas that never fall, batches without a history, the streams of the sources, and `pretrain --mix`."
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from llmbook.core import UserError
from llmbook.files import read_json, read_jsonl
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.batches import Stream
from llmbook.text.bpe import save_tokenizer, train_tokenizer
from llmbook.text.corpus import world_documents
from llmbook.text.mixture import Mixture, block_counts, mixture_weights, parse_mix, quota
from llmbook.text.store import TokenStore, write_store
from llmbook.train.clm import pretrain

FEW = settings(max_examples=30, deadline=None, derandomize=True)
WEIGHT = st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.integers(1, 5).map(float))
WEIGHTS = st.lists(WEIGHT, min_size=1, max_size=12).filter(any)
SMALL = dict(block_size=64, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Two stores of one tokenizer, one of another, and a model."
    d = tmp_path_factory.mktemp('mix')
    documents = list(world_documents(40))
    tokenizer = train_tokenizer((document['text'] for document in documents), 300)
    for name, splits in {'a': {'train': documents[:25], 'val': documents[38:]}, 'b': {'train': documents[25:38]},
                         'c': {'train': documents[:9]}}.items():
        save_tokenizer(tokenizer, d/name)
        write_store(d/name, splits, tokenizer)
    write_store(d/'foreign', {'train': documents}, train_tokenizer(['other words'] * 3, 300))
    write_store(d/'short', {'train': [{'id': '0', 'text': 'Hi.'}]}, tokenizer)
    save_model(Transformer(Config(vocab_size=tokenizer.get_vocab_size(), **SMALL), 0), tokenizer, d/'model')
    return d


def stores(made, *names): return {name: TokenStore(made/name) for name in names or ('a', 'b')}


def mixture(made, weights=(0.7, 0.3), batch_size=8, seed=0, **more):
    return Mixture(stores(made), dict(zip('ab', weights)), batch_size, 64, seed, **more)


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Weights and quotas

def test_weights_follow_sizes():
    assert np.allclose(mixture_weights([3, 1]), [0.75, 0.25])
    assert np.allclose(mixture_weights([16, 1], 2), [0.8, 0.2]) and np.allclose(mixture_weights([16, 1], math.inf), 0.5)
    for sizes in ([], [1, 0], [-1, 2], [math.nan, 1], [math.inf, 1]):
        with pytest.raises(UserError, match='above 0'): mixture_weights(sizes)
    for temperature in (0, -1, math.nan):
        with pytest.raises(UserError, match='temperature'): mixture_weights([1, 2], temperature)


@FEW
@given(WEIGHTS, st.integers(0, 10**12))
def test_quotas_add_up_rise_and_stay_near(weights, start):
    "One more row goes to one source; what a source is off by does not grow with the place."
    k, total = len(weights), math.fsum(weights)
    bound = (1 + sum(1 / i for i in range(1, max(1, k - 1)))) / 2
    previous = None
    for n in range(start, start + 8):
        counts = quota(weights, n)
        assert sum(counts) == n and min(counts) >= 0
        assert all(c == 0 for c, w in zip(counts, weights) if w == 0)
        for c, w in zip(counts, weights): assert abs(c - n * w / total) <= bound + 1e-3
        if previous: assert sorted(b - a for a, b in zip(previous, counts)) == [0] * (k - 1) + [1]
        previous = counts


@FEW
@given(WEIGHTS, st.integers(0, 10**9))
def test_blocks_follow_one_another(weights, block):
    before, counts = block_counts(weights, block)
    assert sum(before) == 1000 * block and sum(counts) == 1000 and min(counts) >= 0
    assert block_counts(weights, block + 1)[0] == [a + b for a, b in zip(before, counts)]


# The mixture

def test_a_hundred_stopping_points(made):
    "A fresh mixture gives the batch that an old one gives, whatever it was asked before."
    old, fresh = mixture(made), mixture(made)
    for step in np.random.default_rng(0).integers(0, 3000, 100).tolist():
        fresh.blocks, fresh.streams = {}, [Stream(s.store, 1, 64, s.seed) for s in old.streams]
        assert same(old[step], fresh[step])
    assert same(mixture(made)[77], old[77]) and not same(mixture(made, seed=1)[77], old[77])


@pytest.mark.parametrize('world', [1, 2, 4])
def test_ranks_hold_slices_of_one_batch(made, world):
    "Across a border of blocks, too."
    one = mixture(made, batch_size=12)
    for step in (0, 83, 500):
        slices = [mixture(made, batch_size=12, rank=rank, world=world)[step] for rank in range(world)]
        assert all(same(part, one.slice(rank, world)[step]) for rank, part in enumerate(slices))
        for k, values in one[step].items(): assert torch.equal(torch.stack([s[k] for s in slices], 1).flatten(0, 1), values)


def test_rows_are_those_of_the_sources(made):
    "The batch is filled as each source would fill it, and the numbers name the row."
    one = mixture(made)
    for step in (0, 124, 125):
        batch, names = one[step], one.sources(step)
        for r, (number, name) in enumerate(zip(batch['rows'].tolist(), names)):
            i = one.names.index(name)
            alone = one.streams[i].fill(np.array([number - one.offsets[i]]))
            assert 0 <= number < len(one.packed)
            for k in ('ids', 'labels', 'segments', 'positions'): assert torch.equal(batch[k][r], alone[k][0])


def test_picked_out_rows_are_the_stream(made):
    one = mixture(made, (2, 1))
    rows = np.concatenate([one.block(b) for b in range(4)])
    for i, name in enumerate(one.names):
        own = rows[one._sources(rows) == i] - one.offsets[i]
        stream = Stream(stores(made)[name], 1, 64, one.streams[i].seed)
        assert own.tolist() == [stream.row_numbers(place)[0] for place in range(len(own))]
        assert abs(len(own) - 4000 * (2 - i) / 3) <= 0.5
    assert one.shares() == {'a': 2/3, 'b': 1/3}
    assert one.epochs(500)['a'] == 2667 / len(one.streams[0].packed)


def test_an_order_inside_a_block_is_drawn(made):
    one = mixture(made, (1, 1))
    first, second = (one._sources(one.block(b)) for b in (0, 1))
    assert not np.array_equal(first, second) and 400 < (first[1:] != first[:-1]).sum() < 600


def test_a_source_alone_gives_each_row_once_an_epoch(made):
    one = mixture(made, (1, 0))
    n = len(Stream(stores(made)['a'], 1, 64).packed)
    rows = np.concatenate([one.row_numbers(step) for step in range(n)])
    assert one.names == ['a'] and len(one.packed) == n
    assert (np.bincount(rows, minlength=n) == 8).all() and sorted(rows[:n]) == list(range(n))


@pytest.mark.parametrize('weights, words', [
    (dict(a=1), "source 'b' has no weight"), (dict(a=1, b=1, c=1), "source 'c' has no store"),
    (dict(a=-1, b=1), "weight of 'a' is -1"), (dict(a=math.nan, b=1), "weight of 'a' is nan"),
    (dict(a=math.inf, b=1), "weight of 'a' is inf"), (dict(a='1', b=1), "weight of 'a'"), (dict(a=0, b=0), 'all weights are 0')])
def test_bad_weights(made, weights, words):
    with pytest.raises(UserError) as e: Mixture(stores(made), weights, 8, 64)
    assert words in str(e.value) and '\n' not in str(e.value)


def test_bad_sources(made):
    for names, words in ((('a', 'foreign'), "'a' and 'foreign'.*different tokenizers"),
                         (('a', 'short'), "source 'short': .*shorter")):
        with pytest.raises(UserError, match=words): Mixture(stores(made, *names), dict.fromkeys(names, 1), 8, 64)
    with pytest.raises(UserError, match='do not divide'): mixture(made, batch_size=9, world=2)
    with pytest.raises(UserError, match='do not divide'): mixture(made).slice(0, 3)
    with pytest.raises(UserError, match='at least 1'): mixture(made, batch_size=0)


# The command line

def test_parse_mix(made):
    opened, weights = parse_mix(made/'a', [f'{made}/b=0.3', f'{made}/c=0.2'])
    assert list(opened) == ['tokens', 'mix 1', 'mix 2'] and np.allclose(list(weights.values()), [0.5, 0.3, 0.2])
    opened, weights = parse_mix(made/'a', [f'{made}/b'], 2.0)
    assert np.allclose(list(weights.values()), mixture_weights([len(s.ids) for s in opened.values()], 2))


@pytest.mark.parametrize('entries, temperature, words', [
    (['b=0.6', 'c=0.4'], 1, 'are 1 in all'), (['b=0.5', 'c'], 1, '--mix c: has no share'),
    (['b=x'], 1, '--mix b=x: give a folder'), (['b=0'], 1, 'more than 0'), (['b=nan'], 1, 'more than 0'),
    (['b=-1'], 1, 'more than 0'), (['=0.5'], 1, 'give a folder'),
    (['b=0.5'], 2, '--mix-temperature 2'), (['nowhere'], 1, 'nowhere: no tokens')])
def test_parse_mix_complains(made, monkeypatch, entries, temperature, words):
    monkeypatch.chdir(made)
    with pytest.raises(UserError) as e: parse_mix('a', entries, temperature)
    assert words in str(e.value) and '\n' not in str(e.value)


def run(made, out, **flags):
    own = dict(tokens=str(made/'a'), mix=[f'{made}/b=0.3', f'{made}/c=0.2'], model=str(made/'model'),
               steps=4, batch_size=4, lr=1e-2)
    return pretrain(**own | {'out': str(out)} | flags)


def test_a_killed_run_ends_like_one_that_was_not(made, tmp_path, capsys):
    whole = run(made, tmp_path/'whole')
    assert '50.0% of the rows' in capsys.readouterr().out
    def kill(decoder, step, row, say):
        if step == 3: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): run(made, tmp_path/'killed', save_every=2, eval_every=3, on_eval=kill)
    assert (tmp_path/'killed/checkpoints/step-00000002').exists()
    (tmp_path/'moved').mkdir()
    for name in 'bc': shutil.copytree(made/name, tmp_path/'moved'/name)
    moved = [f'{tmp_path}/moved/b=0.3', f'{tmp_path}/moved/c=0.2']
    resumed = run(made, tmp_path/'killed', save_every=2, eval_every=3, mix=moved)
    def state(folder): return (folder/'trainer/state.safetensors').read_bytes()
    def losses(name): return [row['loss'] for row in read_jsonl(tmp_path/name/'log.jsonl') if 'loss' in row]
    assert state(whole) == state(resumed) and losses('whole') == losses('killed') and len(losses('whole')) == 4
    assert read_json(tmp_path/'whole/config.json')['inputs'].keys() == {'tokens', 'model', 'mix'}


def test_another_mixture_is_refused(made, tmp_path):
    run(made, tmp_path/'a', steps=1)
    for mix in ([f'{made}/b=0.2', f'{made}/c=0.2'], [f'{made}/c=0.3', f'{made}/b=0.2']):
        with pytest.raises(UserError, match='--mix: .* does not hold what this run began with'):
            run(made, tmp_path/'a', steps=1, mix=mix)
    with pytest.raises(UserError, match='--mix was'): run(made, tmp_path/'a', steps=1, mix=None)
    run(made, tmp_path/'plain', steps=1, mix=None)
    assert 'mix_temperature' not in read_json(tmp_path/'plain/config.json')['args']
    with pytest.raises(UserError, match='--mix was None'): run(made, tmp_path/'plain', steps=1)


@pytest.mark.parametrize('flags, words', [
    (dict(tokens=None), '--mix .*give the first folder as --tokens'),
    (dict(mix=None, mix_temperature=2.0), 'nothing is mixed'), (dict(mix=[]), '--mix: empty'),
    (dict(mix_temperature=0.0), '--mix-temperature 0'), (dict(mix=['nowhere']), 'nowhere: no tokens')])
def test_pretrain_complains_before_it_leaves_anything(made, tmp_path, flags, words):
    with pytest.raises(UserError, match=words) as e: run(made, tmp_path/'out', **flags)
    assert '\n' not in str(e.value) and not (tmp_path/'out').exists()
