"Command lines that say what is wrong; ranges that hold for the command line and for Python."

import math
import os
from typing import Annotated, Literal, Optional

import pytest

from llmbook.core import UserError
from llmbook.flags import (SEED, Flag, Range, _build_parser, _help_text, _metavar, _parse_value, above, at_least, below, between,
                           at_most, check_ranges, read_args, read_flags)


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


def args(line, *fns):
    "What the first function is given, for a line or its words."
    words = line.split() if isinstance(line, str) else line
    return read_args(words, *(fns or (stage,)), prog='llmbook stage', verbs=('stage', 'other'))[0]


@pytest.mark.parametrize('value, kind, want', [
    ('5', int, 5), ('-5', int, -5), ('1e3', int, 1000), ('2.0', int, 2), (3.0, int, 3),
    (str(2**60 + 1), int, 2**60 + 1), ('.5', float, 0.5),
    (2, float, 2.0), ('true', bool, True), ('No', bool, False), (True, bool, True), (5, str, '5'), ('', str, '')])
def test_types(value, kind, want):
    got = _parse_value('x', value, Flag(kind))
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize('value, kind', [
    ('2.5', int), ('many', int), ('nan', int), ('inf', int), (True, int), ('', int), ('--', int), ('x', float),
    ('', float), (True, float),
    ('maybe', bool), (1, bool), (None, int), ([1], int), ([1], str), ({}, str), ([], bool)])
def test_wrong_types(value, kind):
    with pytest.raises(UserError, match='--some-flag .*: not a?') as e: _parse_value('some_flag', value, Flag(kind))
    assert '\n' not in str(e.value)


def test_what_a_signature_says():
    found = read_flags(stage)
    assert list(found) == ['tokens', 'steps', 'lr', 'shape', 'prompts', 'max_rows', 'bias', 'note']
    assert found['lr'] == Flag(float, None, 'learning rate, 100% is 1')
    assert found['shape'].kind is str and found['shape'].choices == ('llama', 'gpt2')
    assert found['prompts'].kind is str and found['prompts'].many and found['prompts'].default is PROMPTS


def test_help_shows_meaning_and_default():
    text = ' '.join(_build_parser(stage, flags, prog='llmbook stage').format_help().split())
    for words in ('--tokens FOLDER folder of tokens (required)', 'optimiser steps (default: 10)',
                  '--lr X learning rate, 100% is 1 --shape llama|gpt2', 'to complete (default: a b)', '--max-rows N',
                  '--bias, --no-bias', 'use biases (default: no)', '--note NOTE kept with the run --threads N',
                  '--config FILE', '--debug'): assert words in text
    assert text.count('(default: no)') == 2 and '--engine' not in text and 'More about' not in text


@pytest.mark.parametrize('default, note', [
    (None, ''), ('', ''), (0, ' (default: 0)'), (('world', 'pydoc'), ' (default: world pydoc)'), (True, ' (default: yes)'),
    ([], '')])
def test_help_shows_a_default_as_it_is_typed(default, note):
    assert _help_text(Flag(str, default, 'a thing')) == f'a thing{note}'


@pytest.mark.parametrize('docment, shown', [
    ('folder to write', 'FOLDER'), ('run folders, or folders of runs', 'FOLDER'), ('a file or a folder', 'PATH'),
    ('world, or a path (txt, a folder)', 'PATH'), ('documents to measure on', 'PATH'), ('HTML file to write', 'FILE'),
    ('text to continue', 'SOME_FLAG')])
def test_help_says_what_kind_of_path(docment, shown):
    assert _metavar('some_flag', Flag(str, help=docment)) == shown


def test_arguments():
    assert args('--tokens t') == {'tokens': 't'}
    assert args('--tokens=t --max-rows 3 --bias --prompts x y z --lr 1e-3') == \
        {'tokens': 't', 'max_rows': 3, 'bias': True, 'prompts': ['x', 'y', 'z'], 'lr': 1e-3}
    assert args('--tokens t --max_rows=3') == args('--tokens t --max-rows 3') and args('--tokens t --no_bias')['bias'] is False
    assert args(['--tokens', 'a_b=c', '--note', 'x_y']) == {'tokens': 'a_b=c', 'note': 'x_y'}
    assert args('--tokens t --steps -3')['steps'] == -3
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
    with pytest.raises(UserError, match='a folder, not a file'): args(f'--tokens t --config {tmp_path}')


# Ranges

def ranged(
    steps:Annotated[int, at_least(1)]=10, # optimiser steps
    batch_size:Annotated[int, at_least(1)]|None=None, # rows in a batch
    block_size:Annotated[int|None, at_least(2)]=None, # tokens in a row
    lr:Annotated[Optional[float], above(0), below(math.inf)]=None, # learning rate
    warmup:Annotated[float, between(0, 1)]=0.02, # fraction of the steps
    beta2:Annotated[float, at_least(0), below(1)]=0.95, # memory of squares
    widths:Annotated[list[int], at_least(1)]=PROMPTS, # of the layers
    depths:list[Annotated[int, between(1, 3)]]|None=None, # of the trees
    shape:Annotated[Literal['llama', 'gpt2'], 'a remark']='llama', # of the model
    bias:Annotated[bool, 'a remark']=False, # use biases
    engine=None, # filled in
    *,
    adapt:Annotated[int, at_least(1)]=0, # handed over by a later chapter
):
    "Do a thing in its ranges."
    check_ranges(ranged, locals())
    return steps


def test_ranges_are_read_through_every_wrapping():
    found = read_flags(ranged)
    assert list(found) == ['steps', 'batch_size', 'block_size', 'lr', 'warmup', 'beta2', 'widths', 'depths', 'shape', 'bias']
    assert found['steps'] == Flag(int, 10, 'optimiser steps', ranges=(at_least(1),))
    assert found['batch_size'].kind is found['block_size'].kind is int and found['lr'].kind is float
    assert found['batch_size'].ranges == (at_least(1),) and found['block_size'].ranges == (at_least(2),)
    assert found['beta2'].ranges == (at_least(0), below(1)) and repr(found['beta2'].ranges) == '(at least 0, less than 1)'
    assert found['widths'].many and found['widths'].ranges == (at_least(1),)
    assert found['depths'].many and found['depths'].ranges == (between(1, 3),)
    assert found['shape'].choices == ('llama', 'gpt2') and found['shape'].ranges == () == found['bias'].ranges


@pytest.mark.parametrize('numbers, inside, outside', [
    (at_least(1), (1, 1.0, 2**70, math.inf), (0, 0.999, -math.inf, math.nan)),
    (above(0), (5e-324, 1, math.inf), (0, -0.0, -1, math.nan)),
    (below(1), (0.9999999999999999, 0, -math.inf), (1, 1.0, 2, math.inf, math.nan)),
    (below(math.inf), (1.7976931348623157e308, -math.inf), (math.inf, math.nan)),
    (between(0, 1), (0, 1, 0.5), (-5e-324, 1.0000000000000002, math.inf, math.nan))])
def test_the_ends_of_a_range(numbers, inside, outside):
    assert all(n in numbers for n in inside) and not any(n in numbers for n in outside)


OUTSIDE = [
    ('--steps 0', '--steps 0: must be at least 1'), ('--steps=-3', '--steps -3: must be at least 1'),
    ('--batch-size 0', '--batch-size 0: must be at least 1'), ('--block-size 1', '--block-size 1: must be at least 2'),
    ('--lr 0', '--lr 0: must be more than 0 and finite'), ('--lr inf', '--lr inf: must be more than 0'),
    ('--lr nan', '--lr nan: must be more than 0'), ('--warmup 1.5', '--warmup 1.5: must be between 0 and 1'),
    ('--warmup nan', '--warmup nan: must be between'), ('--beta2 1', '--beta2 1: must be at least 0 and less than 1'),
    ('--widths 4 0 4', '--widths 0: must be at least 1'), ('--depths 1 4', '--depths 4: must be between 1 and 3')]


@pytest.mark.parametrize('line, words', OUTSIDE)
def test_numbers_out_of_range(line, words, tmp_path):
    with pytest.raises(UserError) as e: args(line, ranged)
    assert str(e.value).startswith(words) and '\n' not in str(e.value)
    flag, *values = line.replace('=', ' ').split()
    value = ', '.join(values)
    (tmp_path/'run.toml').write_text(f"{flag[2:]} = {f'[{value}]' if len(values) > 1 else value}\n")
    with pytest.raises(UserError) as e: args(f'--config {tmp_path}/run.toml', ranged)
    assert str(e.value).startswith(words.partition(':')[0])


@pytest.mark.parametrize('given, words', [
    (dict(steps=0), '--steps 0: must be at least 1'), (dict(batch_size=-1), '--batch-size -1: must be at least 1'),
    (dict(block_size=1), '--block-size 1: must be at least 2'), (dict(lr=math.nan), '--lr nan: must be more than 0'),
    (dict(lr=math.inf), 'more than 0 and finite'), (dict(beta2=1.0), '--beta2 1.0: must be at least 0 and less than 1'),
    (dict(widths=[3, 0]), '--widths 0: must be at least 1'), (dict(depths=[4]), '--depths 4: must be between 1 and 3')])
def test_a_stage_called_from_python_refuses_the_same(given, words):
    with pytest.raises(UserError) as e: ranged(**{'widths': [1]} | given)
    assert words in str(e.value) and '\n' not in str(e.value)


def test_numbers_in_range():
    line = '--steps 1 --batch-size 1 --block-size 2 --lr 1e-3 --warmup 1 --beta2 0 --widths 1 2 --depths 3 --bias'
    assert args(line, ranged) == dict(steps=1, batch_size=1, block_size=2, lr=1e-3, warmup=1.0, beta2=0.0, widths=[1, 2],
                                      depths=[3], bias=True)
    assert ranged(widths=[1], steps=3) == 3 == ranged(widths=None, steps=3, adapt=0, engine=object())
    check_ranges(ranged, {}) # what is not given is not looked at


def test_help_shows_ranges():
    text = ' '.join(_build_parser(ranged, prog='llmbook stage').format_help().split())
    for words in ('optimiser steps (at least 1; default: 10)', 'rows in a batch (at least 1) --block-size',
                  'learning rate (more than 0; finite) --warmup',
                  'fraction of the steps (between 0 and 1; default: 0.02)', '--bias, --no-bias'): assert words in text
    assert '--adapt' not in text and '--engine' not in text


def test_keyword_only_parameters_are_no_flags():
    with pytest.raises(UserError, match='unknown argument --adapt'): args('--adapt 3', ranged)


def test_a_function_without_source_has_flags_without_help():
    names = {}
    exec('from llmbook.flags import at_least\nfrom typing import Annotated\ndef f(n:Annotated[int, at_least(1)]=0): ...', names)
    assert read_flags(names['f']) == {'n': Flag(int, 0, ranges=(at_least(1),))}
    with pytest.raises(UserError, match='--n 0: must be at least 1'): check_ranges(names['f'], {'n': 0})


# What a file or a shell can hand over

def refused(words, content=None, line='', path=None):
    "A command line, or a configuration, and the one line that it gets."
    if content is not None: path.write_bytes(content if isinstance(content, bytes) else content.encode())
    argv = line if isinstance(line, list) else line.split()
    if 'tokens' not in str(content): argv = ['--tokens', 't', *argv]
    if path: argv = [*argv, '--config', str(path)]
    with pytest.raises(UserError) as e: args(argv)
    assert words in str(e.value) and len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 400, str(e.value)


@pytest.mark.parametrize('content, words', [
    ('max-rows = 1\nmax_rows = 2', "'max_rows' is there twice"), ('[stage]\nmax-rows = 1\nmax_rows = 2', 'is there twice'),
    ('[sage]\nsteps = 1', "unknown table [sage], did you mean 'stage'?"), ('[steps]\nx = 1', 'unknown table [steps]'),
    ('[[stage]]\nsteps = 1', "unknown key 'stage'"), ('[stage.deep]\nsteps = 1', "unknown key 'deep'"),
    ('[stage]\nstpes = 1', "'stpes', did you mean 'steps'?"), ('note = 2020-01-01', 'not a text'),
    ('note = 12:00:00', 'not a text'), ('note = ["a"]', 'not a text'), ('lr = {a = 1}', 'unknown table [lr]'),
    ('prompts = []', '--prompts: empty'), ('prompts = [[1]]', 'not a text'), ('tokens = ""', '--tokens: empty'),
    ('tokens = "a\\u0000"', 'zero byte'), ('steps = "1\\n2"', '--steps 1 2: not a whole number'),
    ('steps = ' + '9' * 5000, 'not TOML'), ('note = ' + '[' * 9000 + ']' * 9000, 'nested too deeply'),
    ('lr = nan', '--lr nan: must be finite'), ('lr = -inf', '--lr -inf: must be finite'), ('steps = inf', 'whole number'),
    (b'note = "\xff"', 'not TOML'), ('note = "a', 'not TOML'), ('"a\\nb" = 1', "unknown key 'a b'"),
    ('k' * 999 + ' = 1', 'unknown key')])
def test_configurations_that_are_refused(content, words, tmp_path):
    refused(words, content, path=tmp_path/'run.toml')


def test_a_configuration_may_begin_with_a_mark_and_end_its_lines_as_windows_does(tmp_path):
    (tmp_path/'run.toml').write_bytes(b'\xef\xbb\xbfsteps = 5\r\n[stage]\r\nnote = "a_b"\r\n')
    assert args(f'--tokens t --config {tmp_path}/run.toml') == {'tokens': 't', 'steps': 5, 'note': 'a_b'}


def test_what_is_no_file_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for path, words in ((tmp_path/'pipe', 'a pipe or a device'), ('/dev/zero', 'a pipe or a device'), (tmp_path, 'a folder'),
                        (tmp_path/'none.toml', 'no such file'), ('~nobody-of-that-name/a', 'no such user')):
        refused(words, line=['--config', str(path)])
    refused('--config: empty', line=['--config', ''])


def test_home_is_found_in_paths_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', '/h')
    (tmp_path/'run.toml').write_text('tokens = "~/a_b"\nnote = "~/n"\nprompts = ["~"]\n')
    wanted = {'tokens': '/h/a_b', 'note': '~/n', 'prompts': ['~']}
    assert args(f'--config {tmp_path}/run.toml') == wanted
    assert args(['--tokens', '~/a_b', '--note=~/n', '--prompts', '~']) == wanted
    assert args('--tokens ./~/a')['tokens'] == './~/a' and args('--tokens ~')['tokens'] == '/h'
    (tmp_path/'home.toml').write_text('tokens = "x"')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert args('--config ~/home.toml') == {'tokens': 'x'}


def test_values_keep_their_underscores():
    for words in (['--note', 'create_table'], ['--note=create_table']):
        assert args(['--tokens', 't', *words])['note'] == 'create_table'
    assert args(['--tokens', 't', '--note', '--my_table of 3'])['note'] == '--my_table of 3'
    assert args(['--tokens=--a_b', '--note=--max_rows'])['tokens'] == '--a_b'
    assert args('--tokens t --max_rows=2 --no_bias') == {'tokens': 't', 'max_rows': 2, 'bias': False}
    assert args('--tokens t --steps 1 --steps 2')['steps'] == 2


@pytest.mark.parametrize('line, words', [
    ('--lr nan', '--lr nan: must be finite'), ('--lr inf', 'must be finite'), ('--lr=-inf', '--lr -inf'),
    ('--lr 1e999', 'finite'),
    (['--tokens', ''], '--tokens: empty'), (['--tokens', '  '], '--tokens: empty'), (['--steps', '5\n6'], '--steps 5 6: not a'),
    (['--st\neps', '5'], 'unknown argument --st eps'), (['--steps', '9' * 5000], 'not a whole number')])
def test_values_that_are_refused(line, words): refused(words, line=line)


def test_a_stage_called_from_python_refuses_infinity_and_empty_paths():
    for given, words in (({'lr': math.inf}, '--lr inf: must be finite'), ({'tokens': ''}, '--tokens: empty'),
                         ({'prompts': []}, '--prompts: empty'), ({'prompts': ()}, '--prompts: empty')):
        with pytest.raises(UserError, match=words): check_ranges(stage, given)
    check_ranges(stage, {'lr': None, 'tokens': 't', 'prompts': None, 'note': ''})


def test_infinity_only_where_a_range_names_it():
    flag = Flag(float, ranges=(Range('at least 0, or inf', 0, infinite=True),))
    assert _parse_value('x', 'inf', flag) == math.inf
    for value in ('nan', '-inf', '-1'):
        with pytest.raises(UserError, match='must be at least 0, or inf'): _parse_value('x', value, flag)
    with pytest.raises(UserError, match='must be at least 0 and finite'):
        _parse_value('x', 'inf', Flag(float, ranges=(at_least(0),)))
    assert SEED.high == 2**63 - 1 and 2**63 not in SEED and -1 not in SEED and 1 in at_most(1) and 2 not in at_most(1)


def test_help_says_how_it_ends():
    text = ' '.join(_build_parser(stage, prog='llmbook stage').format_help().split())
    assert 'given twice, the last value counts' in text and 'Exit codes: 0 done' in text and '3 diverged' in text
