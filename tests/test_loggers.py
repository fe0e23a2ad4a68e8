"Trackers get a copy of the log: the finite numbers of each row, on rank 0, and whatever they do, the run goes on."
import math
import os
import sqlite3
import subprocess
import sys
from types import ModuleType

import pytest
from needs import needs

from llmbook.core import UserError
from llmbook.train import loggers
from llmbook.train.clm import pretrain
from llmbook.train.loggers import Logger, check_loggers, open_loggers
from llmbook.train.runs import Run


class Fake:
    "A tracker that remembers what it got, and fails where it is told to."
    def __init__(self, first, fails=()):
        self.first, self.fails, self.rows, self.closed = first, fails, [], 0
        if 'start' in fails: raise RuntimeError('no\nentry')
    def log(self, step, numbers):
        if step in self.fails: raise ConnectionError(f'gone at {step}')
        self.rows.append((step, numbers))
    def close(self):
        self.closed += 1
        if 'end' in self.fails: raise OSError('too late')


def logger_of(**fails):
    "A logger, and the trackers that it has opened so far, by name."
    opened = {}
    def opener(name): return lambda first: opened.setdefault(name, Fake(first, fails[name]))
    return Logger({name: opener(name) for name in fails}), opened


def test_a_name_is_checked_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, '_is_installed', lambda name: name == 'tensorboard')
    for names in (None, [], ['tensorboard']): check_loggers(names)
    line = '--log-to wandb: wandb is not installed: pip install "llmbook[log]"'
    for start in (lambda: check_loggers(['tensorboard', 'wandb']), lambda: open_loggers(['wandb'], tmp_path, {}),
                  lambda: Run(tmp_path/'run', 'test', {}, log_to=['wandb']),
                  lambda: pretrain(log_to=['wandb'], out=str(tmp_path/'run'))):
        with pytest.raises(UserError) as e: start()
        assert str(e.value) == line and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match='--log-to mlflow: not one of tensorboard, wandb, trackio'): check_loggers(['mlflow'])


def test_a_folder_that_is_called_like_a_package(tmp_path, monkeypatch):
    "Such as the one that wandb leaves where it ran."
    (tmp_path/'no_such_tracker').mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not loggers._is_installed('no_such_tracker') and loggers._is_installed('json')
    (tmp_path/'no_such_tracker/__init__.py').touch()
    assert loggers._is_installed('no_such_tracker')


def test_only_finite_numbers_are_sent():
    row = {'step': 3, 'loss': math.nan, 'grad_norm': -math.inf, 'lr': 0.1, 'tokens': 7, 'skipped': [1], 'rung': 'a',
           'nonfinite': 'nan',
           'mfu': None, 'flag': True}
    logger, opened = logger_of(a=())
    logger.log({'step': 2, 'loss': math.nan}) # there is nothing to send, and nothing to open
    assert not opened
    logger.log(row)
    assert opened['a'].first == 3 and opened['a'].rows == [(3, {'lr': 0.1, 'tokens': 7})]


def test_a_tracker_that_fails_is_named_once_and_left_alone(capsys):
    logger, opened = logger_of(a=(), b=[12, 13], c=['start'], d=['end'])
    for step in range(11, 15): logger.log({'step': step, 'loss': 1.0})
    for _ in range(2): logger.close()
    logger.log({'step': 15, 'loss': 1.0})
    assert {name: len(tracker.rows) for name, tracker in opened.items()} == {'a': 4, 'b': 1, 'd': 4}
    assert [opened[name].closed for name in 'abd'] == [1, 0, 1] and opened['a'].first == 11
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and len(lines) == 3 and all(line.startswith('warning: --log-to ') for line in lines)
    assert '--log-to c is switched off at its start (RuntimeError: no entry)' in lines[0]
    assert '--log-to b is switched off at step 12 (ConnectionError: gone at 12)' in lines[1]
    assert '--log-to d is switched off at its end (OSError: too late)' in lines[2]


def test_a_request_to_stop_is_no_fault_of_the_tracker():
    class Slow(Fake):
        def log(self, step, numbers): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): Logger({'slow': Slow}).log({'step': 1, 'loss': 1.0})


def test_only_rank_0_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, '_is_installed', lambda name: True)
    assert set(open_loggers(['wandb', 'trackio'], tmp_path, {}).openers) == {'wandb', 'trackio'}
    monkeypatch.setattr(loggers, 'current_rank', lambda: 1)
    assert not open_loggers(['wandb'], tmp_path, {}).openers


@pytest.mark.parametrize('asked, known, mode', [
    ('', False, 'offline'), ('', True, 'online'), ('offline', True, 'offline'), ('disabled', False, 'disabled'),
    ('online', True, 'online'), ('online', False, None)])
def test_wandb_never_asks(monkeypatch, asked, known, mode):
    package = ModuleType('wandb')
    def login(prompt=True):
        assert prompt is False
        return known
    package.login = login
    monkeypatch.setenv('WANDB_MODE', asked)
    if mode: assert loggers._wandb_mode(package) == mode
    else:
        with pytest.raises(UserError, match='nobody has logged in; .*wandb login'): loggers._wandb_mode(package)


class Recorder:
    "Stands in for what a package makes: remembers each call."
    def __init__(self, *args, **settings): self.args, self.settings, self.calls = args, settings, []
    def __getattr__(self, name): return lambda *args, **settings: self.calls.append((name, *args, *settings.values()))


def test_the_three_packages_are_asked_for_the_same(tmp_path, monkeypatch, capsys):
    made = {}
    def maker(name):
        def make(*args, **settings):
            print('hello from', name)
            return made.setdefault(name, Recorder(*args, **settings))
        return make
    board, wandb, trackio = ModuleType('torch.utils.tensorboard'), ModuleType('wandb'), ModuleType('trackio')
    board.SummaryWriter, wandb.init, trackio.init = (maker(name) for name in ('tensorboard', 'wandb', 'trackio'))
    wandb.login, wandb.Settings, trackio.finish = lambda prompt: False, dict, lambda: made['trackio'].calls.append('finish')
    for module in (ModuleType('tensorboard'), board, wandb, trackio): monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv('WANDB_MODE', raising=False)
    logger = open_loggers(['tensorboard', 'wandb', 'trackio'], tmp_path/'run', {'tracker_id': '5eed'})
    for step in (11, 12): logger.log({'step': step, 'loss': 2.0, 'lr': math.nan})
    logger.close()
    assert made['tensorboard'].args == (tmp_path/'run/tensorboard',) and made['tensorboard'].settings['purge_step'] == 11
    assert made['tensorboard'].calls == [('add_scalar', 'loss', 2.0, 11), ('add_scalar', 'loss', 2.0, 12), ('close',)]
    for name, own, last in (('wandb', {'id': '5eed', 'name': 'run', 'mode': 'offline', 'dir': tmp_path/'run'}, ('finish',)),
                            ('trackio', {'name': 'run-5eed', 'embed': False}, 'finish')):
        assert own.items() <= made[name].settings.items() and made[name].settings['resume'] == 'allow', name
        assert made[name].calls == [('log', {'loss': 2.0}, 11), ('log', {'loss': 2.0}, 12), last], name
    assert 'trackio' not in capsys.readouterr().out # it would get between the lines of the bar


# The packages themselves, where they are installed

PROCESS = """
import sys
from llmbook.train.runs import Run
name, folder, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Run(folder, 'test', {}, log_to=[name]) as run:
    for step in range(first, last + 1):
        run.log({'step': step, 'loss': 1 / step, 'grad_norm': float('nan')})
        run.log({'step': step, 'val_loss': 2 / step})
"""


def two_processes(name, folder):
    "Steps 1 to 4, and then, as after a kill, 3 to 6. What was printed."
    known = {key: value for key, value in os.environ.items() if not key.startswith(('WANDB', 'TRACKIO'))}
    environment = known | {'HOME': str(folder/'home'), 'TRACKIO_DIR': str(folder/'home/trackio')}
    (folder/'home').mkdir()
    for first, last in ((1, 4), (3, 6)):
        command = [sys.executable, '-c', PROCESS, name, str(folder/'run'), str(first), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        yield done.stdout + done.stderr


@pytest.mark.slow
@needs('tensorboard', 'log')
def test_tensorboard_shows_each_step_once(tmp_path):
    for said in two_processes('tensorboard', tmp_path): assert 'warning' not in said
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path/'run/tensorboard'))
    events.Reload()
    assert set(events.Tags()['scalars']) == {'loss', 'val_loss'}
    for name, top in (('loss', 1), ('val_loss', 2)):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(top / step)) for step in range(1, 7)]


@pytest.mark.slow
@needs('wandb', 'log')
def test_wandb_writes_and_says_nothing(tmp_path):
    for said in two_processes('wandb', tmp_path): assert not said
    folders = sorted((tmp_path/'run/wandb').glob('offline-run-*'))
    ids = {folder.name.split('-')[-1] for folder in folders}
    assert len(folders) == 2 and len(ids) == 1
    for folder in folders: assert (folder/f'run-{ids.copy().pop()}.wandb').stat().st_size > 500


@pytest.mark.slow
@needs('trackio', 'log')
def test_trackio_keeps_one_run(tmp_path):
    for said in two_processes('trackio', tmp_path): assert not said
    rows = sqlite3.connect(tmp_path/'home/trackio/llmbook.db').execute('select run_name, step, metrics from metrics').fetchall()
    assert len({name for name, *_ in rows}) == 1 and len(rows) == 16
    assert sorted({step for _, step, _ in rows}) == [1, 2, 3, 4, 5, 6]
