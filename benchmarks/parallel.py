"""Memory and traffic of a rank at every stage of ZeRO, beside the formulas: a decoder whose states outweigh all else.

python benchmarks/parallel.py [--layers 8] [--ranks 2]
python benchmarks/parallel.py --largest      # on a GPU: the largest decoder that trains with ZeRO-3 and offload

Memory is the peak of three steps after a first one, less what the process held before the model was made. On a processor
that is the resident set: a fresh process for each row, its high-water mark set back, every large tensor a mapping of its
own that goes back at once. On a GPU it is what torch allocated. It counts everything: weights, gradients, master weights
and moments, of which the formula speaks, but buckets, gathered weights and activations too. So the tensors of which the
formula speaks are measured by themselves as well, when the optimiser is about to step.

Bytes sent are counted twice: from the collectives that were called, at what a ring sends for them, and, on a processor,
from the loopback's own counters; of three steps the least, since others use it too.

DeepSpeed's buckets hold 500 million elements: all of a small model. `small` cuts them, and ZeRO-3's limits on gathered
weights, to the share of this model that they are of one of 7 billion parameters.

What differs, and why (DeepSpeed 0.19):
- Stages 1 and 2 send 3/2 of the formula: gradients are all-reduced, and each rank keeps its part (average_tensor in
  zero/stage_1_and_2.py). `use_multi_rank_bucket_allreduce: false` reduces to the owners instead, which is the formula.
- Stage 3 sends 2/3 of it where the whole model is within the limits: weights stay gathered from forward to backward.
- gloo's reduce-scatter is an all-reduce, so the loopback shows one half of the gradients more than was asked for.
- A default bucket holds all gradients, and what is sent is a copy of it, of which gloo makes another for stage 3; there the
  gathered weights come on top. So with default buckets a small model gains little from stage 2 and loses with stage 3.
- At the update stages 1 and 2 copy their shard of gradients: flat, and in bf16 once more in fp32. Stage 1 has dropped the
  others' by then, so its `states` are those of stage 2; during the backward pass it holds them all.
- With offload the host keeps the shard of gradients in fp32, at stage 3 in bf16 too.
"""
import argparse
import os
from collections import Counter
from contextlib import ExitStack
from datetime import date
from functools import partialmethod
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import llmbook.scale.engine as scale
from llmbook.core import environment, generator
from llmbook.lesson import save_results
from llmbook.model.transformer import Config, Transformer, config_for, count_parameters
from llmbook.scale.deepspeed_step import ds_config
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.scale.zero import zero_bytes, zero_sent
from llmbook.scale.ranks import launch
from llmbook.train.clm import CLM
from llmbook.train.step import Speed

SHAPE = dict(vocab_size=1024, block_size=16, n_head=8, n_kv_head=8, n_embd=512, n_hidden=1376)
WARM = Config(vocab_size=64, block_size=16, n_layer=1, n_head=2, n_kv_head=2, n_embd=32, n_hidden=64)
LIMITS = { # DeepSpeed's, in elements
    'reduce_bucket_size': 5e8, 'allgather_bucket_size': 5e8, 'sub_group_size': 1e9, 'stage3_prefetch_bucket_size': 5e7,
    'stage3_max_live_parameters': 1e9, 'stage3_max_reuse_distance': 1e9, 'stage3_param_persistence_threshold': 1e5}
ROWS = [(zero, False, precision, small) for precision in ('fp32', 'bf16') for small in (False, True) for zero in range(4)]
ROWS += [(zero, True, 'bf16', False) for zero in (1, 2, 3)]


# Bytes

def size(tensors):
    "Of a tensor, or of a list of them."
    if isinstance(tensors, torch.Tensor): return tensors.numel()*tensors.element_size()
    return sum(map(size, tensors)) if isinstance(tensors, (list, tuple)) else 0


def covered(tensors):
    "Of the memory that tensors cover; what two share counts once."
    total = end = 0
    for start, stop in sorted((t.data_ptr(), t.data_ptr() + size(t)) for t in tensors if t is not None):
        total, end = total + max(0, stop - max(start, end)), max(stop, end)
    return total


def states(engine):
    "Of the tensors that the formula speaks of."
    ds, base = engine.optimizer, getattr(engine.optimizer, 'optimizer', engine.optimizer)
    weights = [t for p in engine.names for t in (p.data, getattr(p, 'ds_tensor', None))]
    gradients = [g for p in [*engine.names, *base.state] for g in (p.grad, getattr(p, 'grad_accum', None))]
    gradients += [g for group in getattr(ds, 'averaged_gradients', {}).values() for g in group or []]
    gradients += [getattr(ds, 'grad_partitions_flat_buffer', None)] # of stage 3
    moments = [t for s in base.state.values() for t in s.values() if t.ndim]
    return dict(weights=covered(weights), gradients=covered(gradients), moments=covered(moments),
                master=covered([*weights, *base.state]) - covered(weights))


def held(most=False):
    "By this process, now or at most since `forget`."
    if torch.cuda.is_available(): return torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()
    word = 'VmHWM:' if most else 'VmRSS:'
    return next(int(line.split()[1])*1024 for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(word))


def forget():
    "Set the high-water mark back."
    if torch.cuda.is_available(): torch.cuda.reset_peak_memory_stats()
    else: Path('/proc/self/clear_refs').write_text('5')


def loopback():
    "Sent by the processes of this machine to each other."
    return next(int(line.split()[9]) for line in Path('/proc/net/dev').read_text().splitlines() if line.split()[0] == 'lo:')


class Sent(TorchDispatchMode):
    "By the collectives that are called within it, whoever calls them."
    def __init__(self):
        super().__init__()
        self.kinds = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == 'c10d':
            world, name = dist.get_world_size(), func._schema.name
            kind = next((k for k in ('allreduce', 'allgather', 'reduce_scatter', 'broadcast', 'reduce') if k in name), name)
            whole = max(map(size, args[:2])) # output or input, whichever is not a shard
            self.kinds[kind] += whole*(world - 1)/world*(2 if kind == 'allreduce' else 1)
        return func(*args, **kwargs or {})


# A row

def small_limits(parameters):
    "Within it DeepSpeed's limits are the share of the model that they would be of 7 billion parameters."
    limits, stack = {k: 2*round(v*parameters/14e9) for k, v in LIMITS.items()}, ExitStack()
    deepspeed = scale.import_deepspeed()
    def cut(*args, **flags):
        config = ds_config(*args, **flags)
        return config | {'zero_optimization': config['zero_optimization'] | limits}
    whole = deepspeed.DeepSpeedEngine.allreduce_gradients # of stage 0, whose bucket no setting reaches
    stack.enter_context(patch.object(scale, 'ds_config', cut))
    stack.enter_context(patch.object(deepspeed.DeepSpeedEngine, 'allreduce_gradients',
                                     partialmethod(whole, bucket_size=limits['reduce_bucket_size'])))
    return stack


def train(engine, config, rows=2):
    "One step of a few rows per rank."
    ids = torch.randint(config.vocab_size, (rows, config.block_size + 1), generator=generator(0, engine.rank))
    engine.step(dict(ids=ids[:, :-1], labels=ids[:, 1:], rows=torch.arange(rows)), CLM())


def measure(config, parameters, zero, offload, precision, small, steps=3):
    "On every rank: what one layout holds and sends."
    def make(config):
        return DeepSpeedEngine(Transformer(config, 0), lambda step: 1e-3, speed=Speed(precision), zero=zero, offload=offload)
    first = make(WARM) # libraries, threads and connections come before the first look
    for _ in range(2): train(first, WARM)
    first.close()
    del first
    before, found, parts, lo = held(), Counter(), {}, []
    with small_limits(parameters) if small else ExitStack():
        engine = make(config)
        train(engine, config) # makes the moments
        move = engine.start().ds.step
        def step():
            found['backward'] = max(found['backward'], held(True) - before)
            parts.update(states(engine))
            forget()
            move()
            found['update'] = max(found['update'], held(True) - before)
        engine.start().ds.step = step
        for _ in range(steps):
            dist.barrier()
            forget()
            start = 0 if torch.cuda.is_available() else loopback()
            with Sent() as sent: train(engine, config)
            dist.barrier()
            lo.append(0 if torch.cuda.is_available() else loopback() - start)
    return dict(found) | dict(states=parts, sent=dict(sent.kinds), loopback=min(lo)/engine.world)


def row(config, parameters, ranks, zero, offload, precision, small):
    "What was measured beside the formulas, in millions of bytes."
    every = launch(measure, ranks, config, parameters, zero, offload, precision, small, hang_timeout=600)
    def mb(n): return round(n/1e6, 1)
    formula = zero_bytes(parameters, ranks, zero, precision, offload and torch.cuda.is_available())
    kinds = {k: sum(r['sent'].get(k, 0) for r in every)/ranks for k in every[0]['sent']}
    return dict(zero=zero, offload=offload, precision=precision, buckets='small' if small else 'default',
                memory_mb=mb(max(r[k] for r in every for k in ('backward', 'update'))), memory_formula_mb=mb(formula),
                backward_mb=mb(max(r['backward'] for r in every)), update_mb=mb(max(r['update'] for r in every)),
                states_mb={k: mb(max(r['states'][k] for r in every)) for k in every[0]['states']},
                sent_mb=mb(sum(kinds.values())), sent_formula_mb=mb(zero_sent(parameters, ranks, zero, precision)),
                collectives_mb={k: mb(v) for k, v in kinds.items() if v >= 5e4},
                **({} if torch.cuda.is_available() else {'loopback_mb': mb(every[0]['loopback'])}))


def table(ranks, layers):
    "All rows, printed and saved."
    config = Config(n_layer=layers, **SHAPE)
    parameters, rows = count_parameters(Transformer(config)), []
    print(f'{parameters:,} parameters on {ranks} ranks; millions of bytes per rank')
    print(f"{'':43}{'memory':>8}{'formula':>8}{'states':>8}{'sent':>8}{'formula':>8}{'loopback':>9}")
    for zero, offload, precision, small in ROWS:
        r = row(config, parameters, ranks, zero, offload, precision, small)
        rows.append(r)
        name = f"ZeRO-{zero}{' and offload' if offload else ''}, {precision}, {r['buckets']} buckets"
        print(f"{name:43}{r['memory_mb']:8.0f}{r['memory_formula_mb']:8.0f}{sum(r['states_mb'].values()):8.0f}"
              f"{r['sent_mb']:8.1f}{r['sent_formula_mb']:8.1f}{r.get('loopback_mb', 0):9.1f}", flush=True)
    save('parallel', f'--layers {layers} --ranks {ranks}', parameters=parameters, ranks=ranks, rows=rows,
         memory_of='the device' if torch.cuda.is_available() else 'device and host, which are the same memory')


def save(name, flags, **facts):
    "Beside the notebooks; what a GPU measured in a file of its own."
    here = environment()
    save_results(name + ('_gpu' if torch.cuda.is_available() else ''), dict(
        date=str(date.today()), device=here['device'], commit=here['commit'], command=f'python benchmarks/parallel.py {flags}',
        torch=here['versions'].get('torch'), deepspeed=here['versions'].get('deepspeed'), **facts))


# The largest model

def trains(config, steps=3):
    "On the one rank: a few steps with ZeRO-3 and offload; peak bytes on the device."
    engine = DeepSpeedEngine(Transformer(config, 0), lambda step: 1e-4, speed=Speed('bf16'), zero=3, offload=True)
    for _ in range(steps): train(engine, config, 1)
    return held(True)


def largest():
    "Twice the layers of a 7b until the memory of the device or of the host is spent."
    rows, layers, end = [], 4, ''
    while not end:
        config = config_for('7b', 32_000, n_layer=layers, block_size=512)
        with torch.device('meta'): parameters = count_parameters(Transformer(config))
        free, need = os.sysconf('SC_AVPHYS_PAGES')*os.sysconf('SC_PAGE_SIZE'), 20*parameters # states and fp32 gradients
        try:
            if free < need: raise RuntimeError(f'{free/1e9:.0f} GB of the host are free, {need/1e9:.0f} are needed')
            peak = launch(trains, 1, config, hang_timeout=3600)[0]
            rows.append(dict(layers=layers, parameters=parameters, memory_mb=round(peak/1e6, 1)))
            print(f'{layers} layers, {parameters:,} parameters: {peak/1e9:.1f} GB', flush=True)
        except RuntimeError as e: end = f'{layers} layers, {parameters:,} parameters: {str(e).splitlines()[0]}'
        layers *= 2
    print(end)
    save('parallel_largest', '--largest', rows=rows, end=end)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--layers', type=int, default=8)
    parser.add_argument('--ranks', type=int, default=torch.cuda.device_count() or 2)
    parser.add_argument('--largest', action='store_true')
    args = parser.parse_args()
    os.environ['MALLOC_MMAP_THRESHOLD_'] = '65536' # read by the processes to come: without it the heap keeps what was freed
    if args.largest and not torch.cuda.is_available(): parser.error('--largest: needs a GPU')
    if args.largest: largest()
    else: table(args.ranks, args.layers)


if __name__ == '__main__':
    from parallel import main as run # ranks find functions by their module, which __main__ is not
    run()
