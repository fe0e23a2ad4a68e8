"What `grade` asks of the answers to the exercises of the chapter `clean`."
import re
from html.parser import HTMLParser

from llmbook.text.clean import html_text


def check_1(answer):
    "Six lines."
    lines = [str(line).strip() for line in answer]
    assert len(lines) == 6, f"A browser shows six lines; yours are {len(lines)}. Which tags begin a block?"
    assert lines[0] == 'One twothree', "An inline element adds no space, not even after itself."
    assert lines[1] == 'Four five', "A line break in the source is a space."
    assert lines[2] == 'six', "What ends the paragraph, though nobody wrote </p>?"
    assert lines[3] == 'seven nine', "A script is not seen. Is it a block?"
    assert lines[4:] == ['ten', 'eleven'], "An item in an item has a line of its own; letters in bold have not."


_SHARES = {
    '<p>abcd<a href="/">efgh</a>': 0.5,
    '<p>abcd <a href="/">e f</a> gh': 0.25,
    '<a href="/">A<b>B</b></a><p>cd</p>': 0.5,
    '<a name="top">ab</a><a href="#top">cd</a>': 0.5,
    '<script>a = "<a href=x>y</a>"</script><a href="/">ab</a>cdef': 1 / 3,
    '<style>p { color: red }</style><p>one': 0.0,
    '<A HREF="/">ab</A>&amp;&lt;': 0.5,
    '<a\nhref="/">ab</a>cd': 0.5,
    '': 0.0,
    '<p>  </p>': 0.0,
}


def check_2(answer):
    "The share of links."
    for page, share in _SHARES.items():
        found = answer(page)
        assert found is not None, "Return the share."
        assert abs(found - share) < 1e-9, f"For {page!r} the share is {share:.3g}, not {found:.3g}."


_BLOCKS = {'address', 'article', 'aside', 'blockquote', 'br', 'div', 'h1', 'h2', 'li', 'main', 'ol', 'p', 'pre', 'section',
           'table', 'td', 'tr', 'ul'}
_SILENT = {'title', 'script', 'style', 'template', 'noscript'}


class _Walk(HTMLParser):
    "The chapter's walk as it was given."
    def __init__(self):
        super().__init__()
        self.lines, self.silent, self.in_pre = [''], 0, 0

    def _step(self, tag, by):
        if tag in _SILENT: self.silent += by
        if tag in _BLOCKS: self.lines.append('')
        if tag == 'pre': self.in_pre += by

    def handle_starttag(self, tag, attrs): self._step(tag, 1)

    def handle_endtag(self, tag): self._step(tag, -1)

    def handle_data(self, text):
        if self.silent: return
        if not self.in_pre: text = re.sub(r'\s+', ' ', text)
        first, *rest = text.split('\n')
        self.lines[-1] += first
        self.lines += rest


def _given(page):
    walker = _Walk()
    walker.feed(page)
    walker.close()
    return '\n'.join(walker.lines)


def check_3(answer):
    "(a page on which the walk shows a script, a walk that does not)."
    page, better = answer
    scripts = re.findall(r'(?is)<script\b[^>]*>(.*?)</script\s*>', page)
    assert scripts, "There is no <script> with its </script> in the page."
    assert len(scripts) == len(re.findall('(?i)<script', page)), "Close every <script> of the page."
    code = [script.strip() for script in scripts if script.strip()]
    shown, still = _given(page), better(page)
    assert any(script in shown for script in code), "The walk of the chapter does not show the script of this page."
    assert not any(script in still for script in code), "Your walk shows the script of your own page."
    cases = {
        '<p>one</script></style><script>two()</script><p>three': ['one', 'three'],
        '</title></title></title><style>a</style><style>b</style>four': ['four'],
        '</pre><p>one\ntwo\n<p>three<pre>four\nfive</pre>six\nseven': ['one two', 'three', 'four', 'five', 'six seven'],
        '<template></script>one</template>two': ['two'],
        '<script>a()</script><p>one<pre>two\n  three</pre>': ['one', 'two', 'three']}
    for html, lines in cases.items():
        found = [line.strip() for line in better(html).split('\n') if line.strip()]
        assert found == lines, f"For {html!r} the lines are {lines}, not {found}."


def check_4(answer):
    "(html, a sentence to be kept, a line to be left out)."
    page, sentence, menu = answer
    assert len(page) >= 5000, f"The page has {len(page):,} characters; give one with at least 5,000."
    for name, text in (('sentence', sentence), ('line', menu)):
        assert len(text.strip()) >= 5, f"The {name} is too short to be looked for."
        start = ' '.join(text.split())[:20]
        flat = ' '.join(page.split())
        assert start in flat or start in ' '.join(re.sub('<[^>]*>', '', page).split()), f"The {name} is not in the page."
    result = html_text({'id': 'own', 'text': page, 'meta': {'format': 'html'}})
    assert isinstance(result, dict), f"The page was dropped: {result}."
    text = ' '.join(result['text'].split())
    assert ' '.join(sentence.split()) in text, "The sentence is not in the text; which rule took it?"
    assert ' '.join(menu.split()) not in text, "The line of the menu is in the text; was everything taken?"
