"Numbers in answers, what a function may return, functions that fail, and reward models: each row that is wrong is named."

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmbook.align.chat_template import ChatTemplate
from llmbook.align.pairs import encode_choices, fill_choices
from llmbook.align.messages import Choice
from llmbook.align.rewards import (REWARD_RULES, Asked, ModelReward, RuleReward, last_number, load_reward, read_asked,
                                   sum_prompts, told_prompts)
from llmbook.align.scoring import score_conversations
from llmbook.train.tuning import Start
from llmbook.core import UserError
from llmbook.files import write_jsonl
from llmbook.model.checkpoints import book_model
from llmbook.model.heads import RewardModel
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer
from llmbook.text.unpack import Skipped
from llmbook.train.step import LocalOptions

SHAPE = Config(vocab_size=1024, block_size=256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32)
NUMBERS = {
    '22': 22, '-5': -5, '3.50': 3.5, '1,234': 1234, '-1,234,567.5': -1234567.5, '.5': 0.5, '-.5': -0.5, '1e3': 1000,
    '2E-2': 0.02, '1e-400': 0, '00012': 12,
    'so 7': 7, '7 apples': 7, '7.': 7, '(7)': 7, '$7': 7, '7%': 7, '12km': 12, '5th': 5, '答案是22': 22, '−5': -5, '٣': 3,
    'H2O': None, 'x1': None, 'x_1': None, 'GPT2': None, '': None, '-': None, '.': None, ',': None, 'one': None, '####': None,
    '7-5': 5, '7 - 5': 5, '7=-5': -5, '(3)-5': 5, 'x-5': 5,
    '1,2,3': 3, '7,15': 15, '1,2345': 2345, '12,34': 34, '1,234,': 1234,
    '7+5=12,0+1+1=2,22': 22, '1/2': 2, '1.2.3': 3, '2026-12-01': 1,
    '#### 42': 42, '5 #### 42 6': 42, '####42': 42, '#### $1,234\n9': 1234,
    '#### **-3**': -3, '#### 1 #### 2': 2, '#### Step\n4': 4,
    '1e999': None, '-1e999': None, '9' * 400: None, '9' * 300: int('9' * 300), str(2**53 + 1): 2**53 + 1}


@pytest.fixture(scope='module')
def tokenizer(): return book_model('sft')[1]


@pytest.fixture(scope='module')
def template(tokenizer): return ChatTemplate(tokenizer)


@pytest.fixture(scope='module')
def sums(template): return sum_prompts(3, template)


def mine(function): return RuleReward(function, 'mine.py:f', many=True)


# Numbers

@pytest.mark.parametrize('text', NUMBERS)
def test_the_number_of_a_text(text): assert last_number(text) == NUMBERS[text]


@given(st.integers(-10**30, 10**30), st.booleans())
def test_whole_numbers_are_exact(number, grouped):
    assert last_number(f'It is {number:,}.' if grouped else f'It is {number}.') == number


@given(st.text())
def test_any_text_gives_a_finite_number_or_none(text):
    found = last_number(text)
    assert found is None or math.isfinite(found)


def test_a_long_text_takes_no_long_time(): # each of these is linear; a quadratic one would take minutes
    for text in ('1,234' * 100_000, '9' * 300_000, '-' * 300_000, '####' * 100_000, ',111' * 100_000): last_number(text)


# Rules

def test_rules_by_hand(sums):
    prompt = Asked('a', [], [1], '#### 1,234.0')
    assert [REWARD_RULES['number'](text, prompt) for text in ('1234', '#### 1234 or 5', '12', '', 'none')] == [1, 1, 0, 0, 0]
    assert [REWARD_RULES['exact'](text, prompt) for text in ('#### 1,234.0', ' #### 1,234.0\n', '1234')] == [1, 1, 0]
    large = Asked('b', [], [1], str(2**53))
    assert REWARD_RULES['number'](str(2**53), large) == 1 and REWARD_RULES['number'](str(2**53 + 1), large) == 0


@pytest.mark.parametrize('name, needs, prompt, problem', [
    ('gold', 'story', Asked('p7', [], [1], '5'), 'not about a story'),
    ('exact', 'reference', Asked('p7', [], [1]), 'no right answer'),
    ('number', 'number', Asked('p7', [], [1]), 'no right answer'),
    ('number', 'number', Asked('p7', [], [1], 'two'), "has no number, 'two'"),
    ('number', 'number', Asked('p7', [], [1], '9' * 400), 'has no number')])
def test_a_prompt_that_cannot_be_paid_is_named(sums, name, needs, prompt, problem):
    rule = RuleReward(REWARD_RULES[name], name, needs)
    with pytest.raises(UserError, match=f'--reward {name}: prompt p7: .*{problem}'): rule.check([prompt])
    if needs != 'story': rule.check(sums)


def test_made_prompts_fit_their_rules(template):
    RuleReward(REWARD_RULES['number'], 'number', 'number').check(sum_prompts(200, template))
    RuleReward(REWARD_RULES['gold'], 'gold', 'story').check(told_prompts(5, template))


def test_prompts_of_a_file(template, tmp_path):
    file = tmp_path/'p.jsonl'
    write_jsonl(file, [{'prompt': 'Why?', 'completion': '#### 3'}, {'id': 'x', 'prompt': 'Why? ' * 400}, {'prompt': 'So?'}])
    with pytest.raises(UserError, match='p.jsonl, row 2: .* the model reads 256'): read_asked(file, template, 256, Skipped())
    found = read_asked(file, template, 256, Skipped(lenient=True))
    assert [prompt.reference for prompt in found] == ['#### 3', None] and all(prompt.ids for prompt in found)
    exact = RuleReward(REWARD_RULES['exact'], 'exact', 'reference')
    with pytest.raises(UserError, match='row 3: it has no right answer'): exact.check(found)
    with pytest.raises(UserError, match='no prompt is left'): read_asked(file, template, 2, Skipped(lenient=True))


# Functions

ANSWERS = [['a', 'bb'], ['ccc', 'd'], ['e', 'f']]
GOOD = [[1, 2, 3, 4, 5, 6.5], (True, False) * 3, np.arange(6), np.arange(6, dtype=np.float32), torch.arange(6),
        torch.ones(6).bool(),
        torch.rand(6, requires_grad=True), [np.float32(1)] * 6, [torch.tensor(1.)] * 6, (i for i in range(6)), range(6)]
BAD = [(None, 'returned NoneType'), (1., 'returned float'), ('123456', 'returned str'), ({1: 2}, 'returned dict'),
       ({1., 2.}, 'returned set'), (torch.tensor(1.), 'returned Tensor'), ([1.] * 5, '5 numbers for 6 answers'),
       ([], '0 numbers'), (np.zeros((3, 2)), '3 numbers'), (np.zeros((6, 1)), r'an answer to {0} is \[0.0\]'),
       ([1, 2, None, 4, 5, 6], 'an answer to {1} is None'), ([1, 2, 3, 4, math.nan, 6], 'an answer to {2} is nan'),
       ([1, 2, 3, 4, 5, math.inf], 'an answer to {2} is inf'), ([1, 2, 3, 4, 5, 4e38], r'an answer to {2} is 4e\+38'),
       ([1, -10**400, 3, 4, 5, 6], 'an answer to {0} is -1000'), (['x'] * 6, 'an answer to {0} is x')]


@pytest.mark.parametrize('points', GOOD, ids=lambda p: type(p).__name__)
def test_what_a_function_may_return(sums, points):
    expected = list(points) if not hasattr(points, 'tolist') else points.tolist()
    found = mine(lambda *_: iter(expected) if 'generator' in type(points).__name__ else points)(sums, ANSWERS, {})
    assert found.dtype == torch.float32 and found.shape == (3, 2) and not found.requires_grad
    torch.testing.assert_close(found.flatten(), torch.tensor([float(value) for value in expected]))


@pytest.mark.parametrize('points, problem', BAD, ids=[problem for _, problem in BAD])
def test_what_it_may_not(sums, points, problem):
    with pytest.raises(UserError, match='mine.py:f: .*' + problem.format(*(prompt.id for prompt in sums))):
        mine(lambda *_: points)(sums, ANSWERS, {})


def test_a_function_sees_every_answer_in_order(sums, capsys):
    def f(prompts, answers, references):
        print('hello') # does not harm
        assert prompts == [p.messages[0]['content'] for p in sums for _ in 'ab']
        assert references == [p.reference for p in sums for _ in 'ab']
        return [len(answer) for answer in answers]
    assert mine(f)(sums, ANSWERS, {}).tolist() == [[1, 2], [3, 1], [1, 1]] and 'hello' in capsys.readouterr().out
    turns = [{'role': 'system', 'content': 'Be kind.'}, {'role': 'user', 'content': 'Why?'}]
    assert mine(lambda prompts, *_: [prompts[0] == turns])([Asked('a', turns, [1])], [['x']], {}).item() == 1


@pytest.mark.parametrize('error', [ValueError('no\nway'), SystemExit(3), MemoryError(), TypeError('x')])
def test_an_error_names_the_row(sums, error):
    def f(prompts, answers, references):
        if 'd' in answers: raise error
        return [0.] * len(answers)
    with pytest.raises(UserError, match=rf"mine.py:f: failed on an answer to {sums[1].id} \({type(error).__name__}") as caught:
        mine(f)(sums, ANSWERS, {})
    assert "the answer was 'd'" in str(caught.value)
    def lazy(prompts, answers, references): yield from (1 / (answer != 'd') for answer in answers)
    with pytest.raises(UserError, match=f'{sums[1].id} .ZeroDivisionError'): mine(lazy)(sums, ANSWERS, {})
    def crowded(prompts, answers, references):
        if len(answers) > 1: raise error
        return [0.]
    with pytest.raises(UserError, match='failed on 6 answers together, though on none alone'):
        mine(crowded)(sums, ANSWERS, {})


# One name for all of them

FILE = '''
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Rule:
    factor: float = 2.
    def __call__(self, prompts, answers): return [self.factor * len(a) for a in answers]
rule, number = Rule(), 5
def two(prompts, answers): return [len(a) for a in answers]
def three(prompts, answers, references): return [int(r) for r in references]
def default(prompts, answers, references=None): return three(prompts, answers, references)
def others(prompts, answers, **more): return [len(more)] * len(answers)
def any_number(*everything): return [len(everything)] * len(everything[1])
def one(answers): return [0.] * len(answers)
def four(a, b, c, d): return [0.] * len(b)
def keyword(prompts, answers, *, scale): return [0.] * len(answers)
async def later(prompts, answers): return [0.] * len(answers)
'''


@pytest.fixture(scope='module')
def start(tokenizer): return Start(Transformer(SHAPE, 0), tokenizer, None, '')


def test_functions_of_a_file(start, sums, tmp_path):
    file = tmp_path/'mine.py'
    file.write_text(FILE)
    right = [[float(prompt.reference)] * 2 for prompt in sums]
    lengths = [[1, 2], [3, 1], [1, 1]]
    cases = {'two': lengths, 'three': right, 'default': right, 'others': [[0, 0]] * 3, 'any_number': [[3, 3]] * 3,
             'rule': [[2 * n for n in row] for row in lengths]}
    for name, expected in cases.items():
        assert load_reward(f'{file}:{name}', start, LocalOptions())(sums, ANSWERS, {}).tolist() == expected, name
    for name in ('one', 'four', 'keyword'):
        with pytest.raises(UserError, match=f'{name} takes other arguments'):
            load_reward(f'{file}:{name}', start, LocalOptions())
    wrong = ('tow', "no function tow in .*did you mean 'two'"), ('number', 'no function number'), ('', 'no function')
    for name, problem in wrong:
        with pytest.raises(UserError, match=problem): load_reward(f'{file}:{name}', start, LocalOptions())
    with pytest.warns(RuntimeWarning, match='never awaited'), pytest.raises(UserError, match='returned coroutine'):
        load_reward(f'{file}:later', start, LocalOptions())(sums, ANSWERS, {})
        __import__('gc').collect()


@pytest.mark.parametrize('text, problem', [('import nothing_of_this_name', 'ModuleNotFoundError'), ('1/0', 'ZeroDivisionError'),
                                           ('def', 'SyntaxError'), ('raise SystemExit("usage")', 'SystemExit: usage')])
def test_a_file_that_fails(start, tmp_path, text, problem):
    (tmp_path/'bad.py').write_text(text)
    with pytest.raises(UserError, match=f'bad.py fails .{problem}'): load_reward(f'{tmp_path}/bad.py:f', start, LocalOptions())
    with pytest.raises(UserError, match='no such file'): load_reward(f'{tmp_path}/none.py:f', start, LocalOptions())


def test_names_that_are_none(start, tmp_path):
    for name in REWARD_RULES: assert load_reward(name, start, LocalOptions()).name == name
    with pytest.raises(UserError, match="--reward nubmer: neither .*gold, exact, number, did you mean 'number'"):
        load_reward('nubmer', start, LocalOptions())
    (tmp_path/'empty').mkdir()
    with pytest.raises(UserError): load_reward(str(tmp_path/'empty'), start, LocalOptions())


def test_reward_models(start, tokenizer, template, tmp_path):
    def saved(name, tokenizer, **shape):
        model = RewardModel(Config(**{**vars(SHAPE), **shape}), tokenizer.pad if hasattr(tokenizer, 'pad') else 0, seed=1)
        save_model(model, tokenizer, tmp_path/name)
        return str(tmp_path/name)
    good = saved('good', tokenizer)
    told = told_prompts(3, template)
    texts = [['Ana was a baker.', 'Ben was a smith. ' * 3] for _ in told]
    choices = [Choice(p.id, p.messages, several, None, {}) for p, several in zip(told, texts)]
    batch = fill_choices(encode_choices(choices, template, 256), range(3), 256, tokenizer.pad)
    judge = load_reward(good, start, LocalOptions(micro=2))
    assert isinstance(judge, ModelReward)
    turns = [[*p.messages, {'role': 'assistant', 'content': text}] for p, several in zip(told, texts) for text in several]
    expected = score_conversations(judge.scorer.model, tokenizer, turns)
    torch.testing.assert_close(judge(told, texts, batch).flatten(), torch.tensor(expected), atol=1e-5, rtol=0)
    foreign = saved('foreign', train_tokenizer(['Ana was a baker.'] * 50, 300))
    with pytest.raises(UserError, match='its tokenizer is not that of the policy'): load_reward(foreign, start, LocalOptions())
    with pytest.raises(UserError, match='reads 128 tokens, the policy writes up to 256'):
        load_reward(saved('narrow', tokenizer, block_size=128), start, LocalOptions())
    save_model(start.model, tokenizer, tmp_path/'decoder')
    with pytest.raises(UserError, match='a language model, which gives no scores'):
        load_reward(str(tmp_path/'decoder'), start, LocalOptions())
