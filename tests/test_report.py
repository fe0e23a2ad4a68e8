"The report: text from outside stays text, both pages carry the same figures, the same folder gives the same bytes."
import html
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from llmbook.core import UserError
from llmbook.evaluation.report import report
from llmbook.train.loop import loss_points
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
    outside = re.sub(r'(?s)(`{3,})\n.*?\n\1', '', md)
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
