"""Our loop, a plain hand-written loop and transformers' Trainer: the same weights, batches, dtype and threads.

python benchmarks/train_cpu.py [--sizes nano tiny] [--threads 2] [--rounds 5] [--steps 10] [--json FILE]
python benchmarks/train_cpu.py --profile        where the time of a step goes, by kind of operation
python benchmarks/train_cpu.py --beside FOLDER  our loop beside that of another checkout, and nothing else

Each contender is a process that trains; they take turns, some steps each, and sleep in between. A step lasts from one
request for a batch to the next, so all that a contender does about a step counts: our packing, log and bar, Trainer's
loader and callbacks. The plain loop has its batches ready in a list and keeps no log. 'ours giving back' is ours without
`keep_memory`. A ratio is between turns of the same round, and the median over the rounds counts. All must show the same
losses, or there is no comparison.
Trainer needs accelerate: pip install "accelerate>=1.1".
"""
import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn import functional as F

import llmbook
from llmbook.core import environment
from llmbook.model.checkpoints import load_model
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Transformer, config_for, count_parameters, flops_per_token
from llmbook.text.batches import IGNORE, Stream
from llmbook.text.store import TokenStore
from llmbook.text.bpe import load_tokenizer
from llmbook.train.clm import CLM, PRESETS, world_tokens
from llmbook.train.loop import fit
from llmbook.train.runs import Run
from llmbook.train.speed import matmul_flops
from llmbook.train.step import LocalEngine, Speed
from llmbook.train.optim import param_groups

LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
EAGER = ['ours', 'plain', 'trainer', 'ours giving back']
COMPILED = ['ours compiled', 'plain compiled', 'trainer compiled']


class Turns:
    "Batches that are handed out a turn at a time; between turns the process waits to be called."
    def __init__(self, batches, pipe, steps):
        self.batches, self.pipe, self.steps, self.asked, self.next = batches, pipe, steps, [], 0
        self.block_size, self.seed = batches.block_size, batches.seed

    def __getitem__(self, step):
        batch = self.batches[step]
        if step == self.next: self.hand_over()  # `fit` looks at the first batch twice
        self.asked.append(time.perf_counter())
        return batch

    def hand_over(self):
        self.pipe.send([b - a for a, b in zip(self.asked, self.asked[1:])])
        self.pipe.recv()
        self.asked.clear()
        self.next += self.steps


class Ready:
    "A stream's batches, made beforehand."
    def __init__(self, stream, steps):
        self.block_size, self.seed, self.made = stream.block_size, stream.seed, [stream[i] for i in range(steps)]

    def __getitem__(self, step): return self.made[step]


# The contenders: each trains for some steps and returns the losses

def ours(folder, turns, steps, compiled):
    "`fit`, with all that it does: log.jsonl, bar, signals, loss.png, a checkpoint."
    engine = LocalEngine(load_model(folder/'model')[0], lambda step: LR, weight_decay=DECAY, betas=BETAS, clip=CLIP,
                         speed=Speed(compile=compiled))
    rows = fit(engine, CLM(), turns, steps, Run(folder/f'ours-{os.getpid()}', 'bench', {}), lambda stage: None)
    return [r['loss'] for r in rows]


def plain(folder, turns, steps, compiled):
    "What one writes in an afternoon: forward, loss, backward, clip, step."
    model, losses = load_model(folder/'model')[0].train(), []
    optimizer = torch.optim.AdamW(param_groups(model, DECAY), lr=LR, betas=BETAS, fused=True)
    forward = torch.compile(model) if compiled else model
    for step in range(steps):
        batch = turns[step]
        logits = forward(batch['ids'], batch['positions'], batch['segments'])
        loss = F.cross_entropy(logits.flatten(0, 1), batch['labels'].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def as_llama(batch):
    "A batch as LlamaForCausalLM wants it; there too the documents of a row do not see each other."
    same = batch['segments'][:, :, None] == batch['segments'][:, None, :]
    return dict(input_ids=batch['ids'], labels=batch['labels'], shift_labels=batch['labels'],
                position_ids=batch['positions'], attention_mask=same.tril()[:, None])


def trainer(folder, turns, steps, compiled):
    "transformers' Trainer on the same weights as a LlamaForCausalLM; no log, no checkpoint, no bar."
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
    losses = []

    class Watched(Trainer):
        def compute_loss(self, *args, **kwargs):
            losses.append((loss := super().compute_loss(*args, **kwargs)).detach())
            return loss

    class Rows(torch.utils.data.Dataset):
        def __len__(self): return steps
        def __getitem__(self, step): return turns[step]
    args = TrainingArguments(
        output_dir=str(folder/'trainer'), max_steps=steps, per_device_train_batch_size=1, learning_rate=LR,
        lr_scheduler_type='constant', weight_decay=DECAY, adam_beta1=BETAS[0], adam_beta2=BETAS[1], max_grad_norm=CLIP,
        optim='adamw_torch_fused', logging_strategy='no', save_strategy='no', report_to=[], disable_tqdm=True,
        use_cpu=True, remove_unused_columns=False, train_sampling_strategy='sequential', torch_compile=compiled, seed=0)
    model = AutoModelForCausalLM.from_pretrained(folder/'model', attn_implementation='sdpa', dtype=torch.float32)
    Watched(model=model, args=args, train_dataset=Rows(), data_collator=lambda rows: as_llama(rows[0])).train()
    return [float(x) for x in losses]


def contend(name, folder, rows, threads, beside, steps, rounds, pipe):
    "The process of a contender."
    torch.set_num_threads(threads)
    kind, _, lever = name.partition(' ')
    if kind == 'before' and beside not in Path(llmbook.__file__).parents: raise SystemExit(f'{beside} is not imported')
    total, stream = steps*rounds, Stream(TokenStore(folder), rows, load_model(folder/'model')[0].config.block_size)
    turns = Turns(stream if kind in ('ours', 'before') else Ready(stream, total), pipe, steps)
    memory = patch('llmbook.train.loop.keep_memory', nullcontext) if lever == 'giving back' else nullcontext()
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere), memory:
        train = {'plain': plain, 'trainer': trainer}.get(kind, ours)
        losses = train(folder, turns, total, lever == 'compiled')
    turns.hand_over()
    pipe.send(losses)


# What is asked of them

def race(names, *task, rounds):
    "Median seconds a step of each contender, by round (the first only warms up), and its losses."
    spawn = multiprocessing.get_context('spawn')
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=contend, args=(name, *task, rounds, theirs), daemon=True))
        path = sys.path[:]
        if name == 'before': sys.path.insert(0, str(task[3])) # the child gets this path, and imports from it
        processes[-1].start()
        sys.path[:] = path
        theirs.close()
    for pipe in pipes.values(): pipe.recv()  # ready for the first turn
    seconds = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            pipes[name].send('go')
            seconds[name].append(statistics.median(pipes[name].recv()))
    for pipe in pipes.values(): pipe.send('go')
    losses = {name: pipe.recv() for name, pipe in pipes.items()}
    for p in processes: p.join(60)
    return {name: s[1:] for name, s in seconds.items()}, losses


def prepare(folder, size, vocab_size=1024):
    "Tokens of the world, and the weights that everybody starts from."
    world_tokens(folder, 4000, vocab_size, 0)
    model = Transformer(config_for(size, TokenStore(folder).meta['vocab_size']), 0)
    save_model(model, load_tokenizer(folder), folder/'model')
    return model


def compare(size, args):
    "The row of one size."
    with tempfile.TemporaryDirectory() as where:
        folder, rows = Path(where), args.rows or PRESETS[size][0]
        model = prepare(folder, size)
        names = ['ours', 'before'] if args.beside else EAGER + (COMPILED if args.compiled else [])
        torch.set_num_threads(args.threads)
        peak, flops = matmul_flops(), flops_per_token(model, model.config.block_size)
        seconds, losses = race(names, folder, rows, args.threads, args.beside, args.steps, rounds=args.rounds + 1)
    off = max(abs(a - b) for name in names for a, b in zip(losses[names[1]][:5], losses[name][:5]))
    if off > 1e-3: raise SystemExit(f'{size}: the losses differ by {off:.1e}: {losses}')
    tokens, out = rows*model.config.block_size, {}
    for name in names:
        rates = [tokens / s for s in seconds[name]]
        others = ['before'] if args.beside else EAGER[1:]
        ratios = {f'over {other}': [b / a for a, b in zip(seconds[name], seconds[other])] for other in others}
        out[name] = {'tokens_per_s': statistics.median(rates), 'share_of_matmul': statistics.median(rates)*flops/peak}
        out[name] |= {k: [statistics.median(v), min(v), max(v)] for k, v in ratios.items()}
        print(f"{size:5} {name:16} {out[name]['tokens_per_s']:8,.0f} tokens/s, {out[name]['share_of_matmul']:4.0%} of matmul; "
              + ', '.join(f'{k} {m:.2f} ({low:.2f} to {high:.2f})' for k, (m, low, high) in list(out[name].items())[2:]),
              flush=True)
    return {'parameters': count_parameters(model), 'rows': rows, 'matmul_gflops': peak/1e9, 'losses_differ': off, 'found': out}


KINDS = [('matrix products', ('mm', 'bmm', 'addmm')), ('attention', ('scaled_dot_product',)),
         ('loss', ('log_softmax', 'nll_loss')), ('optimiser and clipping', ('_fused_adamw', 'linalg_vector_norm', '_foreach')),
         ('embedding', ('embedding', 'index_select'))]


def profile(size, args):
    "Shares of a step's time by kind of operation, for our engine."
    with tempfile.TemporaryDirectory() as where:
        model = prepare(Path(where), size)
        engine, stream = LocalEngine(model, lambda step: LR), Stream(TokenStore(where), PRESETS[size][0], 256)
        torch.set_num_threads(args.threads)
        for step in range(2): engine.step(stream[step], CLM())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            for step in range(2, 5): engine.step(stream[step], CLM())
    shares = Counter()
    for event in seen.key_averages():
        name = event.key.removeprefix('aten::')
        kind = next((k for k, parts in KINDS if any(name == p or len(p) > 5 and p in name for p in parts)),
                    'element by element' if event.key.startswith('aten::') else 'autograd and Python')
        shares[kind] += event.self_cpu_time_total
    shares = {k: v / shares.total() for k, v in shares.most_common()}
    print(f'{size}:', ', '.join(f'{k} {v:.0%}' for k, v in shares.items()), flush=True)
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--sizes', nargs='+', default=['nano', 'tiny'])
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=10, help='of each contender and round')
    parser.add_argument('--rows', type=int, help="in a batch; by default the size's own")
    parser.add_argument('--compiled', action=argparse.BooleanOptionalAction, default=True, help='torch.compile too')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--beside', type=Path, metavar='FOLDER', help='another checkout')
    parser.add_argument('--json', help='where to keep the figures')
    args = parser.parse_args()
    if args.beside: args.beside = args.beside.resolve()
    where = environment()
    found = {size: (profile if args.profile else compare)(size, args) for size in args.sizes}
    out = {'date': time.strftime('%Y-%m-%d'), 'device': where['device'], 'commit': where['commit'], 'threads': args.threads,
           'versions': where['versions'], 'rounds': args.rounds, 'steps': args.steps, 'sizes': found}
    if args.json: Path(args.json).write_text(json.dumps(out, indent=1) + '\n')


if __name__ == '__main__': main()
