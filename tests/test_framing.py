"A tokenizer's facts: read from its folder, kept on saving, and free of the settings of somebody's call."

import json
import pickle
import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmbook.core import UserError
from llmbook.text.bpe import BPE, as_tokenizer, bytes_per_token, count_words, train_bpe
from llmbook.text.framing import BEGIN, END, PAD, TextTokenizer, _border_of, special_ids, text_pieces, text_tokenizer
from llmbook.text.store import TokenStore, encode_documents, tokens, write_store
from llmbook.text.tokenizer_files import load_tokenizer, save_tokenizer

TEXTS = ['the cat sat on the mat', 'a cat and a mat <|end|> the end', '']


def ours(): return as_tokenizer(BPE(train_bpe(count_words(['the cat sat on the mat'] * 9), 20)))


def foreign():
    "Byte-level, its own special tokens last, with a gap in the ids: 256 pieces, `<s>` 300, `</s>` 301, `<eot>` 302."
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {'<s>': 300, '</s>': 301, '<eot>': 302}
    rust = Tokenizer(models.BPE(vocab, []))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(name, special=True) for name in ('<s>', '</s>', '<eot>')])
    return rust


def saved(folder, rust, call=None, **names):
    "As transformers writes it, after a call."
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust, **names)
    if call: theirs(TEXTS, **call)
    theirs.save_pretrained(folder)
    return folder


@pytest.mark.parametrize('call', [dict(truncation=True, max_length=3), dict(padding='max_length', max_length=50),
                                  dict(truncation=True, padding='max_length', max_length=4)])
def test_settings_of_a_call_do_not_cut_or_pad_documents(call, tmp_path):
    clean = ours()
    folder = saved(tmp_path/'busy', ours(), call, bos_token='<|begin|>', eos_token='<|end|>', pad_token='<|pad|>')
    left = json.loads((folder/'tokenizer.json').read_text())
    assert left['truncation'] or left['padding'] # or the case has nothing to show
    loaded = load_tokenizer(folder)
    documents = [{'text': text} for text in TEXTS]
    assert list(encode_documents(loaded, documents)) == list(encode_documents(clean, documents))
    assert bytes_per_token(loaded, TEXTS) == bytes_per_token(clean, TEXTS)
    busy = Tokenizer.from_file(str(folder/'tokenizer.json'))
    assert bytes_per_token(busy, TEXTS) == bytes_per_token(clean, TEXTS)
    again = json.loads((save_tokenizer(loaded, tmp_path/'again')/'tokenizer.json').read_text())
    assert again['truncation'] is again['padding'] is None


def test_ids_are_read_and_not_assumed(tmp_path):
    folder = saved(tmp_path/'t', foreign(), bos_token='<s>', eos_token='</s>')
    loaded = load_tokenizer(folder)
    assert (loaded.begin, loaded.ends, loaded.pad, loaded.vocab_size) == (300, (301,), None, 303)
    (folder/'config.json').write_text('{"bos_token_id": 7, "eos_token_id": 301, "pad_token_id": -1}')
    (folder/'generation_config.json').write_text('{"eos_token_id": [302, 301]}')
    loaded = load_tokenizer(folder)
    assert (loaded.begin, loaded.ends, loaded.pad) == (7, (302, 301), None)
    ids, = encode_documents(loaded, [{'text': 'a</s>'}])
    assert ids[0] == 7 and ids[-1] == 302 and 301 not in ids and len(ids) == 7
    assert pickle.loads(pickle.dumps(loaded)).frame([1]) == [7, 1, 302]  # noqa: S301


@pytest.mark.parametrize('name, content, words', [
    ('config.json', '{"eos_token_id": "2"}', '\'eos_token_id\' is "2"'),
    ('config.json', '{"bos_token_id": [1, null, "x"]}', "'x'"),
    ('generation_config.json', '{"eos_token_id": 1.5}', '1.5'), ('config.json', '[]', 'not an object'),
    ('tokenizer_config.json', '{"eos_token": 3}', "'eos_token' is 3"), ('tokenizer_config.json', '{', 'not readable'),
    ('chat_template.jinja', b'\xff', 'not UTF-8')])
def test_wrong_facts_are_one_line(name, content, words, tmp_path):
    folder = save_tokenizer(ours(), tmp_path)
    (folder/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as e: load_tokenizer(folder)
    assert words in str(e.value) and '\n' not in str(e.value)


def test_a_folder_without_names_is_ours_or_nobodys(tmp_path):
    for rust, frame in ((ours(), [BEGIN, 9, END]), (foreign(), [9])):
        rust.save(str(tmp_path/'tokenizer.json'))
        assert load_tokenizer(tmp_path).frame([9]) == text_tokenizer(rust).frame([9]) == frame


def test_a_foreign_tokenizer_keeps_what_it_brought(tmp_path):
    source = saved(tmp_path/'source', foreign(), bos_token='<s>', eos_token='</s>', model_max_length=77)
    settings = json.loads((source/'tokenizer_config.json').read_text()) | {'own': {'x': 1}, 'auto_map': {'A': 'evil.py'}}
    (source/'tokenizer_config.json').write_text(json.dumps(settings))
    (source/'chat_template.jinja').write_text('{% for m in messages %}[{{ m.content }}]{% endfor %}')
    (source/'config.json').write_text('{"eos_token_id": [302, 301], "pad_token_id": 301}')
    (source/'additional_chat_templates').mkdir()
    (source/'additional_chat_templates/tool.jinja').write_text('tool')
    target = save_tokenizer(load_tokenizer(source), tmp_path/'target', context=64)
    kept = json.loads((target/'tokenizer_config.json').read_text())
    assert kept['own'] == {'x': 1} and 'auto_map' not in kept and kept['model_max_length'] == 64
    assert (kept['bos_token'], kept['eos_token'], kept['pad_token']) == ('<s>', '<eot>', '</s>')
    for name in ('chat_template.jinja', 'additional_chat_templates/tool.jinja'):
        assert (target/name).read_text() == (source/name).read_text()
    again = load_tokenizer(target)
    assert (again.begin, again.ends, again.pad) == (300, (302, 301), 301) and again.to_str() == load_tokenizer(source).to_str()
    auto = AutoTokenizer.from_pretrained(target)
    assert auto.apply_chat_template([{'role': 'user', 'content': 'hi'}], tokenize=False) == '[hi]'
    assert json.loads((save_tokenizer(again, tmp_path/'b')/'tokenizer_config.json').read_text()) == kept
    bare = save_tokenizer(TextTokenizer(foreign(), 300, [301]), tmp_path/'bare')
    assert not (bare/'chat_template.jinja').exists() and AutoTokenizer.from_pretrained(bare).eos_token == '</s>'


def test_our_own_keeps_a_template_that_was_changed(tmp_path):
    folder = save_tokenizer(ours(), tmp_path/'a', context=9)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    same = save_tokenizer(load_tokenizer(folder), tmp_path/'b', context=9)
    assert {p.name: p.read_bytes() for p in same.iterdir()} == before
    (folder/'chat_template.jinja').write_text('mine')
    assert (save_tokenizer(load_tokenizer(folder), tmp_path/'c')/'chat_template.jinja').read_text() == 'mine'


def test_tokens_carry_the_facts(tmp_path):
    source = saved(tmp_path/'t', foreign(), bos_token='<s>', eos_token='</s>')
    (source/'generation_config.json').write_text('{"eos_token_id": [302, 301], "pad_token_id": 256}')
    (tmp_path/'a.txt').write_text('the cat <s> sat')
    tokens(str(tmp_path/'a.txt'), str(source), str(tmp_path/'out'))
    meta = json.loads((tmp_path/'out/tokens.json').read_text())
    assert (meta['begin'], meta['ends'], meta['pad'], meta['vocab_size']) == (300, [302, 301], 256, 303)
    loaded = load_tokenizer(tmp_path/'out')
    store = TokenStore(tmp_path/'out', tokenizer=loaded)
    assert (store.begin, store.ends, store.pad) == (300, (302, 301), 256) == (loaded.begin, loaded.ends, loaded.pad)
    assert store[0][0] == 300 and store[0][-1] == 302 and store.lengths[0] == 17


def test_width_of_an_id_follows_the_largest_and_not_the_number(tmp_path):
    far = Tokenizer(models.WordLevel({'a': 0, '?': 70_000}, unk_token='?'))
    write_store(tmp_path, {'train': [{'text': 'b'}]}, TextTokenizer(far))
    assert TokenStore(tmp_path)[0].tolist() == [70_000] and TokenStore(tmp_path).vocab_size == 70_001
    write_store(tmp_path, {'train': [{'text': 'a'}]}, TextTokenizer(far, begin=100_000))
    assert TokenStore(tmp_path)[0].tolist() == [100_000, 0] and TokenStore(tmp_path).vocab_size == 100_001


SPECIES = ["it's", "'re", "'", 'lamp', 'é', '日本', '。', '１', '7', ' ', '  ', '\n', '\r\n', '\t', '\x1c', '\x85', '\u2028',
           '.', '--', '\u0301', 'ſ', '<s>', '_', '\u200b', '\ufeff', '🙂', '\u200d', '\u180e', '\xa0', '\u3000']
NEWER = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")


@pytest.mark.parametrize('fence', ['gpt2', 'newer', 'space', 'added'])
def test_pieces_have_the_ids_of_the_whole(fence):
    from tokenizers import Regex, normalizers
    rust = foreign()
    if fence == 'newer':
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(NEWER), 'isolated'), plain])
        rust.normalizer = normalizers.NFC()
    if fence == 'space': rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if fence == 'added': rust.add_tokens([AddedToken('lamp it')])
    border, rng = _border_of(rust), random.Random(0)
    assert (border is None) == (fence in ('space', 'added'))
    for _ in range(300):
        text = ''.join(rng.choices(SPECIES, k=rng.randrange(60)))
        pieces = list(text_pieces(text, rng.randrange(1, 9), border))
        assert ''.join(pieces) == text and (border or len(pieces) == 1)
        words = [w for piece in pieces for w, _place in rust.pre_tokenizer.pre_tokenize_str(piece)]
        assert words == [w for w, _place in rust.pre_tokenizer.pre_tokenize_str(text)], ascii(text)
        framed = TextTokenizer(rust).encode_texts([text, text], at_once=32)
        assert framed[0] == framed[1] == TextTokenizer(rust)._encode([text])[0]


def test_special_ids_have_an_order(tmp_path):
    (tmp_path/'special_tokens_map.json').write_text('{"eos_token": "</s>", "bos_token": {"content": "<s>"}}')
    assert special_ids(tmp_path, foreign()) == (300, [301], None)
    (tmp_path/'tokenizer_config.json').write_text('{"eos_token": "<eot>", "bos_token": null}')
    assert special_ids(tmp_path, foreign()) == (300, [302], None)
    assert special_ids(tmp_path/'none', foreign()) == (None, [], None) and PAD == 0
