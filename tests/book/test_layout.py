"""The house: what a notebook cannot say about itself. Each rule reads a repository's root and returns its complaints.

`tests/book/test_layout_mutants.py` breaks each rule once and sees it complain.
"""
import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from configparser import ConfigParser
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PARTS = dict(enumerate(['text', 'model', 'train', 'scale', 'compress', 'align', 'evaluation', 'serve']))
TOP = {'000_core': 'core', '001_fields': 'fields', '002_files': 'files', '004_lesson': 'lesson', '006_outputs': 'outputs',
       '008_processes': 'processes', '800_book': 'book'}  # modules beside the parts
PAGES = {'index', 'start', 'commands', 'library', 'layouts'}  # notebooks that are no chapters and export nothing
BY_HAND = {'__init__.py', '_modidx.py', 'cli.py', '__main__.py'}  # modules that need no notebook
EARLY = {'joints': 3, 'configuration': 3, 'flags': 4, 'meeting': 3, 'progress': 3, 'signals': 3}  # by hand too; their numbers
EXERCISES = 'exercises'  # the folder of the checks, written by hand
MACHINERY = {'core', 'fields', 'files', 'outputs', 'processes', 'documents', 'framing', 'tokenizer_files', 'vocabulary', 'lesson',
             'pipeline', 'store', 'hf_format', 'completion', 'trainer_state', 'speed', 'loggers', 'runs', 'claim', 'guard',
             'travel', 'shards', 'measure', 'page', 'findings', 'watch', 'norm', 'shape',
             'model_config', 'webpage', 'invented', 'templates', 'workers', 'unpack', 'rows', 'pages', 'wiki', 'genres',
             'fetch', 'encode', 'intake', 'text_parts', 'task_files', 'heads', 'adapters',
             'messages', 'turns', 'chat_template', 'branches', 'answers',
             'prefixes', 'tuning', 'pretrain_encoder', 'pairs', 'scoring', 'reference', 'rewards', 'rollouts', 'policy',
             'truth', 'curves', 'numpy_steps',
             'pair_rows', 'vocab_txt', 'encoder_heads', 'weight_shards', 'model_card', 'bert_format', 'heads_on_disk',
             'row_files', 'class_rows', 'class_frames', 'class_tasks', 'class_parts', 'measure_encoders',
             'align_parts'}  # about engineering; their lesson cells may look ahead
OUTPUT_KB = 300
LINES, WIDER = 250, {'text.grammar': 295, 'text.templates': 420, 'align.branches': 260} # the second is data
TOKENS, WIDE = 12, 5  # of Python in a line inside functions; percent of lines over 100 characters; both over the library
CELLS = 80
MACHINE_PATH = re.compile(r'(?<![\w.:/-])/(?:home|root|tmp|work|Users|mnt|opt|private|srv|var|usr)/\w'
                          r'|site-packages/|[A-Z]:\\\\?Users')
RAN_AS = re.compile(r'/(?:home|root|work|Users)/\w')  # the paths that no source may name


# What the rules read

def notebooks(root): return sorted((root/'nbs').glob('*.ipynb'))


def prose(root): return sorted((root/'nbs').glob('*.md'))


def chapters(root): return [p for p in notebooks(root) if re.match(r'\d{3}_', p.name)]


def modules(root):
    "The modules that a number orders: those of the chapters, and the few by hand that count as one."
    ours = [p for p in (root/'llmbook').rglob('*.py') if p.name not in BY_HAND and '__pycache__' not in p.parts]
    return sorted(p for p in ours if EXERCISES not in p.relative_to(root/'llmbook').parts)


def dotted(root, path): return '.'.join(path.relative_to(root/'llmbook').with_suffix('').parts)


@cache
def _cells(text): return json.loads(text)['cells']


def cells(path): return _cells(path.read_text('utf-8'))


def code(path): return [(i, c) for i, c in enumerate(cells(path), 1) if c['cell_type'] == 'code']


def every_cell(root): return [(f'{p.name}: cell {i}', c) for p in notebooks(root) for i, c in enumerate(cells(p), 1)]


def every_code_cell(root): return [(where, c) for where, c in every_cell(root) if c['cell_type'] == 'code']


def every_text(root):
    "What is written in notebooks and in pages that are Markdown."
    cells = [(where, source(c)) for where, c in every_cell(root) if c['cell_type'] == 'markdown']
    return cells + [(p.name, p.read_text('utf-8')) for p in prose(root)]


def syntax(path): return ast.parse(path.read_text('utf-8'))


def source(cell): return ''.join(cell['source'])


def directives(cell):
    "`{'slow': '', 'fig-alt': 'a curve'}` for the `#|` lines that open a cell."
    lines = [line for line in source(cell).splitlines() if line.startswith('#|')]
    return {m[1]: m[2].strip().strip('"\'') for line in lines if (m := re.match(r'#\|\s*([\w-]+):?\s*(.*)', line))}


def skipped(cell): return bool({'slow', 'gpu'} & directives(cell).keys()) or directives(cell).get('eval') == 'false'


def tree(cell):
    "The syntax tree of a cell; lines for IPython (`%`, `!`) stand in it as `...`."
    return ast.parse(re.sub(r'^(\s*)(?:%|!).*$', r'\1...', source(cell), flags=re.M))


def default_exp(path):
    "Every module that a notebook names as its own, by a directive or in its metadata."
    meta = json.loads(path.read_text('utf-8'))['metadata'].get('nbdev', {}).get('default_exp')
    return ([meta] if meta else []) + [d for _, c in code(path) if (d := directives(c).get('default_exp'))]


def exports(path):
    "The cells that a notebook exports."
    return [(i, c) for i, c in code(path) if {'export', 'exports', 'exporti', 'exportd'} & directives(c).keys()]


def expected_module(stem):
    "The module that a chapter's name asks for; None where a chapter exports nothing."
    number, name = stem.split('_', 1)
    if stem in TOP: return TOP[stem]
    part = 5 if 490 <= int(number) < 500 else int(number[0])  # the last tens before 500 prepare part 5
    return f'{PARTS[part]}.{name}' if part in PARTS else None


def number(path): return int(path.name[:3])


def numbers_of(root): return EARLY | {m: number(p) for p in chapters(root) if (m := expected_module(p.stem))}


def imported(body, package):
    "Line and dotted name of each import of our own modules, wherever it stands. `package` resolves leading dots."
    for node in ast.walk(body):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package)-node.level+1] if node.level else []
            stem = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{stem}.{a.name}' for a in node.names]
        else: continue
        ours = [n.removeprefix('llmbook.') for n in names if n.startswith('llmbook.')]
        yield from ((node.lineno, n) for n in ours if n != '__version__')


def mimes(cell): return [m for o in cell.get('outputs', []) for m in o.get('data', {})]


def shown_text(cell):
    "The text of a cell's outputs, pictures of pixels left out."
    for o in cell.get('outputs', []):
        yield from (''.join(o.get('text', '')), '\n'.join(o.get('traceback', [])))
        for mime, data in o.get('data', {}).items():
            if not mime.startswith('image/') or 'svg' in mime: yield data if isinstance(data, str) else json.dumps(data)


def run(root, *command):
    "Run a command in a copy of the house, with the tools beside this Python."
    env = os.environ | dict(PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', PYTHONUTF8='1')
    env.pop('IN_TEST', None)
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f'{" ".join(map(str, command))}: {done.stderr[-2000:]}'
    return done.stdout


def copy_house(root, to):
    "Copy what nbdev and the rules read, without builds and runs."
    to.mkdir(exist_ok=True)
    for name in ('pyproject.toml', 'settings.ini', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'Makefile',
                 '_quarto.yml'):
        if (root/name).exists(): shutil.copy(root/name, to/name)
    built = shutil.ignore_patterns('__pycache__', '.*', '_proc', 'nbdev.yml')
    for name in ('nbs', 'llmbook', 'tests', 'benchmarks'):
        if (root/name).exists(): shutil.copytree(root/name, to/name, symlinks=True, ignore=built)
    return to


def changed(root, copy, folder, pattern):
    "Files that differ between the house and a copy in which a tool has run."
    def files(top): return {p.relative_to(top) for p in (top/folder).rglob(pattern) if '__pycache__' not in p.parts}
    def content(p): return p.read_bytes() if p.exists() else None
    return [str(p) for p in sorted(files(root) | files(copy)) if content(root/p) != content(copy/p)]


# The rules

def one_notebook_one_module(root, tmp):
    bad, seen = [], {}
    for p in notebooks(root):
        if p.stem not in PAGES and not re.fullmatch(r'\d{3}_[a-z][a-z0-9_]*', p.stem):
            bad.append(f'{p.name}: a chapter is named NNN_name.ipynb')
            continue
        own, out = default_exp(p), exports(p)
        if len(own) > 1: bad.append(f'{p.name}: {len(own)} default_exp')
        if out and not own: bad.append(f'{p.name}: exports, but has no default_exp')
        if own and not out: bad.append(f'{p.name}: default_exp {own[0]}, but exports nothing')
        for i, c in out:
            if to := [v for k, v in directives(c).items() if k.startswith('export') and v and v not in own]:
                bad.append(f'{p.name}: cell {i} exports into another module, {to[0]}')
        for name in own:
            if name in seen: bad.append(f'{p.name}: {name} is also the module of {seen[name]}')
            seen[name] = p.name
    return bad


def part_folder_matches_number(root, tmp):
    bad = []
    for p in notebooks(root):
        want = expected_module(p.stem) if re.match(r'\d{3}_', p.name) else None
        if default_exp(p) != ([want] if want else []): bad.append(f'{p.name}: exports {default_exp(p)}, not {want}')
    return bad


def no_stale_module(root, tmp):
    claimed = {name for p in notebooks(root) for name in default_exp(p)}
    there = {dotted(root, p) for p in modules(root)} - EARLY.keys()
    stale = [f'llmbook: {n} comes from no notebook' for n in sorted(there - claimed)]
    return stale + [f'llmbook: {n} was not exported' for n in sorted(claimed - there)]


def packages_are_bare(root, tmp):
    "Every folder is a package, and importing one imports nothing."
    folders = {p.parent for p in (root/'llmbook').rglob('*.py')}
    bad = [f'{f.relative_to(root)}: no __init__.py' for f in sorted(folders) if not (f/'__init__.py').exists()]
    for p in sorted((root/'llmbook').rglob('__init__.py')):
        if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(syntax(p))):
            bad.append(f'{p.relative_to(root)}: imports something')
    return bad


def imports_only_smaller_numbers(root, tmp):
    "Modules import from earlier chapters alone. So do lesson cells, which may import their own chapter's module too."
    bad, numbers = [], numbers_of(root)

    def check(where, own, body, package, itself, page=''):
        for line, name in imported(body, package):
            parts = name.split('.')
            if parts[:2] == [EXERCISES, page]: continue  # what its own checks and its exercises share
            target = next((n for n in ('.'.join(parts[:2]), parts[0]) if n in numbers), None)
            if target is None: bad.append(f'{where}:{line}: no chapter exports llmbook.{name}')
            elif numbers[target] > own or numbers[target] == own and not itself:
                bad.append(f'{where}:{line}: chapter {own:03} imports {target}, of chapter {numbers[target]:03}')
    for p in modules(root):
        name, package = dotted(root, p), p.relative_to(root).parent.parts
        if name in numbers: check(p.relative_to(root), numbers[name], syntax(p), package, itself=False)
    for p in chapters(root):
        if p.stem[4:] in MACHINERY: continue
        for i, c in code(p): check(f'{p.name}: cell {i}', number(p), tree(c), [], itself=True, page=p.stem[4:])
    return bad


def imports_are_relative(root, tmp):
    "nbdev makes `from llmbook.x import y` relative, unless it goes over several lines."
    bad = []
    for p in modules(root):
        for n in ast.walk(syntax(p)):
            if isinstance(n, ast.ImportFrom) and not n.level and (n.module or '').split('.')[0] == 'llmbook':
                bad.append(f'{p.relative_to(root)}: line {n.lineno} imports from {n.module}; give each line an import of its own')
    return bad


def modules_are_small(root, tmp):
    "Lines of definitions: no blank ones, no imports, no `__all__`, no markers of cells. One that grows past this is two."
    bad = []
    for p in modules(root):
        text, skip = p.read_text('utf-8'), set()
        for n in syntax(p).body:
            listed = isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__'
            if listed or isinstance(n, (ast.Import, ast.ImportFrom)): skip |= set(range(n.lineno, n.end_lineno + 1))
        lines = [line for i, line in enumerate(text.splitlines(), 1) if line.strip() and i not in skip]
        n = sum(not line.startswith(('# %%', '# AUTOGENERATED')) for line in lines)
        most = WIDER.get(dotted(root, p), LINES)
        if n > most: bad.append(f'{p.relative_to(root)}: {n} lines of definitions, over {most}')
    return bad


def plain_lines(text):
    "Of a module: tokens and lines inside functions (no signature, docstring or comment), long lines and lines in all."
    inside = set()
    for n in ast.walk(ast.parse(text)):
        if not isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): continue
        body = n.body[1:] if ast.get_docstring(n) else n.body
        if body: inside |= set(range(body[0].lineno, n.end_lineno + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    rows = [t.start[0] for t in tokens if t.type not in silent and t.start[0] in inside]
    lines = [line for line in text.splitlines() if line.strip()]
    return len(rows), len(set(rows)), sum(len(line) > 100 for line in lines), len(lines)


def lines_are_plain(root, tmp):
    "Over the whole library; a single module may have a reason."
    texts = [p.read_text('utf-8') for p in (root/'llmbook').rglob('*.py') if p.name not in ('__init__.py', '_modidx.py')]
    tokens, busy, wide, lines = map(sum, zip(*map(plain_lines, texts)))
    bad = [f'llmbook: {tokens/busy:.1f} tokens per line, over {TOKENS}'] if tokens > TOKENS * busy else []
    return bad + ([f'llmbook: {100*wide/lines:.1f} % of lines over 100 characters, over {WIDE}'] if 100*wide > WIDE*lines else [])


def chapters_are_short(root, tmp):
    "Cells before the exercises; what is longer has two concepts."
    bad = []
    for p in chapters(root):
        every = cells(p)
        starts = [i for i, c in enumerate(every) if c['cell_type'] == 'markdown'
                  and re.search(r'^#+ .*Exercises', source(c), re.M)]
        n = starts[0] if starts else len(every)
        if n > CELLS: bad.append(f'{p.name}: {n} cells before its exercises, over {CELLS}')
    return bad


def unique_names(root, tmp):
    "The site's pages are flat, and no name is exported twice."
    bad, seen = [], {}
    pages = [(re.sub(r'^\d+_', '', p.stem), p.name) for p in notebooks(root) + prose(root)]
    numbers = [(number(p), p.name) for p in chapters(root)]
    public = []
    for p in modules(root):
        names = [ast.literal_eval(n.value) for n in syntax(p).body
                 if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__']
        public += [(name, dotted(root, p)) for name in sum(names, [])]
    for what, pairs in (('page', pages), ('number', numbers), ('exported name', public)):
        for name, where in pairs:
            if (what, name) in seen: bad.append(f'{where}: the {what} {name} is taken by {seen[what, name]}')
            seen.setdefault((what, name), where)
    return bad


def import_cells_hold_imports_only(root, tmp):
    "A docs build runs every cell with an import: nothing else may stand there. Exported functions may import late."
    def is_import(n): return isinstance(n, (ast.Import, ast.ImportFrom))
    def is_late(n): return isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    bad = []
    for where, c in every_code_cell(root):
        body, flags = tree(c).body, directives(c)
        exported = {'export', 'exports'} & flags.keys()
        holds = any(is_import(x) for n in body if not (exported and is_late(n)) for x in ast.walk(n))
        if holds and not all(map(is_import, body)) and flags.get('eval') != 'false':
            bad.append(f'{where} holds imports and other code')
    return bad


def no_banned_module_name(root, tmp):
    "`deepspeed llmbook/cli.py` puts llmbook/ first on sys.path: no module may hide another package."
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(root/'settings.ini', encoding='utf-8')
    wanted = (ini['package']['requirements'] + ''.join(ini['extras'].values())).split()
    banned = {re.split(r'[<>=!~\[]', line)[0].replace('-', '_').lower() for line in wanted}
    banned |= sys.stdlib_module_names | set(packages_distributions()) - {'llmbook'}
    paths = [p for p in sorted((root/'llmbook').rglob('*')) if p.is_dir() or p.suffix == '.py']
    return [f'{p.relative_to(root)}: hides another package' for p in paths if p.stem in banned and p.stem[:2] != '__']


def no_star_import(root, tmp):
    texts = [(p.relative_to(root), syntax(p)) for top in ('llmbook', 'tests') for p in sorted((root/top).rglob('*.py'))]
    texts += [(where, tree(c)) for where, c in every_code_cell(root)]
    return [f'{where}: from {n.module} import *' for where, body in texts for n in ast.walk(body)
            if isinstance(n, ast.ImportFrom) and n.names[0].name == '*']


def undocumented(text):
    "What a module's public functions and classes lack: a docstring, a docment for every parameter."
    tokens, lines = tokenize.generate_tokens(io.StringIO(text).readline), text.splitlines()
    comments = {t.start[0]: t.start[1] for t in tokens if t.type == tokenize.COMMENT}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    def public(nodes): return [n for n in nodes if isinstance(n, kinds) and not n.name.startswith('_')]

    def parameters(fn, name):
        a = fn.args
        every = [x for x in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if x]
        every = [x for x in every if x.arg not in ('self', 'cls')]
        for x in every:
            alone = sum(y.lineno == x.lineno for y in every) == 1 and x.lineno < fn.body[0].lineno
            above = x.lineno > fn.lineno and lines[x.lineno-2].strip().startswith('#')
            behind = comments.get(x.lineno, -1) > x.col_offset
            if not (alone and (behind or above)): yield f'{name}: no docment for {x.arg}'

    for n in public(ast.parse(text).body):
        if not ast.get_docstring(n): yield f'{n.name}: no docstring'
        if isinstance(n, ast.ClassDef):
            for m in n.body:
                if isinstance(m, ast.FunctionDef) and m.name == '__init__': yield from parameters(m, n.name)
            own = [] if n.bases else public(n.body)  # what a parent declares is documented there
            yield from (f'{n.name}.{m.name}: no docstring' for m in own if not ast.get_docstring(m))
        else: yield from parameters(n, n.name)


def public_names_are_documented(root, tmp):
    return [f'{p.relative_to(root)}: {what}' for p in modules(root) for what in undocumented(p.read_text('utf-8'))]


def executed_in_order(root, tmp):
    """Counts run 1..n, or are blank throughout, as `nbdev-clean` leaves them; a cell that must show something shows it;
    none shows an error."""
    values = (ast.BinOp, ast.Compare, ast.Tuple, ast.List, ast.ListComp, ast.Dict, ast.DictComp, ast.JoinedStr)
    def prints(n):
        return isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and getattr(n.value.func, 'id', '') == 'print'
    bad = []
    for p in notebooks(root):
        live = [(i, c) for i, c in code(p) if source(c).strip() and not skipped(c)]
        counts = [c.get('execution_count') for _, c in live]
        if any(counts) and counts != list(range(1, len(live)+1)): bad.append(f'{p.name}: not run from top to bottom')
        for i, c in live:
            body, outputs = tree(c).body, c.get('outputs', [])
            shows = body and isinstance(body[-1], ast.Expr) and isinstance(body[-1].value, values)
            shows = shows and not source(c).rstrip().endswith(';')
            if (shows or any(map(prints, body))) and not outputs: bad.append(f'{p.name}: cell {i} has no output')
            if any(o['output_type'] == 'error' for o in outputs): bad.append(f'{p.name}: cell {i} ended in an error')
    return bad


def outputs_are_small(root, tmp):
    sizes = {p: sum(len(json.dumps(c.get('outputs', []))) for _, c in code(p)) / 1024 for p in notebooks(root)}
    return [f'{p.name}: {kb:.0f} KB of outputs, over {OUTPUT_KB}' for p, kb in sizes.items() if kb > OUTPUT_KB]


def no_javascript(root, tmp):
    script = re.compile(r'<script|\bon(?:click|load|error|mouse\w+)\s*=|javascript:', re.I)
    bad = [where for where, c in every_code_cell(root) if any('javascript' in m or 'widget' in m for m in mimes(c))]
    bad += [where for where, c in every_code_cell(root) if script.search(' '.join(shown_text(c)))]
    return [f'{where} has JavaScript in an output' for where in bad]


def no_machine_path(root, tmp):
    shown = [(where, m[0]) for where, c in every_code_cell(root) for t in shown_text(c)
             if (m := MACHINE_PATH.search(t))]
    named = [(where, m[0]) for where, c in every_cell(root) if (m := RAN_AS.search(source(c)))]
    return [f'{where} shows {m}' for where, m in shown] + [f'{where} names {m}' for where, m in named]


def pictures_have_alt_text(root, tmp):
    plots = [where for where, c in every_code_cell(root)
             if any(m.startswith('image/') for m in mimes(c)) and not directives(c).get('fig-alt')]
    prose = [where for where, text in every_text(root) if re.search(r'!\[\s*\]\(', text)]
    return [f'{where} has a picture without alt text' for where in plots + prose]


def exercises_have_checks(root, tmp):
    "Every exercise of a chapter has a check, every check an exercise, and an id is the chapter's name and a number."
    bad, folder, names = [], root/'llmbook'/EXERCISES, set()
    tour = [p for p in notebooks(root) if p.stem == 'start']
    for p in chapters(root) + tour:
        name = re.sub(r'^[0-9]+_', '', p.stem)
        names.add(name)
        asked = {m[1] for _, c in code(p) for m in re.finditer(r"\bgrade\('([^']*)'", source(c))}
        path = folder/f'{name}.py'
        body = syntax(path).body if path.exists() else []
        checks = {n.name for n in body if isinstance(n, ast.FunctionDef)}
        there = {f'{name}.{n.removeprefix("check_")}' for n in checks if re.fullmatch(r'check_[0-9]+', n)}
        own = {i for i in asked if i.startswith(f'{name}.')}
        bad += [f'{p.name}: grades {i}, which is no exercise of this chapter' for i in sorted(asked - own)]
        bad += [f'{p.name}: no check for the exercise {i}' for i in sorted(own - there)]
        bad += [f'{EXERCISES}/{name}.py: {i} is no exercise of the chapter' for i in sorted(there - own)]
    stale = [p.name for p in sorted(folder.glob('*.py')) if p.stem not in names | {'__init__'}]
    return bad + [f'{EXERCISES}/{n}: there is no such chapter' for n in stale]


def solutions_are_folded(root, tmp):
    "A solution is out of sight, in JupyterLab and on the site, and what is seen of it says what it is."
    def folded(c):
        d = directives(c)
        return d.get('code-fold') == 'true' and c['metadata'].get('jupyter', {}).get('source_hidden')
    solutions = [(where, c) for where, c in every_code_cell(root) if re.search(r'^assert grade\(', source(c), re.M)]
    bad = [f'{where}: a solution in sight' for where, c in solutions if not folded(c)]
    return bad + [f'{where}: the first line of a solution is "#| code-summary: Solution"' for where, c in solutions
                  if not source(c).startswith('#| code-summary: Solution\n')]


def links_lead_somewhere(root, tmp):
    link = re.compile(r'\]\(([^)#\s:]+)[^):]*\)')
    return [f'{where} links to {to}' for where, text in every_text(root) for to in link.findall(text)
            if not (root/'nbs'/to).exists()]


def sidebar_lists_every_page(root, tmp):
    def names(node):
        if isinstance(node, list): return sum(map(names, node), [])
        return [node] if isinstance(node, str) else names(node.get('href', [])) + names(node.get('contents', []))
    site = yaml.safe_load((root/'_quarto.yml').read_text('utf-8'))['website']
    listed, there = names(site['sidebar']['contents']), [p.name for p in notebooks(root) + prose(root)]
    there = [name for name in there if name != '404.md'] # nobody looks for it
    bad = [f'_quarto.yml: {n} is not in nbs/' for n in sorted(set(listed) - set(there))]
    bad += [f'_quarto.yml: {n} is not in the sidebar' for n in sorted(set(there) - set(listed))]
    bad += [f'_quarto.yml: {n} is listed twice' for n in sorted({n for n in listed if listed.count(n) > 1})]
    link = root/'nbs/_quarto.yml'
    linked = link.is_symlink() and os.readlink(link) == '../_quarto.yml'
    return bad if linked else [*bad, 'nbs/_quarto.yml: not a link to ../_quarto.yml']


def nothing_unsafe(root, tmp):
    "No pickle, no code from the Hub; and no `@patch`, which breaks go-to-definition."
    def unsafe(call):
        name, keys = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name in ('yaml.load', 'pickle.load', 'pickle.loads'): return True
        if keys.get('trust_remote_code', 'False') != 'False': return True
        return keys.get('weights_only', 'False' if name == 'torch.load' else 'True') != 'True'
    bad = []
    for p in sorted((root/'llmbook').rglob('*.py')):
        for n in ast.walk(syntax(p)):
            if isinstance(n, ast.Call) and unsafe(n): bad.append(f'{p.relative_to(root)}: {ast.unparse(n)[:60]}')
            patches = [d for d in getattr(n, 'decorator_list', []) if ast.unparse(d).startswith('patch')]
            if patches: bad.append(f'{p.relative_to(root)}: @patch on {n.name}')
    return bad


def code_in_sync(root, tmp):
    "Exporting again changes no byte of the library."
    copy = copy_house(root, tmp)
    run(copy, 'nbdev-export')
    return [f'{p}: not what the notebooks export' for p in changed(root, copy, 'llmbook', '*.py')]


def notebooks_are_clean(root, tmp):
    "Cleaning again changes no byte of a notebook."
    copy = copy_house(root, tmp)
    run(copy, 'nbdev-clean')
    return [f'{p}: not as nbdev-clean leaves it' for p in changed(root, copy, 'nbs', '*.ipynb')]


def readme_in_sync(root, tmp):
    made = run(root, 'make', '--silent', '--no-print-directory', 'readme-text', f'VENV={sys.prefix}')
    return [] if made == (root/'README.md').read_text('utf-8') else ['README.md: not what `make readme` writes']


RULES = [
    one_notebook_one_module, part_folder_matches_number, no_stale_module, packages_are_bare,
    imports_only_smaller_numbers, imports_are_relative, modules_are_small, lines_are_plain, chapters_are_short, unique_names,
    import_cells_hold_imports_only, no_banned_module_name, no_star_import, public_names_are_documented,
    executed_in_order, outputs_are_small, no_javascript, no_machine_path, pictures_have_alt_text,
    exercises_have_checks, solutions_are_folded, links_lead_somewhere, sidebar_lists_every_page, nothing_unsafe,
    code_in_sync, notebooks_are_clean, readme_in_sync]


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_rule(rule, tmp_path): assert not (bad := rule(ROOT, tmp_path)), '\n'.join(['', *bad])
