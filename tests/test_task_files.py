"The tasks by name: files, the command line, what it refuses."
import hashlib
import json
import re
import subprocess
import sys

import pytest

from llmbook.cli import main
from llmbook.core import UserError
from llmbook.flags import read_flags
from llmbook.text.corpus import HELD_START, corpus
from llmbook.text.task_files import TASKS, task_rows, write_task


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
