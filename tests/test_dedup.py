"Copies: found, nothing else dropped, in little work and little memory, and nothing half written."

import importlib.util
import json
import os
import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from needs import needs

from llmbook.core import UserError
from llmbook.files import read_jsonl, write_jsonl
from llmbook.text import dedup as dedup_module
from llmbook.text.dedup import _choose_bands, _join, dedup, found_share, near_copies, pair_similarities
from llmbook.text.minhash import signatures

ROOT = Path(__file__).resolve().parents[1]
WORDS = [f'word{i}' for i in range(4000)]


def some_text(rng, length): return ' '.join(rng.choices(WORDS, k=length))


def edited(text, n, rng):
    words = text.split()
    for i in rng.sample(range(len(words)), n): words[i] = f'new{rng.randrange(10**6)}'
    return ' '.join(words)


def groups_of(texts, threshold=0.8, n=5):
    "As the stage finds them, in memory."
    sizes = np.array([len(text) for text in texts])
    return near_copies(signatures(texts, n), sizes, lambda numbers: [texts[i] for i in numbers], threshold, n)


def counted(texts, threshold=0.8):
    "(pairs compared on their text, groups)."
    pairs = []
    def counting(texts, left, right, n):
        pairs.extend(frozenset((texts[i], texts[j])) for i, j in zip(left, right))
        return pair_similarities(texts, left, right, n)
    with patch.object(dedup_module, 'pair_similarities', counting): roots = groups_of(texts, threshold)
    assert len(pairs) == len(set(pairs))  # no two texts are compared twice
    return len(pairs), len(set(roots.tolist()))


def run(path, *texts, **flags):
    "The stage on texts with the ids 0, 1, ...: (counts, ids that are kept, clusters)."
    write_jsonl(path/'in.jsonl', [{'id': str(i), 'text': text} for i, text in enumerate(texts)])
    counts = dedup(str(path/'in.jsonl'), str(path/'out'), **flags)
    kept = [d['id'] for d in read_jsonl(path/'out/documents.jsonl')]
    return counts, kept, list(read_jsonl(path/'out/clusters.jsonl'))


@pytest.mark.parametrize('threshold, n', [(0.8, 5), (0.6, 5), (0.5, 3), (0.9, 2)])
def test_brute_force(threshold, n):
    rng = random.Random(0)
    texts = [some_text(rng, rng.randrange(30, 120)) for _ in range(60)]
    texts += [edited(texts[rng.randrange(60)], rng.randrange(1, 6), rng) for _ in range(60)]
    rng.shuffle(texts)
    sets = [{tuple(w[i:i+n]) for i in range(len(w) - n + 1)} for w in map(str.split, texts)]
    pairs = [(i, j) for i, j in combinations(range(len(texts)), 2)
             if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])]
    wanted = _join(np.arange(len(texts)), *np.array(pairs).T)
    assert (wanted != np.arange(len(texts))).sum() > 3
    received = groups_of(texts, threshold, n)
    assert (received == wanted).mean() > 0.99  # a pair at the threshold is missed once in a hundred times
    assert all(wanted[i] == wanted[root] for i, root in enumerate(received))  # and never is one too many


def test_joining():
    rng = np.random.default_rng(0)
    for n in (1, 2, 50, 3000):
        left, right = rng.integers(n, size=(2, n // 2))
        roots = list(range(n))
        for a, b in zip(left, right):
            one, other = sorted((roots[a], roots[b]))
            roots = [one if root == other else root for root in roots]
        assert _join(np.arange(n), left, right).tolist() == roots


def test_bands():
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        bands, rows = _choose_bands(threshold)
        assert bands * rows <= 128 and found_share(threshold, bands, rows) >= 0.99
        assert found_share(threshold, 128 // (rows + 1), rows + 1) < 0.99 or threshold == 1


def test_the_first_is_kept_and_all_of_it(tmp_path):
    rng = random.Random(0)
    a, b, c = (some_text(rng, 60) for _ in range(3))
    rows = [{'id': 'a', 'text': a, 'url': 'https://a.example/', 'source': 'x', 'licence': 'MIT', 'meta': {'n': [1, 2]}},
            {'id': 'b', 'text': b}, {'id': 'a2', 'text': edited(a, 1, rng)}, {'id': 'b2', 'text': f' {b.upper()}\n'},
            {'id': 'c', 'text': c}, {'id': 'a3', 'text': a}, {'id': 'a4', 'text': edited(a, 1, rng)}]
    write_jsonl(tmp_path/'in.jsonl', rows)
    counts = dedup(str(tmp_path/'in.jsonl'), str(tmp_path/'out'))
    assert counts == {'documents': 7, 'exact_copies': 2, 'near_copies': 2, 'kept': 3, 'clusters': 2}
    kept = list(read_jsonl(tmp_path/'out/documents.jsonl'))
    assert [d['id'] for d in kept] == ['a', 'b', 'c'] and rows[0].items() <= kept[0].items()
    assert list(read_jsonl(tmp_path/'out/clusters.jsonl')) == [['a', 'a3', 'a2', 'a4'], ['b', 'b2']]
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == [
        'clusters.jsonl', 'dedup.json', 'documents.jsonl', 'manifest.json']
    facts = json.loads((tmp_path/'out/dedup.json').read_text())
    assert facts == counts | {'threshold': 0.7, 'shingle': 5, 'lines': 0, 'left_out': {}}


def test_the_same_again_is_the_same_bytes(tmp_path):
    rng = random.Random(0)
    texts = [some_text(rng, 30) for _ in range(50)]
    def result(): return [(tmp_path/f'out/{name}.jsonl').read_bytes() for name in ('documents', 'clusters')]
    run(tmp_path, *texts, *texts[:7])
    before = result()
    run(tmp_path, *texts, *texts[:7])
    assert result() == before


@pytest.mark.parametrize('texts, kept', [
    (['one', 'two', 'One ', 'three words here', 'Three words  here'], ['0', '1', '3', '4']), # shorter than a shingle
    (['a b c d e', 'a b  c\nd e', 'a b c d f'], ['0', '2']), # one shingle; white space does not count
    (['私は昨日東京で新しい本を買いました。今日は家で読みます。', '私は昨日東京で新しい本を買いました。今日は家で読みました。',
      '全く違う文章です。'], ['0', '2']),
    (['ฉันซื้อหนังสือเล่มใหม่ที่กรุงเทพเมื่อวานนี้', 'ฉันซื้อหนังสือเล่มใหม่ที่กรุงเทพเมื่อวานนี้ค'],
     ['0']),
    (['x' * 100_000, 'x' * 100_001], ['0', '1']), (['\x00 \x01', 'a\x00b c d e f', 'a b c d e f'], ['0', '1'])])
def test_odd_documents(texts, kept, tmp_path):
    assert run(tmp_path, *texts)[1] == kept


def test_lines(tmp_path):
    rng = random.Random(0)
    texts = [f'Cookies!\n{some_text(rng, 20)}\n\ncookies! \n' for _ in range(5)]
    texts += ['cookies!', f'Poem\nPoem\n{some_text(rng, 9)}']
    counts, kept, _ = run(tmp_path, *texts, lines=3)
    assert kept == ['0', '1', '2', '3', '4', '6']
    rows = [d['text'] for d in read_jsonl(tmp_path/'out/documents.jsonl')]
    assert rows[0] == texts[0].split('\n')[1] + '\n\n' and rows[-1] == texts[-1]
    rows = [f'in three\n{some_text(rng, 9)}' for _ in range(3)]
    assert dedup_module._repeated_lines([{'text': text} for text in rows], 3) == set()
    assert len(dedup_module._repeated_lines([{'text': text} for text in rows], 2)) == 1
    assert json.loads((tmp_path/'out/dedup.json').read_text())['left_out'] == {
        'lines that many documents have': 11, 'documents of such lines alone': 1}
    with pytest.raises(UserError, match='--lines 1: no document has any other line'):
        run(tmp_path/'..', 'a\nb', 'b\na', lines=1, fresh=True)


@pytest.mark.parametrize('flags, words', [
    (dict(text='missing.jsonl'), 'no such file'), (dict(threshold=0.2), '--threshold 0.2: must be between 0.3 and 1'),
    (dict(threshold=float('nan')), '--threshold'), (dict(shingle=0), '--shingle 0'), (dict(lines=-1), '--lines -1'),
    (dict(out='.'), 'must lie apart'), (dict(text='broken.jsonl'), 'line 2')])
def test_a_mistake_is_one_line_and_leaves_nothing(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl('in.jsonl', [{'id': '1', 'text': 'some text'}])
    Path('broken.jsonl').write_text('{"text": "a"}\n{"text"\n')
    with pytest.raises(UserError) as e: dedup(**dict(text='in.jsonl', out='out') | flags)
    assert words in str(e.value) and '\n' not in str(e.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['broken.jsonl', 'in.jsonl']


def test_more_text_than_is_signed_at_once(tmp_path):
    rng = random.Random(0)
    texts = [some_text(rng, 900) for _ in range(200)]
    counts, kept, _ = run(tmp_path, *texts, *(edited(text, 5, rng) for text in texts[::10]))
    assert sum(map(len, texts)) > 1_400_000 and counts['near_copies'] == 20 and kept == [str(i) for i in range(200)]


def test_another_setting_needs_fresh(tmp_path):
    run(tmp_path, 'a b c d e')
    with pytest.raises(UserError, match='--threshold was 0.7, now 0.6'): run(tmp_path, 'a b c d e', threshold=0.6)
    assert run(tmp_path, 'a b c d e', threshold=0.6, fresh=True)[1] == ['0'] and (tmp_path/'out.old1').is_dir()


def test_pages_from_one_mould_take_linear_work():
    rng = random.Random(0)
    mould, other = some_text(rng, 200), some_text(rng, 90)
    for n in (300, 1200):
        near = [f'{mould} price {i}' for i in range(n)]
        pairs, groups = counted(near)
        assert groups == 1 and pairs < 2 * n
        unlike = [f'{other} {some_text(rng, 15)}' for _ in range(n)]  # alike, and not quite enough
        pairs, groups = counted(unlike)
        assert groups == n and n < pairs < 60 * n


def test_a_bucket_of_any_size_has_few_meetings():
    keys = [np.full(5000, 7, np.uint64), np.arange(5000, dtype=np.uint64) << np.uint64(40)]
    pairs = [(left, right) for left, right in dedup_module._meetings(keys)]
    assert sum(len(left) for left, _ in pairs) <= 4 * 5000 and not (_join(np.arange(5000), *pairs[0])).any()
    near = np.abs(pairs[0][0] - pairs[0][1])
    assert (near == 1).all()  # in a large bucket those that agree in the next band as well are neighbours


def test_texts_without_shingles_are_not_compared():
    assert counted([f'only {i} words' for i in range(500)]) == (0, 500)


def test_a_chain_is_one_group():
    rng = random.Random(0)
    versions = [some_text(rng, 100)]
    for i in range(12):
        words = versions[-1].split()
        words[8*i] = words[8*i + 1] = f'v{i}'
        versions.append(' '.join(words))
    assert groups_of(versions).tolist() == [0] * 13


@pytest.mark.slow
def test_a_hundred_thousand_copies(tmp_path):
    text = some_text(random.Random(0), 80)
    counts, kept, clusters = run(tmp_path, *[text] * 100_000, *[f'{text} {i}' for i in range(20_000)])
    assert kept == ['0'] and counts['exact_copies'] == 99_999 and len(clusters[0]) == 120_000


@pytest.mark.slow
def test_memory_per_document(tmp_path):
    "Peak of a process of its own, at two sizes: at most 2 KB for each further document."
    code = 'import sys; from llmbook.text.dedup import dedup; dedup(sys.argv[1], sys.argv[2])'
    rng, peaks = random.Random(0), {}
    for n in (20_000, 120_000):
        path = tmp_path/f'{n}.jsonl'
        write_jsonl(path, ({'id': f'document-{i}', 'text': some_text(rng, 40)} for i in range(n)))
        process = subprocess.Popen([sys.executable, '-c', code, path, tmp_path/f'out-{n}'], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        peaks[n] = usage.ru_maxrss * 1024
    assert (peaks[120_000] - peaks[20_000]) / 100_000 < 2048


def benchmark(name):
    "A script of `benchmarks/` as a module."
    spec = importlib.util.spec_from_file_location(f'{name}_benchmark', ROOT/f'benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    with patch.dict(os.environ): spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@needs('datasketch', 'peers')
@needs('rensa', 'peers')
def test_the_same_as_datasketch():
    "The benchmark runs, the targets hold, and what is kept is what datasketch and the same check keep."
    rows = benchmark('dedup').main(['--docs', '3000', '--rounds', '1'])
    ours = rows['ours']
    assert ours['recall'] >= 0.95 and ours['false'] < 0.001 and ours['as_datasketch'] >= 0.98
    assert all(row['seconds'][0] > 0 and row['recall'] > 0.9 for row in rows.values())


@pytest.mark.slow
@needs('datasketch', 'peers')
def test_the_chapter_draws_the_bands_that_datasketch_takes():
    from datasketch import MinHashLSH
    index = MinHashLSH(threshold=0.8, num_perm=128)
    assert (index.b, index.r) == (9, 13)


@pytest.mark.slow
def test_the_memory_benchmark_runs(tmp_path):
    rows, growth = benchmark('memory').main(['dedup', '--sizes', '2', '8', '--json', str(tmp_path/'memory.json')])
    assert rows[1]['documents'] > 3 * rows[0]['documents'] and rows[0]['largest'] > 50 and 'largest' in growth
    assert json.loads((tmp_path/'memory.json').read_text())['verb'] == 'dedup'


def test_what_a_killed_call_left_is_removed(tmp_path):
    (tmp_path/'.scratch').mkdir()
    (tmp_path/'.scratch'/'signatures').write_bytes(b'half')
    documents = iter([{'id': str(i), 'text': 'the lamp is in the mill ' * 9} for i in range(2)])
    assert dedup_module.write_distinct(tmp_path, documents, 0.8, 5) and not (tmp_path/'.scratch').exists()
    assert len(list(read_jsonl(tmp_path/'documents.jsonl'))) == 1
