"The whole funnel: the list of rules, the command, the measure, and the same rules under datatrove."
import io
import json
from contextlib import redirect_stdout

import pytest
from needs import needs

from llmbook.core import Interrupted, UserError
from llmbook.files import read_json, read_jsonl, write_json, write_jsonl
from llmbook.text import funnel, pipeline
from llmbook.text.dirt import KINDS, dirty_pages
from llmbook.text.funnel import CLEANING, RULE_SETS, clean, cleaning_rules, cleaning_scores, datatrove_steps, plot_funnel
from llmbook.text.pipeline import apply_rules, rule_name

FILES = ['documents.jsonl', 'dropped.jsonl', 'funnel.json', 'manifest.json']


@pytest.fixture(scope='module')
def pages(): return list(dirty_pages(60, seed=5))


@pytest.fixture(scope='module')
def raw(pages, tmp_path_factory):
    path = tmp_path_factory.mktemp('raw')/'raw.jsonl'
    write_jsonl(path, pages)
    return path


def quietly(*args, **more):
    with redirect_stdout(io.StringIO()) as said: counts = clean(*map(str, args), workers=1, **more)
    return counts, said.getvalue()


def contents(folder): return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != 'manifest.json'}


# The list

def test_each_setting_changes_the_list():
    names = list(map(rule_name, CLEANING))
    assert names[:2] == ['html_text', 'repair_text'] and names[-3:] == ['not_toxic', 'in_language', 'mask_personal']
    assert list(map(rule_name, cleaning_rules(languages=[], rules=[], toxic=True, personal=True))) == names[:2]
    both = cleaning_rules(rules=['gopher', 'fineweb'])
    assert [rule for rule in both if rule in RULE_SETS['gopher']] == RULE_SETS['gopher']
    assert both[2:2 + len(RULE_SETS['gopher'] + RULE_SETS['fineweb'])] == RULE_SETS['gopher'] + RULE_SETS['fineweb']
    french = {'id': 'f', 'text': 'Le chat dort sur la table, et le chien mange du pain dans la cuisine. ' * 3}
    assert apply_rules(french, cleaning_rules(rules=[]))[1] == 'in_language'
    assert apply_rules(french, cleaning_rules(languages=['fr'], rules=[]))[1] == ''


# The command

def test_the_command_writes_what_the_rules_return(pages, raw, tmp_path):
    counts, said = quietly(raw, tmp_path/'out')
    assert sorted(path.name for path in (tmp_path/'out').iterdir()) == FILES and [p.name for p in tmp_path.iterdir()] == ['out']
    kept, dropped = (list(read_jsonl(tmp_path/'out'/name)) for name in FILES[:2])
    results = [apply_rules(page, CLEANING) for page in pages]
    assert kept == [json.loads(json.dumps(document)) for document, _, _ in results if document]
    gone = [(page['id'], rule, reason) for page, (document, rule, reason) in zip(pages, results) if document is None]
    assert [(row['id'], row['rule'], row['reason']) for row in dropped] == gone
    books = read_json(tmp_path/'out/funnel.json')
    assert books['total'] == counts and counts['documents_in'] == len(pages) and counts['documents_out'] == len(kept)
    assert f'{len(pages)} documents, ' in said and f'{len(kept)} documents, ' in said
    for rule in {rule for _, rule, _ in gone}:
        n = sum(name == rule for _, name, _ in gone)
        assert f'{rule}: dropped {n} (' in said


def test_flags_reach_the_rules(raw, tmp_path):
    plain, _ = quietly(raw, tmp_path/'plain', rules=['none'], languages=['all'], toxic=True, personal=True)
    assert plain['documents_out'] == plain['documents_in']
    _, said = quietly(raw, tmp_path/'web')
    assert 'not_toxic: dropped' in said and 'mask_personal: changed' in said
    _, said = quietly(raw, tmp_path/'kept', toxic=True, personal=True)
    assert 'not_toxic' not in said and 'mask_personal' not in said


def test_what_is_refused(raw, tmp_path):
    for flags, words in ((dict(languages=['klingon']), 'klingon'), (dict(text=str(tmp_path/'none')), 'no such file'),
                         (dict(out=str(raw.parent)), '--out'), (dict(workers=0), '--workers')):
        with pytest.raises(UserError, match=words): clean(**dict(text=str(raw), out=str(tmp_path/'out')) | flags)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_and_fresh_starts_over(raw, tmp_path):
    quietly(raw, tmp_path/'out')
    before = contents(tmp_path/'out')
    with pytest.raises(UserError, match='--toxic was False, now True'): quietly(raw, tmp_path/'out', toxic=True)
    assert contents(tmp_path/'out') == before
    quietly(raw, tmp_path/'out', toxic=True, fresh=True)
    assert contents(tmp_path/'out') != before == contents(tmp_path/'out.old1')


def test_a_stopped_command_resumes_beside_its_output(pages, tmp_path, monkeypatch):
    raw = tmp_path/'raw.jsonl'
    write_jsonl(raw, [page | {'id': f'{n}-{page["id"]}'} for n in range(4) for page in pages])
    monkeypatch.setattr(funnel, 'cleaning_rules', lambda **args: CLEANING[:7])
    quietly(raw, tmp_path/'whole')
    stop = [True]
    def stopping(document):
        if stop and document['id'] == f'2-{pages[70]["id"]}': raise KeyboardInterrupt
        return document
    monkeypatch.setattr(funnel, 'cleaning_rules', lambda **args: [stopping, *CLEANING[:7]])
    kept = '200 documents are done and kept; the same command resumes'
    with pytest.raises(Interrupted, match=kept): quietly(raw, tmp_path/'out')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.out.work', 'raw.jsonl', 'whole']
    stop.clear()
    _, said = quietly(raw, tmp_path/'out')
    assert 'clean: resuming after 200 documents\n' in said
    assert contents(tmp_path/'out')['documents.jsonl'] == contents(tmp_path/'whole')['documents.jsonl']
    assert contents(tmp_path/'out')['dropped.jsonl'] == contents(tmp_path/'whole')['dropped.jsonl']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'raw.jsonl', 'whole']


@pytest.mark.parametrize('change', ['input', 'setting', 'fresh'])
def test_unfinished_work_is_not_continued_with_something_else(pages, tmp_path, monkeypatch, change):
    raw = tmp_path/'raw.jsonl'
    write_jsonl(raw, [page | {'id': f'{n}-{page["id"]}'} for n in range(2) for page in pages])
    stop = [True]
    def stopping(document):
        if stop and document['id'].startswith('1-'): raise KeyboardInterrupt
        return document
    with monkeypatch.context() as m:
        m.setattr(pipeline, '_DOCUMENTS', 10)
        m.setattr(funnel, 'cleaning_rules', lambda **args: [stopping, *CLEANING[:7]])
        with pytest.raises(Interrupted): quietly(raw, tmp_path/'out')
        assert (tmp_path/'.out.work/note.json').exists()
        stop.clear()
        if change == 'input': write_jsonl(raw, pages)
        flags = {'setting': dict(toxic=True), 'fresh': dict(fresh=True)}.get(change, {})
        _, said = quietly(raw, tmp_path/'out', **flags)
    assert 'resuming' not in said and not (tmp_path/'.out.work').exists()


def test_a_folder_of_pages_and_how_many_a_corpus_has(pages, tmp_path):
    (tmp_path/'site').mkdir()
    good = [page for page in pages if page['meta']['keep']][:3]
    for i, page in enumerate(good): (tmp_path/f'site/{i}.html').write_text(page['text'], 'utf-8')
    counts, _ = quietly(tmp_path/'site', tmp_path/'out')
    assert counts['documents_out'] == 3
    assert funnel._expected(tmp_path/'site') is None
    for known, documents in (({'documents': 7}, 7), ({'documents': 'x'}, None), ({}, None), ([], None)):
        write_json(tmp_path/'site/corpus.json', known)
        assert funnel._expected(tmp_path/'site') == documents


# The picture

def test_the_picture_has_a_pair_of_bars_for_each_rule_that_took_something():
    row = dict(rule='a', documents_in=10, documents_out=8, characters_in=100, characters_out=50, changed=0, reasons={})
    idle = row | dict(rule='idle', documents_in=8, documents_out=8, characters_in=50, characters_out=50)
    changing = idle | dict(rule='changing', characters_out=20, changed=3)
    total = row | dict(rule='total', characters_out=20)
    _, ax = plot_funnel({'total': total, 'rules': [row, idle, changing]})
    assert [label.get_text() for label in ax.get_yticklabels()] == ['input', 'a', 'changing']
    assert [bar.get_width() for bar in ax.patches] == [100, 80, 80, 100, 50, 20]


# The measure

STORY = ' '.join(f'w{i}' for i in range(20))


def page(name, story=STORY, **more):
    dirt = dict.fromkeys(KINDS, []) | {kind: more.pop(kind) for kind in list(more) if kind in KINDS}
    return {'id': name, 'text': '', 'meta': {'story': story, 'keep': bool(story), 'copy_of': '', 'dirt': dirt} | more}


def doc(name, text=STORY): return {'id': name, 'text': text}


def kind(scores, name): return {key: value for key, value in scores['kinds'][name].items() if value}


def test_a_page_that_is_dirt_as_a_whole():
    pages = [page('s1', '', spam=['x']), page('s2', '', spam=['x']), page('t', '', toxic=['x']), page('good'), page('bad')]
    rows = [{'id': 's1', 'rule': 'limit_words'}, {'id': 't', 'rule': 'not_toxic'}, {'id': 'bad', 'rule': 'anything'}]
    scores = cleaning_scores(pages, [doc('s2', 'buy'), doc('good')], rows)
    assert kind(scores, 'spam') == dict(planted=2, gone=1, recall=0.5, right=1, wrong=1, precision=0.5)
    assert kind(scores, 'toxic') == dict(planted=1, gone=1, recall=1, right=1, precision=1)
    assert scores['kinds']['foreign']['recall'] is None and scores['good'] == dict(words=40, lost=20, share=0.5)


def test_dirt_within_a_page():
    pages = [page('a', boilerplate=['Log in here', 'Menu'], personal=['a@b.example'], unicode=['w\u200b3', 'w4\u00a0w5'])]
    text = STORY.replace('w9 ', '').replace('w4 w5', 'w4\u00a0w5')
    scores = cleaning_scores(pages, [doc('a', f'Menu\n{text}\nask <email> or <ip>')], [])
    assert kind(scores, 'boilerplate') == dict(planted=2, gone=1, recall=0.5, right=3, wrong=1, precision=0.75)
    assert kind(scores, 'personal') == dict(planted=1, gone=1, recall=1, right=1, wrong=1, precision=0.5)
    assert kind(scores, 'unicode')['recall'] == 0.5 and kind(scores, 'unicode')['gone'] == 1
    assert scores['good']['lost'] == 3 # one is deleted, two are glued by an odd space


def test_a_garbled_line_is_not_gone_because_it_was_repaired():
    garbled = 'Café news'.encode().decode('cp1252')
    pages = [page('a', boilerplate=[garbled], mojibake=['Ã©'])]
    scores = cleaning_scores(pages, [doc('a', f'Café news\n{STORY}')], [])
    assert scores['kinds']['boilerplate']['recall'] == 0 and scores['kinds']['mojibake']['recall'] == 1
    assert cleaning_scores(pages, [doc('a')], [])['kinds']['boilerplate']['recall'] == 1


def test_a_story_is_saved_by_its_copy_and_a_dropped_page_saves_nothing():
    pages = [page('a'), page('b', copy_of='a', keep=False, exact=['a']), page('c'), page('d', boilerplate=['Menu'])]
    scores = cleaning_scores(pages, [doc('b'), doc('c')], [{'id': 'd', 'rule': 'limit_words'}])
    assert scores['good']['lost'] == 20 and kind(scores, 'near') == dict(right=1, precision=1)
    assert kind(scores, 'exact') == dict(planted=1) and scores['kinds']['exact']['recall'] == 0
    assert scores['kinds']['boilerplate']['recall'] == 1 and scores['kinds']['spam']['precision'] == 0
    both = cleaning_scores(pages, [doc('a'), doc('c'), doc('d')], [])
    assert kind(both, 'exact') == dict(planted=1, gone=1, recall=1, right=1, precision=1) and both['good']['lost'] == 0
    damaged = cleaning_scores(pages, [doc('a', STORY.replace('w3 ', '')), doc('b'), doc('c'), doc('d')], [])
    assert damaged['good']['lost'] == 0 # the copy has the word
    neither = cleaning_scores(pages, [doc('c'), doc('d')], [])
    assert neither['kinds']['exact']['precision'] == 0 and neither['good']['lost'] == 20


def test_the_first_half_is_cleaned(pages):
    results = [(page, apply_rules(page, CLEANING)) for page in pages]
    kept = [document for _, (document, _, _) in results if document]
    dropped = [{'id': page['id'], 'rule': rule} for page, (document, rule, _) in results if document is None]
    scores = cleaning_scores(pages, kept, dropped)
    for name in ('boilerplate', 'mojibake', 'personal', 'toxic', 'foreign', 'spam'):
        assert scores['kinds'][name]['recall'] > 0.95 and (scores['kinds'][name]['precision'] or 1) > 0.9, name
    assert scores['good']['share'] < 0.01


# datatrove

@pytest.mark.slow
@needs('datatrove', 'peers')
@pytest.mark.parametrize('tasks', [1, 2])
def test_datatrove_keeps_the_same_documents(raw, pages, tmp_path, tasks):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    (tmp_path/'in').mkdir()
    for i in range(2): write_jsonl(tmp_path/f'in/{i}.jsonl', pages[i::2])
    steps = [JsonlReader(str(tmp_path/'in')), *datatrove_steps(),
             JsonlWriter(str(tmp_path/'out'), compression=None, expand_metadata=True)]
    LocalPipelineExecutor(steps, tasks=tasks, logging_dir=str(tmp_path/'logs')).run()
    written = {row['id']: row for path in (tmp_path/'out').glob('*.jsonl') for row in read_jsonl(path)}
    quietly(raw, tmp_path/'ours')
    ours = {row['id']: row for row in read_jsonl(tmp_path/'ours/documents.jsonl')}
    assert written.keys() == ours.keys()
    for name, document in ours.items(): assert {key: written[name].get(key) for key in document} == document
    stats = json.loads((tmp_path/'logs/stats.json').read_text())
    dropped = {rule_name(rule): 0 for rule in CLEANING}
    for step in stats[1:-1]: dropped[step['name'].split(': ')[-1]] += step['stats'].get('dropped', 0)
    books = read_json(tmp_path/'ours/funnel.json')['rules']
    assert dropped == {row['rule']: row['documents_in'] - row['documents_out'] for row in books}
