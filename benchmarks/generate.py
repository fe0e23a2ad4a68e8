"""Tokens per second of greedy decoding: transformers, the plain decoder with its cache, `Decoding`, and steps in numpy.

    python benchmarks/generate.py [--rounds 5] [--sizes nano tiny] [--save]

The same weights, the same prompts and the same tokens, each way in turn; medians. One thread, unless OMP_NUM_THREADS says
otherwise. With --save the figures go to `nbs/results/numpy_steps.json`; chapter `decode` keeps
those of the first four ways from before the last was written. About five minutes.
"""
import argparse
import os
import statistics
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from llmbook.core import environment, generator
from llmbook.lesson import save_results
from llmbook.model.checkpoints import book_model
from llmbook.model.decode import Decoding
from llmbook.model.generate import generate
from llmbook.model.hf_format import save_model
from llmbook.model.numpy_steps import for_writing
from llmbook.model.transformer import Transformer, config_for

WAYS = ['transformers', 'transformers, static cache', 'plain', 'Decoding', 'numpy']
PROMPT, NEW = 32, 128


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


def measured(size, batch, rounds):
    "Tokens per second of each way, and whether all wrote the same."
    calls, seconds, texts = contenders(size, batch), {name: [] for name in WAYS}, {}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            texts[name] = call()
            seconds[name].append(time.perf_counter() - began)
    equal = [torch.equal(texts[name], texts[WAYS[0]]) for name in WAYS]
    return [batch * NEW / statistics.median(seconds[name]) for name in WAYS], all(equal)


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
    print('size, batch:', *WAYS, 'equal tokens', sep=' | ')
    for size in args.sizes:
        for batch in args.batches:
            rates, equal = measured(size, batch, args.rounds)
            rows.append({'size': size, 'batch': batch, 'rates': [round(rate) for rate in rates], 'equal': equal})
            best = max(rates[:2])
            shown = [f'{rate:,.0f}' for rate in rates]
            print(f'{size}, {batch}:', *shown, equal, f'{rates[-1] / best:.1f} times the faster of theirs', sep=' | ')
    found = {'date': time.strftime('%Y-%m-%d'), **{key: environment()[key] for key in ('device', 'commit', 'versions')},
             'threads': torch.get_num_threads(), 'ways': WAYS, 'rows': rows}
    if args.save: print(save_results('numpy_steps', found))


if __name__ == '__main__': main()
