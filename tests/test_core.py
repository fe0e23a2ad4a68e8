"Seeds that never change, guesses at a name, the environment of a run."

import importlib.util
import json
import re
import signal
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from llmbook import core
from llmbook.core import Diverged, Interrupted, UserError, current_rank, did_you_mean, environment, explain, generator
from llmbook.core import rank_zero_first, seed_of

ROOT = Path(__file__).resolve().parents[1]


def test_seeds_never_change():
    assert seed_of(0, 'init') == 1749912909633406932 and seed_of(0) == seed_of(False)
    assert seed_of(0, 'a', 'b') != seed_of(0, 'ab') and seed_of(0, 1) == seed_of(0, '1') and seed_of(1,
            'a') != seed_of(0, 1, 'a')
    assert all(0 <= seed_of(s, 'x') < 2**63 for s in (*range(-5, 200), 2**70))
    assert torch.equal(torch.rand(5, generator=generator(3, 'x')), torch.rand(5, generator=generator(3, 'x')))
    assert generator(3, 'x').initial_seed() != generator(3, 'y').initial_seed()


def test_nearest():
    assert did_you_mean('step', ['steps', 'size']) == ", did you mean 'steps'?" and did_you_mean('banana',
            ['steps']) == '' == did_you_mean('x', [])


def test_environment(monkeypatch):
    found = environment()
    assert list(found) == ['python', 'versions', 'commit', 'system', 'cores', 'threads',
            'device'] and json.dumps(found)
    assert found['versions']['torch'].startswith('2.') and found['device']
    monkeypatch.setenv('PATH', '')
    assert environment()['commit'] is None


def test_one_process_is_rank_0_and_goes_straight_through():
    with rank_zero_first(): assert current_rank() == 0
    with pytest.raises(UserError, match='once'), rank_zero_first(): raise UserError('once')


def raised(error):
    try: raise error
    except BaseException as e: return explain(e)


@pytest.mark.parametrize('error, code, words', [
    (UserError('--x: bad'), 2, '--x: bad'), (Diverged('lost'), 3, 'lost'),
    (Interrupted(signal.SIGTERM), 143, 'stopped by SIGTERM; nothing was saved'),
    (Interrupted(signal.SIGHUP, 'saved'), 129, 'saved'),
    (KeyboardInterrupt(), 130, 'nothing was saved'), (BrokenPipeError(), 141, 'output'),
    (PermissionError(13, 'Permission denied', 'a.txt'), 2, 'a.txt: permission denied'),
    (OSError(28, 'No space left on device', b'x'), 2, 'x: no space'),
    (OSError('odd'), 2, 'odd'), (MemoryError(), 2, 'out of memory'), (RecursionError('too\ndeep'), 2, 'too deep'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, 'out of memory'),
    (UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'), 2, 'UnicodeDecodeError'),
    (type('PanicException', (BaseException,), {})('rust'), 2, 'rust'),
    (type('SafetensorError', (Exception,), {})('header'), 2, 'header'),
    (KeyError('steps'), 1, 'a fault of llmbook'), (RuntimeError('odd\nlines'), 1, 'odd lines'), (ValueError(), 1, 'ValueError')])
def test_every_error_is_one_line_and_a_code(error, code, words):
    line, found = raised(error)
    assert found == code and words in line and '\n' not in line


def test_the_commit_is_the_librarys_own(tmp_path, monkeypatch):
    assert re.fullmatch('[0-9a-f]{12}', core._git_commit() or '0' * 12)
    for command in (['init', '-q'], ['-c', 'user.name=x', '-c', 'user.email=x', 'commit', '-q', '--allow-empty', '-m', 'x']):
        subprocess.run(['git', *command], cwd=tmp_path, check=True)
    inside = tmp_path/'.venv/llmbook/__init__.py'
    inside.parent.mkdir(parents=True)
    inside.touch()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: SimpleNamespace(origin=str(inside)))
    assert core._git_commit() is None


def test_the_nearest_name_in_capitals_or_cut_short():
    names = ['pretrain', 'generate', 'env', '--docs']
    for typed, name in (('PRETRAIN', 'pretrain'), ('gen', 'generate'), ('--DOCS', '--docs'), ('pretain', 'pretrain')):
        assert did_you_mean(typed, names) == f", did you mean {name!r}?"
    for typed in ('', 'g', 'xyzzy'): assert did_you_mean(typed, names) == ''


def test_the_pinned_versions_install_on_every_python_that_is_promised():
    "Debian 12 has 3.11.2: a pin that asks for 3.11.5 makes `make run` fail there."
    pins = {canonicalize_name(line.split('==')[0]) for line in (ROOT/'constraints.txt').read_text('utf-8').splitlines()}
    wanted = {package.name: package.metadata['Requires-Python'] for package in distributions()
              if canonicalize_name(package.name) in pins}
    refused = {name: versions for name, versions in wanted.items()
               if versions and not all(SpecifierSet(versions).contains(python) for python in ('3.11.0', '3.12.0'))}
    assert len(wanted) > 50 and not refused
