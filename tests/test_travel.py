"A function that travels: what is sent, under which name, and what comes out on the other side."
import linecache
import math
import traceback
import xml
import xml.dom.minidom
import xml.etree.ElementTree
from multiprocessing import Pipe
from types import SimpleNamespace

import cloudpickle
import pytest

from llmbook.scale import travel

SOURCE = 'def share(n):\n    return [12 / x for x in n]  # the line\n'


def sent(value):
    "Through a pipe and back."
    ours, theirs = Pipe()
    theirs.send_bytes(travel.to_bytes(value))
    return travel.receive(ours)


def of_a_cell(filename):
    "A function as a notebook makes it: its lines are in memory, its module is `__main__`."
    linecache.cache[filename] = len(SOURCE), None, SOURCE.splitlines(True), filename
    names = {'__name__': '__main__'}
    exec(compile(SOURCE, filename, 'exec'), names)
    return names['share']


def triple(x): return 3*x


def test_functions_of_modules_go_by_name():
    assert sent(triple) is triple and sent(math.sqrt) is math.sqrt
    assert len(travel.to_bytes(triple)) < 100 < len(travel.to_bytes(lambda x: 3*x))


@pytest.mark.parametrize('filename, name', [
    ('/tmp/ipykernel_1/23.py', '<cell>'), ('<ipython-input-3-ab>', '<ipython-input-3-ab>')])
def test_lines_of_a_cell_travel(filename, name):
    "Code within code too. No shell of IPython runs here, so the cell has no number."
    value = travel.to_bytes(of_a_cell(filename))
    del linecache.cache[filename]
    ours, theirs = Pipe()
    theirs.send_bytes(value)
    share = travel.receive(ours)
    assert share([4]) == [3] and b'ipykernel' not in value
    with pytest.raises(ZeroDivisionError) as caught: share([0])
    frames = traceback.extract_tb(caught.value.__traceback__)[1:]
    assert frames and all((f.filename, f.lineno, f.line) == (name, 2, SOURCE.splitlines()[1].strip()) for f in frames)


def test_a_file_keeps_its_name():
    assert sent(lambda: 1).__code__.co_filename == __file__


def test_globals_and_classes():
    class Mine: pass
    here = [1]
    there = sent(lambda: here)()
    there.append(2)
    assert here == [1] and type(sent(Mine())) is Mine


def etree(): return xml.etree.ElementTree.Element('dom').tag


def named(): return xml.__name__, 'words', etree.dom, etree.minidom


def alias():
    x = xml
    return x.dom.minidom.Document().nodeType


def inner():
    other = SimpleNamespace()
    other.dom = other.minidom = None
    return (lambda: xml.dom.minidom.Document().nodeType)()


def as_if_of_a_cell(fn): return type(fn)(fn.__code__, globals(), 'local')


def test_submodules_are_imported_where_they_may_be_used():
    "`dom` and `minidom` occur in the second function, which uses no submodule of `xml`."
    assert travel._dotted_names(etree) == {'xml.etree.ElementTree.Element'}
    assert b'xml.etree.ElementTree' in travel.to_bytes(as_if_of_a_cell(etree))
    value = as_if_of_a_cell(named)
    assert b'xml.dom' in cloudpickle.dumps(value) and b'xml.dom' not in travel.to_bytes(value)
    assert sent(as_if_of_a_cell(etree))() == 'dom'


@pytest.mark.parametrize('fn', [alias, inner])
def test_a_submodule_that_cloudpickle_keeps_is_kept_where_it_is_used(fn):
    "Through a local variable, and by a function within the function."
    value = as_if_of_a_cell(fn)
    assert b'xml.dom.minidom' in cloudpickle.dumps(value) and b'xml.dom.minidom' in travel.to_bytes(value)
    assert sent(value)() == 9


def test_what_is_bound_to_this_process_is_refused():
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"): travel.to_bytes(i for i in 'abc')
