"A bar on a terminal, a bar without JavaScript in a notebook, plain lines elsewhere."

import os
import subprocess
import sys
import termios

import pytest

from llmbook import progress
from llmbook.progress import Progress


def test_progress_says_plain_lines(capsys):
    with Progress(4, 'demo', every=0) as bar:
        bar.update(3, 'loss 1')
        bar.write('a line')
    out = capsys.readouterr()
    assert out.out.startswith('demo 3/4  loss 1  0 s left\na line') and not out.err
    with Progress(4, every=100) as bar: bar.update()
    assert capsys.readouterr().out == ''
    Progress(1).close()


def test_plain_lines_come_at_their_time(capsys, monkeypatch):
    now = [100.0]
    with Progress(10, 'demo', start=2, every=15) as bar:
        monkeypatch.setattr(bar, '_time', lambda: now[0])
        bar.start_t = bar.last_print_t = now[0]
        for _ in range(6):
            now[0] += 6
            bar.update(1, 'loss 2')
    assert capsys.readouterr().out == 'demo 5/10  loss 2  30 s left\ndemo 8/10  loss 2  12 s left\n'


class Broken:
    def write(self, text): raise BrokenPipeError(32, 'Broken pipe')
    def flush(self): self.write('')


def test_a_reader_that_has_gone_is_noted(monkeypatch):
    "Nothing is raised: whoever trains may want to save first."
    for draw in (lambda bar: bar.update(3), lambda bar: bar.write('a line')):
        with Progress(4, 'demo', every=0) as bar:
            with monkeypatch.context() as m:
                m.setattr(sys, 'stdout', Broken())
                draw(bar)
            assert isinstance(bar.lost, BrokenPipeError)


def test_warnings_go_to_the_error_stream(capsys):
    with Progress(4, 'demo') as bar:
        bar.write('warning: a', file=sys.stderr)
        bar.write('b')
    assert capsys.readouterr() == ('b\n', 'warning: a\n') and bar.lost is None


def test_hidden_shows_no_bar_but_writes(capsys):
    with Progress(4, 'demo', every=0, hidden=True) as bar:
        bar.update(3, 'loss 1')
        bar.write('a line')
    out = capsys.readouterr()
    assert out.out == 'a line\n' and not out.err


class View:
    "What IPython's display gives back; keeps every picture."
    def __init__(self): self.pages = []
    def update(self, page, raw): self.pages.append(page)


@pytest.fixture
def view(monkeypatch):
    pytest.importorskip('IPython')
    view = View()
    monkeypatch.setattr(progress, '_in_notebook', lambda: True)
    monkeypatch.setattr('IPython.display.display', lambda page, raw, display_id: view.update(page, raw) or view)
    return view


def test_a_notebook_keeps_the_count_without_the_speed(view, capsys):
    with Progress(4, '<demo>', start=1) as bar:
        bar.mininterval = 0
        bar.update(2, 'loss 1, 5k tokens/s')
        bar.write('a line')
    bar.close()
    assert [p['text/plain'] for p in view.pages] == ['<demo> 1/4', '<demo> 3/4  loss 1, 5k tokens/s', '<demo> 3/4']
    assert view.pages[-1]['text/html'] == ('<div style="margin: 0 8px"><progress max="4" value="3" style="width: 40%; '
                                           'vertical-align: middle"></progress> &lt;demo&gt; 3/4</div>')
    out = capsys.readouterr()
    assert out.out == 'a line\n' and not out.err.strip()


def test_a_notebook_draws_five_times_a_second_at_most(view, monkeypatch):
    with Progress(1000, 'demo') as bar:
        for _ in range(1000): bar.update()
    assert 2 <= len(view.pages) < 20 and view.pages[-1]['text/plain'] == 'demo 1000/1000'


def test_hidden_in_a_notebook(view):
    with Progress(4, hidden=True) as bar: bar.update()
    assert not view.pages


TERMINAL = """
import threading
from llmbook.progress import Progress
with Progress(4, 'demo', start=1) as bar:
    bar.mininterval = 0
    bar.update(2, 'loss 1')
    bar.write('a line')
    assert len(threading.enumerate()) == 1
print('done')
"""


def test_a_terminal_has_a_bar_that_goes_away():
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.run([sys.executable, '-c', TERMINAL], stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=100)
    os.write(theirs, b'.')  # so that there is something to read
    drawn = b''
    while not drawn.endswith(b'.'): drawn += os.read(ours, 100_000)  # a terminal gives in pieces
    drawn = drawn.decode()
    for end in (ours, theirs): os.close(end)
    assert done.returncode == 0 and done.stdout == 'a line\ndone\n', drawn
    assert '1/4' in drawn and '3/4' in drawn and 'loss 1' in drawn and drawn.split('\r')[-2:] == [' ' * 79, '.']
