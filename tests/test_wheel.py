"""What a user gets who installs the wheel: it works outside the checkout, with everything that it needs inside."""
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def call(*command, cwd, **env):
    "Run a command away from the checkout, and return what it printed."
    clean = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "Built from a copy of the tracked files, so that nothing is left behind in the checkout."
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    names = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')
    for name in filter(None, names):
        if not (ROOT/name).is_file() or name.startswith(('nbs/', 'tests/', 'benchmarks/')): continue
        (source/name).parent.mkdir(parents=True, exist_ok=True)
        (source/name).write_bytes((ROOT/name).read_bytes())
    quietly = '--quiet', '--no-deps', '--no-build-isolation'
    call(sys.executable, '-m', 'pip', 'wheel', *quietly, '--wheel-dir', out, source, cwd=out)
    [made] = out.glob('*.whl')
    return made


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    "An environment with the wheel; its dependencies are those of this environment, whose own llmbook it does not see."
    home = tmp_path_factory.mktemp('env')
    call(sys.executable, '-m', 'venv', '--without-pip', home, cwd=home)
    own = Path(sysconfig.get_path('purelib', vars={'base': str(home), 'platbase': str(home)}))
    with zipfile.ZipFile(wheel) as z: z.extractall(own)
    (own/'dependencies.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return home/'bin/python'


def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split('/')[0] for n in names}
    assert len(tops) == 2 and 'llmbook' in tops
    for needed in ('exercises/attention.py', 'assets/report.css', 'assets/nano-pretrain/model.safetensors'):
        assert f'llmbook/{needed}' in names
    entry = next(n for n in names if n.endswith('entry_points.txt'))
    assert 'llmbook=llmbook.cli:main' in zipfile.ZipFile(wheel).read(entry).decode().replace(' ', '')


def test_it_works_elsewhere(python, tmp_path):
    assert 'usage: llmbook' in call(python, '-m', 'llmbook', '--help', cwd=tmp_path)
    assert '0.1.0' in call(python, '-m', 'llmbook', 'env', cwd=tmp_path)
    code = "import llmbook; from llmbook.lesson import grade; print(llmbook.__file__); print(grade('attention.1', 0))"
    where, verdict = call(python, '-c', code, cwd=tmp_path).splitlines()
    assert where.startswith(str(python.parents[1])) and 'not yet' in verdict
    call(python, '-m', 'llmbook', 'corpus', '--docs', '3', '--out', 'three', cwd=tmp_path)
    assert 'Mira' in call(python, '-c', code.split(';')[0] + "; from llmbook.text.state import NAMES; print(NAMES)", cwd=tmp_path)
