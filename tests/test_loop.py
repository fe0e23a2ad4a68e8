"The loop: skipped steps are logged and stop a sick run; a run that was stopped ends in the same bits."
import json
import math
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
import torch
from layouts import Poisoned, Uneven, local, sharded
from torch.nn import functional as F

from llmbook.core import Diverged, Interrupted, UserError, explain
from llmbook.model.checkpoints import best_checkpoint, read_best
from llmbook.scale.ranks import launch
from llmbook.train import loop
from llmbook.train.clm import CLM, pretrain
from llmbook.train.curves import loss_points
from llmbook.train.loop import fit
from llmbook.train.runs import Run, read_log

TIMES = ('tokens_per_s', 'mfu')


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


def test_skipped_steps_are_logged_with_their_rows(tmp_path, capsys):
    train(tmp_path/'run', objective=Poisoned(3, 4, 7), steps=9)
    rows = [r for r in Run(tmp_path/'run', 'test', {'steps': 9}).read_log() if 'loss' in r]
    assert [r['step'] for r in rows if 'skipped' in r] == [4, 5, 8]
    assert rows[3]['loss'] is None and rows[3]['nonfinite'] == 'nan'
    assert rows[3]['skipped'] == Uneven()[3]['rows'].tolist()
    out, err = capsys.readouterr()
    assert err.count('is skipped') == 3 and 'warning' not in out


def test_three_skipped_in_a_row_stop_the_run(tmp_path):
    for _ in range(2): # it is saved, and the same command says the same without another step
        with pytest.raises(Diverged, match=r'three times in a row, last at step 7; lower --lr, or look at rows \[\d+') as e:
            train(tmp_path/'run', objective=Poisoned(*range(4, 12)))
        assert '\n' not in str(e.value) and explain(e.value)[1] == 3
        assert len([r for r in json.loads(timeless(tmp_path/'run')) if 'skipped' in r]) == 3
        assert names(tmp_path/'run') == ['step-00000007']


def test_the_streak_survives_a_restart(tmp_path):
    poisoned = Poisoned(3, 4, 5, 6, 7)
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'run', objective=poisoned, stop=5, save_every=4)
    with pytest.raises(Diverged, match='last at step 6'): train(tmp_path/'run', objective=poisoned, save_every=4)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory): return train(tmp_path_factory.mktemp('undisturbed')/'run')


@pytest.mark.parametrize('stop', [1, 5, 8, 12])
def test_a_stopped_run_ends_in_the_same_bits(tmp_path, undisturbed, stop, capsys):
    with pytest.raises(KeyboardInterrupt): train(tmp_path/'run', stop=stop, save_every=4)
    assert train(tmp_path/'run', save_every=4) == undisturbed
    assert ('resuming from step' in capsys.readouterr().out) == (stop > 4)
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


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == 'flipped': content[len(content)//2] ^= 4
    path.write_bytes(content[:len(content)//2] if how == 'cut' else content)


@pytest.mark.parametrize('file', ['trainer/state.safetensors', 'trainer/trainer.json', 'manifest.json'])
@pytest.mark.parametrize('how', ['flipped', 'cut'])
def test_a_broken_checkpoint_is_skipped(tmp_path, undisturbed, capsys, file, how):
    folder = tmp_path/'run'
    with pytest.raises(KeyboardInterrupt): train(folder, stop=11, save_every=5)
    spoil(folder/'checkpoints/step-00000010'/file, how)
    spoilt = (folder/'checkpoints/step-00000010'/file).read_bytes()
    capsys.readouterr()
    assert train(folder, save_every=5, keep=1) == undisturbed
    out = ''.join(capsys.readouterr())
    assert out.count('warning') == 1 and re.search('step-00000010 is (passed over|skipped)', out)
    assert 'resuming from step 5' in out
    kept = folder/'checkpoints/broken-step-00000010.old1'
    assert (kept/file).read_bytes() == spoilt  # nothing was deleted
    assert names(folder) == ['broken-step-00000010.old1', 'step-00000012']


def test_all_checkpoints_broken_starts_over(tmp_path, undisturbed, capsys):
    folder = tmp_path/'run'
    with pytest.raises(KeyboardInterrupt): train(folder, stop=11, save_every=5)
    for p in (folder/'checkpoints').iterdir(): spoil(p/'trainer/state.safetensors', 'cut')
    assert train(folder, save_every=5) == undisturbed
    assert len(re.findall('step-[0-9]+ is (?:passed over|skipped)', ''.join(capsys.readouterr()))) == 2


class Asked(CLM):
    "Sends signals to its own process in the middle of step 7."
    def __init__(self, *numbers): self.numbers = numbers

    def loss(self, log_probs, batch, counts):
        if int(batch['rows'][0]) // 100 == 6:
            for number in self.numbers: os.kill(os.getpid(), number)
        return super().loss(log_probs, batch, counts)


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_ends(tmp_path, undisturbed, number, code):
    before = signal.getsignal(number), signal.set_wakeup_fd(-1)
    with pytest.raises(Interrupted) as e: train(tmp_path/'run', objective=Asked(number, number)) # twice, as launchers do
    line, ended = explain(e.value)
    assert ended == code and names(tmp_path/'run') == ['step-00000007']
    assert f'stopped by {number.name}, saved at step 7; the same command resumes' in line and '\n' not in line
    assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == before
    assert train(tmp_path/'run', keep=1) == undisturbed


def test_an_ignored_signal_stays_ignored(tmp_path, undisturbed):
    "As nohup wants it."
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try: assert train(tmp_path/'run', objective=Asked(signal.SIGHUP)) == undisturbed
    finally: signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('moment', ['save', 'plot'])
def test_a_signal_after_the_last_look_is_not_lost(tmp_path, undisturbed, monkeypatch, moment):
    "It comes while the last checkpoint is written, or the picture: a caller such as `llmbook run` must not go on."
    def ask(*_): os.kill(os.getpid(), signal.SIGTERM)
    if moment == 'plot': monkeypatch.setattr(loop, 'plot_log', ask)
    run, engine = Run(tmp_path/'run', 'test', {'steps': 12}), local()
    with pytest.raises(Interrupted, match='stopped by SIGTERM, saved at step 12'):
        fit(engine, CLM(), Uneven(), 12, run, ask if moment == 'save' else lambda stage: None)
    monkeypatch.undo()
    assert state_bytes(tmp_path/'run') == undisturbed[1]


SECOND = """
import os, sys, threading, time
os.environ['OMP_NUM_THREADS'] = '1'
import torch
from llmbook.train.loop import _noting_signals
def ask():
    for seconds in (0, 0.02, 0.4): time.sleep(seconds); os.kill(os.getpid(), int(sys.argv[1]))
a = torch.ones(8192, 8192)
began = time.monotonic()
with _noting_signals():
    threading.Thread(target=ask, daemon=True).start()
    a @ a
print('still here')
"""


def test_a_second_signal_ends_at_once_even_in_one_long_instruction():
    done = subprocess.run([sys.executable, '-c', SECOND, '2'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and not done.stdout and done.stderr.count('\n') == 2, done
    assert 'a second signal ends' in done.stderr and 'ended without saving' in done.stderr


class Closed:
    "Standard output that fails after some lines."
    def __init__(self, error, lines=0): self.error, self.lines = error, lines
    def write(self, text):
        self.lines -= 1
        if self.lines < 0: raise self.error
    def flush(self): self.write('')


def test_nobody_reads_the_output(tmp_path, undisturbed, monkeypatch):
    "A closed pipe is a request to stop: 141. On a full disk it is an error: 2. Both are saved."
    with monkeypatch.context() as m:
        def chatty(step, stats, say):
            if step == 5: say('hello')
            return {}
        for error, code, words in ((BrokenPipeError(32, 'Broken pipe'), 141, 'saved at step 5'),
                                   (OSError(28, 'No space left on device'), 2, r'No space left on device\); saved at step 5')):
            m.setattr('sys.stdout', Closed(error))
            run = Run(tmp_path/str(code), 'test', {'steps': 12})
            with pytest.raises(BaseException, match=words) as e:
                fit(local(), CLM(), Uneven(), 12, run, lambda stage: None, eval_every=1, on_eval=chatty)
            assert explain(e.value)[1] == code and names(tmp_path/str(code)) == ['step-00000005']
    assert train(tmp_path/'141', keep=1)[1] == undisturbed[1]


@pytest.mark.parametrize('ours, theirs, code', [([], 15, 143), ([2], 15, 130), ([15], 15, 143)])
def test_of_many_ranks_rank_0_says_why(tmp_path, ours, theirs, code):
    "All leave in peace with the same code, whichever of them was asked."
    class Many:
        world, steps = 2, 7
        def broadcast(self, number): return number
    class Bar:
        lost, lines = None, []
        def write(self, line): self.lines.append(line)
    bar = Bar()
    with pytest.raises(SystemExit) as e: loop._leave(Many(), Run(tmp_path/'run', 'test', {}), ours, bar)
    assert e.value.code == code and 'saved at step 7; the same command resumes' in bar.lines[-1]


def losses(*values, first=1): return [{'step': first + i, 'loss': v, 'tokens': 1} for i, v in enumerate(values)]


@pytest.mark.parametrize('rows, grace, last, sick', [
    (losses(*[9.0]*50), 0, False, True), (losses(*[9.0]*49), 0, False, False), # fifty steps decide
    (losses(*[9.0]*20), 0, True, True), (losses(*[9.0]*19), 0, True, False), # at the end twenty
    (losses(*[9.0]*50), 1, False, False), (losses(*[9.0]*50), 30, True, True), (losses(*[9.0]*50), 31, True, False), # warm-up
    (losses(*[5.0]*50), 0, True, False), (losses(*[4.9]*50), 0, True, False), (losses(*[5.1]*50), 0, True, True), # at the limit
    (losses(*[2.0]*40, *[90.0]*10), 0, False, True), # the mean counts, not the last
])
def test_a_loss_above_the_limit(rows, grace, last, sick):
    problem = loop._ails(rows, 5.0, grace, last)
    assert bool(problem) == sick and '\n' not in problem and (not sick or 'lower --lr' in problem)


def test_a_diverged_run_is_saved_and_said_again(tmp_path):
    class Lost(CLM):
        def loss(self, log_probs, batch, counts):
            loss, metrics = super().loss(log_probs, batch, counts)
            return loss + 100*(int(batch['rows'][0]) // 100 >= 10), metrics
    run, folder = Run(tmp_path/'run', 'test', {}), tmp_path/'run'
    for _ in range(2):
        engine = local()
        with pytest.raises(Diverged, match='diverged: the losses of the 50 steps up to 60 are .* above the limit of 95.00') as e:
            fit(engine, Lost(), Uneven(), 200, run, lambda stage: None, limit=95, grace=10)
        assert explain(e.value)[1] == 3 and names(folder) == ['step-00000060'] and len(read_log(folder/'log.jsonl')) == 60
    run = Run(tmp_path/'short', 'test', {})
    for _ in range(2): # a finished one is not called done the second time either
        with pytest.raises(Diverged, match='of the 25 steps up to 25'):
            fit(local(), Lost(), Uneven(), 25, run, lambda stage: None, limit=40)


def test_keep(tmp_path):
    for keep, left in ((0, 6), (1, 1), (3, 3)):
        train(tmp_path/str(keep), save_every=2, keep=keep)
        assert len(names(tmp_path/str(keep))) == left and names(tmp_path/str(keep))[-1] == 'step-00000012'


MADE_UP = {2: 5.0, 4: 3.0, 6: math.nan, 8: 3.0, 10: 2.5, 12: 4.0}


def measured(folder, stop=None, losses=MADE_UP, **flags):
    "A run that is measured every two steps and keeps its best checkpoint; what is there in the end."
    def on_eval(step, stats, say):
        if step == stop: raise KeyboardInterrupt
        return {'val_loss': losses[step]} if step in losses else {}
    with Run(folder, 'test', {}) as run:
        fit(local(), CLM(), Uneven(), 12, run, lambda stage: None, **dict(keep=1, eval_every=2, keep_best=True) | flags,
            on_eval=on_eval)
    return names(folder), read_best(folder), timeless(folder), state_bytes(folder)


@pytest.fixture(scope='module')
def with_best(tmp_path_factory): return measured(tmp_path_factory.mktemp('best')/'run')


def test_the_best_checkpoint_stays(tmp_path, undisturbed, with_best):
    kept, best, _, state = with_best
    assert kept == ['step-00000010', 'step-00000012'] and best == {'step': 10, 'val_loss': 2.5}
    assert state == undisturbed[1] # what is kept changes nothing of what is learned
    assert measured(tmp_path/'run', keep_best=False)[0] == ['step-00000012']
    assert read_best(tmp_path/'run') == {} and best_checkpoint(tmp_path/'run') is None
    kept, best, *_ = measured(tmp_path/'first', losses={2: 1.0, 4: 1.0, 12: 2.0}, keep=0)
    assert kept == ['step-00000002', 'step-00000012'] and best['step'] == 2 # of equals the first; those without a loss are none
    assert best_checkpoint(tmp_path/'first').name == 'step-00000002'


@pytest.mark.parametrize('stop', [4, 10, 12])
def test_a_stopped_run_keeps_the_same_best(tmp_path, with_best, stop):
    with pytest.raises(KeyboardInterrupt): measured(tmp_path/'run', stop, save_every=3)
    assert measured(tmp_path/'run') == with_best


@pytest.mark.parametrize('at', [2, 4, 10])
def test_a_kill_between_the_checkpoint_and_its_note(tmp_path, with_best, monkeypatch, at):
    "The run resumes from the checkpoint and finds in its log that it is the best."
    with monkeypatch.context() as m:
        def note(self, step, val_loss, note=Run.note_best):
            if step == at: raise KeyboardInterrupt
            note(self, step, val_loss)
        m.setattr(Run, 'note_best', note)
        with pytest.raises(KeyboardInterrupt): measured(tmp_path/'run')
    assert read_best(tmp_path/'run').get('step', 0) < at and names(tmp_path/'run')[-1] == f'step-{at:08d}'
    assert measured(tmp_path/'run') == with_best


def test_a_best_checkpoint_that_is_not_reached_again_is_forgotten(tmp_path, with_best):
    "Its bits are broken, and the steps after it are lost too: the run goes back, and gets there again."
    with pytest.raises(KeyboardInterrupt): measured(tmp_path/'run', 12, keep=0, save_every=3)
    for step in (9, 10): spoil(tmp_path/f'run/checkpoints/step-{step:08d}/trainer/state.safetensors', 'cut')
    assert measured(tmp_path/'run')[1:] == with_best[1:]
    assert best_checkpoint(tmp_path/'run').name == 'step-00000010' # it was written again


def test_the_best_of_nothing_is_refused(tmp_path):
    with Run(tmp_path/'run', 'test', {}) as run, pytest.raises(UserError, match='--keep-best: .*--eval-every') as e:
        fit(local(), CLM(), Uneven(), 12, run, lambda stage: None, keep_best=True)
    assert '\n' not in str(e.value)
    with pytest.raises(UserError, match='--keep-best'): pretrain(keep_best=True, out=str(tmp_path/'new'))
    assert not (tmp_path/'new').exists()


def of_two_minds(folder):
    "On every rank: a run whose ranks measure different losses."
    engine = sharded(zero=2)
    def on_eval(step, stats, say): return {'val_loss': float(step if engine.rank else -step)}
    run = Run(folder, 'test', {})
    fit(engine, CLM(), Uneven(), 4, run, lambda stage: None, keep=1, eval_every=1, on_eval=on_eval, keep_best=True)
    engine.close()
    return read_best(folder)


@pytest.mark.slow
@pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs the extra scale')
def test_rank_0_decides_what_is_best(tmp_path):
    assert launch(of_two_minds, 2, tmp_path/'run') == [{'step': 4, 'val_loss': -4.0}]*2


def test_the_choice_of_speed_is_made_once(tmp_path):
    train(tmp_path/'run', steps=2)
    chosen = Run(tmp_path/'run', 'test', {'steps': 2}).config['speed']
    assert chosen == {'precision': 'fp32', 'threads': torch.get_num_threads(), 'compile': False}


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


def test_a_curve_of_every_row():
    "Neighbours are averaged and none is left out; NaN and infinity are; held-out rows are where training was."
    rows = [{'step': t, 'tokens': 10*t, 'loss': float(t)} for t in range(1, 1001)]
    rows.insert(500, {'step': 500, 'val_loss': 7.0})
    rows += [{'step': 1001, 'tokens': 10_010, 'loss': math.nan, 'skipped': [1]}, {'step': 1001, 'val_loss': math.inf}]
    rows += [{'step': 1001, 'tokens': 10_010, 'loss': None, 'nonfinite': 'nan'}, {'step': 1001, 'val_loss': None}]
    points = loss_points(rows, most=100)
    assert points['val_loss'] == [(5000, 7.0)] and len(points['loss']) == 100
    assert sum(nats for _, nats in points['loss']) / 100 == 500.5 and points['loss'][0] == (55, 5.5)
    assert loss_points(rows, most=5000)['loss'] == [(10*t, t) for t in range(1, 1001)]
    assert loss_points([]) == {'loss': [], 'val_loss': []}
