"The report: text from outside stays text, both pages carry the same figures, the same folder gives the same bytes."
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmbook.core import UserError
from llmbook.evaluation.report import _in_order, report
from llmbook.train.curves import loss_points
from llmbook.train.runs import read_log
from llmbook.files import write_json, write_jsonl
from test_page import Page

HOSTILE = 'Long ago <script>alert(1)</script> | "a" \'b\' <img src=x onerror=alert(1)>\n```\n# heading\n````\n&lt; $x_1$ \u202e é'


@pytest.fixture
def run(tmp_path):
    folder = tmp_path/'run'
    write_json(folder/'config.json', dict(command='pretrain', args={'steps': 40, 'lr': 0.003, 'out': HOSTILE, 'model': None},
                                          device='a <laptop>', commit='0123abcd', versions={'torch': '2.13'}))
    log = [dict(step=s, loss=1 + 5/s, tokens=100*s, tokens_per_s=1000 + s, mfu=0.5) for s in range(1, 41)]
    write_jsonl(folder/'log.jsonl', [*log, dict(step=40, val_loss=1.2, rung='uniform, unigram')])
    costs = (('uniform', 6.931, 0), ('unigram by kind', 1.259, 0.004), ('model', 0.912, 0.007), ('exact floor', 0.579, 0.003),
             ('$odd | <b>', 3.217, 0.001))
    world = dict(ladder=[dict(name=n, nats=v, error=e) for n, v, e in costs], documents=500, tokens=58328, gap_closed=0.512,
                 above_floor=0.333, above_floor_error=0.009, under_floor=False)
    real = dict(bits_per_byte=2.345, bits_per_byte_error=0.043, nats_per_byte=1.625, nats_per_token=4.321, bytes=98389)
    write_json(folder/'results.json', {'tasks': {'world': world, 'py | doc': real}})
    write_json(folder/'samples.json', [{'prompt': HOSTILE, 'text': HOSTILE, 'truth': HOSTILE}])
    return folder


def pages(run, name='report.html'):
    page = report([str(run)], str(run.parent/name))
    return page.read_text(), page.with_suffix('.md').read_text()


def test_the_page_is_balanced_and_fetches_nothing(run):
    text, _ = pages(run)
    page = Page(text)
    assert not {'script', 'img', 'link', 'iframe', 'object'} & page.tags and {'svg', 'table', 'figure'} <= page.tags
    assert not [k for k, _ in page.attributes if k.startswith('on')]
    assert all(v.startswith('#') for k, v in page.attributes if k in ('src', 'href', 'xlink:href', 'srcset', 'data'))
    assert not re.search(r'(?:src|href)\s*=\s*["\']?\s*(?:https?:|//)|url\((?!#)|@import', text)
    ids = [v for k, v in page.attributes if k == 'id']
    assert len(ids) == len(set(ids)) and 'prefers-color-scheme:dark' in text
    assert text.count('<svg ') == text.count('<svg role="img" aria-label="') == 2


def test_hostile_text_is_shown_as_text(run):
    text, md = pages(run)
    assert html.escape(HOSTILE) in text and HOSTILE in ''.join(Page(text).text)
    assert '`'*5 + '\n' + HOSTILE + '\n' + '`'*5 in md
    outside = re.sub(r'(?s)(`{3,})\n.*?\n\1|<!-- written by llmbook report: report.html -->', '', md)
    assert not re.search(r'(?<!\\)<', outside) and 'py \\| doc' in outside
    for line in outside.splitlines():
        if line.startswith('| '): assert len(re.findall(r'(?<!\\)\|', line)) in (3, 4, 5, 6)


def test_figures_are_those_of_the_results(run):
    text, md = pages(run)
    md = md.replace('\\', '')
    tasks = json.loads((run/'results.json').read_text())['tasks']
    digits = [f"{r[k]:.3f}" for r in tasks['world']['ladder'] for k in ('nats', 'error')]
    digits += ['58,328', '0.333 ± 0.009', '51%', '2.345 ± 0.043', '1.625', '4.321', '98,389', '4,000', '1,021', '0123abcd']
    assert all(d in text and d in md for d in digits), [d for d in digits if d not in text or d not in md]
    assert all(s in md for s in ('uniform, unigram', 'lr = 0.003', 'a <laptop>'))


def test_same_folder_same_bytes(run):
    first = pages(run)
    pictures = [p.read_bytes() for p in sorted(run.parent.glob('report-*.svg'))]
    assert first == pages(run) and len(pictures) == 2
    assert pictures == [p.read_bytes() for p in sorted(run.parent.glob('report-*.svg'))]


def test_another_process_writes_the_same_bytes(run):
    first = pages(run)
    code = "import sys; from llmbook.evaluation.report import report; report([sys.argv[1]], sys.argv[2])"
    out = run.parent/'other'/'report.html'
    subprocess.run([sys.executable, '-c', code, run, out], env=os.environ | {'PYTHONHASHSEED': '1'}, check=True)
    assert (out.read_text(), out.with_suffix('.md').read_text()) == first


def test_two_reports_in_one_folder(run):
    first = pages(run)[1]
    pictures = {p.name: p.read_bytes() for p in run.parent.glob('report-*.svg')}
    write_jsonl(run/'log.jsonl', [dict(step=1, loss=9., tokens=100, tokens_per_s=100)])
    other = pages(run, 'sweep.html')[1]
    assert 'sweep-1.svg' in other and 'sweep' not in first
    assert pictures == {p.name: p.read_bytes() for p in run.parent.glob('report-*.svg')}


def test_a_loss_that_is_not_finite_is_said(run):
    log = [dict(step=s, loss=loss, tokens=100*s, tokens_per_s=100) for s, loss in enumerate((7., 6.5, float('nan')), 1)]
    (run/'log.jsonl').write_text('\n'.join(map(json.dumps, log)) + '\n')
    assert 'last training batch 6.50, then not finite' in pages(run)[0]


def test_words_for_what_is_odd(run):
    results = json.loads((run/'results.json').read_text())
    for change, words in (({'gap_closed': -1.3}, 'has not reached the unigram by kind'),
                          ({'under_floor': True}, 'no honest model can be')):
        write_json(run/'results.json', {'tasks': {'world': results['tasks']['world'] | change}})
        text, _ = pages(run)
        assert words in text and '-130%' not in text


def test_what_the_beginning_is_worth(run):
    results = json.loads((run/'results.json').read_text())
    for gain, words in ((0.8, 'so it uses what came before'), (0.02, 'no sign that it uses what came before')):
        world = results['tasks']['world'] | dict(context_gain=gain, context_gain_error=0.01)
        write_json(run/'results.json', {'tasks': {'world': world}})
        assert words in html.unescape(pages(run)[0]) and f'{gain:.3f} ± 0.010' in pages(run)[0]


def test_the_best_sample_comes_first(run):
    good = 'One evening Mira lived in the mill. Odo was in the barn with a red bell.'
    write_json(run/'samples.json', [{'prompt': '', 'text': text, 'truth': ''} for text in ('Mira slept.', good)])
    text, _ = pages(run)
    places = [text.index(words) for words in ('What was trained', '<ul>', 'The ladder', 'Loss:', good, 'Held-out real text',
                                              'Settings:', 'All samples')]
    assert places == sorted(places)


def test_a_run_that_was_killed_or_diverged(run):
    bad = '{"step": 41, "loss": NaN, "skipped": [1], "tokens": 4100, "tokens_per_s": 900, "mfu": 0.1}'
    with open(run/'log.jsonl', 'a') as f: f.write(bad + '\n{"step": 4')
    rows = read_log(run/'log.jsonl')
    assert rows[-1]['step'] == 41 and [tokens for tokens, _ in loss_points(rows)['val_loss']] == [4000]
    text, _ = pages(run)
    assert 'steps skipped' in text
    (run/'log.jsonl').write_text('')
    with pytest.raises(UserError, match='its log is empty'): pages(run)
    shutil.rmtree(run)
    with pytest.raises(UserError, match='no such folder'): pages(run)
    run.mkdir()
    with pytest.raises(UserError, match='neither a run'): pages(run)


def test_half_a_character(run):
    (run/'samples.json').write_text('[{"prompt": "", "text": "a \\ud800 b"}]')
    assert all('a ? b' in text for text in pages(run))


# Files of others, and files that are damaged

@pytest.fixture
def undrawn(monkeypatch):
    "Drawing takes most of a report's time, and is not asked where this is used."
    from llmbook.evaluation import report as module
    monkeypatch.setattr(module, 'svg_of', lambda fig: '<svg></svg>')
    for drawing in ('figure', 'plot_curve', '_ladder_bars'): monkeypatch.setattr(module, drawing, lambda *a, **k: (None, None))


def test_nothing_that_is_no_report_is_replaced(run, undrawn):
    "Notes, a page, a picture: whatever has the name of a file of the report, and is none of it."
    for name, content in (('notes.md', '# mine'), ('notes.html', '<p>mine'), ('notes-1.svg', '<svg/>'), ('notes-2.svg', '')):
        (run.parent/name).write_text(content)
        with pytest.raises(UserError, match=f'{name}: in the way') as e: pages(run, 'notes.html')
        assert '\n' not in str(e.value) and (run.parent/name).read_text() == content
        assert sorted(p.name for p in run.parent.glob('notes*')) == [name]
        (run.parent/name).unlink()
    (run.parent/'notes.md').mkdir()
    with pytest.raises(UserError, match='a folder, not a file'): pages(run, 'notes.html')
    (run.parent/'notes.md').rmdir()
    first = pages(run, 'notes.html')
    assert pages(run, 'notes.html') == first


def test_names_follow_out(run, undrawn):
    for out, page in (('lr-0.1', 'lr-0.1.html'), ('lr-0.2', 'lr-0.2.html'), ('a.HTML', 'a.HTML'), ('b.MD', 'b.html'),
                      ('c.tar.gz', 'c.tar.gz.html')):
        stem = page.rpartition('.')[0]
        report([str(run)], str(run.parent/'out'/out))
        written = {p.name for p in (run.parent/'out').iterdir() if p.name.startswith(stem)}
        assert written == {page, f'{stem}.md', f'{stem}-1.svg', f'{stem}-2.svg'}
        assert f'({stem}-1.svg)' in (run.parent/'out'/f'{stem}.md').read_text()
    for page in ('a.html', 'x-1.html', 'x.html'): # the first would share a.md with a.HTML
        if page == 'a.html':
            with pytest.raises(UserError, match='a.md: in the way'): report([str(run)], str(run.parent/'out'/page))
        else: report([str(run)], str(run.parent/'out'/page))
    for out in ('', ' ', '.', '..', 'out/'):
        with pytest.raises(UserError, match='--out') as e: report([str(run)], out)
        assert '\n' not in str(e.value)


def test_home_and_a_file_in_the_way_of_the_folder(run, monkeypatch, undrawn):
    monkeypatch.setenv('HOME', str(run.parent))
    assert report(['~/run'], '~/deep/er/page.html') == run.parent/'deep/er/page.html'
    (run.parent/'file').touch()
    with pytest.raises(UserError, match='file is in the way'): report([str(run)], str(run.parent/'file/page.html'))
    with pytest.raises(UserError, match='--runs: empty'): report([], 'page.html')


ODD = [None, True, -1, 0, 0.5, 1e308, 10**400, '', 'x', [], [None], {}, {'a': None}, [[]], 'NaN', [{}], {'splits': {}}]
FILES = ['config.json', 'results.json', 'samples.json', 'corpus.json', 'tokens.json', 'next.json']


@pytest.fixture
def complete(run):
    "A run with every file that a report reads."
    write_json(run/'corpus.json', {'source': 'world', 'documents': 3, 'bytes': 90})
    write_json(run/'tokens.json', {'splits': {'train': {'documents': 3, 'tokens': 30, 'bytes': 90}}})
    write_json(run/'next.json', ['llmbook env'])
    return run


def broken_copies(content):
    "An object with one value after the other replaced by odd ones, or left out; the same one level deeper."
    yield from ODD
    if isinstance(content, list): yield from ([c] for c in broken_copies(content[0]))
    if not isinstance(content, dict): return
    for name in content:
        yield {k: v for k, v in content.items() if k != name}
        for odd in broken_copies(content[name]) if isinstance(content[name], (dict, list)) else ODD: yield content | {name: odd}


@pytest.mark.parametrize('name', FILES)
def test_damaged_files_are_one_line_or_left_out(complete, name, undrawn, capsys):
    path, out = complete/name, str(complete.parent/'page.html')
    content = json.loads(path.read_text())
    texts = [json.dumps(c) for c in broken_copies(content)]
    texts += ['', '{', '[' * 9000, '\ufeff[]', '{"a": 1e999}', '"\\ud800"', '\x00']
    shown = refused = 0
    for text in texts[::3]:
        path.write_text(text)
        try:
            report([str(complete)], out)
            shown += 1
        except UserError as e:
            assert '\n' not in str(e) and name in str(e) and len(str(e)) < 400, str(e)
            refused += 1
    said = capsys.readouterr().err
    if name in ('config.json', 'results.json'): assert refused
    else: assert shown and not refused and f'warning: left out of the report: {path}' in said


def test_a_damaged_log_loses_only_its_damaged_rows(complete, undrawn):
    lines = (complete/'log.jsonl').read_text().splitlines()
    odd = ['5', 'null', '[]', '{}', '{"step": "1", "loss": 2}', '{"step": 3, "loss": "x", "tokens": 4}', '{"step": 3, "loss": 2}',
           '{"step": 41, "loss": null, "nonfinite": "nan", "tokens": 4100}', '{"step": 1e400}', '{"step": -1, "val_loss": 2}']
    (complete/'log.jsonl').write_text('\n'.join([*odd[:5], *lines, *odd[5:]]) + '\n')
    text, _ = pages(complete)
    assert 'then not finite' in text and '<td>steps</td><td>41</td>' in text


def test_numbers_that_are_not_known(complete, undrawn):
    "Null is written for NaN; a page says so, or leaves the number out."
    tasks = json.loads((complete/'results.json').read_text())['tasks']
    for task in tasks.values():
        for name in task:
            if name.endswith('error'): task[name] = None
    tasks['world']['ladder'][0]['error'] = tasks['world']['ladder'][1]['nats'] = None
    write_json(complete/'results.json', {'tasks': tasks})
    text, md = pages(complete)
    assert '| uniform | 6.931 | not known |' in md and 'unigram by kind | ' not in md and '2.345 |' in md
    assert 'It is 0.333 nats per token above' in text and 'None' not in text and 'nan' not in md


def test_files_beside_a_run_that_are_not_its_own(complete, undrawn):
    first = pages(complete)
    for place in ('.ipynb_checkpoints', '.Trash/run'):
        (complete/place).mkdir(parents=True)
        for name in ('log.jsonl', 'corpus.json', 'samples.json', 'config.json'): (complete/place/name).write_text('not ours')
    (complete/'checkpoints/step-00000040').mkdir(parents=True)
    (complete/'checkpoints/step-00000040/model.safetensors').write_bytes(b'not a model')
    (complete/'checkpoints/step-best').mkdir()
    os.mkfifo(complete/'checkpoints/step-best/model.safetensors')
    assert pages(complete) == first


def test_numbers_out_of_all_proportion_are_drawn(run):
    rows = [dict(step=s, loss=x, tokens=s) for s, x in enumerate((1e30, 1e-30, 0, -1e30, 5.), 1)] + [dict(step=5, val_loss=1e30)]
    write_jsonl(run/'log.jsonl', rows)
    results = json.loads((run/'results.json').read_text())
    names = ('x' * 10_000, 'a\nb', '\udcff', '$\\frac{', '\x00')
    nats = (1e12, -1e12, 0, 1e-300, 10**12)
    results['tasks']['world']['ladder'] = [dict(name=n, nats=v, error=1e12) for n, v in zip(names, nats)]
    write_json(run/'results.json', results)
    assert '<svg' in pages(run)[0]


def test_stages_come_in_their_order(monkeypatch):
    monkeypatch.setattr('llmbook.evaluation.report.run_settings', lambda run: {'command': run.name})
    names = [Path(name) for name in ('dpo', 'mine', 'other', 'pretrain', 'reward', 'sft')]
    assert [run.name for run in _in_order(names)] == ['pretrain', 'sft', 'reward', 'dpo', 'mine', 'other']
