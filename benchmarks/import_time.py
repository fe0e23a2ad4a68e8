"How long `import llmbook` takes, beside `import torch` alone: fresh processes, interleaved, medians."
import statistics
import subprocess
import sys
import time

CASES = {name: name for name in ('import llmbook', 'import llmbook.book', 'import torch')} | {'nothing': 'pass'}


def seconds(code):
    began = time.perf_counter()
    subprocess.run([sys.executable, '-c', code], check=True)
    return time.perf_counter() - began


def main(repeats=5):
    times = {name: [] for name in CASES}
    for _ in range(repeats):
        for name, code in CASES.items(): times[name].append(seconds(code))
    for name, t in times.items(): print(f'{name:20} {statistics.median(t):.2f} s (median of {repeats})')


if __name__ == '__main__': main()
