"What a notebook cannot say about itself."

import json
import pickle
import random
import subprocess
import sys
import time
import unicodedata

import pytest

from llmbook.core import UserError
from llmbook.text import bpe as m
from llmbook.text.bpe import BEGIN, BPE, FIRST_MERGE, MIN_VOCAB, RESERVED, SPECIALS, as_tokenizer, bytes_per_token
from llmbook.text.bpe import count_words, load_tokenizer, merge, merges_of, pair_counts, read_merges, save_tokenizer, split_words
from llmbook.text.bpe import tokenizer, train_bpe, train_tokenizer

CHAT = [dict(role='system', content='Be brief.'), dict(role='user', content='Where is the lamp?'),
        dict(role='assistant', content='In the mill.')]


@pytest.fixture(scope='module')
def texts():
    from pydoc_data.topics import topics
    return list(topics.values())


@pytest.fixture(scope='module')
def bpe(texts): return BPE(train_bpe(count_words(texts), 760))


@pytest.fixture(scope='module')
def pools():
    "Kinds of characters; only assigned ones, since two libraries may know different versions of Unicode."
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ('Cn', 'Cs')]
    plain = [list(map(chr, range(a, b))) for a, b in ((0, 33), (32, 127), (0x300, 0x370), (0x4e00, 0x9fff))]
    return [known, known[-131_068:], *plain, [*map(chr, range(0x1f300, 0x1f650)), '\ufe0f', '\u200d'],
            [c for c in known if c.isspace()],
            ["don't", "'ll", "'LL", ' the', ' of', ' 12', 'ing', '  ', '\r\n'], SPECIALS]


def random_strings(pools, seed, n=20_000):
    rng = random.Random(seed)
    return [''.join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(16))) for _ in range(n)]


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_random_strings_equal_the_library_and_round_trip(bpe, pools, seed):
    strings, rust = random_strings(pools, seed), as_tokenizer(bpe)
    rust.encode_special_tokens = True
    theirs = [e.ids for e in rust.encode_batch(strings, add_special_tokens=False)]
    for text, ids in zip(strings, theirs):
        assert bpe.encode(text) == ids, ascii(text)
        assert bpe.decode(ids) == text, ascii(text)
        assert ''.join(split_words(text)) == text, ascii(text)
    assert rust.decode_batch(theirs, skip_special_tokens=False) == strings


def test_whole_documents_equal_the_library(bpe, texts):
    rust = as_tokenizer(bpe)
    for text in texts: assert rust.encode(text).ids == [BEGIN] + bpe.encode(text)


def test_wild_ids_decode_alike(bpe):
    rng, rust = random.Random(0), as_tokenizer(bpe)
    wild = [[rng.randrange(bpe.vocab_size) for _ in range(10)] for _ in range(5000)]
    assert [bpe.decode(ids) for ids in wild] == rust.decode_batch(wild, skip_special_tokens=False)


def test_every_merge_equals_the_rust_trainer_to_the_end(texts):
    ours = train_bpe(count_words(texts), 100_000)
    assert ours == merges_of(train_tokenizer(texts, 200_000))
    assert len(set(BPE(ours).pieces)) == MIN_VOCAB + len(ours)   # no two ids stand for the same bytes


@pytest.mark.parametrize('seed', range(20))
def test_merges_of_overlapping_pairs_equal_the_rust_trainer(seed):
    rng = random.Random(seed)
    texts = [' '.join(''.join(rng.choice('aab') for _ in range(rng.randrange(1, 15))) for _ in range(100))]
    ours = train_bpe(count_words(texts), 100_000)
    assert ours == merges_of(train_tokenizer(texts, 100_000))
    text, rust = ''.join(rng.choice('aab ') for _ in range(500)), as_tokenizer(BPE(ours))
    assert rust.encode(text, add_special_tokens=False).ids == BPE(ours).encode(text)


def test_training_does_not_depend_on_the_order_of_words(texts):
    counts = count_words(texts[:20])
    assert train_bpe(counts, 300) == train_bpe(dict(sorted(counts.items())), 300)


def test_counts_stay_true(texts):
    pairs = m.Pairs(count_words(texts[:5]))
    for new in range(FIRST_MERGE, FIRST_MERGE + 100):
        pairs.merge(max(pairs.counts, key=lambda p: (pairs.counts[p], p)), new)
        assert +pairs.counts == pair_counts(zip(pairs.words, pairs.times))


def test_merge_from_the_left():
    assert merge([1, 1, 1, 2, 1, 2], (1, 1), 9) == [9, 1, 2, 1, 2]
    assert merge([], (1, 1), 9) == []


def test_layout():
    assert SPECIALS[:3] == ['<|pad|>', '<|begin|>', '<|end|>'] and len(SPECIALS) == 8
    assert m.byte_ids('\0') == [8] and (FIRST_MERGE, MIN_VOCAB) == (264, 280) and len(set(m.byte_chars())) == 256
    assert BPE([(119, 118)]).pieces[264:] == [b'on', *(name.encode() for name in RESERVED)]


def test_other_peoples_merges():
    merges = read_merges([('o', 'n'), ('on', 'e'), ('Ġ', 'one')])
    assert BPE(merges).encode(' one') == [266] and merges_of(as_tokenizer(BPE(merges))) == merges


def test_can_be_sent_to_other_processes(bpe): assert pickle.dumps(bpe)


def test_folder_opens_with_transformers(bpe, texts, pools, tmp_path):
    from transformers import AutoTokenizer
    rust = as_tokenizer(bpe)
    assert save_tokenizer(rust, tmp_path, context=512) == tmp_path
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert (auto.pad_token_id, auto.bos_token_id, auto.eos_token_id, auto.model_max_length) == (0, 1, 2, 512)
    assert len(auto) == bpe.vocab_size and auto.convert_tokens_to_ids(SPECIALS) == list(range(8))
    for text in [t for t in random_strings(pools, 9, 2000) if '<|' not in t] + texts[:5]:
        ids = auto(text).input_ids
        assert ids == [BEGIN] + bpe.encode(text)
        assert auto.decode(ids, skip_special_tokens=True) == text == auto.decode(ids[1:])
    assert auto('a', 'b').input_ids == [BEGIN] + bpe.encode('a') + bpe.encode('b')
    assert load_tokenizer(tmp_path).to_str() == rust.to_str()


def test_chat_template(bpe, tmp_path):
    from transformers import AutoTokenizer
    auto = AutoTokenizer.from_pretrained(save_tokenizer(as_tokenizer(bpe), tmp_path))
    whole = auto.apply_chat_template(CHAT, tokenize=False)
    assert whole == ('<|begin|><|system|>Be brief.<|end|>'
                     '<|user|>Where is the lamp?<|end|><|assistant|>In the mill.<|end|>')
    asked = auto.apply_chat_template(CHAT[:2], add_generation_prompt=True)['input_ids']
    assert asked[:2] == [BEGIN, 3] and asked[-2:] == [2, 5] and asked.count(BEGIN) == 1
    assert whole.startswith(auto.decode(asked))
    with pytest.raises(Exception, match='unknown role'):
        auto.apply_chat_template([dict(role='tool', content='x')], tokenize=False)


@pytest.mark.parametrize('size, words', [(279, 'need 280'), (0, 'need 280'), (-1, 'need 280'), (10**9, 'too large')])
def test_bad_vocabulary(size, words):
    with pytest.raises(UserError, match=words) as e: train_tokenizer(['some text'], size)
    assert '\n' not in str(e.value) and '--vocab-size' in str(e.value)


@pytest.mark.parametrize('texts', [[], ['', '']])
def test_no_text(texts):
    with pytest.raises(UserError, match='no text'): train_tokenizer(texts, 300)


def test_little_text_keeps_what_there_is():
    assert train_tokenizer(['x'], 1024).get_vocab_size() == MIN_VOCAB
    assert train_tokenizer(['on on on'], 1024).get_vocab_size() == MIN_VOCAB + 2
    assert train_tokenizer(['the lamp'], 280).get_vocab_size() == MIN_VOCAB


def test_bytes_per_token():
    assert bytes_per_token(as_tokenizer(BPE([])), ['é🙂 on']) == 1 and bytes_per_token(as_tokenizer(BPE([])), []) == 0
    assert bytes_per_token(as_tokenizer(BPE(train_bpe({'on': 2}, 1))), ['onon']) == 2


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match='no such folder'): load_tokenizer(tmp_path/'none')
    with pytest.raises(UserError, match=r'no tokenizer\.json'): load_tokenizer(tmp_path)
    for broken in ('', '{', '[]', '{"model": {"type": "BPE"}}', '\x00\x01'):
        (tmp_path/'tokenizer.json').write_text(broken)
        with pytest.raises(UserError, match='not a tokenizer') as e: load_tokenizer(tmp_path)
        assert '\n' not in str(e.value)


def test_stage(texts, tmp_path, capsys):
    rows = [json.dumps(dict(id=str(i), text=t)) for i, t in enumerate(texts[:20])]
    (tmp_path/'documents.jsonl').write_text('\n'.join(rows))
    out = tokenizer(str(tmp_path/'documents.jsonl'), vocab_size=400, out=str(tmp_path/'out'))
    said = capsys.readouterr().out
    assert load_tokenizer(out).get_vocab_size() == 400
    assert '20 documents: 120 merges' in said and len(said.splitlines()) == 1
    (tmp_path/'short.txt').write_text('on on on')
    tokenizer(str(tmp_path/'short.txt'), vocab_size=400, out=str(tmp_path/'short'))
    assert 'the vocabulary is 282, not 400' in capsys.readouterr().out
    with pytest.raises(UserError): tokenizer(str(tmp_path/'missing.txt'), out=str(tmp_path/'none'))
    names = ['chat_template.jinja', 'manifest.json', 'tokenizer.json', 'tokenizer_config.json']
    assert sorted(p.name for p in out.iterdir()) == names


def test_half_characters_and_wrong_ids(bpe):
    rust = as_tokenizer(bpe)
    assert bpe.encode('a\ud83d b') == bpe.encode('a? b') == m.text_tokenizer(rust).encode_texts(['a\ud83d b'])[0]
    assert m.byte_ids('\ud83d') == m.byte_ids('?') and bytes_per_token(rust, ['\ud83d']) == 1
    assert count_words(['\ud83d']) and train_tokenizer(['on\ud83d on'], 300)
    for ids in ([-1], [5, bpe.vocab_size], [-bpe.vocab_size]):
        with pytest.raises(UserError, match='no such id; there are 0 to') as e: bpe.decode(ids)
        assert '\n' not in str(e.value)


LONG = {'spaces': 'on on' + ' ' * 200_000, 'letters': 'ACGT' * 50_000, 'digits': '0123456789' * 20_000, 'dashes': '-' * 200_000}


@pytest.mark.parametrize('kind', LONG)
def test_one_long_word_is_learnt_from_in_linear_time(kind):
    began = time.perf_counter()
    tokenizer = train_tokenizer([LONG[kind], 'on on on'], 400)
    assert time.perf_counter() - began < 5  # 400 times as long before
    assert merges_of(tokenizer) == train_bpe(count_words([LONG[kind], 'on on on']), 400 - MIN_VOCAB)
    assert max(len(word) for word in count_words([LONG[kind]])) <= 257


def test_the_longest_word_that_is_not_cut():
    assert max(map(len, count_words(['x' * 256]))) == 256 and dict(count_words(['y' * 257])) == {'y' * 256: 1, 'y': 1}
    ids = BPE(train_bpe(count_words(['z' * 700] * 2), 8)).encode('z' * 512)
    assert len(ids) == 2  # encoding cuts nothing: its merges are 256 letters long


@pytest.mark.parametrize('ties', ['tokenizers', 'bytes', 'id'])
def test_ties(ties, texts):
    "Against a trainer that counts everything anew, with each of the orders written out."
    words = count_words(texts[:3])
    first = {'tokenizers': m._tie_break, 'id': tuple}
    split, merges, pieces = [(m.byte_ids(w), n) for w, n in words.items()], [], m._first_pieces()
    for new in range(FIRST_MERGE, FIRST_MERGE + 60):
        counts = pair_counts(split)
        top = [pair for pair, n in counts.items() if n == max(counts.values())]
        if ties == 'bytes': pair = max(top, key=lambda p: (pieces[p[0]], pieces[p[1]]))
        else: pair = min(top, key=first[ties])
        merges.append(pair)
        pieces.append(pieces[pair[0]] + pieces[pair[1]])
        split = [(merge(ids, pair, new), n) for ids, n in split]
    assert train_bpe(words, 60, ties=ties) == merges
    with pytest.raises(UserError, match='give tokenizers, bytes, id'): train_bpe({'on': 2}, 1, ties='first')


def test_stage_keeps_an_older_result_and_leaves_strangers_alone(texts, tmp_path):
    (tmp_path/'a.txt').write_text(texts[0])
    (tmp_path/'rows.jsonl').write_text('{"text": "a"}\n{"title": "b"}\n')
    out = tokenizer(str(tmp_path/'a.txt'), vocab_size=300, out=str(tmp_path/'out'))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for text, size, words in (('typo.txt', 300, 'no such file'), ('rows.jsonl', 300, 'row 2'), ('a.txt', 3, 'too small'),
                              ('a.txt', 310, '--vocab-size was 300, now 310'), ('', 300, 'did not write|apart|folder')):
        with pytest.raises(UserError, match=words): tokenizer(str(tmp_path/text), vocab_size=size, out=str(out))
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert tokenizer(str(tmp_path/'a.txt'), vocab_size=310, out=str(out), fresh=True) == out
    assert (tmp_path/'out.old1/tokenizer.json').read_bytes() == before['tokenizer.json']
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/tokenizer.json').write_text('mine')
    with pytest.raises(UserError, match='did not write'): tokenizer(str(tmp_path/'a.txt'), out=str(tmp_path/'mine'))
    assert (tmp_path/'mine/tokenizer.json').read_text() == 'mine'


MEASURED = '''
import resource, sys
from llmbook.text.bpe import tokenizer
from llmbook.text.store import tokens
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokenizer('text.txt', 600, 'tokenizer') if sys.argv[1] == 'tokenizer' else tokens('text.txt', 'tokenizer', 'tokens')
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
'''


@pytest.mark.slow
def test_memory_is_a_small_multiple_of_a_text(texts, tmp_path):
    text = '\n'.join(texts)
    size = (tmp_path/'text.txt').write_text(text * (20_000_000 // len(text)))
    for verb in ('tokenizer', 'tokens'):
        run = subprocess.run([sys.executable, '-c', MEASURED, verb], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert int(run.stdout.split()[-1]) < 30 * size, verb  # 135 before
