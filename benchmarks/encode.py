"""How fast documents become ids: `llmbook tokens` beside the encoders it is made of, tokenizers and tiktoken.

    python benchmarks/encode.py [--text PATH] [--docs N] [--tokenizer DIR] [--rounds 5] [--save]

Complete documents (Python's documentation if no text is given) are encoded by each contender in turn, round after
round, once on one core and once on all that this process may use. Each measurement is a process of its own with a new
encoder, since encoders remember words; starting it, reading the documents (except by `tokens`) and comparing the ids do
not count. tiktoken is given the same merges. A figure is the median over rounds, in megabytes of UTF-8 per second.
`--save` writes `nbs/results/encode.json`, which the chapter on encoding shows; `--json FILE` keeps every measurement.
"""
import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np

from llmbook.core import environment
from llmbook.files import write_json
from llmbook.lesson import save_results
from llmbook.text import encode as encoders
from llmbook.text.bpe import _SPLIT, BPE, merges_of, train_tokenizer
from llmbook.text.corpus import pydoc_documents, write_documents
from llmbook.text.documents import local_documents
from llmbook.text.encode import _fast_encoder, fastest_encoder, framed_ids, library_encoder
from llmbook.text.store import TokenStore, tokens
from llmbook.text.tokenizer_files import load_tokenizer, save_tokenizer


# Each contender is made outside of the clock and called once inside of it.

def all_at_once(name):
    "A method of the Rust library that takes a list of texts."
    def make(tokenizer, cores):
        tokenizer.rust.encode_special_tokens = True
        encode = getattr(tokenizer.rust, name)
        return lambda texts: [e.ids for e in encode(texts, add_special_tokens=False)]
    return make


def through(make_encoder):
    "One of our encoders, with the frame of each document."
    def make(tokenizer, cores):
        encoder = make_encoder(tokenizer)
        return lambda texts: [ids[1:-1] for ids in framed_ids(tokenizer, texts, encoder)]
    return make


def own_python(tokenizer, cores):
    "The class of the chapter on byte-pair encoding."
    bpe = BPE(merges_of(tokenizer.rust))
    return lambda texts: [bpe.encode(text) for text in texts]


def by_tiktoken(tokenizer, cores):
    "tiktoken with the same pieces; of two merges with one result it can hold only the first."
    import tiktoken
    ranks = {}
    for i, piece in enumerate(BPE(merges_of(tokenizer.rust)).pieces):
        if i >= 8: ranks.setdefault(piece, i)
    encoding = tiktoken.Encoding('own', pat_str=_SPLIT.pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: encoding.encode_ordinary_batch(texts, num_threads=cores)


CONTENDERS = {
    'tokenizers, encode_batch': all_at_once('encode_batch'),
    'tokenizers, encode_batch_fast': all_at_once('encode_batch_fast'),
    'the class BPE of this book': own_python,
    'a memory of words': through(library_encoder),
    'tiktoken': by_tiktoken,
    'fastokens, not compared': through(_fast_encoder),
    'fastokens, compared on the way': through(fastest_encoder),
}
VERBS = {'llmbook tokens, without fastokens': library_encoder, 'llmbook tokens': fastest_encoder}


def digests(rows):
    "A short checksum for each document."
    return [hashlib.sha256(np.asarray(ids, np.uint32).tobytes()).hexdigest()[:12] for ids in rows]


def measure(name, home, cores):
    "Seconds of one contender, and the checksums of its ids."
    tokenizer = load_tokenizer(home/'tokenizer')
    if name in VERBS:
        out = home/'out'
        with patch.object(encoders, '_by_size', VERBS[name]), redirect_stdout(StringIO()):
            began = time.perf_counter()
            tokens(str(home/'text'), str(home/'tokenizer'), str(out), fresh=out.exists())
            seconds = time.perf_counter() - began
        return seconds, digests(ids[1:-1] for ids in TokenStore(out))
    texts = [document['text'] for document in local_documents(home/'text')]
    encode = CONTENDERS[name](tokenizer, cores)
    began = time.perf_counter()
    rows = encode(texts)
    return time.perf_counter() - began, digests(rows)


def in_a_process(name, home, cores):
    "The same, in a new process on so many cores."
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count())
    env = os.environ | {'RAYON_NUM_THREADS': str(cores), 'TOKENIZERS_PARALLELISM': 'true' if cores > 1 else 'false'}
    command = [sys.executable, __file__, '--one', name, '--home', str(home), '--cores', *map(str, list(usable)[:cores])]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def prepare(args, home):
    "Documents and tokenizer on the disk; megabytes of text."
    documents = list(local_documents(args.text)) if args.text else pydoc_documents()
    documents = documents[:args.docs]
    write_documents(home/'text', documents)
    texts = [document['text'] for document in documents]
    known = load_tokenizer(args.tokenizer) if args.tokenizer else train_tokenizer(texts[::4], args.vocab_size)
    save_tokenizer(known, home/'tokenizer')
    return len(texts), sum(len(text.encode()) for text in texts) / 1e6


def verdict(found, right):
    "Whether the ids are those of the library."
    wrong = sum(a != b for a, b in zip(found, right)) + abs(len(found) - len(right))
    return f'{wrong:,} of {len(right):,} documents differ' if wrong else 'ids equal'


def table(measured, size, cores, right):
    "One row per contender."
    rows = []
    for name in dict.fromkeys(name for name, _ in measured):
        speed = {n: size / statistics.median(seconds for seconds, _ in measured[name, n]) for n in {1, cores}}
        ids = {verdict(found, right) for n in speed for _, found in measured[name, n]}
        rows.append({'name': name, 'one': round(speed[1], 1), 'all': round(speed[cores], 1), 'ids': '; '.join(sorted(ids))})
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--text', help='documents: a file or a folder')
    parser.add_argument('--docs', type=int, help='take the first N documents')
    parser.add_argument('--tokenizer', help='folder of a tokenizer; without it one is learnt from a quarter of the text')
    parser.add_argument('--vocab-size', type=int, default=2048)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json', help='file for every measurement')
    parser.add_argument('--save', action='store_true', help='write the table for the chapter')
    for name in ('--one', '--home'): parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument('--cores', type=int, nargs='+', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, args.cores)
        print(json.dumps(measure(args.one, Path(args.home), len(args.cores))))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    there = {'tiktoken': 'tiktoken', 'fastokens, not compared': 'fastokens', 'fastokens, compared on the way': 'fastokens',
             'llmbook tokens': 'fastokens'}
    names = [name for name in (*CONTENDERS, *VERBS) if find_spec(there.get(name, 'llmbook'))]
    measured = {}
    with tempfile.TemporaryDirectory() as tmp:
        home = Path(tmp)
        n, size = prepare(args, home)
        for i in range(args.rounds):
            for count in sorted({1, cores}):
                for name in names:
                    found = in_a_process(name, home, count)
                    measured.setdefault((name, count), []).append(found)
                    print(f'round {i}, {count} cores, {name}: {size / found[0]:.1f} MB/s', file=sys.stderr, flush=True)
    right = measured['tokenizers, encode_batch', 1][0][1]
    rows = table(measured, size, cores, right)
    print(f"{n:,} documents, {size:.1f} MB; megabytes per second on one core, and on {cores}")
    for row in rows: print(f"{row['name']:34} {row['one']:8.1f} {row['all']:8.1f}   {row['ids']}")
    result = {'documents': n, 'megabytes': round(size, 1), 'rounds': args.rounds, 'cores': cores, 'rows': rows,
              'environment': environment()}
    if args.save: save_results('encode', result)
    if args.json:
        seconds = [{'name': name, 'cores': count, 'seconds': [s for s, _ in runs]} for (name, count), runs in measured.items()]
        write_json(args.json, result | {'runs': seconds})


if __name__ == '__main__': main()
