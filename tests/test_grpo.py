"Advantages and losses without a critic: values by hand, loops, TRL, micro-batches; the verb `grpo` for each variant."

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from needs import needs

import llmbook
from llmbook.align.baselines import group_advantages, token_weights
from llmbook.align.grpo import VARIANTS, GroupEstimate, GroupPolicy, Variant, grpo, overlong_penalty
from llmbook.core import UserError
from llmbook.files import read_jsonl
from llmbook.text.batches import IGNORE

MOST = 12


def made_up(B=4, K=3, seed=0):
    "A rollout: answers of different lengths, what their writer and a reference said, and a policy that has moved since."
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, MOST - 1, (B, K), generator=g)
    place = torch.arange(MOST + 3)
    labels = torch.where((place >= 2) & (place < 2 + lengths[..., None]), 7, IGNORE)
    asked = labels != IGNORE
    def said(): return torch.where(asked, torch.rand(labels.shape, generator=g).log() / 2, 0.)
    before = said()
    moved = torch.where(asked, before + 0.3 * torch.randn(labels.shape, generator=g), 0.)
    rewards = torch.randint(0, 3, (B, K), generator=g).float()
    rewards[1] = 1. # an even group
    batch = {'ids': torch.zeros_like(labels), 'labels': labels, 'rows': torch.arange(B), 'log_probs': before,
             'ref': said(), 'rewards': rewards}
    return batch, moved


def with_advantages(batch, variant):
    return batch | GroupEstimate(variant, MOST)(batch)[0]


def ours(objective, batch, moved, sizes=None):
    "Loss and gradient; of micro-batches of these sizes, or of the batch at once."
    batch = with_advantages(batch, objective.variant)
    counts = objective.counts(batch)
    moved = moved.clone().requires_grad_()
    sizes = sizes or [len(moved)]
    loss, logged, start = 0., {}, 0
    for size in sizes:
        part = {name: values[start:start + size] for name, values in batch.items()}
        share, more = objective.loss(moved[start:start + size].flatten(0, 1), part, counts)
        share.backward()
        loss += share.detach()
        logged = {name: logged.get(name, 0.) + value for name, value in more.items()}
        start += size
    return loss, moved.grad, logged


# An implementation that knows nothing of tensors

def loops(batch, moved, variant, clip=0.2, beta=0.0):
    "The loss, one token at a time."
    rewards, labels = batch['rewards'].tolist(), batch['labels']
    every = [r for row in rewards for r in row]
    high = clip if variant.high is None else variant.high
    sums, answers, tokens = [], 0, 0
    for b, row in enumerate(rewards):
        if variant.skip_even and len(set(row)) == 1: continue
        for k, own in enumerate(row):
            others = row[:k] + row[k + 1:]
            compared = {'group': row, 'leave-one-out': others, 'batch': every}[variant.baseline]
            A = own - sum(compared) / len(compared)
            if variant.scale:
                mean = sum(row) / len(row)
                A /= math.sqrt(sum((r - mean)**2 for r in row) / (len(row) - 1)) + 1e-4
            places = [t for t in range(labels.size(-1)) if labels[b, k, t] != IGNORE]
            change = [moved[b, k, t] - batch['log_probs'][b, k, t] for t in places]
            if variant.ratio == 'mean': change = [sum(change) / len(change)] * len(change)
            if variant.ratio == 'sum': change = [sum(change)] * len(change)
            losses = []
            for t, log_ratio in zip(places, change):
                ratio = log_ratio.exp()
                held = min(max(ratio.item(), 1 - clip), 1 + high)
                gain = ratio * A if ratio.item() * A <= held * A else torch.tensor(held * A)
                apart = batch['ref'][b, k, t] - moved[b, k, t]
                losses.append(-gain + beta * (apart.exp() - apart - 1))
            sums.append(sum(losses) / (len(places) if variant.aggregation == 'sequence' else 1))
            answers, tokens = answers + 1, tokens + len(places)
    return sum(sums) / {'token': tokens, 'sequence': answers, 'constant': answers * MOST}[variant.aggregation]


@pytest.mark.parametrize('beta', [0.0, 0.3])
@pytest.mark.parametrize('name', VARIANTS)
def test_loss_and_gradient_are_those_of_loops(name, beta):
    batch, moved = made_up()
    loss, gradient, _ = ours(GroupPolicy(VARIANTS[name], beta=beta, most=MOST), batch, moved)
    other = moved.clone().requires_grad_()
    expected = loops(batch, other, VARIANTS[name], beta=beta)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, other.grad, rtol=1e-4, atol=1e-7)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize('aggregation', ['token', 'sequence', 'constant'])
@pytest.mark.parametrize('ratio', ['token', 'mean', 'sum'])
@pytest.mark.parametrize('skip_even', [False, True])
def test_uneven_micro_batches_add_up(aggregation, ratio, skip_even):
    batch, moved = made_up()
    variant = Variant(aggregation=aggregation, ratio=ratio, skip_even=skip_even)
    objective = GroupPolicy(variant, beta=0.1, most=MOST)
    loss, gradient, logged = ours(objective, batch, moved)
    for sizes in ([3, 1], [1, 1, 2]):
        again, same, parts = ours(objective, batch, moved, sizes)
        torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(same, gradient, rtol=1e-5, atol=1e-8)
        for name, value in logged.items(): torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-7)


# By hand, with the numbers of the chapters

HAND = { # a right answer with ratios 1.5 and 1, a wrong one with 0.9; advantages of .5, 1 or .7071
    'reinforce': -(1.2 + 1 - 0.9) / 2 / 3, 'rloo': -(1.2 - 0.9) / 2, 'grpo': -0.7070 * (1.1 - 0.9) / 2,
    'dr_grpo': -(1.2 + 1 - 0.9) / 2 / 8, 'dapo': -0.7070 * (1.28 + 1 - 0.9) / 3, 'gspo': -0.7070 * (1.2 - 0.9) / 2}


@pytest.mark.parametrize('name', VARIANTS)
def test_values_by_hand(name):
    labels = torch.full((1, 2, 4), IGNORE)
    labels[0, 0, 1:3], labels[0, 1, 1] = 7, 7
    before = torch.where(labels != IGNORE, -1., 0.)
    ratios = torch.ones(1, 2, 4)
    ratios[0, 0, 1], ratios[0, 1, 1] = 1.5, 0.9
    batch = {'labels': labels, 'log_probs': before, 'rewards': torch.tensor([[1., 0.]])}
    objective = GroupPolicy(VARIANTS[name], most=4)
    loss, _, logged = ours(objective, batch, before + ratios.log())
    assert loss == pytest.approx(HAND[name], abs=1e-4)
    outside = {'rloo': 2/3, 'gspo': 2/3}.get(name, 1/3)
    assert logged['clip_fraction'] == pytest.approx(outside)
    assert logged['step_kl'] == pytest.approx((0.5 - math.log(1.5) + 0.9 - 1 - math.log(0.9)) / 3, abs=1e-5) # of tokens


def test_advantages_by_hand():
    rewards = torch.tensor([[1., 0., 0., 0.], [2., 2., 2., 2.]])
    def row(*settings, **more): return group_advantages(rewards, *settings, **more)[0].tolist()
    assert row(scale=False) == [0.75, -0.25, -0.25, -0.25]
    assert row('leave-one-out', scale=False) == pytest.approx([1, -1/3, -1/3, -1/3])
    assert row('batch', scale=False) == [-0.125, -1.125, -1.125, -1.125]
    assert row() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert not group_advantages(rewards)[1].any() # alike: nothing to learn, and no division by 0
    assert group_advantages(rewards, 'batch').abs().max() < 2 # by the spread of the batch, not by that of an even group


def test_weights_by_hand():
    asked = torch.arange(10)[None, None] < torch.tensor([2, 8])[None, :, None]
    counts = {'answers': 2, 'tokens': 10}
    for kind, each in (('token', (0.1, 0.1)), ('sequence', (1/4, 1/16)), ('constant', (1/20, 1/20))):
        weights = token_weights(asked, counts, kind, 10)
        assert weights[0, :, 0].tolist() == pytest.approx(list(each)) and not weights[~asked].any()


def test_leave_one_out_is_unbiased_and_the_group_is_shorter():
    "Over all groups of three answers, of which a policy gives two kinds."
    p, total = 0.3, {'group': 0., 'leave-one-out': 0.}
    for code in range(8):
        rewards = torch.tensor([[float(code >> k & 1) for k in range(3)]])
        chance = torch.where(rewards == 1, p, 1 - p).prod().item()
        for name in total:
            total[name] += chance * (group_advantages(rewards, name, False) * (rewards - p)).mean().item()
    assert total['leave-one-out'] == pytest.approx(p * (1 - p), abs=1e-6)
    assert total['group'] == pytest.approx(2/3 * p * (1 - p), abs=1e-6)


def test_only_even_groups_give_nothing_and_no_nan():
    batch, moved = made_up()
    batch['rewards'] = torch.ones_like(batch['rewards'])
    for name in VARIANTS:
        loss, gradient, _ = ours(GroupPolicy(VARIANTS[name], most=MOST), batch, moved)
        assert loss == 0 and not gradient.any(), name


def test_overlong():
    lengths = torch.tensor([[80, 85, 90, 100, 120]])
    assert overlong_penalty(lengths, 100, 20).tolist() == [[0, -0.25, -0.5, -1, -1]]
    assert not overlong_penalty(lengths, 100, 0).any()
    labels = torch.full((1, 2, 10), IGNORE)
    labels[0, 0, :4], labels[0, 1, :9] = 7, 7
    rollout = {'labels': labels, 'rewards': torch.zeros(1, 2)}
    for last, uneven in ((0, 0.), (4, 1.)):
        found, facts = GroupEstimate(VARIANTS['dr_grpo'], 10, last)(rollout)
        assert facts == {'uneven': uneven} and found['uneven'].tolist() == [bool(uneven)]
    assert found['advantages'].flatten().tolist() == [0.375, -0.375]


# TRL, on the same tensors

class Metrics(dict):
    def __missing__(self, key): return self.setdefault(key, Metrics() if key in ('train', 'eval') else [])


def stand_in(log_probs, **settings):
    "The attributes of a trainer that its loss reads."
    def same(x, **_): return x
    accelerator = SimpleNamespace(device=torch.device('cpu'), gather=same, gather_for_metrics=same, reduce=same,
                                  num_processes=1)
    args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    def said(*_, **__): return log_probs, torch.zeros_like(log_probs), None
    return SimpleNamespace(model=SimpleNamespace(training=True), accelerator=accelerator, args=args, _metrics=Metrics(),
                           _get_per_token_logps_and_entropies=said, aux_loss_enabled=False, top_entropy_quantile=1.0,
                           off_policy_mask_threshold=None, use_vllm=False, current_gradient_accumulation_steps=1,
                           max_completion_length=MOST, _entropy_bonus_enabled=False, **settings)


def their_inputs(batch):
    mask = (batch['labels'] != IGNORE).flatten(0, 1)
    prompt = torch.ones(len(mask), 2, dtype=torch.long)
    before = batch['log_probs'].flatten(0, 1)
    return {'prompt_ids': prompt, 'prompt_mask': prompt, 'completion_ids': torch.ones_like(mask).long(),
            'completion_mask': mask.long(), 'advantages': batch['advantages'].flatten(), 'old_per_token_logps': before,
            'old_logps': before.sum(1), 'ref_per_token_logps': batch['ref'].flatten(0, 1),
            'num_items_in_batch': mask.sum()}


THEIRS = { # our variant -> settings of TRL's trainer
    'grpo': dict(loss_type='grpo'), 'grpo, beta': dict(loss_type='grpo', beta=0.3),
    'dr_grpo': dict(loss_type='dr_grpo'), 'dr_grpo, beta': dict(loss_type='dr_grpo', beta=0.3),
    'dapo': dict(loss_type='dapo', epsilon_high=0.28), 'dapo, bnpo': dict(loss_type='bnpo', epsilon_high=0.28),
    'gspo': dict(loss_type='grpo', importance_sampling_level='sequence'),
    'gspo, beta': dict(loss_type='grpo', importance_sampling_level='sequence', beta=0.3), 'rloo': {}}


@pytest.mark.slow
@needs('trl', 'peers')
@pytest.mark.parametrize('case', THEIRS)
def test_loss_and_gradient_are_those_of_trl(case):
    from trl import GRPOTrainer, RLOOTrainer
    name = case.split(',')[0]
    settings = dict(beta=0.0, epsilon_low=0.2, epsilon_high=0.2, importance_sampling_level='token') | THEIRS[case]
    batch, moved = made_up()
    if name == 'dapo': # TRL leaves no groups out of its loss
        batch['rewards'][1, 0] = 0
    loss, gradient, _ = ours(GroupPolicy(VARIANTS[name], beta=settings['beta'], most=MOST), batch, moved)
    other = moved.flatten(0, 1).clone().requires_grad_()
    trainer = RLOOTrainer if name == 'rloo' else GRPOTrainer
    inputs = their_inputs(with_advantages(batch, VARIANTS[name]))
    expected = trainer._compute_loss(stand_in(other, **settings), None, inputs)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.flatten(0, 1), other.grad, rtol=1e-5, atol=1e-8)
    assert gradient.abs().max() > 1e-3


# The verb

NANO = str(Path(llmbook.__file__).parent/'assets/nano-sft')


@pytest.mark.parametrize('name', VARIANTS)
def test_a_run_of_each_variant(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('pay.py').write_text('def short(prompts, answers): return [-len(a.split()) for a in answers]\n')
    grpo(NANO, 'pay.py:short', prompts=20, loss=name, batch_size=4, samples=4, tokens=16, minibatches=2, passes=2, steps=4,
         eval_every=0, overlong=4)
    rows = list(read_jsonl('runs/grpo/log.jsonl'))
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row['loss']) and 0 <= row['uneven'] <= 1 for row in rows if 'uneven' in row)
    assert abs(rows[0]['step_kl']) < 1e-6 < max(row['step_kl'] for row in rows) # it moves within a rollout


@pytest.mark.parametrize('settings, problem', [(dict(overlong=41), 'overlong'), (dict(samples=1), 'samples')])
def test_refusals_name_the_flag(settings, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem): grpo(NANO, 'number', tokens=40, **settings)
    assert not Path('runs').exists()
