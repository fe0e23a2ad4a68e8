"Every kind of file, the Hub on a local folder, what holding out keeps, one line for each mistake."

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.core import UserError
from llmbook.text import unpack
from llmbook.text.corpus import HELD_START, _docstrings, corpus, hold_out, hub_documents
from llmbook.text.corpus import pydoc_documents, source_documents, world_documents, write_documents
from llmbook.text.documents import Skipped, _file_documents, as_documents, local_documents
from llmbook.text.rows import make_document

ROWS = [{'id': 'a', 'text': 'one\u2028two \x85 three'}, {'id': 7, 'text': 'é🙂', 'url': 'b.org'}]


def documents_of(name):
    "What `ROWS` become, read from a file of this name."
    return [make_document('a', 'one\u2028two \x85 three', name), make_document('7', 'é🙂', name, 'b.org')]


def jsonl(rows): return ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows).encode()


@pytest.mark.parametrize('name, content', [
    ('rows.jsonl', jsonl(ROWS)), ('rows.jsonl.gz', gzip.compress(jsonl(ROWS))), ('ROWS.JSONL', jsonl(ROWS)),
    ('mark.jsonl', b'\xef\xbb\xbf' + jsonl(ROWS)), ('gaps.jsonl', jsonl(ROWS[:1]) + b'\r\n \n' + jsonl(ROWS[1:]))])
def test_rows(name, content, tmp_path):
    (tmp_path/name).write_bytes(content)
    assert list(local_documents(tmp_path/name)) == documents_of(name)


@pytest.mark.parametrize('name, pack', [('a.txt', bytes), ('a.md', bytes), ('a.txt.gz', gzip.compress),
                                        ('v1.2.md.gz', gzip.compress)])
def test_plain_text_is_one_document(name, pack, tmp_path):
    (tmp_path/name).write_bytes(pack('one\n\nzwei é\n'.encode()))
    assert list(_file_documents(tmp_path/name, Skipped())) == [make_document(name, 'one\n\nzwei é\n', name)]


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist([{'text': f't{i}', 'score': i / 2} for i in range(2500)]),
                   tmp_path/'a.parquet')
    found = list(local_documents(tmp_path/'a.parquet'))
    assert len(found) == 2500 and found[2001] == make_document('a.parquet#2001', 't2001', 'a.parquet', score=1000.5)


def test_folder_in_order_and_its_own_file_first(tmp_path):
    (tmp_path/'sub').mkdir()
    for name in ('b.txt', 'a.md', 'sub/c.txt'): (tmp_path/name).write_text(name)
    (tmp_path/'x.tar.gz').write_bytes(b'?')
    (tmp_path/'picture.png').write_bytes(b'?')
    assert [d['text'] for d in local_documents(tmp_path)] == ['a.md', 'b.txt', 'sub/c.txt']
    write_documents(tmp_path, [{'id': '1', 'text': 'ours'}])
    assert [d['text'] for d in local_documents(tmp_path)] == ['ours']


@pytest.mark.parametrize('name, content, words', [
    ('a.png', b'x', 'cannot read .png'), ('a', b'x', 'a file without suffix'), ('a.gz', b'x', 'cannot read .gz'),
    ('a.parquet.gz', b'x', 'cannot read .parquet.gz'), ('a.txt', 'é'.encode('latin-1'), 'not UTF-8 at byte 0'),
    ('a.jsonl', '{"text": "é"}'.encode('latin-1'), 'not UTF-8'),
    ('a.txt', b' \n', 'corpus is empty'), ('a.jsonl', b'', 'corpus is empty'),
    ('a.txt.gz', b'plain', 'not a gzipped file'), ('a.jsonl.gz', b'plain', 'not a gzipped file'),
    ('a.txt.gz', gzip.compress(b'text' * 99)[:-12], 'a.txt.gz: '),
    ('a.jsonl.gz', gzip.compress(jsonl(ROWS))[:-12], 'a.jsonl.gz, after line '),
    ('a.jsonl.gz', gzip.compress(b'{"text": "a"}\n\n{"text"\n'), 'line 3: not a JSON'),
    ('a.jsonl', b'[' * 100_000, 'line 1: not a JSON'),
    ('a.jsonl', b'[1]\n', "row 1: no 'text'"), ('a.jsonl', b'{"text": "a"}\n{"text": null}\n', "row 2: no 'text'"),
    ('a.parquet', b'PAR1', 'not a parquet file')])
def test_a_mistake_is_one_line(name, content, words, tmp_path):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(UserError) as e: list(local_documents(tmp_path/name))
    assert words in str(e.value) and name in str(e.value) and '\n' not in str(e.value)


def test_half_characters_do_not_travel(tmp_path):
    for row in ('{"id": "a", "text": "a\\ud83d"}', '{"id": "\\ud800", "text": "a"}',
                '{"text": "a", "url": "\\ude00"}'):
        (tmp_path/'a.jsonl').write_text('{"text": "first"}\n' + row + '\n{"text": "last"}\n')
        with pytest.raises(UserError,
                           match='a.jsonl, row 2: half of a character') as e: list(local_documents(tmp_path/'a.jsonl'))
        assert '\n' not in str(e.value)
        assert counted(tmp_path/'a.jsonl', lenient=True) == (['first', 'last'], {'rows with half a character': 1})


def test_half_a_character_beside_the_text_is_kept_as_it_was(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"text": "a", "note": "\\ud83d"}\n')
    assert write_documents(tmp_path/'out', local_documents(tmp_path/'a.jsonl')) == {'documents': 1, 'bytes': 1}
    assert r'\ud83d' in (tmp_path/'out/documents.jsonl').read_text('utf-8')
    assert [d['meta'] for d in local_documents(tmp_path/'out')] == [{'note': '\ud83d'}]
    assert write_documents(tmp_path/'two', [{'id': 'a', 'text': '\ud83d'}])['documents'] == 1


def test_rows_keep_what_they_know():
    rows = [{'text': 'a', 'meta': {}}, {'text': 'a', 'meta': {'k': 1}, 'x': 2}, {'text': 'a', 'meta': 'web',
            'id': None}]
    assert [d['meta'] for d in as_documents(rows, 'n')] == [{}, {'k': 1, 'x': 2}, {'meta': 'web'}]
    assert [d['id'] for d in as_documents(rows, 'n')] == ['n#0', 'n#1', 'n#2']


@pytest.mark.parametrize('row, document', [
    ({'source': 's', 'url': 'u', 'licence': 'l'}, make_document('n#0', 'a', 's', 'u', 'l')),
    ({'license': 'MIT'}, make_document('n#0', 'a', 'n', licence='MIT')),
    ({'license': 'MIT', 'licence': ''}, make_document('n#0', 'a', 'n') | {'meta': {'license': 'MIT'}}),
    ({'source': '', 'url': 5}, make_document('n#0', 'a', '') | {'meta': {'url': 5}}),
    ({'licence': None, 'license': ['MIT']}, make_document('n#0', 'a', 'n') | {'meta': {'licence': None,
            'license': ['MIT']}}),
    ({'meta': {'url': 'u', 'text': 't'}}, make_document('n#0', 'a', 'n') | {'meta': {'url': 'u', 'text': 't'}})])
def test_what_has_a_place_is_lifted(row, document):
    found, = as_documents([row | {'text': 'a'}], 'n')
    assert found == document
    assert list(as_documents([found], 'documents.jsonl')) == [document] # and read again it is the same


@pytest.mark.parametrize('kind', ['jsonl', 'parquet'])
def test_hub_on_a_local_folder(kind, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    rows = [{'id': str(i), 'text': f'text {i}', 'score': i} for i in range(10)]
    (tmp_path/'data').mkdir()
    if kind == 'jsonl': (tmp_path/'data/train-0.jsonl').write_bytes(jsonl(rows))
    else: pq.write_table(pa.Table.from_pylist(rows), tmp_path/'data/train-0.parquet')
    found = list(hub_documents(str(tmp_path/'data'), n=3))
    assert found == [make_document(str(i), f'text {i}', str(tmp_path/'data'), score=i) for i in range(3)]
    for args, words in [({'split': 'tset'}, 'tset'), ({'field': 'body'}, "'body'")]:
        with pytest.raises(UserError, match=words) as e: list(hub_documents(str(tmp_path/'data'), **args))
        assert '\n' not in str(e.value)
    with pytest.raises(UserError,
                       match='does not open') as e: list(hub_documents(str(tmp_path/'data') + ':no-such-config'))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('kind', ['json', 'parquet', 'csv'])
def test_hub_streams_files_that_are_named(kind, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    table = pa.Table.from_pylist([{'id': str(i), 'text': f'text {i}', 'license': 'MIT',
                                   'score': i} for i in range(10)])
    for name in ('one', 'two'):
        if kind == 'parquet': pq.write_table(table, tmp_path/name)
        elif kind == 'csv': table.to_pandas().to_csv(tmp_path/name, index=False)
        else: (tmp_path/name).write_bytes(jsonl(table.to_pylist()))
    wanted = [make_document(str(i), f'text {i}', kind, licence='MIT', score=i) for i in range(10)]
    files = [str(tmp_path/'one'), str(tmp_path/'two')]
    assert list(hub_documents(kind, files=files[0])) == wanted
    found = list(hub_documents(kind, files=files, n=13))
    assert [d['text'] for d in found] == [d['text'] for d in wanted + wanted[:3]]
    for row, words in (({'text': None}, "row 3: no 'text'"), ({'text': 'a', 'url': '\ud800'}, 'row 3: half')):
        rows = [{'text': 'a', 'url': 'u'}, {'text': 'b', 'url': 'u'}, row, {'text': 'c', 'url': 'u'}]
        with pytest.raises(UserError, match=words): list(as_documents(rows, kind))
        assert [d['text'] for d in as_documents(rows, kind, skipped=Skipped(lenient=True))] == ['a', 'b', 'c']


def test_sources(tmp_path):
    assert [d['id'] for d in source_documents('world', 2, seed=5)] == ['world-5-0', 'world-5-1']
    assert [d['id'] for d in source_documents('pydoc', 2)] == [d['id'] for d in pydoc_documents(2)]
    (tmp_path/'a.jsonl').write_bytes(jsonl(ROWS))
    assert len(list(source_documents(str(tmp_path/'a.jsonl'), 1))) == 1
    for name, words in (('wrold', "did you mean 'world'"),
                        ('./none', 'no such file'), ('none.txt', 'no such file'), ('a/b.txt', 'no such file')):
        with pytest.raises(UserError, match=words): list(source_documents(name))


def test_world_prices_and_numbers():
    a, b = list(world_documents(5)), list(world_documents(3, start=2))
    assert a[2:] == b and all(d['meta']['blind'] < d['meta']['logp'] < 0 for d in a)
    assert not {d['text'] for d in world_documents(200)} & {d['text'] for d in world_documents(200, start=HELD_START)}


def test_documentation_is_read_without_running_it(tmp_path):
    bad = tmp_path/'bad.py'
    bad.write_text('"Doc."\nopen(__file__ + ".ran", "w")\nclass A:\n  "A."\n  def f(self): "F."\n')
    assert _docstrings(bad) == 'bad\n\nDoc.\n\nbad.A\n\nA.\n\nbad.A.f\n\nF.' and not (tmp_path/'bad.py.ran').exists()
    for name, content in (('a.py', b'def ('), ('b.py', b'\xff'), ('c.py', b'\0')):
        (tmp_path/name).write_bytes(content)
        assert _docstrings(tmp_path/name) == ''


def test_documentation_in_part_and_whole():
    few = pydoc_documents(5)
    few[0]['text'] = 'changed by a reader'
    whole = pydoc_documents()
    assert whole[1:5] == few[1:] and whole[0] != few[0] and len({d['id'] for d in whole}) == len(whole) > 300
    assert sum(len(d['text']) for d in whole) > 1_000_000 and any(d['id'].startswith('topic/') for d in whole)


documents = st.lists(st.text(max_size=20), max_size=8).map(
    lambda ts: [{'id': str(i), 'text': t, 'meta': {'i': i}} for i, t in enumerate(ts)])


@settings(max_examples=200, deadline=None)
@given(documents, st.floats(0, 1))
def test_holding_out_keeps_everything(docs, share):
    train, val = hold_out(iter(docs), share)
    whole = ''.join(d['text'] for d in docs)
    assert ''.join(d['text'] for d in train + val) == whole
    assert sum(len(d['text']) for d in train) == round(len(whole) * (1 - share))
    assert all(d in docs or d['meta'] == {} for d in train + val)
    assert len({d['id'] for d in train + val}) == len(train + val) <= len(docs) + 1


def test_the_verb(tmp_path, capsys):
    assert corpus('world', str(tmp_path/'a'), docs=3, seed=1)['documents'] == 3
    assert json.loads((tmp_path/'a/corpus.json').read_text())['source'] == 'world'
    assert list(local_documents(tmp_path/'a')) == list(world_documents(3, seed=1))
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(UserError, match='--docs 0'): corpus(docs=0, out=str(tmp_path/'b'))
    with pytest.raises(UserError, match='empty'): write_documents(tmp_path/'c', [])
    with pytest.raises(UserError, match='empty'): write_documents(tmp_path/'a', [])
    assert len(list(local_documents(tmp_path/'a'))) == 3 and not (tmp_path/'c/documents.jsonl').exists()


def counted(path, lenient=False):
    left_out = Skipped(lenient=lenient)
    return [d['text'] for d in local_documents(path, left_out)], dict(left_out)


def test_one_shape_for_all(tmp_path):
    for name, content in {'a.txt': 'a', 'b.jsonl': '{"text": "b"}', 'c.csv': 'text\nc\n', 'd.html': 'd'}.items():
        (tmp_path/name).write_text(content)
    found = [*local_documents(tmp_path), *world_documents(2), *pydoc_documents(2)]
    for document in found:
        assert list(document) == ['id', 'text', 'source', 'url', 'licence', 'meta'] and isinstance(document['meta'],
                dict)
        assert all(isinstance(value, str) for name, value in document.items() if name != 'meta')
    assert [d['source'] for d in found] == ['a.txt', 'b.jsonl', 'c.csv', 'd.html', 'world', 'world', 'pydoc', 'pydoc']
    write_documents(tmp_path/'out', found)
    assert list(local_documents(tmp_path/'out')) == found


def test_everything_given_is_read_and_the_rest_is_counted(tmp_path, capsys):
    (tmp_path/'rows.jsonl').write_bytes(jsonl([{'text': f'row {i}'} for i in range(25_000)] + [{'text': ' '}] * 3))
    assert corpus(str(tmp_path/'rows.jsonl'), str(tmp_path/'all'))['documents'] == 25_000
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 and 'empty documents: 3 (the first: rows.jsonl#25000)' in said.err
    assert json.loads((tmp_path/'all/corpus.json').read_text())['left_out'] == {'empty documents': 3}
    assert corpus(str(tmp_path/'rows.jsonl'), str(tmp_path/'few'), docs=24_990)['documents'] == 24_990
    assert '10 (the first: rows.jsonl#24990)' in capsys.readouterr().err
    corpus('pydoc', str(tmp_path/'manual'), docs=2)
    assert 'pydoc holds after the first 2' in capsys.readouterr().err


def test_names_that_are_not_read_are_counted(tmp_path):
    for name in ('a.txt', 'B.TXT', 'c.png', 'd.PNG', 'noext', '.hidden.txt', '.ipynb_checkpoints/a-checkpoint.txt',
                 'sub/e.md'):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text(name)
    (tmp_path/'f.txt').write_text('\n')
    (tmp_path/'link').symlink_to(tmp_path/'sub')
    (tmp_path/'gone.txt').symlink_to(tmp_path/'nothing')
    (tmp_path/'file.txt').symlink_to(tmp_path/'a.txt')
    os.mkfifo(tmp_path/'pipe.txt')
    assert counted(tmp_path) == (['B.TXT', 'a.txt', 'a.txt', 'sub/e.md'], {
        'hidden names': 2, '.png files': 2, 'empty documents': 1, 'links that lead nowhere': 1, 'links to folders': 1,
        'other files': 1, 'pipes and devices': 1})


def test_a_finished_corpus_is_read_alone_and_without_what_it_holds_out(tmp_path):
    for name in ('world', 'pydoc'):
        write_documents(tmp_path/name, [{'id': name, 'text': f'{name} train'}])
        write_documents(tmp_path/name/'val', [{'id': name, 'text': f'{name} held out'}])
        (tmp_path/name/'corpus.json').write_text('{}')
    (tmp_path/'world/notes.txt').write_text('beside')
    (tmp_path/'more.txt').write_text('more')
    assert counted(tmp_path) == (['more', 'pydoc train', 'world train'], {
        'held-out folders beside documents.jsonl': 2, 'other names beside documents.jsonl': 1})
    assert counted(tmp_path/'world/val') == (['world held out'], {})


def test_the_report_is_short(capsys):
    left_out = Skipped()
    for i in range(12): left_out.add(f'.x{i} files', 'caf\udce9')
    left_out.report()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9 and lines[-1] == 'left out: 4 of 4 more kinds' and r'caf\udce9' in lines[0]


def test_an_older_result_survives_mistakes(tmp_path):
    (tmp_path/'a.jsonl').write_bytes(jsonl(ROWS))
    out = tmp_path/'out'
    corpus(str(tmp_path/'a.jsonl'), str(out))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (tmp_path/'bad.jsonl').write_bytes(jsonl(ROWS) + b'{"title": 1}\n')
    for source, words in (('bad.jsonl', 'row 3'), ('typo.jsonl', 'no such file'), ('a.jsonl/..', 'no such file')):
        with pytest.raises(UserError, match=words): corpus(str(tmp_path/source), str(out))
        assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    corpus(str(tmp_path/'a.jsonl'), str(out))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    with pytest.raises(UserError, match='--docs was None, now 1'): corpus(str(tmp_path/'a.jsonl'), str(out), docs=1)
    assert corpus(str(tmp_path/'a.jsonl'), str(out), docs=1, fresh=True)['documents'] == 1
    assert {p.name: p.read_bytes() for p in (tmp_path/'out.old1').iterdir() if p.name != '.lock'} == before


def test_what_is_not_ours_is_not_overwritten(tmp_path):
    mine = tmp_path/'mine'
    mine.mkdir()
    (mine/'documents.jsonl').write_bytes(jsonl(ROWS))
    for source, out in ((mine, mine), (mine, mine/'new'), (mine/'documents.jsonl', mine), (mine/'documents.jsonl',
            tmp_path)):
        with pytest.raises(UserError, match='must lie apart'): corpus(str(source), str(out))
    for source, words in (('world', 'did not write'), ('', '--source: empty')):
        with pytest.raises(UserError, match=words): corpus(source, str(mine), docs=1)
    assert [p.name for p in mine.iterdir()] == ['documents.jsonl'] and (mine/'documents.jsonl').read_bytes() == jsonl(ROWS)


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path/'pipe.jsonl')
    (tmp_path/'null.txt').symlink_to('/dev/zero')
    (tmp_path/'gone.txt').symlink_to(tmp_path/'nothing')
    for name, words in (('pipe.jsonl', 'a pipe or a device'), ('null.txt', 'a pipe or a device'), ('gone.txt',
            'no such file'),
                        ('zero\0.txt', 'no such file|zero byte')):
        for read in (lambda p: list(local_documents(p)), lambda p: corpus(str(p), str(tmp_path/'out'))):
            with pytest.raises(UserError, match=words): read(tmp_path/name)


def test_names_and_texts_with_any_bytes(tmp_path):
    folder = os.fsencode(tmp_path) + b'/caf\xe9'
    os.mkdir(folder)
    with open(folder + b'/\xff.txt', 'wb') as f: f.write(b'a\0b')
    assert corpus(os.fsdecode(folder), str(tmp_path/'out')) == {'documents': 1, 'bytes': 3}
    document, = local_documents(tmp_path/'out')
    assert document == make_document(r'\udcff.txt', 'a\0b', r'\udcff.txt')
    with open(folder + b'/\xfe.txt', 'wb') as f: f.write(b'another')
    assert [d['id'] for d in local_documents(os.fsdecode(folder))] == [r'\udcfe.txt', r'\udcff.txt']


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path/'A.TXT').write_text('words')
    assert [d['text'] for d in local_documents('~/A.TXT')] == ['words']
    corpus('~/A.TXT', '~/out')
    assert (tmp_path/'out/documents.jsonl').exists()
    with pytest.raises(UserError, match='no such file'): list(source_documents('none.JSONL.GZ'))


@pytest.mark.parametrize('column', [
    pa.array([0, 10**15], pa.timestamp('s')), pa.array([0, 10**18 - 1], pa.timestamp('ms', 'UTC')),
    pa.array([0, 3_000_000], pa.date32()), pa.array([0, 1], pa.timestamp('s', 'no/where')),
    pa.array([1, 2], pa.time64('ns')), pa.array([b'\xff', b'a']), pa.array([0, 2**62], pa.duration('us'))])
def test_a_column_that_python_cannot_hold_does_not_stop_the_text(column, tmp_path):
    pq.write_table(pa.table({'when': column, 'text': ['one', 'two'], 'id': ['a', 'b']}), tmp_path/'t.parquet')
    left_out = Skipped()
    found = list(local_documents(tmp_path/'t.parquet', left_out))
    assert [(d['id'], d['text']) for d in found] == [('a', 'one'), ('b', 'two')]
    assert sum(d['meta']['when'] is None for d in found) == left_out.total()
    assert write_documents(tmp_path/'out', found)['documents'] == 2


@pytest.mark.parametrize('name', ['a.txt.gz', 'a.jsonl.gz', 'A.JSONL.GZ', 'a.parquet'])
def test_a_bomb_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, '_FREE', 1 << 20)
    row = jsonl([{'text': 'x' * 3_000_000}])
    if name.endswith('parquet'):
        table = pa.table({'text': ['x' * 1_000_000 + str(i) for i in range(3)]})
        pq.write_table(table, tmp_path/name, compression='zstd', use_dictionary=False, write_statistics=False)
    else: (tmp_path/name).write_bytes(gzip.compress(row))
    with pytest.raises(UserError, match='unpack to more than') as e: list(local_documents(tmp_path/name))
    assert '\n' not in str(e.value)
    monkeypatch.setattr(unpack, '_FREE', 1 << 22)
    assert list(local_documents(tmp_path/name))


def test_one_long_line(tmp_path):
    (tmp_path/'a.jsonl').write_bytes(jsonl([{'text': 'word ' * 2_000_000}]))
    (tmp_path/'b.jsonl').write_bytes(b'{"text": "' + b'x' * 10_000_000)
    assert len(next(local_documents(tmp_path/'a.jsonl'))['text']) == 10_000_000
    with pytest.raises(UserError, match='line 1: not a JSON') as e: list(local_documents(tmp_path/'b.jsonl'))
    assert len(str(e.value)) < 300


def test_lenient_on_the_command_line(tmp_path, capsys):
    (tmp_path/'docs').mkdir()
    (tmp_path/'docs/a.jsonl').write_bytes(jsonl(ROWS) + b'{"text": 1}\n{"te\n' + jsonl(ROWS[:1]))
    (tmp_path/'docs/b.txt').write_bytes(b'caf\xe9')
    source, out = str(tmp_path/'docs'), str(tmp_path/'out')
    with pytest.raises(UserError, match='a.jsonl, row 3'): corpus(source, out)
    assert not (tmp_path/'out').exists()
    assert corpus(source, out, lenient=True)['documents'] == 3
    left_out = json.loads((tmp_path/'out/corpus.json').read_text())['left_out']
    assert left_out == {'rows without text': 1, 'rows that are not JSON': 1, 'files that are not UTF-8': 1}
    assert capsys.readouterr().err.count('left out: ') == 3
    with pytest.raises(UserError, match='--lenient was True, now None'): corpus(source, out)


def test_pages_are_announced(tmp_path, capsys):
    (tmp_path/'docs').mkdir()
    (tmp_path/'docs/a.html').write_text('<p>A')
    assert corpus(str(tmp_path/'docs'), str(tmp_path/'out')) == {'documents': 1, 'bytes': 4}
    assert 'HTML documents: 1; llmbook clean' in capsys.readouterr().out


@pytest.mark.parametrize('flags, words', [
    (dict(format='code'), '--format code: only for files'), (dict(licences=['MIT']),
            '--licences: only with --format code'),
    (dict(format='code', languages=['pyhton']), "did you mean 'python'"), (dict(links='keep'),
            '--links: only with --format social')])
def test_flags_that_do_not_go_together(flags, words, tmp_path):
    with pytest.raises(UserError, match=words) as e: corpus('world', str(tmp_path/'out'), docs=1, **flags)
    assert '\n' not in str(e.value)


def test_formats_of_the_verb(tmp_path):
    (tmp_path/'code').mkdir()
    (tmp_path/'code/a.py').write_text('# SPDX-License-Identifier: MIT\n')
    (tmp_path/'code/b.go').write_text('package b\n')
    (tmp_path/'posts.jsonl').write_bytes(jsonl([{'id': 1, 'text': 'See https://a.org'}, {'id': 2, 'text': '@a',
            'reply_to': 1}]))
    mark = '*** {} OF THE PROJECT GUTENBERG EBOOK X ***'
    (tmp_path/'book.txt').write_text(f'{mark.format("START")}\n\nText.\n\n{mark.format("END")}')
    def texts(source, **flags):
        corpus(str(tmp_path/source), str(tmp_path/'out'), fresh=True, **flags)
        return [d['text'] for d in local_documents(tmp_path/'out')]
    assert texts('code', format='code', licences=['mit'],
                 languages=['python']) == ['# SPDX-License-Identifier: MIT\n']
    assert texts('posts.jsonl', format='social') == ['See [link]\n\n@user']
    assert texts('posts.jsonl', format='social', links='keep') == ['See https://a.org\n\n@user']
    assert texts('book.txt', format='books') == ['Text.']
