"The tasks by name: files, the command line, what it refuses."
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmbook
from llmbook.cli import main
from llmbook.core import UserError
from llmbook.flags import read_flags
from llmbook.model.shape import SIZES
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, corpus, world_documents
from llmbook.text.task_files import TASKS, mixed_documents, row_text, task_documents, task_rows, task_texts, write_task
from llmbook.text.tokenizer_files import load_tokenizer


def lines(path): return [json.loads(line) for line in path.read_text('utf-8').splitlines()]


@pytest.mark.parametrize('name', TASKS)
def test_files_hold_the_rows_and_no_held_out_row_is_for_training(name, tmp_path, capsys):
    assert write_task(name, docs=60, out=str(tmp_path/'out')) == dict(train=60, val=3)
    train, val = (lines(tmp_path/f'out/{part}.jsonl') for part in ('train', 'val'))
    assert train == json.loads(json.dumps(list(task_rows(name, 60))))
    assert val == json.loads(json.dumps(list(task_rows(name, 3, start=HELD_START))))
    contents = [json.dumps({key: value for key, value in row.items() if key not in ('id', 'meta')}) for row in train + val]
    assert not set(contents[:60]) & set(contents[60:]) and len({row['id'] for row in train + val}) == 63
    assert f'60 rows in {tmp_path}/out/train.jsonl, 3 held out' in capsys.readouterr().out
    assert json.loads((tmp_path/'out/task.json').read_text())['form'] == TASKS[name].form


def run(*args): main(['corpus', *map(str, args)])


def test_by_the_command_line_twice_and_with_another_seed(tmp_path, capsys):
    digests = []
    for name, more in (('a', ()), ('b', ('--source', 'world')), ('c', ('--seed', 7)), ('d', ('--level', 2))):
        with pytest.raises(SystemExit, match='0'): run('--task', 'questions', '--docs', 30, '--out', tmp_path/name, *more)
        digests.append(hashlib.sha256((tmp_path/name/'train.jsonl').read_bytes()).hexdigest())
    assert digests[0] == digests[1] and len(set(digests)) == 3


REFUSED = [
    (['--task', 'question'], "--task question: not one of questions, .*did you mean 'questions'"),
    (['--task', 'questions', '--level', 3], 'level'), (['--task', 'questions', '--level', 0], '--level 0: must be'),
    (['--task', 'questions', '--format', 'books'], '--format: not with --task; leave it out'),
    (['--task', 'questions', '--lenient'], '--lenient: not with --task'),
    (['--task', 'questions', '--source', 'pydoc'], '--source pydoc: tasks come from the world alone'),
    (['--task', 'questions', '--mix-tasks', 0.1], '--mix-tasks: not with --task; leave it out'),
    (['--source', 'pydoc', '--mix-tasks', 0.1], '--mix-tasks 0.1: .* only with --source world'),
    (['--mix-tasks', 1], '--mix-tasks 1.*: must be between 0 and 0.9'),
    (['--level', 2], '--level: only with --task'), (['--task', 'questions', '--docs', 0], '--docs 0: must be')]


@pytest.mark.parametrize('args, words', REFUSED)
def test_what_is_refused_leaves_no_folder(args, words, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'): run(*args, '--out', tmp_path/'out')
    [line] = capsys.readouterr().err.strip().splitlines()
    assert re.search(words, line) and not (tmp_path/'out').exists()


def test_help_lists_every_task_once_with_an_example(capsys):
    with pytest.raises(SystemExit, match='0'): run('--help')
    said = capsys.readouterr().out
    listed = said.split('Tasks of the world (--task)')[1].splitlines()[1:1 + len(TASKS)]
    assert [line.split()[0] for line in listed] == list(TASKS) and all(len(line.split()) > 3 for line in listed)


def test_documents_are_collected_as_before(tmp_path):
    with pytest.raises(SystemExit, match='0'): run('--docs', 3, '--out', tmp_path/'out')
    assert len(lines(tmp_path/'out/documents.jsonl')) == 3


def test_a_level_is_refused_by_the_task_itself():
    for name in TASKS:
        with pytest.raises(UserError, match='--level 9'): next(task_rows(name, 1, 9))


def test_no_task_is_imported_before_it_is_asked_for():
    code = ("import sys, llmbook.text.task_files; "
            "print([m for m in sys.modules if m.split('.')[-1] in ('labels', 'choices', 'translation', 'sklearn', 'torch')])")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ('[]', "['torch']")


def test_defaults_are_those_that_help_shows():
    flags = [read_flags(stage) for stage in (corpus, write_task)]
    assert all(flags[0][name].default == flags[1][name].default for name in ('out', 'seed', 'fresh', 'source'))


def said_in(row):
    "Every text of a row."
    for name, value in row.items():
        if name in ('id', 'meta'): continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, dict): text = text.get('content') or ' '.join(text.get('text', []))
            if isinstance(text, str): yield text


def test_a_row_as_text_holds_the_request_and_the_right_answer():
    for name in TASKS:
        for level in (1, 2):
            for row in task_rows(name, 30, level):
                text = row_text(row)
                if 'rejected' in row:
                    assert row['chosen'] in text
                    assert row['rejected'] in row['prompt'] or row['rejected'] not in text
                if 'choices' in row: assert text.endswith(row['choices'][row['answer']])
                if 'scores' in row: assert text.endswith(row['answers'][row['scores'].index(max(row['scores']))])
                if 'sentence_good' in row: assert text == row['sentence_good']
                if 'messages' in row: assert text == '\n'.join(said_in(row))
                if 'source' in row: assert text == f"{row['source']}\n{row['target']}"
                if 'label' in row: assert text == '\n'.join([row['text'], row['text_pair'], row['label']])
                if 'context' in row and 'choices' not in row:
                    assert text.endswith('\n' + (row['answers']['text'] or ['no answer'])[0]) and row['question'] in text


def test_no_word_or_sign_of_a_task_is_foreign_to_the_tokenizer():
    stories = [document['text'] for document in world_documents(800)]
    without, tokenizer = train_tokenizer(stories, 1024), train_tokenizer([*stories, *task_texts()], 1024)
    words = {word for name in TASKS for level in (1, 2) for row in task_rows(name, 60, level, seed=5)
             for text in said_in(row) for word in re.findall(r'[a-z]+', text)}
    english = words & {word for story in stories for word in re.findall(r'(?<= )[a-z]+', story)}
    def pieces(tokenizer, word): return len(tokenizer.encode(' ' + word, add_special_tokens=False).ids)
    assert len(english) > 100 and max(pieces(tokenizer, word) for word in english) == 1
    others = sorted(words - english)
    counts = [sum(pieces(t, word) for word in others) / len(others) for t in (without, tokenizer)]
    assert counts[1] < 0.8 * counts[0] and counts[1] < 3
    for number in ('7', '17', '-204', '3+14=17'):
        tokens = tokenizer.encode(number, add_special_tokens=False).tokens
        assert [token for token in tokens if token.isdigit()] == [c for c in number if c.isdigit()]


def test_rows_are_mixed_in_evenly_and_all_kinds_in_turn(tmp_path):
    for n, share in ((40, 0.25), (50, 0.5), (7, 0.1)):
        documents = list(mixed_documents(n, share, 3))
        kinds = ['task' in document['meta'] for document in documents]
        rows = [document for document in documents if 'task' in document['meta']]
        stories = [document for document in documents if 'task' not in document['meta']]
        assert len(documents) == n and len(rows) == round(share * n)
        assert stories == list(world_documents(len(stories), 3)) and rows == list(task_documents(len(rows), 3))
        halves = sum(kinds[:n // 2]), sum(kinds[-(n // 2):])
        assert abs(halves[0] - halves[1]) <= 1 and len({document['id'] for document in documents}) == n
    kinds = {(d['meta']['task'], d['meta']['level']) for d in task_documents(30)}
    assert kinds == {(name, level) for name in TASKS for level in (1, 2)}


def test_the_flag_mixes_and_the_default_does_not(tmp_path, capsys):
    for name, more in (('with', ('--mix-tasks', 0.2)), ('without', ())):
        with pytest.raises(SystemExit, match='0'): run('--docs', 50, '--out', tmp_path/name, *more)
    mixed, plain = (lines(tmp_path/name/'documents.jsonl') for name in ('with', 'without'))
    assert mixed == json.loads(json.dumps(list(mixed_documents(50, 0.2))))
    assert plain == json.loads(json.dumps(list(world_documents(50))))
    with pytest.raises(UserError, match='mixed_documents'): corpus(docs=3, mix_tasks=0.5, out=str(tmp_path/'none'))
    assert not (tmp_path/'none').exists()
    with pytest.raises(SystemExit, match='2'): run('--docs', 50, '--out', tmp_path/'with')
    assert 'mix-tasks' in capsys.readouterr().err.replace('_', '-')


def test_everything_of_level_one_fits_the_smallest_model():
    tokenizer, block_size = load_tokenizer(Path(llmbook.__file__).parent/'assets/nano-pretrain'), SIZES['nano']['block_size']
    for name in TASKS:
        rows = list(task_rows(name, 200, start=HELD_START))
        marks = max(2 * len(row.get('messages', [0, 0])) + 1 for row in rows) # begin, and a name and an end per turn
        assert max(map(len, tokenizer.encode_texts(list(map(row_text, rows))))) + marks <= block_size, name
