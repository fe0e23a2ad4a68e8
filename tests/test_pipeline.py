"Rules over a corpus: what they may return, the books that are kept, and every way to be stopped."
import errno
import functools
import io
import json
import multiprocessing as mp
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from multiprocessing import forkserver

import psutil
import pytest

from llmbook.core import Interrupted, UserError, explain
from llmbook.text import pipeline, workers
from llmbook.text.pipeline import Funnel, apply_rules, rule_name, run_pipeline

FILES = ['documents.jsonl', 'dropped.jsonl', 'funnel.json']


def documents(n, size=300):
    for i in range(n):
        text = f'Page {i} ' + 'word ' * (i * 31 % size)
        yield {'id': f'page-{i}', 'text': text, 'meta': {'i': i, 'score': i / 7}, 'url': 'é'}


def long_enough(document, at_least=30):
    return document if len(document['text']) >= at_least else 'too short'


def upper(document): return document | {'text': document['text'].upper()}


def odd(document): return 'odd' if document['meta']['i'] % 7 == 3 else document


def slowly(document):
    time.sleep(0.0005)
    return document


def strip(document):
    text = document['text'].strip()
    return document if text == document['text'] else document | {'text': text}


RULES = [functools.partial(long_enough, at_least=100), upper, odd]


def contents(folder): return {path.name: path.read_bytes() for path in folder.iterdir()}


def loop(n):
    "What a plain loop makes of the documents: the authority."
    kept, dropped = [], []
    for document in documents(n):
        text, i = document['text'], document['meta']['i']
        if len(text) < 100: dropped.append((document['id'], 'long_enough', 'too short', text))
        elif i % 7 == 3: dropped.append((document['id'], 'odd', 'odd', text.upper()))
        else: kept.append(document | {'text': text.upper()})
    return kept, dropped


def rows(path): return [json.loads(line) for line in path.read_text('utf-8').splitlines()]


def test_names_and_what_a_rule_may_return():
    document = {'id': 'a', 'text': 'x' * 50}
    assert rule_name(upper) == 'upper' and rule_name(functools.partial(RULES[0], at_least=3)) == 'long_enough'
    assert apply_rules(document, []) == (document, '', '') and apply_rules(document, [long_enough])[0] is document
    assert apply_rules(document, RULES) == (None, 'long_enough', 'too short')
    assert document == {'id': 'a', 'text': 'x' * 50}
    for wrong in (None, '', 3, {'id': 'a'}, {'text': None}, ['x'], True):
        with pytest.raises(UserError, match='^rule <lambda>, document a: returned '):
            apply_rules(document, [lambda document, wrong=wrong: wrong])


def test_a_rule_that_fails_is_named_in_one_line():
    def fails(document): raise ValueError('two\nlines')
    def refuses(document): raise UserError("not installed; pip install 'llmbook[web]'")
    for rule, words in ((fails, 'rule fails, document a\\x: ValueError: two lines'),
                        (refuses, "rule refuses, document a\\x: not installed; pip install 'llmbook[web]'")):
        with pytest.raises(UserError) as e: apply_rules({'id': 'a\\x', 'text': ''}, [rule])
        assert str(e.value) == words
    with pytest.raises(UserError, match=r'document a\\udc80: KeyError'):
        apply_rules({'id': 'a\udc80', 'text': ''}, [lambda document: document['none']])


def test_funnels_add_up():
    def count(pages):
        funnel = Funnel(RULES)
        for page in pages:
            result, rule, _ = pipeline._walk(page, RULES, funnel)
            funnel.add(-1, page, rule or result)
        return funnel
    pages = list(documents(200))
    whole = count(pages)
    assert (count(pages[:50]) + count(pages[50:])).as_json() == whole.as_json()
    first, second, third = whole.rows()
    kept, dropped = loop(200)
    assert first['documents_in'] == 200 and first['reasons'] == {'too short': sum(d[1] == 'long_enough' for d in dropped)}
    assert second['changed'] == second['documents_in'] == first['documents_out'] == third['documents_in']
    assert third['documents_out'] == whole.total['documents_out'] == len(kept)
    assert whole.total['reasons'] == {rule: sum(d[1] == rule for d in dropped) for rule in ('long_enough', 'odd')}
    assert whole.total['characters_in'] == sum(len(page['text']) for page in pages)
    assert whole.total['characters_out'] == third['characters_out'] == sum(len(d['text']) for d in kept)
    with pytest.raises(ValueError): whole + Funnel()
    stripped = Funnel([strip])
    for i in range(10): pipeline._walk({'id': i, 'text': 'a' + ' ' * (i % 3)}, [strip], stripped)
    assert stripped.rows()[0]['changed'] == 6


def test_the_result_is_that_of_a_loop_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, '_ALONE', 0)
    for n in (1, 2): funnel = run_pipeline(documents(950), RULES, tmp_path/f'{n}', n)
    kept, dropped = loop(950)
    assert contents(tmp_path/'1') == contents(tmp_path/'2') and sorted(contents(tmp_path/'1')) == FILES
    assert rows(tmp_path/'1/documents.jsonl') == kept
    assert [tuple(row.values()) for row in rows(tmp_path/'1/dropped.jsonl')] == dropped
    assert json.loads((tmp_path/'1/funnel.json').read_text()) == funnel.as_json()


def test_an_error_in_a_worker_names_rule_and_document(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, '_ALONE', 0)
    def fails(document): return document if document['meta']['i'] < 555 else document['nothing']
    with pytest.raises(UserError, match="^rule fails, document page-555: KeyError: 'nothing'$"):
        run_pipeline(documents(900), [fails], tmp_path, 2)


def test_odd_documents(tmp_path):
    pages = [{'id': 'half \ud83d', 'text': 'half \ud83d of a pair\0', 'meta': {'x': float('nan'), 'y': {1: (2, 3)}}},
             {'id': 7, 'text': ''}, {'text': 'without an id'}]
    run_pipeline(pages, [slowly], tmp_path)
    text = (tmp_path/'documents.jsonl').read_text('utf-8')
    assert rows(tmp_path/'documents.jsonl')[0]['text'] == pages[0]['text'] and 'half \\ud83d of' in text
    assert 'NaN' not in text and [row['text'] for row in rows(tmp_path/'documents.jsonl')][1:] == ['', 'without an id']
    assert json.loads(text.splitlines()[0])['meta'] == {'x': None, 'y': {'1': [2, 3]}}
    assert run_pipeline([], RULES, tmp_path/'empty').total['documents_in'] == 0
    assert contents(tmp_path/'empty')['documents.jsonl'] == b''


def test_a_set_is_spelt_alike_in_every_process():
    assert pipeline._spell({'fr', 'de', 'en'}) == ["'de'", "'en'", "'fr'"]


def test_large_documents_are_parts_of_their_own():
    sizes = [len(json.loads(part)) for part in pipeline._cut({'text': 'x' * n} for n in [1 << 20] * 3 + [10] * 250)]
    assert sizes == [1, 1, 1, 100, 100, 50]


# Stopped

def quietly(*args, **more):
    with redirect_stdout(io.StringIO()) as said: run_pipeline(*args, **more)
    return said.getvalue()


def in_child(work):
    "Start a forked process that knows nothing of this one's fork server."
    def run():
        forkserver._forkserver.__init__()
        os.setsid()
        sys.stdout = sys.stderr = open(os.devnull, 'w')
        work()
    child = mp.get_context('fork').Process(target=run)
    child.start()
    return child


def kill_until_done(folder, work, rng, longest):
    "Kill a process after a random time, and start it again, until it lives to the end. How often it was killed."
    kills = 0
    while True:
        child = in_child(work)
        child.join(rng.uniform(0, longest * (1 + kills / 5)))
        family = psutil.Process(child.pid).children(recursive=True) if child.is_alive() else []
        child.kill()
        child.join()
        assert not psutil.wait_procs(family, 20)[1], 'a worker outlived its parent'
        if child.exitcode == 0: return kills
        assert child.exitcode == -signal.SIGKILL
        kills += 1


def check_kills(tmp_path, monkeypatch, at_least, n, workers_, longest):
    monkeypatch.setattr(workers, '_ALONE', 0)
    monkeypatch.setattr(pipeline, '_SECONDS', 0)
    run_pipeline(documents(n), [slowly, *RULES], tmp_path/'whole', 1)
    kills, rounds, rng = 0, 0, random.Random(0)
    while kills < at_least:
        folder = tmp_path/f'{rounds}'
        work = functools.partial(run_pipeline, documents=list(documents(n)), rules=[slowly, *RULES], folder=folder)
        kills += kill_until_done(folder, functools.partial(work, workers=workers_), rng, longest)
        assert contents(folder) == contents(tmp_path/'whole')
        rounds += 1


def test_three_kills_change_no_byte(tmp_path, monkeypatch): check_kills(tmp_path, monkeypatch, 3, 400, 1, 0.1)


@pytest.mark.parametrize('name', ['funnel.json', 'note.json'])
def test_a_kill_in_the_middle_of_a_small_file_leaves_nothing(tmp_path, name):
    def work():
        replace = os.replace
        def die(stage, path):
            if str(path).endswith(name): os.kill(os.getpid(), signal.SIGKILL)
            replace(stage, path)
        os.replace = die
        run_pipeline(documents(250), RULES, tmp_path/'killed', 1)
    child = in_child(work)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    for folder in ('killed', 'whole'): run_pipeline(documents(250), RULES, tmp_path/folder, 1)
    assert contents(tmp_path/'killed') == contents(tmp_path/'whole')


@pytest.mark.slow
def test_fifty_kills_change_no_byte(tmp_path, monkeypatch): check_kills(tmp_path, monkeypatch, 50, 2000, 1, 0.3)


@pytest.mark.slow
def test_kills_with_workers_change_no_byte(tmp_path, monkeypatch):
    check_kills(tmp_path, monkeypatch, 15, 4000, 2, 5) # 50 of them passed too, and take minutes


class Full:
    "A disk that is full after so many writes of a file are confirmed."
    def __init__(self, room): self.room = room

    def __call__(self, file):
        self.room -= 1
        if self.room < 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize('room', [0, 1, 2, 3, 8])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, room):
    run_pipeline(documents(500), RULES, tmp_path/'whole', 1)
    monkeypatch.setattr(pipeline, '_SECONDS', 0)
    with monkeypatch.context() as m:
        m.setattr(os, 'fsync', Full(room))
        with pytest.raises(OSError) as e: run_pipeline(documents(500), RULES, tmp_path/'full', 1)
    line, code = explain(e.value)
    assert code == 2 and 'no space left on device' in line and str(tmp_path/'full') in line
    assert (tmp_path/'full/.work').exists() == (room >= 3) # without a note nothing is kept
    said = quietly(documents(500), RULES, tmp_path/'full', 1)
    assert ('resuming after' in said) == (room >= 3) and contents(tmp_path/'full') == contents(tmp_path/'whole')


def test_no_worker_outlives_an_error_here(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, '_ALONE', 0)
    def alive(): return {p.pid for p in psutil.Process().children(recursive=True) if p.status() != 'zombie'}
    run_pipeline(documents(300), RULES, tmp_path/'first', 2) # starts the fork server
    before = alive()
    monkeypatch.setattr(pipeline, '_SECONDS', 0)
    monkeypatch.setattr(os, 'fsync', Full(9))
    with pytest.raises(OSError): run_pipeline(documents(1500), RULES, tmp_path/'full', 2)
    assert alive() == before


DISK = """
import resource, signal, sys
sys.path.insert(0, 'tests')
from test_pipeline import RULES, documents, pipeline, run_pipeline
from llmbook.core import explain
pipeline._SECONDS = 0
try: run_pipeline(documents(4000), RULES, sys.argv[1], 1)
except OSError as e: print(explain(e)[0])
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    disk, whole = tmp_path/'disk', tmp_path/'whole'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=800k', 'disk', disk]).returncode:
        pytest.skip('no right to mount a disk')
    try:
        def start(): return subprocess.run([sys.executable, '-c', DISK, disk/'out'], capture_output=True, text=True)
        first = start()
        assert first.stderr == '' and 'no space left on device' in first.stdout.splitlines()[-1]
        kept = json.loads((disk/'out/.work/note.json').read_text())['parts']
        subprocess.run(['mount', '-o', 'remount,size=8m', disk], check=True)
        again = start()
        assert kept and f'resuming after {kept * 100} documents' in again.stdout
        run_pipeline(documents(4000), RULES, whole, 1)
        assert contents(disk/'out') == contents(whole)
    finally: subprocess.run(['umount', '-l', disk])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done(tmp_path, number):
    stop = [True]
    def stopping(document):
        if stop and document['meta']['i'] == 250: raise Interrupted(number) if number != signal.SIGINT else KeyboardInterrupt
        return document
    with pytest.raises(Interrupted) as e: run_pipeline(documents(500), [stopping], tmp_path, 1)
    name = signal.Signals(number).name
    assert explain(e.value) == (f'stopped by {name}; 200 documents are done and kept; the same command resumes', 128 + number)
    stop.clear()
    assert 'rules: resuming after 200 documents' in quietly(documents(500), [stopping], tmp_path, 1)
    assert rows(tmp_path/'documents.jsonl') == list(documents(500)) and sorted(contents(tmp_path)) == FILES


def stop_at(n):
    def stopping(document): raise KeyboardInterrupt
    return [lambda document: stopping(document) if document['meta']['i'] == n else document]


def test_a_stop_before_the_first_part_leaves_nothing(tmp_path):
    with pytest.raises(Interrupted, match='stopped by SIGINT; nothing was saved'):
        run_pipeline(documents(90), stop_at(50), tmp_path/'out', 1)
    assert not (tmp_path/'out/.work').exists()


def begun(tmp_path, rules, key=''):
    "Work that was stopped after two parts."
    def pages():
        yield from documents(210)
        raise KeyboardInterrupt
    with pytest.raises(Interrupted): run_pipeline(pages(), rules, tmp_path, 1, key=key)


@pytest.mark.parametrize('change', ['rules', 'settings', 'order', 'key', 'note', 'file'])
def test_kept_work_is_not_continued_with_something_else(tmp_path, change):
    begun(tmp_path, RULES)
    rules, key, note = RULES, '', tmp_path/'.work/note.json'
    if change == 'rules': rules = RULES[:2]
    if change == 'settings': rules = [functools.partial(long_enough, at_least=101), *RULES[1:]]
    if change == 'order': rules = RULES[::-1]
    if change == 'key': key = 'other'
    if change == 'note': note.write_text('{')
    if change == 'file': os.truncate(tmp_path/'.work/documents.jsonl', 1000)
    assert 'resuming' not in quietly(documents(500), rules, tmp_path, 1, key=key)
    run_pipeline(documents(500), rules, tmp_path/'whole', 1)
    (tmp_path/'whole').rename(tmp_path.with_name(f'whole-{change}'))
    assert contents(tmp_path) == contents(tmp_path.with_name(f'whole-{change}'))


def test_kept_work_is_not_continued_on_other_documents(tmp_path):
    begun(tmp_path, RULES)
    with pytest.raises(UserError, match='unfinished work on other documents'):
        run_pipeline(list(documents(500))[1:], RULES, tmp_path, 1)
    with pytest.raises(UserError, match='unfinished work on other documents'): run_pipeline(documents(150), RULES, tmp_path, 1)
    assert 'resuming after 200' in quietly(documents(500), RULES, tmp_path, 1)


def test_a_note_that_a_kill_left_behind_does_no_harm_to_a_finished_result(tmp_path):
    work = tmp_path/'work'
    run_pipeline(documents(500), RULES, tmp_path/'out', 1, work=work)
    before = contents(tmp_path/'out')
    assert work.exists() # its caller removes it
    begun_elsewhere = stop_at(150)
    with pytest.raises(Interrupted): run_pipeline(documents(500), begun_elsewhere, tmp_path/'other', 1, work=work)
    assert contents(tmp_path/'out') == before


def test_a_disk_without_links_gets_copies(tmp_path, monkeypatch):
    def refuses(*names): raise OSError(errno.EPERM, 'no links here')
    monkeypatch.setattr(os, 'link', refuses)
    run_pipeline(documents(300), RULES, tmp_path, 1)
    assert rows(tmp_path/'documents.jsonl') == loop(300)[0] and sorted(contents(tmp_path)) == FILES


def test_a_second_process_is_refused(tmp_path):
    hold = ('import sys, time; from llmbook.outputs import FolderLock; x = FolderLock(sys.argv[1]); '
            'print(1, flush=True); time.sleep(60)')
    child = subprocess.Popen([sys.executable, '-c', hold, tmp_path/'.work'], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline()
        with pytest.raises(UserError, match='is writing there'): run_pipeline(documents(5), RULES, tmp_path)
    finally:
        child.kill()
        child.wait()


MEMORY = """
import resource, sys
sys.path.insert(0, 'tests')
from test_pipeline import documents, RULES, run_pipeline
run_pipeline(documents(int(sys.argv[1]), 3000), RULES, sys.argv[2], 2)
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    peaks = []
    for n in (3000, 30_000): # 22 and 220 MB
        done = subprocess.run([sys.executable, '-c', MEMORY, str(n), tmp_path/f'{n}'], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 60, peaks # MB
