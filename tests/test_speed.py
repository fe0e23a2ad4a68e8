"What pays on this machine: measuring changes nothing, and kept memory is given back."
import math
import platform
import subprocess
import sys

import pytest
import torch
from layouts import CONFIG, Uneven, local

from llmbook.model.transformer import Config, Transformer, flops_per_token
from llmbook.train.clm import CLM
from llmbook.train.speed import measure_speed
from llmbook.train.step import Speed


def test_measuring_leaves_no_trace():
    engine, random = local(micro=4), torch.get_rng_state()
    before, threads = [p.clone() for p in engine.names], torch.get_num_threads()
    chosen, rates = measure_speed(engine, CLM(), Uneven()[0])
    assert isinstance(chosen, Speed) and rates['exact'] > 0 and max(rates.values()) > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), random)
    assert all(map(torch.equal, before, engine.names)) and all(p.grad is None for p in engine.names)


MEMORY = """
from pathlib import Path
from resource import RUSAGE_SELF, getpagesize, getrusage
from llmbook.train.speed import keep_memory

def faults(mb):
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(4): [bytearray(mb << 20) for _ in range(8)]
    return (getrusage(RUSAGE_SELF).ru_minflt - before) // 4

def resident(): return int(Path('/proc/self/statm').read_text().split()[1]) * getpagesize() >> 20
faults(16), print(faults(16) * getpagesize() >> 20)
try:
    with keep_memory():
        faults(24), print(faults(24) * getpagesize() >> 20)
        kept = resident()
        raise KeyboardInterrupt
except KeyboardInterrupt: print(kept - resident())
"""


@pytest.mark.skipif('glibc' not in platform.libc_ver(), reason="the C library is not glibc")
def test_memory_is_kept_and_then_given_back():
    "Eight blocks of some MB: emptied anew each time, or not at all; after an error the system has them again."
    out = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True, check=True).stdout
    given_back, kept, returned = map(int, out.split())
    assert given_back > 60 and kept < 6 and returned > 100, out


def test_flops_are_counted():
    "Against a count of every matrix product of one forward pass: 2 a weight and token; backward is twice that."
    from torch.utils.flop_counter import FlopCounterMode
    for change in ({}, dict(tied=False), dict(arch='gpt2')):
        model, ids = Transformer(Config(**{**vars(CONFIG), 'n_embd': 96, 'n_hidden': 256, **change}), 0), Uneven()[0]['ids']
        with FlopCounterMode(display=False) as counter: model(ids).sum().backward()
        assert math.isclose(counter.get_total_flops() / ids.numel(), flops_per_token(model, 16), rel_tol=0.12), change
