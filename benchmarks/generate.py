"""Tokens per second of greedy decoding: transformers, the plain decoder with its cache, `Decoding`, and steps in numpy.

    python benchmarks/generate.py [--rounds 5] [--sizes nano tiny] [--save]

The same weights, the same prompts and the same tokens, each way in turn; medians. One thread, unless OMP_NUM_THREADS says
otherwise. With one thread its processor time counts, so that waiting for a processor that others use does not. With --save
the figures go to `nbs/results/numpy_steps.json`; chapter `decode` keeps those of the first four ways from before the last
was written. About five minutes.

Three limits are measured in the same rounds. A step reads every weight once, and the keys and values so far: its bytes. One
thread reads an array of so many bytes at some speed, from the processor's cache if it fits, and a large one at the speed of the
memory; each gives a number of tokens per second that no step can exceed which has to read from there. The third is the step's
matrix products, one after another and nothing else.
"""
import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from llmbook.core import environment, generator
from llmbook.lesson import save_results
from llmbook.model.checkpoints import book_model
from llmbook.model.decode import Decoding
from llmbook.model.generate import generate
from llmbook.model.hf_format import save_model
from llmbook.model.numpy_steps import NumpyDecoding, _product, _Views, for_writing
from llmbook.model.transformer import Transformer, config_for

WAYS = ['transformers', 'transformers, static cache', 'plain', 'Decoding', 'numpy']
PROMPT, NEW = 32, 128
LARGE = 1 << 29 # bytes, far more than the cache of a processor


def models(size):
    "A model of ours, and the same one in transformers."
    model, tokenizer = book_model()
    if size != 'nano': model = Transformer(config_for(size, 1024), 0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model.eval(), tokenizer, folder)
        return model, AutoModelForCausalLM.from_pretrained(folder).eval()


def contenders(size, batch):
    "Name -> a call that writes."
    model, theirs = models(size)
    ids = torch.randint(8, 1000, (batch, PROMPT), generator=generator(0, 'prompts'))
    def peer(**more):
        return theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
                               eos_token_id=None, **more)
    return dict(zip(WAYS, (peer, lambda: peer(cache_implementation='static'), lambda: generate(model, ids, NEW, 0.),
                           lambda: generate(Decoding(model), ids, NEW, 0.), lambda: generate(for_writing(model), ids, NEW, 0.))))


def seconds_of(call):
    "Of one thread the processor's time, of several that of the clock."
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    call()
    return clock() - began


def step_bytes(model, batch):
    "Bytes that a step has to read: every weight, and the keys and values so far, on average."
    laid_out, c = Decoding(model), model.config
    weights = sum(p.numel() for part in (laid_out.blocks, laid_out.out) for p in part.parameters())
    per_token = 2 * c.n_layer * c.n_kv_head * c.head_size
    return 4 * (weights + batch * (PROMPT + NEW // 2) * per_token)


def reader(size):
    "A call that reads so many bytes, and the number of times that make it long enough to be timed."
    array = np.ones(size // 4, np.float32)
    return array.max, max(3, (1 << 28) // size)


def products(model, batch):
    "A call that does the matrix products of a step and nothing else."
    views = _Views(NumpyDecoding(model))
    matrices = [matrix for layer in views.layers for matrix in layer[:4]] + [views.out]
    inputs = {len(weight): np.ones((batch, len(weight)), np.float32) for weight, _ in matrices}
    @torch.inference_mode()
    def call():
        for matrix in matrices: _product(inputs[len(matrix[0])], matrix)
    return call


def measured(size, batch, rounds):
    "Tokens per second of each way, whether all wrote the same, and the limits."
    model = models(size)[0]
    needed = step_bytes(model, batch)
    limits = {'cache': reader(needed), 'memory': reader(LARGE), 'products': (products(model, batch), 100)}
    calls, seconds, texts = contenders(size, batch), {name: [] for name in (*WAYS, *limits)}, {}
    for _ in range(rounds):
        for name, call in calls.items():
            def write(name=name, call=call): texts[name] = call()
            seconds[name].append(seconds_of(write))
        for name, (call, times) in limits.items():
            seconds[name].append(statistics.median(seconds_of(call) for _ in range(times)))
    equal = [torch.equal(texts[name], texts[WAYS[0]]) for name in WAYS]
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    speeds = {'cache': needed / middle['cache'] / 1e9, 'memory': LARGE / middle['memory'] / 1e9} # GB/s
    most = {name: round(batch * speed * 1e9 / needed) for name, speed in speeds.items()}
    most['products'] = round(batch / middle['products'])
    found = {'rates': [round(batch * NEW / middle[name]) for name in WAYS], 'equal': all(equal), 'bytes': needed,
             'gb_per_s': {name: round(speed, 1) for name, speed in speeds.items()}, 'limits': most}
    return found | {'share': round(found['rates'][-1] / most['cache'], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--sizes', nargs='+', default=['nano', 'tiny'])
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 4, 16])
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    if 'OMP_NUM_THREADS' not in os.environ: torch.set_num_threads(1)
    set_verbosity_error()
    disable_progress_bar()
    rows = []
    print('size, batch:', *WAYS, 'equal tokens', 'beside theirs', 'MB per step', 'GB/s', 'limits', 'share', sep=' | ')
    for size in args.sizes:
        for batch in args.batches:
            row = {'size': size, 'batch': batch, **measured(size, batch, args.rounds)}
            rows.append(row)
            rates = [f'{rate:,}' for rate in row['rates']]
            best = max(row['rates'][:2])
            limits = ', '.join(f'{name} {most:,}' for name, most in row['limits'].items())
            speeds = ', '.join(f'{name} {speed}' for name, speed in row['gb_per_s'].items())
            print(f'{size}, {batch}:', *rates, row['equal'], f"{row['rates'][-1] / best:.1f} times the faster of theirs",
                  f"{row['bytes'] / 1e6:.1f}", speeds, limits, f"{row['share']:.0%}", sep=' | ', flush=True)
    found = {'date': time.strftime('%Y-%m-%d'), **{key: environment()[key] for key in ('device', 'commit', 'versions')},
             'threads': torch.get_num_threads(), 'ways': WAYS, 'rows': rows}
    if args.save: print(save_results('numpy_steps', found))


if __name__ == '__main__': main()
