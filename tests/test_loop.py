"The loop: shares add up, whatever the cut; numbers that are none move nothing; a run that was stopped ends in the same bits."
import json
import math
import os
import platform
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from layouts import CLIP, CONFIG, Doubled, MeanOfMeans, Poisoned, Uneven, advance, local, same_trajectory
from safetensors.torch import load_file
from torch.nn import functional as F

from llmbook.core import UserError
from llmbook.model.transformer import Config, Transformer, flops_per_token
from llmbook.text.batches import IGNORE, split_batch
from llmbook.train.clm import CLM
from llmbook.train.loop import fit
from llmbook.train.runs import Run, _aside
from llmbook.train.speed import measure_speed
from llmbook.train.step import LocalEngine, Speed, sum_counts

TIMES = ('tokens_per_s', 'mfu')


def trajectory(objective, micro): return advance(local(micro=micro), objective=objective)


def train(folder, steps=12, objective=None, stop=None, dropout=False, **flags):
    "A run in `folder`, killed (as far as one process can) when `on_eval` is called at step `stop`."
    engine = local()
    if dropout: engine.model.blocks[0].register_forward_hook(lambda _, __, y: F.dropout(y, 0.1, engine.model.training))

    def on_eval(step, stats, say):
        if step == stop: raise KeyboardInterrupt
        return {'val_loss': 1/step} if step % 3 == 0 else {}
    run, flags = Run(folder, 'test', {'steps': steps}), {'eval_every': 1} | flags
    fit(engine, objective or CLM(), Uneven(), steps, run, lambda stage: None, on_eval=on_eval, **flags)
    return timeless(folder), state_bytes(folder)


def timeless(folder):
    rows = [json.loads(line) for line in (folder/'log.jsonl').read_text().splitlines()]
    return json.dumps([{k: v for k, v in r.items() if k not in TIMES} for r in rows])


def names(folder): return sorted(p.name for p in (folder/'checkpoints').iterdir())


def state_bytes(folder):
    newest = sorted((folder/'checkpoints').glob('step-*'))[-1]/'trainer'
    return [(newest/n).read_bytes() for n in ('state.safetensors', 'rng-0.safetensors', 'trainer.json')]


@pytest.fixture(autouse=True)
def no_yardstick(monkeypatch): monkeypatch.setattr('llmbook.train.loop.matmul_flops', lambda: 1e9)


@pytest.fixture(scope='module')
def whole(): return trajectory(CLM(), None)


def test_the_trajectory_says_something(whole):
    losses, norms = whole
    assert losses[0] - losses[-1] >= 0.5
    assert min(norms) > CLIP  # clipping acts on every step
    counts = [CLM().counts(b)['tokens'].item() for b in split_batch(Uneven()[0], 1)]
    assert max(counts) > 2*min(counts)


@pytest.mark.parametrize('micro', [4, 1])
def test_accumulation_changes_nothing(whole, micro): same_trajectory(trajectory(CLM(), micro), whole)


@pytest.mark.parametrize('mutant, what', [(MeanOfMeans, 'loss|norm'), (Doubled, 'norm')])
def test_mutants_are_caught(whole, mutant, what):
    with pytest.raises(AssertionError, match=what): same_trajectory(trajectory(mutant(), 1), whole)


def test_counts_and_metrics_add_up():
    class Rows(CLM):
        def loss(self, log_probs, batch, counts):
            return super().loss(log_probs, batch, counts)[0], {'rows_seen': len(batch['rows']), 'share': torch.tensor(0.25)}
    batch = Uneven()[0]
    stats = local(micro=2).step(batch, Rows())
    assert stats['rows_seen'] == 8 and stats['share'] == 1 and stats['tokens'] == (batch['labels'] != IGNORE).sum()
    assert sum_counts([{'a': 1}, {'a': torch.tensor(2), 'b': 3}]) == {'a': 3, 'b': 3}


def test_evaluate_is_the_loss_and_learns_nothing():
    engine, batch = local(), Uneven()[0]
    before = [p.clone() for p in engine.names]
    found = engine.evaluate(split_batch(batch, 1), CLM())
    assert all(map(torch.equal, before, engine.names)) and all(p.grad is None for p in engine.names)
    assert math.isclose(found['loss'], engine.step(batch, CLM())['loss'], abs_tol=1e-5)


@pytest.mark.parametrize('where', ['loss', 'gradient'])
def test_a_step_that_is_not_finite_moves_nothing(where):
    engine, stream, objective = local(micro=2), Uneven(), Poisoned(1, where=where)
    engine.step(stream[0], objective)
    before = [p.clone() for p in engine.names]
    moments = [s['exp_avg'].clone() for s in engine.optimizer.state.values()]
    stats = engine.step(stream[1], objective)
    assert stats['skipped'] == stream[1]['rows'].tolist() and engine.steps == 2
    assert not math.isfinite(stats['loss' if where == 'loss' else 'grad_norm'])
    assert all(map(torch.equal, before, engine.names))
    assert all(map(torch.equal, moments, [s['exp_avg'] for s in engine.optimizer.state.values()]))
    assert 'skipped' not in engine.step(stream[2], objective)


def test_skipped_steps_are_logged_with_their_rows(tmp_path, capsys):
    train(tmp_path/'run', objective=Poisoned(3, 4, 7), steps=9)
    rows = [r for r in Run(tmp_path/'run', 'test', {'steps': 9}).read_log() if 'loss' in r]
    assert [r['step'] for r in rows if 'skipped' in r] == [4, 5, 8] and math.isnan(rows[3]['loss'])
    assert rows[3]['skipped'] == Uneven()[3]['rows'].tolist()
    assert capsys.readouterr().out.count('is skipped') == 3


def test_three_skipped_in_a_row_stop_the_run(tmp_path):
    with pytest.raises(UserError, match=r'three times in a row, last at step 7; lower --lr, or look at rows \[\d+') as e:
        train(tmp_path/'run', objective=Poisoned(*range(4, 12)))
    assert '\n' not in str(e.value)
    assert len([r for r in json.loads(timeless(tmp_path/'run')) if 'skipped' in r]) == 3


def test_the_streak_survives_a_restart(tmp_path):
    poisoned = Poisoned(3, 4, 5, 6, 7)
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'run', objective=poisoned, stop=5, save_every=4)
    with pytest.raises(UserError, match='last at step 6'): train(tmp_path/'run', objective=poisoned, save_every=4)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory): return train(tmp_path_factory.mktemp('undisturbed')/'run')


@pytest.mark.parametrize('stop', [1, 5, 8, 12])
def test_a_stopped_run_ends_in_the_same_bits(tmp_path, undisturbed, stop, capsys):
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'run', stop=stop, save_every=4)
    assert train(tmp_path/'run', save_every=4) == undisturbed
    assert ('goes on from step' in capsys.readouterr().out) == (stop > 4)
    assert (tmp_path/'run/loss.png').stat().st_size > 1000


def test_dropout_draws_the_same_numbers(tmp_path):
    whole = train(tmp_path/'a', dropout=True)
    torch.manual_seed(17)
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'b', stop=7, save_every=5, dropout=True)
    torch.manual_seed(4)
    assert train(tmp_path/'b', save_every=5, dropout=True) == whole


def test_a_finished_run_is_left_alone(tmp_path, undisturbed):
    train(tmp_path/'run')
    (tmp_path/'run/loss.png').unlink()
    before = names(tmp_path/'run')
    assert train(tmp_path/'run') == undisturbed and names(tmp_path/'run') == before
    assert (tmp_path/'run/loss.png').exists()


def test_all_that_a_kill_can_leave_is_swept(tmp_path, undisturbed):
    folder = tmp_path/'run'
    with pytest.raises(KeyboardInterrupt): train(folder, stop=9, save_every=4)
    for name in ('.step-00000012.tmp', '.step-00000004.gone'):
        (folder/'checkpoints'/name/'trainer').mkdir(parents=True)
        (folder/'checkpoints'/name/'trainer/state.safetensors').write_bytes(b'half')
    for name in ('.config.json.77.tmp', '.log.jsonl.77.tmp', '.loss.png.77.tmp'): (folder/name).write_text('half')
    with open(folder/'log.jsonl', 'a') as f: f.write('{"step": 10, "loss": 2.')
    assert train(folder, save_every=4, keep=1) == undisturbed
    assert names(folder) == ['step-00000012']
    assert not [p.name for p in folder.rglob('.*')]


def test_killed_while_the_first_file_was_written(tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run/.config.json.77.tmp').write_text('{"comm')
    Run(tmp_path/'run', 'test', {})
    assert [p.name for p in (tmp_path/'run').iterdir()] == ['config.json']


def test_a_log_cut_between_any_two_bytes(tmp_path):
    run = Run(tmp_path/'run', 'test', {})
    rows = [{'step': 1, 'loss': math.nan, 'said': 'ä\u2028'}, {'step': 2, 'loss': 0.1 + 0.2}]
    for r in rows: run.log(r)
    text = (tmp_path/'run/log.jsonl').read_bytes()
    first = text.index(b'\n') + 1
    for n in range(first, len(text) + 1):
        (tmp_path/'run/log.jsonl').write_bytes(text[:n])
        run.truncate_log(2)
        assert (tmp_path/'run/log.jsonl').read_bytes() == (text if n >= len(text) - 1 else text[:first])


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == 'flipped': content[len(content)//2] ^= 4
    path.write_bytes(content[:len(content)//2] if how == 'cut' else content)


@pytest.mark.parametrize('file', ['trainer/state.safetensors', 'trainer/trainer.json', 'manifest.json'])
@pytest.mark.parametrize('how', ['flipped', 'cut'])
def test_a_broken_checkpoint_is_passed_over(tmp_path, undisturbed, capsys, file, how):
    folder = tmp_path/'run'
    with pytest.raises(KeyboardInterrupt): train(folder, stop=11, save_every=5)
    spoil(folder/'checkpoints/step-00000010'/file, how)
    spoilt = (folder/'checkpoints/step-00000010'/file).read_bytes()
    capsys.readouterr()
    assert train(folder, save_every=5, keep=1) == undisturbed
    out = capsys.readouterr().out
    assert out.count('warning') == 1 and 'step-00000010 is skipped' in out and 'goes on from step 5' in out
    kept = folder/'checkpoints/broken-step-00000010.old1'
    assert (kept/file).read_bytes() == spoilt  # nothing was deleted
    assert names(folder) == ['broken-step-00000010.old1', 'step-00000012']


def test_all_checkpoints_broken_starts_over(tmp_path, undisturbed, capsys):
    folder = tmp_path/'run'
    with pytest.raises(KeyboardInterrupt): train(folder, stop=11, save_every=5)
    for p in (folder/'checkpoints').iterdir(): spoil(p/'trainer/state.safetensors', 'cut')
    assert train(folder, save_every=5) == undisturbed
    assert capsys.readouterr().out.count('is skipped') == 2


def test_sigterm_saves_and_exits_143(tmp_path, undisturbed, capsys):
    class Asked(CLM):
        def loss(self, log_probs, batch, counts):
            if int(batch['rows'][0]) // 100 == 6: os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(log_probs, batch, counts)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as e: train(tmp_path/'run', objective=Asked())
    assert e.value.code == 143 and names(tmp_path/'run') == ['step-00000007']
    assert 'stopped by SIGTERM, saved at step 7' in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(tmp_path/'run', keep=1) == undisturbed


def test_keep(tmp_path):
    for keep, left in ((0, 6), (1, 1), (3, 3)):
        train(tmp_path/str(keep), save_every=2, keep=keep)
        assert len(names(tmp_path/str(keep))) == left and names(tmp_path/str(keep))[-1] == 'step-00000012'


def test_a_checkpoint_of_another_shape(tmp_path):
    local().save(tmp_path/'a/trainer')
    for change in (dict(n_hidden=96), dict(n_layer=1), dict(n_layer=3), dict(tied=False)):
        other = LocalEngine(Transformer(Config(**{**vars(CONFIG), **change}), 0), lambda step: 1e-2)
        with pytest.raises(UserError, match='of another shape; '): other.load(tmp_path/'a/trainer')


def test_loading_brings_back_moments_and_forgets_others(tmp_path):
    engine, stream = local(), Uneven()
    engine.save(tmp_path/'new')
    for t in range(3): engine.step(stream[t], CLM())
    engine.save(tmp_path/'three')
    kept = load_file(tmp_path/'three/state.safetensors')
    assert 'exp_avg.embed.weight' in kept and kept['step.embed.weight'] == 3
    engine.load(tmp_path/'new')
    assert engine.steps == 0 and not engine.optimizer.state
    engine.load(tmp_path/'three')
    assert engine.steps == 3 and len(engine.optimizer.state) == len(engine.names)


def test_the_folder_of_another_run(tmp_path):
    folder = tmp_path/'run'
    Run(folder, 'sft', {'lr': 1}) # nothing happens in it
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 5, 'lengths': (1, 2)}).log({'step': 1})
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 9, 'lengths': (1, 2)})
    for command, args, what in (('sft', {}, 'holds a run of `pretrain`, not of `sft`'),
                                ('pretrain', {'lr': 2e-3}, r'--lr was 0.001, now 0.002'),
                                ('pretrain', {'lr': 1e-3, 'lengths': (1, 2), 'more_of_it': 3}, '--more-of-it was None, now 3')):
        with pytest.raises(UserError, match=what) as e: Run(folder, command, args)
        assert '\n' not in str(e.value) and '--fresh' in str(e.value)
    (folder/'mine.txt').write_text('x')
    Run(folder, 'sft', {}, fresh=True)
    assert (tmp_path/'run.old1/mine.txt').exists() and [p.name for p in folder.iterdir()] == ['config.json']
    assert _aside(folder).name == 'run.old2'


@pytest.mark.parametrize('fresh', [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, fresh):
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(UserError, match='not empty and not a run'): Run(tmp_path, 'pretrain', {}, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


def test_the_choice_of_speed_is_made_once(tmp_path):
    train(tmp_path/'run', steps=2)
    chosen = Run(tmp_path/'run', 'test', {'steps': 2}).config['speed']
    assert chosen == {'precision': 'fp32', 'threads': torch.get_num_threads(), 'compile': False}


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


def test_fit_keeps_its_memory_while_it_trains(tmp_path, monkeypatch):
    open_, seen = [], []

    @contextmanager
    def noted():
        open_.append(True)
        yield
        open_.clear()
    monkeypatch.setattr('llmbook.train.loop.keep_memory', noted)
    monkeypatch.setattr(CLM, 'counts', lambda self, batch, counts=CLM.counts: seen.append(bool(open_)) or counts(self, batch))
    train(tmp_path/'run', steps=2)
    assert seen and all(seen) and not open_


def test_flops_are_counted():
    "Against a count of every matrix product of one forward pass: 2 a weight and token; backward is twice that."
    from torch.utils.flop_counter import FlopCounterMode
    for change in ({}, dict(tied=False), dict(arch='gpt2')):
        model, ids = Transformer(Config(**{**vars(CONFIG), 'n_embd': 96, 'n_hidden': 256, **change}), 0), Uneven()[0]['ids']
        with FlopCounterMode(display=False) as counter: model(ids).sum().backward()
        assert math.isclose(counter.get_total_flops() / ids.numel(), flops_per_token(model, 16), rel_tol=0.12), change


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_either_optimizer_goes_on_in_the_same_bits(tmp_path, optimizer):
    def steps(engine, first, last): return [engine.step(Uneven()[t], CLM())['loss'] for t in range(first, last)]
    whole, half, again = (local(optimizer=optimizer) for _ in range(3))
    losses = steps(whole, 0, 12)
    steps(half, 0, 5)
    half.save(tmp_path/'trainer')
    again.load(tmp_path/'trainer')
    assert steps(again, 5, 12) == losses[5:] and losses[-1] < losses[0]
    for p, q in zip(again.model.parameters(), whole.model.parameters()): assert torch.equal(p, q)
