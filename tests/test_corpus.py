"Every kind of file, the Hub on a local folder, what holding out and mixing keep, one line for each mistake."

import gzip
import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.core import UserError
from llmbook.text.corpus import HELD_START, _docstrings, _file_documents, as_documents, corpus, hold_out, hub_documents
from llmbook.text.corpus import local_documents, mix, pydoc_documents, source_documents, world_documents, write_documents

ROWS = [{'id': 'a', 'text': 'one\u2028two \x85 three'}, {'id': 7, 'text': 'é🙂', 'url': 'b.org'}]
DOCUMENTS = [{'id': 'a', 'text': 'one\u2028two \x85 three', 'meta': {}}, {'id': '7', 'text': 'é🙂', 'meta': {'url': 'b.org'}}]


def jsonl(rows): return ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows).encode()


@pytest.mark.parametrize('name, content', [
    ('rows.jsonl', jsonl(ROWS)), ('rows.jsonl.gz', gzip.compress(jsonl(ROWS))), ('ROWS.JSONL', jsonl(ROWS)),
    ('mark.jsonl', b'\xef\xbb\xbf' + jsonl(ROWS)), ('gaps.jsonl', jsonl(ROWS[:1]) + b'\r\n \n' + jsonl(ROWS[1:]))])
def test_rows(name, content, tmp_path):
    (tmp_path/name).write_bytes(content)
    assert list(local_documents(tmp_path/name)) == DOCUMENTS


@pytest.mark.parametrize('name, pack', [('a.txt', bytes), ('a.md', bytes), ('a.txt.gz', gzip.compress),
                                        ('v1.2.md.gz', gzip.compress)])
def test_plain_text_is_one_document(name, pack, tmp_path):
    (tmp_path/name).write_bytes(pack('one\n\nzwei é\n'.encode()))
    assert list(_file_documents(tmp_path/name)) == [{'id': name, 'text': 'one\n\nzwei é\n', 'meta': {}}]


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist([{'text': f't{i}', 'score': i / 2} for i in range(2500)]), tmp_path/'a.parquet')
    found = list(local_documents(tmp_path/'a.parquet'))
    assert len(found) == 2500 and found[2001] == {'id': 'a.parquet#2001', 'text': 't2001', 'meta': {'score': 1000.5}}


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
    ('a.jsonl.gz', gzip.compress(jsonl(ROWS))[:-12], 'a.jsonl.gz: '),
    ('a.jsonl.gz', gzip.compress(b'{"text": "a"}\n\n{"text"\n'), 'line 3: not a JSON'),
    ('a.jsonl', b'[' * 100_000, 'line 1: not a JSON'),
    ('a.jsonl', b'[1]\n', "row 1: no 'text'"), ('a.jsonl', b'{"text": "a"}\n{"text": null}\n', "row 2: no 'text'"),
    ('a.parquet', b'PAR1', 'not a parquet file')])
def test_a_mistake_is_one_line(name, content, words, tmp_path):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(UserError) as e: list(local_documents(tmp_path/name))
    assert words in str(e.value) and name in str(e.value) and '\n' not in str(e.value)


def test_half_characters_do_not_travel(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"id": "\\ud800", "text": "a\\ud83d", "note": "\\ud83d"}\n')
    assert write_documents(tmp_path/'out', local_documents(tmp_path/'a.jsonl')) == {'documents': 1, 'bytes': 2}
    assert [(d['id'], d['text']) for d in local_documents(tmp_path/'out')] == [('?', 'a?')]
    assert write_documents(tmp_path/'two', [{'id': 'a', 'text': '\ud83d'}])['documents'] == 1


def test_rows_keep_what_they_know():
    rows = [{'text': 'a', 'meta': {}}, {'text': 'a', 'meta': {'k': 1}, 'x': 2}, {'text': 'a', 'meta': 'web', 'id': None}]
    assert [d['meta'] for d in as_documents(rows, 'n')] == [{}, {'k': 1}, {'meta': 'web'}]
    assert [d['id'] for d in as_documents(rows, 'n')] == ['n#0', 'n#1', 'n#2']


@pytest.mark.parametrize('kind', ['jsonl', 'parquet'])
def test_hub_on_a_local_folder(kind, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    rows = [{'id': str(i), 'text': f'text {i}', 'score': i} for i in range(10)]
    (tmp_path/'data').mkdir()
    if kind == 'jsonl': (tmp_path/'data/train-0.jsonl').write_bytes(jsonl(rows))
    else: pq.write_table(pa.Table.from_pylist(rows), tmp_path/'data/train-0.parquet')
    found = list(hub_documents(str(tmp_path/'data'), n=3))
    assert found == [{'id': str(i), 'text': f'text {i}', 'meta': {'score': i}} for i in range(3)]
    for args, words in [({'split': 'tset'}, 'tset'), ({'field': 'body'}, "'body'")]:
        with pytest.raises(UserError, match=words) as e: list(hub_documents(str(tmp_path/'data'), **args))
        assert '\n' not in str(e.value)
    with pytest.raises(UserError, match='does not open') as e: list(hub_documents(str(tmp_path/'data') + ':no-such-config'))
    assert '\n' not in str(e.value)


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


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0.1, 9)), min_size=1, max_size=4), st.integers(0, 99))
def test_mixing_keeps_everything(shape, seed):
    sources = [[{'id': f'{k}-{i}', 'text': ''} for i in range(n)] for k, (n, _) in enumerate(shape)]
    weights = [w for _, w in shape]
    mixed = list(mix(sources, weights, seed=seed))
    assert mixed == list(mix([iter(s) for s in sources], weights, seed=seed))
    for k, source in enumerate(sources): assert [d for d in mixed if d['id'].startswith(f'{k}-')] == source
    assert len(mixed) == sum(map(len, sources)) and list(mix(sources, weights, 3, seed)) == mixed[:3]


def test_mixing_in_proportion():
    sources = [itertools.repeat({'id': str(k), 'text': ''}) for k in range(3)]
    ids = [d['id'] for d in mix(sources, [3, 0, 1], 4000)]
    assert ids.count('1') == 0 and abs(ids.count('0') / 4000 - 0.75) < 0.03


@pytest.mark.parametrize('weights', [[1], [1, -1], [0, 0], [1, 2, 3]])
def test_bad_weights(weights):
    with pytest.raises(UserError, match='weights') as e: mix([[], []], weights)
    assert '\n' not in str(e.value)


def test_the_verb(tmp_path, capsys):
    assert corpus('world', str(tmp_path/'a'), docs=3, seed=1)['documents'] == 3
    assert json.loads((tmp_path/'a/corpus.json').read_text())['source'] == 'world'
    assert list(local_documents(tmp_path/'a')) == list(world_documents(3, seed=1))
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(UserError, match='--docs 0'): corpus(docs=0, out=str(tmp_path/'b'))
    with pytest.raises(UserError, match='empty'): write_documents(tmp_path/'c', [])
    with pytest.raises(UserError, match='empty'): write_documents(tmp_path/'a', [])
    assert len(list(local_documents(tmp_path/'a'))) == 3 and not (tmp_path/'c/documents.jsonl').exists()
