"The text of a run: dirty pages in, clean documents out, and the truth beside them."
import json

import pytest
from needs import needs

from llmbook.core import UserError
from llmbook.evaluation.text_parts import funnel_parts, read_funnel
from llmbook.files import read_json, read_jsonl
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.intake import clean_world

pytestmark = needs('resiliparse', 'web')


@pytest.fixture(scope='module')
def cleaned(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pages')
    return folder, clean_world(folder, 120, seed=5, workers=1)


def test_what_is_left_are_the_stories(cleaned):
    folder, counts = cleaned
    stories = {story['id']: story['text'] for story in world_documents(120, 5)}
    left = {document['id']: document['text'] for document in read_jsonl(folder/'documents.jsonl')}
    same = sum(left.get(name) == text for name, text in stories.items())
    assert same >= 60 # the others have a line of boilerplate that no rule knows, or a masked address
    assert counts['scores']['good']['share'] < 0.005
    assert not any(f'world-5-{HELD_START}' in name for name in left)


def test_no_label_reaches_what_is_trained_on(cleaned):
    for document in read_jsonl(cleaned[0]/'documents.jsonl'):
        assert document['meta'] == {} and document['text'].strip()


def test_the_funnel_adds_up(cleaned):
    folder, counts = cleaned
    assert read_json(folder/'funnel.json') == json.loads(json.dumps(counts)) == read_funnel(folder/'funnel.json')
    rules = counts['rules']
    for row, after in zip(rules, rules[1:]): assert row['documents_out'] == after['documents_in'], after['rule']
    for row in rules: assert row['documents_in'] - row['documents_out'] == sum(row['reasons'].values()), row['rule']
    assert rules[-1]['rule'] == 'dedup' and rules[-1]['documents_out'] == counts['total']['documents_out']
    left = list(read_jsonl(folder/'documents.jsonl'))
    assert len(left) == counts['total']['documents_out']
    assert sum(len(document['text']) for document in left) == counts['total']['characters_out']


def test_again_is_the_same(cleaned, tmp_path):
    folder, counts = cleaned
    assert clean_world(tmp_path, 120, seed=5, workers=1) == counts
    for name in ('documents.jsonl', 'clusters.jsonl', 'dropped.jsonl'):
        assert (tmp_path/name).read_bytes() == (folder/name).read_bytes()


def test_a_damaged_funnel_leaves_no_hole_in_the_report(cleaned, tmp_path):
    kinds = [part.kind for part in funnel_parts(cleaned[0])]
    assert kinds == ['heading', 'text', 'picture', 'table', 'table', 'picture']
    whole = json.loads((cleaned[0]/'funnel.json').read_text())
    changes = {'rules': [{}]}, {'total': {'documents_in': -1}}, {'scores': {'kinds': {'spam': 3}}}
    for broken in ({}, *(whole | change for change in changes)):
        (tmp_path/'funnel.json').write_text(json.dumps(broken))
        [part] = funnel_parts(tmp_path)
        assert part.kind == 'text' and 'funnel.json' in part.body


@pytest.mark.parametrize('scores', ['x', [1], {'kinds': [1]}, {'kinds': {'near': 3}}, {'good': 3},
                                    {'good': {'share': 'x'}}, {'good': {'share': 2}}, {'kinds': {'near': {'recall': 2}}}])
def test_scores_that_do_not_fit_are_refused_in_one_line(scores, tmp_path):
    total = dict(documents_in=1, documents_out=1, characters_in=1, characters_out=1)
    (tmp_path/'funnel.json').write_text(json.dumps({'total': total, 'rules': [], 'scores': scores}))
    with pytest.raises(UserError, match='scores'): read_funnel(tmp_path/'funnel.json')
    [part] = funnel_parts(tmp_path)
    assert "funnel.json" in part.body


def test_scores_that_are_null_are_as_if_they_were_not_there(tmp_path):
    total = dict(documents_in=1, documents_out=1, characters_in=1, characters_out=1)
    for scores in (None, {'kinds': None, 'good': None}, {}):
        (tmp_path/'funnel.json').write_text(json.dumps({'total': total, 'rules': [], 'scores': scores}))
        assert read_funnel(tmp_path/'funnel.json')['scores'] == {} and len(funnel_parts(tmp_path)) == 4
