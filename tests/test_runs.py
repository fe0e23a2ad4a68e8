"The run folder: the same command finds it again, another is refused, and a kill leaves no half of anything."
import json
import math
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from layouts import local

from llmbook.core import UserError
from llmbook.files import read_json, write_json
from llmbook.model.checkpoints import best_checkpoint, read_best
from llmbook.train import claim, runs
from llmbook.train.clm import CLM
from llmbook.train.runs import Run, _drop_old, choose_speed, read_log, resume


@pytest.fixture(autouse=True)
def no_environment(monkeypatch): monkeypatch.setattr(claim, 'environment', lambda: {'commit': None})


def names(folder): return sorted(p.name for p in folder.iterdir())


def dead_pid():
    "The number of a process that has ended."
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def test_killed_while_the_first_file_was_written(tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run/.config.json.77.tmp').write_text('{"comm')
    Run(tmp_path/'run', 'test', {})
    assert names(tmp_path/'run') == ['config.json']


def test_a_log_cut_between_any_two_bytes(tmp_path):
    run = Run(tmp_path/'run', 'test', {})
    rows = [{'step': 1, 'loss': 2.5, 'said': 'ä\u2028'}, {'step': 2, 'loss': 0.1 + 0.2}]
    for r in rows: run.log(r)
    text = (tmp_path/'run/log.jsonl').read_bytes()
    first = text.index(b'\n') + 1
    for n in range(first, len(text) + 1):
        (tmp_path/'run/log.jsonl').write_bytes(text[:n])
        run.truncate_log(2)
        assert (tmp_path/'run/log.jsonl').read_bytes() == (text if n >= len(text) - 1 else text[:first])


DAMAGED = ['{"step": 2', 'null', '[1]', '"step"', '{"loss": 1.0}', '{"step": "2"}', '{"step": null}', '{"step": true}',
           '{"step": -1}', '{"step": 2.5}', '{"step": 2, "loss": "low"}', '{"step": 2, "tokens": {}}',
           '{"step": 2, "val_loss": []}',
           '{"step": 1e999}', '[' * 100_000, '{"step": ' + '9' * 5000 + '}', '\udcff\udcfe', '\0\0\0']


def test_a_damaged_log_loses_only_its_damaged_lines(tmp_path, capsys):
    path, good = tmp_path/'log.jsonl', [{'step': t, 'loss': 1.5, 'tokens': t} for t in range(1, len(DAMAGED) + 2)]
    lines = [json.dumps(row) for row in good]
    for i, line in enumerate(DAMAGED): lines.insert(2*i + 1, line)
    path.write_bytes('\n'.join([*lines, '{"step": 99, "lo']).encode('utf-8', 'surrogateescape'))
    assert read_log(path) == good
    out, err = capsys.readouterr()
    assert not out and err.count('\n') == 1 and f'{len(DAMAGED)} broken lines' in err and 'line 2, 4, 6' in err
    run = Run(tmp_path, 'test', {}, fresh=True) if (tmp_path/'config.json').exists() else None
    assert run is None and read_log(tmp_path/'nowhere.jsonl') == []


def test_a_log_that_a_kill_cut_short_is_no_damage(tmp_path, capsys):
    (tmp_path/'log.jsonl').write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path/'log.jsonl') == [{'step': 1}] and capsys.readouterr() == ('', '')


def test_a_pipe_as_log_does_not_hang(tmp_path):
    os.mkfifo(tmp_path/'log.jsonl')
    with pytest.raises(UserError, match='a pipe or a device'): read_log(tmp_path/'log.jsonl')


@pytest.mark.parametrize('value, name', [(math.nan, 'nan'), (math.inf, 'inf'), (-math.inf, '-inf')])
def test_rows_are_strict_json(tmp_path, value, name):
    run = Run(tmp_path/'run', 'test', {})
    for key in ('loss', 'grad_norm'): run.log({'step': 1, 'loss': 2.0, 'grad_norm': 1.0, key: value, 'skipped': [3, 4]})
    (first, second) = (json.loads(line, parse_constant=pytest.fail) for line in open(tmp_path/'run/log.jsonl'))
    assert first['loss'] is None and first['nonfinite'] == second['nonfinite'] == name and second['loss'] == 2.0
    assert run.read_log() == [first, second]
    run.truncate_log(1)
    assert run.read_log() == [first, second]


def test_rows_of_before_had_nan(tmp_path):
    (tmp_path/'log.jsonl').write_text('{"step": 1, "loss": NaN, "skipped": [1]}\n{"step": 2, "loss": Infinity}\n')
    assert [row['loss'] for row in read_log(tmp_path/'log.jsonl')] == [None, None]


@pytest.mark.parametrize('keep, left', [(0, [1, 2, 3, 4]), (1, [4]), (3, [2, 3, 4]), (9, [1, 2, 3, 4])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, left):
    for step in (3, 1, 4, 2): (tmp_path/f'step-{step:08d}').mkdir()
    others = ['step-00000010-copy', 'step-1', 'step-99999999x', 'step-best']
    for name in others: (tmp_path/name).mkdir()
    _drop_old(tmp_path, keep)
    assert names(tmp_path) == sorted([f'step-{step:08d}' for step in left] + others)


@pytest.mark.parametrize('best, left', [(1, [1, 4]), (4, [4]), (9, [4]), ('x', [4])])
def test_the_best_checkpoint_is_kept(tmp_path, best, left, capsys):
    parent = tmp_path/'checkpoints'
    for step in range(1, 5): (parent/f'step-{step:08d}').mkdir(parents=True)
    write_json(tmp_path/'best.json', {'step': best, 'val_loss': 2.5})
    _drop_old(parent, 1)
    assert names(parent) == [f'step-{step:08d}' for step in left]
    assert ('best.json' in capsys.readouterr().err) == (best == 'x') # a broken note is named


def checkpoint(folder, steps, **more):
    "A run of some steps, with a checkpoint after each."
    run, engine = Run(folder, 'test', {}), local()
    resume(engine, run, 0)
    for _ in range(steps):
        engine.steps += 1
        run.log({'step': engine.steps, 'loss': 1.0, 'tokens': 1})
        run.checkpoint(engine, lambda stage: None, **more)
    return run


def resumed(folder):
    "The step from which a run resumes, and what it then knows of its best checkpoint."
    engine = local()
    resume(engine, Run(folder, 'test', {}), 0)
    return engine.steps, read_best(folder), best_checkpoint(folder)


@pytest.mark.parametrize('harm', ['none', 'gone', 'damaged', 'link', 'later', 'broken', 'strange'])
def test_the_note_about_the_best_checkpoint(tmp_path, harm, capsys):
    "It is kept where its checkpoint is complete and not later than the step that the run resumes from."
    folder = tmp_path/'run'
    run = checkpoint(folder, 3)
    run.note_best(2, 2.5)
    run.close()
    best, note = folder/'checkpoints/step-00000002', folder/'best.json'
    assert resumed(folder) == (3, {'step': 2, 'val_loss': 2.5}, best)
    {'none': lambda: None, 'gone': lambda: shutil.rmtree(best), 'damaged': (best/'trainer/trainer.json').unlink,
     'link': lambda: (best.rename(tmp_path/'mine'), best.symlink_to(tmp_path/'mine')),
     'later': lambda: [shutil.rmtree(folder/f'checkpoints/step-0000000{n}') for n in (2, 3)],
     'broken': lambda: note.write_text('{"step": 2'), 'strange': lambda: note.write_text('{"step": -2, "val_loss": 1}')}[harm]()
    capsys.readouterr()
    steps, found, path = resumed(folder)
    assert steps == (1 if harm == 'later' else 3) and not note.exists() == (harm != 'none')
    assert (found, path) == (({'step': 2, 'val_loss': 2.5}, best) if harm == 'none' else ({}, None))
    said = capsys.readouterr().err
    assert said.count('warning') == (harm in ('damaged', 'broken',
                                              'strange')) + (harm == 'link') # the last by `newest_checkpoint`


def test_rows_go_to_trackers_too(tmp_path, monkeypatch):
    "After the log, in the words of the caller; and the end of the run is theirs too."
    asked, got, over = [], [], []
    class Fake:
        def log(self, row): got.append((row['step'], [row['step'] for row in read_log(tmp_path/'run/log.jsonl')]))
        def close(self):
            if self not in over: got.append('closed')
            over.append(self)
    def opening(names, folder, config):
        asked.append((names, config.get('tracker_id')))
        return Fake()
    monkeypatch.setattr(runs, 'check_loggers', lambda names: None)
    monkeypatch.setattr(runs, 'open_loggers', opening)
    args = {'lr': 1, 'keep_best': True, 'log_to': ['trackio']}
    with Run(tmp_path/'run', 'test', {'lr': 1}) as run: # as one that began before there were trackers
        run.log({'step': 1})
        assert 'tracker_id' not in run.config
    with Run(tmp_path/'run', 'test', args, log_to=['trackio']) as run: run.log({'step': 2, 'loss': math.nan})
    with Run(tmp_path/'run', 'test', args, log_to=['trackio']): pass
    with Run(tmp_path/'run', 'test', args, log_to=['trackio'], fresh=True): pass
    assert got == [(1, [1]), 'closed', (2, [1, 2]), 'closed', 'closed', 'closed']
    ids = [number for _, number in asked]
    assert ids[0] is None and ids[1] == ids[2] != ids[3] and len(ids[1]) == 8


def test_trackers_end_with_a_run_that_nobody_holds(tmp_path, monkeypatch):
    closed = []
    class Fake:
        def close(self): closed.append(True)
    monkeypatch.setattr(runs, 'open_loggers', lambda *_: Fake())
    run = Run(tmp_path/'run', 'test', {})
    del run
    assert closed and not (tmp_path/'run/.lock').exists()


def test_folders_that_are_called_almost_as_a_checkpoint(tmp_path):
    "They are neither taken for the newest nor renamed as broken."
    checkpoint(tmp_path/'run', 2).close()
    others = ['step-best', 'step-00000009-copy', 'step-999999999']
    for name in others: shutil.copytree(tmp_path/'run/checkpoints/step-00000001', tmp_path/'run/checkpoints'/name)
    runs._put_broken_aside(tmp_path/'run', tmp_path/'run/checkpoints/step-00000001')
    assert names(tmp_path/'run/checkpoints') == sorted([*others, 'broken-step-00000002.old1', 'step-00000001'])


@pytest.mark.parametrize('kind', ['file', 'link', 'dangling', 'empty', 'pipe'])
def test_what_is_called_as_the_newest_checkpoint_and_is_none(tmp_path, kind):
    "It is skipped and set aside, and the run resumes from the one before."
    checkpoint(tmp_path/'run', 2).close()
    path = tmp_path/'run/checkpoints/step-00000009'
    {'file': lambda: path.write_text('x'), 'link': lambda: path.symlink_to(tmp_path), 'dangling': lambda: path.symlink_to('x'),
     'empty': path.mkdir, 'pipe': lambda: (path.mkdir(), os.mkfifo(path/'manifest.json'))}[kind]()
    engine = local()
    resume(engine, Run(tmp_path/'run', 'test', {}), 0)
    assert engine.steps == 2 and 'broken-step-00000009.old1' in names(tmp_path/'run/checkpoints')


@pytest.mark.parametrize('kind', ['file', 'link', 'folder'])
def test_what_is_called_as_something_staged(tmp_path, kind):
    "A stale name in the way crashes nothing, and what a link leads to stays."
    checkpoint(tmp_path/'run', 1).close()
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/notes').write_text('x')
    stale = ['checkpoints/.step-00000002.tmp', 'checkpoints/.step-00000002.gone', f'.config.json.{os.getpid()}.tmp',
             f'.log.jsonl.{os.getpid()}.tmp', f'.loss.png.{dead_pid()}.tmp', f'checkpoints/.x.{dead_pid()}.tmp']
    for name in stale:
        path = tmp_path/'run'/name
        if kind == 'file': path.write_text('x')
        elif kind == 'link': path.symlink_to(tmp_path/'mine')
        else: (path/'deep').mkdir(parents=True)
    checkpoint(tmp_path/'run', 2).close()
    assert (tmp_path/'mine/notes').read_text() == 'x' and not [p for p in (tmp_path/'run').rglob('.*')]
    assert 'step-00000003' in names(tmp_path/'run/checkpoints')


def test_only_our_own_dead_files_are_swept(tmp_path):
    run = Run(tmp_path/'run', 'test', {})
    (tmp_path/'run/tokens').mkdir()
    others = ['.notes.tmp', '.DS_Store', '.x.tmp', f'.mine.{os.getppid()}.tmp', 'tokens/.cache.tmp',
              f'tokens/.a.json.{os.getppid()}.tmp']
    ours = [f'.log.jsonl.{os.getppid()}.tmp', f'.mine.{dead_pid()}.tmp', f'tokens/.a.json.{dead_pid()}.tmp', '.a.99999999999.tmp']
    for name in others + ours: (tmp_path/'run'/name).write_text('x')
    run.sweep()
    assert {str(p.relative_to(tmp_path/'run')) for p in (tmp_path/'run').rglob('.*')} == {*others, '.lock'}


def test_the_folder_of_another_run(tmp_path):
    folder = tmp_path/'run'
    Run(folder, 'sft', {'lr': 1}) # nothing happens in it
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 5, 'lengths': (1, 2)}).log({'step': 1})
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 9, 'lengths': (1, 2)})
    long = {'lr': 1e-3, 'lengths': (1, 2), 'more_of_it': 3}
    for command, args, what in (('sft', {}, 'holds a run of `pretrain`, not of `sft`; give another --out'),
                                ('pretrain', {'lr': 2e-3}, r'--lr was 0.001, now 0.002.*--fresh'),
                                ('pretrain', long, '--more-of-it was None, now 3.*--fresh')):
        with pytest.raises(UserError, match=what) as e: Run(folder, command, args)
        assert '\n' not in str(e.value)
    (folder/'mine.txt').write_text('x')
    with pytest.raises(UserError, match='not of `sft`'): Run(folder, 'sft', {}, fresh=True)
    Run(folder, 'pretrain', {}, fresh=True)
    assert names(tmp_path/'run.old1') == ['config.json', 'log.jsonl', 'mine.txt'] and names(folder) == ['config.json']
    Run(folder, 'pretrain', {}, fresh=True)
    assert (tmp_path/'run.old2').exists()


@pytest.mark.parametrize('fresh', [False, True])
@pytest.mark.parametrize('content', ['{"model_type": "llama"}', '{"command": 3, "args": {}}', '[]', 'null', '{', '[' * 100_000])
def test_a_config_that_is_not_a_runs_is_left_alone(tmp_path, content, fresh):
    "Also where it is the only file."
    for more in ((), ('model.safetensors', )):
        for name in more: (tmp_path/name).write_text('x')
        (tmp_path/'config.json').write_text(content)
        with pytest.raises(UserError) as e: Run(tmp_path, 'pretrain', {}, fresh=fresh)
        assert '\n' not in str(e.value) and str(tmp_path) in str(e.value)
        assert names(tmp_path) == ['config.json', *more] and (tmp_path/'config.json').read_text() == content
    assert [p.name for p in tmp_path.parent.glob(f'{tmp_path.name}*')] == [tmp_path.name]


@pytest.mark.parametrize('change', [
    {'args': None}, {'args': []}, {'args': 'x'}, {'inputs': 3}, {'layouts': {}}, {'layouts': [3]}, {'layouts': [{}]},
    {'layouts': [{'from_step': 'x'}]}, {'speed': 'fast'}, {'speed': {'precision': 'fp32'}}, {'speed': {'threads': 1}},
    {'speed': {'precision': 'fp32', 'threads': 10**9, 'compile': False}}, {'start': 4},
    {'speed': {'precision': 'fp32', 'threads': '2', 'compile': False}},
    {'speed': {'precision': 'fp32', 'threads': 1, 'compile': False, 'more': 1}}])
def test_a_config_with_wrong_fields_is_one_line(tmp_path, change):
    run = Run(tmp_path/'run', 'test', {'lr': 1})
    run.log({'step': 1})
    write_json(tmp_path/'run/config.json', run.config | change)
    with pytest.raises(UserError, match=next(iter(change))) as e: Run(tmp_path/'run', 'test', {'lr': 1})
    assert '\n' not in str(e.value) and 'config.json' in str(e.value)


def test_inputs_are_what_they_hold(tmp_path):
    "Another path with the same content is the same input; other content is refused, whatever it is called."
    def start(path, mark, **more):
        return Run(tmp_path/'run', 'test', {'tokens': path, 'model': None}, inputs={'tokens': mark}, **more)
    start('tokens', 'aaaa').log({'step': 1})
    start('./tokens', 'aaaa')
    start('../x/tokens', 'aaaa')
    assert read_json(tmp_path/'run/config.json')['args']['tokens'] == 'tokens' # as typed
    with pytest.raises(UserError, match='--tokens: tokens does not hold what this run began with; .*--fresh') as e:
        start('tokens', 'bbbb')
    assert '\n' not in str(e.value)
    with pytest.raises(UserError, match='--tokens was tokens, now None'):
        Run(tmp_path/'run', 'test', {'tokens': None, 'model': None})
    with pytest.raises(UserError, match='--model was None, now m'):
        Run(tmp_path/'run', 'test', {'tokens': 'tokens', 'model': 'm'}, inputs={'tokens': 'aaaa', 'model': 'cccc'})
    start('tokens', 'bbbb', fresh=True)


def test_a_run_from_before_fingerprints(tmp_path):
    "It is compared by path once, and then keeps what it was given."
    Run(tmp_path/'run', 'test', {'tokens': 'a'}).log({'step': 1})
    with pytest.raises(UserError, match='--tokens was a, now b'):
        Run(tmp_path/'run', 'test', {'tokens': 'b'}, inputs={'tokens': 'x'})
    Run(tmp_path/'run', 'test', {'tokens': 'a'}, inputs={'tokens': 'x'})
    Run(tmp_path/'run', 'test', {'tokens': 'b'}, inputs={'tokens': 'x'})
    with pytest.raises(UserError, match='--tokens'): Run(tmp_path/'run', 'test', {'tokens': 'a'}, inputs={'tokens': 'y'})


def second(folder, fresh=False):
    "The exit code of another process that opens the same run: 2 if it is refused in one line that names us."
    child = os.fork()
    if child: return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code, parent = 1, f'process {os.getppid()} on'
    try:
        Run(folder, 'test', {}, fresh=fresh)
        code = 0
    except UserError as e: code = 2 if parent in str(e) and '\n' not in str(e) else 3
    finally: os._exit(code)


def test_two_processes_in_one_folder(tmp_path):
    run = checkpoint(tmp_path/'run', 1)
    staging = tmp_path/'run/checkpoints/.step-00000002.tmp'
    staging.mkdir()
    def content(): return {p: p.read_bytes() for p in (tmp_path/'run').rglob('*') if p.is_file() and p.name != '.lock'}
    before = content()
    again = Run(tmp_path/'run', 'test', {}) # the same process may
    staging.mkdir()
    del again
    assert second(tmp_path/'run') == second(tmp_path/'run', fresh=True) == 2
    assert staging.exists() and before == content()
    run.close()
    assert second(tmp_path/'run') == 0 and not staging.exists() and names(tmp_path) == ['run']
    assert not list((tmp_path/'run').rglob('.*'))


def test_the_lock_goes_with_the_last_that_holds_it(tmp_path):
    lock = tmp_path/'run/.lock'
    one, two = (Run(tmp_path/'run', 'test', {}) for _ in range(2))
    del one
    assert lock.exists()
    with two: pass
    assert not lock.exists()
    old = Run(tmp_path/'run', 'test', {})
    new = Run(tmp_path/'run', 'test', {}, fresh=True)
    old.close()
    assert lock.exists() and not (tmp_path/'run.old1/.lock').exists()
    new.close()
    assert not lock.exists() and not any(tmp_path in place.parents for place in claim._LOCKS)
    with pytest.raises(UserError): Run(tmp_path/'run.old1', 'other', {'a': 1}, fresh=True)
    assert not (tmp_path/'run.old1/.lock').exists()


@pytest.mark.parametrize('out', ['file', 'file/below', 'dangling', '/dev/null', '/dev/null/x', 'x' * 300, '', 'zero\0byte',
                                 '/proc/nothing'])
def test_a_place_where_no_run_can_be(tmp_path, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'file').write_text('x')
    (tmp_path/'dangling').symlink_to(tmp_path/'file/nowhere')
    for start in (lambda: Run(out, 'test', {}), lambda: claim.check_place(out)):
        with pytest.raises(UserError) as e: start()
        assert '\n' not in str(e.value) and '--out' in str(e.value)
    assert names(tmp_path) == ['dangling', 'file'] and (tmp_path/'file').read_text() == 'x'


def test_home_and_modes(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    before = os.umask(0o026)
    try: run = checkpoint('~/run', 1)
    finally: os.umask(before)
    for file in ('log.jsonl', 'config.json', 'checkpoints/step-00000001/trainer/trainer.json'):
        assert stat.S_IMODE((tmp_path/'run'/file).stat().st_mode) == 0o640, file
    assert run.folder == tmp_path/'run'


def test_no_room_for_a_checkpoint(tmp_path, monkeypatch):
    "The last good one stays, and the line says how much is needed and where."
    run = checkpoint(tmp_path/'run', 2)
    disk = namedtuple('disk', 'total used free')
    monkeypatch.setattr(runs.shutil, 'disk_usage', lambda path: disk(10**6, 10**6, 1000))
    with pytest.raises(UserError, match=r'run: a checkpoint of step 3 takes about 0.\d MB, and 0.0 MB are free; make room') as e:
        checkpoint(tmp_path/'run', 1)
    assert '\n' not in str(e.value) and names(run.folder/'checkpoints') == ['step-00000001', 'step-00000002']
    monkeypatch.setattr(runs.shutil, 'disk_usage', lambda path: disk(0, 0, 0)) # a file system that does not say
    checkpoint(tmp_path/'run', 1)


def test_the_disk_is_full_while_a_checkpoint_is_written(tmp_path):
    "Files may grow to 64 KB, as a stand-in: the system refuses in the middle of the weights."
    run, before = checkpoint(tmp_path/'run', 2), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(UserError, match=r'step-00000003: cannot be written \(.* it takes about 0.\d MB') as e:
            checkpoint(run.folder, 1)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert '\n' not in str(e.value) and names(run.folder/'checkpoints') == ['step-00000001', 'step-00000002']
    assert resume(local(), run, 0).name == 'step-00000002'


def test_the_disk_is_full_while_the_log_grows(tmp_path, monkeypatch):
    run = Run(tmp_path/'run', 'test', {})
    (tmp_path/'run/log.jsonl').symlink_to('/dev/full')
    with pytest.raises(UserError, match=r'log.jsonl: the row of step 7 cannot be written \(no space left on device\)') as e:
        run.log({'step': 7})
    assert '\n' not in str(e.value)


def test_threads_follow_the_cores(tmp_path, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr('llmbook.train.speed.usable_cores', lambda: 1)
    try:
        torch.set_num_threads(3)
        run = Run(tmp_path/'run', 'test', {})
        choose_speed(local(), CLM(), None, run)
        assert run.config['speed']['threads'] == torch.get_num_threads() == 1
    finally: torch.set_num_threads(before)


@pytest.mark.parametrize('fresh', [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, fresh):
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(UserError, match='not empty and not a run'): Run(tmp_path, 'pretrain', {}, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('change', [None, 1, 3])
def test_a_folder_of_an_earlier_version(tmp_path, change):
    "Its names differ, so it is refused in one line that says how to continue; nothing in it changes."
    folder = tmp_path/'run'
    Run(folder, 'pretrain', {'lr': 1}).log({'step': 1, 'loss': 2.0, 'tokens': 3})
    config = read_json(folder/'config.json')
    del config['format']
    if change is not None: config['format'] = change
    write_json(folder/'config.json', config)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(UserError) as e: Run(folder, 'pretrain', {'lr': 1})
    message = str(e.value)
    assert '\n' not in message and 'written by an earlier version' in message
    assert '--fresh' in message and f'llmbook pretrain --model {folder} --out NEW' in message
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    Run(folder, 'pretrain', {'lr': 1}, fresh=True)
    assert (tmp_path/'run.old1/log.jsonl').read_bytes() == before['log.jsonl'] and not read_log(folder/'log.jsonl')


def test_looking_at_a_place_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'here').mkdir()
    for out in ('x/y/z', 'a/../b', 'here/../c/d', 'here', tmp_path/'deep/er'): claim.check_place(out)
    assert names(tmp_path) == ['here']
