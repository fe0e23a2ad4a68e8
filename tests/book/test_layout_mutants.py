"Every rule of `test_layout.py` is seen to fail: one thing is broken in a copy of the house, and the rule complains."
import json
from functools import cache

import pytest
import test_layout as house
from test_layout import ROOT

FIRST, SECOND = 'nbs/000_core.ipynb', 'nbs/130_attention.ipynb'
MODULE, CHECKS = 'llmbook/model/attention.py', 'llmbook/exercises/attention.py'


def edit(path, old, new):
    text = path.read_text('utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), 'utf-8')


def notebook(path, change):
    "Rewrite a notebook after `change(cells)`."
    nb = json.loads(path.read_text('utf-8'))
    change(nb['cells'])
    path.write_text(json.dumps(nb, ensure_ascii=False, indent=1) + '\n', 'utf-8')


def cell(text, outputs=(), **more):
    whole = dict(cell_type='code', source=text.splitlines(True), outputs=list(outputs), metadata={}, id='mutant')
    return whole | dict(execution_count=None) | more


def add(text, outputs=(), to=SECOND, **more):
    "The mutation that appends a cell to a notebook."
    return lambda root: notebook(root/to, lambda cells: cells.append(cell(text, outputs, **more)))


def prose(text): return add(text, cell_type='markdown')


def shown(mime, data): return [dict(output_type='display_data', data={mime: data}, metadata={})]


def printed(text): return [dict(output_type='stream', name='stdout', text=[text])]


def count_backwards(root):
    def change(cells):
        live = [c for c in cells if c['cell_type'] == 'code']
        for n, c in enumerate(live): c['execution_count'] = len(live) - n
    notebook(root/SECOND, change)


def drop_outputs(root):
    def change(cells):
        for c in cells:
            if c['cell_type'] == 'code': c['outputs'] = []
    notebook(root/SECOND, change)


def lengthen(root):
    def change(cells): cells[5:5] = [cell('x')] * 80
    notebook(root/SECOND, change)


def append(path, text):
    "The mutation that appends to a file, which may be new."
    def change(root):
        (root/path).parent.mkdir(parents=True, exist_ok=True)
        with open(root/path, 'a', encoding='utf-8') as f: f.write(text)
    return change


def replace(path, old, new): return lambda root: edit(root/path, old, new)


def copy(old, new): return lambda root: (root/new).write_bytes((root/old).read_bytes())


def rename(old, new): return lambda root: (root/old).rename(root/new)


def replace_link(root):
    (root/'nbs/_quarto.yml').unlink()
    (root/'nbs/_quarto.yml').write_text('project: {type: website}\n')


ACT = '\nclass Public:\n    "What."\n    def act(self): pass\n'
INIT = ACT.replace('act(self)', '__init__(self, x)')
PUBLIC = 'def public(\n    x, # a number\n    y, # another\n):\n    "What it does."\n'
AHEAD = '\nfrom ..train.loop import fit\n'
SOLUTION = "#| code-summary: Solution\nassert grade('attention.1', 5)"
EXP = '"#| default_exp model.attention'
MUTANTS = [
    ('one_notebook_one_module', 'two notebooks, one module', replace(FIRST, '"#| default_exp core', EXP)),
    ('one_notebook_one_module', 'two modules, one notebook', add('#| default_exp model.other')),
    ('one_notebook_one_module', 'a cell exported elsewhere', add('#| export model.other\nx = 1')),
    ('one_notebook_one_module', 'a notebook without a number', rename(SECOND, 'nbs/attention.ipynb')),
    ('one_notebook_one_module', 'a number of two digits', rename(SECOND, 'nbs/13_attention.ipynb')),
    ('part_folder_matches_number', 'another part', replace(SECOND, EXP, '"#| default_exp train.attention')),
    ('part_folder_matches_number', 'a module of another name', rename(SECOND, 'nbs/130_attend.ipynb')),
    ('no_stale_module', 'a notebook is gone', lambda root: (root/SECOND).unlink()),
    ('no_stale_module', 'a module is gone', lambda root: (root/MODULE).unlink()),
    ('packages_are_bare', 'a part that imports', append('llmbook/model/__init__.py', 'from . import attention\n')),
    ('packages_are_bare', 'a part without __init__.py', append('llmbook/other/name.py', '')),
    ('imports_only_smaller_numbers', 'a relative import of a later chapter', append(MODULE, AHEAD)),
    ('imports_only_smaller_numbers', 'a late import', append(MODULE, '\ndef _f():\n    import llmbook.book\n')),
    ('imports_only_smaller_numbers', 'an import of itself', append(MODULE, '\nfrom .attention import attend\n')),
    ('imports_only_smaller_numbers', 'a lesson that looks ahead', add('from llmbook.book import run')),
    ('imports_only_smaller_numbers', "another chapter's checks", add('from llmbook.exercises.loop import check_1')),
    ('imports_are_relative', 'an import over two lines', append(MODULE, '\nfrom llmbook.core import (UserError,\n    seed_of)')),
    ('modules_are_small', 'a module that grew', append(MODULE, '\n_x = 1' * 250)),
    ('lines_are_plain', 'dense lines', append(
        MODULE, '\n\ndef _f(x):' + '\n    x = [(y, y, y) for y in x if (y, y, y)], (x, x)' * 2500)),
    ('lines_are_plain', 'long lines', append(MODULE, '\n# ' + '\n# '.join(['x' * 100] * 900))),
    ('chapters_are_short', 'a chapter that grew', lengthen),
    ('unique_names', 'two chapters, one page', copy(SECOND, 'nbs/950_attention.ipynb')),
    ('unique_names', 'a chapter and a page of prose', append('nbs/attention.md', 'x')),
    ('unique_names', 'two chapters, one number', copy(SECOND, 'nbs/130_another.ipynb')),
    ('unique_names', 'a name exported twice', append('llmbook/text/other.py', "__all__ = ['attend']\n")),
    ('import_cells_hold_imports_only', 'an import beside code', add('import math\nmath.pi')),
    ('import_cells_hold_imports_only', 'an import inside a demo', add('def demo():\n    import math')),
    ('import_cells_hold_imports_only', 'an exported one beside code', add('#| export\nimport math\nTAU = 2 * math.pi')),
    ('no_banned_module_name', 'the standard library', append('llmbook/text/token.py', '')),
    ('no_banned_module_name', 'a dependency', append('llmbook/text/tokenizers.py', '')),
    ('no_banned_module_name', 'an extra', append('llmbook/flash_attn/name.py', '')),
    ('no_star_import', 'in a module', append(MODULE, '\nfrom math import *\n')),
    ('no_star_import', 'in a notebook', add('from math import *')),
    ('public_names_are_documented', 'no docstring', append(MODULE, '\ndef public(): pass\n')),
    ('public_names_are_documented', 'no docment', append(MODULE, PUBLIC.replace(' # another', ''))),
    ('public_names_are_documented', 'two a line', append(MODULE, PUBLIC.replace(', # a number\n    y', ', y'))),
    ('public_names_are_documented', 'a class', append(MODULE, INIT)),
    ('public_names_are_documented', 'a method', append(MODULE, ACT)),
    ('executed_in_order', 'counts run backwards', count_backwards),
    ('executed_in_order', 'never run', drop_outputs),
    ('executed_in_order', 'an error', add('1/0', [dict(output_type='error', ename='E', evalue='', traceback=[])])),
    ('outputs_are_small', 'much too much', add('x', printed('x' * 301 * 1024))),
    ('no_javascript', 'its own type', add('x', shown('application/javascript', 'alert(1)'))),
    ('no_javascript', 'inside HTML', add('x', shown('text/html', '<p><script>alert(1)</script>'))),
    ('no_javascript', 'a widget', add('x', shown('application/vnd.jupyter.widget-view+json', {}))),
    ('no_machine_path', 'in an output', add('x', printed('read /home/me/text.txt'))),
    ('no_machine_path', 'in a tuple of paths', add('x', shown('text/plain', "(PosixPath('/tmp/x'),)"))),
    ('no_machine_path', 'in a source', add('open("/root/text.txt")')),
    ('pictures_have_alt_text', 'a plot', add('#| fig-cap: "A curve"\nx', shown('image/png', 'iVBORw0KGgo='))),
    ('pictures_have_alt_text', 'in prose', prose('![](curve.svg)')),
    ('pictures_have_alt_text', 'on a page of prose', append('nbs/install.md', '\n![](curve.svg)\n')),
    ('exercises_have_checks', 'an exercise without a check', add("grade('attention.9', 1)")),
    ('exercises_have_checks', 'an exercise of another chapter', add("grade('loop.1', 1)")),
    ('exercises_have_checks', 'an id of the old form', add("grade('13.1', 1)")),
    ('exercises_have_checks', 'a check without an exercise', append(CHECKS, '\ndef check_9(answer): pass\n')),
    ('exercises_have_checks', 'checks of no chapter', append('llmbook/exercises/moon.py', '')),
    ('solutions_are_folded', 'for all to see', add(SOLUTION)),
    ('solutions_are_folded', 'folded on the site alone', add(SOLUTION.replace('\n', '\n#| code-fold: true\n', 1))),
    ('solutions_are_folded', 'without a name', replace(SECOND, '    "#| code-summary: Solution\\n",\n', '')),
    ('links_lead_somewhere', 'a chapter that is not there', prose('See [the moon](990_moon.ipynb#craters).')),
    ('links_lead_somewhere', 'on a page of prose', append('nbs/install.md', '\nSee [the moon](moon.md).\n')),
    ('sidebar_lists_every_page', 'an unlisted page of prose', append('nbs/moon.md', 'x')),
    ('sidebar_lists_every_page', 'an unlisted one', copy(SECOND, 'nbs/990_moon.ipynb')),
    ('sidebar_lists_every_page', 'a listed one is gone', lambda root: (root/SECOND).unlink()),
    ('sidebar_lists_every_page', 'no link', replace_link),
    ('nothing_unsafe', 'pickle', append(MODULE, '\n_x = torch.load("x", weights_only=False)\n')),
    ('nothing_unsafe', 'code from the Hub', append(MODULE, '\n_x = load("x", trust_remote_code=True)\n')),
    ('nothing_unsafe', '@patch', append(MODULE, '\n@patch\ndef _f(self:int): pass\n')),
    ('code_in_sync', 'a module edited by hand', append(MODULE, '\nx = 1\n')),
    ('notebooks_are_clean', 'a cell with more metadata', add('x', metadata=dict(scrolled=True))),
    ('readme_in_sync', 'README.md edited by hand', append('README.md', '\nMore.\n')),
]


def test_every_rule_has_a_mutant(): assert {name for name, *_ in MUTANTS} == {rule.__name__ for rule in house.RULES}


@pytest.fixture(scope='module')
def untouched(tmp_path_factory):
    "What each rule says about the house as it is, asked once."
    root = house.copy_house(ROOT, tmp_path_factory.mktemp('untouched')/'house')

    @cache
    def complaints(name): return set(getattr(house, name)(root, tmp_path_factory.mktemp('before')))
    return complaints


@pytest.mark.slow
@pytest.mark.parametrize('name, what, mutate', MUTANTS, ids=[f'{name}: {what}' for name, what, _ in MUTANTS])
def test_mutant_is_caught(name, what, mutate, untouched, tmp_path):
    root = house.copy_house(ROOT, tmp_path/'house')
    mutate(root)
    (tmp_path/'after').mkdir()
    assert set(getattr(house, name)(root, tmp_path/'after')) - untouched(name)
