"What the stages of tuning share: rows held out by question, lengths of runs, refusals, and a resumed run in the same bits."
import json
import math
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from llmbook.align.messages import Choice, Conversation
from llmbook.train.tuning import Recipe, load_start, read_rows, recipe_of, split_rows, steps_of, tune, usual_lr, warmup_linear
from llmbook.core import UserError
from llmbook.files import read_json
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.batches import Stream
from llmbook.text.bpe import train_tokenizer
from llmbook.text.unpack import Skipped
from llmbook.train.clm import CLM
from llmbook.train.runs import read_log
from llmbook.train.step import LocalOptions

CONFIG = Config(vocab_size=290, block_size=16, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
WORDS = ['the cat sat on the mat', 'the dog ran'] * 9


def user(text): return {'role': 'user', 'content': text}


def answer(text): return {'role': 'assistant', 'content': text}


def conversation(question, reply): return Conversation('', [user(question), answer(reply)])


def test_rows_with_the_same_question_are_held_out_together():
    rows = [conversation(f'q{i % 40}', str(i)) for i in range(120)]
    train, val = split_rows(rows)
    asked = [{row.messages[0]['content'] for row in part} for part in (train, val)]
    assert not asked[0] & asked[1] and len(train) + len(val) == 120
    assert 6 <= len(val) <= 8 and train == [row for row in rows if row in train] # in their order
    choices = [Choice('', [user(f'q{i // 6}')], ['a', 'b'], None, {}) for i in range(60)]
    train, val = split_rows(choices, share=0.2)
    assert len(val) == 12 and not {c.prompt[0]['content'] for c in train} & {c.prompt[0]['content'] for c in val}


def test_the_draw_depends_on_the_seed_alone():
    rows = [conversation(f'q{i}', str(i)) for i in range(200)]
    held = [split_rows(rows, seed=seed)[1] for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2] and len(held[2]) == 10
    longer = split_rows(rows + [conversation('one more', '')], seed=0)
    assert sum(row in longer[0] for row in rows) > 180


def test_turns_of_the_system_are_a_part_of_the_question():
    one = Conversation('', [{'role': 'system', 'content': 'be short'}, user('q'), answer('a')])
    two = Conversation('', [{'role': 'system', 'content': 'be long'}, user('q'), answer('a')])
    assert [len(part) for part in split_rows([one, two])] == [1, 1]


@pytest.mark.parametrize('rows', [[], [conversation('q', 'a')], [conversation('q', 'a'), conversation('q', 'b')]])
def test_too_few_rows_to_hold_one_out(rows):
    with pytest.raises(UserError, match='--val-data'): split_rows(rows)
    assert split_rows(rows, []) == (rows, [])


def test_steps():
    assert steps_of(100, 8) == 13 and steps_of(100, 8, epochs=2) == 25 and steps_of(3, 8, epochs=0.1) == 1
    assert steps_of(30, 1, epochs=0.1) == 3 # 3.0000000000000004 without the care that is taken
    assert steps_of(100, 8, steps=7) == 7
    with pytest.raises(UserError, match='--epochs 2: not together with --steps 7'): steps_of(100, 8, 2, 7)


def test_the_line_rises_and_falls_to_zero():
    at = warmup_linear(1.0, 100, 10)
    rates = [at(step) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1 and rates[55] == pytest.approx(0.5) and rates[100] == 0
    assert all(b < a for a, b in zip(rates[10:], rates[11:])) and min(rates[:100]) > 0
    assert warmup_linear(1.0, 1)(0) == 1


def test_usual_rates():
    assert usual_lr(1e6) == 2e-3 and usual_lr(7e9) == pytest.approx(2e-5, rel=0.02)


class Texts:
    "A store without a file."
    vocab_size, pad, folder = 290, 0, 'texts'

    def __init__(self, documents):
        self.ids = np.array([i for ids in documents for i in ids])
        self.lengths = np.array([len(ids) for ids in documents])
        self.starts = np.cumsum(self.lengths) - self.lengths


class Frozen(NamedTuple):
    "An adapter that trains the gains alone, and says so in a file."
    note: str = 'gains'

    def apply(self, model):
        for p in model.parameters(): p.requires_grad_(p.ndim < 2)
        return model

    def save(self, model, tokenizer, folder):
        save_model(model, tokenizer, folder)
        (folder/'note.txt').write_text(self.note)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp('base')/'base'
    save_model(Transformer(CONFIG, 0), train_tokenizer(WORDS, 290), folder)
    return folder


def stage(model, out, adapt=None, data=None, **changes):
    args = Recipe(str(out), lr=1e-2, steps=12, save_every=4)._asdict() | changes
    start = load_start(str(model), str(out), args['fresh'])
    stream = Stream(Texts(start.tokenizer.encode_texts(WORDS)), 4, 16)
    def save(folder): save_model(start.model, start.tokenizer, folder)
    return tune('stage', args, start, start.model, CLM(), stream, len(stream.packed), [stream.fill(np.arange(3))], save,
                {'data': data}, LocalOptions(), adapt)


def weights(folder): return (folder/'model.safetensors').read_bytes()


def test_a_resumed_run_ends_in_the_same_bits(base, tmp_path):
    whole = stage(base, tmp_path/'whole')
    shutil.copytree(tmp_path/'whole', tmp_path/'cut')
    for step in (8, 12): shutil.rmtree(tmp_path/f'cut/checkpoints/step-{step:08d}')
    assert weights(stage(base, tmp_path/'cut')) == weights(whole)
    rows = read_log(tmp_path/'cut/log.jsonl')
    assert [row['step'] for row in rows if 'loss' in row] == list(range(1, 13))
    assert [row['step'] for row in rows if 'val_loss' in row] == [3, 6, 9, 12]
    config = read_json(tmp_path/'whole/config.json')
    assert config['start'] == str(base) and config['inputs'].keys() == {'model'} and config['args']['lr'] == 1e-2


def test_other_inputs_are_refused(base, tmp_path):
    rows = tmp_path/'rows.jsonl'
    rows.write_text('{}')
    stage(base, tmp_path/'run', data=str(rows))
    rows.write_text('{"changed": true}')
    with pytest.raises(UserError, match='--data: .*does not hold what this run began with'):
        stage(base, tmp_path/'run', data=str(rows))
    with pytest.raises(UserError, match='--steps was 12, now 9'): stage(base, tmp_path/'run', data=str(rows), steps=9)
    assert stage(base, tmp_path/'run', data=str(rows), steps=9, fresh=True).name == 'step-00000009'


def test_an_adapter_decides_what_is_trained_and_written(base, tmp_path):
    newest = stage(base, tmp_path/'run', Frozen())
    assert (newest/'note.txt').read_text() == 'gains'
    before, after = load_start(str(base), 'none').model.state_dict(), load_start(str(newest), 'none').model.state_dict()
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all('norm' in name for name in moved)
    with pytest.raises(UserError, match='--adapter was'): stage(base, tmp_path/'run', Frozen('others'))


def test_the_usual_rate_and_its_factor(base, tmp_path, capsys):
    stage(base, tmp_path/'run', lr=None)
    rates = [row['lr'] for row in read_log(tmp_path/'run/log.jsonl') if 'loss' in row]
    assert rates[0] == pytest.approx(usual_lr(7248)) and rates[-1] == pytest.approx(rates[0] / 12)
    assert 'held' not in capsys.readouterr().err


def test_the_best_is_kept_and_needs_measuring(base, tmp_path):
    stage(base, tmp_path/'run', keep_best=True, keep=1)
    assert read_json(tmp_path/'run/best.json')['step'] == 12
    with pytest.raises(UserError, match='--keep-best'): stage(base, tmp_path/'new', keep_best=True, eval_every=0)
    assert not (tmp_path/'new').exists()


def test_a_start_that_is_missing(base, tmp_path):
    with pytest.raises(UserError, match='--model .*nowhere: no such folder; train a model'):
        load_start(str(tmp_path/'nowhere'), str(tmp_path/'run'))
    (bare := tmp_path/'bare').mkdir()
    for name in ('config.json', 'model.safetensors', 'generation_config.json'): shutil.copy(base/name, bare)
    with pytest.raises(UserError, match='no tokenizer.json'): load_start(str(bare), str(tmp_path/'run'))
    assert not (tmp_path/'run').exists()


def test_a_file_without_rows(tmp_path):
    (tmp_path/'none.jsonl').write_text('')
    with pytest.raises(UserError, match='no rows that can be used'):
        read_rows(str(tmp_path/'none.jsonl'), lambda path, skipped: [], Skipped())
    assert read_rows(None, None, Skipped()) is None


def test_every_field_of_a_recipe_is_an_argument():
    args = Recipe('out', steps=3)._asdict() | {'model': 'x', 'seed': 1}
    assert recipe_of(args) == Recipe('out', steps=3) and math.isclose(recipe_of(args).warmup, 0.03)
    with pytest.raises(KeyError): recipe_of(json.loads('{"out": "x"}'))
