"A process in the middle of `llmbook pretrain` is killed, and the same command is given again: the run ends in the same bits."
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmbook.text.store import write_store
from llmbook.text.bpe import save_tokenizer, train_tokenizer
from llmbook.text.corpus import world_documents

ROOT = Path(__file__).resolve().parents[1]
STEPS, SAVE = 24, 5
FILES = ('model.safetensors', 'config.json', 'trainer/state.safetensors', 'trainer/rng-0.safetensors', 'trainer/trainer.json')


class House:
    "One set of tokens, and runs on it."
    def __init__(self, folder):
        self.folder, documents = folder, list(world_documents(60))
        tokenizer = train_tokenizer((d['text'] for d in documents), 300)
        write_store(folder/'tokens', {'train': documents[:56], 'val': documents[56:]}, tokenizer)
        save_tokenizer(tokenizer, folder/'tokens')

    def start(self, name):
        "The command, always the same but for its folder."
        command = [sys.executable, '-m', 'llmbook', 'pretrain', '--tokens', 'tokens', '--out', name, '--steps', STEPS,
                   '--batch-size', 4, '--block-size', 32, '--save-every', SAVE, '--eval-every', 7, '--keep', 2]
        env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), MPLBACKEND='agg')
        return subprocess.Popen(list(map(str, command)), cwd=self.folder, env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def lines(self, name):
        log = self.folder/name/'log.jsonl'
        return log.read_bytes().count(b'\n') if log.exists() else 0

    def interrupt(self, name, lines=None, delay=0.0, how=signal.SIGKILL):
        "Send a signal `delay` seconds after the log has got `lines` more lines; None counts from the start of the process."
        process = self.start(name)
        if lines is not None:
            before = self.lines(name)
            while self.lines(name) == before and before and process.poll() is None: time.sleep(0.002)  # until it is cut
            goal = min(self.lines(name), before) + lines
            while self.lines(name) < goal and process.poll() is None: time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(how)
        return process.communicate(timeout=120)[0], process.returncode

    def finish(self, name):
        process = self.start(name)
        out = process.communicate(timeout=300)[0]
        assert process.returncode == 0, out
        return out

    def result(self, name):
        "What a run leaves behind: files of the last checkpoint, and the log without its times."
        run = self.folder/name
        rows = [json.loads(line) for line in (run/'log.jsonl').read_text().splitlines()]
        log = json.dumps([{k: v for k, v in r.items() if k not in ('tokens_per_s', 'mfu')} for r in rows])
        return {'log': log} | {f: (run/f'checkpoints/step-{STEPS:08d}'/f).read_bytes() for f in FILES}

    def differs(self, name):
        ours, theirs = self.result(name), self.result('whole')
        return [f for f in theirs if ours[f] != theirs[f]]

    def leftovers(self, name): return [p.name for p in (self.folder/name).rglob('.*')]


def resumed(out): return int(re.search(r'resuming from step (\d+)', out)[1]) if 'resuming from' in out else 0


@pytest.fixture(scope='module')
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp('faults'))
    house.finish('whole')
    return house


def test_the_undisturbed_run(house):
    rows = json.loads(house.result('whole')['log'])
    assert [r['step'] for r in rows if 'loss' in r] == list(range(1, STEPS + 1))
    assert [r['step'] for r in rows if 'val_loss' in r] == [7, 14, 21, STEPS]
    names = sorted(p.name for p in (house.folder/'whole/checkpoints').iterdir())
    assert names == ['step-00000020', 'step-00000024'] and not house.leftovers('whole')


def test_killed_then_terminated_then_finished(house):
    out, code = house.interrupt('once', lines=8, delay=random.Random(0).random() / 50)
    assert code == -signal.SIGKILL, out
    out, code = house.interrupt('once', lines=3, how=signal.SIGTERM)
    assert code == 143 and 'stopped by SIGTERM, saved at step' in out and resumed(out) >= SAVE, out
    saved = int(re.search(r'saved at step (\d+)', out)[1])
    out = house.finish('once')
    assert resumed(out) == saved > 0, out
    assert not house.differs('once') and not house.leftovers('once')


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(10))
def test_killed_at_random_moments(house, seed):
    "Two to four kills: within a few lines of the log, a few milliseconds later, or some seconds after the start."
    draw, name, steps = random.Random(seed), f'random{seed}', []
    for i in range(draw.randint(2, 4)):
        lines = draw.randint(SAVE + 1 if i == 0 else 1, 9) if i == 0 or draw.random() < 0.7 else None
        out, code = house.interrupt(name, lines, draw.random() * (0.05 if lines else 5))
        steps.append(resumed(out))
        if code != -signal.SIGKILL: break  # it was done before
    steps.append(resumed(house.finish(name)))
    assert not house.differs(name) and not house.leftovers(name)
    assert max(steps) > 0, steps


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(house):
    out, code = house.interrupt('early', lines=2)
    assert code == -signal.SIGKILL and not list((house.folder/'early/checkpoints').glob('step-*')), out
    assert resumed(house.finish('early')) == 0
    assert not house.differs('early') and not house.leftovers('early')


@pytest.mark.slow
@pytest.mark.parametrize('file', ['model.safetensors', 'trainer/state.safetensors'])
def test_a_flipped_byte(house, file):
    name = f'flipped-{Path(file).stem}'
    house.finish(name)
    path = house.folder/name/f'checkpoints/step-{STEPS:08d}'/file
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    out = house.finish(name)
    assert out.count('warning: ') == 1 and f'{file} was changed or cut short' in out and resumed(out) == 20
    assert not house.differs(name)
    assert (house.folder/name/f'checkpoints/broken-step-{STEPS:08d}.old1'/file).read_bytes() == bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize('how, code', [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_every_signal_saves(house, how, code):
    name = f'signal{code}'
    out, ended = house.interrupt(name, lines=8, how=how)
    assert ended == code and f'stopped by {how.name}, saved at step' in out and 'Traceback' not in out, out
    saved = int(re.search(r'saved at step (\d+)', out)[1])
    assert resumed(house.finish(name)) == saved > 0
    assert not house.differs(name) and not house.leftovers(name)


@pytest.mark.slow
def test_a_second_process_is_refused_and_touches_nothing(house):
    first = house.start('twice')
    while house.lines('twice') < 2 and first.poll() is None: time.sleep(0.01)
    second = house.start('twice')
    first.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    out = second.communicate(timeout=120)[0]
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2 and f'process {first.pid} on' in out.splitlines()[-1] and 'Traceback' not in out, out
    assert first.wait(120) == 0 and not house.differs('twice') and not house.leftovers('twice')
    first.communicate()


@pytest.mark.slow
def test_a_signal_before_the_loop_promises_nothing(house):
    out, code = house.interrupt('before', lines=None, delay=2.5)
    assert code in (-signal.SIGKILL, 0)
    for delay in (1.5, 3, 4):
        out, code = house.interrupt('before', None, delay, signal.SIGTERM)
        if code in (0, -signal.SIGTERM): continue  # it was done, or had not got as far as its handlers
        assert code == 143 and ('nothing was saved' in out or 'saved at step' in out), out
    house.finish('before')
    assert not house.differs('before') and not house.leftovers('before')
