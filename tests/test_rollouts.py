"Rollouts: what is said about each token, the same answers on any number of ranks, and batches that cover them once."

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llmbook.align.branches import sample_answers
from llmbook.align.rewards import Asked
from llmbook.align.rollouts import AnswerTokens, RolloutStream, RolloutWriter, gathered, lay_out, rollout_facts
from llmbook.core import UserError, generator
from llmbook.model.heads import ActorCritic
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.deepspeed_step import RankGroup
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE
from llmbook.train.step import LocalEngine, LocalOptions, Speed

V, T, END = 40, 48, 1
SHAPES = {'llama': {}, 'gqa': dict(n_head=4, n_kv_head=2), 'gpt2': dict(arch='gpt2', tied=False)}


def model_of(name='llama'):
    shape = dict(n_layer=2, n_head=2, n_kv_head=2, n_embd=32, n_hidden=48) | SHAPES[name]
    model = Transformer(Config(V, T, **shape), seed=1)
    for p in model.parameters(): p.data *= 6 if p.ndim > 1 else 1 # so that what is looked at matters
    return model.eval()


def prompts_of(n=8):
    rng = generator(0, 'prompts')
    return [Asked(f'p{i}', [], torch.randint(5, V, (2 + i * 5 % 17,), generator=rng).tolist(), str(i)) for i in range(n)]


class Words:
    "Enough of a tokenizer: a text is its ids."
    pad, ends = 0, (END,)
    rust = SimpleNamespace(decode_batch=lambda lists: [' '.join(map(str, ids)) for ids in lists])


def pays(asked, answers, batch):
    "The prompt's number, and a tenth for each token that is not the end."
    return torch.tensor([[float(p.reference) + len(text.split()) / 10 for text in several] for p, several in zip(asked, answers)])


class Estimate:
    "Counts its rollouts, and numbers the answers."
    def __init__(self): self.seen = 0
    def state(self): return {'seen': self.seen}
    def load_state(self, state): self.seen = state['seen']
    def __call__(self, rollout):
        self.seen += 1
        return {'number': torch.arange(rollout['rewards'].numel()).view(rollout['rewards'].shape)}, {'seen': self.seen}


def writer_of(model=None, **settings):
    model = model or model_of()
    trainer = LocalEngine(model, lambda step: 1e-2, weight_decay=0.)
    reference = LocalOptions().freeze(model_of())
    return RolloutWriter(trainer, getattr(model, 'policy', model), Words(), pays, reference, **dict(tokens=10) | settings)


def stream_of(prompts=8, samples=3, minibatches=2, passes=2, n=11, model=None, **settings):
    stream = RolloutStream(prompts_of(n), prompts, samples, minibatches, passes, AnswerTokens(2 * T), T, **settings)
    stream.writer, stream.estimate = writer_of(model), Estimate()
    return stream


def written(model, samples=3, n=6, tokens=12):
    prompts = prompts_of(n)
    answers, nats = sample_answers(model, [p.ids for p in prompts], tokens, 1., samples, ends=(END,), nats=True)
    return prompts, answers, nats


# Each token

@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('samples', [1, 3, 4])
def test_what_is_said_is_the_same_in_any_rows(name, samples):
    model = model_of(name)
    critic = ActorCritic(model)
    torch.nn.init.normal_(critic.value.weight, generator=generator(0, 'value'))
    prompts, answers, nats = written(model, samples)
    batch = lay_out(prompts, answers, nats, range(len(prompts)), T, 0)
    asked = batch['labels'] != IGNORE
    assert sorted(asked.sum(-1).flatten().tolist()) == sorted(len(ids) for several in answers for ids in several)
    found = []
    for block_size in (None, 2 * T, 40, 1):
        objective = AnswerTokens(block_size)
        inputs = objective.inputs(batch)
        with torch.no_grad(): found.append(objective.scores(critic(*inputs), batch))
        assert found[-1].keys() == {'log_probs', 'entropy', 'values'}
        for key, values in found[-1].items():
            torch.testing.assert_close(values, found[0][key], atol=2e-4, rtol=0)
            assert (values[~asked] == 0).all() and values.shape == asked.shape
    torch.testing.assert_close(batch['sampled'], found[0]['log_probs'], atol=2e-4, rtol=0)
    for b, k in ((0, 0), (3, samples - 1), (5, 0)): # the plainest way
        ids = torch.tensor([prompts[b].ids + answers[b][k]])
        with torch.no_grad(): log_probs = model(ids[:, :-1])[0].log_softmax(-1)
        first = len(prompts[b].ids) - 1
        plain = log_probs.gather(-1, ids[0, 1:, None])[first:, 0]
        torch.testing.assert_close(found[1]['log_probs'][b, k][asked[b, k]], plain, atol=2e-4, rtol=0)
        entropy = -(log_probs.exp() * log_probs).sum(-1)[first:]
        torch.testing.assert_close(found[1]['entropy'][b, k][asked[b, k]], entropy, atol=2e-4, rtol=0)


def test_what_is_not_asked_for_is_not_there():
    model = model_of()
    prompts, answers, nats = written(model)
    batch = lay_out(prompts, answers, nats, range(6), T, 0)
    for policy, entropy, names in ((model, True, ['log_probs', 'entropy']), (model, False, ['log_probs']),
                                   (ActorCritic(model), False, ['log_probs', 'values'])):
        objective = AnswerTokens(2 * T, entropy)
        with torch.no_grad(): assert list(objective.scores(policy(*objective.inputs(batch)), batch)) == names


def test_facts_by_hand():
    labels = torch.tensor([[[7, 7, IGNORE], [7, IGNORE, IGNORE]], [[IGNORE, 7, 7], [7, 7, 7]]])
    asked = labels != IGNORE
    rollout = {'labels': labels, 'log_probs': -1. * asked, 'ref': -1.5 * asked, 'entropy': 2. * asked,
               'sampled': torch.where(asked, -1.25, 0.), 'rewards': torch.tensor([[1., 2.], [3., 6.]])}
    facts = rollout_facts(rollout)
    expected = dict(reward=3, reward_std=math.sqrt(14 / 4), length=2, entropy=2, gap_mean=0.25, gap_max=0.25, kl=1)
    assert facts == pytest.approx(expected) and all(type(value) is float for value in facts.values())
    del rollout['ref']
    assert rollout_facts(rollout).keys() == expected.keys() - {'kl'}
    alone = {name: values[:1, :1] for name, values in rollout.items()}
    assert rollout_facts(alone)['reward_std'] == 0


# Writing

def test_draws_do_not_depend_on_who_writes():
    writer, prompts = writer_of(), prompts_of()
    whole, nats = writer.write(prompts, 100, 3)
    for parts in (2, 4, 8):
        n = len(prompts) // parts
        pieces = [writer.write(prompts[i:i + n], 100 + i, 3)[0] for i in range(0, 8, n)]
        assert sum(pieces, []) == whole
    assert writer.write(prompts, 101, 3)[0] != whole and writer_of(seed=1).write(prompts, 100, 3)[0] != whole
    lengths = {len(ids) for several in whole for ids in several}
    assert min(lengths) < max(lengths) == 10


def test_what_did_not_end_costs_points():
    writer, prompts = writer_of(unended=0.5), prompts_of(2)
    answers = [[[5, 6, END], [5, 6, 7]], [[END], [5]]]
    assert writer.paid(prompts, answers, {}).tolist() == [pytest.approx([0.2, 0.3 - 0.5]), pytest.approx([1., 1.1 - 0.5])]
    assert writer_of(unended=0.).paid(prompts, answers, {})[0].tolist() == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize('critic', [False, True])
def test_a_rollout_is_what_policy_reference_and_reward_say(critic):
    model = ActorCritic(model_of()) if critic else model_of()
    writer, prompts = writer_of(model), prompts_of(4)
    for p in model.parameters(): p.data += 0.02 * torch.randn(p.shape, generator=generator(0, p.shape)) # away from the reference
    rollout = writer.rollout(prompts, range(4), 0, 3, T, AnswerTokens(2 * T))
    names = {'rows', 'ids', 'labels', 'sampled', 'log_probs', 'entropy', 'ref', 'rewards'} | ({'values'} if critic else set())
    assert rollout.keys() == names and set(writer.seconds) == {'generation', 'scoring'}
    assert (rollout['sampled'] - rollout['log_probs']).abs().max() < 2e-4 < (rollout['ref'] - rollout['log_probs']).abs().max()
    asked = rollout['labels'] != IGNORE
    ended = (rollout['labels'] == END).any(-1)
    expected = torch.arange(4.)[:, None] + (asked.sum(-1) - ended.long()) / 10 - (~ended).float()
    torch.testing.assert_close(rollout['rewards'], expected)
    assert not any(values.requires_grad for values in rollout.values())


# The stream

@pytest.mark.parametrize('minibatches, passes', [(1, 1), (2, 3), (4, 2), (8, 1)])
def test_each_pass_covers_a_rollout_once(minibatches, passes):
    stream = stream_of(minibatches=minibatches, passes=passes)
    orders = []
    for number in range(2):
        for epoch in range(passes):
            first = number * stream.period + epoch * minibatches
            batches = [stream[step] for step in range(first, first + minibatches)]
            numbers = torch.cat([batch['number'].flatten() for batch in batches])
            assert sorted(numbers.tolist()) == list(range(24)) and {len(batch['rows']) for batch in batches} == {8 // minibatches}
            orders.append(torch.cat([batch['rows'] for batch in batches]).tolist())
    assert stream.estimate.seen == 2 and (minibatches == 1 or len(set(map(tuple, orders))) == len(orders))


def test_every_prompt_comes_once_per_epoch():
    stream, seen = stream_of(prompts=4, minibatches=1, passes=1, n=12), []
    known = [prompt.ids for prompt in stream.packed]
    for step in range(6):
        batch = stream[step]
        lengths = (batch['labels'][:, 0] != IGNORE).int().argmax(-1) + 1
        seen += [known.index(ids[:n].tolist()) for ids, n in zip(batch['ids'][:, 0], lengths.tolist())]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_a_pure_function_of_seed_step_and_weights():
    one, two = stream_of(), stream_of()
    one[0]
    for step in (4, 5): # a run that resumes begins with another rollout than the first
        for name, values in one[step].items(): assert torch.equal(values, two[step][name]), name
    assert not torch.equal(stream_of(seed=1)[0]['ids'], stream_of()[0]['ids'])


def test_ranks_share_minibatches():
    stream = stream_of(minibatches=2)
    stream[0]
    whole = stream[1]['number']
    parts = [stream.slice(rank, 4)[1]['number'] for rank in range(4)]
    assert all(len(part) == 1 for part in parts)
    assert sorted(torch.cat(parts).flatten().tolist()) == sorted(whole.flatten().tolist())
    for world in (3, 8):
        with pytest.raises(UserError, match=f'4 rows per batch do not divide among {world} ranks'): stream.slice(0, world)
    with pytest.raises(UserError, match='8 prompts per rollout do not divide into 3 minibatches'): stream_of(minibatches=3)
    with pytest.raises(UserError, match='no prompts are left'): stream_of(n=0)


def test_facts_are_logged_with_the_first_step():
    stream = stream_of()
    for step in range(8):
        stream[step]
        assert bool(stream.notes) == (step % 4 == 0), step
        if not stream.notes: continue
        assert {'reward', 'kl', 'gap_max', 'seen', 'seconds_generation', 'seconds_scoring'} <= stream.notes.keys()


def test_state_and_a_change_of_speed():
    stream = stream_of()
    stream[0]
    assert stream.state() == {'seen': 1}
    stream.writer.engine.speed = Speed('bf16') # chosen after the first rollout was made to measure with
    stream[0]
    assert stream.state() == {'seen': 1} and stream.notes['seen'] == 1
    stream[4]
    assert stream.state() == {'seen': 2}
    other = stream_of()
    other.load_state(stream.state())
    other[8]
    assert other.state() == {'seen': 3}


def push(model, size):
    with torch.no_grad():
        for p in model.parameters(): p += size * torch.randn(p.shape, generator=generator(0, p.shape))


def test_early_stopping():
    model = model_of()
    stream = stream_of(passes=3, stop_kl=0.01, model=model)
    push(model, 1e-5)
    assert all(stream[step] for step in range(4)) # little has moved
    push(model, 0.2)
    assert [stream[step] is None for step in (4, 5)] == [True, True] and stream.notes == {}
    assert stream[6] and stream[7] # the next rollout is by the policy of now
    push(model, 0.2)
    assert [stream[step] is None for step in (8, 9, 10, 11)] == [True] * 4 # also when the first look said so
    never = stream_of(passes=3, model=model)
    never[0]
    push(model, 0.2)
    assert all(never[step] for step in range(1, 6))


# Rounds

class Rarely(Estimate):
    "Only answers of different lengths teach, and only to some prompts."
    def __init__(self, every=3): self.seen, self.every = 0, every
    def teaches(self, rollout): return rollout['rows'] % self.every == 1


def filling(prompts=4, every=3, rounds=3, **settings):
    stream = stream_of(prompts=prompts, minibatches=1, passes=1, rounds=rounds, **settings)
    stream.estimate = Rarely(every)
    return stream


@pytest.mark.parametrize('every, rounds, kept, written', [
    (2, 3, [1, 3, 5, 7], 8), (1000, 3, [0, 1, 2, 3], 12), (3, 3, [1, 4, 7, 10], 12), (3, 2, [0, 1, 4, 7], 8),
    (5, 3, [0, 1, 6, 11], 12), (2, 1, [0, 1, 2, 3], 4)])
def test_a_rollout_is_filled_with_what_teaches(every, rounds, kept, written):
    stream = filling(every=every, rounds=rounds)
    if every == 1000: stream.estimate.teaches = lambda rollout: rollout['rows'] < 0 # nothing does
    batch = stream[0]
    assert sorted(batch['rows'].tolist()) == kept and len(batch['number']) == 4
    assert stream.state() == ({'seen': 1} if rounds == 1 else {'seen': 1, 'written': written})
    if rounds == 1: assert 'written_per_kept' not in stream.notes
    else:
        teaching = 0 if every == 1000 else sum(n % every == 1 for n in kept)
        assert stream.notes['written_per_kept'] == written / max(1, teaching)


def test_what_is_kept_was_written_for_its_own_prompt():
    "The rounds of a rollout are the rollouts of a stream with one round, one after the other."
    batch, plain = filling()[0], filling(rounds=1)
    rounds = {}
    for number in range(3):
        part = plain[number]
        for i, row in enumerate(part['rows'].tolist()): rounds[number * 4 + row] = {name: v[i] for name, v in part.items()}
    for i, row in enumerate(batch['rows'].tolist()):
        for name in ('ids', 'labels', 'rewards', 'sampled'):
            one, other = batch[name][i], rounds[row][name]
            n = min(one.size(-1), other.size(-1)) # empty places are cut off
            torch.testing.assert_close(one[..., :n], other[..., :n], atol=2e-4, rtol=0)


def test_facts_are_those_of_all_that_was_written():
    "The reward of what is kept alone would say nothing about the policy."
    stream = filling(every=5)
    stream[0]
    plain, rewards = filling(rounds=1), []
    for number in range(3): rewards.append(plain[number]['rewards'])
    assert stream.notes['reward'] == pytest.approx(torch.cat(rewards).mean().item(), abs=1e-4)
    assert {'seconds_generation', 'seconds_scoring'} <= stream.notes.keys()


def test_rounds_resume_where_they_ended():
    whole = filling()
    batches = [whole[step] for step in range(3)]
    resumed = filling()
    resumed.load_state({'seen': 1, 'written': 12})
    for step in (1, 2):
        for name, values in resumed[step].items(): assert torch.equal(values, batches[step][name]), name
    begun = filling()
    begun.load_state({'seen': 1, 'written': 8}) # another place is another rollout
    assert not torch.equal(begun[1]['ids'], batches[1]['ids'])
    measured = filling() # a rollout that is made again, in another precision, takes its prompts back
    measured[0]
    measured.writer.engine.speed = Speed('bf16')
    assert torch.equal(measured[0]['ids'], batches[0]['ids']) and measured.state() == {'seen': 1, 'written': 12}


# Real ranks

class Ranks(RankGroup):
    "An engine that can add up."
    device = torch.device('cpu')
    def __init__(self):
        import torch.distributed as dist
        self.rank = self.data_rank = dist.get_rank()
        self.world = self.data_world = dist.get_world_size()


def put_together():
    "On every rank: its part of a few tensors, and what it gets back."
    engine = Ranks()
    g = torch.Generator().manual_seed(engine.rank)
    own = {'rows': torch.arange(2) + 2 * engine.rank + 2**40, 'x': torch.randn(2, 3, 4, generator=g),
           'labels': torch.full((2, 1), IGNORE), 'tiny': torch.full((2,), 1e-38)}
    return own, gathered(engine, own)


def share_a_rollout(rounds):
    "On every rank: the complete rollout, and this rank's rows of the first minibatch."
    stream = stream_of(prompts=8) if rounds == 1 else filling(8, rounds=rounds)
    ranks = Ranks()
    for name in ('rank', 'data_rank', 'world', 'data_world', 'device'): setattr(stream.writer.engine, name, getattr(ranks, name))
    stream.writer.engine.sum = ranks.sum
    mine = stream.slice(ranks.rank, ranks.world)
    batch = mine[0]
    return mine.rollout, batch, {name: value for name, value in mine.facts.items() if not name.startswith('seconds')}


def test_parts_of_ranks_make_the_whole():
    found = launch(put_together, 2)
    for name in found[0][0]:
        expected = torch.cat([own[name] for own, _ in found])
        for _, whole in found: assert torch.equal(whole[name], expected) and whole[name].dtype == expected.dtype, name


@pytest.mark.parametrize('rounds', [1, 3])
def test_two_ranks_make_the_rollout_of_one(rounds):
    alone = stream_of(prompts=8) if rounds == 1 else filling(8, rounds=rounds)
    batch = alone[0]
    found = launch(share_a_rollout, 2, rounds)
    for rollout, _, facts in found:
        assert rollout.keys() == alone.rollout.keys()
        for name, values in rollout.items():
            expected = alone.rollout[name]
            if values.is_floating_point(): torch.testing.assert_close(values, expected, atol=2e-4, rtol=0)
            else: assert torch.equal(values, expected), name
        assert facts == pytest.approx({name: alone.facts[name] for name in facts}, abs=1e-3)
    rows = torch.cat([part['rows'] for _, part, _ in found])
    assert sorted(rows.tolist()) == sorted(batch['rows'].tolist())


def test_lay_out_refuses_nothing_and_loses_nothing():
    prompts, answers, nats = written(model_of(), samples=2)
    batch = lay_out(prompts, answers, nats, range(10, 16), T, 39)
    assert batch['rows'].tolist() == list(range(10, 16)) and set(batch) == {'rows', 'ids', 'labels', 'sampled'}
    for b, prompt in enumerate(prompts):
        for k in range(2):
            labels = batch['labels'][b, k]
            assert labels[labels != IGNORE].tolist() == answers[b][k]
            kept = [*prompt.ids, *answers[b][k][:-1]]
            assert batch['ids'][b, k, :len(kept)].tolist() == kept and (batch['ids'][b, k, len(kept):] == 39).all()
            torch.testing.assert_close(batch['sampled'][b, k][labels != IGNORE], torch.tensor(nats[b][k]))
    assert isinstance(batch['rows'], torch.Tensor) and np.isfinite(batch['sampled'].numpy()).all()
