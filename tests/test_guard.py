"When a rank breaks: every way in which a rank can fail, the one message about it; afterwards nothing is left."
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from test_ranks import failure

from llmbook.core import UserError
from llmbook.scale import guard
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


@pytest.mark.parametrize('error, code, said', [
    (UserError('--steps 0'), 2, 'llmbook: rank 3: --steps 0\n'),
    (RuntimeError('late'), 1, 'llmbook: rank 3: RuntimeError: late\n')])
def test_abort_without_a_watchdog(monkeypatch, capfd, error, code, said):
    "A rank that is alone, or has left the others already: no watchdog, and nobody to wait for."
    monkeypatch.setattr(guard.os, '_exit', sys.exit)
    monkeypatch.setattr(guard.signal, 'signal', lambda *args: None)
    monkeypatch.setenv('RANK', '3')
    assert guard._GUARD is None
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught: guard.abort(error)
    assert caught.value.code == code and capfd.readouterr().err.startswith(said) and time.monotonic() - began < 1


def test_a_zombie_is_not_alive():
    process = subprocess.Popen(['true'])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended; its exit code is still to be asked for
    assert not guard.alive(process.pid)
    assert process.wait() == 0
