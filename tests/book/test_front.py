"The front door: what badges open is there, and nothing that they install puts another torch in the place of one."
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT/'README.md').read_text('utf-8')
START = json.loads((ROOT/'nbs/start.ipynb').read_text('utf-8'))['cells']
COLAB = next(''.join(c['source']) for c in START if 'COLAB_RELEASE_TAG' in ''.join(c['source']))


def opened(url):
    "Owner and name, branch and path of what a badge opens."
    if m := re.fullmatch(r'https://colab\.research\.google\.com/github/(\S+?/\S+?)/blob/(\w+)/(\S+)', url): return m.groups()
    m = re.fullmatch(r'https://mybinder\.org/v2/gh/(\S+?/\S+?)/(\w+)\?urlpath=lab/tree/(\S+)', url)
    return m.groups() if m else None


def test_badges_open_what_is_there():
    settings = tomllib.loads((ROOT/'pyproject.toml').read_text())['tool']['nbdev']
    found = [opened(url) for url in re.findall(r'\)\]\((https://\S+?)\)', README.split('\n## ')[0])]
    assert len(found) == 2 and all(found)
    for repository, branch, path in found:
        assert repository == f"{settings['user']}/{settings['repo']}" and branch == settings['branch'] and (ROOT/path).is_file()


def test_the_first_screen():
    "A claim, one command, badges, measured numbers and a picture, in this order; the tracks; the limits last."
    parts = ['> From raw text', 'Build a language model you can check', '\nmake run\n', 'colab-badge.svg', '<div class="stats">',
             '](nbs/images/ladder.svg)', '% of the way', '~~', '<div class="tracks">', '`... passed`', '## What it cannot do yet']
    places = [README.index(part) for part in parts]
    assert places == sorted(places)
    limits = README[places[-1]:]
    assert 'WSL' in limits and 'macOS' in limits and (ROOT/'nbs/images/ladder.svg').stat().st_size > 5000
    assert all(f'**{track}**' in README for track in ('The short path', 'Data', 'The cluster', 'Alignment'))


def installs(text): return re.findall(r'pip install (.*)', text)


PAGE = (ROOT/'nbs/install.md').read_text('utf-8').split('**Colab')[1]


@pytest.mark.parametrize('text', [COLAB, (ROOT/'.binder/postBuild').read_text(), PAGE], ids=['Colab', 'Binder', 'the page'])
def test_torch_stays(text):
    "pip is told torch's version in the line above, so it cannot choose another one."
    assert installs(text) and all('-c torch.txt' in line for line in installs(text))
    assert text.index('torch.__version__') < text.index('pip install')


def test_the_constraint_is_what_is_installed(tmp_path):
    [line] = re.findall(r'python (-c ".*") > torch.txt', COLAB)
    done = subprocess.run(f'"{sys.executable}" {line}', shell=True, cwd=tmp_path, capture_output=True, text=True)
    import torch
    assert done.stdout.strip() == f'torch=={torch.__version__}', done.stderr


def test_elsewhere_the_cell_does_nothing():
    assert 'COLAB_RELEASE_TAG' not in os.environ
    head, body = COLAB.split('in os.environ:')
    assert all(line.startswith('    ') or not line for line in body.splitlines()[1:]) and 'eval: false' in head


def test_binder():
    wanted = yaml.safe_load((ROOT/'.binder/environment.yml').read_text())['dependencies']
    assert 'python=3.12' in wanted and any(str(w).startswith('pytorch-cpu') for w in wanted)
    assert os.access(ROOT/'.binder/postBuild', os.X_OK)
