"Commands in processes of their own, and how to kill them on the way."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def begun(*args):
    "Start an llmbook command."
    env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'}
    return subprocess.Popen([sys.executable, '-m', 'llmbook', *map(str, args)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished(*args):
    "Run an llmbook command to its end; what it said."
    process = begun(*args)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    return said


def killed_when(reached, *args):
    "Start a command, and kill it as soon as a condition holds."
    process = begun(*args)
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, 'it ended before it could be killed'
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def killed_after(checkpoints, out, *args):
    "Kill a run when it has so many checkpoints."
    folder = Path(out)/'checkpoints'
    killed_when(lambda: len(list(folder.glob('step-*'))) >= checkpoints, *args, '--out', out)


def killed_at_line(lines, out, *args):
    "Kill a run when its log has so many lines."
    log = Path(out)/'log.jsonl'
    killed_when(lambda: log.exists() and log.read_bytes().count(b'\n') >= lines, *args, '--out', out)
