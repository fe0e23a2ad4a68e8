"One function in many processes: order, errors, death, threads, and a parent that is killed."
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from llmbook.core import UserError
from llmbook.text import workers
from llmbook.text.workers import parallel_map


@pytest.fixture(autouse=True)
def at_once(monkeypatch): monkeypatch.setattr(workers, '_ALONE', 0)


def reorder(i):
    time.sleep((i * 7 % 5) / 500)
    return i, os.getpid()


def fail(i):
    if i == 5: raise UserError('give another number')
    if i == 6: raise ValueError('unexpected')
    return i


def die(i):
    if i == 5: os.kill(os.getpid(), signal.SIGKILL)
    return i


def interrupt(i):
    if i % 3 == 0: os.kill(os.getpid(), signal.SIGINT)
    return i


def test_results_come_in_order_and_from_other_processes():
    results = list(parallel_map(reorder, range(50), 3))
    assert [i for i, _ in results] == list(range(50))
    processes = [pid for _, pid in results]
    assert processes[0] == os.getpid() and os.getpid() not in processes[1:] and len(set(processes)) == 4


def slow_second(i):
    if i == 1: time.sleep(1)
    return i


def test_little_is_read_ahead_although_one_item_is_slow():
    read = []
    results = parallel_map(slow_second, (read.append(i) or i for i in range(1000)), 2)
    assert [next(results), next(results)] == [0, 1] and len(read) == 1 + 8
    results.close()


def test_one_worker_is_this_process():
    assert {pid for _, pid in parallel_map(reorder, range(5), 1)} == {os.getpid()}


def both_fail(i):
    if i == 1: time.sleep(0.5)
    if i in (1, 2): raise ValueError(f'item {i}')
    return i


def test_the_first_error_is_reported_although_a_later_one_came_sooner():
    read = []
    results = parallel_map(both_fail, (read.append(i) or i for i in range(100)), 2)
    assert next(results) == 0
    with pytest.raises(RuntimeError, match='item 1$'): next(results)
    assert read == [0, 1, 2] # nothing was begun after the error


def threads(_):
    import torch
    return torch.get_num_threads()


def test_torch_does_not_undo_the_one_thread_at_its_first_use():
    import torch
    counts, before = [], torch.get_num_threads()
    def fresh(): # in a thread that has not used torch
        torch.set_num_threads(2)
        counts.extend(parallel_map(threads, range(3), 1))
        counts.append(torch.get_num_threads())
    thread = threading.Thread(target=fresh)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert counts == [1, 1, 1, 2]


def test_an_error_comes_through_and_a_dead_worker_is_noticed():
    with pytest.raises(UserError, match='^give another number$'): list(parallel_map(fail, range(1, 6), 2))
    with pytest.raises(RuntimeError, match='^in a worker: ValueError: unexpected$'): list(parallel_map(fail, [1, 6], 2))
    with pytest.raises(UserError, match='ended by SIGKILL.*give fewer workers'): list(parallel_map(die, range(20), 2))


def test_ctrl_c_does_not_reach_a_worker():
    assert list(parallel_map(interrupt, range(1, 8), 2)) == list(range(1, 8))


def test_no_process_is_left_after_an_error_or_an_end():
    before = set(psutil.Process().children(recursive=True))
    for items in (range(20), range(3)):
        try: list(parallel_map(die, items, 2))
        except UserError: pass
    left = [p for p in set(psutil.Process().children(recursive=True)) - before if p.status() != 'zombie']
    assert len(left) <= 2 # the fork server and the tracker of resources, if this test is the first to start them


SCRIPT = """
import sys, time
print('script', flush=True)
def slow(i):
    time.sleep(30 if i else 0)
    return i
from llmbook.text import workers
workers._ALONE = 0
for i in workers.parallel_map(slow, range(9), 2): print(i, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_and_do_not_run_its_script(tmp_path, number):
    (tmp_path/'script.py').write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, tmp_path/'script.py'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in (b'script\n', b'0\n'): assert parent.stdout.readline() == line
    deadline = time.monotonic() + 60
    family = []
    while len(family) < 4 and time.monotonic() < deadline: # fork server, tracker and two workers
        time.sleep(0.1)
        family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 4
    time.sleep(1)
    parent.send_signal(number)
    out, err = parent.communicate(timeout=30)
    assert out == b'' # the script was run once
    _, alive = psutil.wait_procs(family, 10)
    assert not alive
