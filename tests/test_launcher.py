"Under the launchers, as on a cluster: deepspeed and torchrun start two ranks; ranks and launchers are broken and killed."
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from needs import needs
from test_faults import SAVE, STEPS, House, resumed

pytestmark = needs('deepspeed', 'scale')
ROOT, BIN = Path(__file__).resolve().parents[1], Path(sys.executable).parent
CLI = str(ROOT/'llmbook/cli.py')
FORMS = {
    'deepspeed': [BIN/'deepspeed', '--num_gpus', 2, '--master_port', '{port}', CLI],
    'deepspeed --module': [BIN/'deepspeed', '--num_gpus', 2, '--master_port', '{port}', '--module', 'llmbook.cli'],
    'torchrun': [BIN/'torchrun', '--nproc-per-node', 2, '--master-port', '{port}', CLI],
    'torchrun --module': [BIN/'torchrun', '--nproc-per-node', 2, '--master-port', '{port}', '--module', 'llmbook.cli'],
    'one process': [sys.executable, '-m', 'llmbook'],
}
DEADLINE = 10 # seconds after which nothing may be left


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Cluster(House):
    "Runs of two ranks. All processes of a run carry its name in their environment, so none can hide."
    form, flags, env = 'deepspeed', ('--zero', 2), {}

    def start(self, name, form=None, flags=None, **env):
        command = [str(w).format(port=free_port()) for w in FORMS[form or self.form]]
        if 'FAULT' in env: command[command.index(CLI)] = str(ROOT/'tests/broken_cli.py')
        command += ['pretrain', '--tokens', 'tokens', '--out', name, '--steps', STEPS, '--batch-size', 4, '--block-size', 32,
                    '--save-every', SAVE, '--eval-every', 7, '--keep', 2, *(self.flags if flags is None else flags)]
        env = {'MARK': str(self.folder/f'{name}.mark')} | env
        env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), MPLBACKEND='agg', RUN_NAME=str(self.folder/name)) | env
        self.err = open(self.folder/f'{name}.err', 'w+')
        return subprocess.Popen(list(map(str, command)), cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE,
                                stderr=self.err)

    def finish(self, name, form=None, flags=None):
        process = self.start(name, form, flags)
        out = process.communicate(timeout=300)[0]
        self.err.seek(0)
        assert process.returncode == 0, out + self.err.read()
        return out

    def processes(self, name):
        found = []
        for p in psutil.process_iter():
            try:
                if p.environ().get('RUN_NAME') == str(self.folder/name) and p.status() != psutil.STATUS_ZOMBIE: found.append(p)
            except psutil.Error: pass
        return found

    def ranks(self, name): return sorted((int(p.environ()['RANK']), p) for p in self.processes(name) if 'RANK' in p.environ())

    def gone(self, name, deadline=DEADLINE):
        "Wait until nothing runs any more, no longer than the deadline; what is left then."
        end = time.monotonic() + deadline
        while (left := self.processes(name)) and time.monotonic() < end: time.sleep(0.1)
        return left

    def broken(self, name, fault, hang_timeout=1800):
        "Start, wait for the fault, and see that it ends all; the first lines on stderr, the output and the code."
        process = self.start(name, flags=('--zero', 2, '--hang-timeout', hang_timeout), FAULT=fault)
        while not (self.folder/f'{name}.mark').exists() and process.poll() is None: time.sleep(0.05)
        left = self.gone(name, DEADLINE + (hang_timeout if hang_timeout < 1800 else 0))
        for p in left: p.kill()
        out, code = process.communicate(timeout=60)[0], process.returncode
        self.err.seek(0)
        err = self.err.read()
        assert not left, f'{left} still run {DEADLINE} s after the fault: {out}{err}'
        return err, out, code


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp('cluster'))
    cluster.finish('whole')
    return cluster


def losses(cluster, name):
    rows = [json.loads(line) for line in (cluster.folder/name/'log.jsonl').read_text().splitlines()]
    return {r['step']: r['loss'] for r in rows if 'loss' in r}


def same_losses(ours, theirs):
    assert ours.keys() == theirs.keys() == set(range(1, STEPS + 1))
    assert max(abs(ours[s] - theirs[s]) for s in ours) < 1e-5


def test_two_ranks_learn_what_one_process_learns(cluster):
    out = cluster.finish('one', 'one process', ())
    same_losses(losses(cluster, 'whole'), losses(cluster, 'one'))
    layouts = json.loads((cluster.folder/'whole/config.json').read_text())['layouts']
    assert layouts == [{'from_step': 0, 'engine': 'deepspeed', 'ranks': 2, 'zero': 2, 'offload': False}]
    assert 'done; the model is' in out


@pytest.mark.slow
@pytest.mark.parametrize('form, zero', [('torchrun --module', 3), ('deepspeed --module', 1), ('torchrun', 0), ('deepspeed', 3),
                                        ('one process', 2)])
def test_forms(cluster, form, zero):
    "Each form of the command line, on the run of another form: it goes on where that was, and rank 0 alone speaks."
    name = f'{form.split()[0]}{zero}'
    process = cluster.start(name)
    while cluster.lines(name) < SAVE + 2 and process.poll() is None: time.sleep(0.01)
    for _, p in cluster.ranks(name): p.kill()
    process.communicate()
    assert not cluster.gone(name)
    out = cluster.finish(name, form, ('--zero', zero))
    assert resumed(out) >= SAVE and out.count('resuming from') == out.count('done; the model is') == 1, out
    same_losses(losses(cluster, name), losses(cluster, 'whole'))


@pytest.mark.slow
@pytest.mark.parametrize('kind, code, says', [
    ('error', 1, 'llmbook: rank 1: a fault of llmbook, please report it: ZeroDivisionError: on purpose (broken_cli.py, line 20); '
                 '--debug shows the traceback'),
    ('mistake', 2, 'llmbook: rank 1: --batch-size 3: on purpose')])
def test_an_error_in_one_rank_ends_all(cluster, kind, code, says):
    err, out, ended = cluster.broken(kind, f'{kind},1,3')
    assert err.splitlines()[0] == says and ended == code, err + out
    assert err.count('llmbook: ') == 1 and 'Traceback' not in err, err


@pytest.mark.slow
def test_a_hang_is_ended_with_the_stuck_ranks_stack(cluster):
    err, out, code = cluster.broken('hang', 'hang,1,3', 15)
    assert code == 1 and re.match('llmbook: rank 1: stuck for 15 s while rank 0 was at: step 4', err), err + out
    assert 'time.sleep(1000)' in err and 'rank 0\n' not in err, err


@pytest.mark.slow
@pytest.mark.parametrize('kind, says', [('stop', 'rank 1: stuck for 15 s'), ('kill', 'rank 1: ended without a word'),
                                        ('exit', 'rank 1: ended without a word')])
def test_a_rank_that_cannot_speak(cluster, kind, says):
    err, out, code = cluster.broken(kind, f'{kind},1,3', 15)
    assert code != 0 and err.startswith(f'llmbook: {says}'), err + out


@pytest.mark.slow
def test_a_nan_of_one_rank_is_in_the_log(cluster):
    process = cluster.start('nan', FAULT='nan,1,3')
    out = process.communicate(timeout=300)[0]
    cluster.err.seek(0)
    err = cluster.err.read()
    assert process.returncode == 0 and 'warning: step 4 is skipped: loss nan' in err and 'on rank 1' in err, out + err
    rows = [json.loads(line) for line in (cluster.folder/'nan/log.jsonl').read_text().splitlines()]
    skipped = [r for r in rows if 'skipped' in r]
    assert [r['step'] for r in skipped] == [4] and skipped[0]['skipped_ranks'] == [1] and len(skipped[0]['skipped']) == 2


@pytest.mark.slow
def test_a_typing_mistake_is_one_line(cluster):
    process = cluster.start('typing', flags=('--zreo', 2))
    out = process.communicate(timeout=120)[0]
    cluster.err.seek(0)
    err = cluster.err.read()
    assert process.returncode == 2 and err.count('\n') == 1, out + err
    assert re.match(r"llmbook: rank \d: .*--zreo, did you mean '--zero'\?", err), err


@pytest.mark.slow
@pytest.mark.parametrize('whom', ['launcher', 'rank 1'])
def test_sigterm_saves_and_is_one_line(cluster, whom):
    "What a scheduler does that wants its machines back: it tells the launcher on each machine, which tells its ranks."
    name = f'polite {whom}'.replace(' ', '-')
    process = cluster.start(name)
    while cluster.lines(name) < 3 and process.poll() is None: time.sleep(0.01)
    [launcher] = [p for p in cluster.processes(name) if 'deepspeed.launcher.launch' in p.cmdline()]
    asked = launcher if whom == 'launcher' else cluster.ranks(name)[1][1]
    asked.send_signal(signal.SIGTERM)
    out = process.communicate(timeout=120)[0]
    cluster.err.seek(0)
    out += cluster.err.read()
    assert not cluster.gone(name) and process.returncode != 0 and out.count('saved at step') == 1, out
    saved = int(re.search(r'stopped by SIGTERM, saved at step (\d+)', out)[1])
    assert resumed(cluster.finish(name)) == saved > 0 and not cluster.differs(name)


KILLS = [] # who was hit, run by run


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(8))
def test_killed_at_random_moments(cluster, seed):
    "Three kills each, of a rank, the launcher, or what started it: nothing is left running, and the end is the same bits."
    draw, name, steps, hit = random.Random(seed), f'killed{seed}', [], []
    for i in range(3):
        process, goal = cluster.start(name), draw.randint(SAVE + 1, 9) if i == 0 or draw.random() < 0.7 else None
        if goal is None: time.sleep(draw.random() * 7)
        else:
            before = cluster.lines(name)
            while cluster.lines(name) == before and before and process.poll() is None: time.sleep(0.002) # until it is cut
            goal += min(cluster.lines(name), before)
            while cluster.lines(name) < goal and process.poll() is None: time.sleep(0.002)
            time.sleep(draw.random() * 0.05)
        victims = cluster.processes(name)
        if not victims: break # it was done before
        victim = draw.choice(victims)
        hit.append(' '.join(victim.cmdline()[1:4]))
        victim.kill()
        left = cluster.gone(name)
        for p in left: p.kill()
        steps.append(resumed(process.communicate(timeout=60)[0]))
        assert not left, f'{left} still run {DEADLINE} s after {hit[-1]} was killed'
    steps.append(resumed(cluster.finish(name)))
    assert not cluster.differs(name) and not cluster.leftovers(name), hit
    assert max(steps) > 0, (steps, hit)
    KILLS.append(hit)


@pytest.mark.slow
def test_the_kills_were_twenty_and_of_every_kind():
    if len(KILLS) < 8: pytest.skip('some of them were not run')
    assert sum(map(len, KILLS)) >= 20 and len(set(sum(KILLS, []))) >= 3, KILLS
