"Runs that write their own rows: through the command line, killed and resumed, on one rank and on two, and bad input."

import json
import math
import os
import random
import re
import time
from types import SimpleNamespace

import pytest
import torch
from killed import finished, killed_when
from layouts import ALLOWED
from needs import needs

from llmbook.align.grpo import grpo
from llmbook.align.policy import (RolloutSizes, _held_out_reward, _in_periods, _note_function, policy_prompts, rollout_steps,
                                  time_shares)
from llmbook.align.chat_template import ChatTemplate
from llmbook.align.ppo import ppo
from llmbook.align.rewards import Asked
from llmbook.align.rollouts import RolloutStream
from llmbook.cli import main
from llmbook.core import UserError
from llmbook.files import read_jsonl, write_jsonl
from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.heads import RewardModel
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.engine import DeepSpeedOptions
from llmbook.scale.ranks import launch
from llmbook.text.bpe import train_tokenizer
from llmbook.text.unpack import Skipped
from llmbook.train.step import LocalOptions

SHAPE = Config(vocab_size=1024, block_size=256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
TIMED = ('tokens_per_s', 'mfu', 'seconds_generation', 'seconds_scoring')
REWARD = '''
import os, time
calls = 0
def vowels(prompts, answers):
    global calls
    calls += 1
    if calls == int(os.environ.get('LLMBOOK_TEST_FAILS', 0)): raise OSError('power cut')
    time.sleep(float(os.environ.get('LLMBOOK_TEST_SLEEP', 0)))
    return [sum(letter in 'aeiou' for letter in answer) / 10 for answer in answers]
def odd(prompts, answers):
    "Is the number of vowels odd? Nobody learns that soon, so some groups stay even."
    return [round(10 * points) % 2 for points in vowels(prompts, answers)]
def nan(prompts, answers): return [float('nan')] * len(answers)
def bad(prompts, answers): return [1 / len(a) if 'a' not in a else None for a in answers]
'''


@pytest.fixture(scope='module')
def tokenizer(): return book_model('sft')[1]


@pytest.fixture(scope='module')
def place(tmp_path_factory, tokenizer):
    "A folder with a very small model, a reward model and functions."
    folder = tmp_path_factory.mktemp('policy')
    save_model(Transformer(SHAPE, 0), tokenizer, folder/'tiny')
    judge = RewardModel(SHAPE, tokenizer.pad, seed=2)
    save_model(judge, tokenizer, folder/'judge')
    save_model(judge, train_tokenizer(['Ana was a baker.'] * 50, 300), folder/'foreign')
    (folder/'mine.py').write_text(REWARD)
    write_jsonl(folder/'long.jsonl', [{'prompt': 'Name one.'}, {'prompt': 'Why? ' * 300}] * 20)
    sums = [{'prompt': f'{i}+1=', 'completion': str(i + 1)} for i in range(30)]
    write_jsonl(folder/'sums.jsonl', [*sums, {'prompt': '1+1=', 'completion': 'two'}])
    return folder


def rows_of(run): return list(read_jsonl(run/'log.jsonl'))


def untimed(run): return [{name: value for name, value in row.items() if name not in TIMED} for row in rows_of(run)]


# Sizes

SIZES = RolloutSizes(prompts=8, samples=3, minibatches=2, passes=2, tokens=12)


@pytest.mark.parametrize('prompts, epochs, steps, expected', [
    (57, None, None, 32), (56, None, None, 28), (57, 0.5, None, 16), (57, 2, None, 60), (1, None, None, 4), (57, 0.001, None, 4),
    (57, None, 1, 4), (57, None, 4, 4), (57, None, 5, 8)])
def test_steps_are_complete_rollouts(prompts, epochs, steps, expected):
    assert rollout_steps(prompts, SIZES, epochs, steps) == expected


def test_epochs_and_steps_exclude_each_other():
    with pytest.raises(UserError, match='--epochs 1: not together'): rollout_steps(57, SIZES, 1, 4)


@pytest.mark.parametrize('save, measure, expected', [
    (0, 0, (0, 0)), (1, 1, (4, 4)), (4, 5, (4, 8)), (9, None, (12, 8)), (0, None, (0, 8))])
def test_intervals_are_complete_rollouts(save, measure, expected):
    found = _in_periods({'save_every': save, 'eval_every': measure}, 4, 32)
    assert (found['save_every'], found['eval_every']) == expected


def test_prompts_go_with_the_reward(tokenizer, place):
    template = ChatTemplate(tokenizer)
    def prompts(data, reward, block_size=256):
        return policy_prompts(data, reward, 40, template, block_size, 0, Skipped(lenient=True))
    assert all(p.reference for p in prompts(None, 'number'))
    assert all(p.story for p in prompts(None, 'gold') + prompts(None, 'x.py:f'))
    assert len(prompts(str(place/'long.jsonl'), 'gold')) == 20
    told = prompts(None, 'gold')
    longest = max(len(p.ids) for p in told)
    assert len(told) == 40 and prompts(None, 'gold', longest) == [p for p in told if len(p.ids) < longest]


def test_shares_of_time():
    rows = [{'tokens': 100, 'tokens_per_s': 50., 'seconds_generation': 1.2, 'seconds_scoring': 0.3}, {'val_reward': 1.},
            {'tokens': 100, 'early_stop': True}, {'tokens': 300, 'tokens_per_s': 200.}]
    assert time_shares(rows) == pytest.approx({'generation': 0.4, 'scoring': 0.1, 'training': 0.5})
    assert time_shares([]) == time_shares([{'val_reward': 1.}]) == {}


class Numbers:
    "Writes nothing: each prompt is paid its number."
    pad = 0
    def __init__(self, rank, world, sums):
        def add(values):
            sums.append(values)
            return {name: sum(float(part[name]) for part in sums) for name in values}
        self.engine = SimpleNamespace(data_rank=rank, data_world=world, sum=add)
    def write(self, asked, first, samples):
        self.numbers = [first + i for i in range(len(asked))]
        return [[[1]] for _ in asked], [[[0.]] for _ in asked]
    def paid(self, asked, answers, batch): return torch.tensor([[float(prompt.id)] for prompt in asked])


@pytest.mark.parametrize('world', [1, 2, 3, 7])
@pytest.mark.parametrize('n', [1, 5, 6])
def test_held_out_prompts_count_once(world, n):
    asked, sums = [Asked(str(i), [], [1, 2]) for i in range(n)], []
    writers = [Numbers(rank, world, sums) for rank in range(world)]
    found = [_held_out_reward(writer, asked) for writer in writers][-1]
    assert found['val_reward'] == pytest.approx((n - 1) / 2)
    numbers = [number for writer in writers for number in writer.numbers]
    assert len(set(numbers)) == len(numbers) and min(numbers) >= 2**40


def test_a_changed_function_is_told(tmp_path, capsys):
    run = SimpleNamespace(config={}, is_main=True, folder='run')
    run.save_config = lambda **facts: run.config.update(facts)
    file = tmp_path/'f.py'
    for text, said in (('a = 1', False), ('a = 1', False), ('a = 2', True), ('a = 2', False)):
        file.write_text(text)
        _note_function(run, f'{file}:f')
        assert ('has changed since run began' in capsys.readouterr().err) == said
    _note_function(run, 'gold')


# Runs

SMALL = dict(prompts=40, tokens=10, lr=1e-2)


@pytest.mark.parametrize('reward', ['mine.py:vowels', 'judge', 'number', 'gold'])
@pytest.mark.parametrize('verb', [ppo, grpo])
def test_every_reward_runs(place, tmp_path, monkeypatch, verb, reward):
    monkeypatch.chdir(place)
    newest = verb('tiny', reward, batch_size=4, samples=2, steps=4, eval_every=1, save_every=3, keep=0,
                  out=str(tmp_path/'run'), **SMALL)
    log, period = rows_of(tmp_path/'run'), 4 if verb is ppo else 1
    assert [row['step'] for row in log if 'loss' in row] == [1, 2, 3, 4]
    assert [row['step'] for row in log if 'reward' in row] == list(range(1, 5, period))
    assert [row['step'] for row in log if 'val_reward' in row] == list(range(period, 5, period))
    saved = sorted(int(p.name[-8:]) for p in (tmp_path/'run/checkpoints').iterdir())
    assert saved == ([4] if verb is ppo else [3, 4])
    assert all(row['gap_max'] < 1e-4 for row in log if 'gap_max' in row) and all(math.isfinite(row.get('loss', 0)) for row in log)
    moved = load_model(newest)[0].state_dict()
    learned = any(not torch.equal(w, moved[name]) for name, w in load_model(place/'tiny')[0].state_dict().items())
    assert learned == (verb is ppo or reward != 'number') # all answers are equally wrong: a group has nothing to compare


def test_a_policy_learns(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    grpo('tiny', 'mine.py:vowels', prompts=40, tokens=10, lr=0.03, batch_size=8, samples=8, steps=25, beta=0., unended=0.,
         eval_every=25, out=str(tmp_path/'run'))
    rewards = [row['reward'] for row in rows_of(tmp_path/'run') if 'reward' in row]
    assert sum(rewards[-5:]) > 1.5 * sum(rewards[:5])


FAILING = {'ppo': (ppo, 'vowels', dict(target_kl=0.5)), 'grpo': (grpo, 'vowels', {}),
           'dapo': (grpo, 'odd', dict(loss='dapo', samples=3))}


@pytest.mark.parametrize('name', FAILING)
def test_a_run_that_failed_resumes_in_the_same_bits(place, tmp_path, monkeypatch, name):
    stage, reward, more = FAILING[name]
    monkeypatch.chdir(place)
    recipe = dict(batch_size=4, samples=2, steps=24, save_every=1, eval_every=8, keep=0) | more | SMALL
    stage('tiny', f'mine.py:{reward}', out=str(tmp_path/'whole'), **recipe)
    for call in (6, 3, 2): # the last two fail in a run that was resumed before
        monkeypatch.setenv('LLMBOOK_TEST_FAILS', str(call))
        with pytest.raises(UserError, match='power cut'):
            stage('tiny', f'mine.py:{reward}', out=str(tmp_path/'cut'), **recipe)
    monkeypatch.delenv('LLMBOOK_TEST_FAILS')
    stage('tiny', f'mine.py:{reward}', out=str(tmp_path/'cut'), **recipe)
    same_end(tmp_path/'whole', tmp_path/'cut')
    if name != 'dapo': return
    log = [row for row in rows_of(tmp_path/'cut') if 'uneven' in row]
    states = [json.loads(path.read_text())['written'] for path in sorted((tmp_path/'cut/checkpoints').glob('*/stream.json'))]
    rounds = [(b - a) // 4 for a, b in zip([0, *states], states)]
    assert len(set(rounds)) > 1 and set(rounds) <= {1, 2, 3} # so the state is worth keeping
    assert {row['uneven'] for row in log if row['written_per_kept'] < 3} == {1.}


def test_who_writes_other_prompts(place, tmp_path, monkeypatch):
    "Only `dapo`, unless it is asked for; the loss of a rollout that is not full counts what teaches alone."
    monkeypatch.chdir(place)
    flags = dict(batch_size=4, samples=2, steps=2, eval_every=0, **SMALL)
    for name, more, writes in (('grpo', {}, 1), ('dapo', {}, 3), ('dapo1', dict(rounds=1), 1), ('grpo2', dict(rounds=2), 2)):
        newest = grpo('tiny', 'mine.py:odd', loss=name.rstrip('12'), out=str(tmp_path/name), **more, **flags)
        state = json.loads((newest/'stream.json').read_text())
        assert (state == {}) == (writes == 1) and state.get('written', 8) <= 2 * 4 * writes
        assert ('written_per_kept' in rows_of(tmp_path/name)[0]) == (writes > 1)
    grpo('tiny', 'number', loss='dapo', out=str(tmp_path/'never'), **flags) # no answer is right
    for row in rows_of(tmp_path/'never'): assert row['written_per_kept'] == 12 and row['uneven'] == row['loss'] == 0


def test_the_best_checkpoint_is_that_of_the_highest_reward(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    ppo('tiny', 'mine.py:vowels', batch_size=4, steps=12, eval_every=1, keep_best=True, keep=0, out=str(tmp_path/'run'), **SMALL)
    best = json.loads((tmp_path/'run/best.json').read_text())
    rewards = {row['step']: row['val_reward'] for row in rows_of(tmp_path/'run') if 'val_reward' in row}
    assert rewards[best['step']] == max(rewards.values()) and len(rewards) == 3


# Bad input: one clear line, and exit code 2

BAD = [(('--reward', 'foreign'), 'foreign: its tokenizer is not that of the policy'),
       (('--reward', 'nubmer'), "nubmer: neither the folder .* did you mean 'number'"),
       (('--reward', 'tiny'), 'tiny: a language model, which gives no scores'),
       (('--reward', 'mine.py:vowel'), "no function vowel in mine.py, did you mean 'vowels'"),
       (('--reward', 'none.py:f'), 'no such file: none.py'),
       (('--reward', 'mine.py:nan'), 'mine.py:nan: the reward of an answer to story-0-[0-9]+ is nan'),
       (('--reward', 'mine.py:vowels', '--data', 'long.jsonl'), 'long.jsonl, row 2: 1204 tokens, the model reads 256'),
       (('--reward', 'number', '--data', 'sums.jsonl'), "sums.jsonl, row 31: its right answer has no number, 'two'"),
       (('--reward', 'gold', '--data', 'sums.jsonl'), 'sums.jsonl, row 1: it is not about a story'),
       (('--reward', 'number', '--val-data', 'sums.jsonl'), "row 31: its right answer has no number"),
       (('--reward', 'number', '--batch-size', 5, '--minibatches', 2), '5 prompts per rollout do not divide into 2 minibatches'),
       (('--reward', 'number', '--epochs', 1, '--steps', 2), '--epochs 1: not together with --steps 2'),
       (('--reward', 'number', '--batch-size', 4, '--accum', 3), '--accum 3: 4 rows per process are not 3 micro-batches'),
       (('--reward', 'number', '--samples', 1), '--samples 1: must be between 2 and 1000'),
       (('--reward', 'number', '--keep-best', '--eval-every', 0), '--keep-best: nothing is measured'),
       (('--reward', 'number', '--model', 'nowhere'), '--model nowhere: no such folder')]


@pytest.mark.parametrize('flags, problem', BAD, ids=[' '.join(map(str, flags)) for flags, _ in BAD])
@pytest.mark.parametrize('verb', ['grpo', 'ppo'])
def test_bad_input_is_said_in_one_line(place, tmp_path, monkeypatch, capfd, verb, flags, problem):
    monkeypatch.chdir(place)
    if verb == 'ppo' and '--samples' in flags: pytest.skip('ppo takes one sample')
    if verb == 'ppo' and '--accum' in flags: flags = (*flags, '--minibatches', 1)
    args = ['--model', 'tiny', '--prompts', 40, '--tokens', 8, '--out', tmp_path/'run', *flags]
    with pytest.raises(SystemExit) as ended: main([verb, *map(str, args)])
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith('llmbook:')]
    assert ended.value.code == 2 and len(said) == 1
    assert re.search(problem, said[0]), said


# Killed and resumed

KILLS = int(os.environ.get('LLMBOOK_KILLS', 3))
RECIPES = {'ppo': ('--batch-size', 4, '--samples', 2, '--target-kl', 0.5, '--save-every', 4),
           'grpo': ('--batch-size', 3, '--samples', 4, '--minibatches', 1, '--passes', 2, '--stop-kl', 0.01, '--save-every', 4),
           'dapo': ('--loss', 'dapo', '--batch-size', 4, '--samples', 2, '--save-every', 4)}


def same_end(one, other):
    "Do two runs end in the same weights and states, and log the same?"
    def newest(run): return max((run/'checkpoints').glob('step-*'))
    assert newest(one).name == newest(other).name
    for name in ('model.safetensors', 'trainer/state.safetensors', 'stream.json'):
        assert (newest(one)/name).read_bytes() == (newest(other)/name).read_bytes(), name
    assert untimed(one) == untimed(other)


def killed_at_random(rng, out, *args):
    "Kill a run when its log has grown by some lines, and a random moment later."
    log, since = out/'log.jsonl', []
    def lines(): return log.read_bytes().count(b'\n') if log.exists() else 0
    goal, delay = lines() + rng.randint(1, 6), rng.uniform(0, 0.15)
    def reached():
        if not since and lines() >= goal: since.append(time.monotonic())
        return since and time.monotonic() - since[0] >= delay
    killed_when(reached, *args, '--out', out)


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_killed_and_resumed_in_the_same_bits(place, tmp_path, monkeypatch, name):
    monkeypatch.setenv('LLMBOOK_TEST_SLEEP', '0.1')
    steps = 28 + 16 * KILLS
    verb, reward = 'ppo' if name == 'ppo' else 'grpo', 'odd' if name == 'dapo' else 'vowels'
    args = (verb, '--model', place/'tiny', '--reward', f'{place}/mine.py:{reward}', '--prompts', 60, '--tokens', 12, '--lr', 0.01,
            '--steps', steps, '--eval-every', 8, '--keep', 0, *RECIPES[name])
    rng = random.Random(os.environ.get('LLMBOOK_KILLS_SEED'))
    for _ in range(KILLS): killed_at_random(rng, tmp_path/'cut', *args)
    monkeypatch.setenv('LLMBOOK_TEST_SLEEP', '0')
    assert 'resuming from step' in finished(*args, '--out', tmp_path/'cut')
    finished(*args, '--out', tmp_path/'whole')
    same_end(tmp_path/'whole', tmp_path/'cut')
    newest = max((tmp_path/'cut/checkpoints').glob('step-*'))
    state = json.loads((newest/'stream.json').read_text()) # if there is something to lose
    if name == 'ppo': assert state['beta'] != 0.1
    if name == 'dapo': assert state['written'] > 4 * steps


# Layouts

STAGES = {'ppo': (ppo, dict(batch_size=8, samples=2)), 'grpo': (grpo, dict(batch_size=8, samples=3, passes=2, eval_every=4)),
          'dapo': (grpo, dict(batch_size=8, samples=2, loss='dapo', eval_every=4))}


def trained(name, place, reward, folder, options):
    "On every rank: run a stage. Its losses and gradient norms, held-out rewards, and the ids and rewards of its rollouts."
    stage, flags = STAGES[name]
    rollouts, collect = [], RolloutStream._collect
    def noting(self, number):
        collect(self, number)
        rollouts.append((self.rollout['ids'].clone(), self.rollout['rewards'].clone()))
    RolloutStream._collect = noting
    try: stage(str(place/'tiny'), reward, out=str(folder), steps=8, **flags, **SMALL, engine=options)
    finally: RolloutStream._collect = collect
    log = rows_of(folder)
    steps = [row for row in log if 'loss' in row]
    return ([row['loss'] for row in steps], [row['grad_norm'] for row in steps],
            [row['val_reward'] for row in log if 'val_reward' in row], rollouts)


def several(cases):
    "On every rank: one case after the other."
    return [trained(*case) for case in cases]


def same_training(ours, theirs):
    "The same rollouts, and losses within the tolerances of `test_invariance.py`."
    (losses, norms, val, rollouts), (losses2, norms2, val2, rollouts2) = ours, theirs
    assert len(losses) == len(losses2) == 8 and len(rollouts) == len(rollouts2)
    for (ids, rewards), (ids2, rewards2) in zip(rollouts, rollouts2):
        assert torch.equal(ids, ids2)
        torch.testing.assert_close(rewards, rewards2, atol=1e-4, rtol=0)
    assert val == pytest.approx(val2, abs=1e-4) and len(val) > 0
    apart = max(abs(a - b) for a, b in zip(losses, losses2))
    assert apart <= ALLOWED['loss'], f'loss is off by {apart:.1e}'
    apart = max(abs(a - b) / b for a, b in zip(norms, norms2))
    assert apart <= ALLOWED['norm'], f'norm is off by {apart:.1e}'


@pytest.mark.parametrize('name', STAGES)
def test_micro_batches_change_nothing(place, tmp_path, name):
    alone = trained(name, place, f'{place}/mine.py:vowels', tmp_path/'one', LocalOptions())
    flags = dict(accum=4) if name == 'grpo' else dict(micro=1)
    same_training(trained(name, place, f'{place}/mine.py:vowels', tmp_path/'many', LocalOptions(**flags)), alone)
    assert min(alone[1]) > 1e-3 # there is something to be learned


@pytest.mark.slow
@needs('deepspeed', 'scale')
def test_two_ranks_learn_what_one_does(place, tmp_path):
    rewards = {'vowels': f'{place}/mine.py:vowels', 'judge': str(place/'judge')}
    layouts = ((0, None), (2, 2), (3, None)) # stage, micro-batches
    cases = {(name, paid, zero): (name, place, reward, tmp_path/f'{name}-{paid}-{zero}', DeepSpeedOptions(zero, accum=accum))
             for name in STAGES for paid, reward in rewards.items() for zero, accum in layouts}
    found = launch(several, 2, list(cases.values()))
    alone = {(name, paid): trained(name, place, reward, tmp_path/f'{name}-{paid}', LocalOptions())
             for name in STAGES for paid, reward in rewards.items()}
    for (name, paid, _), ours, others in zip(cases, *found):
        same_training(ours, alone[name, paid])
        for (ids, _), (same, _) in zip(ours[3], others[3]): assert torch.equal(ids, same) # both ranks know all of it
