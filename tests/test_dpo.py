"Losses of pairs against TRL, against values by hand, and over layouts; the verb `dpo` from rows to a model that opens."

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import layouts
import pytest
import torch
from killed import ROOT, finished, killed_at_line
from layouts import advance, local, same_trajectory
from needs import needs

from llmbook.align import reference
from llmbook.align.chat_template import ChatTemplate
from llmbook.align.dpo import BETAS, Preference, dpo
from llmbook.align.messages import choice_of
from llmbook.align.pairs import PairStream, encode_choices
from llmbook.align.reference import PointStream
from llmbook.core import UserError, current_rank
from llmbook.files import atomic_folder, read_jsonl
from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE
from llmbook.text.preferences import ranking_rows


def made_up(rows=6, width=12, seed=0):
    "A batch of answers of different lengths, log-probabilities of a policy, and what a reference said."
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, width - 2, (rows, 2), generator=g)
    asked = torch.arange(width)[None, None] < lengths[..., None]
    labels = torch.where(asked, 7, IGNORE).roll(1, -1) # the first place asks nothing
    log_probs = torch.where(labels != IGNORE, torch.rand(labels.shape, generator=g).log() / 2, 0.)
    ref = log_probs.sum(-1) + torch.randn(rows, 2, generator=g)
    batch = {'ids': torch.zeros_like(labels), 'labels': labels, 'rows': torch.arange(rows), 'ref': ref,
             'kl': torch.full((rows,), 0.3)}
    return batch, log_probs.flatten(0, 1).requires_grad_()


def ours(objective, batch, log_probs):
    "Loss and gradient of the complete batch."
    loss, logged = objective.loss(log_probs, batch, {name: int(n) for name, n in objective.counts(batch).items()})
    loss.backward()
    return loss.detach(), log_probs.grad, logged


# TRL, on the same tensors

class TheirModel:
    "Gives TRL's trainers the log-probabilities that it is told, in their order: all chosen answers, then all others."
    training = True

    def __init__(self, log_probs): self.log_probs = log_probs

    def __call__(self, **_):
        nothing = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


class Metrics(dict):
    def __missing__(self, key): return self.setdefault(key, Metrics() if key in ('train', 'eval') else [])


def stand_in(**settings):
    "The attributes of a trainer that its loss reads."
    def same(x): return x
    accelerator = SimpleNamespace(device=torch.device('cpu'), gather_for_metrics=same, gather=same)
    return SimpleNamespace(model=SimpleNamespace(training=True), accelerator=accelerator, _metrics=Metrics(), _tp_size=1,
                           _total_train_tokens=0, aux_loss_enabled=False, precompute_ref_logps=True, **settings)


def in_their_order(tensor): return tensor.transpose(0, 1).flatten(0, 1) # (B,2,...) -> (2B,...)


def their_inputs(batch):
    "A batch with a first token that nobody predicts, as TRL's trainers shift by themselves."
    asked = in_their_order(batch['labels'] != IGNORE)
    mask = torch.cat([torch.zeros(len(asked), 1, dtype=torch.bool), asked], 1).long()
    return {'input_ids': torch.ones_like(mask), 'attention_mask': torch.ones_like(mask), 'completion_mask': mask,
            'ref_chosen_logps': batch['ref'][:, 0], 'ref_rejected_logps': batch['ref'][:, 1]}


def trl_dpo(batch, log_probs, name, beta):
    from trl import DPOTrainer
    self = stand_in(loss_types=[name], loss_weights=[1.0], beta=beta, label_smoothing=0.0, ld_alpha=None,
                    f_divergence_type='reverse_kl', use_weighting=False)
    given = in_their_order(log_probs.view(batch['labels'].shape))
    return DPOTrainer._compute_loss(self, TheirModel(given), their_inputs(batch), False)


def trl_kto(batch, log_probs, beta):
    from trl import KTOTrainer
    self = stand_in(loss_type='kto', beta=beta, desirable_weight=1.0, undesirable_weight=1.0, calculate_KL=True)
    self._compute_kl_logps = lambda model, batch: torch.full((4,), 0.3)
    inputs = their_inputs(batch)
    n = len(batch['rows'])
    inputs |= {'label': torch.arange(2*n) < n, 'ref_logps': in_their_order(batch['ref']), 'ref_KL_logps': torch.zeros(4)}
    given = in_their_order(log_probs.view(batch['labels'].shape))
    return KTOTrainer._compute_loss(self, TheirModel(given), inputs, False)


def means(batch, log_probs):
    return (log_probs.view(batch['labels'].shape).sum(-1) / (batch['labels'] != IGNORE).sum(-1)).unbind(1)


def trl_orpo(batch, log_probs, beta):
    from trl.experimental.orpo import ORPOTrainer
    chosen = log_probs.view(batch['labels'].shape)[:, 0]
    fine_tuning = -chosen.sum() / (batch['labels'][:, 0] != IGNORE).sum()
    return fine_tuning - ORPOTrainer.odds_ratio_loss(stand_in(beta=beta), *means(batch, log_probs))[0].mean()


def trl_cpo(pair, **settings):
    from trl.experimental.cpo import CPOTrainer
    return CPOTrainer.cpo_loss(stand_in(alpha=0.0, **settings), *pair)[0].mean()


def trl_simpo(batch, log_probs, beta, smoothing=0.0):
    return trl_cpo(means(batch, log_probs), loss_type='simpo', beta=beta, simpo_gamma=0.8, label_smoothing=smoothing)


def trl_smoothed(batch, log_probs, beta): # DPO's own has no smoothing there; CPO's sigmoid is the same formula
    ratios = (log_probs.view(batch['labels'].shape).sum(-1) - batch['ref']).unbind(1)
    return trl_cpo(ratios, loss_type='sigmoid', beta=beta, label_smoothing=0.2)


THEIRS = {'dpo': (dict(beta=0.3), lambda b, x: trl_dpo(b, x, 'sigmoid', 0.3)),
          'dpo, smoothed': (dict(beta=0.3, label_smoothing=0.2), lambda b, x: trl_smoothed(b, x, 0.3)),
          'ipo': (dict(beta=0.7), lambda b, x: trl_dpo(b, x, 'ipo', 0.7)),
          'kto': (dict(beta=0.3), lambda b, x: trl_kto(b, x, 0.3)),
          'orpo': (dict(beta=0.2), lambda b, x: trl_orpo(b, x, 0.2)),
          'simpo': (dict(beta=1.5, gamma=0.8), lambda b, x: trl_simpo(b, x, 1.5)),
          'simpo, smoothed': (dict(beta=1.5, gamma=0.8, label_smoothing=0.1), lambda b, x: trl_simpo(b, x, 1.5, 0.1))}


@pytest.mark.slow
@needs('trl', 'peers')
@pytest.mark.parametrize('case', THEIRS)
def test_loss_and_gradient_are_those_of_trl(case):
    settings, theirs = THEIRS[case]
    batch, log_probs = made_up()
    loss, gradient, _ = ours(Preference(case.split(',')[0], **settings), batch, log_probs)
    other = log_probs.detach().clone().requires_grad_()
    expected = theirs(batch, other)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient, other.grad, rtol=1e-5, atol=1e-8)
    assert gradient.abs().max() > 1e-4


# By hand, with the numbers of the chapter

def one_pair(**more):
    "The chosen answer has 4 tokens and log-probability -2 (reference -3), the other one 2 tokens and -2 (reference -1)."
    labels = torch.full((1, 2, 5), IGNORE)
    labels[0, 0, 1:], labels[0, 1, 1:3] = 7, 7
    log_probs = torch.where(labels != IGNORE, torch.tensor([[[-0.5], [-1.0]]]), 0.)
    batch = {'ids': torch.zeros_like(labels), 'labels': labels, 'rows': torch.tensor([0]), 'ref': torch.tensor([[-3., -1.]])}
    return batch | {'kl': torch.tensor([0.2])} | more, log_probs.flatten(0, 1).requires_grad_()


def sigmoid(x): return 1 / (1 + math.exp(-x))


ODDS = math.log(0.60653 / 0.39347) - math.log(0.36788 / 0.63212)
HAND = [ # settings, loss, gradients for a token of the chosen and of the rejected answer
    (dict(beta=0.5), 0.3133, -0.5*sigmoid(-1), 0.5*sigmoid(-1)),
    (dict(beta=0.5, label_smoothing=0.1), 0.9*0.3133 + 0.1*1.3133, -0.5*(0.9*sigmoid(-1) - 0.1*sigmoid(1)), None),
    (dict(loss='ipo', beta=0.5), 0.0625, 2*(0.75 - 1)/4, -2*(0.75 - 1)/2),
    (dict(loss='kto', beta=0.5), 0.3778, -0.25*sigmoid(0.4)*sigmoid(-0.4), 0.25*sigmoid(0.6)*sigmoid(-0.6)),
    (dict(loss='orpo', beta=0.5), 0.5 + 0.5*0.3202, -1/4 - 0.5*sigmoid(-ODDS)/4/0.39347, 0.5*sigmoid(-ODDS)/2/0.63212),
    (dict(loss='simpo', beta=2., gamma=1.), 0.6931, -2*0.5/4, 2*0.5/2)]


@pytest.mark.parametrize('settings, loss, up, down', HAND)
def test_values_by_hand(settings, loss, up, down):
    batch, log_probs = one_pair()
    found, gradient, logged = ours(Preference(**settings), batch, log_probs)
    assert found == pytest.approx(loss, abs=1e-4)
    assert gradient[0, 1].item() == pytest.approx(up, abs=1e-5)
    assert down is None or gradient[1, 1].item() == pytest.approx(down, abs=1e-5)
    assert logged['accuracy'] == 1 and logged['margin'] > 0


def test_single_answers_with_a_thumb():
    "The two answers of a pair as two rows: the same loss, and a margin that counts from the point."
    batch, log_probs = one_pair()
    pair, gradient, _ = ours(Preference('kto', 0.5), batch, log_probs)
    rows = {'ids': batch['ids'].transpose(0, 1), 'labels': batch['labels'].transpose(0, 1), 'rows': torch.arange(2),
            'ref': batch['ref'].T, 'kl': torch.full((2,), 0.2), 'good': torch.tensor([True, False])}
    single = log_probs.detach().clone().requires_grad_()
    loss, same, logged = ours(Preference('kto', 0.5), rows, single)
    assert loss == pytest.approx(pair) and torch.allclose(gradient, same)
    assert logged['margin'] == pytest.approx((0.4 + 0.6) / 2) and logged['kl'] == pytest.approx(0.2)


@pytest.mark.parametrize('name', BETAS)
def test_uneven_micro_batches_add_up(name):
    batch, log_probs = made_up(rows=7)
    whole, gradient, logged = ours(Preference(name), batch, log_probs)
    again, objective, parts = log_probs.detach().clone().requires_grad_(), Preference(name), []
    counts = {key: int(n) for key, n in objective.counts(batch).items()}
    for begin, end in ((0, 3), (3, 6), (6, 7)):
        part = {key: values[begin:end] for key, values in batch.items()}
        parts.append(objective.loss(again[2*begin:2*end], part, counts))
    sum(loss for loss, _ in parts).backward()
    torch.testing.assert_close(sum(loss for loss, _ in parts).detach(), whole)
    torch.testing.assert_close(again.grad, gradient)
    for key, value in logged.items(): torch.testing.assert_close(sum(m[key] for _, m in parts), value)


def test_what_a_loss_does_not_see():
    "A prompt's own probability drops out of DPO; twice the same answer is the same to SimPO; a reference of itself is log 2."
    batch, log_probs = made_up()
    loss = ours(Preference(), batch, log_probs)[0]
    longer = log_probs.detach() + 0.3 * (torch.arange(12) == 0) # as if the first place asked for a prompt's token
    torch.testing.assert_close(ours(Preference(), batch, longer.requires_grad_())[0], loss)
    own = batch | {'ref': log_probs.detach().view(batch['labels'].shape).sum(-1)}
    assert ours(Preference(), own, log_probs.detach().requires_grad_())[0] == pytest.approx(math.log(2))
    twice = {**batch, 'labels': torch.cat([batch['labels']]*2, -1), 'ids': torch.cat([batch['ids']]*2, -1)}
    doubled = torch.cat([log_probs.detach()]*2, -1).requires_grad_()
    torch.testing.assert_close(ours(Preference('simpo'), twice, doubled)[0], ours(Preference('simpo'), batch, log_probs)[0])


@pytest.mark.parametrize('name', ['ipo', 'kto', 'orpo'])
def test_smoothing_where_there_is_none(name):
    with pytest.raises(UserError, match=f'--label-smoothing 0.1: not with --loss {name}'): Preference(name, label_smoothing=0.1)


# Layouts: one row is in `make test`, in test_invariance.py

class OwnPoint(PointStream):
    "Every rank takes the point of its own rows."
    def fill(self, numbers, width=None):
        alone, self.engine = self.engine, SimpleNamespace(score=self.engine.score, sum=lambda values: values)
        try: return super().fill(numbers, width)
        finally: self.engine = alone


class OwnMean(Preference):
    "Every micro-batch divides by its own count, and the means are averaged."
    def counts(self, batch): return super().counts(batch) | {'parts': 1}

    def loss(self, log_probs, batch, counts):
        loss, logged = super().loss(log_probs, batch, self.counts(batch))
        return loss / counts['parts'], logged


class Twice(PairStream):
    "Every rank is fed the first one's slice."
    def slice(self, rank, world): return super().slice(0, world)


class Lost(Preference):
    "The last rank's gradient gets lost."
    def loss(self, log_probs, batch, counts):
        loss, logged = super().loss(log_probs, batch, counts)
        return (loss if current_rank() == 0 else 0*loss + loss.detach()), logged


def near(ours, theirs):
    "As `same_trajectory`, for losses of any size."
    size = max(1, *theirs[0])
    same_trajectory(*([[loss / size for loss in losses], norms] for losses, norms in (ours, theirs)))


def made(name): return Preference(name), layouts.pairs(PointStream if name == 'kto' else PairStream)


WRONG = {'own point': ('kto', lambda: (Preference('kto'), layouts.pairs(OwnPoint))),
         'own mean': ('orpo', lambda: (OwnMean('orpo'), layouts.pairs())),
         'own slice': ('dpo', lambda: (Preference(), layouts.pairs(Twice))),
         'lost rank': ('dpo', lambda: (Lost(), layouts.pairs()))}


@pytest.mark.slow
@needs('deepspeed', 'scale')
def test_all_losses_on_all_layouts():
    cases = {(name, zero, accum): (dict(zero=zero, accum=accum), *made(name))
             for name in BETAS for zero in (0, 2, 3) for accum in (1, 4)}
    cases |= {wrong: (dict(zero=2, accum=2), *make()) for wrong, (_, make) in WRONG.items()}
    found = dict(zip(cases, launch(layouts.trajectories, 2, list(cases.values()))[0]))
    alone = {}
    for name in BETAS:
        objective, stream = made(name)
        alone[name] = advance(local(), objective=objective, stream=stream)
        four = advance(local(accum=4), objective=objective, stream=stream)
        near(four, alone[name])
    for (name, *how) in [case for case in cases if case not in WRONG]: near(found[name, *how], alone[name])
    for wrong, (name, _) in WRONG.items():
        with pytest.raises(AssertionError, match='is off by'): near(found[wrong], alone[name])


# The verb

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "The folder of a very small model with the book's tokenizer."
    folder = tmp_path_factory.mktemp('tiny')
    shape = Config(vocab_size=1024, block_size=256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
    save_model(Transformer(shape, 0), book_model()[1], folder)
    return folder


def rows_of(run): return list(read_jsonl(run/'log.jsonl'))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


def test_pairs_of_the_world(tiny, tmp_path, capfd):
    newest = dpo(str(tiny), pairs=60, steps=4, batch_size=8, eval_every=2, lr=1e-2, out=str(tmp_path/'run'))
    log = rows_of(tmp_path/'run')
    steps = [row for row in log if 'loss' in row]
    assert steps[0]['loss'] == pytest.approx(math.log(2), abs=1e-5) # policy and reference are the same
    assert {'accuracy', 'margin', 'chosen', 'rejected', 'pairs', 'tokens'} <= steps[0].keys() and steps[0]['pairs'] == 8
    assert [row['step'] for row in log if 'val_loss' in row] == [2, 4] and steps[0]['chosen'] == pytest.approx(0, abs=1e-3)
    assert all({'val_loss', 'val_accuracy', 'val_margin'} <= row.keys() for row in log if 'loss' not in row)
    assert steps[-1]['chosen'] != 0 and (tmp_path/'run/reference.safetensors').exists()
    moved = load_model(newest)[0].state_dict()
    assert any(not torch.equal(w, moved[name]) for name, w in load_model(tiny)[0].state_dict().items())


@pytest.mark.parametrize('loss, kept', [('ipo', True), ('kto', True), ('orpo', False), ('simpo', False)])
def test_every_loss_runs(tiny, tmp_path, loss, kept):
    dpo(str(tiny), loss=loss, pairs=40, steps=2, batch_size=4, eval_every=2, out=str(tmp_path/'run'))
    log = rows_of(tmp_path/'run')
    assert len(log) == 3 and ('kl' in log[0]) == (loss == 'kto') and (tmp_path/'run/reference.safetensors').exists() == kept
    assert all(math.isfinite(row.get('loss', 0)) for row in log)


def test_lists_ties_and_thumbs(tiny, tmp_path):
    lists = [{'prompt': f'Name {i}.', 'answers': ['A.', 'B.', 'C.'], 'scores': [2, 2, 1]} for i in range(40)]
    dpo(str(tiny), write(tmp_path/'lists.json', lists), batch_size=4, eval_every=0, out=str(tmp_path/'lists'))
    assert rows_of(tmp_path/'lists')[-1]['step'] == 38 * 2 / 4 # two lists are held out, and a tie says nothing
    thumbs = [{'prompt': f'Name {i}.', 'completion': 'A.', 'label': i % 2 == 0} for i in range(40)]
    mixed = write(tmp_path/'thumbs.json', thumbs + [{'prompt': 'Why?', 'chosen': 'So.', 'rejected': 'No.'}])
    dpo(str(tiny), mixed, loss='kto', steps=2, batch_size=4, eval_every=2, out=str(tmp_path/'thumbs'))
    assert 'chosen' not in rows_of(tmp_path/'thumbs')[0]
    with pytest.raises(UserError, match='no known form'): dpo(str(tiny), mixed, out=str(tmp_path/'none'))


def test_bad_rows_stop_or_are_counted(tiny, tmp_path, capfd):
    rows = [{'prompt': f'Name {i}.', 'chosen': 'A.', 'rejected': 'B.'} for i in range(30)]
    data = write(tmp_path/'rows.json', [*rows, {'prompt': 'Why?', 'chosen': 'A.', 'rejected': 'A.'},
                                        {'prompt': 'Why? ' * 400, 'chosen': 'A.', 'rejected': 'B.'}])
    with pytest.raises(UserError, match='rows.json, row 31: chosen is equal to rejected'):
        dpo(str(tiny), data, out=str(tmp_path/'run'))
    dpo(str(tiny), data, steps=1, skip_bad=True, batch_size=4, out=str(tmp_path/'run'))
    said = capfd.readouterr().err
    assert 'rows whose chosen answer is equal to a rejected one: 1' in said and 'rows that are too long: 1' in said
    assert 'rows.json, row 32)' in said
    with pytest.raises(UserError, match='long.json, row 21: 1[0-9]* tokens, the model reads 256'):
        dpo(str(tiny), write(tmp_path/'long.json', [*rows[:20], rows[0] | {'prompt': 'Why? ' * 400}]), out=str(tmp_path/'long'))


def test_the_reference_is_asked_once(tiny, tmp_path, monkeypatch):
    "A run that resumes reads the table. A damaged one is made anew, unless the first model is gone."
    begun = tmp_path/'sft/checkpoints/step-00000001'
    with atomic_folder(begun, step=1, world=1) as stage: save_model(*load_model(tiny), stage)
    recipe = dict(pairs=40, steps=4, batch_size=4, save_every=2, eval_every=0)
    def run(): return dpo(str(tmp_path/'sft'), **recipe, out=str(tmp_path/'run'))
    newest, asked = run(), []
    weights = (newest/'model.safetensors').read_bytes()
    monkeypatch.setattr(reference, 'load_model', lambda folder: asked.append(folder) or load_model(folder))
    def again():
        shutil.rmtree(newest)
        run()
        return (newest/'model.safetensors').read_bytes() == weights
    assert again() and not asked
    table = tmp_path/'run/reference.safetensors'
    table.write_bytes(table.read_bytes()[:-1] + b'x')
    assert again() and asked == [begun]
    table.unlink()
    shutil.rmtree(begun)
    with pytest.raises(UserError, match='reference.safetensors: missing or damaged'): again()


def test_a_text_is_scored_once():
    "Six pairs of four answers: four texts are scored, and each pair finds its own."
    stream, model = layouts.pairs(rows=4), local()
    answers = [choice.answers[0] for choice in stream.packed]
    six = [stream.packed[0]._replace(answers=[answers[i], answers[j]]) for i in range(4) for j in range(i)]
    pairs, scored = PairStream(six, 2, 16), []
    def score(batch, objective):
        scored.extend(batch['rows'].tolist())
        return model.score(batch, objective)
    table = reference.score_answers(SimpleNamespace(score=score), model, pairs)
    assert sorted(scored) == [0, 1, 2, 3]
    for row, expected in enumerate(table):
        alone = model.score(pairs.fill([row]), reference.AnswerLogProbs())['log_probs'][0]
        torch.testing.assert_close(expected, alone, rtol=1e-5, atol=1e-5)
    assert len({round(x, 3) for x in table.flatten().tolist()}) == 4


# Killed and resumed; real pairs

def same_end(one, other):
    "Do two runs end in the same weights and optimiser state, and log the same?"
    def newest(run): return max((run/'checkpoints').glob('step-*'))
    for name in ('model.safetensors', 'trainer/state.safetensors'):
        assert (newest(one)/name).read_bytes() == (newest(other)/name).read_bytes(), name
    timed = 'tokens_per_s', 'mfu'
    plain = [[{k: v for k, v in row.items() if k not in timed} for row in rows_of(run)] for run in (one, other)]
    assert plain[0] == plain[1]


@pytest.mark.slow
@pytest.mark.parametrize('loss', ['dpo', 'kto'])
def test_killed_and_resumed_in_the_same_bits(tiny, tmp_path, loss):
    args = ('dpo', '--model', tiny, '--loss', loss, '--pairs', 100, '--steps', 30, '--batch-size', 8, '--save-every', 5)
    finished(*args, '--out', tmp_path/'whole')
    killed_at_line(12, tmp_path/'cut', *args)
    table = (tmp_path/'cut/reference.safetensors').stat().st_mtime_ns
    assert 'resuming from step' in finished(*args, '--out', tmp_path/'cut')
    assert (tmp_path/'cut/reference.safetensors').stat().st_mtime_ns == table # it was scored once
    same_end(tmp_path/'whole', tmp_path/'cut')


DATA = os.environ.get('LLMBOOK_DATA')


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason='LLMBOOK_DATA names no folder with instructions/preferences.json')
def test_real_pairs_end_to_end(tmp_path):
    "From a file of real pairs, killed on the way, to a model that transformers opens and that answers in its template."
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from llmbook.align.answers import answer_prompts
    data = Path(DATA)/'instructions/preferences.json'
    model = ROOT/'llmbook/assets/nano-pretrain'
    args = ('dpo', '--model', model, '--data', data, '--skip-bad', '--epochs', 1, '--batch-size', 8, '--save-every', 20)
    finished(*args, '--out', tmp_path/'whole')
    killed_at_line(45, tmp_path/'cut', *args)
    assert 'resuming from step 40' in finished(*args, '--out', tmp_path/'cut')
    same_end(tmp_path/'whole', tmp_path/'cut')
    log = rows_of(tmp_path/'whole')
    values = [row['val_loss'] for row in log if 'val_loss' in row]
    assert values[-1] < math.log(2) # of held-out pairs
    newest = max((tmp_path/'whole/checkpoints').glob('step-*'))
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(newest).eval(), AutoTokenizer.from_pretrained(newest)
    ask = [{'role': 'user', 'content': json.loads(data.read_text())[0]['instruction']}]
    ids = tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_tensors='pt')['input_ids']
    with torch.no_grad(): written = theirs.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.size(1):]
    [[answer]] = answer_prompts(*load_model(newest), [ask], n=20)
    assert tokenizer.decode(written, skip_special_tokens=True) == answer


@pytest.mark.parametrize('name', ['dpo', 'ipo', 'orpo', 'simpo'])
def test_a_list_counts_as_all_its_pairs(name):
    "The loss of lists of three answers is that of their pairs, each with the same numbers."
    torch.manual_seed(0)
    labels = torch.full((2, 3, 6), IGNORE)
    for k in range(3): labels[:, k, :k + 2] = 5
    lists = {'labels': labels, 'ref': torch.randn(2, 3)}
    log_probs = -torch.rand(2, 3, 6) * (labels != IGNORE)
    i, j = torch.triu_indices(3, 3, 1)
    def pairs(values): return torch.stack([values[:, i], values[:, j]], 2).flatten(0, 1)
    objective = Preference(name)
    as_lists, logged = objective.loss(log_probs.flatten(0, 1), lists, objective.counts(lists) | {'chosen_tokens': 1e9})
    paired = {'labels': pairs(labels), 'ref': pairs(lists['ref'])}
    as_pairs, expected = objective.loss(pairs(log_probs).flatten(0, 1), paired, objective.counts(paired) | {'chosen_tokens': 1e9})
    assert objective.counts(lists)['pairs'] == objective.counts(paired)['pairs'] == 6
    torch.testing.assert_close(as_lists, as_pairs)
    for key, value in expected.items(): torch.testing.assert_close(logged[key], value)


def test_answers_that_share_their_prompt(tiny):
    "Loss and gradients are those of rows of their own; rows that are too short are shared by fewer answers."
    model, tokenizer = load_model(tiny)
    lists = [choice_of(row, 'world') for row in ranking_rows(6)]
    stream = PairStream(encode_choices(lists, ChatTemplate(tokenizer), 256), 6, 256, pad=tokenizer.pad)
    batch = stream[0]
    batch['ref'] = torch.randn(6, 4)
    found, widths = [], []
    for block_size in (None, 256, 210, 100):
        objective = Preference('ipo', block_size=block_size)
        inputs = objective.inputs(batch)
        widths.append(inputs[0].size(0))
        loss, _ = objective.loss(model(*inputs), batch, objective.counts(batch))
        gradient = torch.autograd.grad(loss, model.parameters())
        found.append(torch.cat([loss.view(1), *(g.flatten() for g in gradient)]))
    assert widths[:2] == [24, 6] and widths[2] == 12 and widths[3] == 24
    for other in found[1:]: torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-4)
