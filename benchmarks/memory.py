"""Does the memory of a command stay flat when the corpus grows? Its peak on two sizes, in processes of their own.

    python benchmarks/memory.py dedup
    python benchmarks/memory.py tokens --sizes 100 1000 -- --tokenizer runs/tokenizer

writes corpora of so many megabytes (sentences of the world's stories, drawn anew for each document of about 2 KB), runs
`llmbook VERB --text CORPUS --out DIR` with whatever follows `--` on each, and prints the peaks: of the largest process,
and of all processes together (sampled, memory that they share counted once; Linux). `--json FILE` keeps the figures.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmbook.core import environment
from llmbook.files import write_json
from llmbook.text.corpus import world_documents

SENTENCES = 40  # per document


def write_corpus(path, megabytes, seed=0, stories=2000):
    "Documents as rows of JSON; how many there are."
    rng = random.Random(seed)
    pool = [s for d in world_documents(stories, seed) for s in re.findall(r'\S.*?[.?]"?(?=\s|$)', d['text'])]
    room, n = megabytes * 1_000_000, 0
    with open(path, 'w', encoding='utf-8') as f:
        while room > 0:
            text = ' '.join(rng.choices(pool, k=SENTENCES))
            f.write(json.dumps({'id': f'd{n}', 'text': text}) + '\n')
            room -= len(text)
            n += 1
    return n


def tree(pid):
    "A process and all that it has started."
    try: children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError: children = []
    return [pid, *(p for child in children for p in tree(int(child)))]


def shared_megabytes(pid):
    "The memory of a process, in which what n processes share counts as an n-th."
    try: text = Path(f'/proc/{pid}/smaps_rollup').read_text()
    except OSError: return 0
    found = re.search(r'^Pss:\s+(\d+) kB', text, re.M)
    return int(found[1]) / 1024 if found else 0


def peaks(command, every=0.2):
    "(MB of the largest process, MB of all together, seconds, last line) of a command."
    began, together = time.perf_counter(), 0
    with tempfile.TemporaryFile('w+') as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid: break
            together = max(together, sum(map(shared_megabytes, tree(process.pid))))
            time.sleep(every)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().strip().splitlines()
    if process.returncode: raise SystemExit('\n'.join(lines[-5:]))
    return usage.ru_maxrss / 1024, together, time.perf_counter() - began, lines[-1] if lines else ''


def main(argv=None):
    parser = argparse.ArgumentParser(description='Peak memory of a command on two sizes of a corpus.')
    parser.add_argument('verb', help='such as dedup: a verb that takes --text and --out')
    parser.add_argument('--sizes', type=int, nargs='+', default=[100, 1000], help='megabytes of text')
    parser.add_argument('--json', help='file for the figures')
    argv = sys.argv[1:] if argv is None else argv
    own = argv[:argv.index('--')] if '--' in argv else argv
    args, more = parser.parse_args(own), argv[len(own) + 1:]
    rows = []
    for megabytes in args.sizes:
        with tempfile.TemporaryDirectory() as home:
            documents = write_corpus(Path(home)/'corpus.jsonl', megabytes)
            command = [sys.executable, '-m', 'llmbook', args.verb, '--text', f'{home}/corpus.jsonl', '--out', f'{home}/out']
            largest, together, seconds, last = peaks(command + more)
        rows.append({'megabytes': megabytes, 'documents': documents, 'largest': largest, 'together': together,
                     'seconds': seconds})
        print(f'{args.verb}, {megabytes:,} MB, {documents:,} documents: {largest:,.0f} MB in the largest process, '
              f'{together:,.0f} MB in all, {seconds:,.0f} s', flush=True)
    per_document = {}
    if len(rows) > 1:
        more_documents = rows[-1]['documents'] - rows[0]['documents']
        per_document = {k: (rows[-1][k] - rows[0][k]) * 2**20 / more_documents for k in ('largest', 'together')}
        print(f"growth: {per_document['largest']:,.0f} bytes per document in the largest process, "
              f"{per_document['together']:,.0f} in all")
    if args.json: write_json(args.json, {'verb': args.verb, 'rows': rows, 'growth': per_document} | environment())
    return rows, per_document


if __name__ == '__main__': main()
