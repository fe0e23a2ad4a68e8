"Ranks: what `launch` promises, which functions it takes, and what ends with what. `test_guard.py` has the ways to fail."
import math
import operator
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from llmbook import meeting
from llmbook.core import UserError
from llmbook.outputs import FolderLock
from llmbook.scale import guard, ranks
from llmbook.scale.ranks import launch

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 10 # seconds after which nothing may be left
ranks.PRELOAD += ['pytest'] # what the tests of this part import, so that not every rank has to


def launched_by(pid):
    "The ranks of a process: children of its fork server."
    found = []
    for server in psutil.Process(pid).children():
        try: found += [p for p in server.children() if p.status() != psutil.STATUS_ZOMBIE]
        except psutil.Error: pass
    return found


def nothing_left():
    end = time.monotonic() + DEADLINE
    while (left := launched_by(os.getpid())) and time.monotonic() < end: time.sleep(0.05)
    return not left


def failure(fn, world, *args, **how):
    "The message of a launch that fails, after which nothing may be left."
    with pytest.raises(RuntimeError) as caught: launch(fn, world, *args, **how)
    assert nothing_left()
    return str(caught.value)


# What launch promises

def facts():
    return os.getcwd(), os.environ['SAID'], os.environ['RANK'], dist.get_world_size(), Path('beside.txt').exists()


def test_ranks_live_where_the_caller_lives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SAID', 'just now')
    Path('beside.txt').touch()
    for rank, found in enumerate(launch(facts, 2)):
        assert found == (str(tmp_path), 'just now', str(rank), 2, True)


def test_many_times_in_a_row():
    launch(math.sqrt, 1, 4.0)
    files, temporary = len(psutil.Process().open_files()), len(list(Path(os.environ.get('TMPDIR', '/tmp')).glob('tmp*')))
    descriptors = psutil.Process().num_fds()
    for i in range(12): assert launch(math.sqrt, 1 + i % 3, 4.0) == [2.0]*(1 + i % 3)
    assert len(psutil.Process().open_files()) == files and psutil.Process().num_fds() <= descriptors + 3
    assert len(list(Path(os.environ.get('TMPDIR', '/tmp')).glob('tmp*'))) <= temporary + 1 and nothing_left()


def test_from_threads_and_inside_an_except():
    found, main = [], sys.modules['__main__']
    threads = [threading.Thread(target=lambda: found.extend(launch(math.sqrt, 2, 9.0))) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    try: raise KeyError
    except KeyError: found += launch(math.sqrt, 2, 16.0)
    assert found == [3.0]*6 + [4.0]*2 and sys.modules['__main__'] is main


def large(n): return torch.full((n,), dist.get_rank(), dtype=torch.int8), b'x'*(n // 8)


def test_huge_arguments_and_results():
    for rank, (x, text) in enumerate(launch(large, 2, 40_000_000)):
        assert len(x) == 40_000_000 and (x == rank).all() and len(text) == 5_000_000
    text = b'y'*30_000_000
    assert launch(len, 2, text) == [len(text)]*2


def test_what_cannot_be_sent_is_refused():
    for world in (0, -1):
        with pytest.raises(UserError, match=f'launch: a world of {world}; at least 1'): launch(math.sqrt, world, 1.0)
    with pytest.raises(UserError, match='launch: len and its arguments cannot be sent'): launch(len, 2, (i for i in 'abc'))
    letters = (i for i in 'abc')
    with pytest.raises(UserError, match='launch: <lambda> and its arguments cannot be sent'): launch(lambda: list(letters), 2)
    assert launch(partial(int, base=2), 2, '101') == [5, 5]


# Functions that travel

def test_any_function_and_any_result():
    class Mine:
        def __init__(self): self.rank = dist.get_rank()
    here = 3
    def inner(n): return n + here + dist.get_rank()
    assert launch(inner, 2, 4) == [7, 8] and launch(lambda: here, 1) == [3]
    assert [(type(x) is Mine, x.rank) for x in launch(lambda: Mine(), 2)] == [(True, 0), (True, 1)]
    assert [times(5) for times in launch(lambda: partial(operator.mul, dist.get_rank()), 2)] == [0, 5]
    assert [f(5) for f in launch(lambda n: lambda x: x + n, 2, 1)] == [6, 6]


def test_the_traceback_of_a_local_function_shows_its_file():
    def inner(): raise ValueError('on purpose')
    lines = failure(inner, 2).splitlines()
    assert f'  File "{__file__}"' in lines[2] and lines[3] == "    def inner(): raise ValueError('on purpose')", lines


WORK = """import time
import torch.distributed as dist
from llmbook.scale.ranks import launch

def work(counts):
    if dist.get_rank() == 1:
        share = 12 / counts[1]  # the line
    dist.barrier()
"""
GLOBALS = """
total, launched = [100], launch(len, 1, 'warm')
class Mine:
    def __init__(self):
        total[0] += dist.get_rank()
        self.total = total[0]
made = launch(lambda: Mine(), 3)
[type(x) is Mine for x in made], [x.total for x in made], total
"""
LINE = '", line 7, in work\n    share = 12 / counts[1]  # the line\n'


def test_a_notebook(tmp_path):
    "Globals of a cell are copies; an error of one rank shows the cell's line, and no path; all ranks end within seconds."
    import nbformat  # here, since every rank imports this module
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (WORK, GLOBALS, 'launch(work, 3, [4, 0, 3])')])
    client = NotebookClient(nb, timeout=90, kernel_name='python3', allow_errors=True)
    with client.setup_kernel(env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'), cwd=str(tmp_path)):
        for i in (0, 1): client.execute_cell(nb.cells[i], i)
        began = time.monotonic()
        client.execute_cell(nb.cells[2], 2)
        seconds, left = time.monotonic() - began, launched_by(client.km.provisioner.pid)
    [shown], [error] = nb.cells[1].outputs, nb.cells[2].outputs
    assert shown['data']['text/plain'] == '([True, True, True], [100, 101, 102], [100])'
    assert error.ename == 'RuntimeError' and error.evalue.startswith('rank 1: ZeroDivisionError: division by zero\n')
    assert '  File "<cell 1>' + LINE in error.evalue and error.evalue.count('File') == error.evalue.count('rank 1') == 1
    assert not re.search('rank [02]|ipykernel', error.evalue) and not left and seconds < DEADLINE, (error.evalue, left, seconds)


@pytest.mark.slow
@pytest.mark.parametrize('command, file', [([sys.executable, '-c'], '<string>'), (['-m', 'IPython', '-c'], '<cell [0-9]+>')])
def test_a_program_without_a_file(command, file):
    process = start(*([] if command[0] == sys.executable else [sys.executable]), *command, WORK + 'launch(work, 2, [4, 0])')
    out = ''.join(process.communicate(timeout=90))
    assert process.returncode != 0 and re.search(f'File "{file}", line 7, in work\n', out), out
    assert file == '<string>' or re.search(f'File "{file}{re.escape(LINE)}', out), out


def error(): raise ValueError('on purpose')


class Stubborn:
    def __init__(self, where): self.where = where

    def __getstate__(self): return self.where if self.where == 'there' else error()

    def __setstate__(self, state): error()


def test_results_that_do_not_travel():
    assert failure(Stubborn, 2, 'here').startswith('rank ')
    assert failure(Stubborn, 1, 'there').startswith('rank 0: what it returned cannot be read here (on purpose')
    assert 'TypeError: cannot pickle' in failure(iterate, 2)


def iterate(): return (i for i in 'abc')


def thread_left_behind(): threading.Thread(target=time.sleep, args=(1000,)).start()


def test_a_thread_left_behind_holds_nobody_up():
    assert launch(thread_left_behind, 2) == [None]*2 and nothing_left()


def test_a_result_cut_short():
    ours, theirs = Pipe(duplex=False)
    os.write(theirs.fileno(), (1000).to_bytes(4, 'big') + pickle.dumps(('done', 'half')))
    theirs.close()
    with pytest.raises(RuntimeError, match='rank 0: ended without a word'): ranks._collect_results([ours])


def asleep(): time.sleep(1000)


def test_an_interrupted_parent():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with `&` ignores it
    try:
        threading.Timer(1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt): launch(asleep, 2)
    finally: signal.signal(signal.SIGINT, before)
    assert nothing_left()


# From outside

SCRIPT = """
import sys, time
from llmbook.scale.ranks import launch
class Mine: pass
print('once', launch(abs, 2, -5), flush=True)
print([type(x) is Mine for x in launch(lambda x: Mine(), 2, Mine)], flush=True)
try: launch(len, 2, Mine())
except RuntimeError as e: print(str(e).splitlines()[0], flush=True)
print('now', flush=True)
launch(time.sleep, 3, 1000)
"""


def start(*command, **env):
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1') | env
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize('ready', [3, 1])
def test_a_killed_parent_takes_its_ranks_along(tmp_path, ready):
    "A script, unguarded by its name: it runs once. Killed while its ranks work, or while they still start."
    script = tmp_path/'script.py'
    script.write_text(SCRIPT)
    process = start(sys.executable, script)
    assert process.stdout.readline() == 'once [5, 5]\n'
    assert process.stdout.readline() == '[True, True]\n'
    assert re.match(r"rank \d: TypeError: object of type 'Mine' has no len\(\)", process.stdout.readline())
    assert process.stdout.readline() == 'now\n'
    while len(launched_by(process.pid)) < ready: time.sleep(0.01)
    if ready == 3: time.sleep(1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, left = psutil.wait_procs(family, timeout=DEADLINE)
    assert not left and len(family) >= 2 + ready and process.communicate()[1] == '', family


# The environment, and who waits for whom

@pytest.mark.parametrize('env, words', [
    (dict(RANK='5', WORLD_SIZE='2'), 'RANK=5: must be less than WORLD_SIZE=2'), (dict(RANK='0', WORLD_SIZE='0'), 'WORLD_SIZE=0'),
    (dict(RANK='-1', WORLD_SIZE='2'), 'RANK=-1: not a whole number'), (dict(RANK='one', WORLD_SIZE='2'), 'RANK=one'),
    (dict(RANK='0', WORLD_SIZE='2.0'), 'WORLD_SIZE=2.0'), (dict(RANK='', WORLD_SIZE='2'), 'RANK=: not'),
    (dict(RANK='0', WORLD_SIZE='9'*40), 'WORLD_SIZE=9'), (dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='x'), 'LOCAL_RANK=x'),
    (dict(RANK='0', WORLD_SIZE='2', LOCAL_SIZE='x'), 'LOCAL_SIZE=x'), (dict(RANK='0', WORLD_SIZE='2'), 'MASTER_ADDR: not set'),
    (dict(RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1'), 'MASTER_PORT: not set'),
    (dict(RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='http'), 'MASTER_PORT=http: not a whole'),
    (dict(RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='70000'), 'MASTER_PORT=70000: ports end'),
    (dict(RANK='0', WORLD_SIZE='2', LLMBOOK_STORE='rubbish'), 'LLMBOOK_STORE=rubbish'),
    (dict(RANK='0', WORLD_SIZE='2', LLMBOOK_STORE='tcp://host:1'), 'LLMBOOK_STORE=tcp://host:1')])
def test_an_environment_that_makes_no_sense_is_one_line_at_once(monkeypatch, capfd, env, words):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items(): monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks.os, '_exit', sys.exit)
    monkeypatch.setattr(guard, 'ignore_signals', lambda *numbers: None)
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught, ranks.as_rank(): pass
    said = capfd.readouterr().err
    assert caught.value.code == 2 and words in said and said.count('\n') == 1 and time.monotonic() - began < 2, said


def wait_for(monkeypatch, rank, world, *others, local=0):
    "One rank, and the others that have signed in, at a server of its own: what it says, and how it ends."
    monkeypatch.setattr(meeting, 'PATIENCE', (0.5, 0.15))
    monkeypatch.setattr(meeting.os, '_exit', lambda code: pytest.exit(str(code)) if code != 2 else sys.exit(code))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    for name, value in dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)).items(): monkeypatch.setenv(name, value)
    said = []
    if rank: server = dist.TCPStore('127.0.0.1', port, world, True, wait_for_workers=False) if others else None
    real = dist.PrefixStore
    def board(prefix, store):
        for r in others: store.set(f'{prefix}/here{r}', '1')
        return real(prefix, store)
    monkeypatch.setattr(meeting.dist, 'PrefixStore', board)
    try: meeting.meet(rank, world, local, said.append)
    except (UserError, SystemExit) as e: return said, str(e), server if rank else None
    return said, 'met', None


@pytest.mark.parametrize('rank, world, others, local, first, last', [
    (0, 3, (), 0, 'rank 0 waits for ranks 1, 2 of 3 at 127.0.0.1:', 'ranks 1, 2 of 3 did not come within'),
    (0, 3, (2,), 0, 'rank 0 waits for rank 1 of 3 at 127', 'rank 1 of 3 did not come within'),
    (0, 12, (), 0, 'rank 0 waits for ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more of 12', 'and 3 more of 12 did not'),
    (1, 2, (), 1, 'rank 1 waits for rank 0 of 2 at 127', 'rank 0 of 2 did not come within'),
    (4, 8, (), 0, 'rank 4 waits for rank 0 of 8', 'rank 0 of 8 did not come'),
    (5, 8, (), 1, None, '2'), # another rank of this machine speaks
    (2, 4, (0,), 0, None, '2'), # rank 0 is there, and speaks
    (0, 2, (1,), 0, None, 'met')])
def test_whoever_waits_says_for_whom(monkeypatch, rank, world, others, local, first, last):
    said, end, _ = wait_for(monkeypatch, rank, world, *others, local=local)
    assert last in end and '\n' not in end and (end == last or first is not None), end
    if first is None: assert not said
    else: assert len(said) >= 2 and all(line.startswith(first) for line in said), said


def test_two_ranks_of_one_number(monkeypatch):
    assert 'RANK=1: another process at' in wait_for(monkeypatch, 1, 3, 0, 1)[1]


# Threads

@pytest.mark.parametrize('chosen, beside, cores, threads', [
    (None, 2, 8, 4), (None, 3, 8, 2), (None, 16, 8, 1), (None, 0, 8, 8), ('3', 2, 8, 3), ('1', 1, 8, 1), ('4,2', 1, 8, 4),
    ('', 2, 8, 4), ('0', 2, 8, 4), ('many', 2, 8, 4), ('-2', 2, 8, 4)])
def test_threads_are_a_part_of_the_usable_cores(monkeypatch, chosen, beside, cores, threads):
    monkeypatch.setattr(ranks, 'usable_cores', lambda: cores)
    if chosen is None: monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    else: monkeypatch.setenv('OMP_NUM_THREADS', chosen)
    assert ranks._threads(beside) == threads


# Signals that are handed down

SIGNALS = 'import signal; print(*(signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)))'


def handed_down(): return subprocess.run([sys.executable, '-c', SIGNALS], capture_output=True, text=True).stdout.split()


def after_abort():
    "What a program sees that a failing rank has still started."
    real, seen = os._exit, []
    guard.os._exit = lambda code: seen.append(handed_down()) or sys.exit(code)
    guard.print_error, watchdog, guard._GUARD = (lambda text: None), guard._GUARD, None
    try: guard.abort(ValueError('on purpose'))
    except SystemExit: pass
    finally: guard.os._exit, guard._GUARD = real, watchdog
    return handed_down(), *seen


def test_no_program_that_a_rank_starts_ignores_signals():
    "A rank itself is deaf to Ctrl-C, since its parent decides, and a failing one to SIGTERM; programs that they start are not."
    assert launch(after_abort, 1) == [(['False']*3, ['False']*3)]


# One folder, one process

def try_to_lock(folder):
    try: FolderLock(folder).release()
    except UserError as e: return str(e)


def test_a_rank_does_not_hold_its_parents_lock(tmp_path):
    with FolderLock(tmp_path): refused = launch(try_to_lock, 2, tmp_path)
    assert [f'process {os.getpid()} on' in said for said in refused] == [True]*2
    assert try_to_lock(tmp_path) is None


RANKS = """
import os, signal, sys
from llmbook.cli import main, signals_as_errors
from llmbook.core import UserError
from llmbook.scale.ranks import as_rank
import torch.distributed as dist
kind = os.environ['KIND']
if kind == 'verb': main(['generate', '--model', 'nowhere', '--prompt', 'a'])
with signals_as_errors(), as_rank():
    print('rank', os.environ['RANK'], 'speaks', flush=True)
    if kind == 'exit': sys.exit(3)
    if kind == 'all are asked': os.kill(os.getpid(), signal.SIGTERM)
    if dist.get_rank() == 1: raise UserError('on purpose')
    dist.barrier()
"""


@pytest.mark.parametrize('kind, code, out, said', [
    ('exit', 3, 'rank 0 speaks\n', ''), ('mistake', 2, 'rank 0 speaks\n', 'llmbook: rank 1: on purpose\n'),
    ('all are asked', 143, 'rank 0 speaks\n', 'llmbook: rank .: stopped by SIGTERM; nothing was saved\n'),
    ('verb', 2, '', 'llmbook: rank 0: .*nowhere.*\n')])
def test_as_rank(kind, code, out, said):
    """Without a launcher, by the environment alone. The tests of the launchers break more.

    All are asked by SIGTERM at once, and one speaks; a verb that is no training is rank 0's alone, which fails for all."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
    processes = [start(sys.executable, '-c', RANKS, RANK=str(r), LOCAL_RANK=str(r), KIND=kind, **where) for r in range(2)]
    (out0, err), (out1, err1) = [p.communicate(timeout=60) for p in processes]
    assert [p.returncode for p in processes] == [code, code] and (out0, out1) == (out, '')
    assert re.fullmatch(said, err + err1), err + err1
