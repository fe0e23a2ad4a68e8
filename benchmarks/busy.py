"""How fast a run is on a quiet machine and beside a process that keeps one core busy, by how its threads wait.

python benchmarks/busy.py [--size nano] [--steps 8] [--rounds 5] [--json FILE]

At the end of each parallel piece of work the threads wait for the slowest. OpenMP lets them spin, which is quickest
when every thread has a core, and slowest when one of them has to share it. Each contender is the command
`llmbook pretrain` as a user starts it; the way of waiting is set in its environment. Contenders take turns, first on
the quiet machine and then beside a process that computes without end, bound to the last core that this process may
use. A run's speed is the median over its steps without the first two; a ratio is between runs of the same round.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from llmbook.core import environment

ROOT = Path(__file__).resolve().parents[1]
WAITS = { # contender -> what is added to its environment
    'one thread': {'OMP_NUM_THREADS': '1'},
    'spin 300,000 times': {'GOMP_SPINCOUNT': '300000'}, # what GNU's OpenMP does by itself
    'spin 30,000 times': {'GOMP_SPINCOUNT': '30000'},
    'spin 5,000 times': {'GOMP_SPINCOUNT': '5000'},
    'as the command sets it': {}, # 1,000 times
    'sleep at once': {'OMP_WAIT_POLICY': 'passive'},
}


def llmbook(*args, env=()):
    "One command as its own process; what it prints is shown only if it fails."
    command = [sys.executable, str(ROOT/'llmbook'/'cli.py'), *map(str, args)]
    done = subprocess.run(command, env=os.environ | dict(env), capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)


@contextmanager
def neighbour(there):
    "If `there`, another process computes meanwhile on the last core."
    if not there:
        yield
        return
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, '-c', f'import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass'])
    try: yield
    finally:
        process.kill()
        process.wait()


def speed(folder, tokens, args, env):
    "Tokens per second of one run of `pretrain`."
    llmbook('pretrain', '--tokens', tokens, '--size', args.size, '--steps', args.steps, '--out', folder, env=env)
    lines = [json.loads(line) for line in (folder/'log.jsonl').read_text().splitlines()]
    return statistics.median(line['tokens_per_s'] for line in lines[2:] if 'tokens_per_s' in line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', default='nano')
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json')
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        llmbook('pretrain', '--stories', 2000, '--steps', 1, '--size', args.size, '--out', tmp/'first')
        for i in range(args.rounds):
            for busy in (False, True):
                for name, env in WAITS.items():
                    with neighbour(busy):
                        found = speed(tmp/f'{name}-{busy}-{i}', tmp/'first'/'tokens', args, env)
                    results.setdefault((busy, name), []).append(found)
                    print(i, 'busy' if busy else 'quiet', name, round(found), flush=True)
    alone = results[False, 'one thread']
    print('machine   waiting                 tokens per second   over one thread on the quiet machine')
    for (busy, name), found in results.items():
        ratio = statistics.median(a/b for a, b in zip(found, alone))
        print(f"{'busy' if busy else 'quiet':<9} {name:<23} {statistics.median(found):17,.0f}   {ratio:.2f}")
    if args.json:
        rows = [{'busy': busy, 'waiting': name, 'tokens_per_s': found} for (busy, name), found in results.items()]
        Path(args.json).write_text(json.dumps({'environment': environment(), 'runs': rows}, indent=1))


if __name__ == '__main__': main()
