"The loop: skipped steps are logged and stop a sick run; a run that was stopped ends in the same bits."
import json
import math
import os
import re
import signal
from contextlib import contextmanager

import pytest
import torch
from layouts import Poisoned, Uneven, local
from torch.nn import functional as F

from llmbook.core import UserError
from llmbook.train.clm import CLM
from llmbook.train.loop import fit, loss_points
from llmbook.train.runs import Run

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
    out = capsys.readouterr().out
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
    assert len(re.findall('step-[0-9]+ is (?:passed over|skipped)', capsys.readouterr().out)) == 2


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
    points = loss_points(rows, most=100)
    assert points['val_loss'] == [(5000, 7.0)] and len(points['loss']) == 100
    assert sum(nats for _, nats in points['loss']) / 100 == 500.5 and points['loss'][0] == (55, 5.5)
    assert loss_points(rows, most=5000)['loss'] == [(10*t, t) for t in range(1, 1001)]
    assert loss_points([]) == {'loss': [], 'val_loss': []}
