"Answers in the chat template: texts, exact answers, prompts from files, and the command."
import json
import shutil
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch import nn

from llmbook.align import answers
from llmbook.align.answers import answer_file, answer_prompts, exact_match, prompt_of, read_prompts
from llmbook.align.branches import sample_answers
from llmbook.align.chat_template import ChatTemplate, Encoded
from llmbook.align.messages import Conversation
from llmbook.cli import main
from llmbook.core import UserError
from llmbook.files import read_jsonl, write_json, write_jsonl
from llmbook.flags import read_flags
from llmbook.model.completion import generate_text
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer
from llmbook.text.framing import text_tokenizer
from llmbook.text.unpack import Skipped

TEXTS = ['the lamp was in the mill and the boat was in the harbour. ' * 3, 'Odo went to the mill. Mira took the lamp.'] * 4
QUESTIONS = ['where is the lamp?', 'who went to the mill?', 'the boat', 'Mira?', 'the lamp was in the mill and the boat?']


def user(text): return {'role': 'user', 'content': text}
def assistant(text): return {'role': 'assistant', 'content': text}


@pytest.fixture(scope='module')
def template(): return ChatTemplate(text_tokenizer(train_tokenizer(TEXTS, 300)))


@pytest.fixture(scope='module')
def model(template):
    model = Transformer(Config(template.tokenizer.vocab_size, 64, 2, 4, 2, 32, 48, 'llama', False), seed=0).eval()
    for p in model.parameters(): p.data *= 3 if p.ndim > 1 else 1
    return model


@pytest.fixture(scope='module')
def folder(model, template, tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')/'model'
    save_model(model, template.tokenizer, folder)
    return folder


def test_texts_of_answers(model, template):
    prompts = [[user(text)] for text in QUESTIONS]
    ids = [template.prompt_ids(messages) for messages in prompts]
    written = sample_answers(model, ids, 8, 1.0, 2, 3, ends=template.tokenizer.ends)
    def text(ids): return template.tokenizer.decode([i for i in ids if i not in template.tokenizer.ends])
    texts = [[text(answer) for answer in both] for both in written]
    assert answer_prompts(model, template, prompts, 8, 1.0, 2, seed=3) == texts
    assert answer_prompts(model, template.tokenizer, prompts[2:3], 8, 1.0, 2, seed=3, first=2) == texts[2:3]


class Bigram(nn.Module):
    "A model that knows which token follows which."
    config = SimpleNamespace(block_size=64)
    head = nn.Identity()
    def __init__(self, pairs):
        super().__init__()
        self.follows = nn.Parameter(torch.zeros(400, 400))
        for before, after in pairs: self.follows.data[before, after] = 1
    def hidden(self, ids): return self.follows[ids]


def test_an_exact_answer_ends_where_it_should(template):
    tokenizer = template.tokenizer
    ids = [template.prompt_ids([user('Mira?')])[-1], *tokenizer.encode_texts(['the mill'])[0], tokenizer.ends[0]]
    model = Bigram(zip(ids, ids[1:]))
    right = {'the mill': True, 'the lamp': False, 'the': False, 'the mill the mill': False, 'mill': False}
    for answer, is_right in right.items():
        for before in ([], [user('Where?'), assistant('the mill')], [user('Where?'), assistant('a boat')]):
            chat = [*before, user('Mira?'), assistant(answer)]
            assert exact_match(model, template, [Conversation('', chat), chat]) == [is_right] * 2, (before, answer)
    long = [user('the lamp was in ' * 20), assistant('the mill')]
    assert exact_match(model, template, [long, [user('Mira?'), assistant('the mill')]]) == [False, True] # and no error
    assert exact_match(model, template, []) == []
    with pytest.raises(UserError, match='special token'):
        exact_match(model, template, [[user('<|end|>'), assistant('a')]])


@torch.no_grad()
def test_exact_answers_of_a_batch_are_those_of_each_alone(model, template):
    "Greedy decoding would write the answer: it does, token by token, on answers that go a part of the way."
    prompts = [template.prompt_ids([user(text)]) for text in QUESTIONS]
    greedy = [answer for [answer] in sample_answers(model, prompts, 4)]
    encoded = []
    for i, (ids, answer) in enumerate(zip(prompts, greedy)):
        for part in range(1, 5):
            ending = answer[:part] + ([7] if i % 2 else [])
            encoded.append(Encoded(ids + ending, [False] * len(ids) + [True] * len(ending)))
    def likeliest(ids): return model(torch.tensor([ids]))[0, -1].argmax()
    expected = [all(likeliest(e.ids[:i]) == e.ids[i] for i in range(len(e.ids)) if e.asked[i]) for e in encoded]
    assert answers._would_write(model, encoded) == expected and 5 < sum(expected) < 15


ROWS = [ # row, messages before the answer, its answer
    ({'prompt': 'Who?'}, ['Who?'], None), ({'prompt': 'Who?', 'completion': 'Odo'}, ['Who?'], 'Odo'),
    ({'prompt': [user('Who?')]}, ['Who?'], None), ({'prompt': [user('Who?'), assistant('Odo')]}, ['Who?'], 'Odo'),
    ({'prompt': 'Who?', 'chosen': 'Odo', 'rejected': 'Mira'}, ['Who?'], None),
    ({'prompt': 'Who?', 'system': 'Be brief.'}, ['Be brief.', 'Who?'], None),
    ({'instruction': 'Add.', 'input': '1 2'}, ['Add.\n1 2'], None), ({'instruction': 'Add.', 'output': '3'}, ['Add.'], '3'),
    ({'messages': [user('Who?')], 'system': 'Be brief.'}, ['Be brief.', 'Who?'], None),
    ({'messages': [user('Who?'), assistant('Odo'), user('Where?'), assistant('.')]}, ['Who?', 'Odo', 'Where?'], '.'),
    ({'conversations': [{'from': 'human', 'value': 'Who?'}, {'from': 'gpt', 'value': 'Odo'}]}, ['Who?'], 'Odo'),
    ({'question': 'Who?', 'answer': 'Odo'}, ['Who?'], 'Odo'), ({'source': 'a', 'target': 'b'}, ['a'], 'b')]


@pytest.mark.parametrize('row, said, answer', ROWS, ids=str)
def test_rows_of_every_form_are_prompts(row, said, answer):
    before = json.dumps(row)
    for name in (None, 7):
        prompt = prompt_of(row if name is None else row | {'id': name}, 'a.jsonl, row 1')
        assert [m['content'] for m in prompt.messages] == said and prompt.answer == answer
        assert prompt.id == ('a.jsonl, row 1' if name is None else '7') and prompt.messages[-1]['role'] == 'user'
    assert json.dumps(row) == before


BAD = [5, None, [], {}, {'text': 'a', 'source': 'world'}, {'prompt': ''}, {'prompt': None}, {'prompt': 5}, {'prompt': []},
       {'prompt': ['a']}, {'prompt': '\ud83d'}, {'instruction': ''}, {'messages': 'a'}, {'messages': [assistant('a')]},
       {'messages': [{'role': 'x', 'content': 'a'}]}, {'messages': [user('a'), user('b')]},
       {'messages': [{'role': 'system', 'content': 'a'}]}, {'messages': [user('a'), assistant(' ')]}]


@pytest.mark.parametrize('row', BAD, ids=str)
def test_bad_rows_are_named_or_counted(row):
    with pytest.raises(UserError, match='^a.jsonl, row 3: '): prompt_of(row, 'a.jsonl, row 3')
    skipped = Skipped(lenient=True)
    assert prompt_of(row, 'a.jsonl, row 3', skipped) is None and skipped.total() == 1


def test_files_of_prompts(tmp_path):
    (tmp_path/'a.txt').write_bytes(b'\xef\xbb\xbfWho?\r\n\r\n Where is it? \nlast')
    assert [(p.id[-5:], p.messages) for p in read_prompts(tmp_path/'a.txt')] == [
        ('row 1', [user('Who?')]), ('row 3', [user('Where is it?')]), ('row 4', [user('last')])]
    write_json(tmp_path/'b.json', [{'prompt': 'a'}, {'prompt': 'b'}])
    assert [p.messages[0]['content'] for p in read_prompts(str(tmp_path/'b.json'))] == ['a', 'b']
    (tmp_path/'bad.txt').write_bytes(b'good\nb\xe9d\n')
    with pytest.raises(UserError, match='bad.txt, line 2: not UTF-8'): list(read_prompts(tmp_path/'bad.txt'))
    skipped = Skipped(lenient=True)
    assert len(list(read_prompts(tmp_path/'bad.txt', skipped))) == 1 and skipped.total() == 1
    (tmp_path/'empty.txt').write_text(' \n\n')
    for name, words in (('empty.txt', 'no prompts'), ('c.pdf', 'no such file'), ('.', 'a folder')):
        with pytest.raises(UserError, match=words): list(read_prompts(tmp_path/name))
    (tmp_path/'c.md').write_text('a')
    with pytest.raises(UserError, match=r'cannot read .md; give .txt, .json'): list(read_prompts(tmp_path/'c.md'))


def test_the_command_answers_a_file(folder, model, template, tmp_path, capsys):
    "On the screen or in a file, which is made with its folder."
    turns = [user('Mira?'), assistant('yes'), user('the boat'), assistant('Odo')]
    rows = [{'id': 'a', 'prompt': 'where is the lamp?'}, {'messages': turns}]
    write_jsonl(tmp_path/'ask.jsonl', rows)
    ask = ['generate', '--model', str(folder), '--prompts', str(tmp_path/'ask.jsonl'), '--n', '6']
    with pytest.raises(SystemExit, match='0'): main([*ask, '--temperature', '0'])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    prompts = [[user(rows[0]['prompt'])], turns[:-1]]
    greedy = [texts[0] for texts in answer_prompts(model, template, prompts, 6)]
    assert printed == [{'id': 'a', 'prompt': 'where is the lamp?', 'answer': greedy[0]},
                       {'id': f"{tmp_path/'ask.jsonl'}, row 2", 'prompt': prompts[1], 'answer': greedy[1], 'reference': 'Odo'}]
    out = str(tmp_path/'new/out.jsonl')
    with pytest.raises(SystemExit, match='0'): main([*ask, '--samples', '3', '--seed', '4', '--out', out])
    assert '6 answers to 2 prompts' in capsys.readouterr().out
    written = list(read_jsonl(tmp_path/'new/out.jsonl'))
    assert [(row['id'][-1], row['sample']) for row in written] == [(name, i) for name in 'a2' for i in range(3)]
    drawn = answer_prompts(model, template, prompts, 6, 0.8, 3, seed=4, top_p=0.95)
    assert [row['answer'] for row in written] == [*drawn[0], *drawn[1]]


def test_an_interrupted_command_leaves_no_half_file(folder, tmp_path):
    (tmp_path/'ask.txt').write_text('Mira?\nOdo?\n')
    ask = dict(model=str(folder), prompts=str(tmp_path/'ask.txt'), n=3, out=str(tmp_path/'out.jsonl'))
    def stopped(rows):
        yield next(iter(rows))
        raise KeyboardInterrupt
    rows = answers._answer_rows
    with patch.object(answers, '_answer_rows', lambda *args: stopped(rows(*args))), pytest.raises(KeyboardInterrupt):
        answer_file(**ask)
    assert [p.name for p in tmp_path.iterdir()] == ['ask.txt']
    answer_file(**ask)
    before = (tmp_path/'out.jsonl').read_bytes()
    with patch.object(answers, 'sample_answers', side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        answer_file(**ask, seed=1)
    assert (tmp_path/'out.jsonl').read_bytes() == before
    answer_file(**ask, seed=1) # its own file is replaced
    assert (tmp_path/'out.jsonl').read_bytes() != before and len(list(tmp_path.iterdir())) == 2


MISTAKES = {
    'a flag of the other form': (['--prompts', 'ask.txt', '--prompt', 'a'], ['--prompt: not with --prompts']),
    'the k likeliest': (['--prompts', 'ask.txt', '--top-k', '3'], ['--top-k: not with --prompts']),
    'a file without prompts': (['--out', 'a.jsonl'], ['--out: only with --prompts']),
    'no file': (['--prompts', 'nowhere.jsonl'], ['nowhere.jsonl: no such file']),
    'an empty name': (['--prompts', ''], ['--prompts: empty']),
    'a folder': (['--prompts', '.'], ['a folder']),
    'a bad row': (['--prompts', 'bad.jsonl'], ['bad.jsonl, row 2', 'form']),
    'bad rows alone': (['--prompts', 'bad2.jsonl', '--skip-bad'], ['no prompts']),
    'a long prompt': (['--prompts', 'long.jsonl'], ['long.jsonl, row 1', 'the model reads 64; shorten it']),
    'long prompts alone': (['--prompts', 'long.jsonl', '--skip-bad'], ['no prompt is left', 'long.jsonl, row 1']),
    'a mark in a prompt': (['--prompts', 'mark.txt'], ['mark.txt, row 1', '<|end|>']),
    'the file of prompts': (['--prompts', 'bad.jsonl', '--out', './bad.jsonl'], ['--out ./bad.jsonl: the file of the prompts']),
    'another kind of file': (['--prompts', 'ask.txt', '--out', 'a.csv'], ['a.csv', '.jsonl']),
    'a file of something else': (['--prompts', 'ask.txt', '--out', 'bad.jsonl'], ['bad.jsonl: in the way']),
    'a file for a folder': (['--prompts', 'ask.txt', '--out', 'ask.txt/a.jsonl'], ['ask.txt', 'file is in the way']),
    'nobody to ask': (['--prompts', 'ask.txt', '--model', 'plain'], ['plain: no chat template', '--prompt continues a text']),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_one_line_for_a_mistake(name, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'ask.txt').write_text('Mira?\n')
    (tmp_path/'mark.txt').write_text('where <|end|>\n')
    write_jsonl(tmp_path/'bad.jsonl', [{'prompt': 'a'}, {'text': 'b'}])
    write_jsonl(tmp_path/'bad2.jsonl', [{'text': 'b'}])
    write_jsonl(tmp_path/'long.jsonl', [{'prompt': 'lamp ' * 70}])
    if name == 'nobody to ask': without_template(folder, tmp_path/'plain')
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    words, expected = MISTAKES[name]
    with pytest.raises(SystemExit, match='2'): main(['generate', '--model', str(folder), *words])
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith('llmbook: ') and all(word in line for word in expected), line
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def without_template(folder, place):
    "A model whose tokenizer is somebody else's and says nothing about chats."
    shutil.copytree(folder, place)
    (place/'chat_template.jinja').unlink()
    (place/'manifest.json').unlink(missing_ok=True)
    text = (place/'tokenizer.json').read_text()
    (place/'tokenizer.json').write_text(text.replace('<|user|>', '<|USER|>'))


def test_a_prompt_leaves_room_for_one_token(template):
    prompt = prompt_of({'prompt': 'the lamp was in the mill'}, 'a.jsonl, row 1')
    size = len(template.prompt_ids(prompt.messages))
    with pytest.raises(UserError, match=f'row 1: {size} tokens'): answers._encode_prompts([prompt], template, size, Skipped())
    assert len(answers._encode_prompts([prompt], template, size + 1, Skipped())) == 1


def test_bad_rows_are_left_out_if_asked(folder, tmp_path, capsys):
    write_jsonl(tmp_path/'ask.jsonl', [{'prompt': 'lamp ' * 70}, {'text': 'b'}, {'prompt': 'Mira?'}])
    [row] = answer_file(str(folder), str(tmp_path/'ask.jsonl'), n=3, skip_bad=True)
    said = capsys.readouterr()
    assert row['prompt'] == 'Mira?' and json.loads(said.out) == row
    assert said.err.count('left out: ') == 2 and 'row 1' in said.err and 'row 2' in said.err


def test_both_forms_of_the_command_have_the_same_flags():
    ours, others = read_flags(answer_file), read_flags(generate_text)
    for name in ours.keys() & others.keys():
        assert ours[name].default == others[name].default and ours[name].ranges == others[name].ranges, name
    assert ours.keys() - others.keys() == {'prompts', 'skip_bad', 'out'} and others.keys() - ours.keys() == {'prompt', 'top_k'}
    with pytest.raises(UserError, match='--prompts is missing'): answer_file('nowhere')
    with pytest.raises(UserError, match='--samples 0'): answer_file('nowhere', 'ask.txt', samples=0)
