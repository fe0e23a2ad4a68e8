"What pays on this machine: measuring changes nothing, and kept memory is given back."
import itertools
import math
import platform
import subprocess
import sys

import pytest
import torch
from layouts import CONFIG, Uneven, local

from llmbook.model.transformer import Config, Transformer, flops_per_token
from llmbook.train.clm import CLM
from llmbook.train import speed as speed_module
from llmbook.train.speed import matmul_flops, measure_speed
from llmbook.train.step import Speed


def test_measuring_leaves_no_trace():
    engine, random = local(micro=4), torch.get_rng_state()
    before, threads = [p.clone() for p in engine.names], torch.get_num_threads()
    chosen, rates = measure_speed(engine, CLM(), Uneven()[0])
    assert isinstance(chosen, Speed) and rates['exact'] > 0 and max(rates.values()) > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), random)
    assert all(map(torch.equal, before, engine.names)) and all(p.grad is None for p in engine.names)


@pytest.mark.parametrize('rates, compile, right', [
    ((60, 40, 10, 1), False, Speed('fp32', 2)),
    ((40, 60, 10, 1), False, Speed('fp32', 1)),
    ((40, 60, 90, 1), False, Speed('bf16', 2)),
    ((40, 60, 90, 99), True, Speed('bf16', 2, True)),
    ((40, 60, 10, 99), True, Speed('fp32', 1, True)),
    ((40, 60, 10, 50), True, Speed('fp32', 1)),
])
def test_the_fastest_choice_comes_back(monkeypatch, rates, compile, right):
    "On a pretended machine of two threads: rates of two, of one, of bf16, and of the best of them compiled."
    def look_up(engine, speed, objective, micro, repeats=6):
        torch.set_num_threads(speed.threads)
        if speed.compile: return rates[3]
        return {('fp32', 2): rates[0], ('fp32', 1): rates[1], ('bf16', 2): rates[2]}[speed.precision, speed.threads]
    monkeypatch.setattr(speed_module, 'rows_per_second', look_up)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        chosen, measured = measure_speed(local(micro=4), CLM(), Uneven()[0], compile)
        assert chosen == right and torch.get_num_threads() == 2
        assert ('bf16' in measured) == (rates[2] > rates[0] / 2) and ('compile' in measured) == compile
    finally: torch.set_num_threads(threads)


def test_rates_by_a_clock_that_ticks_once_a_look(monkeypatch):
    "A try then takes one second, so the rate is the work."
    monkeypatch.setattr(speed_module.time, 'perf_counter', itertools.count().__next__)
    assert matmul_flops(128) == 2 * 128**3
    engine, batch = local(), Uneven()[0]
    assert speed_module.rows_per_second(engine, Speed(), CLM(), batch, 3) == 8


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


def test_threads_by_cores_and_environment(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(speed_module, 'usable_cores', lambda: 3)
    assert speed_module.usable_threads() == 3
    monkeypatch.setenv('OMP_NUM_THREADS', '8') # torch has followed it
    assert speed_module.usable_threads() == 8


def test_flops_are_counted():
    "Against a count of every matrix product of one forward pass: 2 a weight and token; backward is twice that."
    from torch.utils.flop_counter import FlopCounterMode
    for change in ({}, dict(tied=False), dict(arch='gpt2')):
        model, ids = Transformer(Config(**{**vars(CONFIG), 'n_embd': 96, 'n_hidden': 256, **change}), 0), Uneven()[0]['ids']
        with FlopCounterMode(display=False) as counter: model(ids).sum().backward()
        assert math.isclose(counter.get_total_flops() / ids.numel(), flops_per_token(model, 16), rel_tol=0.12), change
