"""Training on one GPU, a lever at a time, beside transformers' Trainer on the same chip in the same run.

python benchmarks/train_gpu.py [--models 124m 1b] [--seconds 20] [--json nbs/results/train_gpu.json]
python benchmarks/train_gpu.py --models nano --rows 2 --seconds 1      anywhere: does it run?

124m is GPT-2 at 1,024 tokens, 1b a Llama at 2,048; synthetic tokens, AdamW, clipping, weights in fp32. Each row is a
process of its own and adds one lever to the row above: bf16, torch.compile, the loss inside the compiled graph, a
vocabulary that divides by 128, micro-batches of twice and four times the rows, another attention kernel (which is kept
where it is faster). Trainer gets bf16, torch.compile and the micro-batch that served us best. Tokens a second are of
whole optimiser steps, after warming up; MFU counts 6 operations a weight and token and 12 a layer, width and place
(Chowdhery et al. 2022, appendix B) against the dense bf16 peak of the data sheet. Memory is the peak that torch
allocated. Trainer needs accelerate: pip install "accelerate>=1.1".
"""
import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from llmbook.core import environment, generator
from llmbook.model.hf_format import hf_config
from llmbook.model.transformer import Transformer, config_for, count_parameters, flops_per_token
from llmbook.train.clm import CLM
from llmbook.train.speed import matmul_flops
from llmbook.train.step import LocalEngine, Speed

MODELS = { # size -> arch, vocabulary, rows of a micro-batch, micro-batches a step
    '124m': ('gpt2', 50257, 16, 8), '1b': ('llama', 50257, 4, 8), 'nano': ('gpt2', 1000, 2, 2)}
PEAKS = {'H200': 989e12, 'H100': 989e12, 'GH200': 989e12, 'B200': 2250e12, 'A100': 312e12, 'L40S': 362e12, '4090': 165e12}
LEVERS = [('fp32', {}), ('bf16', {'precision': 'bf16'}), ('compile', {'compile': True}),
          ('vocabulary of 128s', {'pad': 128}), ('rows x 2', {'times': 2}), ('rows x 4', {'times': 4}),
          ('cuDNN attention', {'attention': 'CUDNN_ATTENTION'}), ('flash attention', {'attention': 'FLASH_ATTENTION'})]
LR = 6e-4


class Synthetic:
    "Random tokens, a few batches of them again and again."
    def __init__(self, vocab_size, rows, block_size, kinds=4):
        ids = torch.randint(vocab_size, (kinds, rows, block_size + 1), generator=generator(0, 'synthetic'))
        self.batches = [dict(ids=i[:, :-1].contiguous(), labels=i[:, 1:].contiguous(), rows=torch.arange(rows)) for i in ids]

    def __getitem__(self, step): return self.batches[step % len(self.batches)]


def shape_of(row):
    "The configuration of a row's model."
    arch, vocab_size, *_ = MODELS[row['size']]
    pad = row.get('pad', 1)
    return config_for(row['size'], -(-vocab_size // pad) * pad, arch)


def sync():
    if torch.cuda.is_available(): torch.cuda.synchronize()


def timed(step, tokens, seconds, warmup=3):
    "Median seconds of a step, over as many as fit, at least three; and the last loss."
    for i in range(warmup): step(i)
    sync()
    if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats()
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        loss = step(len(times))
        sync()
        times.append(time.perf_counter() - start)
    return {'tokens_per_s': tokens / statistics.median(times), 'steps': len(times), 'loss': float(loss)}


def ours(row, stream, micro, tokens):
    "The engine's step, which is what `fit` calls."
    model = Transformer(shape_of(row), 0)
    speed = Speed(precision=row.get('precision', 'fp32'), compile=row.get('compile', False))
    engine, objective = LocalEngine(model, lambda step: LR, micro=micro, speed=speed), CLM()
    engine.apply(speed)
    return timed(lambda i: engine.step(stream[i], objective)['loss'], tokens, row['seconds'])


def trainer(row, stream, micro, tokens):
    "Trainer on the same shape from transformers, the same micro-batches; no log, no checkpoint."
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
    accum, asked, losses = len(stream[0]['rows']) // micro, [], []

    class Micro(torch.utils.data.Dataset):
        def __len__(self): return 10**6
        def __getitem__(self, i):
            rows = slice(i % accum * micro, (i % accum + 1) * micro)
            batch = {k: v[rows] for k, v in stream[i // accum].items()}
            return {'input_ids': batch['ids'], 'labels': batch['labels'], 'shift_labels': batch['labels']}

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            sync()
            asked.append(time.perf_counter())
            if len(asked) == 3 and torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats()
            if len(asked) >= 7 and asked[-1] - asked[3] > row['seconds']: control.should_training_stop = True

    class Watched(Trainer):
        def compute_loss(self, *args, **kwargs):
            losses.append((loss := super().compute_loss(*args, **kwargs)).detach())
            return loss
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            output_dir=out, max_steps=10**6, per_device_train_batch_size=1, gradient_accumulation_steps=accum, learning_rate=LR,
            lr_scheduler_type='constant', weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, optim='adamw_torch_fused',
            bf16=row.get('precision') == 'bf16', torch_compile=row.get('compile', False), logging_strategy='no',
            save_strategy='no', report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=0,
            remove_unused_columns=False, train_sampling_strategy='sequential')
        config = AutoConfig.for_model(**hf_config(shape_of(row)))
        model = AutoModelForCausalLM.from_config(config, attn_implementation='sdpa', dtype=torch.float32)
        job = Watched(model=model, args=args, train_dataset=Micro(), data_collator=lambda rows: rows[0], callbacks=[Watch()])
        job.train()
    times = [b - a for a, b in zip(asked[3:], asked[4:])]
    loss = float(sum(losses[-accum:]))
    return {'tokens_per_s': tokens / statistics.median(times), 'steps': len(times), 'loss': loss}


def measure(row, pipe):
    "One row, in a process of its own."
    try:
        config, (_, _, rows, accum) = shape_of(row), MODELS[row['size']]
        micro = (row['rows'] or rows) * row.get('times', 1)
        stream = Synthetic(config.vocab_size, micro * accum, config.block_size)
        tokens = micro * accum * config.block_size
        kernel = sdpa_kernel(getattr(SDPBackend, row['attention'])) if row.get('attention') else nullcontext()
        with kernel, redirect_stdout(StringIO()):
            found = (ours if row['who'] == 'ours' else trainer)(row, stream, micro, tokens)
        with torch.device('meta'): bare = Transformer(config)
        found |= {'parameters': count_parameters(bare), 'micro_batch_size': micro, 'tokens_a_step': tokens}
        found['flops_per_s'] = found['tokens_per_s'] * flops_per_token(bare, config.block_size)
        if torch.cuda.is_available(): found['peak_gb'] = torch.cuda.max_memory_allocated() / 1e9
    except torch.OutOfMemoryError: found = {'failed': 'out of memory'}
    except Exception as e: found = {'failed': f'{type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ""}'}
    pipe.send(found)


def peak_of(device):
    "Dense bf16 operations a second: the data sheet's, or else what matrix products reach here."
    known = next((v for k, v in PEAKS.items() if k in device), None)
    return (known, 'data sheet') if known and torch.cuda.is_available() else (matmul_flops(), 'measured matrix products, fp32')


def attempt(row, limit):
    "A row in its own process, ended when it takes too long."
    spawn = multiprocessing.get_context('spawn')
    pipe, theirs = spawn.Pipe()
    process = spawn.Process(target=measure, args=(row, theirs))
    process.start()
    theirs.close()
    try: found = pipe.recv() if pipe.poll(limit) else {'failed': f'not done in {limit:.0f} s'}
    except EOFError: found = {'failed': 'the process ended'}
    process.kill() if process.is_alive() and 'failed' in found else None
    process.join()
    return found


def compare(size, args, peak):
    "All rows of one model: ours, lever upon lever, then Trainer with what served best."
    rows, best, levers = [], None, {}
    common = {'size': size, 'seconds': args.seconds, 'rows': args.rows}

    def add(name, row):
        found = {'name': name, **row, **attempt(row, args.limit)}
        rows.append(found)
        if 'failed' in found: print(f"{size:5} {name:34} {found['failed']}", flush=True)
        else: print(f"{size:5} {name:34} {found['tokens_per_s']:10,.0f} tokens/s, {found['flops_per_s']/peak:5.1%} MFU, "
                    f"{found.get('peak_gb', 0):5.1f} GB, loss {found['loss']:.3f}", flush=True)
        return found.get('tokens_per_s', 0)
    for name, lever in LEVERS[:None if args.levers is None else args.levers + 1]:
        if 'attention' in lever and not torch.cuda.is_available(): continue
        rate = add('ours: ' + ('+ ' if lever else '') + name, common | {'who': 'ours'} | levers | lever)
        if best is None or rate > best: best, levers = rate, levers | lever
    theirs = {k: v for k, v in levers.items() if k in ('precision', 'pad', 'times')}
    bests = [add('Trainer', common | {'who': 'trainer'} | theirs),
             add('Trainer: + compile', common | {'who': 'trainer', 'compile': True} | theirs)]
    add('ours: best, again', common | {'who': 'ours'} | levers)
    if max(bests): print(f'{size}: {best / max(bests):.2f} times Trainer at its best, {best / bests[0]:.2f} times without compile'
                         if bests[0] else '', flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--models', nargs='+', default=['124m', '1b'], choices=list(MODELS))
    parser.add_argument('--seconds', type=float, default=20, help='of steps in each row, after warming up')
    parser.add_argument('--rows', type=int, help="of a micro-batch before it is doubled; by default the model's own")
    parser.add_argument('--levers', type=int, help='how many of them; by default all')
    parser.add_argument('--limit', type=float, default=300, help='seconds that a row may take in all')
    parser.add_argument('--json', help='where to keep the figures')
    args = parser.parse_args()
    where = environment()
    peak, source = peak_of(where['device'])
    print(f"{where['device']}: peak {peak/1e12:.3g} TFLOP/s ({source})", flush=True)
    found = {size: compare(size, args, peak) for size in args.models}
    out = {'date': time.strftime('%Y-%m-%d'), 'device': where['device'], 'commit': where['commit'], 'versions': where['versions'],
           'peak': peak, 'peak_from': source, 'models': found}
    if args.json: Path(args.json).write_text(json.dumps(out, indent=1) + '\n')


if __name__ == '__main__': main()
