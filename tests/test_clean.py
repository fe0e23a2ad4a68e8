"The rule `html_text`: lines, main content, and pages that nobody should be able to stop a cleaner with."
import json
import pickle
import sys
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.core import UserError
from llmbook.text.clean import html_text
from llmbook.text.dirt import dirty_pages
from needs import needs

pytestmark = [needs('resiliparse', 'web'), needs('trafilatura', 'web')]

BOTH = 'resiliparse', 'trafilatura'
PROSE = 'Long ago Mira the baker lived in the mill beside the harbour. ' * 5


def document(page, **meta): return {'id': 'page', 'text': page, 'meta': {'format': 'html'} | meta}


def text(page, **settings):
    result = html_text(document(page), **settings)
    return result if isinstance(result, str) else result['text']


LINES = {
    'paragraphs': ('<p>one</p><p>two', 'one\n\ntwo'),
    'inline': ('<p>one <b>two</b>three', 'one twothree'),
    'line breaks of the source': ('<p>one\n  two', 'one two'),
    'one br': ('<p>one<br>two', 'one\ntwo'),
    'two br': ('<p>one<br><br>two', 'one\n\ntwo'),
    'entities': ('<p>a &amp; b &lt;c&gt; &eacute; &#8217; &#x41;', 'a & b <c> é ’ A'),
    'list': ('<p>one</p><ul><li>two<li>three</ul>', 'one\n\n  - two\n  - three'),
    'list in a list': ('<ul><li>one<ul><li>two</ul><li>three</ul>', '  - one\n    - two\n  - three'),
    'numbered list': ('<ol><li>one<li>two</ol>', '  1. one\n  2. two'),
    'table': ('<table><tr><th>a<th>b<tr><td>1<td>2</table>', 'a\t\tb\n1\t\t2'),
    'table of paragraphs': ('<table><tr><td><p>a</p></td><td>\n<p class="x">b</p>\n</td></table>', 'a\t\tb'),
    'code': ('<p>so:</p><pre>if x:\n    y()\n\n\n\nz</pre><p>end', 'so:\n\nif x:\n    y()\n\n\n\nz\n\nend'),
    'code that begins with a line break': ('<pre>\n  one\n two</pre>', '  one\n two'),
    'code in a list': ('<ul><li>so:<pre class="py">if x:\n    y()</pre></ul>', '  - so:\nif x:\n    y()'),
    'code with markup': ('<pre><span></span><b>if</b> x:<br>  <i>y</i></pre>', 'if x:\n  y'),
    'no tags': ('1 < 2 and 3', '1 < 2 and 3'),
    'unseen': ('<title>t</title><style>p{}</style><script>"</p>"</script><!-- c --><p>one<template>t</template>', 'one'),
    'a complete page': ('<!doctype html><html><head><title>t</title><meta charset=utf-8></head>'
                        '<body class=x><p>one</p></body></html>', 'one'),
    'XHTML': ('<?xml version="1.0" encoding="latin-1"?><html xmlns="x"><head><title>t</title></head>'
              '<body><p>one<br/>two</p></body></html>', 'one\ntwo'),
    'related modules': (f'<main><p>{PROSE}</p><section id="related-modules"><h2 id="related">See</h2><p>also</section></main>',
                        f'{PROSE.strip()}\n\nSee\n\nalso')}


@pytest.mark.parametrize('name', LINES)
def test_blocks_become_lines(name):
    page, wanted = LINES[name]
    assert text(page) == wanted


def test_menus_go_and_lists_stay():
    menu = '<ul><li><a href="/">Home</a><li><a href="/all">All stories</a></ul>'
    article = f'<h1>The mill</h1><p>{PROSE}</p><ul><li>a pot<li>a rope</ul>'
    page = f'<body>{menu}<nav>Somewhere</nav>{article}{menu}<footer>2020</footer>'
    assert text(page) == f'The mill\n\n{PROSE.strip()}\n\n  - a pot\n  - a rope'


UNLUCKY = ('<aside>', '<nav>', '<div hidden>', '<div class="popup">', '<div id="right">', '<table><tr><td class="sidebar">')


@pytest.mark.parametrize('element', UNLUCKY)
def test_an_article_that_the_rules_take_comes_back(element):
    for extractor in BOTH: assert PROSE.strip() in text(f'<body><h1>Tale</h1>{element}<p>{PROSE}</p>', extractor=extractor)


def test_short_pages_come_back_whole(): assert {text('<p>Hello.', extractor=extractor) for extractor in BOTH} == {'Hello.'}


HOSTILE = {
    'nested': '<div>' * 100_000 + 'end' + '</div>' * 100_000,
    'nested and never closed': '<div>' * 100_000 + 'end',
    'nested in what ignores closing tags': '<div><select></div></select>' * 2000 + 'end',
    'formatting never closed': '<b>' * 5000 + 'end',
    'misnested': '<b><p>' * 2000 + 'end',
    'tables': '<table>' * 3000 + 'end',
    'pre cut short': '<pre' * 200_000 + ' end',
    'attributes cut short': '<h1 id="' * 100_000 + 'end',
    'sections': '<section ' * 100_000 + '>end',
    'many attributes': '<p ' + 'a=1 ' * 100_000 + '>end',
    'spaces in code': f'<pre>{" " * 300_000}</pre>end',
    'comments never closed': 'end' + '<!--' * 100_000,
    'angles': '<' * 300_000 + 'end',
    'entities': '&amp' * 100_000 + 'end',
    'zero bytes': '\0<p>e\0nd\0',
    'surrogates': '\ud83d<p>end\udc80',
    'controls': ''.join(map(chr, range(32))) + 'end',
    'a byte order mark': '\ufeff<p>end',
    'frames': '<frameset><frame src=a></frameset>end',
    'bytes of an image': bytes(range(256)).decode('latin-1') * 100 + 'end',
    'UTF-8 read as UTF-16': ('<p>end' * 50).encode().decode('utf-16-le', 'replace'),
    'Latin-1 read as UTF-8': '<p>café crème'.encode('latin-1').decode('utf-8', 'replace') + ' end'}


@pytest.mark.parametrize('extractor', BOTH)
@pytest.mark.parametrize('name', HOSTILE)
def test_no_page_stops_it(name, extractor):
    result = html_text(document(HOSTILE[name]), extractor=extractor)
    json.dumps(result, ensure_ascii=False).encode('utf-8')
    kept = 'nested', 'formatting', 'misnested', 'zero', 'surrogates', 'Latin-1', 'spaces'
    if name.startswith(kept): assert 'end' in result['text']


@pytest.mark.slow
@pytest.mark.parametrize('page', [
    '<p>word word word</p>' * 500_000, '<div>' * 60 + '<p>word</p>' * 500_000, 'word ' * 2_000_000,
    '<ul>' + '<li>word' * 1_000_000], ids=['paragraphs', 'deep', 'plain', 'list'])
def test_ten_megabytes(page): assert text(page).count('word') == page.count('word')


TAGS = st.sampled_from([
    '<p>', '</p>', '<div class="nav">', '<ul>', '<li>', '<pre>', '</pre>', '<a href=x>', '</a>', '<br>', '<td>', '<table>',
    '<script>', '</script>', '<section id="related">', '<!--', '-->', '<b', '>', '"', '␞␞', '\n'])


@settings(max_examples=80, deadline=None)
@given(st.lists(TAGS | st.text(max_size=5), max_size=40))
def test_any_page_gives_text_or_a_reason(pieces):
    result = html_text(document(''.join(pieces)))
    assert result == 'no text in the page' or result['text'].strip() and 'format' not in result['meta']


def test_it_is_a_rule():
    before = document('<p>one', number=7) | {'url': 'u', 'licence': 'l'}
    kept = json.loads(json.dumps(before))
    after = html_text(before)
    assert before == kept and after == kept | {'text': 'one', 'meta': {'number': 7}}
    for more in ({}, {'meta': None}, {'meta': {'format': 'code'}}):
        other = {'id': 'a', 'text': '<p>'} | more
        assert html_text(other) is other
    assert html_text(document('<script>f()</script>')) == html_text(document('')) == 'no text in the page'
    rule = pickle.loads(pickle.dumps(partial(html_text, extractor='trafilatura')))  # noqa: S301 our own
    assert PROSE.strip() in rule(document(f'<p>{PROSE}'))['text']


def test_mistakes_are_one_line(monkeypatch):
    with pytest.raises(UserError, match="^extractor 'trafilature' is not known, did you mean 'trafilatura'\\?$"):
        html_text(document('<p>'), extractor='trafilature')
    monkeypatch.setitem(sys.modules, 'resiliparse.parse.html', None)
    with pytest.raises(UserError, match="^resiliparse is not installed; pip install 'llmbook\\[web\\]'$"): text('<p>one')


def test_stories_are_not_lost():
    rates = dict(mojibake=0, unicode=0, exact=0, near=0, toxic=0, foreign=0, spam=0)
    lost = total = 0
    for page in dirty_pages(80, seed=1, rates=rates):
        wanted = Counter(page['meta']['story'].split())
        lost += (wanted - Counter(html_text(page)['text'].split())).total()
        total += wanted.total()
    assert lost / total < 0.005
