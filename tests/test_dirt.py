"Pages with planted dirt: labels are true, rates hold, and nothing depends on the machine or on what was drawn before."
import hashlib
import ipaddress
import json
import random
import re
from collections import Counter
from itertools import islice
from unittest.mock import patch

import pytest

from llmbook.core import UserError
from llmbook.text import dirt
from llmbook.text.corpus import world_documents
from llmbook.text.dirt import KINDS, RATES, dirty_pages
from llmbook.text.invented import INVENTED
from llmbook.text.templates import FIRST, HALVES
from llmbook.text.webpage import in_paragraphs, page_body, split_sentences, visible_pieces


@pytest.fixture(scope='module')
def pages(): return list(dirty_pages(500))


def kind_of(page): return next((kind for kind in dirt._UNWANTED if page['meta']['dirt'][kind]), 'good')


def seen(page): return '\n'.join(visible_pieces(page['text']))


def test_documents_have_one_shape(pages):
    assert len({page['id'] for page in pages}) == len(pages)
    for page in pages:
        assert page.keys() == {'id', 'text', 'source', 'url', 'licence', 'meta'}
        assert page['source'] == 'world' and page['url'].endswith('.example/')
        meta = page['meta']
        assert meta['format'] == 'html' and tuple(meta['dirt']) == KINDS
        assert meta['keep'] == (kind_of(page) == 'good')
        assert bool(meta['story']) == (meta['keep'] or bool(meta['copy_of']))
        assert bool(meta['copy_of']) == (kind_of(page) in ('exact', 'near'))
        assert json.loads(json.dumps(page)) == page


def test_stories_are_those_of_the_world(pages):
    stories = {d['id']: d['text'] for d in world_documents(500)}
    assert {page['id']: page['meta']['story'] for page in pages if page['meta']['keep']} == stories
    for page in pages:
        meta = page['meta']
        if kind_of(page) == 'exact': assert meta['story'] == stories[meta['copy_of']]
        if kind_of(page) == 'near': assert meta['story'] != stories[meta['copy_of']]


def test_rates_hold():
    pages = list(dirty_pages(700, seed=1))
    kinds = Counter(kind for page in pages for kind, planted in page['meta']['dirt'].items() if planted)
    kept = sum(page['meta']['keep'] for page in pages)
    inside = sum(bool(page['meta']['inside']) for page in pages)
    for kind, rate in RATES.items():
        total = len(pages) if kind in dirt._UNWANTED else kept
        n = inside if kind == 'boilerplate' else kinds[kind]
        error = (total * rate * (1 - rate)) ** 0.5
        assert abs(n - total * rate) < 4 * error, kind


def test_a_copy_comes_after_its_original(pages):
    place = {page['id']: i for i, page in enumerate(pages)}
    gaps = [i - place[page['meta']['copy_of']] for i, page in enumerate(pages) if page['meta']['copy_of']]
    assert min(gaps) > 0 and max(gaps) > 100
    order = [int(page['id'].split('-')[2]) for page in pages if page['meta']['keep']]
    assert order != sorted(order)


def test_near_copies_by_similarity(pages):
    near = [page['meta'] for page in pages if kind_of(page) == 'near']
    stories = {page['id']: page['meta']['story'] for page in pages if page['meta']['keep']}

    def shingles(text):
        words = text.split()
        return set(zip(*(words[i:] for i in range(5))))
    for meta in near:
        a, b = shingles(stories[meta['copy_of']]), shingles(meta['story'])
        assert meta['similarity'] == len(a & b) / len(a | b)
    values = sorted(meta['similarity'] for meta in near)
    assert 0.5 <= values[0] < 0.55 and 0.9 < values[-1] <= 0.97
    assert 0.1 < sum(value > 0.8 for value in values) / len(values) < 0.9


@pytest.mark.parametrize('half', ['first', 'second'])
def test_planted_strings_are_on_the_page_and_not_in_the_story(pages, half):
    for page in pages if half == 'first' else dirty_pages(150, half=half):
        meta, shown = page['meta'], seen(page)
        flat = ' '.join(shown.split())
        for kind in set(KINDS) - {'exact', 'near'}:
            for string in meta['dirt'][kind]:
                assert string in shown or ' '.join(string.split()) in flat, (page['id'], kind, string)
                assert string not in meta['story'], (page['id'], kind, string)
        for sentence in meta['extra']: assert sentence in flat or meta['dirt']['mojibake']
        assert {' '.join(line.split()) for line in meta['inside']} <= set(shown.split('\n'))


def test_a_perfect_cleaner_finds_every_story(pages):
    import ftfy
    for page in pages:
        shown = seen(page)
        if page['meta']['dirt']['mojibake'] or page['meta']['dirt']['unicode']:
            shown = ' '.join(re.sub(f'[{dirt._INVISIBLE}]', '', ftfy.fix_text(shown)).split())
        for sentence in split_sentences(page['meta']['story']): assert sentence in shown, page['id']


def test_mojibake_is_undone_by_ftfy():
    import ftfy
    rates = dict.fromkeys(RATES, 0) | {'mojibake': 1}
    for page in dirty_pages(60, rates=rates):
        assert page['meta']['dirt']['mojibake']
        repaired = ftfy.fix_text(page['text'])
        assert not any(string in repaired for string in page['meta']['dirt']['mojibake']), page['id']


def test_a_garbled_name_is_labelled():
    rates = dict.fromkeys(RATES, 0) | {'mojibake': 1, 'personal': 1}
    named = [page['meta'] for page in dirty_pages(60, rates=rates) if not page['meta']['extra'][0].isascii()]
    assert len(named) > 10
    for meta in named:
        runs = [re.findall('[^\x00-\xa0]+', dirt._garble(meta['extra'][0], cp1252)) for cp1252 in (True, False)]
        assert any(set(found) <= set(meta['dirt']['mojibake']) for found in runs), meta['extra']


def test_no_label_is_forgotten(pages):
    for page in pages:
        meta = page['meta']
        if not meta['story'] or meta['dirt']['mojibake'] or meta['dirt']['unicode']: continue
        sentences = [*split_sentences(meta['story']), *meta['extra']]
        for piece in visible_pieces(page['text']):
            if piece in meta['dirt']['boilerplate'] or piece in ' '.join(sentences): continue
            assert any(piece.startswith(sentence) for sentence in sentences), piece
            for sentence in sorted(sentences, key=len, reverse=True): piece = piece.replace(sentence, '')
            assert not piece.strip(), page['id']


def test_mojibake_is_what_python_makes_of_it():
    text = 'café “déjà vu” – naïve … 5\xa0€'
    assert dirt._garble(text, False) == text.encode().decode('latin-1')
    assert dirt._garble('é–€', True) == 'é–€'.encode().decode('cp1252')
    assert dirt._garble('”', True) == 'â€\x9d'  # cp1252 has no character for 9D; browsers keep it


def test_extraction_keeps_the_stories(pages):
    html2text = pytest.importorskip('resiliparse.extract.html2text')
    plain = [page for page in pages if page['meta']['keep']
             and not page['meta']['dirt']['mojibake'] and not page['meta']['dirt']['unicode']]
    for page in plain[:100]:
        text = ' '.join(html2text.extract_plain_text(page['text'], main_content=True).split())
        for sentence in split_sentences(page['meta']['story']): assert sentence in text, page['id']


def test_the_same_pages_whatever_was_drawn_before(pages):
    random.seed(7)
    random.random()
    interrupted = dirty_pages(500)
    first = list(islice(interrupted, 10))
    list(dirty_pages(3, seed=5))
    assert first + list(interrupted) == pages
    digest = hashlib.sha256(json.dumps(list(dirty_pages(30))).encode()).hexdigest()
    other = hashlib.sha256(json.dumps(list(dirty_pages(30, seed=1))).encode()).hexdigest()
    assert digest != other


def test_blocks_are_independent():
    with patch.object(dirt, '_BLOCK', 20):
        every = list(dirty_pages(60))
        parts = [page for start in (0, 20, 40) for page in dirty_pages(20, start=start)]
    assert every == parts


def test_another_half_as_soon_as_it_is_filled():
    with pytest.raises(UserError, match="half 'third': there are no such templates; give one of first"):
        dirty_pages(1, half='third')
    with patch.dict(HALVES, {'third': FIRST}):
        third = list(dirty_pages(20, half='third'))
        assert len(third) >= 20 and third != list(dirty_pages(20))
        assert all(page['meta']['dirt'] for page in third)
    with patch.dict(HALVES, {'third': {}}), pytest.raises(UserError): dirty_pages(1, half='third')


@pytest.mark.parametrize('rates, message', [
    ({'toxik': 0.1}, "rate 'toxik': no such kind of dirt, did you mean 'toxic'?"),
    ({'spam': 1.5}, 'rate of spam 1.5: give a share from 0 to 1'),
    ({'spam': -0.1}, 'rate of spam -0.1: give'),
    ({'spam': 0.9}, 'rates of unwanted pages: 1.19 in sum; give at most 0.95'),
    ({'mojibake': 0.9}, 'rates of mojibake and unicode: 1.05 in sum; give at most 1')])
def test_rates_that_cannot_be(rates, message):
    with pytest.raises(UserError) as raised: dirty_pages(1, rates=rates)  # before the first page is asked for
    assert str(raised.value).startswith(message)


def test_no_dirt_at_all():
    pages = list(dirty_pages(30, rates=dict.fromkeys(RATES, 0)))
    assert len(pages) == 30 and all(page['meta']['keep'] for page in pages)
    for page in pages:
        meta = page['meta']
        assert not any(planted for kind, planted in meta['dirt'].items() if kind != 'boilerplate')
        body = [piece for piece in visible_pieces(page['text']) if piece in meta['story']]
        assert ' '.join(body).count(meta['story']) == 1
    assert list(dirty_pages(0)) == []


def test_pages_with_copies_have_no_personal_data(pages):
    copied = {page['meta']['copy_of'] for page in pages}
    assert not any(page['meta']['dirt']['personal'] for page in pages if page['id'] in copied)


def test_what_the_story_says_too_is_no_label():
    said = ('In the end the',)  # in every story
    with patch.dict(HALVES, {'said': FIRST | {'titles': said, 'inside': said * 3}}):
        for page in dirty_pages(30, half='said', rates={'mojibake': 0, 'unicode': 0}):
            meta = page['meta']
            labelled = said[0] in meta['dirt']['boilerplate']
            assert labelled == (said[0] not in meta['story']) or kind_of(page) == 'toxic'


def test_a_title_on_the_window_alone_is_no_label():
    def labelled(layout):
        with patch.dict(HALVES, {'one': FIRST | {'layouts': (layout,), 'titles': ('A title of its own',)}}):
            pages = list(dirty_pages(8, half='one', rates={'mojibake': 0}))
        return {'A title of its own' in page['meta']['dirt']['boilerplate'] for page in pages}
    window = '<html><head><title>{title} - site</title></head><body>{top}%s{story}{bottom}</body></html>'
    assert labelled(window % '') == {False}
    assert labelled(window % '<img alt="{title}"><!-- {title} --><script>"{title}"</script>') == {False}
    assert labelled(window % '<p>You are reading: {title}, part 1</p>') == {True}


def test_the_halves_have_other_boilerplate(pages):
    def lines(pages): return {line for page in pages for line in page['meta']['dirt']['boilerplate']}
    second = lines(dirty_pages(100, half='second'))
    assert len(second & lines(pages)) < 0.1 * len(second)


def test_layouts_are_not_broken_by_braces():
    for layout in FIRST['layouts']:
        with patch.dict(HALVES, {'one': FIRST | {'layouts': (layout,)}}):
            for page in dirty_pages(3, half='one', rates={'mojibake': 0}):
                assert not re.search(r'\{(title|top|story|bottom)\}', page['text'])
                rest = re.split(r'\{(?:title|top|story|bottom)\}', layout)
                assert page['text'].startswith(rest[0]) and page['text'].endswith(rest[-1])


def test_text_is_escaped():
    text = 'Tom & Pia waited. "Is a<b?" Pia asked. "Yes, b>a." She wrote &amp; and <p>. Tom laughed.'
    for opening in FIRST['paragraphs']:
        rng = random.Random(0)
        body = page_body(in_paragraphs(split_sentences(text), rng), {'paragraphs': [opening]}, rng)
        assert ' '.join(visible_pieces(body)) == text


def luhn(number):
    digits = [int(c) for c in number if c.isdigit()]
    return sum(digits[-1::-2]) + sum(sum(divmod(2 * d, 10)) for d in digits[-2::-2])


def test_invented_values_are_well_formed():
    rng = random.Random(0)
    manuals = [ipaddress.ip_network(n) for n in ('192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32')]
    versions = Counter()
    for _ in range(500):
        assert re.fullmatch(r'[\w.+-]+@((mail|post)\.)?example\.(com|org|net)', INVENTED['email'](rng))
        address = ipaddress.ip_address(INVENTED['ip'](rng))
        versions[address.version] += 1
        assert any(address in network for network in manuals)
        card = INVENTED['card'](rng)
        assert re.fullmatch(r'\d{4}([ -]?\d{4}){3}', card) and luhn(card) % 10 == 0
        digits = re.sub(r'\D', '', INVENTED['phone'](rng).replace('(0)', ''))
        known = r'1?(212|312|415|808)55501\d\d|(0|44)(207946|7700900)0?\d{3}|(0|49)3023125\d{3}|(0|33)19900\d{4}'
        assert re.fullmatch(known, digits), digits
        identity = INVENTED['identity'](rng).replace(' ', '')
        if re.fullmatch(r'[A-Z]{2}\d\d[A-Z]{4}\d+', identity):
            moved = identity[4:] + identity[:4]
            assert int(''.join(str(int(c, 36)) for c in moved)) % 97 == 1
        else: assert re.fullmatch(r'9\d\d-[0-4]\d-\d{4}|QQ\d{6}[A-D]', identity), identity
    assert versions[4] > 200 and versions[6] > 50


def test_odd_characters_look_the_same():
    import unicodedata
    rng = random.Random(0)
    for story in world_documents(30):
        sentences = split_sentences(story['text'])
        changed, planted = dirt._odd_characters(sentences, rng)
        assert len(planted) == 3 and not any(string.isascii() for string in planted)
        plain = unicodedata.normalize('NFKC', re.sub(f'[{dirt._INVISIBLE}]', '', ' '.join(changed)))
        assert plain == story['text']


def test_templates_of_every_half_are_complete():
    least = dict(layouts=8, paragraphs=3, titles=15, top=12, bottom=12, inside=30, personal=15, toxic=20, foreign=6,
                 spam=12, near=10)
    for half in filter(None, HALVES.values()):
        assert half.keys() == least.keys()
        for part, n in least.items(): assert len(half[part]) >= n, part
        assert all(len(sentences) >= 8 for sentences in half['foreign'].values())
