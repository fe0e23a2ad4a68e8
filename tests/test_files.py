"Files that are complete or absent: errors, kills, odd content."

import gzip
import hashlib
import json
import math
import os
import signal

import pytest

from llmbook.core import UserError
from llmbook.files import atomic_write, read_json, read_jsonl, sha256_of, write_json, write_jsonl, write_text


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
    obj = {'x': [0.1 + 0.2, 1e-320, None], 'path': tmp_path, 'é🙂': 'a\u2028b', 'half': '\ud83d'}
    back = read_json(write_json(tmp_path/'a.json', obj))
    assert back == obj | {'path': str(tmp_path)}
    assert read_json(write_json(tmp_path/'n.json', {'a': [math.nan, (-math.inf,)]})) == {'a': [None, [None]]}
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


def test_checksum(tmp_path):
    for content in (b'', b'abc', bytes(3_000_000)):
        (tmp_path/'x').write_bytes(content)
        assert sha256_of(tmp_path/'x') == hashlib.sha256(content).hexdigest()


def test_rows_nested_too_deeply_to_be_written_again(tmp_path):
    path = tmp_path/'rows.jsonl'
    for depth, good in ((90, True), (150, False), (900, False), (100_000, False)):
        path.write_text('{"text": "a", "x": ' + '[' * depth + ']' * depth + '}\n')
        if good: assert write_jsonl(tmp_path/'again.jsonl', read_jsonl(path)) == 1
        else:
            with pytest.raises(UserError, match='rows.jsonl, line 1'): list(read_jsonl(path))
    flat = {'x': [[i] for i in range(500)]}  # many brackets are not depth
    path.write_text(json.dumps(flat) + '\n')
    assert list(read_jsonl(path)) == [flat]
