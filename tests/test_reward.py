"Losses of comparisons against TRL and values by hand, over micro-batches; the verb `reward` from rows to a model that opens."

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from killed import finished, killed_after
from needs import needs

from llmbook.align.lora import LoraOptions
from llmbook.align.messages import choice_of
from llmbook.align.pairs import PairStream, encode_choices
from llmbook.align.chat_template import ChatTemplate
from llmbook.align.reward import Comparisons, order_loss, own_lists, pair_loss, reward
from llmbook.align.scoring import answer_rows, score_conversations, score_file
from llmbook.core import UserError
from llmbook.files import read_jsonl
from llmbook.model.checkpoints import book_model, load_model, load_reward_model
from llmbook.model.heads import RewardModel
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.preferences import ranking_rows

SHAPE = Config(vocab_size=1024, block_size=256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)


@pytest.fixture(scope='module')
def tokenizer(): return book_model('sft')[1]


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, tokenizer):
    "The folder of a very small model with the book's tokenizer."
    folder = tmp_path_factory.mktemp('tiny')
    save_model(Transformer(SHAPE, 0), tokenizer, folder)
    return folder


@pytest.fixture(scope='module')
def stream(tokenizer):
    lists = [choice_of(row, 'world') for row in ranking_rows(12)]
    return PairStream(encode_choices(lists, ChatTemplate(tokenizer), 256, complete=True), 7, 256, pad=tokenizer.pad)


def rows_of(run): return list(read_jsonl(run/'log.jsonl'))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


# Losses

def sigmoid(x): return 1 / (1 + math.exp(-x))


def test_pairs_by_hand():
    rewards = torch.tensor([[1.2, 0.4], [0.4, 1.2]])
    assert pair_loss(rewards).tolist() == pytest.approx([-math.log(sigmoid(0.8)), -math.log(sigmoid(-0.8))])
    half = -(math.log(sigmoid(0.8)) + math.log(sigmoid(-0.8))) / 2
    assert pair_loss(rewards, torch.tensor([True, False])).tolist() == pytest.approx([half, -math.log(sigmoid(-0.8))])
    led = pair_loss(rewards, margin=torch.tensor([1., 0.])).tolist()
    assert led == pytest.approx([-math.log(sigmoid(-0.2)), -math.log(sigmoid(-0.8))])


def test_lists_by_hand():
    rewards = torch.tensor([[2., 0., 1.]], requires_grad=True)
    pairs = -sum(math.log(sigmoid(d)) for d in (2., 1., -1.))
    e = math.exp
    order = -math.log(e(2) / (e(2) + 1 + e(1))) - math.log(1 / (1 + e(1)))
    assert pair_loss(rewards).item() == pytest.approx(pairs) and order_loss(rewards).item() == pytest.approx(order)
    order_loss(rewards).sum().backward()
    first = e(2) / (e(2) + 1 + e(1)) - 1 # its chance to be chosen first, less what happened
    assert rewards.grad[0, 0].item() == pytest.approx(first) and abs(rewards.grad.sum()) < 1e-6


def test_a_tie_pulls_together_and_a_constant_pulls_nothing():
    rewards = torch.tensor([[1., 0.]], requires_grad=True)
    pair_loss(rewards, torch.tensor([True])).sum().backward()
    assert rewards.grad[0, 0] > 0 > rewards.grad[0, 1]
    for loss in (pair_loss, order_loss):
        points = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(loss(points + 7), loss(points), rtol=1e-4, atol=1e-5)


def objective_of(name, tokenizer): return Comparisons(name, center=0.1, pad=tokenizer.pad, block_size=256)


@pytest.mark.parametrize('name', ['pairs', 'order'])
def test_uneven_micro_batches_add_up(name, stream, tokenizer):
    batch, objective = stream[0], objective_of(name, tokenizer)
    points = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    counts = {key: int(n) for key, n in objective.counts(batch).items()}
    assert counts['prompts'] == 7 and counts['pairs'] == 42
    whole, logged = objective.loss(points, batch, counts)
    parts = [objective.loss(points[a:b], {k: v[a:b] for k, v in batch.items()}, counts) for a, b in ((0, 3), (3, 6), (6, 7))]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
    for key, value in logged.items(): torch.testing.assert_close(sum(more[key] for _, more in parts), value)
    i, j = torch.triu_indices(4, 4, 1)
    assert logged['accuracy'] == pytest.approx((points[:, i] > points[:, j]).float().mean().item())


def test_rows_are_shared_as_far_as_they_fit(stream, tokenizer):
    "Whatever the longest row: the same scores, in the order of the batch."
    judge, batch, found = RewardModel(SHAPE, tokenizer.pad, seed=0).eval(), stream[0], {}
    for limit in (None, 250, 190, 160):
        rows = answer_rows(batch, tokenizer.pad, limit)
        assert limit is None or rows[0].size(1) <= limit
        with torch.no_grad(): found[limit] = judge(*(rows if limit else answer_rows(batch, tokenizer.pad, 1))).view(7, 4)
    for scores in found.values(): torch.testing.assert_close(scores, found[160], rtol=0, atol=1e-5)


# TRL, on the same tensors

@pytest.mark.slow
@needs('trl', 'peers')
@pytest.mark.parametrize('margin, center', [(0., 0.), (0.7, 0.), (0., 0.2)])
def test_loss_and_gradient_are_those_of_trl(margin, center, tokenizer):
    from trl import RewardTrainer
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    batch = {'labels': torch.zeros(6, 2, 3, dtype=torch.long), 'tie': torch.zeros(6, dtype=torch.bool),
             'margin': torch.linspace(0, 3, 6)}
    objective = Comparisons(margin=margin, center=center)
    loss, _ = objective.loss(points, batch, {key: int(n) for key, n in objective.counts(batch).items()})
    loss.backward()
    theirs = points.detach().clone().requires_grad_()
    logits = theirs.transpose(0, 1).reshape(12, 1) # all chosen answers, then all others
    def same(x): return x
    self = SimpleNamespace(args=SimpleNamespace(center_rewards_coefficient=center/4 or None), accelerator=SimpleNamespace(
        gather=same, gather_for_metrics=same), model=SimpleNamespace(training=False), pad_token_id=0, aux_loss_enabled=False,
        _metrics={'train': __import__('collections').defaultdict(list), 'eval': __import__('collections').defaultdict(list)},
        _total_train_tokens=0)
    inputs = {'input_ids': torch.ones(12, 3, dtype=torch.long), 'attention_mask': torch.ones(12, 3, dtype=torch.long)}
    if margin: inputs['margin'] = margin * batch['margin']
    def model(**_): return SimpleNamespace(logits=logits)
    expected = RewardTrainer.compute_loss(self, model, inputs)
    expected.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(points.grad, theirs.grad, rtol=1e-5, atol=1e-8)


# The verb

def test_lists_of_the_world(tiny, tmp_path):
    newest = reward(str(tiny), pairs=120, steps=4, batch_size=4, eval_every=2, lr=1e-2, out=str(tmp_path/'run'))
    log = rows_of(tmp_path/'run')
    steps = [row for row in log if 'loss' in row]
    assert steps[0]['loss'] == pytest.approx(math.log(2), abs=1e-6) and steps[0]['accuracy'] == 0.5 # no opinion yet
    assert {'accuracy', 'lead', 'points', 'pairs', 'prompts', 'tokens'} <= steps[0].keys() and steps[0]['pairs'] == 24
    assert [row['step'] for row in log if 'val_loss' in row] == [2, 4] and steps[-1]['lead'] != 0
    judge, tokenizer = load_reward_model(newest)
    with pytest.raises(UserError, match='a reward model, which scores answers'): load_model(newest)
    talk = [{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': 'Ana.'}]
    assert score_conversations(judge, tokenizer, [talk])[0] != 0


def test_transformers_opens_it(tiny, tmp_path):
    from transformers import AutoModelForSequenceClassification
    newest = reward(str(tiny), pairs=60, steps=2, batch_size=4, eval_every=0, lr=1e-2, out=str(tmp_path/'run'))
    judge, tokenizer = load_reward_model(newest)
    theirs = AutoModelForSequenceClassification.from_pretrained(newest).eval()
    ids = torch.randint(8, 1024, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): torch.testing.assert_close(theirs(ids).logits[:, 0], judge(ids), rtol=0, atol=1e-5)


def test_lists_ties_and_margins(tiny, tmp_path):
    lists = [{'prompt': f'Name {i}.', 'answers': ['A.', 'B.', 'C.'], 'scores': [2, 1, 0]} for i in range(40)]
    def run(name, rows, **flags):
        reward(str(tiny), write(tmp_path/f'{name}.json', rows), batch_size=4, eval_every=0, out=str(tmp_path/name), **flags)
        return rows_of(tmp_path/name)
    together = run('together', lists)
    assert together[-1]['step'] == 10 and together[0]['pairs'] == 12 # 38 lists of three pairs
    apart = run('apart', lists, margin=0.5)
    assert apart[-1]['step'] == 29 and apart[0]['pairs'] == 4 and apart[0]['loss'] > math.log(2)
    tied = run('tied', [row | {'scores': [2, 2, 0]} for row in lists])
    assert tied[-1]['step'] == 29
    assert run('order', lists, loss='order', steps=1)[0]['loss'] == pytest.approx(math.log(6), abs=1e-5)


def test_bad_rows_stop_or_are_counted(tiny, tmp_path, capfd):
    rows = [{'prompt': f'Name {i}.', 'chosen': 'A.', 'rejected': 'B.'} for i in range(30)]
    data = write(tmp_path/'rows.json', [*rows, {'prompt': 'Why? ' * 400, 'chosen': 'A.', 'rejected': 'B.'}])
    with pytest.raises(UserError, match='too long|tokens, the model reads 256'): reward(str(tiny), data, out=str(tmp_path/'run'))
    reward(str(tiny), data, steps=1, skip_bad=True, batch_size=4, out=str(tmp_path/'run'))
    assert 'rows that are too long: 1' in capfd.readouterr().err


def test_a_margin_is_not_asked_of_an_order(tiny, tmp_path):
    with pytest.raises(UserError, match='--margin 1: an order has no pairs'):
        reward(str(tiny), pairs=60, steps=1, loss='order', margin=1., out=str(tmp_path/'run'))


def test_an_adapter_in_place_of_all_weights(tiny, tmp_path):
    adapt = LoraOptions(2)
    newest = reward(str(tiny), pairs=60, steps=2, batch_size=4, eval_every=0, lr=1e-2, out=str(tmp_path/'run'), adapt=adapt)
    judge, _ = load_reward_model(newest)
    before = load_model(tiny)[0].state_dict()
    assert torch.equal(judge.state_dict()['embed.weight'], before['embed.weight']) and judge.score.weight.abs().max() > 0


def test_what_the_model_wrote(tiny):
    model = load_model(tiny)
    lists = own_lists(*model, stories=4, samples=3, tokens=12)
    assert lists == own_lists(*model, stories=4, samples=3, tokens=12) and all(len(row['answers']) == 3 for row in lists)


@pytest.mark.slow
def test_killed_and_resumed_in_the_same_bits(tiny, tmp_path):
    args = ('reward', '--model', tiny, '--pairs', 120, '--steps', 24, '--batch-size', 4, '--save-every', 3, '--keep', 0)
    killed_after(2, tmp_path/'cut', *args)
    assert 'resuming from step' in finished(*args, '--out', tmp_path/'cut')
    finished(*args, '--out', tmp_path/'whole')
    first, last = [[(tmp_path/run/f'checkpoints/step-{step:08}/model.safetensors').read_bytes() for run in ('cut', 'whole')]
                   for step in (21, 24)]
    assert last[0] == last[1] and first[0] != last[0]


def test_a_file_of_answers(tiny, tmp_path, capsys):
    newest = reward(str(tiny), pairs=60, steps=1, batch_size=4, eval_every=0, out=str(tmp_path/'run'))
    rows = [*ranking_rows(3), {'prompt': 'Why?', 'completion': 'So.'}, {'prompt': 'Why? ' * 400, 'completion': 'So.'}]
    data = write(tmp_path/'answers.json', rows)
    with pytest.raises(UserError, match='answers.json, row 5'): score_file(str(newest), data)
    figures = score_file(str(newest), data, skip_bad=True, out=str(tmp_path/'scored'))
    assert figures['answers'] == 13 and figures['pairs'] == 18
    assert [len(row['rewards']) for row in read_jsonl(Path(tmp_path)/'scored/scores.jsonl')] == [4, 4, 4, 1]
