"The benchmarks run, on a small scale, and what they compare is the same."
import json
import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, needs('accelerate', 'peers')]  # Trainer's


def bench(script, *args, to):
    "Run a script; its printed lines, and what it kept."
    command = [sys.executable, ROOT/'benchmarks'/script, *map(str, args), '--json', to]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads(to.read_text())


def test_train_cpu(tmp_path):
    "Four contenders take turns; their losses agree, or the script would have ended."
    out, found = bench('train_cpu.py', '--sizes', 'nano', '--rows', 2, '--rounds', 2, '--steps', 3, '--threads', 1,
                       '--no-compiled', to=tmp_path/'cpu.json')
    row = found['sizes']['nano']
    assert list(row['found']) == ['ours', 'plain', 'trainer', 'ours giving back'] and row['losses_differ'] < 1e-3
    assert all(r['tokens_per_s'] > 0 and 0 < r['share_of_matmul'] < 1.5 for r in row['found'].values())
    assert out.count('tokens/s') == 4


def test_train_gpu_runs_anywhere(tmp_path):
    out, found = bench('train_gpu.py', '--models', 'nano', '--rows', 2, '--seconds', 0.1, '--levers', 1, to=tmp_path/'gpu.json')
    rows = found['models']['nano']
    assert [r['name'] for r in rows] == ['ours: fp32', 'ours: + bf16', 'Trainer', 'Trainer: + compile', 'ours: best, again']
    assert not [r for r in rows if 'failed' in r], rows
    assert all(r['tokens_per_s'] > 0 and 5 < r['loss'] < 8 for r in rows) and 'times Trainer' in out


def test_our_loop_beside_another_checkout(tmp_path):
    out, found = bench('train_cpu.py', '--beside', ROOT, '--sizes', 'nano', '--rows', 2, '--rounds', 1, '--steps', 3,
                       '--threads', 1, to=tmp_path/'beside.json')
    row = found['sizes']['nano']
    assert list(row['found']) == ['ours', 'before'] and row['losses_differ'] == 0 and 'over before' in out


def test_busy(tmp_path):
    out, found = bench('busy.py', '--rounds', 1, '--steps', 4, to=tmp_path/'busy.json')
    assert len(found['runs']) == 12 and sum(row['busy'] for row in found['runs']) == 6
    assert all(rate > 0 for row in found['runs'] for rate in row['tokens_per_s']) and 'quiet     one thread' in out
