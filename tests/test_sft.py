"Fine-tuning on conversations: the world's rows, the loss on answers alone, refusals, and runs that end in the same bits."
import json
import os
import re
import shutil
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import ROOT, finished, killed_after
from layouts import advance, chats, local, same_trajectory, trajectories
from needs import needs
from torch.nn.utils.rnn import pad_sequence

from llmbook.align.answers import answer_prompts
from llmbook.align.chat_template import ChatStore, ChatTemplate, encode_conversations
from llmbook.align.messages import Conversation, conversation_of
from llmbook.align.prefixes import SharedStore
from llmbook.align.sft import sft, world_conversations
from llmbook.core import UserError
from llmbook.exercises import sft as checks
from llmbook.files import read_json
from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE, Stream
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START
from llmbook.text.preferences import REQUEST
from llmbook.text.tasks import questions_about, task_story
from llmbook.train.clm import CLM
from llmbook.train.runs import read_log
from llmbook.train.step import share_of, sum_counts

CONFIG = Config(vocab_size=300, block_size=96, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
ROWS = [{'instruction': f'What is {i} and {i % 7}?', 'input': '', 'output': f'It is {i + i % 7}.'} for i in range(60)]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A small model with a tokenizer, and a file of rows."
    folder = tmp_path_factory.mktemp('sft')
    texts = [text for row in ROWS for text in row.values()]
    save_model(Transformer(CONFIG, 0), train_tokenizer(texts, 300), folder/'base')
    (folder/'rows.json').write_text(json.dumps(ROWS))
    return folder


def run(made, out, **changes):
    flags = dict(data=str(made/'rows.json'), steps=6, batch_size=2, lr=1e-2, save_every=2) | changes
    return sft(str(made/'base'), out=str(out), **flags)


def weights(folder): return (folder/'model.safetensors').read_bytes()


# The world's conversations

def test_the_worlds_conversations():
    rows = list(world_conversations(300))
    assert rows == list(world_conversations(300)) and rows != list(world_conversations(300, seed=1))
    assert rows[-3:] == list(world_conversations(1, start=299))[-3:] and len({row.id for row in rows}) == len(rows) > 900
    assert all(conversation_of({'messages': row.messages}, '') for row in rows)
    asked = [message['content'].splitlines()[-1] for row in rows for message in row.messages if message['role'] == 'user']
    assert 0.15 < sum(text == REQUEST for text in asked) / 300 < 0.35
    facts = sum(text.startswith(('What is the trade', 'What is the home')) for text in asked)
    assert 0.35 < facts / 300 < 0.6
    assert 0 < sum(len(row.messages) > 2 for row in rows) / 300 < 0.1 > sum('Retell' in text for text in asked) / 300 > 0
    stories = {row.messages[0]['content'].splitlines()[0] for row in rows}
    held = {row.messages[0]['content'].splitlines()[0] for row in world_conversations(100, 0, HELD_START)}
    assert len(stories) == 300 and len(held) == 100 and not held & stories


def test_answers_are_true_but_for_the_careless_ones():
    for i in range(40):
        questions = {q.text: q.sentence for q in questions_about(task_story(0, i), 1)}
        for row in world_conversations(1, start=i):
            question = row.messages[0]['content'].splitlines()[-1]
            if question in questions: assert row.messages[1]['content'].startswith(questions[question])


@pytest.mark.slow
def test_they_fit_into_the_smallest_model():
    model, tokenizer = book_model()
    rows = list(world_conversations(300))
    encoded = encode_conversations(rows, ChatTemplate(tokenizer), model.config.block_size) # strict
    assert len(encoded) == len(rows)


def test_all_names_and_first_places_are_asked():
    for i in range(40):
        questions = questions_about(task_story(0, i), 1)
        asked = {row.messages[0]['content'].splitlines()[-1] for row in world_conversations(1, start=i)}
        facts = {question.text for question in questions if question.kind in ('trade', 'home')}
        assert {question.text for question in questions} - facts <= asked and len(facts & asked) <= 1


# The loss is on the answers

def test_labels_are_the_answers_and_their_ends():
    model, tokenizer = book_model()
    rows = list(world_conversations(12))
    store = SharedStore(encode_conversations(rows, ChatTemplate(tokenizer), 256), tokenizer, '', 256)
    stream = Stream(store, 4, 256)
    labels = stream.fill(all_rows(stream))['labels'].flatten()
    text = tokenizer.rust.decode(labels[labels != IGNORE].tolist(), skip_special_tokens=False)
    wanted = sorted(m['content'] for row in rows for m in row.messages if m['role'] == 'assistant')
    assert sorted(text.split('<|end|>')[:-1]) == wanted


def all_rows(stream): return np.arange(len(stream.packed))


def test_the_loss_by_hand():
    model, tokenizer = book_model()
    conversation = Conversation('', [{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': 'Mira.'}])
    [encoded] = encode_conversations([conversation], ChatTemplate(tokenizer), 256)
    places = len(encoded.ids) - 1
    batch = Stream(ChatStore([encoded], tokenizer, ''), 1, places)[0]
    loss, _ = share_of(model, batch, CLM(), sum_counts([CLM().counts(batch)]))
    logp = model(torch.tensor([encoded.ids]))[0].log_softmax(-1)
    nats = [-logp[i, encoded.ids[i + 1]].item() for i in range(places) if encoded.asked[i + 1]]
    assert 1 < len(nats) < places and loss.item() == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def few_conversations(): # some of them begin alike
    "Conversations of one and of two answers."
    def talk(*texts): return Conversation('', [{'role': r, 'content': t} for r, t in zip(cycle(('user', 'assistant')), texts)])
    rows = [talk(row['instruction'], row['output']) for row in ROWS[:6]]
    rows += [talk(ROWS[0]['instruction'] + f' Add {i}.', 'It is 7.') for i in range(3)]
    return rows + [talk('What is 1?', 'It is.', 'And 2?', 'It is 2.')]


def our_loss(model, tokenizer, encoded, block_size):
    "Packed, beginnings shared; its gradient is in the model."
    stream = Stream(SharedStore(encoded, tokenizer, '', block_size), 1, block_size)
    batch = stream.fill(all_rows(stream))
    loss, _ = share_of(model, batch, CLM(), sum_counts([CLM().counts(batch)]))
    loss.backward()
    return loss


def test_the_loss_equals_that_of_transformers(made):
    from transformers import AutoModelForCausalLM
    model, tokenizer = load_model(made/'base')
    peer = AutoModelForCausalLM.from_pretrained(made/'base').eval()
    encoded = encode_conversations(few_conversations(), ChatTemplate(tokenizer), 96)
    ids = pad_sequence([torch.tensor(e.ids) for e in encoded], True, tokenizer.pad)
    asked = pad_sequence([torch.tensor(e.asked) for e in encoded], True, False)
    theirs = peer(input_ids=ids, labels=ids.where(asked, IGNORE)).loss # it shifts them
    theirs.backward()
    ours = our_loss(model, tokenizer, encoded, 96)
    assert ours.item() == pytest.approx(theirs.item(), abs=2e-5)
    torch.testing.assert_close(model.embed.weight.grad, peer.model.embed_tokens.weight.grad, atol=1e-5, rtol=1e-3)


# The stage

def test_a_run_learns_resumes_and_answers(made, tmp_path):
    whole = run(made, tmp_path/'whole', steps=20, save_every=10)
    losses = [row['val_loss'] for row in read_log(tmp_path/'whole/log.jsonl') if 'val_loss' in row]
    assert len(losses) == 5 and losses[-1] < losses[0] - 0.4
    shutil.copytree(tmp_path/'whole', tmp_path/'cut')
    for step in (20,): shutil.rmtree(tmp_path/f'cut/checkpoints/step-{step:08d}')
    assert weights(run(made, tmp_path/'cut', steps=20, save_every=10)) == weights(whole)
    model, tokenizer = load_model(tmp_path/'cut')
    [[text]] = answer_prompts(model, tokenizer, [[{'role': 'user', 'content': ROWS[0]['instruction']}]], n=5)
    assert isinstance(text, str)
    config = read_json(tmp_path/'whole/config.json')
    assert config['command'] == 'sft' and config['inputs'].keys() == {'model', 'data'}


def test_epochs_and_held_out_rows(made, tmp_path, capsys):
    (tmp_path/'val.json').write_text(json.dumps(ROWS[:9]))
    run(made, tmp_path/'run', steps=None, epochs=2, batch_size=4, val_data=str(tmp_path/'val.json'))
    said = capsys.readouterr().out
    steps, rows = (int(found) for found in re.search(r'(\d+) steps of 4 rows, (\d+) rows in all', said).groups())
    assert steps == -(-2*rows // 4)
    assert read_json(tmp_path/'run/config.json')['inputs'].keys() == {'model', 'data', 'val_data'}


def test_few_rows_make_short_ones(made, tmp_path):
    (tmp_path/'two.json').write_text(json.dumps(ROWS[:2]))
    assert run(made, tmp_path/'run', data=str(tmp_path/'two.json'), steps=2).name == 'step-00000002'


def bad_rows(tmp_path):
    empty, long = {'instruction': 'Say nothing.', 'output': ''}, {'instruction': 'Long', 'output': 'word ' * 99}
    rows = [*ROWS[:20], empty, *ROWS[20:], long]
    (tmp_path/'bad.json').write_text(json.dumps(rows))
    return str(tmp_path/'bad.json')


def test_bad_rows_are_named_or_skipped(made, tmp_path, capsys):
    path = bad_rows(tmp_path)
    with pytest.raises(UserError, match='bad.json, row 21: .*empty answer'): run(made, tmp_path/'run', data=path)
    assert not (tmp_path/'run').exists()
    run(made, tmp_path/'run', data=path, skip_bad=True)
    said = capsys.readouterr().err
    assert 'empty answer: 1' in said and 'too long: 1' in said


@pytest.mark.parametrize('flags, said', [
    (dict(epochs=1.), '--epochs 1: not together with --steps 6'), (dict(block_size=97), '--block-size 97: .* 96'),
    (dict(data='nowhere.json'), 'nowhere.json'), (dict(val_data='nowhere.json'), 'nowhere.json'), (dict(lr=0.), '--lr'),
    (dict(keep_best=True, eval_every=0), '--keep-best'), (dict(batch_size=0), '--batch-size')])
def test_refusals_leave_nothing_behind(made, tmp_path, flags, said):
    with pytest.raises(UserError, match=said) as error: run(made, tmp_path/'run', **flags)
    assert '\n' not in str(error.value) and not (tmp_path/'run').exists()


def test_a_model_without_template(made, tmp_path):
    shutil.copytree(made/'base', tmp_path/'base')
    (tmp_path/'base/chat_template.jinja').unlink()
    config = json.loads((tmp_path/'base/tokenizer.json').read_text().replace('<|user|>', '<|usher|>'))
    (tmp_path/'base/tokenizer.json').write_text(json.dumps(config))
    with pytest.raises(UserError, match='chat template|chat_template'): run(tmp_path, tmp_path/'run', data=str(made/'rows.json'))


# Slow: authorities, kills, the real rows

@pytest.mark.slow
@needs('trl', 'peers')
def test_the_loss_equals_that_of_trl(tmp_path):
    "TRL writes, tokenizes and masks the rows itself."
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer
    model, tokenizer = book_model()
    save_model(model, tokenizer, tmp_path/'model')
    rows = [row for row in world_conversations(6) if len(row.messages) == 2]
    theirs = Dataset.from_list([{'prompt': row.messages[:1], 'completion': row.messages[1:]} for row in rows])
    flags = dict(use_cpu=True, report_to=[], bf16=False, max_length=None, completion_only_loss=True)
    args = SFTConfig(str(tmp_path/'trl'), per_device_train_batch_size=len(rows), **flags)
    peer = AutoModelForCausalLM.from_pretrained(tmp_path/'model')
    trainer = SFTTrainer(peer, args, train_dataset=theirs, processing_class=AutoTokenizer.from_pretrained(tmp_path/'model'))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(peer.eval(), dict(batch))
    encoded = encode_conversations(rows, ChatTemplate(tokenizer), 256)
    learned = sorted([i for i in labels if i != IGNORE] for labels in batch['labels'].tolist())
    assert learned == sorted([i for i, asked in zip(e.ids, e.asked) if asked] for e in encoded)
    assert our_loss(model, tokenizer, encoded, 256).item() == pytest.approx(loss.item(), abs=2e-5)


class MeanOfConversations(CLM):
    "Every micro-batch divides by its own count, and the means are averaged: short answers weigh more."
    def counts(self, batch): return super().counts(batch) | {'parts': 1}

    def loss(self, log_probs, batch, counts):
        loss, logged = super().loss(log_probs, batch, self.counts(batch))
        return loss / counts['parts'], logged


@pytest.mark.slow
@needs('deepspeed', 'scale')
def test_the_same_loss_on_all_layouts():
    "One layout is in `make test`, in test_invariance.py."
    cases = {(zero, accum): (dict(zero=zero, accum=accum), CLM(), chats()) for zero in range(4) for accum in (1, 4)}
    cases['wrong'] = dict(zero=2, accum=4), MeanOfConversations(), chats()
    found = dict(zip(cases, launch(trajectories, 2, list(cases.values()))[0]))
    alone = advance(local(), objective=CLM(), stream=chats())
    with pytest.raises(AssertionError, match='is off by'): same_trajectory(found.pop('wrong'), alone)
    for ours in found.values(): same_trajectory(ours, alone)


def run_killed_and_whole(tmp_path, model, rows, *flags):
    "One run that is killed twice and resumed, and one that is not; their last checkpoints."
    flags = ['--model', model, '--data', rows, '--save-every', 5, '--keep', 0, *flags]
    for checkpoints in (1, 3): killed_after(checkpoints, tmp_path/'killed', 'sft', *flags)
    for out in ('killed', 'whole'): finished('sft', *flags, '--out', tmp_path/out)
    return [sorted((tmp_path/out/'checkpoints').glob('step-*'))[-1] for out in ('killed', 'whole')]


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(made, tmp_path):
    killed, whole = run_killed_and_whole(tmp_path, made/'base', made/'rows.json', '--steps', 60, '--batch-size', 4)
    assert killed.name == whole.name and weights(killed) == weights(whole)
    steps = [row['step'] for row in read_log(tmp_path/'killed/log.jsonl') if 'loss' in row]
    assert steps == list(range(1, 61))


DATA = os.environ.get('LLMBOOK_DATA', '')


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason='LLMBOOK_DATA names no folder with instructions/instructions.json')
def test_real_rows_end_to_end(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    nano = ROOT/'llmbook/assets/nano-pretrain'
    rows = Path(DATA)/'instructions/instructions.json'
    killed, whole = run_killed_and_whole(tmp_path, nano, rows, '--steps', 40, '--batch-size', 4)
    assert weights(killed) == weights(whole)
    losses = [row['val_loss'] for row in read_log(tmp_path/'whole/log.jsonl') if 'val_loss' in row]
    assert losses[-1] < losses[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(whole), AutoTokenizer.from_pretrained(whole)
    chat = [{'role': 'user', 'content': 'What is the plural of "cat"?'}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt', return_dict=True)
    assert model.generate(**ids, max_new_tokens=5, do_sample=False).shape[1] > ids['input_ids'].shape[1]
    (tmp_path/'prompts.jsonl').write_text(json.dumps({'prompt': 'Name a colour.'}) + '\n')
    finished('generate', '--model', whole, '--prompts', tmp_path/'prompts.jsonl', '--temperature', 0, '--n', 8)


# Exercises

def test_exercises_refuse_near_misses():
    with pytest.raises(AssertionError, match='two means'): checks.check_1(1.6)
    with pytest.raises(AssertionError): checks.check_2(lambda asked: asked)
    with pytest.raises(AssertionError): checks.check_3(lambda ids, asked: [i if a else IGNORE for i, a in zip(ids[1:], asked)])
    with pytest.raises(AssertionError): checks.check_4(lambda train, val: sum(row in train for row in val) / len(val))
