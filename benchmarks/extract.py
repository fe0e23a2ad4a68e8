"""HTML to text, side by side: pages per second, words of the article kept, words from elsewhere, code lines kept exactly.

What belongs to the article is read from the markup of the pages: the element that a folder's generator marks as its main
part, and the whole body where there is none. The ways take turns; times are medians over the repeats. With
--browser the visible words of ten pages are compared with what a browser shows.

python benchmarks/extract.py FOLDER [FOLDER ...] [--pages 200] [--repeats 3] [--browser chromium] [--out nbs/results/clean.json]
"""
import argparse
import html
import json
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import lxml.etree
import lxml.html
from resiliparse.extract.html2text import extract_plain_text

from llmbook.core import environment
from llmbook.files import write_json
from llmbook.text.clean import html_text

MAIN = '//*[@role="main"]', '//main', '//div[@class="body"]', '//div[@id="content"]', '//article'
UNSEEN = '//script|//style|//noscript|//title|//template|//a[@class="headerlink"]'


def by_rule(page, **settings):
    "What the rule of the book makes of a page."
    result = html_text({'id': '', 'text': page, 'meta': {'format': 'html'}}, **settings)
    return '' if isinstance(result, str) else result['text']


WAYS = {
    'tags removed': partial(re.sub, '<[^>]*>', ''),
    'everything visible': extract_plain_text,
    'resiliparse, main content': partial(extract_plain_text, main_content=True),
    'html_text': by_rule,
    'html_text, trafilatura': partial(by_rule, extractor='trafilatura')}


def words_of(text): return Counter(re.findall(r'\w+', text))


def lines_of(text): return Counter(line.rstrip() for line in text.split('\n') if line.strip())


def without_declaration(page):
    "A page without the first line that makes it XML, which lxml wants as bytes."
    return re.sub(r'^\s*<\?xml[^>]*>', '', page)


def article(page):
    "Words and code lines of a page's main part."
    root = lxml.html.fromstring(without_declaration(page))
    for element in root.xpath(UNSEEN): element.drop_tree()
    marked = next((parts for path in MAIN if len(parts := root.xpath(path)) == 1), [root])
    code = '\n'.join(pre.text_content() for pre in marked[0].iter('pre'))
    return words_of(' '.join(marked[0].itertext('*'))), lines_of(code)  # the star leaves comments out


def quality(texts, articles):
    "Over all pages: share of the articles' words kept, share of the words from elsewhere, share of code lines kept."
    kept = found = wanted = kept_lines = lines = 0
    for text, (words, code) in zip(texts, articles):
        ours, here = words_of(text), lines_of(text)
        kept, found, wanted = kept + (ours & words).total(), found + ours.total(), wanted + words.total()
        kept_lines, lines = kept_lines + (here & code).total(), lines + code.total()
    return dict(kept=kept / wanted, elsewhere=1 - kept / found, code=kept_lines / lines if lines else None)


def timed(pages, repeats):
    "Each way's texts, and the median of its seconds; the ways take turns, each time in another order."
    seconds, texts = {name: [] for name in WAYS}, {}
    for way in WAYS.values(): way(pages[0])  # libraries are loaded
    for repeat in range(repeats):
        for name in random.Random(repeat).sample(list(WAYS), len(WAYS)):
            began = time.perf_counter()
            texts[name] = [WAYS[name](page) for page in pages]
            seconds[name].append(time.perf_counter() - began)
    return texts, {name: statistics.median(took) for name, took in seconds.items()}


SHOWN = """<script>addEventListener('load', () => {
const shown = document.body.innerText;
document.documentElement.innerHTML = '<body><pre></pre></body>';
document.querySelector('pre').textContent = shown; })</script>"""


def shown_by(browser, path):
    "The text that a browser shows for a file."
    base = f'<!doctype html><base href="{path.parent.absolute().as_uri()}/">'
    with tempfile.NamedTemporaryFile('w', suffix='.html', encoding='utf-8') as f:
        f.write(base + path.read_text('utf-8', 'replace') + SHOWN)
        f.flush()
        command = [browser, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom', f'file://{f.name}']
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return html.unescape(re.search(r'(?s)<pre>(.*)</pre>', dom)[1])


def beside_browser(browser, paths):
    "Words that a browser shows and `everything visible` lacks, and the other way round, as shares."
    missing = added = total = 0
    for path in paths:
        shown, ours = words_of(shown_by(browser, path)), words_of(extract_plain_text(path.read_text('utf-8', 'replace')))
        missing += (shown - ours).total()
        added += (ours - shown).total()
        total += shown.total()
    return dict(pages=len(paths), words=total, missing=missing / total, added=added / total)


def nested_times(depths=(1000, 2000, 4000, 8000)):
    "Seconds that resiliparse takes to find the main content of nested elements."
    rows = []
    for depth in depths:
        began = time.perf_counter()
        extract_plain_text('<div>' * depth + 'a word', main_content=True)
        rows.append([depth, time.perf_counter() - began])
    return rows


def deepest(page):
    "Elements on the longest way down in a page."
    level, most = 0, 0
    for event, _ in lxml.etree.iterwalk(lxml.html.fromstring(without_declaration(page)), events=('start', 'end')):
        level += 1 if event == 'start' else -1
        most = max(most, level)
    return most


def label(folder):
    "A name for a folder of pages: `python3-doc` of python3-doc/html."
    folder = folder.absolute()
    return folder.parent.name if folder.name == 'html' else folder.name


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--pages', type=int, default=200, help='at most so many of each folder, drawn at random')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--browser', help='its command; ten pages of each folder are compared')
    parser.add_argument('--out', type=Path)
    args, result = parser.parse_args(), {}
    for folder in args.folders:
        paths = sorted(folder.rglob('*.html'))
        paths = random.Random(0).sample(paths, min(args.pages, len(paths)))
        pages = [path.read_text('utf-8', 'replace') for path in paths]
        articles = [article(page) for page in pages]
        texts, seconds = timed(pages, args.repeats)
        rows = {name: quality(texts[name], articles) | {'pages_per_s': len(pages) / seconds[name]} for name in WAYS}
        megabytes = sum(len(page.encode('utf-8', 'replace')) for page in pages) / 1e6
        name = label(folder)
        result[name] = dict(pages=len(pages), megabytes=megabytes, deepest=max(map(deepest, pages)), ways=rows)
        if args.browser: result[name]['browser'] = beside_browser(args.browser, paths[:10])
        print(f"{name}: {len(pages)} pages, {megabytes:.1f} MB")
        for way, row in rows.items():
            code = '-' if row['code'] is None else f"{row['code']:.2%}"
            print(f"  {way:26} {row['pages_per_s']:8.1f} pages/s  kept {row['kept']:.2%}  "
                  f"elsewhere {row['elsewhere']:.2%}  code lines {code}")
        if args.browser: print('  beside the browser:', json.dumps(result[name]['browser']), flush=True)
    where = environment()
    result = {'folders': result, 'nested': nested_times(), 'repeats': args.repeats}
    result |= {'device': where['device'], 'commit': where['commit']}
    if args.out: write_json(args.out, result)
    else: print(json.dumps(result))


if __name__ == '__main__': main()
