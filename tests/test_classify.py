"Rows of every form and their faults; places and texts; figures against scikit-learn and SQuAD; the verb `classify`."

import csv
import json
import math
import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from killed import finished, killed_after

from llmbook.core import UserError
from llmbook.evaluation.class_parts import class_parts, read_figures
from llmbook.evaluation.report import report
from llmbook.files import read_json, read_jsonl
from llmbook.model.bert_format import save_encoder
from llmbook.model.checkpoints import book_model, load_encoder, load_trained
from llmbook.model.encoder_heads import (
    Classifier,
    DecoderClassifier,
    DecoderSpanFinder,
    MaskedLM,
    SpanFinder,
    classifier_from,
)
from llmbook.model.encoders import EncoderConfig
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.engine import DeepSpeedOptions
from llmbook.scale.ranks import launch
from llmbook.text.task_files import task_rows
from llmbook.text.unpack import Skipped
from llmbook.train.class_frames import (
    Window,
    encode_labelled,
    encode_spans,
    find_spans,
    row_frame,
    with_offsets,
)
from llmbook.train.class_rows import LabelledText, SpanQuestion, check_labels, class_rows, data_files, sorted_labels
from llmbook.train.class_tasks import ClassTask, SpanTask, row_logits, squad_figures, task_of
from llmbook.train.classify import OBJECTIVES, AnswerSpans, ClassLabels, classify, world_rows
from llmbook.train.confusion import accuracy_error, bag_of_words, class_figures, confusion
from llmbook.train.step import LocalOptions

SHAPE = EncoderConfig(vocab_size=1024, block_size=128, n_layer=1, n_head=2, n_embd=16, n_hidden=32)
DECODER = Config(vocab_size=1024, block_size=128, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)


@pytest.fixture(scope='module')
def tokenizer():
    return book_model('sft')[1]


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, tokenizer):
    "The folder of a very small encoder with the book's tokenizer."
    folder = tmp_path_factory.mktemp('tiny')
    save_encoder(MaskedLM(SHAPE, seed=0), tokenizer, folder)
    return str(folder)


def jsonl(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def review(i):
    return {'text': f'the {"good" if i % 2 else "poor"} lamp number {i} was here', 'label': 'good' if i % 2 else 'poor'}


REVIEWS = [review(i) for i in range(40)]
ASKED = [
    {
        'id': f'q{i}',
        'context': f'Anna was in the mill. Tom had {i} coins.',
        'question': 'Where was Anna?',
        'answers': {'text': ['mill'], 'answer_start': [16]},
    }
    for i in range(20)
]


# Figures


def test_figures_are_those_of_scikit_learn():
    from sklearn.metrics import classification_report, confusion_matrix

    g = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (200,), generator=g).clamp(max=3).tolist()  # the last class is never true
    guesses = [label if i % 3 else (label * i) % 5 for i, label in enumerate(labels)]
    found, matrix = class_figures(confusion(labels, guesses, 5)), confusion(labels, guesses, 5)
    assert (matrix == confusion_matrix(labels, guesses, labels=range(5))).all()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = classification_report(labels, guesses, labels=range(5), output_dict=True, zero_division=0)
    for i, row in enumerate(found['classes']):
        assert row == pytest.approx(
            {
                'precision': theirs[str(i)]['precision'],
                'recall': theirs[str(i)]['recall'],
                'f1': theirs[str(i)]['f1-score'],
                'support': theirs[str(i)]['support'],
            }
        )
    assert found['macro']['f1'] == pytest.approx(theirs['macro avg']['f1-score'])
    assert found['macro']['precision'] == pytest.approx(theirs['macro avg']['precision'])
    assert found['accuracy'] == pytest.approx(sum(a == b for a, b in zip(labels, guesses)) / 200)


def test_the_error_of_an_accuracy():
    assert accuracy_error(0.8, 1000) == pytest.approx(math.sqrt(0.8 * 0.2 / 1000), rel=0.01)
    assert 0.02 < accuracy_error(1.0, 20) < 0.06 and accuracy_error(0.0, 20) == pytest.approx(accuracy_error(1.0, 20))


def test_a_bag_of_words_learns_words_and_knows_no_order():
    train = [('good lamp', 'x')] * 10 + [('poor lamp', 'x')] * 10
    assert bag_of_words(train, [1] * 10 + [0] * 10, [('a good one', ''), ('poor', 'x')]) == [1, 0]
    assert bag_of_words([('.', '')] * 3, [2, 2, 1], [('!', '')]) == [2]  # not a word anywhere
    rows = world_rows('sentiment', 300)
    guesses = bag_of_words(
        [(row.text, row.pair) for row in rows[:200]],
        [row.label for row in rows[:200]],
        [(row.text, row.pair) for row in rows[200:]],
    )
    assert 0.3 < sum(guess == row.label for guess, row in zip(guesses, rows[200:])) / 100 < 0.7


def test_squad_figures_by_hand():
    assert squad_figures(['The mill!'], [['mill']]) == {'exact': 1.0, 'f1': 1.0}
    found = squad_figures(['in the old mill'], [['the mill', 'a tower']])  # 1 of {in, old, mill}, 1 of {mill}
    assert found == {'exact': 0.0, 'f1': pytest.approx(2 * 1 / 4)}
    assert squad_figures(['', 'mill', '', 'the'], [[], [], ['mill'], ['a']]) == {'exact': 0.5, 'f1': 0.5}
    assert squad_figures(['a b c', 'x'], [['a b c'], ['y']])['exact'] == 0.5


def test_squad_figures_are_those_of_the_official_script():
    "Rewritten step by step from evaluate-v2.0.py, whose text is not on this disk."
    import re
    import string
    from collections import Counter

    def normal(text):
        text = ''.join(c for c in text.lower() if c not in set(string.punctuation))
        return ' '.join(re.sub(re.compile(r'\b(a|an|the)\b', re.UNICODE), ' ', text).split())

    def theirs(right, guess):
        gold, said = normal(right).split(), normal(guess).split()
        same = sum((Counter(gold) & Counter(said)).values())
        if not gold or not said:
            return float(normal(right) == normal(guess)), float(gold == said)
        precision, recall = same / len(said), same / len(gold)
        f1 = 2 * precision * recall / (precision + recall) if same else 0.0
        return float(normal(right) == normal(guess)), f1

    said = [
        '',
        'the mill',
        'Mill.',
        'an old mill',
        "Anna's mill",
        'a',
        '1,000 coins',
        'mill mill tower',
        'Café',
        'the-mill',
    ]
    for guess in said:
        for right in said:
            found = squad_figures([guess], [[right] if right else []])
            assert (found['exact'], found['f1']) == pytest.approx(theirs(right, guess)), (guess, right)


# Files


def test_every_form_of_a_file(tmp_path):
    rows = [{'text': 'a b', 'text_pair': 'c', 'label': 'x'}, {'text': 'd', 'text_pair': '', 'label': 'y'}]
    (tmp_path / 'a.json').write_text(json.dumps(rows))
    jsonl(tmp_path / 'a.jsonl', rows)
    for name, comma in (('a.csv', ','), ('a.tsv', '\t')):
        with open(tmp_path / name, 'w', newline='') as f:
            out = csv.DictWriter(f, rows[0], delimiter=comma)
            out.writeheader()
            out.writerows(rows)
    pa = pytest.importorskip('pyarrow')
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / 'a.parquet')
    for name in ('a.json', 'a.jsonl', 'a.csv', 'a.tsv', 'a.parquet'):
        found = class_rows(tmp_path / name)
        assert [row[1:4] for row in found] == [('a b', 'c', 'x'), ('d', None, 'y')], name
        assert found[1].where == f'{tmp_path / name}, row 2'


def test_squad_in_all_its_forms(tmp_path):
    jsonl(tmp_path / 'flat.jsonl', ASKED[:2])
    nested = {
        'version': 'v2.0',
        'data': [
            {
                'title': 't',
                'paragraphs': [
                    {
                        'context': ASKED[0]['context'],
                        'qas': [
                            {
                                'id': 'q0',
                                'question': 'Where was Anna?',
                                'answers': [{'text': 'mill', 'answer_start': 16}],
                            },
                            {'id': 'q1', 'question': 'Why?', 'answers': [], 'is_impossible': True},
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / 'dev-v2.0.json').write_text(json.dumps(nested))
    assert class_rows(tmp_path / 'flat.jsonl')[0].answers == [('mill', 16)]
    found = class_rows(tmp_path / 'dev-v2.0.json')
    assert [(row.id, row.answers) for row in found] == [('q0', [('mill', 16)]), ('q1', [])]
    asked = class_rows(jsonl(tmp_path / 'asked.jsonl', [{'context': 'a', 'question': 'b'}]), labelled=False)
    assert asked[0].answers is None


def test_labels_are_names_or_whole_numbers(tmp_path):
    rows = [{'text': 'a', 'label': label} for label in (10, 9, 10.0, True, ' x ')]
    assert [row.label for row in class_rows(jsonl(tmp_path / 'a.jsonl', rows))] == ['10', '9', '10', 'true', 'x']
    assert sorted_labels(['10', '9', '-1']) == ['-1', '9', '10'] and sorted_labels(['b', '10', 'a']) == ['10', 'a', 'b']


CUT = {'context': 'Anna was in the mill.', 'question': 'Where?'}
BAD = [  # row, what is said of it
    ({'text': None, 'label': 'x'}, 'text is null; give text'),
    ({'text': ' ', 'label': 'x'}, 'text is empty; fill it in'),
    ({'text': 'a', 'text_pair': 3, 'label': 'x'}, 'text_pair is 3; give text'),
    ({'text': 'a\ud800', 'label': 'x'}, 'half of a character in text; repair it'),
    ({'text': 'a'}, 'no label; give a name or a whole number'),
    ({'text': 'a', 'label': ''}, 'no label; give a name or a whole number'),
    ({'text': 'a', 'label': 0.5}, 'label is 0.5; give a name or a whole number'),
    ({'text': 'a', 'label': ['x']}, 'label is ["x"]; give a name or a whole number'),
    ({'words': 'a'}, 'no known form (its columns: words); give text and label, or context, question and answers'),
    ([1], '[1] is no object; give names and values'),
    (CUT, 'answers is null; give text and answer_start, two lists of one length'),
    (CUT | {'answers': {'text': ['mill'], 'answer_start': []}}, 'two lists of one length'),
    (
        CUT | {'answers': {'text': ['mill'], 'answer_start': ['16']}},
        'an answer is "mill" at "16"; give a text and its first',
    ),
    (CUT | {'answers': {'text': [' '], 'answer_start': [4]}}, 'an empty answer; give empty lists if there is none'),
    (
        CUT | {'answers': {'text': ['mill'], 'answer_start': [15]}},
        'the answer "mill" is not at character 15, where " mil" is; correct answer_start',
    ),
    (CUT | {'answers': {'text': ['mill'], 'answer_start': [-5]}}, 'is not at character -5, where "" is'),
]


@pytest.mark.parametrize('row, said', BAD)
def test_a_bad_row_is_one_clear_line_or_counted(row, said, tmp_path):
    good = ASKED[0] if isinstance(row, dict) and 'context' in row else REVIEWS[0]
    path = jsonl(tmp_path / 'rows.jsonl', [good, row])
    with pytest.raises(UserError) as e:
        class_rows(path)
    assert str(e.value).startswith(f'{path}, row 2: ') and said in str(e.value) and '\n' not in str(e.value)
    skipped = Skipped(lenient=True)
    assert len(class_rows(path, skipped)) == 1 and skipped.total() == 1


def test_bad_files(tmp_path):
    def said(name, text, **more):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(UserError) as e:
            class_rows(path, **more)
        assert '\n' not in str(e.value)
        return str(e.value).replace(str(tmp_path), '')

    assert said('none.csv', '') == '/none.csv: no rows in it'
    assert said('head.csv', 'text,label\n') == '/head.csv: no rows in it'
    assert said('a.json', '{"a": 1}') == '/a.json: {"a": 1} is not a list; give a list of rows'
    assert said('a.json', '{"a": 1}\n{"a": 2}').endswith('if it has one object per line, name it .jsonl')
    assert said('a.json', '{"data": [{"paragraphs": 3}]}').endswith(
        'each article needs paragraphs with context and qas'
    )
    assert 'cannot read .txt; give .csv' in said('a.txt', 'x')
    mixed = [REVIEWS[0], ASKED[0]]
    assert 'row 2: a question among texts with labels' in said('mixed.jsonl', '\n'.join(map(json.dumps, mixed)))
    skipped = Skipped(lenient=True)
    assert said('bad.jsonl', '{"text": "a"}', skipped=skipped).endswith(
        'no rows in it (left out: rows without a label: 1)'
    )
    with pytest.raises(UserError, match='no such file'):
        class_rows(tmp_path / 'gone.csv')


def test_labels_that_cannot_be_used():
    def rows(labels):
        return [LabelledText(str(i), 'a', None, label, f'f, row {i + 1}') for i, label in enumerate(labels)]

    with pytest.raises(
        UserError, match='f, row 3: no other row has the label "z"; give more of them, or leave it out with --skip-bad'
    ):
        check_labels(rows('xxzyy'), Skipped())
    skipped = Skipped(lenient=True)
    kept, names = check_labels(rows('xxzyy'), skipped)
    assert names == ['x', 'y'] and len(kept) == 4 and skipped == {'classes with a single row': 1}
    with pytest.raises(UserError, match='f, row 1: this and every other row has the label "x"'):
        check_labels(rows('xx'), Skipped())
    with pytest.raises(UserError, match=r'row 3: the label "z" is not among the model\'s \(x, y\); rename it'):
        check_labels(rows('xyz'), Skipped(), ['x', 'y'])
    kept, names = check_labels(rows('xz'), skipped, ['y', 'x'])
    assert names == ['y', 'x'] and len(kept) == 1
    with pytest.raises(UserError, match='no row is left'):
        check_labels(rows('z'), skipped, ['y', 'x'])


def test_a_folder_with_train_and_val(tmp_path):
    with pytest.raises(UserError, match='no train.csv'):
        data_files(str(tmp_path))
    jsonl(tmp_path / 'train.jsonl', REVIEWS)
    assert data_files(str(tmp_path)) == (str(tmp_path / 'train.jsonl'), None)
    (tmp_path / 'dev.csv').write_text('')
    assert data_files(str(tmp_path))[1] == str(tmp_path / 'dev.csv') and data_files('x.csv') == ('x.csv', None)


# Places and texts


def test_offsets_belong_to_the_ids_of_the_text(tokenizer):
    texts = [row['context'] for row in task_rows('extractive', 20)] + ['  Café <|sep|> 12, naïve \n\t x', 'é' * 5]
    for text, ids, (own, offsets) in zip(texts, tokenizer.encode_texts(texts), with_offsets(texts, tokenizer)):
        assert own == ids and len(offsets) == len(ids) and 7 not in ids
        assert offsets[-1, 1] == len(text) and (offsets[1:, 0] <= offsets[:-1, 1]).all()


@pytest.mark.parametrize('level', [1, 2])
@pytest.mark.parametrize('width', [128, 48])
def test_the_right_places_give_the_right_text(tokenizer, level, width):
    "A model that is certain of the right places answers with the text of the row, in windows too."
    rows = world_rows('extractive', 60, level)
    found = encode_spans(rows, tokenizer, width)
    for row, window, start, end in zip(found.rows, found.windows, found.starts, found.ends):
        if start:
            assert tokenizer.decode(row.ids[start : end + 1].tolist()).strip() == rows[window.question].answers[0][0]
    assert all(len(row.ids) <= width for row in found.rows) and (width == 128 or len(found.rows) > 2 * len(rows))
    logits = torch.zeros(len(found.rows), width, 2)
    for i, (start, end) in enumerate(zip(found.starts, found.ends)):
        logits[i, start, 0] = logits[i, end, 1] = 9
    answers = find_spans(logits, found.windows, rows)
    for row, answer in zip(rows, answers):
        assert answer.text == (row.answers[0][0] if row.answers else '')
        assert answer.start == (row.answers[0][1] if row.answers else None)
    assert set(
        squad_figures([a.text for a in answers], [[text for text, _ in row.answers] for row in rows]).values()
    ) == {1.0}


def test_windows_cover_a_context_and_overlap(tokenizer):
    row = SpanQuestion('q', ' '.join(f'word{i}' for i in range(90)), 'Which?', [('word77', 0)], '')
    row = row._replace(answers=[('word77', row.context.index('word77'))])
    found = encode_spans([row], tokenizer, 64)
    covered = {place for window in found.windows for a, b in window.offsets for place in range(a, b)}
    assert covered == set(range(len(row.context)))
    for one, other in zip(found.windows, found.windows[1:]):
        assert other.offsets[0, 0] < one.offsets[-1, 1]
    inside = [int(start) > 0 for start in found.starts]
    assert 1 <= sum(inside) < len(inside)
    long = encode_spans([row._replace(question='Why? ' * 99)], tokenizer, 64)
    assert long.cut == 1 and all(len(r.ids) <= 64 for r in long.rows)


def test_the_best_span_is_allowed_and_beside_no_answer():
    import numpy as np

    words = [f'w{i}' for i in range(50)]
    context = ' '.join(words)
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    offsets = np.stack([ends - [len(word) for word in words], ends], 1).astype(np.int32)
    window, row = Window(0, 4, offsets), SpanQuestion('q', context, '?', None)
    logits = torch.zeros(60, 2)
    logits[1] = 99.0  # in the question
    logits[4 + 40, 0], logits[4 + 2, 1] = 6.0, 8.0  # the end before the start: 14
    logits[4 + 1, 0] = 4.0  # 1 to 2 is the best that is allowed; 1 to 40 would be too long
    logits[4 + 40, 1] = 7.0
    assert find_spans([logits], [window], [row])[0].text == 'w40'  # 6 + 7, one token
    logits[4 + 40, 0] = -9.0
    assert find_spans([logits], [window], [row])[0].text == 'w1 w2'  # 4 + 8; 4 + 7 is 40 tokens long
    logits[4 + 2, 1] = 5.0
    assert find_spans([logits], [window], [row], most=39)[0].text == ' '.join(words[1:41])  # 4 + 7
    logits[4 + 2, 1] = 8.0
    logits[0] = 7.0
    assert find_spans([logits], [window], [row])[0] == ('', None, 12.0, 14.0)
    calm = torch.zeros(60, 2)
    assert find_spans([logits, calm], [window, window], [row])[0].text == 'w1 w2'  # the least of both, 0, is not ahead


def test_pairs_are_cut_longest_first_and_counted(tokenizer):
    rows = [
        LabelledText('a', 'lamp ' * 200, 'was it red', 'x'),
        LabelledText('b', 'lamp', 'lamp', 'y'),
        LabelledText('c', 'lamp', None, 'y'),
    ]
    found = encode_labelled(rows, ['x', 'y'], tokenizer, 64)
    assert found.cut == 1 and len(found.rows[0].ids) == 64 and found.labels.tolist() == [0, 1, 1]
    pair = tokenizer.encode_texts(['was it red'])[0]
    assert found.rows[0].ids.tolist()[-len(pair) - 1 :] == [*pair, 7] and found.rows[2].types.max() == 0


def test_a_decoder_without_a_frame_uses_begin_and_end(tokenizer):
    from tokenizers import Tokenizer, models
    from llmbook.text.framing import TextTokenizer

    bare = Tokenizer(models.WordLevel({'a': 0, '<|endoftext|>': 1}, unk_token='a'))
    assert row_frame(TextTokenizer(bare, None, [1]))[:4] == (1, 1, None, 1)
    with pytest.raises(UserError, match='eos_token'):
        row_frame(TextTokenizer(bare))
    assert row_frame(tokenizer).sep == 7


def test_logits_come_back_in_the_order_of_the_rows(tokenizer):
    class Lengths:
        def score(self, batch, objective):
            return {'logits': batch['mask'].sum(1, keepdim=True)}

    rows = [LabelledText(str(i), 'lamp ' * (i * 7 % 11 + 1), None, 'x') for i in range(20)]
    stream = ClassTask('xy').stream(rows, tokenizer, 4, 128)
    assert [int(n) for n in row_logits(Lengths(), stream, None, 3)] == [len(row.ids) for row in stream.packed]


# Objectives


def batch_of(task, rows, tokenizer, n):
    return task.stream(rows, tokenizer, n, 128)


CASES = [(kind, body) for kind in ('classes', 'spans') for body in ('encoder', 'decoder')]


def case(kind, body):
    rows = world_rows('sentiment' if kind == 'classes' else 'extractive', 7)
    task = ClassTask(['negative', 'positive']) if kind == 'classes' else SpanTask()
    heads = {
        'classes': (lambda: Classifier(SHAPE, 2, 0), lambda: DecoderClassifier(DECODER, 2, seed=0)),
        'spans': (lambda: SpanFinder(SHAPE, 0), lambda: DecoderSpanFinder(DECODER, 0)),
    }
    model = heads[kind][body == 'decoder']()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # far from the calm beginning
    return rows, task, model, ClassLabels() if kind == 'classes' else AnswerSpans()


@pytest.mark.parametrize('kind, body', CASES)
def test_padding_changes_nothing(kind, body, tokenizer):
    "A row alone and in a padded batch: the same loss and gradient. Uneven micro-batches add up to one batch."
    rows, task, model, objective = case(kind, body)
    stream = batch_of(task, rows, tokenizer, 7)
    whole = stream.fill([(0, i) for i in range(7)], 128)
    counts = {name: int(n) for name, n in objective.counts(whole).items()}
    loss, logged = objective.loss(model(*objective.inputs(whole)), whole, counts)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total, metrics = 0.0, {}
    for i in range(7):
        alone = stream.fill([(0, i)], len(stream.packed[i].ids))
        share, more = objective.loss(model(*objective.inputs(alone)), alone, counts)
        share.backward()
        total += share.detach()
        for name, value in more.items():
            metrics[name] = metrics.get(name, 0) + value
    torch.testing.assert_close(total, loss.detach(), rtol=1e-5, atol=1e-6)
    for name, value in metrics.items():
        torch.testing.assert_close(value, logged[name])
    for name, p in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-6)


def test_the_loss_of_a_span_by_hand():
    logits = torch.tensor([[[1.0, 0.0], [2.0, 3.0], [50.0, 50.0]]])  # the last place is padding
    batch = {'mask': torch.tensor([[True, True, False]]), 'start': torch.tensor([1]), 'end': torch.tensor([1])}
    loss, logged = AnswerSpans().loss(logits, batch, {'rows': 2})
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2 / 2
    assert loss.item() == pytest.approx(by_hand) and logged['exact'] == 0.5


# The verb


def log_of(run):
    return list(read_jsonl(Path(run) / 'log.jsonl'))


def test_a_csv_in_one_command(tiny, tmp_path, monkeypatch, capsys):
    from llmbook.cli import main

    monkeypatch.chdir(tmp_path)
    with open('reviews.csv', 'w', newline='') as f:
        out = csv.DictWriter(f, REVIEWS[0])
        out.writeheader()
        out.writerows(REVIEWS)
    jsonl(tmp_path / 'new.jsonl', [{'id': 7, 'text': 'a good lamp'}, {'text': 'a poor lamp'}])
    command = [
        'classify',
        '--model',
        tiny,
        '--data',
        'reviews.csv',
        '--steps',
        '30',
        '--lr',
        '2e-2',
        '--predict',
        'new.jsonl',
        '--out',
        'run',
    ]
    with pytest.raises(SystemExit) as e:
        main(command)
    assert e.value.code == 0
    said = capsys.readouterr().out
    assert 'run: accuracy' in said and 'a bag of words' in said and 'report: run/report.html' in said
    found = read_figures(tmp_path / 'run' / 'figures.json')
    assert found['names'] == ['good', 'poor'] and found['rows'] == 2 and found['trained_on'] == 38
    answers = list(read_jsonl('run/predictions.jsonl'))
    assert [row['id'] for row in answers] == ['7', 'new.jsonl, row 2'] and sum(
        answers[0]['probabilities'].values()
    ) == pytest.approx(1)
    page = (tmp_path / 'run' / 'report.html').read_text()
    assert 'A bag of words' in page and page.count('<figure>') == 3
    assert log_of('run')[0]['rows'] == 16 and 'val_accuracy' in log_of('run')[-1]
    predicted = classify('run', predict='new.jsonl', out='later')
    assert list(read_jsonl(predicted)) == answers
    with pytest.raises(UserError, match='it has learned no task; give --data or --task too'):
        classify(tiny, predict='new.jsonl', out='x')


def test_a_resumed_run_is_bit_identical(tiny, tmp_path):
    a, b = str(tmp_path / 'a'), str(tmp_path / 'b')
    args = dict(rows=40, steps=4, batch_size=4, save_every=2)
    whole = classify(tiny, out=a, **args)
    shutil.copytree(a, b)
    shutil.rmtree(f'{b}/checkpoints/step-00000004')
    again = classify(tiny, out=b, **args)
    assert (again / 'model.safetensors').read_bytes() == (whole / 'model.safetensors').read_bytes()
    assert read_json(f'{a}/figures.json') == read_json(f'{b}/figures.json')
    with pytest.raises(UserError, match='--rows was 40, now 41'):
        classify(tiny, out=a, **args | {'rows': 41})


def test_squad_rows_from_a_folder_to_answers(tiny, tmp_path):
    data = tmp_path / 'squad'
    data.mkdir()
    jsonl(data / 'train.jsonl', ASKED)
    jsonl(data / 'val.jsonl', ASKED[:3])
    asked = jsonl(
        tmp_path / 'asked.jsonl', [{'id': 'x', 'context': ASKED[0]['context'], 'question': 'Where was Anna?'}]
    )
    out = str(tmp_path / 'run')
    classify(tiny, data=str(data), steps=60, lr=3e-2, warmup=0.0, predict=str(asked), out=out)
    found = read_figures(f'{out}/figures.json')
    assert found['kind'] == 'spans' and found['exact'] == 1.0 and found['baseline']['answer'] == 'mill'
    answer = next(read_jsonl(f'{out}/predictions.jsonl'))
    assert answer['answer'] == 'mill' and answer['answer_start'] == 16 and answer['lead'] > 0
    report([out], f'{out}/report.html')
    assert 'exact match' in Path(out, 'report.md').read_text()
    wrong = jsonl(tmp_path / 'wrong.jsonl', [{'text': 'a'}])
    with pytest.raises(UserError, match='give context and question'):
        classify(out, predict=str(wrong), out=str(tmp_path / 'p'))


def test_frozen_bodies_and_new_ones(tiny, tmp_path):
    base = load_encoder(tiny)[0].state_dict()
    frozen = load_encoder(classify(tiny, rows=20, steps=2, freeze=True, out=str(tmp_path / 'f')))[0].state_dict()
    fresh = load_encoder(classify(tiny, rows=20, steps=1, lr=1e-9, scratch=True, seed=5, out=str(tmp_path / 's')))[
        0
    ].state_dict()
    body = [name for name in frozen if name in base]
    assert body and all(torch.equal(frozen[name], base[name]) for name in body)
    expected = Classifier(SHAPE, 2, 5).state_dict()
    assert all(torch.allclose(fresh[name], expected[name], atol=1e-6) for name in expected)
    assert not torch.allclose(fresh['embed.weight'], base['embed.weight'], atol=1e-3)


def test_a_head_that_is_there_is_trained_further(tiny, tmp_path, tokenizer):
    model = classifier_from(MaskedLM(SHAPE, seed=0), 2, 3)
    save_encoder(model, tokenizer, tmp_path / 'm', labels=['poor', 'good'])
    data = str(jsonl(tmp_path / 'a.jsonl', REVIEWS))
    newest = classify(str(tmp_path / 'm'), data=data, steps=1, lr=1e-9, out=str(tmp_path / 'r'))
    assert read_json(newest / 'config.json')['id2label'] == {'0': 'poor', '1': 'good'}
    torch.testing.assert_close(load_trained(newest)[0].score.weight, model.score.weight, rtol=0, atol=1e-6)
    assert read_figures(tmp_path / 'r' / 'figures.json')['names'] == ['poor', 'good']
    jsonl(tmp_path / 'b.jsonl', [*REVIEWS, {'text': 'a', 'label': 'odd'}, {'text': 'b', 'label': 'odd'}])
    with pytest.raises(UserError, match='row 41: the label "odd" is not among the model\'s'):
        classify(str(tmp_path / 'm'), data=str(tmp_path / 'b.jsonl'), steps=1, out=str(tmp_path / 'r2'))


@pytest.fixture(scope='module')
def decoder(tmp_path_factory, tokenizer):
    "The folder of a very small decoder."
    folder = tmp_path_factory.mktemp('decoder')
    save_model(Transformer(DECODER, 0), tokenizer, folder)
    return str(folder)


@pytest.mark.parametrize('task', ['entailment', 'extractive'])
def test_a_decoder_learns_the_same_tasks(task, decoder, tmp_path, tokenizer):
    args = dict(task=task, rows=40, steps=4, batch_size=4, save_every=2)
    newest = classify(decoder, out=str(tmp_path / 'a'), **args)
    asked = jsonl(tmp_path / 'asked.jsonl', task_rows(task, 3))
    answers = list(read_jsonl(classify(str(newest), predict=str(asked), out=str(tmp_path / 'p'))))
    assert len(answers) == 3 and ('answer' if task == 'extractive' else 'probabilities') in answers[0]
    if task == 'entailment':
        assert list(answers[0]['probabilities']) == ['entailment', 'neutral', 'contradiction']
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    shutil.rmtree(tmp_path / 'b' / 'checkpoints' / newest.name)
    again = classify(decoder, out=str(tmp_path / 'b'), **args)
    assert (again / 'model.safetensors').read_bytes() == (newest / 'model.safetensors').read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('task', ['sentiment', 'extractive'])
@pytest.mark.parametrize('body', ['tiny', 'decoder'])
def test_transformers_opens_it_and_says_the_same(task, body, request, tmp_path, tokenizer):
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

    newest = classify(request.getfixturevalue(body), task=task, rows=40, steps=4, lr=1e-2, out=str(tmp_path / 'run'))
    job = task_of(load_trained(newest)[0])
    rows = world_rows(task, 5, start=50)
    stream = job.stream(rows, tokenizer, 5, 128)
    ours = row_logits(LocalOptions().freeze(load_trained(newest)[0]), stream, OBJECTIVES[job.kind]())
    auto = AutoModelForSequenceClassification if task == 'sentiment' else AutoModelForQuestionAnswering
    theirs = auto.from_pretrained(newest).eval()
    if task == 'sentiment':
        assert theirs.config.id2label == {0: 'negative', 1: 'positive'}
    batch = stream.fill([(0, i) for i in range(5)], 128)
    inputs = {'input_ids': batch['ids'], 'attention_mask': batch['mask'].long()}
    if body == 'tiny':
        inputs['token_type_ids'] = batch['types']
    with torch.no_grad():
        out = theirs(**inputs)
    for i, values in enumerate(ours):
        n = len(stream.packed[i].ids)
        if task == 'sentiment':
            torch.testing.assert_close(values, out.logits[i], rtol=1e-4, atol=1e-5)
        else:
            both = torch.stack([out.start_logits[i], out.end_logits[i]], -1)
            torch.testing.assert_close(values[:n], both[:n], rtol=1e-4, atol=1e-5)


def on_ranks(model, out, zero, micro, **args):
    "What one of several ranks does."
    classify(model, out=out, engine=DeepSpeedOptions(zero=zero, micro=micro), **args)


@pytest.mark.slow
@pytest.mark.parametrize('task, zero, micro', [('sentiment', 0, 1), ('sentiment', 2, None), ('extractive', 3, 2)])
def test_two_ranks_learn_what_one_does(task, zero, micro, tiny, tmp_path):
    asked = str(jsonl(tmp_path / 'asked.jsonl', task_rows(task, 3)))
    args = dict(task=task, rows=40, steps=6, batch_size=8, lr=1e-3, predict=asked)
    one, two = str(tmp_path / 'one'), str(tmp_path / 'two')
    classify(tiny, out=one, **args)
    launch(partial(on_ranks, tiny, two, zero, micro, **args), 2)
    for ours, theirs in zip(log_of(one), log_of(two), strict=True):
        for name in ('loss', 'accuracy', 'exact', 'val_loss', 'val_accuracy', 'rows', 'tokens'):
            if name in ours:
                assert theirs[name] == pytest.approx(ours[name], abs=2e-5), (ours['step'], name)
    ours, theirs = (read_figures(f'{run}/figures.json') for run in (one, two))
    assert ours.get('matrix') == theirs.get('matrix') and ours.get('exact') == theirs.get('exact')
    assert len(list(read_jsonl(f'{two}/predictions.jsonl'))) == 3


def test_faults_of_the_verb(tiny, tmp_path):
    data = str(jsonl(tmp_path / 'a.jsonl', REVIEWS))

    def said(**args):
        with pytest.raises(UserError) as e:
            classify(tiny, out=str(tmp_path / 'run'), **args)
        return str(e.value)

    assert '--task entailment: not together with --data' in said(data=data, task='entailment')
    assert '--block-size 999: the model of' in said(data=data, block_size=999)
    assert 'of another form' in said(data=data, val_data=str(jsonl(tmp_path / 'b.jsonl', ASKED)))
    assert '--epochs 1: not together' in said(data=data, epochs=1, steps=1)
    assert not (tmp_path / 'run').exists()


def test_figures_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / 'figures.json'
    path.write_text('{"kind": "classes"}')
    with pytest.raises(UserError, match='figures.json'):
        read_figures(path)
    assert class_parts([]) == ([], [])


@pytest.mark.slow
def test_a_killed_run_ends_as_if_nothing_had_happened(tiny, tmp_path):
    args = ['classify', '--model', tiny, '--rows', '200', '--steps', '12', '--save-every', '4']
    run, whole = tmp_path / 'run', tmp_path / 'whole'
    killed_after(1, run, *args)
    finished(*args, '--out', run)
    finished(*args, '--out', whole)
    newest = 'checkpoints/step-00000012/model.safetensors'
    assert (run / newest).read_bytes() == (whole / newest).read_bytes()
