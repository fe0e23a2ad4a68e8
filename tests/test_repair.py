"The rule `repair_text`: what is broken is repaired, what only looks so is left alone, and twice is once."
import json
import pickle
import re
import unicodedata
from collections import Counter

import pytest
from babel import Locale
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmbook.text.clean import html_text
from llmbook.text.dirt import dirty_pages
from llmbook.text.repair import repair_text
from needs import needs

pytestmark = [needs('ftfy', 'web'), needs('babel', 'web')]


def repaired(text): return repair_text({'id': '', 'text': text})['text']


def garble(text, codec='cp1252'): return ''.join(bytes([b]).decode(codec, 'ignore') or chr(b) for b in text.encode())


REPAIRED = {
    'Windows-1252': (garble('café – “schön”, 5 €'), 'café – "schön", 5 €'),
    'Latin-1': ('café à là'.encode().decode('latin-1'), 'café à là'),
    'MacRoman': (garble('Übergröße', 'mac_roman'), 'Übergröße'),
    'Cyrillic': (garble('Привет, мир', 'cp1251'), 'Привет, мир'),
    'three times': (garble(garble(garble('naïve'))), 'naïve'),
    'in part': (garble('cafés') + ' and “cafés”', 'cafés and "cafés"'),
    'a lost no-break space': ('on theÂ 5th', 'on the 5th'),
    'C1 controls': ('don\x92t', "don't"),
    'quotes': ('‘a’ “b” „c‟', '\'a\' "b" "c"'),
    'normal form': ('e\u0301', 'é'),
    'ligatures': ('ﬁne oﬃce', 'fine office'),
    'wide letters': ('ｔｈｅ　ｌａｍｐ，２０２４', 'the lamp,2024'),
    'spaces': ('a\xa0b\u2003c\u202fd\u3000e', 'a b c d e'),
    'line ends': ('a\r\nb\rc\u2028d\u2029e\x0cf', 'a\nb\nc\nd\ne\nf'),
    'soft hyphen': ('mi\xadll', 'mill'),
    'byte order mark': ('\ufeffa', 'a'),
    'zero width': ('m\u200bi\u200cl\u200dl\u2060', 'mill'),
    'controls': ('a\x00b\x07c\x7fd', 'abcd'),
    'colours': ('\x1b[1;31mred\x1b[0m', 'red'),
    'overstrike': ('N\x08NA\x08AM\x08ME\x08E _\x08a', 'NAME a'),
    'icons': ('\uf015 Home', ' Home'),
    'hidden message': ('👍' + ''.join(chr(0xe0100 + b) for b in b'secret'), '👍' + chr(0xe0100 + ord('s'))),
    'tags without a flag': ('a' + ''.join(chr(0xe0000 + b) for b in b'ignore'), 'a'),
    'direction marks': ('a\u200eb\u2066c\u2069', 'abc'),
    'override': ('access = \u202e"user"\u202c', 'access = "user"'),
    'surrogate pair': ('\ud83d\ude00', '😀'),
    'half a pair': ('a\ud83d', 'a\ufffd')}

UNCHANGED = [
    'NÃO', 'AHÅ™, the new sofa', 'São Paulo', 'PÂTÉ', 'x² + 10³ m² = ½', 'x ∈ ℝ', 'Ⅳ ① ™', 'µ and Å', 'a — b – c …', '«a»',
    '&lt;b&gt; &amp; &eacute;', '你好，世界！（一）', '「あ」ｱ', 'می‌خواهم', 'र्‍क', 'क्‌ष', 'ශ්‍රී', 'שלום\u200f!',
    '\u2067abc שלום\u2069', 'ภาษา\u200bไทย', '👩‍🔬 👨‍👩‍👧', '❤️ 1️⃣ ✌🏽',
    '🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f', '葛\U000e0100',
    'tab\there', '    indented  twice', '', '\n\n', 'if x:\n\n\n    y()', '�']


@pytest.mark.parametrize('name', REPAIRED)
def test_it_repairs(name):
    broken, wanted = REPAIRED[name]
    assert ascii(repaired(broken)) == ascii(wanted)


@pytest.mark.parametrize('text', UNCHANGED, ids=ascii)
def test_it_leaves_alone(text):
    document = {'id': '', 'text': unicodedata.normalize('NFC', text)}
    assert repair_text(document) is document


def test_ascii_is_untouched():
    document = {'id': '', 'text': ''.join(map(chr, range(32, 127))) + '\n\t'}
    assert repair_text(document) is document


PIECES = st.sampled_from([
    garble('é'), garble(garble('é')), garble('’'), 'Ã', 'Â ', 'â', '€', '\x81', '\x85', '\x92', '\xa0', '\xad', '\u0301', 'e',
    'ﬁ', '\u200b', '\u200c', '\u200d', '\u200e', '\u202e', '\u2028', '\ufe0f', '\U000e0067', '🏴', '👩', 'ش', 'श', 'ｌ', '，',
    '“', '"', '\r', '\n', ' ', '\x08', '\x1b', '[0m', '\ud83d', '\ude00', '\ufffd', '\ufeff', '\uf015', '\u3164', '\u115f',
    '가', '\u1100', '\u1161', '\u0958', '\u212b', 'א', '\u05b0'])


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES | st.characters(), max_size=25).map(''.join))
@example(garble('\u2028').join('ab'))
@example(garble('“') + '\xad' + garble('”'))
def test_twice_is_once(text):
    once = repaired(text)
    assert repaired(once) == once
    json.dumps(once, ensure_ascii=False).encode('utf-8')


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_in_utf8_survives(text):
    result = repair_text({'id': 'a', 'text': text})
    assert '\r' not in result['text'] and '\x00' not in result['text']


LONG = ['！' * 200_000, '\u200d' * 200_000 + 'ش', 'a\u0301' * 50_000, 'Ã©' * 50_000, '\ufe0f' * 200_000, '\x1b[' * 100_000 + 'é',
        ' ' * 100_000 + 'é', 'é\n' * 5_000, 'a\x08' * 100_000]


@pytest.mark.parametrize('text', LONG, ids=lambda text: ascii(text[:4]))
def test_long_runs_take_no_time(text): assert isinstance(repaired(text), str)


def test_good_text_in_many_languages_is_left_alone():
    changed = []
    for code in ('ar bn cs de el fa fr gu he hi is ja ka km ko ml my pl pt ro ru si sk ta te th tr uk ur vi zh').split():
        names = list(Locale.parse(code).territories.values())
        line = re.sub('[‘’ʼ]', "'", unicodedata.normalize('NFC', ', '.join(names[:60])))
        if repaired(line) != line: changed.append(code)
    assert not changed


def test_it_is_a_rule():
    broken = {'id': 'a', 'text': garble('é') + '  \n\n\n\nb', 'url': 'u', 'meta': {'n': 1}}
    kept = json.loads(json.dumps(broken))
    assert repair_text(broken) == kept | {'text': 'é  \n\n\n\nb'} and broken == kept
    code = {'id': 'a', 'text': f'x = "{garble("é")}“"', 'meta': {'format': 'code', 'language': 'Python'}}
    assert repair_text(code) is code
    assert pickle.loads(pickle.dumps(repair_text)) is repair_text  # noqa: S301 our own


def test_stories_come_back_exactly():
    rates = dict(mojibake=0.5, unicode=0.5, exact=0, near=0, toxic=0, foreign=0, spam=0)
    for page in dirty_pages(60, seed=1, rates=rates):
        found = Counter(repair_text(html_text(page))['text'].replace('\n', ' ').split(' '))
        assert not Counter(page['meta']['story'].split(' ')) - found, page['id']
