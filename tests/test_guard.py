"When a rank breaks: every way in which a rank can fail, the one message about it; afterwards nothing is left."
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from test_ranks import failure

from llmbook.core import Diverged, Interrupted, UserError
from llmbook.scale import guard, ranks
from llmbook.scale.collectives import ring_all_reduce
from llmbook.scale.guard import guarded, heartbeat
from llmbook.scale.ranks import launch


# Every way to fail

def wait_unless(rank, act, *args):
    "One rank does something, the others wait for it in a collective."
    if dist.get_rank() == rank: act(*args)
    dist.barrier()


def error(): raise ValueError('on purpose\nand more')


def mistake(): raise UserError('--batch-size 3: on purpose')


def runtime_error(): raise RuntimeError('on purpose')


def test_an_error_while_another_is_in_a_collective():
    text = failure(wait_unless, 3, 1, error)
    lines = text.splitlines()
    assert lines[0] == 'rank 1: ValueError: on purpose' and lines[2].startswith('Traceback') and text.count('rank ') == 1
    assert [line for line in lines if 'File "' in line][0].split('"')[1] == __file__ # nothing of what started the process


def test_a_mistake_has_no_traceback():
    assert failure(wait_unless, 2, 0, mistake) == 'rank 0: --batch-size 3: on purpose'


def test_an_error_that_may_be_an_echo_is_told_too():
    assert failure(wait_unless, 2, 1, runtime_error, hang_timeout=1).startswith('rank 1: RuntimeError: on purpose\nTraceback')


@pytest.mark.parametrize('fn', [error, runtime_error])
def test_all_fail_at_once_and_one_speaks(fn):
    assert re.match(r'rank \d: \w+Error: on purpose', text := failure(fn, 4)) and text.count('rank ') == 1


@pytest.mark.parametrize('act, what', [(signal.raise_signal, signal.SIGKILL), (os._exit, 0)])
@pytest.mark.parametrize('world', [1, 3])
def test_gone_without_a_word(act, what, world):
    assert failure(wait_unless, world, world - 1, act, what).startswith(f'rank {world - 1}: ended without a word')


class WhileJoining:
    "One rank is killed while the ranks join, and the others hear of it from their connections."
    def __reduce__(self): return break_joining, ()


def break_joining():
    def lost(*args, **how): raise RuntimeError('connection closed by peer')
    kill = lambda *args, **how: signal.raise_signal(signal.SIGKILL)
    dist.init_process_group = kill if os.environ['RANK'] == '2' else lost


def test_gone_while_the_ranks_join():
    assert failure(print, 3, WhileJoining()).startswith('rank 2: ended without a word')


@pytest.mark.parametrize('code', [0, 3])
def test_sys_exit_is_a_failure(code):
    assert failure(wait_unless, 2, 1, sys.exit, code).startswith(f'rank 1: SystemExit: {code}')


def asleep(): time.sleep(1000)


def ring_with_two_missing():
    if dist.get_rank() == 1: asleep()
    if dist.get_rank() == 2: signal.raise_signal(signal.SIGSTOP)
    ring_all_reduce(torch.ones(4))


def test_a_hang_shows_the_stuck_ranks_stack():
    "One sleeps, one cannot even answer; the two that wait in the ring are not stuck."
    text = failure(ring_with_two_missing, 4, hang_timeout=1)
    head = 'ranks 1, 2: stuck for 1 s while rank 0 was at: ring_with_two_missing; the stack of each stuck rank:'
    assert text.startswith(f'{head}\nrank 1\n')
    frames = [line for line in text.splitlines() if 'File "' in line]
    assert all(__file__ in line for line in frames) and 'in asleep' in frames[-1] and 'time.sleep(1000)' in text
    assert text.endswith('\nrank 2\nno answer') and text.count('\nrank ') == 2


def each_waits_for_the_other(): dist.recv(torch.ones(1), 1 - dist.get_rank())


def test_a_deadlock_shows_all_stacks():
    text = failure(each_waits_for_the_other, 2, hang_timeout=1)
    assert text.startswith('ranks 0, 1: stuck for 1 s at: each_waits_for_the_other; ')
    assert text.count('in each_waits_for_the_other') == 2


def waits_for_a_sleeper():
    "A message under way, waited for by the request itself and not inside a collective."
    if dist.get_rank() == 1: asleep()
    request = dist.irecv(torch.ones(1), 1)
    request.wait()


def test_who_waits_for_a_message_is_not_stuck():
    assert failure(waits_for_a_sleeper, 2, hang_timeout=1).startswith('rank 1: stuck for 1 s while rank 0 was at: waits')


def busy():
    "Longer than the timeout, but something gets done; and a guarded block in a guarded block."
    for i in range(6):
        heartbeat(f'part {i}')
        with guarded('inside'): time.sleep(0.3)
    return True


def test_the_timeout_counts_from_the_last_beat(): assert launch(busy, 2, hang_timeout=1) == [True]*2


# Imports take their time

class Imports:
    "Imports a module wherever it is received."
    def __init__(self, *where): self.where = where

    def __reduce__(self): return import_from, self.where


def import_from(folder, name):
    sys.path.insert(0, folder)
    return __import__(name).__name__


def import_and_meet(received, folder):
    if dist.get_rank() == 1: import_from(folder, 'in_the_function')
    dist.barrier()
    return received


def test_a_rank_that_imports_is_not_stuck(tmp_path):
    "Neither before the function begins, nor inside it, where a lazy import of a large library may take minutes."
    for name in ('while_receiving', 'in_the_function'): (tmp_path/f'{name}.py').write_text('import time; time.sleep(2.5)')
    received = Imports(str(tmp_path), 'while_receiving')
    assert launch(import_and_meet, 2, received, str(tmp_path), hang_timeout=0.5) == ['while_receiving']*2


# Signals

def raise_interrupted(number, frame): raise Interrupted(number)


def asked_in_vain():
    signal.signal(signal.SIGTERM, raise_interrupted)
    guard.watch_signals()
    if dist.get_rank() == 0: asleep()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    dist.barrier()


def test_a_signal_is_heard_in_a_collective():
    assert failure(asked_in_vain, 2) == 'rank 1: stopped by SIGTERM; nothing was saved'


# Without other ranks

def test_alone_everything_does_nothing():
    assert guard._GUARD is None and guard.alive(os.getpid()) and not guard.alive(2**22 + 1)
    with guarded('nothing'): heartbeat('nothing')
    guard.set_hang_timeout(1)
    guard.silence_watchdog()
    guard.stop_watchdog()
    assert json.loads(json.dumps(guard.stack_of_main()))[0].startswith('  File')


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 0, 1)])
def test_whoever_claims_first_speaks_alone(order):
    store, said = dist.HashStore(), []
    with ThreadPoolExecutor() as pool: dogs = list(pool.map(lambda r: guard.Watchdog(store, r, 3, said.append), range(3)))
    assert [sorted(dog.neighbours) for dog in dogs] == [[1, 2], [0, 2], [0, 1]]
    for r in order: guard._claim(dogs[r], f'rank {r}: on purpose', 1)
    assert said == [f'rank {order[0]}: on purpose']


@pytest.mark.parametrize('waits, stuck, where', [
    ({0: True, 1: False, 2: True}, [1], 'while rank 0 was at: task 0'), ({0: False, 1: True}, [0], 'while rank 1 was at: task 1'),
    ({0: False, 1: False}, [0, 1], 'at: task 0'), ({0: True, 1: True}, [0, 1], 'at: task 0'),
    ({1: True}, [0], 'while rank 1 was at: task 1'), ({}, [0, 1], 'at: an unknown task')])
def test_whom_the_others_wait_for(waits, stuck, where):
    "A rank that waits is not stuck, unless all wait; a rank that does not answer is."
    stacks = {r: (f'  at {r}\n', wait, f'task {r}') for r, wait in waits.items()}
    found, text = guard._hang_message(stacks, max(2, len(waits)), 30)
    who = 'ranks 0, 1' if len(stuck) == 2 else f'rank {stuck[0]}'
    assert found == stuck and text.startswith(f'{who}: stuck for 30 s {where}; the stack of each stuck rank:\n')
    assert re.findall(r'^rank (\d)$', text, re.M) == [str(r) for r in stuck]
    assert [f'  at {r}' in text for r in waits] == [r in stuck for r in waits]


class PanicException(BaseException): "As libraries in Rust raise it."


@pytest.mark.parametrize('error, code, said', [
    (UserError('--steps 0'), 2, '--steps 0'), (Diverged('loss 9'), 3, 'loss 9'),
    (OSError(28, 'No space left', 'a.bin'), 2, 'a.bin: no space'), (MemoryError(), 2, 'out of memory'),
    (PanicException('index'), 2, 'PanicException: index'), (BrokenPipeError(), 141, ''),
    (KeyboardInterrupt(), 130, 'interrupted; nothing was saved'), (Interrupted(15), 143, 'stopped by SIGTERM; nothing'),
    (Interrupted(2, 'saved at step 3'), 130, 'saved at step 3'),
    (RuntimeError('late\nvery'), 1, 'a fault of llmbook, .*RuntimeError: late very')])
def test_abort_is_one_line_and_the_code_of_a_single_process(monkeypatch, capfd, error, code, said):
    "A rank that is alone, or has left the others already: no watchdog, and nobody to wait for."
    monkeypatch.setattr(guard.os, '_exit', sys.exit)
    monkeypatch.setattr(guard, 'ignore_signals', lambda *numbers: None)
    monkeypatch.setenv('RANK', '3')
    assert guard._GUARD is None
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught: guard.abort(error)
    err = capfd.readouterr().err
    assert caught.value.code == code and time.monotonic() - began < 1
    assert re.match(f'llmbook: rank 3: {said}', err) and err.count('\n') == 1 if said else err == ''


@pytest.mark.parametrize('debug', [False, True])
def test_a_traceback_only_with_debug(monkeypatch, capfd, debug):
    monkeypatch.setattr(guard.os, '_exit', sys.exit)
    monkeypatch.setattr(guard, 'ignore_signals', lambda *numbers: None)
    monkeypatch.setattr(ranks, 'join_ranks', lambda: None)
    with pytest.raises(SystemExit) as caught, ranks.as_rank(debug): error()
    err = capfd.readouterr().err
    assert caught.value.code == 1 and err.startswith('llmbook: rank 0: a fault of llmbook') and ('Traceback' in err) == debug
    assert debug or err.count('\n') == 1


@pytest.mark.parametrize('imports, said', [(600.0, []), (0.0, ['rank 1: stuck for 2 s while rank 0 was at: step 1'])])
def test_patience_with_imports_has_an_end(monkeypatch, imports, said):
    "Rank 0 waits, rank 1 imports, and rank 0 notices that time is up."
    store, told = dist.HashStore(), []
    with ThreadPoolExecutor() as pool: dogs = list(pool.map(lambda r: guard.Watchdog(store, r, 2, told.append, 2), range(2)))
    stacks = [('  all_reduce\n', True), ('  File "<frozen importlib._bootstrap>", line 1, in _find_and_load\n', False)]
    monkeypatch.setattr(guard.os, 'kill', lambda *args: None)
    dogs[0].store.set('hang0', '0')
    for dog in dogs: dog.task, dog.imports = ('step 1', 0.0), imports
    for r in (1, 0, 1):
        monkeypatch.setattr(guard, 'stack_of_main', lambda r=r: stacks[r])
        guard._hang(dogs[r])
    assert [text.split(';')[0] for text in told] == said
    assert [dog.turn for dog in dogs] == ([1, 1] if imports else [0, 0])
    assert all((dog.task[1] > 0) == bool(imports) for dog in dogs)


def test_a_zombie_is_not_alive():
    process = subprocess.Popen(['true'])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended; its exit code is still to be asked for
    assert not guard.alive(process.pid)
    assert process.wait() == 0
