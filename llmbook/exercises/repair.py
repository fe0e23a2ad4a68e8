"What `grade` asks of the answers to the exercises of the chapter `repair`."
import unicodedata

from llmbook.text.repair import repair_text


def check_1(answer):
    "Three characters, and then seven."
    once, twice = answer
    assert once == 3, "Each byte is read as a character of its own."
    assert twice == 7, "How many bytes has each of the three characters in UTF-8?"


def _garble(text, times):
    for _ in range(times):
        text = ''.join(bytes([b]).decode('cp1252', 'ignore') or chr(b) for b in text.encode())
    return text


def check_2(answer):
    "How often text was garbled."
    for text in ('schön', 'Ärger über 5 €', 'Привет', '日本語', 'Á à'):
        for times in range(4):
            found = answer(_garble(text, times))
            assert found is not None, "Return the number of rounds."
            assert found == times, f"{text!r} was garbled {times} times; you say {found}."
    for text in ('', 'plain text', 'NÃO', 'Ã', '“quoted”'):
        found = answer(text)
        assert found == 0, f"{text!r} is right as it is; you say {found} rounds."


def _bare(text):
    "The function of exercise 3, as it was given."
    return ''.join(c for c in unicodedata.normalize('NFD', text) if unicodedata.category(c) != 'Mn')


_LATIN = {'café': 'cafe', 'Ångström': 'Angstrom', 'Việt Nam': 'Viet Nam', 'cafe\u0301': 'cafe', 'naïve – “x”': 'naive – “x”'}
_OTHERS = 'мой', 'їжак', 'हिन्दी', 'がぎぐ', 'שָׁלוֹם', '한국어', 'Ελλάδα'


def check_3(answer):
    "(a word that is spoilt, a function that spares it)."
    word, better = answer
    nfc = unicodedata.normalize('NFC', word)
    assert unicodedata.normalize('NFC', _bare(nfc)) != nfc, "The function above leaves this word as it is."
    letters = {unicodedata.normalize('NFD', c)[0] for c in nfc if unicodedata.normalize('NFC', _bare(c)) != c}
    assert not all(c.isascii() for c in letters), "In this word only Latin letters lose their accents, which was wanted."
    assert better(nfc) == nfc, f"Your function makes {better(nfc)!r} of your own word."
    for text, wanted in _LATIN.items():
        assert better(text) == wanted, f"{text!r} becomes {better(text)!r}, not {wanted!r}."
    for text in _OTHERS:
        wanted = unicodedata.normalize('NFC', text)
        assert better(text) == wanted, f"{text!r} is not Latin and becomes {better(text)!r}."


def _not_ascii(text): return sum(not c.isascii() for c in text)


def check_4(answer):
    "(text, characters that are not ASCII before, and after)."
    text, before, after = answer
    assert len(text) >= 10_000, f"Give at least 10,000 characters; here are {len(text):,}."
    assert not text.isascii(), "All of it is ASCII: there is nothing to see."
    assert before == _not_ascii(text), f"Before, {_not_ascii(text):,} characters are not ASCII."
    left = _not_ascii(repair_text({'id': 'own', 'text': text})['text'])
    assert after == left, f"After repair_text, {left:,} are left."
