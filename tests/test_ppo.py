"The clipped losses against loops and values by hand; a target that is known; the verb `ppo` from prompts to a model that opens."

import json
import math

import pytest
import torch
from killed import finished, killed_at_line

from llmbook.align.chat_template import ChatTemplate
from llmbook.align.kl import KLControl
from llmbook.align.ppo import ClippedPolicy, PPOEstimate, clipped_policy_loss, clipped_value_loss, ppo
from llmbook.align.rewards import told_prompts
from llmbook.align.rollouts import lay_out
from llmbook.core import UserError
from llmbook.files import read_jsonl
from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.heads import ActorCritic
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.batches import IGNORE
from llmbook.train.step import LocalOptions

# Losses

def policy_loss_by_loop(log_ratio, advantage, low, high, dual):
    "One token: the cases of the picture, one by one."
    ratio = math.exp(log_ratio)
    if advantage >= 0: return -advantage * min(ratio, 1 + high)
    gain = advantage * max(ratio, 1 - low)
    return -(gain if dual is None else max(gain, dual * advantage))


def value_loss_by_loop(value, before, target, limit):
    far = abs(value - before) > limit
    held = before + math.copysign(limit, value - before) if far else value
    return max((value - target)**2, (held - target)**2) / 2


@pytest.mark.parametrize('low, high, dual', [(0.2, None, None), (0.2, 0.3, None), (0.1, None, 3.0), (0.5, 0.1, 1.5)])
def test_losses_are_those_of_loops(low, high, dual):
    g = torch.Generator().manual_seed(0)
    log_ratio, advantages = torch.randn(300, generator=g), torch.randn(300, generator=g)
    found = clipped_policy_loss(log_ratio, advantages, low, high, dual)
    expected = [policy_loss_by_loop(r, a, low, low if high is None else high, dual)
                for r, a in zip(log_ratio.tolist(), advantages.tolist())]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    values, before, returns = torch.randn(3, 300, generator=g)
    expected = [value_loss_by_loop(*row, low) for row in zip(values.tolist(), before.tolist(), returns.tolist())]
    torch.testing.assert_close(clipped_value_loss(values, before, returns, low), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clipped_value_loss(values, before, returns, None), (values - returns)**2 / 2)


@pytest.mark.parametrize('ratio, advantage, dual, loss, pull', [
    (1.1, 1., None, -1.1, 1.1), (1.5, 1., None, -1.2, 0), (0.5, 1., None, -0.5, 0.5),
    (0.9, -1., None, 0.9, -0.9), (0.5, -1., None, 0.8, 0), (1.5, -1., None, 1.5, -1.5),
    (10., -1., 3., 3., 0), (2., -1., 3., 2., -2.), (10., 1., 3., -1.2, 0)])
def test_tokens_by_hand(ratio, advantage, dual, loss, pull):
    "Each side of the band, for good and bad tokens; what is pulled, and how hard."
    leaf = torch.tensor(ratio).log().requires_grad_()
    found = clipped_policy_loss(leaf, torch.tensor(advantage), dual=dual)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5) and -leaf.grad.item() == pytest.approx(pull, rel=1e-5)


@pytest.mark.parametrize('value, loss, slope', [(0.1, 0.405, -0.9), (0.5, 0.32, 0), (-0.5, 1.125, -1.5), (2.5, 1.125, 1.5)])
def test_guesses_by_hand(value, loss, slope):
    "From 0 towards a return of 1: inside the limit, past it, the wrong way, and far beyond the return."
    leaf = torch.tensor(value, requires_grad=True)
    found = clipped_value_loss(leaf, torch.tensor(0.), torch.tensor(1.))
    found.backward()
    assert found.item() == pytest.approx(loss) and leaf.grad.item() == pytest.approx(slope)


# The objective

def made_up(rows=6, K=2, width=12, seed=0):
    "A batch of answers of different lengths, and what an actor and critic might say of it."
    g = torch.Generator().manual_seed(seed)
    def random(): return torch.randn(rows, K, width, generator=g)
    lengths = torch.randint(1, width - 2, (rows, K, 1), generator=g)
    places = torch.arange(width).expand(rows, K, -1)
    asked = (places >= 2) & (places < 2 + lengths)
    batch = {'ids': torch.zeros(rows, K, width, dtype=torch.long), 'labels': torch.where(asked, 7, IGNORE),
             'rows': torch.arange(rows), 'log_probs': -random().abs() * asked, 'values': random() * asked,
             'advantages': random() * asked, 'returns': random() * asked}
    outputs = tuple(x.flatten(0, 1).requires_grad_() for x in (batch['log_probs'] + 0.4 * random(), random().abs(), random()))
    return batch, outputs


def loss_by_loop(objective, batch, outputs):
    "Token by token, in Python; the means are over all tokens of answers."
    log_probs, entropy, values = (x.detach().view(batch['labels'].shape) for x in outputs)
    clip = objective.clip
    sums = dict.fromkeys(('policy_loss', 'value_loss', 'clip_fraction', 'step_kl', 'entropy', 'tokens'), 0.)
    for b, k, t in (batch['labels'] != IGNORE).nonzero().tolist():
        at = b, k, t
        ratio = (log_probs[at] - batch['log_probs'][at]).item()
        sums['policy_loss'] += policy_loss_by_loop(ratio, batch['advantages'][at].item(), clip, clip, objective.dual_clip)
        guesses = values[at].item(), batch['values'][at].item(), batch['returns'][at].item()
        sums['value_loss'] += value_loss_by_loop(*guesses, objective.value_clip)
        sums['clip_fraction'] += not 1 - clip <= math.exp(ratio) <= 1 + clip
        sums['step_kl'] += math.exp(ratio) - 1 - ratio
        sums['entropy'] += entropy[at].item()
        sums['tokens'] += 1
    means = {name: value / sums['tokens'] for name, value in sums.items()}
    loss = means['policy_loss'] + objective.value_weight * means['value_loss'] - objective.entropy_weight * means['entropy']
    return loss, means


def shares(objective, batch, outputs, parts):
    "The sum of the shares of micro-batches, its gradient, and what is logged."
    counts = {name: int(n) for name, n in objective.counts(batch).items()}
    total, logged, K = 0., {}, batch['labels'].size(1)
    for part in torch.arange(len(batch['rows'])).split(parts):
        lines = (part[:, None] * K + torch.arange(K)).flatten()
        loss, facts = objective.loss(tuple(x[lines] for x in outputs), {name: v[part] for name, v in batch.items()}, counts)
        total = total + loss
        for name, value in facts.items(): logged[name] = logged.get(name, 0) + value
    return total.detach(), torch.autograd.grad(total, outputs), logged


@pytest.mark.parametrize('dual, clip, value_clip', [(None, 0.2, 0.2), (2.0, 0.1, 0.5)])
def test_the_objective_is_that_of_loops_and_adds_up(dual, clip, value_clip):
    "Answers have 1 to 9 tokens; micro-batches of 1, 4 and 5 prompts are uneven."
    batch, outputs = made_up()
    objective = ClippedPolicy(clip, value_clip, entropy_weight=0.3, dual_clip=dual)
    expected, means = loss_by_loop(objective, batch, outputs)
    whole, gradient, logged = shares(objective, batch, outputs, 6)
    assert whole.item() == pytest.approx(expected, rel=1e-4)
    for name, value in logged.items(): assert value.item() == pytest.approx(means[name], rel=1e-4), name
    for parts in (1, 4, 5):
        loss, found, facts = shares(objective, batch, outputs, parts)
        torch.testing.assert_close(loss, whole)
        for ours, theirs in zip(found, gradient): torch.testing.assert_close(ours, theirs)
        for name in logged: torch.testing.assert_close(facts[name], logged[name])
    asked = (batch['labels'] != IGNORE).flatten(0, 1)
    assert not any(g[~asked].any() for g in gradient) # what is not asked does not pull
    without = ClippedPolicy(clip, value_clip, dual_clip=dual)
    loss, _ = without.loss((outputs[0], outputs[2]), batch, without.counts(batch))
    assert (loss - whole).item() == pytest.approx(0.3 * means['entropy'], rel=1e-4)


def test_before_the_first_step_no_limit_matters():
    "Every ratio is 1 and every guess unchanged: clip, dual clip and value clip change neither loss nor gradient."
    batch, _ = made_up()
    def asked_of(objective):
        outputs = tuple(batch[name].flatten(0, 1).clone().requires_grad_() for name in ('log_probs', 'values'))
        loss, logged = objective.loss(outputs, batch, objective.counts(batch))
        assert logged['clip_fraction'] == 0 and logged['step_kl'] == 0
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, outputs)])
    plain = asked_of(ClippedPolicy())
    assert plain.abs().sum() > 0
    for settings in ({'clip': 0.01}, {'value_clip': None}, {'value_clip': 1e-3}, {'dual_clip': 1.1}):
        changed = ClippedPolicy(**settings)
        torch.testing.assert_close(asked_of(changed), plain)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "The folder of a very small model with the book's tokenizer."
    folder = tmp_path_factory.mktemp('tiny')
    shape = Config(vocab_size=1024, block_size=256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
    save_model(Transformer(shape, 0), book_model()[1], folder)
    return folder


def test_answers_that_share_their_prompt(tiny):
    "Loss and gradients are those of rows of their own."
    model, tokenizer = load_model(tiny)
    asked = told_prompts(3, ChatTemplate(tokenizer))
    g = torch.Generator().manual_seed(0)
    answers = [[torch.randint(10, 1000, (n,), generator=g).tolist() for n in (3, 9, 1, 6)] for _ in asked]
    nats = [[[-1.] * len(ids) for ids in several] for several in answers]
    batch = lay_out(asked, answers, nats, range(3), 256, 0)
    scale = (batch['labels'] != IGNORE).float()
    batch |= {'log_probs': -6.9 * scale, 'values': 0 * scale,
              **{name: torch.randn(scale.shape, generator=g) * scale for name in ('advantages', 'returns')}}
    actor = ActorCritic(model)
    torch.nn.init.normal_(actor.value.weight, generator=g)
    found = []
    for block_size in (None, 256, 512):
        objective = ClippedPolicy(entropy_weight=0.1, block_size=block_size)
        loss, _ = objective.loss(actor(*objective.inputs(batch)), batch, objective.counts(batch))
        gradient = torch.autograd.grad(loss, actor.parameters())
        found.append(torch.cat([loss.view(1), *(g.flatten() for g in gradient)]))
    for other in found[1:]: torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-4)


# Advantages

def advantages_by_loop(log_ratio, values, points, beta, gamma, lam):
    "One answer: token rewards, surprises, and the sum that defines an advantage."
    n = len(log_ratio)
    rewards = [-beta * x for x in log_ratio]
    rewards[-1] += points
    following = [*values[1:], 0.]
    surprises = [rewards[t] + gamma * following[t] - values[t] for t in range(n)]
    return [sum((gamma * lam)**(s - t) * surprises[s] for s in range(t, n)) for t in range(n)]


def rollout_of(seed=0):
    batch, _ = made_up(seed=seed)
    g = torch.Generator().manual_seed(seed + 1)
    asked = batch['labels'] != IGNORE
    return batch | {'ref': (batch['log_probs'] + 0.5 * torch.randn(asked.shape, generator=g)) * asked,
                    'rewards': torch.randn(asked.shape[:2], generator=g)}


@pytest.mark.parametrize('gamma, lam', [(1.0, 0.95), (1.0, 1.0), (0.9, 0.5), (1.0, 0.0)])
def test_advantages_are_those_of_loops(gamma, lam):
    "The penalty is paid at each token, and the points at the last one, wherever an answer ends."
    rollout = rollout_of()
    found, facts = PPOEstimate(KLControl(0.3), gamma=gamma, lam=lam, whitened=False)(rollout)
    for b in range(6):
        for k in range(2):
            asked = rollout['labels'][b, k] != IGNORE
            log_ratio = (rollout['log_probs'] - rollout['ref'])[b, k][asked].tolist()
            values = rollout['values'][b, k][asked]
            expected = advantages_by_loop(log_ratio, values.tolist(), rollout['rewards'][b, k].item(), 0.3, gamma, lam)
            torch.testing.assert_close(found['advantages'][b, k][asked], torch.tensor(expected), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found['returns'][b, k][asked], torch.tensor(expected) + values, rtol=1e-4, atol=1e-5)
            assert not found['advantages'][b, k][~asked].any() and not found['returns'][b, k][~asked].any()
    assert facts['beta'] == 0.3


def test_whitening_and_the_controller():
    "Whitened advantages have mean 0 and variance 1 over the tokens; returns are not touched. The weight follows the distance."
    rollout = rollout_of()
    asked = rollout['labels'] != IGNORE
    plain, _ = PPOEstimate(KLControl(0.3), whitened=False)(rollout)
    white, _ = PPOEstimate(KLControl(0.3))(rollout)
    kept = white['advantages'][asked]
    assert kept.mean().abs() < 1e-5 and kept.var(correction=0) == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(white['returns'], plain['returns'])
    kl = (rollout['log_probs'] - rollout['ref']).sum(-1).mean().item()
    far, near = (PPOEstimate(KLControl(0.3, target=target)) for target in (abs(kl) / 10 + 1e-3, 100.))
    near(rollout)
    assert near.state()['beta'] == pytest.approx(0.3 * 0.98)
    far(rollout | {'log_probs': rollout['ref'] + asked * 1.})
    assert far.state()['beta'] == pytest.approx(0.3 * 1.02)
    near.load_state(far.state())
    assert near.control.beta == far.control.beta


# A target that is known

ANSWERS = torch.tensor([[0, IGNORE], [1, 2], [1, 3]])
WORTH = torch.tensor([1., 0., 2.])


def table(logits): # log-probabilities of the tokens of three answers (3,2)
    first, second = logits.view(2, 2).log_softmax(-1)
    rows = [first[0], 0 * first[0]], [first[1], second[0]], [first[1], second[1]]
    return torch.stack([torch.stack(row) for row in rows])


def learned(estimate, objective=None, rollouts=80, n=500):
    "The policy, and the critic's first guess, after rollouts that hold each answer as often as its probability says."
    logits, guesses = torch.zeros(4, requires_grad=True), torch.zeros(2, requires_grad=True)
    objective = objective or ClippedPolicy(value_weight=1., value_clip=None)
    optimizer = torch.optim.Adam([logits, guesses], lr=0.1)
    for i in range(rollouts):
        optimizer.param_groups[0]['lr'] = 0.1 * (1 - i / rollouts)
        with torch.no_grad():
            rows = torch.arange(3).repeat_interleave((n * table(logits).sum(1).exp()).round().long())
            labels = ANSWERS[rows][:, None]
            batch = {'labels': labels, 'log_probs': table(logits)[rows][:, None], 'ref': table(torch.zeros(4))[rows][:, None],
                     'rewards': WORTH[rows][:, None], 'values': guesses.expand(len(rows), 1, 2) * (labels != IGNORE)}
            batch |= estimate(batch)[0]
        for _ in range(2):
            optimizer.zero_grad()
            outputs = table(logits)[rows], guesses.expand(len(rows), 2)
            objective.loss(outputs, batch, objective.counts(batch))[0].backward()
            optimizer.step()
    return table(logits).detach().sum(1).exp(), guesses[0].item()


@pytest.mark.parametrize('beta', [1.0, 2.0])
def test_it_ends_at_the_best_policy(beta):
    "At ref * exp(r / beta) / Z, with the critic at beta log Z."
    policy, guess = learned(PPOEstimate(KLControl(beta), whitened=False))
    best = torch.tensor([0.5, 0.25, 0.25]) * (WORTH / beta).exp()
    torch.testing.assert_close(policy, best / best.sum(), atol=5e-3, rtol=0)
    assert guess == pytest.approx(beta * best.sum().log().item(), abs=0.01)


# The verb

def rows_of(run): return list(read_jsonl(run/'log.jsonl'))


def rewarding(folder, body='[-len(answer) / 100 for answer in answers]'):
    "A file with a function that pays for short answers, or as its body says."
    path = folder/'pays.py'
    path.write_text(f'def pays(prompts, answers):\n    return {body}\n')
    return f'{path}:pays'


def prompts_in(folder, n=40):
    path = folder/'prompts.json'
    path.write_text(json.dumps([{'prompt': f'Name animal {i}.'} for i in range(n)]))
    return str(path)


SMALL = dict(samples=1, batch_size=8, tokens=12, lr=1e-2, warmup=0.)


def test_from_prompts_to_a_model_that_opens(tiny, tmp_path, capfd):
    newest = ppo(str(tiny), rewarding(tmp_path), prompts_in(tmp_path), steps=8, eval_every=4, keep_best=True,
                 out=str(tmp_path/'run'), **SMALL)
    log = rows_of(tmp_path/'run')
    steps = [row for row in log if 'loss' in row]
    assert [row['step'] for row in steps] == list(range(1, 9)) and [row['step'] for row in log if 'val_reward' in row] == [4, 8]
    firsts = [row for row in steps if 'reward' in row]
    assert [row['step'] for row in firsts] == [1, 5] # two rollouts of two minibatches and two passes
    for row in firsts:
        assert row['step_kl'] < 1e-9 and row['clip_fraction'] == 0
        assert row['gap_mean'] <= 1e-6 and row['gap_max'] <= 1e-4
    assert abs(firsts[0]['kl']) < 1e-4 and firsts[0]['explained_variance'] == pytest.approx(0, abs=1e-5)
    assert steps[0]['policy_loss'] + steps[1]['policy_loss'] != 0 and steps[3]['step_kl'] > 0 and firsts[1]['kl'] != 0
    assert {'answers', 'tokens', 'value_loss', 'entropy', 'length', 'beta'} <= firsts[0].keys() and firsts[0]['answers'] == 4
    moved, tokenizer = load_model(newest)
    assert type(moved) is Transformer and tokenizer is not None # the critic stays behind
    assert any(not torch.equal(w, moved.state_dict()[name]) for name, w in load_model(tiny)[0].state_dict().items())
    assert 'time went to generation' in capfd.readouterr().out


@pytest.mark.slow
def test_the_reward_rises_and_the_leash_holds(tiny, tmp_path):
    "Paid by the number of letters, answers get shorter; the penalty keeps the policy near its start."
    ends = {}
    for beta in (0., 0.1):
        run = tmp_path/f'run{beta}'
        ppo(str(tiny), rewarding(tmp_path), prompts_in(tmp_path), steps=48, eval_every=0, unended=0., beta=beta, out=str(run),
            **SMALL | {'batch_size': 32, 'lr': 6e-2})
        rollouts = [row for row in rows_of(run) if 'reward' in row]
        ends[beta] = [sum(row[name] for row in rollouts[-3:]) / 3 for name in ('reward', 'kl')]
        first = rollouts[0]['reward']
    assert ends[0.][0] > 0.7 * first, ends # they are negative
    assert ends[0.1][1] < ends[0.][1] / 4, ends


def test_what_the_policy_is_told(tiny, tmp_path):
    "The function gets prompts and answers as text; an answer that did not end earns 1 point less."
    body = "[float(prompt.startswith('Name animal') and isinstance(answer, str)) for prompt, answer in zip(prompts, answers)]"
    ppo(str(tiny), rewarding(tmp_path, body), prompts_in(tmp_path), steps=4, eval_every=0, out=str(tmp_path/'run'), **SMALL)
    row = rows_of(tmp_path/'run')[0]
    assert 0 <= row['reward'] < 1 and row['length'] <= 12


def test_early_stop_and_the_controller(tiny, tmp_path):
    args = str(tiny), rewarding(tmp_path), prompts_in(tmp_path)
    ppo(*args, steps=8, stop_kl=1e-6, target_kl=1e-6, eval_every=0, out=str(tmp_path/'run'), **SMALL)
    log = rows_of(tmp_path/'run')
    assert [row['step'] for row in log if 'loss' not in row] == [3, 4, 7, 8]
    betas = [row['beta'] for row in log if 'beta' in row]
    assert betas[0] == 0.1 and betas[1] != 0.1 # the first rollout's distance is rounding, of either sign
    ppo(*args, steps=4, stop_kl=1e6, eval_every=0, out=str(tmp_path/'free'), **SMALL)
    assert all('loss' in row for row in rows_of(tmp_path/'free'))


def test_micro_batches_change_only_the_rounding(tiny, tmp_path):
    args = str(tiny), rewarding(tmp_path), prompts_in(tmp_path)
    logs = []
    for micro in (None, 1, 3):
        ppo(*args, steps=4, eval_every=0, entropy_weight=0.01, out=str(tmp_path/f'run{micro}'),
            engine=LocalOptions(micro=micro), **SMALL)
        logs.append(rows_of(tmp_path/f'run{micro}'))
    for log in logs[1:]:
        for name in ('loss', 'grad_norm', 'value_loss', 'step_kl'):
            assert [row[name] for row in log] == pytest.approx([row[name] for row in logs[0]], rel=1e-3, abs=1e-5), name


def test_what_is_refused(tiny, tmp_path):
    given = str(tiny), rewarding(tmp_path), prompts_in(tmp_path)
    with pytest.raises(UserError, match='do not divide'): ppo(*given, minibatches=3, out=str(tmp_path/'run'), **SMALL)
    with pytest.raises(UserError, match='clip_ratio|clip-ratio'): ppo(*given, clip_ratio=1.5, out=str(tmp_path/'run'), **SMALL)
    with pytest.raises(UserError, match='no function'): ppo(str(tiny), given[1] + 's', given[2], out=str(tmp_path/'run'), **SMALL)
    with pytest.raises(UserError, match='nan'):
        ppo(str(tiny), rewarding(tmp_path, "[float('nan')] * len(answers)"), given[2], out=str(tmp_path/'run'), **SMALL)


@pytest.mark.slow
def test_killed_and_resumed_in_the_same_bits(tiny, tmp_path):
    "The controller's weight, the critic and the order are part of what is kept."
    args = ('ppo', '--model', tiny, '--reward', rewarding(tmp_path), '--data', prompts_in(tmp_path), '--steps', 24,
            '--batch-size', 8, '--tokens', 12, '--lr', 0.01, '--target-kl', 0.5, '--save-every', 4)
    finished(*args, '--out', tmp_path/'whole')
    killed_at_line(11, tmp_path/'cut', *args)
    assert 'resuming from step' in finished(*args, '--out', tmp_path/'cut')
    def newest(run): return max((run/'checkpoints').glob('step-*'))
    for name in ('model.safetensors', 'trainer/state.safetensors'):
        assert (newest(tmp_path/'whole')/name).read_bytes() == (newest(tmp_path/'cut')/name).read_bytes(), name
    def plain(run):
        return [{k: v for k, v in row.items() if k not in ('tokens_per_s', 'mfu') and not k.startswith('seconds')}
                for row in rows_of(run)]
    assert plain(tmp_path/'whole') == plain(tmp_path/'cut')
