"The page: text from outside stays text, whatever it is, as HTML and as Markdown."
import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.evaluation.page import Part, _fenced, _is_page_of, _plain_markdown, as_html, as_markdown


class Page(HTMLParser):
    "Fails where a tag does not close; remembers tags, attributes and text."
    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], []
        self.feed(page)
        self.close()
        assert not self.open, self.open
    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag != 'meta': self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
    def handle_endtag(self, tag): assert self.open and self.open.pop() == tag, tag
    def handle_data(self, data): self.text.append(data)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=('Cs', 'Cc')), max_size=60))
def test_any_text_survives(text):
    page = Page(as_html([Part('title', text), Part('text', text), Part('code', text), Part('table', [(text,), (text,)]),
                         Part('figures', [(text, text)])]))
    assert page.tags == set('html head meta title style body h1 p pre table tr th td ul li b'.split())
    assert re.sub(r'\\([\\`*_\[\]<>|#&~$.)+-])', r'\1', _plain_markdown(text)) == ' '.join(text.split())
    fence, *body, last = _fenced(text).split('\n')
    assert last == fence and '\n'.join(body) == text and not any(line.strip().startswith(fence) for line in text.splitlines())


def test_a_line_is_no_list():
    for text, plain in (('- a', '\\- a'), ('+ a', '\\+ a'), ('12. a', '12\\. a'), ('1) a', '1\\) a'), ('---', '\\---'),
                        ('0.910', '0.910'), ('-5', '-5'), ('a - b', 'a - b')):
        assert _plain_markdown(text) == plain


def test_numbers_are_aligned_to_the_right():
    rows = [('name', 'nats', 'error', 'tokens'), ('a', '1.25', 'not known', '58,422'), ('b', '-0.5 ± 0.004', '0.1', '9 %')]
    page = as_html([Part('title', 't'), Part('table', rows)])
    assert page.count('<th class="number">') == 3 and page.count('<td class="number">') == 6
    assert '<td>a</td>' in page


def test_a_subtitle_is_text():
    page = as_html([Part('title', 't', '<b>now</b>')])
    assert '<p class="subtitle">&lt;b&gt;now&lt;/b&gt;</p>' in page


def test_markdown_pictures_bring_a_ground():
    files = as_markdown([Part('title', 't'), Part('picture', '<svg x="1"></svg>', 'a | b')])
    assert list(files) == ['report.md', 'report-1.svg'] and '![a \\| b](report-1.svg)' in files['report.md']
    assert files['report-1.svg'].splitlines()[0] == '<svg style="background:#fff" x="1"></svg>'


def test_files_are_named_and_signed_after_their_page(tmp_path):
    parts = [Part('title', 't'), Part('picture', '<svg></svg>', 'a'), Part('picture', '<svg></svg>', 'b')]
    for name in ('lr-0.1.html', 'my (notes).HTML', 'a-->b.html', 'é.html'):
        stem = name.rpartition('.')[0]
        files = as_markdown(parts, name) | {name: as_html(parts, name)}
        assert set(files) == {name, f'{stem}.md', f'{stem}-1.svg', f'{stem}-2.svg'}
        assert not re.search(r'\]\([^)]*[ (]', files[f'{stem}.md']) and Page(files[name])
        for file, text in files.items():
            (tmp_path/file).write_text(text)
            assert _is_page_of(tmp_path/file, name) and not _is_page_of(tmp_path/file, 'other.html')
    for text in ('', '# my notes', 'x' * 10**6):
        (tmp_path/'foreign').write_text(text)
        assert not _is_page_of(tmp_path/'foreign', 'lr-0.1.html')
