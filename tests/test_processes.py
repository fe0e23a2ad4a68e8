"Processes of their own, and how many there may be: quotas, starts from many threads, starts that fail."
import math
import os
import sys
import threading

import pytest

from llmbook import processes

LIMITS = [ # /proc/self/cgroup, files, cores
    ('0::/', {'cpu.max': '200000 100000'}, 2), ('0::/', {'cpu.max': 'max 100000'}, math.inf), ('0::/', {}, math.inf),
    ('0::/a/b', {'a/cpu.max': '50000 100000', 'a/b/cpu.max': '400000 100000'}, 0.5), # the group above limits too
    ('0::/a', {'a/cpu.max': '300000 100000', 'cpu.max': '150000 100000'}, 1.5),
    ('4:cpu,cpuacct:/x', {'cpu/x/cpu.cfs_quota_us': '250000', 'cpu/x/cpu.cfs_period_us': '100000'}, 2.5),
    ('4:cpu:/', {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, math.inf),
    ('3:cpuset:/x\n0::/', {'cpuset/x/cpu.cfs_quota_us': '1', 'cpu.max': '300000 100000'}, 3),
    ('0::/', {'cpu.max': 'nonsense'}, math.inf), ('0::/', {'cpu.max': '1 0'}, math.inf),
    ('', {'cpu.max': '100000 100000'}, math.inf),
    ('0::/../elsewhere', {'cpu.max': '100000 100000'}, 1), # outside of what this container sees
]


@pytest.mark.parametrize('own, files, cores', LIMITS)
def test_the_quota_of_a_control_group(tmp_path, monkeypatch, own, files, cores):
    for name, text in files.items():
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_text(text + '\n')
    (tmp_path/'own').write_text(own + '\n')
    assert processes._group_cores(tmp_path, tmp_path/'own') == cores
    monkeypatch.setattr(processes, '_group_cores', lambda: cores)
    monkeypatch.setattr(processes.os, 'sched_getaffinity', lambda pid: {0, 5, 7}, raising=False)
    assert processes.usable_cores() == (3 if cores == math.inf else max(1, int(cores)))


def test_without_control_groups(tmp_path):
    assert processes._group_cores(tmp_path, tmp_path/'own') == math.inf


def answer(pipe, value): pipe.send((value, os.getpid(), os.getppid()))


def test_from_many_threads_at_once():
    main, answers = sys.modules['__main__'], []
    def start(value):
        process, pipe = processes.start_process(answer, (value,), [])
        answers.append((process, pipe.recv()))
    threads = [threading.Thread(target=start, args=(i,)) for i in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    for process, (_, own, parent) in answers:
        process.join(10)
        assert process.exitcode == 0 and own == process.pid and parent != os.getpid() # the fork server's
    assert sorted(value for _, (value, _, _) in answers) == list(range(6))
    assert sys.modules['__main__'] is main


def test_a_start_that_fails_leaves_the_script_in_its_place():
    main = sys.modules['__main__']
    with pytest.raises(Exception, match='pickle'): processes.start_process(answer, (threading.Lock(),), [])
    assert sys.modules['__main__'] is main


def test_the_pipe_ends_with_the_process():
    process, pipe = processes.start_process(os._exit, (), []) # `os._exit` of a pipe is an error, so it ends at once
    with pytest.raises(EOFError): pipe.recv()
    process.join(10)
    assert process.exitcode == 1
