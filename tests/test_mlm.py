"Masked tokens and next sentences: what is drawn, what is divided by what, the verb `mlm`, and runs that end in the same bits."
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from killed import ROOT, finished, killed_after
from layouts import advance, hidden, local, same_trajectory
from needs import needs

from llmbook.cli import main
from llmbook.core import UserError, current_rank
from llmbook.files import read_json
from llmbook.model.bert_format import save_encoder
from llmbook.model.checkpoints import load_encoder
from llmbook.model.encoder_heads import MaskedLM, classifier_from
from llmbook.model.encoders import EncoderConfig
from llmbook.scale.ranks import launch
from llmbook.text.batches import IGNORE
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import world_documents
from llmbook.text.framing import TextTokenizer, text_tokenizer
from llmbook.text.pair_rows import frame_of, frame_row
from llmbook.train.masking import MaskedStream, MaskedTokens, Vocabulary, choose_places, hide
from llmbook.train.next_sentence import MaskedTokensAndNext, _stretches, sentence_pairs, cut_sentences
from llmbook.train.pretrain_encoder import masked_stream, mlm, text_rows
from llmbook.train.runs import read_log

STORIES = [document['text'] for document in world_documents(40)]
BLOCK = 48


@pytest.fixture(scope='module')
def tokenizer(): return text_tokenizer(train_tokenizer(STORIES, 300))


@pytest.fixture(scope='module')
def made(tmp_path_factory, tokenizer):
    "A small encoder with both heads, and files of documents."
    folder = tmp_path_factory.mktemp('mlm')
    config = EncoderConfig(vocab_size=300, block_size=BLOCK, n_layer=1, n_head=2, n_embd=16, n_hidden=32)
    model = MaskedLM(config, True, seed=0)
    save_encoder(model, tokenizer, folder/'both')
    save_encoder(classifier_from(model, 2), tokenizer, folder/'classifier', ['no', 'yes'])
    model.pooler = model.follows = None
    save_encoder(model, tokenizer, folder/'tokens')
    for name, texts in (('stories', STORIES), ('one', STORIES[:1]), ('none', ['', ' \n']), ('lines', ['One line.'] * 30)):
        rows = [json.dumps({'id': str(i), 'text': text}) for i, text in enumerate(texts)]
        (folder/f'{name}.jsonl').write_text('\n'.join(rows))
    return folder


def run(made, out, **changes):
    flags = dict(text=str(made/'stories.jsonl'), model=str(made/'both'), steps=6, batch_size=4, lr=1e-2, save_every=2) | changes
    return mlm(out=str(out), **flags)


def weights(folder): return (Path(folder)/'model.safetensors').read_bytes()


# What is drawn

@pytest.mark.parametrize('whole', [False, True])
def test_places_are_in_words_each_once_and_as_many_as_asked(whole):
    rng = np.random.default_rng(0)
    for _ in range(300):
        words = np.repeat(np.arange(12), rng.integers(1, 5, 12))
        words[rng.random(len(words)) < 0.1] = -1
        free = (words >= 0).sum()
        places = choose_places(words, 0.3, rng, whole)
        assert list(places) == sorted(set(places)) and (words[places] >= 0).all() and len(places)
        wanted = max(1, round(0.3 * free))
        if not whole: assert len(places) == wanted
        else:
            assert len(places) <= max(wanted, 4)
            for word in words[places]: assert set(np.flatnonzero(words == word)) <= set(places)
    assert len(choose_places(np.array([-1, -1]), 0.3, rng, whole)) == 0


@pytest.mark.parametrize('whole', [False, True])
def test_every_place_is_as_likely(whole):
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(4000): counts.update(choose_places(np.arange(10), 0.2, rng, whole).tolist())
    assert min(counts.values()) > 700 and max(counts.values()) < 900 and len(counts) == 10


def test_what_is_read_there():
    ids, ordinary, rng = np.arange(10, 60), np.arange(1000, 1010), np.random.default_rng(0)
    places, kinds = np.arange(0, 50, 2), Counter()
    for _ in range(1000):
        read = hide(ids, places, 3, ordinary, rng)
        assert (read[1::2] == ids[1::2]).all()
        kinds.update('mask' if i == 3 else 'same' if i == was else 'random' for i, was in zip(read[places], ids[places]))
        assert set(read[places]) <= {3, *ids[places], *ordinary}
    for kind, share in (('mask', 0.8), ('random', 0.1), ('same', 0.1)): assert abs(kinds[kind] / 25_000 - share) < 0.01
    assert (hide(ids, places, 3, ordinary, rng, (1., 0.))[places] == 3).all()


def test_words_of_word_pieces_and_of_bytes(tokenizer):
    from tokenizers import Tokenizer, models
    names = ['[PAD]', '[CLS]', '[SEP]', '[MASK]', 'un', '##believ', '##able', '!', 'story']
    rust = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token='[PAD]'))
    rust.add_special_tokens(names[:4])
    pieces = Vocabulary(TextTokenizer(rust, pad=0))
    assert pieces.word_numbers(np.array([1, 4, 5, 6, 7, 8, 2])).tolist() == [-1, 1, 1, 1, 2, 3, -1]
    ours = Vocabulary(tokenizer)
    [ids] = tokenizer.encode_texts(['He zigzagged, twice.'])
    row = frame_row(frame_of(tokenizer), ids).ids
    text = {}
    for i, word in zip(row, ours.word_numbers(row)): text[word] = text.get(word, '') + tokenizer.id_to_token(i)
    assert list(text.values())[1:] == ['He', 'Ġzigzagged', ',', 'Ġtwice', '.'] and set(text) == {-1, 1, 2, 3, 4, 5}
    assert not ours.ordinary[list(frame_of(tokenizer))].any()


def test_questions_depend_on_seed_epoch_and_row_alone(tokenizer):
    def asked(stream, steps):
        found = {}
        for step in steps:
            b = stream[step]
            for i, row in enumerate(b['rows'].tolist()):
                on = b['labels'][i] != IGNORE
                read = b['ids'][i][b['mask'][i]].tolist()
                found[step * 8 // 16, row] = [b[k][i][on].tolist() for k in ('places', 'labels')], read
        return found
    rows = text_rows(STORIES, tokenizer, 64)[:16]
    stream = MaskedStream(rows, Vocabulary(tokenizer), 8, 64)
    whole = asked(stream, range(4))
    assert whole == asked(stream.slice(1, 2), [3, 0, 2, 1]) | asked(stream.slice(0, 2), range(4)) and len(whole) == 32
    assert all(whole[0, row] != whole[1, row] for row in range(16))
    other = asked(MaskedStream(rows, Vocabulary(tokenizer), 8, 64, seed=1), range(2))
    assert sum(other[0, row] != whole[0, row] for row in range(16)) == 16
    for (_, row), ((places, labels), _) in whole.items(): assert rows[row].ids[places].tolist() == labels


def test_sentences_and_stretches():
    found = cut_sentences('One. "Two?" he said, "Three!" Four\n\n Five... ')
    assert found == ['One.', '"Two?"', 'he said, "Three!"', 'Four', 'Five...']
    assert cut_sentences(' \n') == []
    for sizes in ([5] * 9, [30, 1, 1], [1, 40, 1, 40], [3, 3]):
        cuts = _stretches(sizes, 20)
        assert all(end - begin > 1 for begin, end in cuts)
        assert [i for begin, end in cuts for i in range(begin, end)] == list(range(cuts[-1][1])) and cuts[-1][1] >= len(sizes) - 1


def test_half_of_the_pairs_belong_together_and_the_others_are_of_two_documents(tokenizer):
    rows, labels = sentence_pairs(STORIES, tokenizer, 256)
    again, same = sentence_pairs(STORIES, tokenizer, 256)
    assert all((a.ids == b.ids).all() for a, b in zip(rows, again)) and labels.equal(same)
    draws = torch.cat([sentence_pairs(STORIES, tokenizer, 512, seed)[1] for seed in range(10)])
    assert len(draws) == 400 and abs(draws.float().mean() - 0.5) < 0.1
    rows, labels = sentence_pairs(STORIES, tokenizer, 512)
    texts = ' '.join(STORIES)
    for row, label in zip(rows, labels.tolist()):
        first, second = (tokenizer.decode(row.ids[row.types == k].tolist()).strip() for k in (0, 1))
        assert first in texts and second in texts and (f'{first} {second}' in texts) == (label == 0)


def test_wrong_texts_are_of_another_document_and_end_as_the_true_ones(tokenizer):
    documents = [' '.join(f'Word {i} of {name}.' for i in range(n)) for name, n in (('red', 60), ('blue', 4), ('green', 2))]
    seen = set()
    for seed in range(20):
        for row, label in zip(*sentence_pairs(documents, tokenizer, 256, seed)):
            first, second = (tokenizer.decode(row.ids[row.types == k].tolist()) for k in (0, 1))
            colours = [{name for name in ('red', 'blue', 'green') if name in half} for half in (first, second)]
            assert all(len(found) == 1 for found in colours) and (colours[0] == colours[1]) == (label == 0)
            assert 'Word 0' not in second
            if label and colours[1] != {'red'}: assert second.rstrip().endswith(('Word 3 of blue.', 'Word 1 of green.'))
            seen.add((*colours[0], *colours[1]))
    assert {('red', 'red'), ('blue', 'blue'), ('red', 'blue'), ('blue', 'red')} <= seen


# What is divided by what

def batch_of(asked, pairs):
    labels = torch.full((len(asked), max(asked)), IGNORE)
    for row, n in zip(labels, asked): row[:n] = 5
    return {'labels': labels, 'mask': torch.ones(len(asked), 9, dtype=torch.bool), 'rows': torch.arange(len(asked)),
            'follows': torch.tensor(pairs)}


def test_two_denominators():
    batch = batch_of([1, 3], [0, 1])
    log_probs = torch.tensor([[-6., 0, 0], [-2., -1, -3]])
    logits = torch.tensor([[2., 0], [2., 0]])
    objective, counts = MaskedTokensAndNext(), {'masked': 8, 'pairs': 4}
    loss, logged = objective.loss((log_probs, logits), batch, counts)
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert loss.item() == pytest.approx(12/8 + (right + wrong)/4, rel=1e-6)
    assert logged['masked_loss'] == 12/8 and logged['next_accuracy'] == 1/4
    assert {k: int(n) for k, n in objective.counts(batch).items()} == {'masked': 4, 'tokens': 18, 'pairs': 2}
    assert MaskedTokens().loss(log_probs, batch, counts) == (torch.tensor(12/8), {})
    scores = objective.scores((log_probs, logits), batch)
    assert scores['log_probs'] is log_probs and scores['next'].exp().sum(1).allclose(torch.ones(2))


class OwnCount(MaskedTokensAndNext):
    "Every micro-batch divides its hidden tokens by its own count, and the means are averaged."
    def counts(self, batch): return super().counts(batch) | {'parts': 1}

    def loss(self, outputs, batch, counts):
        own = self.counts(batch)['masked'] * counts['parts']
        return super().loss(outputs, batch, counts | {'masked': own})


class OneCount(MaskedTokensAndNext):
    "The pairs, too, are divided by the hidden tokens."
    def loss(self, outputs, batch, counts): return super().loss(outputs, batch, counts | {'pairs': counts['masked']})


class RankCount(MaskedTokensAndNext):
    "Every rank adds up its own pairs alone."
    def loss(self, outputs, batch, counts): return super().loss(outputs, batch, counts | {'pairs': len(batch['rows'])})


class Lost(MaskedTokens):
    "The last rank's gradient gets lost."
    def loss(self, outputs, batch, counts):
        loss, logged = super().loss(outputs, batch, counts)
        return (loss if current_rank() == 0 else 0*loss + loss.detach()), logged


class Twice(MaskedStream):
    "Every rank is fed the first one's slice."
    def slice(self, rank, world): return super().slice(0, world)


class OwnQuestions(MaskedStream):
    "What is hidden depends on the rank."
    def slice(self, rank, world):
        other = super().slice(rank, world)
        other.seed_of_masks = rank
        return other

    def hidden_row(self, epoch, i): return super().hidden_row(epoch + 1000 * getattr(self, 'seed_of_masks', 0), i)


WRONG = {'own count': ('mlm with nsp', OwnCount, MaskedStream), 'one count': ('mlm with nsp', OneCount, MaskedStream),
         'pairs of a rank': ('mlm with nsp', RankCount, MaskedStream), 'lost rank': ('mlm', Lost, MaskedStream),
         'own slice': ('mlm', MaskedTokens, Twice), 'own questions': ('mlm', MaskedTokens, OwnQuestions)}


@pytest.mark.parametrize('wrong', ['own count', 'one count', 'pairs of a rank'])
def test_a_wrong_count_is_seen_on_one_process(wrong):
    "The layouts of many ranks: one row is in `make test`, in test_invariance.py."
    name, objective, _ = WRONG[wrong]
    right = advance(local(**layouts.MODELS[name]), 6, MaskedTokensAndNext(), hidden())
    same_trajectory(advance(local(accum=4, **layouts.MODELS[name]), 6, MaskedTokensAndNext(), hidden()), right)
    with pytest.raises(AssertionError, match='is off by'):
        same_trajectory(advance(local(accum=4, **layouts.MODELS[name]), 6, objective(), hidden()), right)


@pytest.mark.slow
@needs('deepspeed', 'scale')
@pytest.mark.parametrize('ranks', [1, 2])
def test_the_same_loss_on_all_layouts(ranks):
    kinds = {name: layouts.OBJECTIVES[name] for name in ('mlm', 'mlm with nsp')}
    cases = {(name, zero, accum): (dict(zero=zero, accum=accum, **layouts.MODELS[name]), objective(), stream())
             for name, (objective, stream) in kinds.items() for zero in (0, 2, 3) for accum in (1, 4)}
    for wrong, (name, objective, stream) in WRONG.items() if ranks == 2 else ():
        cases[wrong] = dict(zero=2, accum=2, **layouts.MODELS[name]), objective(), hidden(stream)
    found = dict(zip(cases, launch(layouts.trajectories, ranks, list(cases.values()))[0]))
    alone = {name: advance(local(**layouts.MODELS[name]), objective=objective(), stream=stream())
             for name, (objective, stream) in kinds.items()}
    for case, ours in found.items():
        if case not in WRONG: same_trajectory(ours, alone[case[0]])
        else:
            with pytest.raises(AssertionError, match='is off by'): same_trajectory(ours, alone[WRONG[case][0]])


# The verb

def refused(made, tmp_path, **changes):
    with pytest.raises(UserError) as e: run(made, tmp_path/'out', **changes)
    said = str(e.value)
    assert '\n' not in said and not (tmp_path/'out').exists()
    return said


@pytest.mark.parametrize('changes, says', [
    (dict(text='none.jsonl'), 'no text in it'), (dict(text='one.jsonl'), r'too few documents \(1\) to hold out 1'),
    (dict(text='lines.jsonl', nsp=True), '0 of 30 documents have two sentences'),
    (dict(text='one.jsonl', val_data='stories.jsonl', nsp=True), '1 of 1 documents have two sentences'),
    (dict(val_data='lines.jsonl', nsp=True), '--val-data .*0 of 30 documents'), (dict(text='nowhere'), 'no such file'),
    (dict(model='classifier'), 'without a head for hidden tokens'), (dict(model='tokens', nsp=True), 'leave out --nsp'),
    (dict(model='nowhere'), 'no such folder'), (dict(block_size=BLOCK + 1), f'reads {BLOCK} tokens at most'),
    (dict(tokenizer='both'), 'has its own'), (dict(dropout=0.1), 'only for a new model'), (dict(mask_rate=0.), '--mask-rate'),
    (dict(mask_rate=1.), '--mask-rate'), (dict(model=None, vocab_size=200), '--vocab-size'), (dict(epochs=1.), 'not together'),
    (dict(model=ROOT/'llmbook/assets/nano-sft'), 'no encoder')])
def test_refusals(made, tmp_path, changes, says):
    for name in ('text', 'model', 'val_data', 'tokenizer'):
        if isinstance(changes.get(name), str): changes[name] = str(made/changes[name])
    changes = {name: str(value) if isinstance(value, Path) else value for name, value in changes.items()}
    assert re.search(says, refused(made, tmp_path, **changes)), refused(made, tmp_path, **changes)


def test_a_tokenizer_without_a_mask(made, tmp_path):
    folder = shutil.copytree(made/'both', tmp_path/'maskless')
    (folder/'tokenizer.json').write_text((folder/'tokenizer.json').read_text().replace('<|mask|>', '<|nothing|>'))
    named = {'cls_token': '<|begin|>', 'sep_token': '<|sep|>', 'pad_token': '<|pad|>'}
    (folder/'tokenizer_config.json').write_text(json.dumps(named))
    for changes in (dict(model=str(folder)), dict(model=None, tokenizer=str(folder))):
        assert re.search(r'maskless: the tokenizer has no .*mask_token', refused(made, tmp_path, **changes))


def test_flags_of_the_command_line(capsys):
    for flags, says in ((['--size', 'huge'], 'huge'), (['--schedule', 'wsd'], 'wsd'), (['--optimizer', 'sgd'], 'sgd')):
        with pytest.raises(SystemExit) as e: main(['mlm', *flags])
        assert e.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize('nsp', [False, True])
def test_a_run_that_is_resumed_ends_in_the_same_bits(made, tmp_path, nsp):
    newest = run(made, tmp_path/'run', nsp=nsp)
    whole, log = weights(newest), read_log(tmp_path/'run'/'log.jsonl')
    shutil.rmtree(newest)
    assert run(made, tmp_path/'run', nsp=nsp) == newest and weights(newest) == whole
    again = read_log(tmp_path/'run'/'log.jsonl')
    assert [row.get('loss') for row in again] == [row.get('loss') for row in log]
    model, _ = load_encoder(newest)
    assert isinstance(model, MaskedLM) and (model.pooler is not None) == nsp
    measured = [row for row in log if 'val_loss' in row]
    assert ('val_next_accuracy' in measured[-1]) == nsp


@pytest.mark.parametrize('own', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_new_model_learns_and_continues(made, tmp_path, own):
    "With a tokenizer that was given, or one that is trained on the text."
    flags = dict(model=None, block_size=32, steps=40, lr=2e-3, optimizer='adamw', save_every=0, eval_every=20)
    flags |= dict(vocab_size=300) if own else dict(tokenizer=str(made/'both'))
    newest = run(made, tmp_path/'run', nsp=True, **flags)
    losses = [row['loss'] for row in read_log(tmp_path/'run'/'log.jsonl') if 'loss' in row]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.4
    model, tokenizer = load_encoder(newest)
    assert model.config.block_size == 32 and tokenizer.vocab_size == 300
    on = run(made, tmp_path/'on', model=str(newest), steps=1, whole_words=True, mask_rate=0.3, optimizer='muon')
    assert load_encoder(on)[0].pooler is None


def ranked(made, out, *flags, ranks=1):
    "The losses of a run of the verb, under a launcher if there are ranks."
    command = ['mlm', '--text', made/'stories.jsonl', '--model', made/'both', '--nsp', '--steps', 6, '--batch-size', 8,
               '--lr', '1e-2', '--out', out, *flags]
    start = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', ranks] if ranks > 1 else []
    env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'MPLBACKEND': 'agg'}
    done = subprocess.run([sys.executable, *map(str, start), '-m', 'llmbook', *map(str, command)], env=env, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [row['loss'] for row in read_log(Path(out)/'log.jsonl') if 'loss' in row]


@pytest.mark.slow
@needs('deepspeed', 'scale')
def test_accumulation_two_ranks_and_zero_give_the_same_losses(made, tmp_path):
    alone = ranked(made, tmp_path/'alone')
    runs = ('accum', ['--accum', 4], 1), ('zero', ['--zero', 0], 2), ('zero3', ['--zero', 3, '--accum', 2], 2)
    for name, flags, ranks in runs:
        ours = ranked(made, tmp_path/name, *flags, ranks=ranks)
        assert max(abs(a - b) for a, b in zip(ours, alone, strict=True)) < 1e-5, name
        assert read_json(tmp_path/name/'config.json')['args']['nsp'] is True


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(made, tmp_path):
    flags = ['--text', made/'stories.jsonl', '--model', made/'both', '--nsp', '--steps', 40, '--batch-size', 4, '--save-every', 5,
             '--keep', 0]
    for checkpoints in (1, 3): killed_after(checkpoints, tmp_path/'killed', 'mlm', *flags)
    for out in ('killed', 'whole'): finished('mlm', *flags, '--out', tmp_path/out)
    killed, whole = (sorted((tmp_path/out/'checkpoints').glob('step-*'))[-1] for out in ('killed', 'whole'))
    assert killed.name == whole.name == 'step-00000040' and weights(killed) == weights(whole)


def test_rows_of_the_world_fit_the_size_of_the_book(tokenizer):
    stream = masked_stream(STORIES, tokenizer, 4, 64, next_sentence=True, rate=0.4, whole_words=True)
    batch = stream[0]
    assert batch['ids'].shape[1] <= 64 and set(batch['follows'].tolist()) <= {0, 1}
    asked = (batch['labels'] != IGNORE).sum() / batch['mask'].sum()
    assert 0.3 < asked < 0.41
