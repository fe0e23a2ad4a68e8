"Anybody's vocabulary, merges and special tokens: the ids of the Rust library, in constant memory."

import io
import json
import random
import tracemalloc

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from llmbook.core import UserError
from llmbook.text.bpe import BPE, byte_chars, count_words, train_bpe
from llmbook.text.vocabulary import OwnBPE, merges_of_ranks, read_vocabulary

SPECIALS = ['<|end|>', '<|end|><|end|>', '<|begin|>', '<|e']


@pytest.fixture(scope='module')
def texts():
    from pydoc_data.topics import topics
    return list(topics.values())[:40]


@pytest.fixture(scope='module')
def parts(texts):
    "Pieces with ids in a random order, merges as bytes."
    bpe = BPE(train_bpe(count_words(texts), 400))
    pieces = bpe.pieces[8:]
    ids = random.Random(0).sample(range(len(pieces)), len(pieces))
    return dict(zip(ids, pieces)), [(bpe.pieces[left], bpe.pieces[right]) for left, right in bpe.merges]


@pytest.fixture(scope='module')
def rust(parts):
    chars = byte_chars()
    def name(piece): return ''.join(chars[b] for b in piece)
    vocab = {name(piece): i for i, piece in parts[0].items()}
    rust = Tokenizer(models.BPE(vocab, [(name(left), name(right)) for left, right in parts[1]]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return rust


def strings(texts, n=3000):
    rng, pool = random.Random(0), [*SPECIALS, '<|', '|>', ' ', '\n', '  ', "it's", 'é', '日本', '🙂', '7', *texts[0].split()[:50]]
    return [''.join(rng.choices(pool, k=rng.randrange(12))) for _ in range(n)]


def test_ids_are_the_librarys(parts, rust, texts):
    own = OwnBPE(*parts)
    for text in strings(texts) + texts:
        ids = own.encode(text)
        assert ids == rust.encode(text, add_special_tokens=False).ids and own.decode(ids) == text


def test_special_tokens_the_longest_first(parts, texts):
    own = OwnBPE(*parts, SPECIALS, begin='<|begin|>', end='<|end|>')
    assert [own.specials[name] for name in SPECIALS] == list(range(max(parts[0]) + 1, max(parts[0]) + 5))
    assert own.encode('<|end|><|end|><|end|><|e') == [own.specials[name] for name in (SPECIALS[1], SPECIALS[0], SPECIALS[3])]
    assert own.frame([5]) == [own.specials['<|begin|>'], 5, own.specials['<|end|>']] and OwnBPE(*parts).frame([5]) == [5]
    plain = OwnBPE(*parts)
    for text in strings(texts):
        assert own.decode(own.encode(text)) == text and own.encode(text, special=False) == plain.encode(text)


def test_special_tokens_are_the_librarys(parts, rust, texts):
    added = Tokenizer.from_str(rust.to_str())
    names = SPECIALS[:3] # the library looks for the leftmost, not the longest, where one begins inside another
    added.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    own = OwnBPE(parts[0] | {added.token_to_id(name): name.encode() for name in names}, parts[1], names)
    for text in strings(texts): assert own.encode(text) == added.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize('size', [1, 2, 5, 100, 10**6])
def test_a_text_in_parts_has_the_ids_of_the_whole(parts, texts, size):
    own = OwnBPE(*parts, SPECIALS)
    text = ''.join(strings(texts, 4000))[:90_000]
    assert list(own.encode_iterable(text[i:i + size] for i in range(0, len(text), size))) == own.encode(text)
    lines = io.StringIO('\n\n'.join(texts))
    assert list(own.encode_iterable(lines)) == own.encode('\n\n'.join(texts))
    assert list(own.encode_iterable([])) == [] and list(own.encode_iterable(['a\ud83d', 'b'])) == own.encode('a?b')


def test_parts_take_constant_memory(parts, texts):
    own = OwnBPE(*parts, SPECIALS)
    def lines():
        for _ in range(4): yield from io.StringIO('\n'.join(texts))
    list(own.encode_iterable(lines()))
    tracemalloc.start()
    for _ in own.encode_iterable(lines()): pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # a list of all ids would take more


def test_files_and_ranks(parts, rust, texts, tmp_path):
    rust.model.save(str(tmp_path))
    assert read_vocabulary(tmp_path/'vocab.json', tmp_path/'merges.txt') == parts
    in_order = [bytes([b]) for b in range(256)] + [left + right for left, right in parts[1]]
    ranks = {piece: i for i, piece in enumerate(in_order)}
    merges = merges_of_ranks(ranks)
    assert merges == parts[1]
    own, before = OwnBPE({i: piece for piece, i in ranks.items()}, merges), OwnBPE(*parts)
    for text in texts: assert [own.pieces[i] for i in own.encode(text)] == [parts[0][i] for i in before.encode(text)]


def test_mistakes_have_one_line(parts, tmp_path):
    pieces, merges = parts
    few = {i: piece for i, piece in pieces.items() if piece != b'x'}
    def line(fn, words):
        with pytest.raises(UserError, match=words) as e: fn()
        assert '\n' not in str(e.value)
    line(lambda: OwnBPE(few, []), "b'x' has no id")
    line(lambda: OwnBPE(pieces, [(b'q', b'zq')]), "b'zq' has no id")
    line(lambda: OwnBPE(pieces, merges).decode([-1]), 'no such id')
    (tmp_path/'m').write_text('#version: 0.2\na b\na b c\n')
    wrong = ({'a': '1'}, 'must be a whole number'), ({'a': -1}, 'must be'), ([], 'not an object'), ({'a': 1}, "'a b c'")
    for vocab, words in wrong:
        (tmp_path/'v').write_text(json.dumps(vocab))
        line(lambda: read_vocabulary(tmp_path/'v', tmp_path/'m'), words)


def test_of_two_equal_merges_the_last_counts_as_in_the_rust_library():
    vocab = {**{chr(i): i for i in range(97, 100)}, 'ab': 300, 'bc': 301}
    merges = [('a', 'b'), ('b', 'c'), ('a', 'b')]
    rust = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    table = {**{i: bytes([i]) for i in range(256)}, 300: b'ab', 301: b'bc'}
    ours = OwnBPE(table, [(a.encode(), b.encode()) for a, b in merges])
    assert rust.encode('abc').ids == ours.encode('abc') == [97, 301]
