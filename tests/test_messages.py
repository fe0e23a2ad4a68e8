"Rows of every form, and what is wrong with them."
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from llmbook.align.messages import Choice, Conversation, choice_of, conversation_of, read_choices, read_conversations
from llmbook.core import UserError
from llmbook.text.preferences import preference_rows, ranking_rows
from llmbook.text.tasks import question_rows
from llmbook.text.unpack import Skipped

U, A, S = ({'role': role, 'content': role[0]} for role in ('user', 'assistant', 'system'))
HELLO = [U, A]


def say(role, content): return {'role': role, 'content': content}


def human(role, content): return {'from': role, 'value': content}


FORMS = {
    'messages': {'messages': HELLO},
    'with more keys': {'messages': [U | {'name': 'x'}, A], 'prompt': 'no', 'source': 'no'},
    'sharegpt': {'conversations': [human('human', 'u'), human('gpt', 'a')]},
    'mixed': {'conversations': [say('user', 'u'), human('gpt', 'a')]},
    'alpaca': {'instruction': 'u', 'input': '', 'output': 'a'},
    'alpaca without input': {'instruction': 'u', 'output': 'a'},
    'prompt': {'prompt': 'u', 'completion': 'a'},
    'prompt as messages': {'prompt': [U], 'completion': [A]},
    'source': {'source': 'u', 'target': 'a'},
    'question': {'question': 'u', 'answer': 'a'},
    'an empty system turn': {'messages': [say('system', ' '), *HELLO]}}


@pytest.mark.parametrize('row', FORMS.values(), ids=FORMS)
def test_every_form_is_the_same_conversation(row):
    assert conversation_of(row, 'f, row 1') == Conversation('f, row 1', HELLO, 'f, row 1')
    assert conversation_of(row | {'id': 0}, 'f, row 1').id == '0'


def test_input_and_system_are_kept():
    row = {'instruction': 'Do it.', 'input': 'two\nlines', 'output': 'a', 'system': 's'}
    assert conversation_of(row, '').messages == [S, say('user', 'Do it.\ntwo\nlines'), A]
    for form in ({'conversations': [human('human', 'u'), human('gpt', 'a')]}, {'prompt': [U], 'completion': [A]}):
        assert conversation_of(form | {'system': 's'}, '').messages == [S, U, A]
    assert conversation_of({'messages': [S, *HELLO, *HELLO], 'system': 'other'}, '').messages == [S, *HELLO, *HELLO]


BAD = [
    ({'messages': []}, 'no assistant turn', 'rows without an answer'),
    ({'messages': [U]}, 'no assistant turn', 'rows without an answer'),
    ({'messages': [S]}, 'no assistant turn', 'rows without an answer'),
    ({'messages': [U, say('tool', 'x'), A]}, 'unknown role "tool" in messages, turn 2', 'rows with an unknown role'),
    ({'messages': [U, say(None, 'x')]}, 'unknown role null', 'rows with an unknown role'),
    ({'messages': [say(['user'], 'x'), A]}, r'unknown role \["user"\]', 'rows with an unknown role'),
    ({'messages': [A, U, A]}, "turn 1 is the assistant's, not the user's", 'rows whose roles do not alternate'),
    ({'messages': [U, U, A]}, "turn 2 is the user's", 'rows whose roles do not alternate'),
    ({'messages': [S, U, A, A]}, "turn 3 is the assistant's", 'rows whose roles do not alternate'),
    ({'messages': [U, A, S]}, 'a system turn in the middle', 'rows with a late system turn'),
    ({'messages': [S, S, U, A]}, 'a system turn in the middle', 'rows with a late system turn'),
    ({'messages': [U, A, U]}, "the last turn is the user's", 'rows that end with a question'),
    ({'messages': [U, say('assistant', ' \n')]}, 'an empty answer in turn 2', 'rows with an empty answer'),
    ({'messages': [say('user', ''), A]}, 'an empty question in turn 1', 'rows with an empty question'),
    ({'messages': [U, say('assistant', None)]}, 'messages, turn 2 is null; give text', 'rows without text'),
    ({'messages': [U, say('assistant', [{'type': 'text'}])]}, 'give text', 'rows without text'),
    ({'messages': [U, say('assistant', '\ud83d')]}, 'half of a character', 'rows with half a character'),
    ({'messages': 'u'}, 'messages is "u"; give a list', 'rows without messages'),
    ({'messages': [U, 'a']}, 'messages, turn 2 is "a"; give role and content', 'rows without messages'),
    ({'question': 'u', 'answer': 7}, 'answer is 7; give text', 'rows without text'),
    ({'instruction': None, 'output': 'a'}, 'instruction is null; give text', 'rows without text'),
    ({'instruction': 'u', 'output': ''}, 'an empty answer', 'rows with an empty answer'),
    ({'text': 'u', 'a\nb': 1}, r'no known form \(its columns: text, a\\nb\); give messages', 'rows of no known form'),
    ({}, r'\(its columns: none\)', 'rows of no known form'),
    (7, '7 is no object', 'rows that are no objects'),
    ([U, A], 'is no object', 'rows that are no objects')]


@pytest.mark.parametrize('row, words, kind', BAD)
def test_a_bad_row_is_one_line_or_counted(row, words, kind):
    with pytest.raises(UserError, match=words) as e: conversation_of(row, 'f.jsonl, row 7')
    assert str(e.value).startswith('f.jsonl, row 7: ') and '\n' not in str(e.value) and '; ' in str(e.value)
    skipped = Skipped(lenient=True)
    assert conversation_of(row, 'f.jsonl, row 7', skipped) is None
    assert skipped == {kind: 1} and skipped.first == {kind: 'f.jsonl, row 7'}


WHOLE = {'chosen': HELLO, 'rejected': [U, say('assistant', 'b')]}
PAIRS = [
    {'prompt': 'u', 'chosen': 'a', 'rejected': 'b'},
    {'prompt': [U], 'chosen': 'a', 'rejected': 'b'},
    {'prompt': [U], 'chosen': [A], 'rejected': [say('assistant', 'b')]},
    {'instruction': 'u', 'input': '', 'output': 'a', 'chosen': 'a', 'rejected': 'b'},
    {'question': 'u', 'chosen': 'a', 'rejected': 'b'},
    WHOLE, WHOLE | {'prompt': 'u'}, WHOLE | {'prompt': [U]},
    {'prompt': 'u', 'answers': ['a', 'b']}]


@pytest.mark.parametrize('row', PAIRS)
def test_every_form_is_the_same_choice(row):
    assert choice_of(row | {'meta': {'k': 1}}, 'w') == Choice('w', [U], ['a', 'b'], None, {'k': 1}, 'w')


def test_scores_ties_and_system_turns():
    row = {'prompt': 'u', 'answers': ['a', 'b', 'c', 'd'], 'scores': [1, 3.5, 1, -2]}
    assert choice_of(row, '')[2:4] == (['b', 'a', 'c', 'd'], [3.5, 1., 1., -2.])
    assert choice_of({'prompt': 'u', 'chosen': 'a', 'rejected': 'b', 'tie': True}, '').scores == [0., 0.]
    assert choice_of({'prompt': 'u', 'chosen': 'a', 'rejected': 'a', 'tie': True}, '').answers == ['a', 'a']
    assert choice_of({'prompt': 'u', 'answers': ['a', 'a', 'b'], 'scores': [1, 1, 0]}, '').scores == [1., 1., 0.]
    assert choice_of({'prompt': [S, *HELLO, U], 'chosen': 'a', 'rejected': 'b'}, '').prompt == [S, *HELLO, U]
    long = {name: [S, *HELLO, U, say('assistant', name)] for name in ('chosen', 'rejected')}
    assert choice_of(long, '') == Choice('', [S, *HELLO, U], ['chosen', 'rejected'], None, {}, '')
    assert choice_of(long | {'prompt': [*HELLO, U]}, '').prompt == choice_of(long | {'prompt': [S, *HELLO, U]}, '').prompt


P = {'prompt': 'u', 'chosen': 'a', 'rejected': 'b'}
BAD_CHOICES = [
    (P | {'rejected': 'a'}, 'chosen is equal to rejected, "a"', 'rows whose chosen answer is equal to a rejected one'),
    (P | {'tie': 'yes'}, 'tie is "yes"', 'rows with wrong scores'),
    (P | {'chosen': ' '}, 'an empty answer', 'rows with an empty answer'),
    (P | {'chosen': None}, 'chosen is null; give text', 'rows without text'),
    (P | {'chosen': []}, 'chosen does not end with an answer', 'rows without an answer'),
    (P | {'chosen': HELLO[:1]}, 'chosen does not end with an answer', 'rows without an answer'),
    (P | {'prompt': ''}, 'an empty question', 'rows with an empty question'),
    (P | {'prompt': HELLO}, 'the prompt does not end with a question', 'rows without a prompt'),
    (P | {'prompt': [S]}, 'the prompt does not end with a question', 'rows without a prompt'),
    (P | {'prompt': [U, U]}, "turn 2 is the user's", 'rows whose roles do not alternate'),
    ({'chosen': 'a', 'rejected': 'b'}, 'no prompt', 'rows without a prompt'),
    ({'chosen': [A], 'rejected': [say('assistant', 'b')]}, 'no prompt', 'rows without a prompt'),
    (WHOLE | {'prompt': 'v'}, 'begin differently', 'rows with two prompts'),
    (WHOLE | {'rejected': [say('user', 'v'), A]}, 'begin differently', 'rows with two prompts'),
    (WHOLE | {'rejected': [S, U, A]}, 'begin differently', 'rows with two prompts'),
    ({'prompt': 'u', 'answers': ['a'], 'scores': [1]}, 'fewer than two', 'rows with one answer'),
    ({'prompt': 'u', 'answers': 'ab'}, 'answers is "ab"', 'rows without an answer'),
    ({'prompt': 'u', 'answers': ['a', 'a'], 'scores': [1, 2]}, 'equal', 'rows whose chosen answer is equal to a rejected one'),
    ({'prompt': 'u', 'answers': ['a', 3]}, 'answer 2 is 3', 'rows without text'),
    *[({'prompt': 'u', 'answers': ['a', 'b'], 'scores': scores}, 'give each answer a number', 'rows with wrong scores')
      for scores in ([1], [1, 2, 3], [1, True], [1, '2'], [1, None], [1, float('nan')], [1, float('inf')], 'x', {})],
    ({'answers': ['a', 'b']}, 'does not end with a question', 'rows without a prompt'),
    ({'messages': HELLO}, 'no known form', 'rows of no known form'),
    (None, 'null is no object', 'rows that are no objects')]


@pytest.mark.parametrize('row, words, kind', BAD_CHOICES)
def test_a_bad_choice_is_one_line_or_counted(row, words, kind):
    with pytest.raises(UserError, match=words) as e: choice_of(row, 'f.json, row 3')
    assert str(e.value).startswith('f.json, row 3: ') and '\n' not in str(e.value)
    skipped = Skipped(lenient=True)
    assert choice_of(row, 'f.json, row 3', skipped) is None and skipped == {kind: 1}


def test_rows_of_the_world():
    for row in question_rows(20): assert conversation_of(row, '').messages == row['messages']
    for row in preference_rows(20):
        assert choice_of(row, '').answers == [row['chosen'], row['rejected']] and choice_of(row, '').meta == row['meta']
    for row in ranking_rows(20):
        choice = choice_of(row, '')
        assert dict(zip(choice.answers, choice.scores)) == dict(zip(row['answers'], row['scores']))
        assert choice.scores == sorted(row['scores'], reverse=True)


ROWS = [FORMS['messages'], {'messages': [U]}, FORMS['alpaca'], WHOLE]


def written(folder):
    "The same rows as files of all kinds."
    lines = '\n\n'.join(map(json.dumps, ROWS)).encode()
    (folder/'a.jsonl').write_bytes(b'\xef\xbb\xbf' + lines)
    (folder/'a.json').write_text(json.dumps(ROWS, indent=1))
    (folder/'a.jsonl.gz').write_bytes(gzip.compress(lines))
    (folder/'A.JSON.gz').write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    return [folder/name for name in ('a.jsonl', 'a.json', 'a.jsonl.gz', 'A.JSON.gz')]


def test_files_of_all_kinds(tmp_path):
    for path in written(tmp_path):
        skipped = Skipped(lenient=True)
        assert [c.where for c in read_conversations(path, skipped)] == [f'{path}, row 1', f'{path}, row 3']
        assert skipped == {'rows without an answer': 1, 'rows of no known form': 1}
        assert [c.where for c in read_choices(str(path), Skipped(lenient=True))] == [f'{path}, row 4']
        with pytest.raises(UserError, match='row 2: no assistant turn'): list(read_conversations(path))
    table = pyarrow.Table.from_pylist([FORMS['messages'], {'messages': [S, *HELLO]}])
    pyarrow.parquet.write_table(table, tmp_path/'a.parquet')
    assert [c.messages for c in read_conversations(tmp_path/'a.parquet')] == [HELLO, [S, *HELLO]]


FILES = [
    ('a.json', '{"a": 1}\n{"b": 2}', r'a\.json: not readable as JSON \(Extra data.*name it \.jsonl'),
    ('a.json', '[{"a": 1}', r'a\.json: not readable as JSON .*; write it again'),
    ('a.json', '[' * 100_000, 'not readable as JSON'),
    ('a.json', '[{"messages": 1, "messages": 2}]', 'the same name twice'),
    ('a.json', '{"rows": []}', 'is not a list; give a list of rows'),
    ('a.json', '[]', 'no conversations in it$'), ('a.jsonl', '\n\n', 'no conversations in it$'),
    ('a.jsonl', '[{"messages": []}]', 'row 1: .* is no object'),
    ('a.jsonl', '{"messages": [', r'a\.jsonl, line 1: not a JSON object'),
    ('a.json', b'["\xff"]', 'not UTF-8 at byte 2'),
    ('a.json.gz', b'nothing', 'not a gzip'), ('a.txt', 'hello', r'cannot read \.txt; give \.json'),
    ('a', 'hello', 'cannot read a file without suffix'), ('a.parquet.gz', b'', r'cannot read \.parquet'),
    ('a.parquet', b'nothing', 'not a parquet file')]


@pytest.mark.parametrize('name, content, words', FILES)
def test_files_that_cannot_be_read(name, content, words, tmp_path):
    (tmp_path/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as e: list(read_conversations(tmp_path/name))
    assert '\n' not in str(e.value) and name in str(e.value)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(UserError, match='a folder; give a file in it, such as .*train.jsonl'): list(read_choices(tmp_path))
    with pytest.raises(UserError, match='no such file'): list(read_choices(tmp_path/'none.json'))


def test_a_lenient_reader_says_why_nothing_is_left(tmp_path):
    (tmp_path/'a.jsonl').write_text('{"messages": []}\n{"messages": []}\nno json\n')
    skipped = Skipped(lenient=True)
    said = r'no conversations in it \(left out: rows without an answer: 2, rows that are not JSON: 1\)'
    with pytest.raises(UserError, match=said):
        list(read_conversations(tmp_path/'a.jsonl', skipped))
    assert skipped.total() == 3
