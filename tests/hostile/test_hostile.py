"""Hundreds of hostile inputs: none silent, none a traceback, none that hangs, and nothing lost.

A few of each class run with the fast tests, all of them with the slow ones. `harness.py` says what is judged.
"""
import re
from pathlib import Path

import pytest

from . import (cases_align, cases_configs, cases_disks, cases_environment, cases_files, cases_flags, cases_paths,
               cases_signals, cases_texts)
from .harness import MEMORY, Case, House, Result, complaints

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {'corruptions': cases_files.CASES, 'configurations': cases_configs.CASES,
           'archives and texts': cases_texts.CASES, 'paths': cases_paths.CASES, 'flags': cases_flags.CASES,
           'signals and pipes': cases_signals.CASES, 'disks and limits': cases_disks.CASES,
           'environment': cases_environment.CASES, 'preferences and conversations': cases_align.CASES}
ALL = [(name, case) for name, cases in CLASSES.items() for case in cases]
QUICK = [(name, case) for name, case in ALL if case.quick]


def ids(cases): return [f'{name}: {case.name}' for name, case in cases]


@pytest.fixture(scope='module')
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp('hostile'))
    yield house
    house.server.close()


@pytest.mark.parametrize('name, case', QUICK, ids=ids(QUICK))
def test_a_telling_case(name, case, house): assert not (wrong := house.play(case)), '\n'.join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize('name, case', ALL, ids=ids(ALL))
def test_a_hostile_case(name, case, house): assert not (wrong := house.play(case)), '\n'.join(wrong)


def test_enough_of_every_class():
    assert len(ALL) >= 400 and min(map(len, CLASSES.values())) >= 15
    for name, cases in CLASSES.items():
        names = [case.name for case in cases]
        assert len(names) == len(set(names)), f'{name}: a name twice'
        assert any(case.quick for case in cases), f'{name}: none with the fast tests'


def test_the_table_of_results_is_true():
    text = (ROOT/'benchmarks/RESULTS.md').read_text()
    section = text.split('## Hostile inputs')[1].split('\n## ')[0]
    rows = re.findall(r'^\| ([a-z ]+) \| ([\d,]+) \|', section, re.M)
    found = {name: int(count.replace(',', '')) for name, count in rows}
    assert found == {name: len(cases) for name, cases in CLASSES.items()} | {'all': len(ALL)}


LINE = 'llmbook: file.txt: no such file\n'
BEFORE = {'a': ('file', '1'), 'b': ('link', 'a')}
FAULTS = { # what a command may do wrong -> case, what is there afterwards, how it ended, a word of the complaint
    'hangs': ({}, BEFORE, Result(None, '', ''), 'still there'),
    'a traceback': ({}, BEFORE, Result(2, '', 'Traceback (most recent call last):\n' + LINE), 'Traceback'),
    'a panic': ({}, BEFORE, Result(2, '', "thread panicked at 'x'\n" + LINE), 'panicked'),
    'a fault of ours': ({}, BEFORE, Result(1, '', 'llmbook: a fault of llmbook, please report it: x\n'), 'exit code 1'),
    'another code': ({'code': 3}, BEFORE, Result(2, '', LINE), 'exit code 2, not 3'),
    'silence': ({}, BEFORE, Result(2, '', ''), 'lines on stderr'),
    'two lines': ({}, BEFORE, Result(2, '', LINE * 2), '2 lines'),
    'a warning of a library': ({}, BEFORE, Result(2, '', 'x.py:1: UserWarning: y\n' + LINE), '2 lines'),
    'a line on stdout': ({}, BEFORE, Result(2, LINE, ''), 'lines on stderr'),
    'no name of ours': ({}, BEFORE, Result(2, '', 'file.txt: no such file\n'), 'begins with'),
    'another reason': ({'words': 'size'}, BEFORE, Result(2, '', LINE), "'size'"),
    'done without a word': ({'code': 0, 'words': 'warning'}, BEFORE, Result(0, 'done', ''), "'warning'"),
    'a word too many': ({'code': 0, 'words': 'done', 'never': 'warning'}, BEFORE, Result(0, 'done', 'warning: x'),
         "says 'warning'"),
    'a file changed': ({}, BEFORE | {'a': ('file', '2')}, Result(2, '', LINE), 'a was changed'),
    'a file gone': ({}, {'b': ('link', 'a')}, Result(2, '', LINE), 'a is gone'),
    'a link became a file': ({}, BEFORE | {'b': ('file', '1')}, Result(2, '', LINE), 'b was changed'),
    'half a file left': ({}, BEFORE | {'.a.12.tmp': ('file', '3')}, Result(143, '', ''), 'left behind'),
    'written and refused': ({}, BEFORE | {'out/c': ('file', '3')}, Result(2, '', LINE), 'although'),
    'too much memory': ({}, BEFORE, Result(2, '', LINE, memory=2 * MEMORY), 'takes'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_the_judge_sees(name):
    more, there, result, word = FAULTS[name]
    found = complaints(Case('x', 'generate', **more), BEFORE, there, result)
    assert any(word in complaint for complaint in found), found


def test_the_judge_is_content():
    refused = complaints(Case('x', 'generate', words='no such'), BEFORE, BEFORE,
         Result(2, 'llmbook generate', 'warning: y\n' + LINE))
    aside = BEFORE | {'broken-a.old1': ('file', '1')}
    del aside['a']
    done = complaints(Case('x', 'generate', code=(0, 2), why='done'), BEFORE, aside, Result(0, 'done', ''))
    assert not refused and not done
    with pytest.raises(ValueError, match='reason'): Case('x', 'env', code=0)
    with pytest.raises(ValueError, match='fault'): Case('x', 'env', code=1)
