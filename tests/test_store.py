"Token ids on disk: what a store gives back is what was encoded, and a broken or foreign one is refused in one line."

import json
import os
import tracemalloc

import numpy as np
import pytest
from tokenizers import AddedToken

from llmbook.core import UserError
from llmbook.text import encode as encode_module
from llmbook.text import store as store_module
from llmbook.text.batches import PackedRows
from llmbook.text.bpe import BEGIN, BPE, END, as_tokenizer, count_words, save_tokenizer, train_bpe
from llmbook.text.encode import UnequalIds
from llmbook.text.store import TokenStore, encode_documents, fingerprint, tokens, write_store


@pytest.fixture(scope='module')
def tokenizer(): return as_tokenizer(BPE(train_bpe(count_words(['the cat sat on the mat'] * 9), 20)))


def test_names_of_special_tokens_stay_text_and_the_switch_is_put_back(tokenizer):
    tokenizer.encode_special_tokens = False
    ids, = encode_documents(tokenizer, [{'text': 'the<|end|>cat<|begin|>'}])
    assert ids[0] == BEGIN and ids[-1] == END and not {BEGIN, END} & set(ids[1:-1])
    assert tokenizer.encode_special_tokens is False
    with pytest.raises(TypeError): list(encode_documents(tokenizer, [{'text': None}]))
    assert tokenizer.encode_special_tokens is False
    texts = [{'text': 'the cat ' * (i % 7)} for i in range(25)]
    assert list(encode_documents(tokenizer, iter(texts), chunk=4)) == list(encode_documents(tokenizer, texts))


def test_a_store_gives_back_what_was_written(tokenizer, tmp_path):
    documents = [{'text': t} for t in ('the cat', '', 'sat on the mat ' * 50, 'é🙂')]
    counts = write_store(tmp_path, {'train': iter(documents), 'val': documents[:1]}, tokenizer)
    for split, part in (('train', documents), ('val', documents[:1])):
        store, rows = TokenStore(tmp_path, split, tokenizer), list(encode_documents(tokenizer, part))
        assert [r.tolist() for r in store] == rows and store.lengths.tolist() == list(map(len, rows))
        assert counts[split] == {'documents': len(part), 'tokens': sum(map(len, rows)),
                                 'bytes': sum(len(d['text'].encode()) for d in part)}
        assert store.ids.dtype == np.uint16
        with pytest.raises(IndexError): store[len(store)]


def test_a_large_vocabulary_takes_four_bytes(tmp_path, tokenizer):
    big = as_tokenizer(BPE(train_bpe(count_words(['ab ' * 3]), 2)))
    big.add_tokens([AddedToken(f'x{i}y') for i in range(2**16)])
    write_store(tmp_path, {'train': [{'text': 'ab x65000y'}]}, big)
    store = TokenStore(tmp_path)
    assert store.ids.dtype == np.uint32 and store.ids.max() > 65_000
    assert fingerprint(big) != fingerprint(tokenizer)


def test_writing_streams(tokenizer, tmp_path):
    "Ids of 2 million tokens pass through a memory of 30 MB; as Python numbers they would take 60."
    text = 'the cat sat on the mat ' * 100
    encode = [e.ids for e in tokenizer.encode_batch([text], add_special_tokens=False)]
    n = 2_000_000 // len(encode[0])
    tracemalloc.start()
    write_store(tmp_path, {'train': ({'text': text} for _ in range(n))}, tokenizer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(TokenStore(tmp_path)) == n and peak < 30e6


def test_mistakes_have_one_line(tokenizer, tmp_path):
    def line(fn, words):
        with pytest.raises(UserError, match=words) as e: fn()
        assert '\n' not in str(e.value)
    write_store(tmp_path, {'train': [{'text': 'the cat sat ' * 30}] * 9}, tokenizer)
    line(lambda: TokenStore(tmp_path/'none'), 'no tokens in it')
    line(lambda: TokenStore(tmp_path, 'val'), 'no val split; there is train')
    line(lambda: TokenStore(tmp_path, tokenizer=as_tokenizer(BPE([]))), 'another tokenizer')
    line(lambda: write_store(tmp_path/'empty', {'train': []}, tokenizer), 'no documents')
    assert not (tmp_path/'empty'/'tokens.json').exists()
    complete = {n: (tmp_path/f'train.{n}.npy').read_bytes() for n in ('ids', 'starts')}
    for name, content in complete.items():
        for broken in (b'', content[:40], content[:-9], b'x' * len(content)):
            (tmp_path/f'train.{name}.npy').write_bytes(broken)
            line(lambda: TokenStore(tmp_path), 'shards')
        (tmp_path/f'train.{name}.npy').unlink()
        line(lambda: TokenStore(tmp_path), 'do not open')
        (tmp_path/f'train.{name}.npy').write_bytes(content)
    assert len(TokenStore(tmp_path)) == 9
    write_store(tmp_path/'other', {'train': [{'text': 'cat'}] * 9}, tokenizer)
    (tmp_path/'train.ids.npy').write_bytes((tmp_path/'other/train.ids.npy').read_bytes())
    line(lambda: TokenStore(tmp_path), 'tokens, not')


def test_the_verb_writes_all_that_training_needs(tokenizer, tmp_path, capsys):
    (tmp_path/'a.txt').write_text('the cat sat on the mat. ' * 100)
    save_tokenizer(tokenizer, tmp_path/'tokenizer')
    counts = tokens(str(tmp_path/'a.txt'), str(tmp_path/'tokenizer'), str(tmp_path/'out'), val=0.25)
    assert counts['train']['bytes'] == 3 * counts['val']['bytes'] == 1800
    assert {p.name for p in (tmp_path/'out').iterdir()} >= {'tokens.json', 'tokenizer.json', 'val.ids.npy'}
    assert 'bytes per token' in capsys.readouterr().out
    with pytest.raises(UserError, match='must lie apart from --tokenizer'):
        tokens(str(tmp_path/'a.txt'), str(tmp_path/'out'), str(tmp_path/'out'))
    tokens(str(tmp_path/'a.txt'), str(tmp_path/'out'), str(tmp_path/'two'))  # the tokenizer beside tokens
    assert list(TokenStore(tmp_path/'two').meta['splits']) == ['train']
    for folder, val, words in (('tokenizer', 1.5, '--val 1.5'), ('no', 0.0, 'no such folder')):
        with pytest.raises(UserError, match=words):
            tokens(str(tmp_path/'a.txt'), str(tmp_path/folder), str(tmp_path/'out'), val=val)


def test_tokens_json_is_read_by_its_fields(tokenizer, tmp_path):
    write_store(tmp_path, {'train': [{'text': 'the cat'}]}, tokenizer)
    good = json.loads((tmp_path/'tokens.json').read_text())
    split = good['splits']['train']
    bad = [{k: v for k, v in good.items() if k != name} for name in ('vocab_size', 'splits')]
    bad += [good | changed for changed in (
        {'vocab_size': '284'}, {'vocab_size': 0}, {'vocab_size': None}, {'splits': []}, {'splits': {'train': None}},
        {'splits': {'train': split | {'tokens': '9'}}}, {'splits': {'train': split | {'tokens': -1}}},
        {'splits': {'train': {'documents': 1, 'bytes': 7}}}, {'ends': 2}, {'ends': ['2']}, {'begin': 'x'}, {'pad': -1},
        {'tokenizer': 7})]
    for meta in [*bad, [], None, 'x']:
        (tmp_path/'tokens.json').write_text(json.dumps(meta))
        with pytest.raises(UserError) as e: TokenStore(tmp_path)
        assert 'tokens.json' in str(e.value) and '\n' not in str(e.value), meta
    (tmp_path/'tokens.json').write_text('[' * 100_000)
    with pytest.raises(UserError, match='not readable as JSON'): TokenStore(tmp_path)
    before = {k: v for k, v in good.items() if k not in ('begin', 'ends', 'pad')}  # as stores were written once
    (tmp_path/'tokens.json').write_text(json.dumps(before))
    assert (store := TokenStore(tmp_path)).pad is store.begin is None and store.ends == ()


@pytest.mark.parametrize('name, values, words', [
    ('ids', np.zeros(4, np.float32), 'float32'), ('ids', np.zeros(4, np.int64), 'int64'), ('ids', np.zeros(4, bool), 'bool'),
    ('ids', np.zeros((2, 2), np.uint16), '2 dimensions'), ('ids', np.array(4, np.uint16), '0 dimensions'),
    ('ids', np.array([{}], object), 'do not open'), ('ids', np.zeros(4, '>u2'), '>u2|uint16'),
    ('ids', np.array([1, 2, 9, 299], np.uint16), 'the id 299, but its vocabulary has 292'),
    ('starts', np.array([0, 4.0]), 'float64'), ('starts', np.array([0, 5, 4]), 'do not rise'),
    ('starts', np.array([1, 4]), 'do not rise'),
    ('starts', np.array([], np.int64), 'do not rise'), ('starts', np.array([0, -3, 4]), 'do not rise')])
def test_arrays_of_other_kinds_are_refused(name, values, words, tokenizer, tmp_path):
    write_store(tmp_path, {'train': [{'text': 'xy'}]}, tokenizer)
    assert len(TokenStore(tmp_path).ids) == 4
    np.save(tmp_path/f'train.{name}.npy', values, allow_pickle=True)
    with pytest.raises(UserError, match=words) as e: TokenStore(tmp_path)
    assert '\n' not in str(e.value)


def test_a_pipe_instead_of_a_file(tokenizer, tmp_path):
    for name in ('train.ids.npy', 'train.starts.npy', 'tokens.json'):
        write_store(tmp_path, {'train': [{'text': 'xy'}]}, tokenizer)
        (tmp_path/name).unlink()
        os.mkfifo(tmp_path/name)
        with pytest.raises(UserError, match='a pipe or a device'): TokenStore(tmp_path)
        (tmp_path/name).unlink()


def test_a_wrong_id_between_the_samples_stops_at_its_batch(tokenizer, tmp_path, monkeypatch):
    write_store(tmp_path, {'train': [{'text': 'the cat sat on the mat ' * 9}] * 9}, tokenizer)
    ids = np.load(tmp_path/'train.ids.npy')
    ids[len(ids) // 2] = 60_000
    np.save(tmp_path/'train.ids.npy', ids)
    with pytest.raises(UserError, match='the id 60000'): TokenStore(tmp_path)
    monkeypatch.setattr(store_module, '_SAMPLES', 2)
    monkeypatch.setattr(store_module, '_SAMPLE', 10)
    rows = PackedRows(TokenStore(tmp_path), 16)
    with pytest.raises(UserError, match='the id 60000, but its vocabulary'):
        for i in range(len(rows.packed)): rows.fill(np.array([i]))


def test_an_older_store_survives_mistakes(tokenizer, tmp_path):
    (tmp_path/'a.txt').write_text('the cat sat on the mat. ' * 100)
    (tmp_path/'bad.jsonl').write_text('{"text": "a"}\n{"title": "b"}\n')
    save_tokenizer(tokenizer, tmp_path/'tokenizer')
    out = tmp_path/'out'
    def run(text, folder='tokenizer', **more): return tokens(str(tmp_path/text), str(tmp_path/folder), str(out), **more)
    counts = run('a.txt')
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for text, folder, val, words in (('typo.txt', 'tokenizer', 0.0, 'no such file'), ('bad.jsonl', 'tokenizer', 0.0, 'row 2'),
                                     ('a.txt', 'none', 0.0, 'no such folder'), ('a.txt', 'tokenizer', 0.5, '--val was 0.0'),
                                     ('a.txt', 'tokenizer', 2.0, '--val 2.0')):
        with pytest.raises(UserError, match=words): run(text, folder, val=val)
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert run('a.txt') == counts and {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert set(run('a.txt', val=0.5, fresh=True)) == {'train', 'val'}
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/x.npy').write_bytes(b'mine')
    with pytest.raises(UserError, match='did not write'):
        tokens(str(tmp_path/'a.txt'), str(tmp_path/'tokenizer'), str(tmp_path/'mine'))


def test_half_characters_are_counted_and_encoded(tokenizer, tmp_path):
    counts = write_store(tmp_path, {'train': [{'text': 'a\ud83d'}]}, tokenizer)
    assert counts['train'] == {'documents': 1, 'tokens': 4, 'bytes': 2}


@pytest.mark.parametrize('val', [0.0, 0.5])
def test_the_verb_reads_again_when_an_encoder_is_found_wrong(val, tokenizer, tmp_path, capsys, monkeypatch):
    "The files are those of a plain run, one line says what happened, and what was left out is counted once."
    (tmp_path/'text').mkdir()
    for name in 'abcd': (tmp_path/f'text/{name}.txt').write_text(f'the cat sat on the mat {name} ' * 50)
    (tmp_path/'text/picture.png').write_bytes(b'x')
    save_tokenizer(tokenizer, tmp_path/'tokenizer')
    def run(out): return tokens(str(tmp_path/'text'), str(tmp_path/'tokenizer'), str(tmp_path/out), val=val)
    counts = run('right')
    capsys.readouterr()
    def found_wrong(batches):
        yield [np.array([5]) for _ in next(batches)]
        raise UnequalIds("fastokens has other ids than tokenizers for 'x'")
    monkeypatch.setattr(encode_module, '_by_size', lambda tokenizer: found_wrong)
    assert run('again') == counts
    said = capsys.readouterr().err
    assert said.count('encoding again with tokenizers') == 1 and said.count('.png files: 1 (') == 1 and ': 2' not in said
    for name in ('tokens.json', 'train.ids.npy', 'train.starts.npy', 'tokenizer.json'):
        assert (tmp_path/'again'/name).read_bytes() == (tmp_path/'right'/name).read_bytes()
