"Encoders: all give the library's ids on any text, and one that does not is found out before or while it is used."

import os
import random
import subprocess
import sys
import unicodedata
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from llmbook.core import UserError
from llmbook.text import encode as m
from llmbook.text import workers
from llmbook.text.bpe import BPE, as_tokenizer, count_words, train_bpe
from llmbook.text.encode import UnequalIds, fastest_encoder, framed_ids, library_encoder
from llmbook.text.framing import _LLAMA3, text_tokenizer
from llmbook.text.store import TokenStore, write_store
from needs import needs

TEXT = "It's a lamp, isn't it? We'll see 1234 lamps.\n\n    if x:\n\treturn  naïve('日本語')  \n don’t  ... "
EVERY = ''.join(c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ('Cn', 'Cs', 'Co'))


def ours(): return as_tokenizer(BPE(train_bpe(count_words([TEXT * 3, ' \n' * 9, 'the end of the end ' * 9]), 60)))


def changed(cutter=None, normalizer=None, added=()):
    rust = ours()
    if cutter: rust.pre_tokenizer = cutter
    if normalizer: rust.normalizer = normalizer
    rust.add_tokens(list(added))
    return rust


def split(expression):
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), 'isolated'), plain])


def words_of_bytes():
    rust = Tokenizer(models.WordLevel({'Ġlamp': 0, 'It': 1, 'Ċ': 2, '?': 3}, unk_token='?'))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return rust


KINDS = {
    'ours': ours, 'gpt2': lambda: changed(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    'llama3': lambda: changed(split(_LLAMA3)),
    'qwen': lambda: changed(split(_LLAMA3.replace('{1,3}', '')), normalizers.NFC()),
    'space in front': lambda: changed(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    'added': lambda: changed(added=[AddedToken('. It'), AddedToken('lamp', single_word=True), AddedToken('<y>', lstrip=True)]),
    'lower': lambda: changed(normalizer=normalizers.Lowercase()), 'nfkc': lambda: changed(normalizer=normalizers.NFKC()),
    'words': lambda: Tokenizer(models.WordLevel({'a': 0, '?': 1}, unk_token='?')), 'words of bytes': lambda: words_of_bytes()}
FAST = needs('fastokens', 'peers')
POOLS = [EVERY, [c for c in EVERY if c.isspace()], [chr(i) for i in range(128)], ['<|end|>', '<|begin|>', '<|en', '<y>', '. It'],
         ["'s", "'LL", "'ſ", 'K', ' the', '  ', '\r\n', '\x1c', '123', 'lamp', 'e\u0301', '🇮🇸', '\u200d', 'word'],
         [chr(i) for i in (0x378, 0x10ffff, 0xe000, 0x2fffe)]]  # unassigned, private, no characters


def random_texts(seed, n):
    rng = random.Random(seed)
    return [''.join(rng.choice(rng.choice(POOLS)) for _ in range(rng.randrange(40))) for _ in range(n)]


def by_library(rust, texts): return list(text_tokenizer(rust).encode_iterable(texts))


def lists(arrays): return [ids.tolist() for ids in arrays]


@pytest.mark.parametrize('kind', KINDS)
def test_ids_are_the_librarys(kind):
    rust, texts = KINDS[kind](), [TEXT, '', TEXT * 60, *random_texts(1, 300), 'half \ud83d', 'a' * 5000, ' \n' * 500]
    right = by_library(rust, texts)
    for encoder in (None, library_encoder(rust), fastest_encoder(rust)):
        assert lists(framed_ids(rust, iter(texts), encoder)) == right


@FAST
@pytest.mark.parametrize('kind', KINDS)
def test_fastokens_is_equal_or_says_that_it_cannot(kind):
    rust, texts = KINDS[kind](), [TEXT, '', *random_texts(2, 800)]
    try: encoder = m._fast_encoder(text_tokenizer(rust))
    except UnequalIds: assert kind in ('nfkc', 'words', 'words of bytes')
    else: assert lists(framed_ids(rust, texts, encoder)) == by_library(rust, texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from(" \n'\t.s1é日"))), max_size=4))
def test_any_text(texts):
    rust = RUST
    assert lists(framed_ids(rust, texts, library_encoder(rust))) == by_library(rust, texts)


RUST = ours()


@pytest.mark.parametrize('kind', ['ours', 'gpt2'])
def test_ascii_is_cut_as_the_library_cuts_it(kind):
    draw, rust = random.Random(0), KINDS[kind]()
    word = m._word_of(text_tokenizer(rust))
    texts = [a + b for a, b in product(map(chr, range(128)), repeat=2)]
    texts += [''.join(draw.choices(" \n\t'.a1\x1c\x0b\0s", k=9)) for _ in range(20_000)]
    for text in texts:
        words = [text[a:b] for _, (a, b) in rust.pre_tokenizer.pre_tokenize_str(text)]
        assert m._cut(text, word) == words, ascii(text)


def test_every_character_among_others():
    texts = [f'a{c}b {c} 1{c}\n{c}{c}.{c}' for c in EVERY[::200]]
    assert lists(framed_ids(RUST, texts, library_encoder(RUST))) == by_library(RUST, texts)
    assert ''.join(m._cut(' '.join(texts))) == ' '.join(texts)


def test_memory_of_words_is_bounded():
    words = m._WordEncoder(RUST.to_str())
    words.words.most = 50
    text = ' '.join(f'{i:x}' for i in range(2000)) + ' é' + 'x' * 500
    for _ in range(2): assert words([text])[0].tolist() == by_library(RUST, [text])[0][1:-1]
    assert len(words.words) <= 50 and len(words.words.older) <= 50
    assert max(map(len, [*words.words, *words.words.older])) <= 64


def test_several_processes_keep_the_order(monkeypatch):
    monkeypatch.setattr(workers, '_ALONE', 0)
    monkeypatch.setattr(m, '_batches', lambda pieces, size, batches=m._batches: batches(pieces, 500))
    texts = [f'{i} lamps, don’t {"x" * (i % 50)}' for i in range(300)] + [TEXT * 40]
    assert lists(framed_ids(RUST, iter(texts), library_encoder(RUST, workers=2))) == by_library(RUST, texts)


def test_nothing_is_read_that_is_not_needed(monkeypatch):
    monkeypatch.setattr(m, '_batches', lambda pieces, size, batches=m._batches: batches(pieces, 20_000))
    read = []
    def endless():
        while True:
            read.append(1)
            yield 'lamp ' * 1000
    rows = framed_ids(RUST, endless(), m._plain_encoder(text_tokenizer(RUST)))
    assert len(next(rows)) > 1000 and len(read) < 12


def faulty(change):
    "An encoder with a fault that changes texts."
    plain = m._plain_encoder(text_tokenizer(RUST))
    return lambda batches: plain([change(text) for text in batch] for batch in batches)


@pytest.mark.parametrize('change', [
    lambda text: text.replace('\xa0', ' '), lambda text: text.replace('\x1c', ' '), lambda text: text.replace('<|end|>', ''),
    lambda text: unicodedata.normalize('NFC', text), lambda text: text[:2000], lambda text: text.replace('\u200d', ''),
    lambda text: text.replace('\0', ''), lambda text: text.replace('\r', ''), lambda text: text or ' ',
    lambda text: text.replace("'s", 's'), lambda text: text.replace('123', '')])
def test_a_fault_is_found_before(change, monkeypatch, capsys):
    monkeypatch.setattr(m, '_fast_encoder', lambda tokenizer: faulty(change))
    encoder = fastest_encoder(RUST)
    assert not isinstance(encoder, m._Checked)
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'other ids than tokenizers' in said and 'encoding with tokenizers instead' in said
    assert lists(framed_ids(RUST, [TEXT], encoder)) == by_library(RUST, [TEXT])


def test_a_character_that_one_library_does_not_know_is_found_where_it_comes(monkeypatch, tmp_path, capsys):
    "None of the hard texts has it, and only the last of 2,000 documents."
    monkeypatch.setattr(m, '_fast_encoder', lambda tokenizer: faulty(lambda text: text.replace('☃', '*')))
    monkeypatch.setattr(m, '_by_size', fastest_encoder)
    documents = [{'text': f'{i} lamps'} for i in range(1999)] + [{'text': 'a ☃'}]
    counts = write_store(tmp_path/'a', {'train': documents}, RUST)
    assert 'encoding again with tokenizers' in capsys.readouterr().err and counts['train']['documents'] == 2000
    assert TokenStore(tmp_path/'a')[1999].tolist() == by_library(RUST, ['a ☃'])[0]
    with pytest.raises(UserError, match='give encoder=library_encoder') as e:
        write_store(tmp_path/'b', {'train': iter(documents)}, RUST)
    assert '\n' not in str(e.value) and not (tmp_path/'b/tokens.json').exists()


def test_a_character_is_looked_at_once():
    checked = m._Checked(None, None)
    text = 'plain ' * 9 + 'é and 日 and é'
    assert checked._around_new('plain') == [] and checked._around_new(text) == [text[38:], text[44:]]
    assert checked._around_new(text) == [] and checked._around_new('日é ☃') == ['日é ☃']


def test_what_fastokens_raises_is_one_kind(monkeypatch):
    class Panic(BaseException): pass
    def work(error): raise error
    for error in (Panic('a\nb'), ValueError(), RuntimeError('x' * 900)):
        with pytest.raises(UnequalIds) as e: m._of_fastokens(lambda error=error: work(error))
        assert '\n' not in str(e.value) and len(str(e.value)) < 300
    with pytest.raises(KeyboardInterrupt): m._of_fastokens(lambda: work(KeyboardInterrupt()))


def test_without_fastokens(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'fastokens', None)
    assert lists(framed_ids(RUST, [TEXT], fastest_encoder(RUST))) == by_library(RUST, [TEXT])
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('which', ['library', 'fastest', 'plain', 'two processes'])
def test_a_store_has_the_same_bytes_as_ever(which, tmp_path, monkeypatch):
    "Written as it was before there were encoders: ids as lists, in the type of the store."
    texts = [TEXT * 9, 'a', *random_texts(3, 400)]
    rows = by_library(RUST, texts)
    monkeypatch.setattr(workers, '_ALONE', 0)
    plain = m._plain_encoder(text_tokenizer(RUST))
    encoder = {'library': library_encoder(RUST, 1), 'two processes': library_encoder(RUST, 2), 'plain': plain,
               'fastest': fastest_encoder(RUST)}[which]
    write_store(tmp_path, {'train': ({'text': text} for text in texts)}, RUST, encoder)
    ids, starts = np.concatenate([np.asarray(row, np.uint16) for row in rows]), np.cumsum([0, *map(len, rows)])
    for name, array in (('ids', ids), ('starts', starts)):
        np.save(tmp_path/'as_ever.npy', array)
        old, new = (tmp_path/file for file in ('as_ever.npy', f'train.{name}.npy'))
        if name == 'starts': assert new.read_bytes() == old.read_bytes()
        else: assert new.read_bytes()[128:] == old.read_bytes()[128:] and np.array_equal(np.load(new), array)


@pytest.mark.slow
@FAST
def test_the_benchmark_runs(tmp_path):
    (tmp_path/'a.txt').write_text(TEXT * 300)
    command = [sys.executable, 'benchmarks/encode.py', '--text', tmp_path/'a.txt', '--rounds', '1', '--vocab-size', '300']
    command += ['--json', tmp_path/'x.json']
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': '.'})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('ids equal') >= 8 and (tmp_path/'x.json').exists()


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_many_random_texts(kind):
    rust, texts = KINDS[kind](), random_texts(4, 100_000)
    right = by_library(rust, texts)
    for encoder in (library_encoder(rust), fastest_encoder(rust)): assert lists(framed_ids(rust, texts, encoder)) == right
