"""The site: what Quarto is given. Its pages are staged as a docs build stages them, and every check reads the result.

A check reads a folder and returns its complaints; `test_check_is_seen_to_fail` breaks one thing in a copy for each.
"""
import ast
import json
import re
import shlex
import shutil
import sys
from contextlib import chdir, redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from test_layout import PAGES, ROOT, copy_house, modules, run
from test_layout_mutants import append, cell, notebook, replace

from llmbook.align.lora import lora_flags
from llmbook.cli import ADAPTED, INSTEAD, VERBS, choose_stage
from llmbook.core import UserError
from llmbook.flags import read_args
from llmbook.scale.engine import engine_flags
from llmbook.scale.zero import zero_bytes

GENERATED = sorted(PAGES - {'index', 'start'}) # notebooks whose outputs are read off the library or its results


# What the checks read

MOON = [cell('# Moon', cell_type='markdown'), cell("#| export\ndef land(on:'Moon'): pass")] # an annotation that comes too early


@pytest.fixture(scope='module')
def staged(tmp_path_factory):
    "A copy of the repository as far as the site needs it, staged; the notebooks that could not be, one of which must not."
    site = copy_house(ROOT, tmp_path_factory.mktemp('site'))
    moon = site/'nbs/980_moon.ipynb'
    moon.write_text(json.dumps(dict(cells=MOON, metadata={}, nbformat=4, nbformat_minor=5)))
    failed = json.loads(run(site, sys.executable, ROOT/'tests/book/staging.py').splitlines()[-1])
    moon.unlink()
    return site, failed


class Heading(NamedTuple):
    level: int
    words: str
    anchor: str
    doc: bool # does `show_doc` tell about a name here?


class Page(NamedTuple):
    front: dict # its YAML
    text: str # Markdown as Pandoc will see it, without the YAML
    html: str # HTML in outputs
    plots: list # sources of cells with a picture


@cache
def parsed(text, is_notebook):
    "A staged page."
    cells, pieces, html, plots = json.loads(text)['cells'] if is_notebook else [], [], [], []
    for c in cells:
        source = ''.join(c['source'])
        if c['cell_type'] != 'code': pieces.append(source)
        for o in c.get('outputs', []):
            data = {mime: ''.join(d) if isinstance(d, list) else d for mime, d in o.get('data', {}).items()}
            if re.search(r'^show_doc', source, re.M):
                data['text/markdown'] = re.sub(r'^(### .*)$', r'\1 {.doc}', data['text/markdown'], count=1, flags=re.M)
            if any(mime.startswith('image/') for mime in data): plots.append(source)
            if 'text/markdown' in data: pieces.append(data['text/markdown'])
            elif 'text/html' in data: html.append(data['text/html'])
    text = '\n\n'.join(pieces) if is_notebook else text
    front = re.match(r'---\n(.*?)\n---(?:\n|$)', text, re.S)
    return Page(yaml.safe_load(front[1]) if front else {}, text[front.end() if front else 0:], '\n'.join(html), plots)


def pages(site):
    "Every page by the name of its file."
    files = [p for p in sorted((site/'_proc').iterdir()) if p.suffix in ('.ipynb', '.md')]
    return {p.name: parsed(p.read_text('utf-8'), p.suffix == '.ipynb') for p in files}


def output(name, page): return page.front.get('output-file', f'{Path(name).stem}.html')


def unfenced(text):
    "Markdown without code blocks and comments."
    text = re.sub(r'^( *)(`{3,}|~{3,})[^\n]*\n.*?^ *\2[^\n]*$', '', text, flags=re.M | re.S)
    return re.sub(r'<!--.*?-->', '', text, flags=re.S)


def plain(heading):
    "The words of a heading: no links, emphasis, code marks or attributes."
    heading = re.sub(r'\s*\{[^}]*\}\s*$', '', heading)
    heading = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    words = heading.split('`')
    words[::2] = [re.sub(r'[*$\\]|(?<!\w)_|_(?!\w)|-{2,}|\.{3}', '', w) for w in words[::2]] # Pandoc makes dashes of --
    return ''.join(words)


def anchor_of(words):
    "Pandoc's identifier for a heading. Source: its manual, extension auto_identifiers."
    name = '-'.join(re.sub(r'[^\w\s.-]', '', words.lower()).split())
    return re.sub(r'^[\W\d_]+', '', name) or 'section'


@cache
def headings_of(text):
    found, seen, before = [], set(), ''
    for line in [*unfenced(text).splitlines(), '']:
        m = re.match(r'(#{1,6})\s+(\S.*?)\s*$', line)
        if m and not before.strip():
            words = plain(m[2])
            anchor = name = own[1] if (own := re.search(r'\{[^}]*#([\w.-]+)', m[2])) else anchor_of(words)
            for n in count(1):
                if anchor not in seen: break
                anchor = f'{name}-{n}'
            seen.add(anchor)
            found.append(Heading(len(m[1]), words, anchor, m[2].endswith('{.doc}')))
        before = line
    return found


def headings(page): return headings_of(page.text)


def links(page):
    "Targets of links in prose and in HTML."
    text = re.sub(r'(`+)(?:.+?)\1', 'code', unfenced(page.text), flags=re.S)
    found = re.findall(r'(?<!!)\[(?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*\]\(<?([^)\s>]*)>?(?:\s+"[^"]*")?\)', text)
    return found + re.findall(r'<a\s[^>]*href="([^"]*)"', page.html + text)


def hrefs(node):
    "Every link of a part of `_quarto.yml`."
    if isinstance(node, str): return [node]
    if isinstance(node, list): return sum(map(hrefs, node), [])
    return sum((hrefs(node[k]) for k in ('href', 'contents', 'menu') if k in node), [])


def external(target): return re.match(r'(?:https?|mailto):', target)


def code_blocks(text): return re.findall(r'^ *```(?:sh|bash)\n(.*?)^ *```', text, re.M | re.S)


def shown_commands(text):
    "Verb and arguments of the command lines in a page's code blocks."
    lines = '\n'.join(code_blocks(text)).replace('\\\n', ' ').splitlines()
    for line in lines:
        m = re.search(r'(?:^|\s|/)(?:llmbook|-m llmbook|llmbook/cli\.py|--module llmbook\.cli) +([a-z]\w*)(?: (.*))?$', line)
        if m and '...' not in line: yield line, m[1], tuple(shlex.split(m[2] or '', comments=True))


# The checks

def headings_make_an_outline(site):
    bad = []
    for name, page in pages(site).items():
        found = headings(page)
        levels = [h.level for h in found]
        titles = levels.count(1) + ('title' in page.front)
        if titles != 1: bad.append(f'{name}: {titles} titles')
        if 1 in levels[1:]: bad.append(f'{name}: its title is not its first heading')
        bad += [f'{name}: heading {h.words!r} skips a level' for before, h in zip([1, *levels], found) if h.level > before + 1]
        glued = re.findall(r'^[^\n]*\S[^\n]*\n(#{1,6} [^\n]+)', unfenced(page.text), re.M)
        bad += [f'{name}: no empty line before {words!r}' for words in glued if not words.startswith('#|')]
        if not page.front.get('description') and not (site/'nbs'/name).is_symlink(): bad.append(f'{name}: no description')
    return bad


def fences_name_a_language(site):
    "A block without one looks like the output of a cell."
    bad = []
    for name, page in pages(site).items():
        fences = re.findall(r'^ *`{3,}[^`\n]*$', page.text, re.M)
        bad += [f'{name}: a block without a language, number {i//2 + 1}' for i, line in enumerate(fences)
                if i % 2 == 0 and not line.strip('` ')]
    return bad


def links_lead_to_pages_and_anchors(site):
    every = pages(site)
    anchors = {name: {h.anchor for h in headings(page)} for name, page in every.items()}
    by_output = {output(name, page): name for name, page in every.items()}
    bad = []
    for name, page in every.items():
        for target in filter(lambda t: not external(t), links(page)):
            path, _, anchor = target.partition('#')
            if path.startswith('../'): there = (site/'nbs'/path).exists()
            else:
                page_name = name if not path else by_output.get(path[1:]) if path[0] == '/' else path
                there = page_name in every and (not anchor or anchor in anchors[page_name])
                there = there or not anchor and page_name and (site/'_proc'/page_name).is_file()
            if not there: bad.append(f'{name} links to {target}')
    return bad


def links_out_of_the_root_are_whole(site):
    "A page that is a link to a file elsewhere cannot have relative links: they mean one thing here and another there."
    return [f'{p.name} links to {t}' for p in sorted((site/'nbs').glob('*.md')) if p.is_symlink()
            for t in links(pages(site)[p.name]) if not external(t) and t[0] != '#']


def navigation_lists_every_page_once(site):
    text = (site/'_proc/_quarto.yml').read_text('utf-8')
    web, every, bad = yaml.safe_load(text)['website'], pages(site), []
    for part in ('sidebar', 'navbar', 'page-footer'):
        sides = {'sidebar': ['contents'], 'navbar': ['left', 'right', 'tools'], 'page-footer': ['left', 'right']}[part]
        listed = [h for side in sides for h in hrefs(web[part].get(side, [])) if '](' not in h and not external(h)]
        bad += [f'{part}: {h} is not there' for h in listed if h not in every]
        bad += [f'{part}: {h} twice' for h in {h for h in listed if listed.count(h) > 1}]
        if part == 'sidebar': bad += [f'sidebar: {name} is not in it' for name in every if name not in [*listed, '404.md']]
    config = yaml.safe_load(text)
    themes = [part for theme in config['format']['html']['theme'].values() for part in theme if part.endswith('.scss')]
    files = [web['favicon'], web['navbar']['logo'], *config['filters'], *config['metadata-files'], *themes]
    return bad + [f'{f} is not there' for f in files if not (site/'_proc'/f).is_file()]


def one_page_one_name(site):
    seen, bad = {}, []
    for name, page in pages(site).items():
        if (key := output(name, page).lower()) in seen: bad.append(f'{name} and {seen[key]} are both {key}')
        seen[key] = name
    return bad


def pictures_are_described(site):
    bad = []
    for name, page in pages(site).items():
        text = re.sub(r'(`+)(?:.+?)\1', '', unfenced(page.text), flags=re.S)
        bad += [f'{name}: a plot without fig-alt' for source in page.plots if not re.search(r'#\| *fig-alt: *\S', source)]
        bad += [f'{name}: {m[0]} without alt text' for m in re.finditer(r'!\[\s*\]\([^)]*\)', text)]
        html = page.html + text
        bad += [f'{name}: {m[0][:60]} without alt text' for m in re.finditer(r'<img\b[^>]*>', html)
                if not re.search(r'\balt="[^"]+"', m[0])]
        bad += [f'{name}: <svg> without a name' for m in re.finditer(r'<svg\b[^>]*>(.{0,200})', html, re.S)
                if not re.search(r'aria-label|aria-hidden|<title', m[0])]
    return bad


def no_prose_is_lost(site):
    "nbdev takes the first cell with a title for front matter, and drops what else stands in it."
    def lines(text): return {re.sub(r'\[(`[^`]*`)\]\([^)]*\)', r'\1', line).strip() for line in text.splitlines()}
    bad, every = [], pages(site)
    for p in sorted((site/'nbs').glob('*.ipynb')):
        page = every[p.name]
        kept = lines(page.text) | {f"# {page.front.get('title')}", f"> {page.front.get('description')}", ''}
        for c in json.loads(p.read_text('utf-8'))['cells']:
            if c['cell_type'] == 'markdown' and (lost := lines(''.join(c['source'])) - kept):
                bad.append(f'{p.name}: {len(lost)} lines do not reach the site, such as {sorted(lost)[0][:60]!r}; '
                           'the cell with the title may hold the title and the claim, and nothing else')
    return bad


def the_library_is_complete(site):
    "Every public name, and each link to where its documentation is shown."
    every, bad = pages(site), []
    where = dict(re.findall(r'\[(\w+)\]\((\S+#\S+)\)', every['library.ipynb'].text))
    constants = set(re.findall(r'`(\w+)`', ' '.join(re.findall(r'^Constants: (.*)$', every['library.ipynb'].text, re.M))))
    for path in modules(site):
        body = ast.parse(path.read_text('utf-8')).body
        made = {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        lists = [n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__']
        public = sum(map(ast.literal_eval, lists), [])
        bad += [f'library.ipynb: {n} is not in it' for n in public if n not in (where if n in made else constants)]
    for name, target in where.items():
        path, _, anchor = target.partition('#')
        told = [h.anchor for h in headings(every[path]) if h.doc and h.words == name]
        if [anchor] != told: bad.append(f'library.ipynb: {name} leads to {target}, and its documentation is at {told}')
    return bad


def every_verb_has_a_section(site):
    found = [h.words for h in headings(pages(site)['commands.ipynb']) if h.level == 2]
    return [f'commands.ipynb: no section {verb}' for verb in VERBS if found.count(verb) != 1]


@cache
def misunderstood(verb, args):
    "What the command line says about a command, where it does not understand it."
    if verb not in VERBS: return f'no verb {verb}'
    if {'--config', '--help'} & {*args}: return ''
    module, function, trains = VERBS[verb]
    others = [INSTEAD[verb][:2]] if verb in INSTEAD else [] # a flag may choose another stage
    stages = [getattr(import_module(module), function) for module, function in [(module, function), *others]]
    try:
        given = read_args(list(args), *stages, *[engine_flags] * trains, *[lora_flags] * (verb in ADAPTED))
        if others: choose_stage(verb, stages, given)
    except UserError as e: return str(e)
    return ''


def commands_are_understood(site):
    "What a page shows to be typed is read as the command line reads it."
    shown = [(name, *command) for name, page in pages(site).items() for command in shown_commands(page.text)]
    bad = [f'{name}: {line.strip()}: {why}' for name, line, verb, args in shown if (why := misunderstood(verb, args))]
    return bad if len(shown) > 20 else [*bad, f'{len(shown)} commands were found']


def memory_is_what_the_function_says(site):
    text, sizes = pages(site)['cluster.md'].text, {'124 million': 124e6, '1 billion': 1e9, '7 billion': 7e9}
    def row(n): return [zero_bytes(n, 8, z, 'bf16') for z in range(4)] + [zero_bytes(n, 8, 2, 'bf16', offload=True)]
    want = {name: f"| {name} | {' | '.join(f'{b / 1e9:.1f}' for b in row(n))} |" for name, n in sizes.items()}
    return [f'cluster.md: not {line}' for line in want.values() if line not in text]


def links_out_of_nbs_are_known(site):
    "The filter's table and the pages that are links say the same."
    lua = dict(re.findall(r"\['(\S+)'\] = '(\S+)'", (site/'_proc/links.lua').read_text('utf-8')))
    linked = {p.readlink().as_posix().removeprefix('../'): p.name for p in (site/'nbs').glob('*.md') if p.is_symlink()}
    bad = [f'links.lua: {a} is shown by {b}' for a, b in linked.items() if lua.get(a) != b]
    return bad + [f'links.lua: {b} is no page' for b in lua.values() if b not in pages(site)]


def fresh(path):
    "What the code cells of a notebook print and show when they run now, as far as it is text."
    import matplotlib.pyplot as plt
    plt.switch_backend('agg')
    found, names = [], {'__name__': '__main__'}
    for c in json.loads(path.read_text('utf-8'))['cells']:
        if c['cell_type'] != 'code': continue
        source, value = ''.join(c['source']), None
        body, out = ast.parse(source), StringIO()
        last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
        with redirect_stdout(out):
            exec(compile(body, path.name, 'exec'), names)
            if last: value = eval(compile(ast.Expression(last.value), path.name, 'eval'), names)
        shown = value.data if hasattr(value, '_repr_markdown_') else ''
        stored = c['outputs']
        printed = ''.join(''.join(o.get('text', '')) for o in stored)
        drawn = '\n'.join(''.join(o['data'].get('text/markdown', '')) for o in stored if 'data' in o)
        found.append((source, out.getvalue() + shown, printed + drawn))
    plt.close('all')
    return found


def generated_pages_are_fresh(site):
    bad = []
    for name in GENERATED:
        with chdir(site/'nbs'): cells = fresh(site/'nbs'/f'{name}.ipynb')
        bad += [f'{name}.ipynb: not what it shows now, so run it again: {source.strip().splitlines()[-1][:60]}'
                for source, now, stored in cells if now != stored]
    return bad


CHECKS = [headings_make_an_outline, fences_name_a_language, links_lead_to_pages_and_anchors, links_out_of_the_root_are_whole,
          navigation_lists_every_page_once, one_page_one_name, pictures_are_described, no_prose_is_lost,
          the_library_is_complete, every_verb_has_a_section, commands_are_understood, memory_is_what_the_function_says,
          links_out_of_nbs_are_known, generated_pages_are_fresh]


def test_every_notebook_can_be_staged(staged):
    *bad, moon = sorted(staged[1], key=lambda line: line.startswith('980_moon.ipynb'))
    assert not bad, '\n'.join(['', *bad])
    assert moon.startswith('980_moon.ipynb') and "'Moon' is not defined" in moon


@cache
def complaints(check, site): return frozenset(check(site))


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_check(check, staged): assert not (bad := complaints(check, staged[0])), '\n'.join(['', *sorted(bad)])


# Each check is seen to fail

def page(name, old, new): return replace(f'_proc/{name}', old, new)


def staged_cell(name, text, outputs=(), **more):
    "The mutation that appends a cell to a staged notebook."
    return lambda site: notebook(site/'_proc'/name, lambda cells: cells.append(cell(text, outputs, **more)))


def written(name, text): return staged_cell(name, text, cell_type='markdown')


def image(mime, data): return [dict(output_type='display_data', data={mime: data}, metadata={})]


LAYOUTS, CHAPTER = 'layouts.ipynb', '130_attention.ipynb'
MUTANTS = [
    ('headings_make_an_outline', 'a second title', written(CHAPTER, '# Another title')),
    ('headings_make_an_outline', 'no title', page('install.md', 'title: Install', 'author: nobody')),
    ('headings_make_an_outline', 'a skipped level', append('_proc/install.md', '\n#### Deep\n')),
    ('headings_make_an_outline', 'glued to a paragraph', append('_proc/install.md', '\nText\n## Heading\n')),
    ('headings_make_an_outline', 'no description', page('install.md', 'description:', 'subtitle:')),
    ('fences_name_a_language', 'a bare fence', append('_proc/install.md', '\n```\nllmbook env\n```\n')),
    ('links_lead_to_pages_and_anchors', 'no such page', written(CHAPTER, 'See [the moon](990_moon.ipynb).')),
    ('links_lead_to_pages_and_anchors', 'no such anchor', written(CHAPTER, 'See [the loop](216_loop.ipynb#moon).')),
    ('links_lead_to_pages_and_anchors', 'no such anchor here', append('_proc/install.md', '\n[Up](#moon)\n')),
    ('links_lead_to_pages_and_anchors', "one of nbdev's", written(CHAPTER, 'See [`fit`](/loop.html#moon).')),
    ('links_lead_to_pages_and_anchors', 'no such file', append('_proc/install.md', '\n[The moon](../MOON)\n')),
    ('links_lead_to_pages_and_anchors', 'in HTML', staged_cell(CHAPTER, 'x', image('text/html', '<a href="moon.html">x</a>'))),
    ('links_out_of_the_root_are_whole', 'a relative link', append('_proc/changelog.md', '\n[The licence](LICENSE)\n')),
    ('navigation_lists_every_page_once', 'left out', replace('_proc/_quarto.yml', '          - 060_bpe.ipynb\n', '')),
    ('navigation_lists_every_page_once', 'twice', replace('_proc/_quarto.yml', '060_bpe', '020_corpus')),
    ('navigation_lists_every_page_once', 'gone', lambda site: (site/'_proc/install.md').unlink()),
    ('navigation_lists_every_page_once', 'no icon', lambda site: (site/'_proc/images/favicon.svg').unlink()),
    ('one_page_one_name', 'two pages', page(CHAPTER, 'output-file: attention.html', 'output-file: loop.html')),
    ('pictures_are_described', 'a plot', page(LAYOUTS, '#| fig-alt:', '#| fig-old:')),
    ('pictures_are_described', 'in prose', append('_proc/install.md', '\n![](images/favicon.svg)\n')),
    ('pictures_are_described', 'in HTML', staged_cell(CHAPTER, 'x', image('text/html', '<img src="images/favicon.svg">'))),
    ('no_prose_is_lost', 'beside the title', lambda site: notebook(
        site/'nbs'/CHAPTER, lambda cells: next(c for c in cells if c['cell_type'] == 'markdown')['source'].append('\n\nMore.'))),
    ('the_library_is_complete', 'a name', append('llmbook/model/other.py', "__all__ = ['moon']\ndef moon(): pass\n")),
    ('the_library_is_complete', 'another anchor', page('library.ipynb', '#attend)', '#check)')),
    ('every_verb_has_a_section', 'no section', page('commands.ipynb', '## report', '## reports')),
    ('commands_are_understood', 'a flag', append('_proc/install.md', '\n```sh\nllmbook pretrain --stpes 5\n```\n')),
    ('commands_are_understood', 'a value', append('_proc/install.md', '\n```sh\ntorchrun llmbook/cli.py run --seed x\n```\n')),
    ('memory_is_what_the_function_says', 'a figure', page('cluster.md', '| 5.5 |', '| 5.6 |')),
    ('links_out_of_nbs_are_known', 'not in the filter', page('links.lua', "['CHANGELOG.md']", "['CHANGES.md']")),
    ('generated_pages_are_fresh', 'a table', replace(f'nbs/{LAYOUTS}', '4.8e-7', '4.9e-7')),
]


def test_every_check_has_a_mutant(): assert {name for name, *_ in MUTANTS} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize('name, what, mutate', MUTANTS, ids=[f'{name}: {what}' for name, what, _ in MUTANTS])
def test_check_is_seen_to_fail(name, what, mutate, staged, tmp_path):
    check, site = globals()[name], tmp_path/'site'
    shutil.copytree(staged[0], site, symlinks=True)
    mutate(site)
    assert set(check(site)) - complaints(check, staged[0])
