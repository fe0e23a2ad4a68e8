"""JupyterLab as a reader meets it: a chapter is opened in a browser, all its cells are run, and the page is looked at.

Needs Chromium or Chrome; none is downloaded. Pictures of the pages are kept in the folder that LLMBOOK_SHOTS names.
"""
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import nbformat
import psutil
import pytest
from needs import needs

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [pytest.mark.slow, needs('playwright', 'dev'),
              pytest.mark.skipif(BROWSER is None, reason=f'no browser: none of {", ".join(BROWSERS)} is on the PATH')]

SETTINGS = {  # of a reader's JupyterLab: every cell in the page, not only those in sight; no question about news
    'notebook-extension/tracker': {'windowingMode': 'none'},
    'apputils-extension/notification': {'fetchNews': 'false', 'checkForUpdates': False}}
LAB = ['--no-browser', '--ip=127.0.0.1', '--ServerApp.allow_root=True', '--LabApp.extension_manager=readonly',
       '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
       # Where this test is killed, nobody ends the server: then it does so itself, some minutes later.
       '--MappingKernelManager.cull_idle_timeout=120', '--MappingKernelManager.cull_interval=30',
       '--ServerApp.shutdown_no_activity_timeout=240']
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--no-proxy-server',
         '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']
LOOK = """() => {
    const all = (what) => [...document.querySelectorAll(`.jp-Notebook ${what}`)];
    const red = ['error', 'stderr'].map(kind => `[data-mime-type="application/vnd.jupyter.${kind}"]`).join();
    const words = [...document.querySelectorAll('.jp-StatusBar-TextItem')].map(t => t.textContent);
    return {idle: words.some(t => t.endsWith('| Idle')),  // such as 'Python 3 (ipykernel) | Idle'
            dirty: !!document.querySelector('.jp-mod-dirty'),
            waiting: all('.jp-InputPrompt').filter(p => p.textContent.includes('*')).length,
            run: all('.jp-InputPrompt').filter(p => /[0-9]/.test(p.textContent)).length,
            bars: all('.jp-OutputArea-output progress').map(p => [p.value, p.max]),
            pictures: all('.jp-OutputArea-output img').map(p => [p.naturalWidth * p.naturalHeight, p.src.length]),
            red: all('.jp-OutputArea-output').filter(p => p.matches(red)).map(p => p.textContent.slice(0, 500))};
}"""
SHOW_BAR = """() => [...document.querySelectorAll('.jp-OutputArea-output progress')].find(p => p.value < p.max)
                 ?.scrollIntoView({block: 'center'})"""


def until(what, seconds, *args):
    "Wait until `what(*args)` gives something, and return it."
    end = time.monotonic() + seconds
    while not (found := what(*args)):
        assert time.monotonic() < end, f'{what.__name__}: nothing after {seconds} s'
        time.sleep(0.2)
    return found


class Lab:
    "A server of its own: a copy of the chapters, settings and kernels in a folder that nobody else uses."
    def __init__(self, folder):
        self.folder, self.root, self.token = folder, folder/'book', secrets.token_hex(16)
        copied = shutil.ignore_patterns('.*', '_quarto.yml', 'nbdev.yml')
        shutil.copytree(ROOT/'nbs', self.root/'nbs', ignore=copied)
        for name, values in SETTINGS.items():
            path = folder/f'settings/@jupyterlab/{name}.jupyterlab-settings'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        own = {f'JUPYTER_{name}_DIR': str(folder/name.lower()) for name in ('CONFIG', 'DATA', 'RUNTIME')}
        own |= {f'JUPYTERLAB_{name}_DIR': str(folder/name.lower()) for name in ('SETTINGS', 'WORKSPACES')}
        env = os.environ | own | dict(IPYTHONDIR=str(folder/'ipython'), PYTHONPATH=str(ROOT), PYTHONUTF8='1', HF_HUB_OFFLINE='1',
                                      OMP_NUM_THREADS='1')  # two threads on busy cores wait for each other
        for name in ('MPLBACKEND', 'IN_TEST', 'JUPYTER_TOKEN'): env.pop(name, None)
        command = [sys.executable, '-m', 'jupyter', 'lab', *LAB, f'--IdentityProvider.token={self.token}',
                   f'--ServerApp.root_dir={self.root}', f'--ServerApp.port={free_port()}']
        self.log = folder/'server.log'
        with self.log.open('w') as log:
            self.server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                           start_new_session=True)

    def address(self):
        "Where it answers; None as long as it does not."
        assert self.server.poll() is None, 'the server has ended'
        for path in (self.folder/'runtime').glob('jpserver-*.json'):
            try:
                url = json.loads(path.read_text())['url']  # the port is another one where ours was taken in between
                with build_opener(ProxyHandler({})).open(f'{url}api/status?token={self.token}', timeout=5): return url
            except (OSError, ValueError): return None

    def close(self):
        "Ask it to end, which ends its kernels; then make sure."
        family = [self.server]
        try: family += psutil.Process(self.server.pid).children(recursive=True)
        except psutil.NoSuchProcess: pass
        self.server.terminate()
        try: self.server.wait(20)
        except subprocess.TimeoutExpired: pass
        for process in family:
            try: process.kill()
            except psutil.NoSuchProcess: pass
        self.server.wait(10)


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp('lab'))
    try:
        with log_on_failure(lab): lab.url = until(lab.address, 60)
        yield lab
    finally: lab.close()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    env = os.environ | dict.fromkeys(('XDG_CONFIG_HOME', 'XDG_CACHE_HOME'), str(tmp_path_factory.mktemp('browser')))
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=FLAGS, env=env)
        yield browser
        browser.close()


@contextmanager
def log_on_failure(lab):
    try: yield
    except BaseException:
        print(f'The end of the log of JupyterLab:\n{lab.log.read_text()[-4000:]}')
        raise


@contextmanager
def opened(lab, browser, name, shots):
    "A page on a notebook; where something fails, what it looked like then."
    with log_on_failure(lab), browser.new_page(viewport={'width': 1280, 'height': 900}) as tab:
        try: yield Page(lab, tab, name, shots)
        except BaseException:
            tab.screenshot(path=shots/f'{name}-failed.png')
            raise


class Page:
    "A notebook, open in the browser."
    def __init__(self, lab, tab, name, shots):
        self.path, self.shots, self.name, self.page = lab.root/f'nbs/{name}.ipynb', shots, name, tab
        self.quarters, self.pictures, self.strangers = set(), set(), set()
        self.page.set_default_timeout(60_000)
        self.page.on('request', self.note_stranger)
        self.page.goto(f'{lab.url}lab/workspaces/{name}/tree/nbs/{name}.ipynb?token={lab.token}')
        until(self.idle, 90)

    def note_stranger(self, request):
        "An address that is not this machine's."
        url = urlsplit(request.url)
        if url.scheme not in ('data', 'blob') and url.hostname != '127.0.0.1': self.strangers.add(request.url)

    def look(self):
        "What is on the page now. Each quarter in which a bar is seen has its photograph."
        now = self.page.wait_for_function(LOOK).json_value()  # unlike `evaluate`, it has a time limit
        for value, most in now['bars']:
            if 0 < value < most and (quarter := 4 * value // most) not in self.quarters:
                self.quarters.add(quarter)
                self.page.evaluate(SHOW_BAR)
                self.shoot(f'bar-{quarter + 1:.0f}')
        self.pictures |= {tuple(p) for p in now['pictures']}
        return now

    def idle(self): return self.look()['idle']

    def begun(self): return (now := self.look())['waiting'] or now['run']

    def done(self):
        "Nothing waits, nothing runs, and not only between two cells."
        for _ in range(5):
            now = self.look()
            if now['waiting'] or not now['idle']: return None
            self.page.wait_for_timeout(200)
        return now

    def saved(self): return not self.look()['dirty']

    def run(self, seconds):
        "Restart the kernel and run all cells, by the menu; save; what is then on the page, and in the file."
        self.page.get_by_role('menuitem', name='Run', exact=True).click()
        self.page.get_by_role('menuitem', name='Restart Kernel and Run All Cells').click()
        self.page.get_by_role('button', name='Confirm Kernel Restart').click()
        until(self.begun, 60)
        now = until(self.done, seconds)
        self.page.keyboard.press('ControlOrMeta+s')
        until(self.saved, 30)
        return now, nbformat.read(self.path, 4)

    def shoot(self, what): self.page.screenshot(path=self.shots/f'{self.name}-{what}.png')

    def shoot_all(self, height=1800):
        "The whole notebook, a screen after the other."
        self.page.set_viewport_size({'width': 1280, 'height': height})
        paper = self.page.locator('.jp-Notebook .jp-WindowedPanel-outer').first
        tall, at = paper.evaluate("""p => { const [first, last] = [0, -1].map(i => [...p.querySelectorAll('.jp-Cell')].at(i));
            return [last.getBoundingClientRect().bottom - first.getBoundingClientRect().top, p.clientHeight]; }""")
        for i in range(-int(-tall // at)):
            paper.evaluate('(p, top) => { p.scrollTop = top }', i * at)
            self.page.wait_for_timeout(200)
            self.shoot(f'{i + 1:02}')


def drawn(cells): return sum(any(m.startswith('image/') for m in o.get('data', {})) for c in cells for o in c.get('outputs', []))


def complaints(page, now, notebook, pictures):
    "What is wrong with a notebook that was run; `pictures` is how many it has to show at least."
    bad = [f'{page.name} asked for {url}' for url in sorted(page.strangers)]
    code = [c for c in notebook.cells if c.cell_type == 'code' and c.source.strip()]
    counts = [c.execution_count for c in code]
    if counts != list(range(1, len(code) + 1)): bad.append(f'not run from top to bottom: {counts}')
    bad += [f'error in the file: {o.ename}: {o.evalue}' for c in code for o in c.outputs if o.output_type == 'error']
    bad += [f'red on the page: {text}' for text in now['red']]
    if not page.quarters: bad.append('no bar was seen moving')
    if not now['bars'] or any(value < most for value, most in now['bars']): bad.append(f'bars not at their end: {now["bars"]}')
    on, kept = len(now['pictures']), drawn(code)
    if on != kept or on < pictures: bad.append(f'{on} pictures on the page, {kept} in the file, {pictures} before')
    if not all(area for area, _ in now['pictures']): bad.append('a picture that does not open')
    return bad


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get('LLMBOOK_SHOTS') or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize('name, without', [('start', ()), ('220_clm', ('#| slow',))])
def test_every_cell_runs(lab, browser, shots, name, without):
    """Restart and run all: no error, nothing red, a bar that moves and arrives, every picture.

    All old outputs are taken away first. The cell of the chapter `clm` that is marked slow trains for four minutes and is
    left out; the cells behind it read its committed results, as they do when the book is built.
    """
    path = lab.root/f'nbs/{name}.ipynb'
    notebook = nbformat.read(path, 4)
    pictures = max(1, drawn(notebook.cells))
    notebook.cells = [c for c in notebook.cells if not (c.cell_type == 'code' and without and c.source.startswith(without))]
    for c in notebook.cells:
        if c.cell_type == 'code': c.outputs, c.execution_count = [], None
    nbformat.write(notebook, path)
    with opened(lab, browser, name, shots) as page:
        now, saved = page.run(400)
        page.shoot_all()
        assert complaints(page, now, saved, pictures) == []
        assert name != 'start' or len(page.pictures) > 3 * len(now['pictures']), 'no picture was drawn anew while it learnt'


MUTANT = ["""from IPython.display import HTML; HTML('<progress max=2 value=0></progress><img src="http://nowhere.invalid/x.png">')""",
          "import sys; print('red', file=sys.stderr)", '1/0', '2']


def test_complaints(lab, browser, shots):
    "A notebook in which everything is wrong: the test above is able to fail."
    notebook = nbformat.read(lab.root/'nbs/index.ipynb', 4)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in MUTANT]
    nbformat.write(notebook, lab.root/'nbs/mutant.ipynb')
    with opened(lab, browser, 'mutant', shots) as page:
        bad = complaints(page, *page.run(30), pictures=2)
        wanted = ['mutant asked for http://nowhere.invalid/x.png', 'not run from top to bottom: [1, 2, 3, None]',
                  'error in the file: ZeroDivisionError: division by zero', 'red on the page: red', 'red on the page: -----',
                  'no bar was seen moving', 'bars not at their end: [[0, 2]]',
                  '1 pictures on the page, 0 in the file, 2 before', 'a picture that does not open']
        assert len(bad) == len(wanted) and all(b.startswith(w) for b, w in zip(bad, wanted)), bad


RANKS = ["""import torch.distributed as dist
from llmbook.scale.ranks import launch

def work(counts):
    if dist.get_rank() == 1:
        return 12 / counts[1]  # the line
    dist.barrier()
""", 'launch(work, 3, [4, 0, 3])']


def launched_by(server):
    "The ranks of all kernels of a server: children of a fork server."
    family = psutil.Process(server.pid).children(recursive=True)
    return [p for p in family if 'forkserver' in ' '.join(p.parent().cmdline()) and p.status() != psutil.STATUS_ZOMBIE]


def test_an_error_of_a_rank(lab, browser, shots):
    "A function of a cell fails on rank 1: the page shows the cell's line, one message names the rank, and all ranks end."
    notebook = nbformat.read(lab.root/'nbs/index.ipynb', 4)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in RANKS]
    nbformat.write(notebook, lab.root/'nbs/rank_error.ipynb')
    with opened(lab, browser, 'rank_error', shots) as page:
        _, saved = page.run(60)
        page.shoot_all()
        [error] = [o for o in saved.cells[1].outputs if o.output_type == 'error']
        text = '\n'.join(page.page.locator('.jp-Notebook .jp-OutputArea-output').all_inner_texts())
        for said in (error.evalue, text.replace('\xa0', ' ')):
            assert 'rank 1: ZeroDivisionError: division by zero\n' in said and not re.search('rank [02]: |ipykernel_', said), said
            assert re.search(r'File "<cell 1>", line 6, in work\n +return 12 / counts\[1\]  # the line\n', said), said
        assert not launched_by(lab.server)
