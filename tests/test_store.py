"Token ids on disk: what a store gives back is what was encoded, and a broken or foreign one is refused in one line."

import tracemalloc

import numpy as np
import pytest
from tokenizers import AddedToken

from llmbook.core import UserError
from llmbook.text.bpe import BEGIN, BPE, END, as_tokenizer, count_words, save_tokenizer, train_bpe
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
    tokens(str(tmp_path/'a.txt'), str(tmp_path/'out'), str(tmp_path/'out'))  # its own tokenizer
    assert list(TokenStore(tmp_path/'out').meta['splits']) == ['train']
    for folder, val, words in (('tokenizer', 1.5, '--val 1.5'), ('no', 0.0, 'no such folder')):
        with pytest.raises(UserError, match=words):
            tokens(str(tmp_path/'a.txt'), str(tmp_path/folder), str(tmp_path/'out'), val=val)
