"Ranks: what the ring adds up and sends, what `launch` does, and every way in which a rank can fail; afterwards nothing is left."
import json
import math
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

from llmbook.core import UserError, generator
from llmbook.model.transformer import Config, Transformer
from llmbook.scale import ranks
from llmbook.scale.ranks import all_reduce_bytes, heartbeat, guarded, launch
from llmbook.text.batches import IGNORE
from llmbook.train.clm import CLM

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 10 # seconds after which nothing may be left
ranks.PRELOAD += ['pytest', 'llmbook.train.clm'] # what this module imports, so that not every rank has to


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


# The ring

KINDS = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 5e-2, torch.int64: 0, torch.int32: 0, torch.uint8: 0}
SHAPES = [(), (0,), (1,), (2,), (3,), (7,), (3, 5), (1000,)]


def numbers(rank, kind, shape):
    x = torch.randn(shape, generator=generator(0, 'ring', rank, shape))
    return x.to(kind) if kind.is_floating_point else (10*x.abs()).to(kind)


def sums():
    "On every rank, for every kind and shape: what the two ways by hand and PyTorch make of it, and the bytes sent."
    found = {}
    for kind in KINDS:
        for shape in SHAPES:
            ring, star, torchs = (numbers(dist.get_rank(), kind, shape) for _ in range(3))
            sent = ranks.ring_all_reduce(ring), ranks.star_all_reduce(star)
            dist.all_reduce(torchs)
            found[kind, shape] = ring, star, torchs, sent
    return found


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_the_ring_is_an_all_reduce(world):
    each = launch(sums, world)
    for (kind, shape), (ring, star, torchs, _) in each[0].items():
        inputs = [numbers(r, kind, shape) for r in range(world)]
        close = partial(torch.testing.assert_close, rtol=KINDS[kind], atol=KINDS[kind])
        for found in (ring, star, torchs): close(found, sum(inputs[1:], inputs[0]))
        if world <= 2: assert torch.equal(ring, torchs), (kind, shape) # only one order
        n, item = inputs[0].numel(), inputs[0].element_size()
        for rank in range(world):
            for ours, theirs in zip(each[rank][kind, shape][:3], (ring, star, torchs)): assert torch.equal(ours, theirs)
            sent, naive = each[rank][kind, shape][3]
            assert abs(sent - all_reduce_bytes(n*item, world)) <= 2*(world - 1)*item
            assert naive == n*item*(world - 1 if rank == 0 else 1)*(world > 1)


def test_the_ring_refuses_what_it_could_not_change():
    assert 'view' in failure(ranks.on_own, 2, ranks.ring_all_reduce, [torch.ones(4, 4).t()[1:]]*2)


def collectives():
    x, world = torch.arange(1, 7) * 10**dist.get_rank(), dist.get_world_size()
    names = 'broadcast', 'reduce', 'all_reduce', 'all_gather', 'reduce_scatter', 'all_to_all', 'barrier'
    found = {name: ranks.collective(x, name) for name in names}
    assert torch.equal(x, torch.arange(1, 7) * 10**dist.get_rank()) and world == 3
    return found


def test_collectives():
    each, rows = launch(collectives, 3), [torch.arange(1, 7) * 10**r for r in range(3)]
    for r, found in enumerate(each):
        assert torch.equal(found['broadcast'], rows[0]) and torch.equal(found['barrier'], rows[r])
        assert torch.equal(found['all_reduce'], sum(rows)) and torch.equal(found['all_gather'], torch.cat(rows))
        assert torch.equal(found['reduce_scatter'], sum(rows)[2*r:2*r + 2])
        assert torch.equal(found['all_to_all'], torch.cat([row[2*r:2*r + 2] for row in rows]))
    assert torch.equal(each[0]['reduce'], sum(rows))
    assert failure(ranks.on_own, 1, ranks.collective, rows, 'all_reduced').startswith('rank 0: all_reduced: no such')


@pytest.mark.parametrize('world', [1, 2, 3])
def test_gradient_of_many_is_that_of_one(world):
    model = Transformer(Config(vocab_size=40, block_size=8, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32), seed=0)
    ids = torch.randint(40, (7, 9), generator=generator(0, 'ids'))
    labels = ids[:, 1:].masked_fill(torch.arange(8) >= torch.arange(1, 8)[:, None], IGNORE) # counts of 1 to 7
    batch = dict(ids=ids[:, :-1], labels=labels)
    loss, _ = CLM()(model, batch, CLM().counts(batch))
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    each = launch(ranks.ring_gradient, world, model, batch, CLM())
    for l, g, _ in each:
        assert abs(l - loss.item()) < 1e-6 and (g - whole).abs().max() < 1e-6 and torch.equal(g, each[0][1])


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
    with pytest.raises(UserError, match='launch: <lambda> and its arguments cannot be sent'): launch(lambda: 0, 2)
    with pytest.raises(UserError, match='launch: len and its arguments cannot be sent'): launch(len, 2, (i for i in 'abc'))
    assert launch(partial(int, base=2), 2, '101') == [5, 5]


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
    ranks.ring_all_reduce(torch.ones(4))


def test_a_hang_shows_the_stuck_ranks_stack():
    "One sleeps, one cannot even answer; the two that wait in the ring are not stuck."
    text = failure(ring_with_two_missing, 4, hang_timeout=1)
    assert text.startswith('rank 1, 2: stuck for 1 s while rank 0 was at: ring_with_two_missing; what it was doing:\nrank 1\n')
    frames = [line for line in text.splitlines() if 'File "' in line]
    assert all(__file__ in line for line in frames) and 'in asleep' in frames[-1] and 'time.sleep(1000)' in text
    assert text.endswith('\nrank 2\nno answer') and text.count('\nrank ') == 2


def each_waits_for_the_other(): dist.recv(torch.ones(1), 1 - dist.get_rank())


def test_a_deadlock_shows_all_stacks():
    text = failure(each_waits_for_the_other, 2, hang_timeout=1)
    assert text.startswith('rank 0, 1: stuck for 1 s') and text.count('in each_waits_for_the_other') == 2


def busy():
    "Longer than the patience, but something gets done; and a guarded block in a guarded block."
    for i in range(6):
        heartbeat(f'part {i}')
        with guarded('inside'): time.sleep(0.3)
    return True


def test_patience_counts_from_the_last_beat(): assert launch(busy, 2, hang_timeout=1) == [True]*2


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
    with pytest.raises(RuntimeError, match='rank 0: ended without a word'): ranks.collect_results([ours])


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
try: launch(len, 2, Mine())
except RuntimeError as e: print(str(e).splitlines()[0], flush=True)
print('now', flush=True)
launch(time.sleep, 3, 1000)
"""


def start(*command, **env):
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1') | env
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize('ready', [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_parent_takes_its_ranks_along(tmp_path, ready):
    "A script, unguarded by its name: it runs once. Killed while its ranks work, or while they still start."
    script = tmp_path/'script.py'
    script.write_text(SCRIPT)
    process = start(sys.executable, script)
    assert process.stdout.readline() == 'once [5, 5]\n'
    assert re.match(r"rank \d: AttributeError: Can't get attribute 'Mine'", process.stdout.readline())
    assert process.stdout.readline() == 'now\n'
    while len(launched_by(process.pid)) < ready: time.sleep(0.01)
    if ready == 3: time.sleep(1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, left = psutil.wait_procs(family, timeout=DEADLINE)
    assert not left and len(family) >= 2 + ready and process.communicate()[1] == '', family


RANKS = """
import os, sys
from llmbook.core import UserError
from llmbook.scale.ranks import as_rank
import torch.distributed as dist
with as_rank():
    print('rank', os.environ['RANK'], 'speaks', flush=True)
    if os.environ['KIND'] == 'exit': sys.exit(3)
    if dist.get_rank() == 1: raise UserError('on purpose')
    dist.barrier()
"""


@pytest.mark.parametrize('kind, code, said', [('exit', 3, ''), ('mistake', 2, 'llmbook: rank 1: on purpose\n')])
def test_as_rank(kind, code, said):
    "Without a launcher, by the environment alone. The tests of the launchers break more."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
    processes = [start(sys.executable, '-c', RANKS, RANK=str(r), LOCAL_RANK=str(r), KIND=kind, **where) for r in range(2)]
    (out, err), (out1, err1) = [p.communicate(timeout=60) for p in processes]
    assert [p.returncode for p in processes] == [code, code] and (out, out1, err + err1) == ('rank 0 speaks\n', '', said)


def test_alone_everything_does_nothing():
    assert ranks.GUARD is None and ranks.launcher_chain() == [] and ranks.alive(os.getpid()) and not ranks.alive(2**22 + 1)
    with guarded('nothing'): heartbeat('nothing')
    ranks.set_hang_timeout(1)
    ranks.leave_ranks()
    assert json.loads(json.dumps(ranks.stack_of_main()))[0].startswith('  File')
