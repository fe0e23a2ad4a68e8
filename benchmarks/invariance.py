"""Same maths, any layout, same loss: how far each layout is from one process over 30 steps, and how far the mutants are.

python benchmarks/invariance.py

The problem, the layouts, the mutants and what is allowed are those of `tests/`, which hold them; here every distance is
written down. `loss` is the largest difference of any step in nats, `norm` that of the gradient's norm as a share of it,
`mean` the difference of the mean losses. In bf16 nothing is held. Stage 0 casts products alone and is compared with one
process that does so too; stages 1 to 3 cast the weights, and are compared with fp32, as that process is. A decoder so
small has no matrix of 100,000 numbers, and stage 3 keeps smaller ones whole; `all cut` are the rows where it does not.

With GPUs each layout runs on as many ranks as there are GPUs, at most; with one, only the engine and the precision differ,
and the mutants, which need a second rank, are left out.
"""
import argparse
import sys
from datetime import date
from functools import cache
from pathlib import Path

import torch

from llmbook.core import environment
from llmbook.lesson import save_results
from llmbook.model.transformer import count_parameters
from llmbook.scale.ranks import launch
from llmbook.train.step import Speed

sys.path.insert(0, str(Path(__file__).parents[1]/'tests'))
from layouts import ALLOWED, LAYOUTS, STEPS, advance, local, off, trajectories
from test_invariance import MUTANTS

MAX_TURNS = torch.cuda.device_count() or 4 # ranks


def cases():
    "What is run: {name: (ranks, arguments of the engine)}; no ranks is `LocalEngine`."
    found, named = {}, [(name.partition(', ')[2], *what) for name, what in LAYOUTS.items()]
    def add(what, ranks, **flags):
        ranks = min(ranks, MAX_TURNS)
        where = '1 process' if not ranks else f'{ranks} rank{"s" if ranks > 1 else ""}'
        if (ranks, flags) not in found.values(): found[f'{where}, {what}'] = ranks, flags
    for accum in (1, 2, 4): add(f'{accum} micro-batch{"es" if accum > 1 else ""}', 0, accum=accum)
    add('bf16', 0, accum=1, speed=Speed('bf16'))
    for zero in range(4): add(f'ZeRO-{zero}', 1, zero=zero, offload=False, accum=1, **dict(persist=0) if zero == 3 else {})
    for what, ranks, flags in named: add(what, ranks, **flags)
    for what, ranks, flags in named:
        if flags['zero'] == 3: add(f'{what}, small weights whole', ranks, **flags | dict(persist=100_000))
    add('ZeRO-0, Muon', 2, zero=0, offload=False, accum=1, optimizer='muon')
    for what, ranks, flags in named: add(f'{what}, bf16', ranks, **flags, speed=Speed('bf16'))
    return found


@cache
def alone(precision='fp32', optimizer='adamw'):
    "The one process."
    return advance(local(speed=Speed(precision), optimizer=optimizer))


def run(chosen):
    "Trajectories by name: one launch for each number of ranks."
    found = {}
    for ranks in sorted({ranks for ranks, *_ in chosen.values()}):
        here = {name: (flags, *(rest or (None, None))) for name, (n, flags, *rest) in chosen.items() if n == ranks}
        each = launch(trajectories, ranks, list(here.values()))[0] if ranks else [advance(local(**f)) for f, *_ in here.values()]
        found |= dict(zip(here, each))
    return found


def main():
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    layouts, mutants, rows, wrong = cases(), {}, [], []
    if MAX_TURNS > 1: mutants = {(name, zero): (2, dict(zero=zero), *what) for name, what in MUTANTS.items() for zero in (0, 2)}
    found = run(layouts | mutants)
    print(f"{'':50}" + ''.join(f'{k:>9}' for k in ALLOWED))
    def show(name, row): print(f'{name:50}' + ''.join(f'{row[k]:9.1e}' for k in ALLOWED))
    show('allowed in fp32', ALLOWED)
    for name, (ranks, flags) in layouts.items():
        precision = flags['speed'].precision if 'speed' in flags else 'fp32'
        apart = off(found[name], alone(precision if flags.get('zero') == 0 else 'fp32', flags.get('optimizer', 'adamw')))
        rows.append(dict(layout=name, ranks=ranks or 1, zero=flags.get('zero'), offload=flags.get('offload', False),
                         accum=flags['accum'], precision=precision, **apart))
        show(name, apart)
    for name, zero in mutants:
        wrong.append(dict(name=name, zero=zero, **off(found[name, zero], alone())))
        show(f'mutant: {name}, ZeRO-{zero}', wrong[-1])
    here = environment()
    save_results('invariance_gpu' if torch.cuda.is_available() else 'invariance', dict(
        date=str(date.today()), device=here['device'], commit=here['commit'], command='python benchmarks/invariance.py',
        torch=here['versions'].get('torch'), deepspeed=here['versions'].get('deepspeed'), steps=STEPS,
        parameters=count_parameters(local().model), allowed=ALLOWED, rows=rows, mutants=wrong))
    late = [r['layout'] for r in rows if r['precision'] == 'fp32' and not all(r[k] <= v for k, v in ALLOWED.items())]
    missed = [(r['name'], r['zero']) for r in wrong if all(r[k] <= v for k, v in ALLOWED.items())]
    if late or missed: sys.exit(f'not the same loss: {late}; mutants that pass: {missed}')


if __name__ == '__main__': main()
