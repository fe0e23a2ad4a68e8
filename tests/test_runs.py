"The run folder: the same command finds it again, another is refused, and a kill leaves no half of anything."
import math

import pytest

from llmbook.core import UserError
from llmbook.files import read_json, write_json
from llmbook.train.runs import Run, _aside, _drop_old, read_log


def test_killed_while_the_first_file_was_written(tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run/.config.json.77.tmp').write_text('{"comm')
    Run(tmp_path/'run', 'test', {})
    assert [p.name for p in (tmp_path/'run').iterdir()] == ['config.json']


def test_a_log_cut_between_any_two_bytes(tmp_path):
    run = Run(tmp_path/'run', 'test', {})
    rows = [{'step': 1, 'loss': math.nan, 'said': 'ä\u2028'}, {'step': 2, 'loss': 0.1 + 0.2}]
    for r in rows: run.log(r)
    text = (tmp_path/'run/log.jsonl').read_bytes()
    first = text.index(b'\n') + 1
    for n in range(first, len(text) + 1):
        (tmp_path/'run/log.jsonl').write_bytes(text[:n])
        run.truncate_log(2)
        assert (tmp_path/'run/log.jsonl').read_bytes() == (text if n >= len(text) - 1 else text[:first])


def test_what_follows_a_broken_line_is_not_believed(tmp_path):
    (tmp_path/'log.jsonl').write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    assert read_log(tmp_path/'log.jsonl') == [{'step': 1}] and read_log(tmp_path/'nowhere.jsonl') == []


@pytest.mark.parametrize('keep, left', [(0, [1, 2, 3, 4]), (1, [4]), (3, [2, 3, 4]), (9, [1, 2, 3, 4])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, left):
    for step in (3, 1, 4, 2): (tmp_path/f'step-{step:08d}').mkdir()
    _drop_old(tmp_path, keep)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f'step-{step:08d}' for step in left]


def test_the_folder_of_another_run(tmp_path):
    folder = tmp_path/'run'
    Run(folder, 'sft', {'lr': 1}) # nothing happens in it
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 5, 'lengths': (1, 2)}).log({'step': 1})
    Run(folder, 'pretrain', {'lr': 1e-3, 'save_every': 9, 'lengths': (1, 2)})
    for command, args, what in (('sft', {}, 'holds a run of `pretrain`, not of `sft`'),
                                ('pretrain', {'lr': 2e-3}, r'--lr was 0.001, now 0.002'),
                                ('pretrain', {'lr': 1e-3, 'lengths': (1, 2), 'more_of_it': 3}, '--more-of-it was None, now 3')):
        with pytest.raises(UserError, match=what) as e: Run(folder, command, args)
        assert '\n' not in str(e.value) and '--fresh' in str(e.value)
    (folder/'mine.txt').write_text('x')
    Run(folder, 'sft', {}, fresh=True)
    assert (tmp_path/'run.old1/mine.txt').exists() and [p.name for p in folder.iterdir()] == ['config.json']
    assert _aside(folder).name == 'run.old2'


@pytest.mark.parametrize('fresh', [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, fresh):
    (tmp_path/'notes.txt').write_text('x')
    with pytest.raises(UserError, match='not empty and not a run'): Run(tmp_path, 'pretrain', {}, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('change', [None, 1, 3])
def test_a_folder_of_an_earlier_version(tmp_path, change):
    "Its names differ, so it is refused in one line that says how to continue; nothing in it changes."
    folder = tmp_path/'run'
    Run(folder, 'pretrain', {'lr': 1}).log({'step': 1, 'loss': 2.0, 'tokens': 3})
    config = read_json(folder/'config.json')
    del config['format']
    if change is not None: config['format'] = change
    write_json(folder/'config.json', config)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(UserError) as e: Run(folder, 'pretrain', {'lr': 1})
    message = str(e.value)
    assert '\n' not in message and 'written by an earlier version' in message
    assert '--fresh' in message and f'llmbook pretrain --model {folder} --out NEW' in message
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    Run(folder, 'pretrain', {'lr': 1}, fresh=True)
    assert (tmp_path/'run.old1/log.jsonl').read_bytes() == before['log.jsonl'] and not read_log(folder/'log.jsonl')
