"Seeds that stay, files that are whole, command lines that say what is wrong."

import gzip
import json
import math
import os
import signal
from typing import Literal

import pytest
import torch

from llmbook import lesson
from llmbook.core import UserError, did_you_mean, environment, generator, seed_of
from llmbook.files import atomic_write, read_json, read_jsonl, write_json, write_jsonl, write_text
from llmbook.flags import build_parser, parse_value, read_args, read_flags
from llmbook.lesson import grade
from llmbook.progress import Progress


PROMPTS = ['a', 'b']


def stage(
    tokens:str, # folder of tokens
    steps:int=10, # optimiser steps
    lr:float|None=None, # learning rate, 100% is 1
    shape:Literal['llama', 'gpt2']='llama', # of the model
    prompts:list[str]=PROMPTS, # to complete
    max_rows:int=4, # in a batch
    bias:bool=False, # use biases
    note:str='', # kept with the run
    engine=None, # filled in
):
    "Do a thing.\n\nMore about it."


def flags(threads:int=0): # of the CPU
    "Flags of an engine."


def args(line, *fns): return read_args(line.split() if isinstance(line, str) else line, *(fns or (stage,)),
        prog='llmbook stage')[0]


def test_seeds_never_change():
    assert seed_of(0, 'init') == 1749912909633406932 and seed_of(0) == seed_of(False)
    assert seed_of(0, 'a', 'b') != seed_of(0, 'ab') and seed_of(0, 1) == seed_of(0, '1') and seed_of(1,
            'a') != seed_of(0, 1, 'a')
    assert all(0 <= seed_of(s, 'x') < 2**63 for s in (*range(-5, 200), 2**70))
    assert torch.equal(torch.rand(5, generator=generator(3, 'x')), torch.rand(5, generator=generator(3, 'x')))
    assert generator(3, 'x').initial_seed() != generator(3, 'y').initial_seed()


@pytest.mark.parametrize('mode, old, new', [('w', 'old', 'new'), ('wb', b'old', b'new')])
def test_a_file_is_old_or_new(mode, old, new, tmp_path):
    path = tmp_path/'deep/er/a.txt'
    with atomic_write(path, mode) as f: f.write(old)
    for error in (RuntimeError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), atomic_write(path, mode) as f:
            f.write(new)
            raise error
        assert path.read_bytes() == (old if mode == 'wb' else old.encode()) and os.listdir(path.parent) == ['a.txt']
    with atomic_write(path, mode) as f:
        f.write(new)
        assert path.read_bytes().startswith(b'old')
    assert path.read_bytes().startswith(b'new') and path.stat().st_mode & 0o444 == 0o444


@pytest.mark.filterwarnings('ignore')
def test_a_file_survives_sigkill(tmp_path):
    path = write_text(tmp_path/'a.txt', 'old')
    if (child := os.fork()) == 0:
        with atomic_write(path) as f:
            f.write('new' * 10_000)
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_text() == 'old' and write_text(path, 'newer').read_text() == 'newer'


def test_json(tmp_path):
    obj = {'x': [0.1 + 0.2, 1e-320, math.inf, None], 'path': tmp_path, 'é🙂': 'a\u2028b', 'half': '\ud83d'}
    back = read_json(write_json(tmp_path/'a.json', obj))
    assert back == obj | {'path': str(tmp_path)}
    assert math.isnan(read_json(write_json(tmp_path/'n.json', math.nan))) and 'NaN' in (tmp_path/'n.json').read_text()
    for content in (b'', b'{', b'\xff', b'[' * 100_000):
        (tmp_path/'b.json').write_bytes(content)
        with pytest.raises(UserError, match='not readable as JSON') as e: read_json(tmp_path/'b.json')
        assert '\n' not in str(e.value)
    with pytest.raises(UserError, match='no such file'): read_json(tmp_path/'none.json')


def test_jsonl(tmp_path):
    rows = [{'a': 'x\u2028y\x85z'}, {'half': '\ud83d'}, {'n': 1.5}]
    assert write_jsonl(tmp_path/'a.jsonl', iter(rows)) == 3 and list(read_jsonl(tmp_path/'a.jsonl')) == rows
    (tmp_path/'a.jsonl.gz').write_bytes(gzip.compress((tmp_path/'a.jsonl').read_bytes()))
    assert list(read_jsonl(tmp_path/'a.jsonl.gz')) == rows and write_jsonl(tmp_path/'e.jsonl', []) == 0
    for name, content, words in (('b.jsonl', b'{}\n\n{"a\n', 'line 3'), ('c.jsonl', b'{"a": "\xff"}', 'UTF-8'),
            ('d.jsonl.gz', b'{}', 'gzip')):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(UserError, match=words) as e: list(read_jsonl(tmp_path/name))
        assert name in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(UserError, match='no such file'): list(read_jsonl(tmp_path/'none.jsonl'))


def test_grade_never_raises(monkeypatch):
    def check(answer):
        assert answer() == 1, "not one\nand more"
    monkeypatch.setattr('llmbook.exercises.core.check_99', check, raising=False)
    def fails(error):
        def answer(): raise error
        return answer
    assert grade('core.99', lambda: 1) and repr(grade('core.99', lambda: 1)) == 'Exercise core.99: passed.'
    for answer in (None, ..., 5, 'x', [], lambda: 2, lambda x: 1,
            *map(fails, (ValueError(), KeyError('k'), SystemExit(1), RecursionError('a\nb')))):
        said = grade('core.99', answer)
        assert not said and 'not yet' in repr(said) and '\n' not in repr(said)


def test_an_id_is_checked_before_anything_is_imported(monkeypatch):
    monkeypatch.setattr(lesson.importlib, 'import_module', lambda name: pytest.fail(f'imported {name}'))
    for name in ('../core.1', 'core.1.2', 'os.path.1', 'Core.1', 'core', 'core.', 'core.x', 'core.\u0661', 'a b.1', 1, None, ()):
        assert 'is no exercise' in repr(grade(name, 1)), name


def test_an_unknown_exercise_is_named():
    for name, hint in (('corpse.1', "did you mean 'corpus'"), ('moon.1', 'no such exercise'), ('core.98', 'no such exercise')):
        assert hint in repr(grade(name, 1))


def test_results(tmp_path, monkeypatch):
    (tmp_path/'nbs/results').mkdir(parents=True)
    for where in (tmp_path, tmp_path/'nbs'):
        monkeypatch.chdir(where)
        assert lesson.save_results('x', {'loss': [2.5], 'run': {'steps': 3}}) == tmp_path/'nbs/results/x.json'
        assert lesson.load_results('x').loss[0] == 2.5 and lesson.load_results('x').run.steps == 3
    with pytest.raises(UserError, match='under 20,000'): lesson.save_results('x', {'loss': [0.123] * 10_000})
    with pytest.raises(UserError, match='no such file'): lesson.load_results('y')


def test_progress_says_plain_lines(capsys):
    with Progress(4, 'demo', every=0) as bar:
        bar.update(3, 'loss 1')
        bar.write('a line')
    out = capsys.readouterr()
    assert out.out.startswith('demo 3/4  loss 1  0 s left\na line') and not out.err
    with Progress(4, every=100) as bar: bar.update()
    assert capsys.readouterr().out == ''
    Progress(1).close()


def test_nearest():
    assert did_you_mean('step', ['steps', 'size']) == ", did you mean 'steps'?" and did_you_mean('banana',
            ['steps']) == '' == did_you_mean('x', [])


@pytest.mark.parametrize('value, kind, want', [
    ('5', int, 5), ('-5', int, -5), ('1e3', int, 1000), ('2.0', int, 2), (3.0, int, 3),
    (str(2**60 + 1), int, 2**60 + 1), ('.5', float, 0.5),
    (2, float, 2.0), ('true', bool, True), ('No', bool, False), (True, bool, True), (5, str, '5'), ('', str, '')])
def test_types(value, kind, want):
    got = parse_value('x', value, kind)
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize('value, kind', [
    ('2.5', int), ('many', int), ('nan', int), ('inf', int), (True, int), ('', int), ('--', int), ('x', float),
    ('', float), (True, float),
    ('maybe', bool), (1, bool), (None, int), ([1], int), ([1], str), ({}, str), ([], bool)])
def test_wrong_types(value, kind):
    with pytest.raises(UserError, match='--some-flag .*: not a?') as e: parse_value('some_flag', value, kind)
    assert '\n' not in str(e.value)


def test_what_a_signature_says():
    found = read_flags(stage)
    assert list(found) == ['tokens', 'steps', 'lr', 'shape', 'prompts', 'max_rows', 'bias', 'note']
    assert found['lr'] == (float, None, 'learning rate, 100% is 1', None, False)
    assert found['shape'][0] is str and found['shape'][3] == ('llama', 'gpt2') and found['prompts'][::4] == (str,
            True)


def test_help_shows_meaning_and_default():
    text = ' '.join(build_parser(stage, flags, prog='llmbook stage').format_help().split())
    for words in ('folder of tokens (required)', 'optimiser steps (default: 10)', '100% is 1 (default: none)',
            'llama|gpt2',
                  'to complete (default: a b)', '--max-rows N', '--bias, --no-bias', 'use biases (default: False)',
                  'kept with the run (default: none)', '--threads N', '--config', '--debug'): assert words in text
    assert text.count('(default: False)') == 2 and '--engine' not in text and 'More about' not in text


def test_arguments():
    assert args('--tokens t') == {'tokens': 't'}
    assert args('--tokens=t --max-rows 3 --bias --prompts x y z --lr 1e-3') == \
        {'tokens': 't', 'max_rows': 3, 'bias': True, 'prompts': ['x', 'y', 'z'], 'lr': 1e-3}
    assert args('--tokens t --max_rows=3') == args('--tokens t --max-rows 3') and args('--tokens t --no_bias')['bias'] is False
    assert args(['--tokens', 'a_b=c', '--note', 'x_y']) == {'tokens': 'a_b=c',
            'note': 'x_y'} and args('--tokens t --steps -3')['steps'] == -3
    assert read_args('--tokens t --threads 2'.split(), stage, flags) == [{'tokens': 't'}, {'threads': 2}]


@pytest.mark.parametrize('line, words', [
    ('', '--tokens is missing'), ('--tokens t --step 3', "unknown argument --step, did you mean '--steps'?"),
    ('--tokens t --max 3', 'unknown argument --max'),
    ('--tokens', 'expected one argument'), ('--tokens t --steps x', '--steps x: not a whole number'),
    ('--tokens t --max_rows 1.5', '--max-rows 1.5'),
    ('--tokens t --shape lama', "not one of llama, gpt2, did you mean 'llama'?"),
    ('--tokens t extra', 'unknown argument extra'),
    ('--tokens t --engine x', 'unknown argument --engine'),
    ('--tokens t --config none.toml', 'none.toml: no such file')])
def test_mistakes(line, words):
    with pytest.raises(UserError) as e: args(line)
    assert words in str(e.value) and '\n' not in str(e.value)


def test_configuration(tmp_path):
    path = tmp_path/'run.toml'
    path.write_text('tokens = "t"\nsteps = 5\n"max-rows" = 7\nprompts = "x"\n'
                    '[stage]\nsteps = 6\nbias = true\n[other]\nanything = 1\n')
    assert args(f'--config {path} --max-rows 8') == {'tokens': 't', 'steps': 6, 'max_rows': 8, 'prompts': ['x'],
            'bias': True}
    path.write_text('tokens = "t"\nstage = "not a table"\n')
    with pytest.raises(UserError, match="unknown key 'stage'"): args(f'--config {path}')
    for content, words in (('stpes = 5', "'stpes', did you mean 'steps'?"),
            ('[stage]\nstep = 5', "'step', did you mean 'steps'?"),
                           ('steps = = 5', 'not TOML'), ('steps = "x"', '--steps x: not a whole number'),
                           ('steps = true', 'whole number'), ('steps = [1]', 'whole number')):
        path.write_text(content)
        with pytest.raises(UserError) as e: args(f'--tokens t --config {path}')
        assert words in str(e.value) and '\n' not in str(e.value)
    path.write_bytes(b'\xff')
    with pytest.raises(UserError, match='not TOML'): args(f'--tokens t --config {path}')
    with pytest.raises(UserError, match='is a directory'): args(f'--tokens t --config {tmp_path}')


def test_environment(monkeypatch):
    found = environment()
    assert list(found) == ['python', 'versions', 'commit', 'system', 'cores', 'threads',
            'device'] and json.dumps(found)
    assert found['versions']['torch'].startswith('2.') and found['device']
    monkeypatch.setenv('PATH', '')
    assert environment()['commit'] is None
