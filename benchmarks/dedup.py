"""Near copies: this library beside datasketch and rensa, complete documents in, the list of those that are kept out.

    python benchmarks/dedup.py
    python benchmarks/dedup.py --docs 2000 --rounds 1
    python benchmarks/dedup.py --text runs/clean

All work in one thread, on shingles of five words in lower case, with 128 numbers per signature and a threshold of 0.8, and
take turns, so that a busy moment of the machine hits all of them. Each peer is used as its documentation recommends for
speed. datasketch: `MinHash.bulk` with a fast hash function (xxhash), an insertion session, 16 bands of 8. rensa: its batch
functions, 16 bands. Their candidates get the same check on the text as ours, which costs them what it costs us.

- `ours`: `signatures` and `near_copies`.
- `datasketch`: its signatures and its index.
- `rensa`: its signatures and its index, from shingles as strings.
- `rensa, best parts`: its signatures, from Python's own hash of tuples of words, which is faster than strings; our buckets.
- `rensa, unchecked`: its deduplicator, which decides by signatures alone.

Without --text, documents are four stories each, drawn from 10,000. A twentieth are exact copies and a quarter are edited
ones, with similarities from 0.3 to 1. Recall: of the edited copies at 0.8 and above, the share that is dropped. False: of
the originals and the edited copies at 0.5 and below, the share that is dropped.

`seconds` are by the clock, `processor` are those of the processor, which other programs disturb less.
"""
import argparse
import gc
import os
import random
import statistics
import time

for name in ('OMP', 'RAYON', 'OPENBLAS', 'MKL'): os.environ[f'{name}_NUM_THREADS'] = '1'  # before they are imported
# ruff: noqa: E402

import numpy as np
from datasketch import MinHash, MinHashLSH
from rensa import RMinHash, RMinHashDeduplicator, RMinHashLSH
from xxhash import xxh32_intdigest

from llmbook.core import environment
from llmbook.files import write_json
from llmbook.text.corpus import world_documents
from llmbook.text.dedup import _compare, _digest, _join, near_copies, pair_similarities
from llmbook.text.documents import local_documents
from llmbook.text.minhash import signatures

THRESHOLD, BANDS, ROWS = 0.8, 16, 8


# Documents

def edited(text, similarity, rng):
    "About that similar: each changed word is in five shingles."
    words = text.split()
    changes = round(len(words) * (1 - similarity) / (1 + similarity) / 5)
    for i in rng.sample(range(len(words)), max(1, changes)): words[i] = f'new{rng.randrange(10**6)}'
    return ' '.join(words)


def planted(n, seed=0):
    "Texts, and for each the number of its original, or -1; originals come first."
    rng = random.Random(seed)
    stories = [d['text'] for d in world_documents(min(10_000, 4 * n), seed)]
    originals = [' '.join(rng.sample(stories, 4)) for _ in range(n * 7 // 10)]
    texts, sources = list(originals), [-1] * len(originals)
    for i, number in enumerate(rng.sample(range(len(originals)), n - len(originals))):
        texts.append(originals[number] if i % 6 == 0 else edited(originals[number], rng.uniform(0.3, 1), rng))
        sources.append(number)
    order = list(range(len(originals)))
    later = list(range(len(originals), n))
    rng.shuffle(later)
    order += later
    return [texts[i] for i in order], np.array([sources[i] for i in order])


# Contenders: texts to the numbers that are kept

def kept_of(roots): return np.flatnonzero(roots == np.arange(len(roots)))


def exact_first(texts):
    "Numbers of distinct texts."
    seen = {}
    for i, text in enumerate(texts): seen.setdefault(_digest(text), i)
    return list(seen.values())


def checked(texts, left, right):
    "Groups by the true similarity of candidates."
    sizes = np.array([len(text) for text in texts])
    def read(numbers): return [texts[i] for i in numbers]
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    alike = _compare(left, right, sizes, read, 5) >= THRESHOLD
    return _join(np.arange(len(texts)), left[alike], right[alike])


def grouped(texts, signed):
    "Groups by our buckets and the same check."
    sizes = np.array([len(text) for text in texts])
    return near_copies(signed, sizes, lambda numbers: [texts[i] for i in numbers], THRESHOLD)


def ours(texts):
    distinct = np.array(exact_first(texts))
    texts = [texts[i] for i in distinct]
    return distinct[kept_of(grouped(texts, signatures(texts)))]


def datasketch(texts):
    def shingles(text):
        w = text.lower().encode().split()
        return list(map(b' '.join, zip(w, w[1:], w[2:], w[3:], w[4:])))
    distinct = np.array(exact_first(texts))
    texts = [texts[i] for i in distinct]
    signed = MinHash.bulk(map(shingles, texts), num_perm=128, hashfunc=xxh32_intdigest)
    index = MinHashLSH(num_perm=128, params=(BANDS, ROWS))
    with index.insertion_session() as session:
        for i, s in enumerate(signed): session.insert(i, s, check_duplication=False)
    pairs = [(i, j) for i, s in enumerate(signed) for j in index.query(s) if i < j]
    left, right = zip(*pairs) if pairs else ((), ())
    return distinct[kept_of(checked(texts, left, right))]


def strings(text):
    w = text.lower().split()
    return list(map(' '.join, zip(w, w[1:], w[2:], w[3:], w[4:])))


def rensa(texts):
    distinct = np.array(exact_first(texts))
    texts = [texts[i] for i in distinct]
    signed = RMinHash.from_token_sets(map(strings, texts), 128, 1)
    index = RMinHashLSH(THRESHOLD, 128, BANDS)
    index.insert_many(signed)
    pairs = [(i, j) for i, found in enumerate(index.query_all(signed)) for j in found if i < j]
    left, right = zip(*pairs) if pairs else ((), ())
    return distinct[kept_of(checked(texts, left, right))]


def rensa_best_parts(texts):
    distinct = np.array(exact_first(texts))
    texts = [texts[i] for i in distinct]
    hashes, starts = [], [0]
    for text in texts:
        w = text.lower().split()
        n = max(0, len(w) - 4)
        hashes.append(np.fromiter(map(hash, zip(w, w[1:], w[2:], w[3:], w[4:])), np.int64, n))
        starts.append(starts[-1] + n)
    flat = np.concatenate(hashes).view(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, np.array(starts, np.uint64), 128, 1)
    signed = np.array(matrix.to_rows(), np.uint32)
    return distinct[kept_of(grouped(texts, signed))]


def rensa_unchecked(texts):
    index = RMinHashDeduplicator(THRESHOLD, 128, True, BANDS, 1)
    return np.flatnonzero(index.add_pairs((str(i), strings(text)) for i, text in enumerate(texts)))


CONTENDERS = {'ours': ours, 'datasketch': datasketch, 'rensa': rensa, 'rensa, best parts': rensa_best_parts,
              'rensa, unchecked': rensa_unchecked}


# Measuring

def take_turns(texts, rounds):
    "Seconds of each contender in each round, by the clock and of the processor, and what it keeps."
    seconds, busy, kept = {name: [] for name in CONTENDERS}, {name: [] for name in CONTENDERS}, {}
    names = list(CONTENDERS)
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]:
            gc.collect()
            began, worked = time.perf_counter(), time.process_time()
            kept[name] = set(CONTENDERS[name](texts).tolist())
            busy[name].append(time.process_time() - worked)
            seconds[name].append(time.perf_counter() - began)
    return seconds, busy, kept


def quality(texts, sources, kept):
    "(recall, share of false merges) of what a contender keeps."
    copies = np.flatnonzero(sources >= 0)
    similarity = pair_similarities(texts, copies, sources[copies])
    dropped = np.array([i not in kept for i in range(len(texts))])
    near = (similarity >= THRESHOLD) & np.array([texts[i] != texts[j] for i, j in zip(copies, sources[copies])])
    others = [*np.flatnonzero(sources < 0), *copies[similarity <= 0.5]]
    return dropped[copies[near]].mean(), dropped[others].mean()


def main(argv=None):
    parser = argparse.ArgumentParser(description='Near copies: seconds, recall and false merges.')
    parser.add_argument('--docs', type=int, default=20_000, help='documents')
    parser.add_argument('--text', help='a file or folder of documents, in place of the world')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--json', help='file for the figures')
    args = parser.parse_args(argv)
    if args.text:
        texts = [d['text'] for _, d in zip(range(args.docs), local_documents(args.text))]
        sources = None
    else: texts, sources = planted(args.docs)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f'{len(texts):,} documents, {megabytes:.1f} MB, one thread, median of {args.rounds}')
    seconds, busy, kept = take_turns(texts, args.rounds)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    processor = {name: statistics.median(s) for name, s in busy.items()}
    rows = {}
    print(f"{'':20} seconds  / ours  processor  / ours   MB/s     kept  recall    false  as datasketch")
    for name in CONTENDERS:
        as_datasketch = len(kept[name] & kept['datasketch']) / len(kept[name] | kept['datasketch'])
        found, false = quality(texts, sources, kept[name]) if sources is not None else (np.nan, np.nan)
        rows[name] = {'seconds': seconds[name], 'processor': busy[name], 'kept': len(kept[name]), 'recall': float(found),
                      'false': float(false), 'as_datasketch': as_datasketch}
        print(f"{name:20} {medians[name]:7.2f} {medians[name] / medians['ours']:7.1f} {processor[name]:10.2f} "
              f"{processor[name] / processor['ours']:7.1f} {megabytes / medians[name]:6.1f} "
              f"{len(kept[name]):8,} {found:7.4f} {false:8.5f} {as_datasketch:10.4f}")
    if args.json: write_json(args.json, {'documents': len(texts), 'megabytes': megabytes, 'rows': rows} | environment())
    return rows


if __name__ == '__main__': main()
