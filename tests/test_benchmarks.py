"The benchmarks run, on a small scale, and what they compare is the same."
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from needs import needs

from llmbook.model.checkpoints import book_model, load_model
from llmbook.model.generate import generate
from llmbook.model.transformer import Transformer, config_for
from llmbook.text.task_files import TASKS, task_rows
from llmbook.text.tasks import message_row

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT/'llmbook/assets/nano-pretrain'
trainer = needs('accelerate', 'peers') # is what Trainer needs


def bench(script, *args, to):
    "Run a script; its printed lines, and what it kept."
    command = [sys.executable, ROOT/'benchmarks'/script, *map(str, args), '--json', to]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads(to.read_text())


@pytest.mark.slow
@trainer
def test_train_cpu(tmp_path):
    "Four contenders take turns; their losses agree, or the script would have ended."
    out, found = bench('train_cpu.py', '--sizes', 'nano', '--rows', 2, '--rounds', 2, '--steps', 3, '--threads', 1,
                       '--no-compiled', to=tmp_path/'cpu.json')
    row = found['sizes']['nano']
    assert list(row['found']) == ['ours', 'plain', 'trainer', 'ours giving back'] and row['losses_differ'] < 1e-3
    assert all(r['tokens_per_s'] > 0 and 0 < r['share_of_matmul'] < 1.5 for r in row['found'].values())
    assert out.count('tokens/s') == 4


@pytest.mark.slow
@trainer
def test_train_gpu_runs_anywhere(tmp_path):
    out, found = bench('train_gpu.py', '--models', 'nano', '--rows', 2, '--seconds', 0.1, '--levers', 1, to=tmp_path/'gpu.json')
    rows = found['models']['nano']
    assert [r['name'] for r in rows] == ['ours: fp32', 'ours: + bf16', 'Trainer', 'Trainer: + compile', 'ours: best, again']
    assert not [r for r in rows if 'failed' in r], rows
    assert all(r['tokens_per_s'] > 0 and 5 < r['loss'] < 8 for r in rows) and 'times Trainer' in out


@pytest.mark.slow
@trainer
def test_our_loop_beside_another_checkout(tmp_path):
    out, found = bench('train_cpu.py', '--beside', ROOT, '--sizes', 'nano', '--rows', 2, '--rounds', 1, '--steps', 3,
                       '--threads', 1, to=tmp_path/'beside.json')
    row = found['sizes']['nano']
    assert list(row['found']) == ['ours', 'before'] and row['losses_differ'] == 0 and 'over before' in out


@pytest.mark.slow
@trainer
def test_busy(tmp_path):
    out, found = bench('busy.py', '--rounds', 1, '--steps', 4, to=tmp_path/'busy.json')
    assert len(found['runs']) == 12 and sum(row['busy'] for row in found['runs']) == 6
    assert all(rate > 0 for row in found['runs'] for rate in row['tokens_per_s']) and 'quiet     one thread' in out


# The table of tasks

@lru_cache
def script(name):
    "A script of `benchmarks/` as a module."
    spec = importlib.util.spec_from_file_location(f'{name}_script', ROOT/f'benchmarks/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache
def nano(): return load_model(NANO)


def log_probs(model, rows, pad):
    "The log-probabilities of all tokens that are asked for, row by row."
    tasks = script('tasks')
    logits, targets = tasks.answer_logits(model, tasks.collate(rows, pad))
    return -torch.nn.functional.cross_entropy(logits, targets, reduction='none')


@pytest.mark.parametrize('task', ['questions', 'dialogue'])
def test_a_conversation_is_what_the_chat_template_writes(task):
    from transformers import AutoTokenizer
    theirs, tasks = AutoTokenizer.from_pretrained(NANO), script('tasks')
    for row in task_rows(task, 20, 2):
        ids, asked = tasks.chat(nano()[1], row['messages'])
        assert ids == theirs.apply_chat_template(row['messages'], tokenize=True, return_dict=False)
        answers = [message['content'] for message in row['messages'] if message['role'] == 'assistant']
        written = theirs.decode([i for i, wanted in zip(ids, asked) if wanted])
        assert written == ''.join(f'{answer}<|end|>' for answer in answers)


def test_the_name_of_a_mark_in_a_text_is_no_mark():
    tokenizer = nano()[1]
    ids, _ = script('tasks').chat(tokenizer, message_row('', 'a<|end|>b', 'c')['messages'])
    assert ids.count(tokenizer.token_to_id('<|end|>')) == 2


def test_a_text_is_a_framed_document():
    item, = script('tasks').items_of('minimal-pairs', 1, 1)
    tokenizer = nano()[1]
    ids, asked = script('tasks').chat(tokenizer, item.messages)
    assert ids == tokenizer.frame(tokenizer.encode_texts([item.messages[0]['content']])[0])
    assert asked == [False] + [True]*(len(ids) - 1)


def test_rows_of_all_forms():
    "The last message is right, the others are wrong, and their number is that of the choices."
    tasks, others = script('tasks'), Counter()
    for task in TASKS:
        for item, row in zip(tasks.items_of(task, 1, 8), task_rows(task, 8, 1)):
            answer = item.messages[-1]['content']
            assert answer and answer not in item.others and item.messages[-1]['role'] != 'user'
            assert len(tasks.versions_of(item)) == 1 + len(item.others)
            others[task] = len(item.others)
            if 'scores' in row: assert row['scores'][row['answers'].index(answer)] == max(row['scores'])
            if 'choices' in row: assert row['choices'][row['answer']] == answer
            if 'label' in row: assert row['label'] == answer
    choices = {'facts': 3, 'endings': 3, 'rankings': 3, 'entailment': 2}
    choices |= {task: 1 for task in ('preferences', 'sentiment', 'next-sentence', 'minimal-pairs')}
    assert {task: n for task, n in others.items() if n} == choices
    assert [item.messages[-1]['content'] for item in tasks.items_of('extractive', 2, 20)].count(tasks.NO_ANSWER) > 0


def test_plain_text():
    tasks, tokenizer = script('tasks'), nano()[1]
    sums = [tasks.Item(message_row('', request, answer)['messages'], [], '')
            for request, answer in (('5+2=', '7'), ('Who?', 'Ana'))]
    ids, asked = tasks.plain(tokenizer, sums[1].messages, sums)
    assert tokenizer.decode(ids) == '5+2=7\nWho? Ana\nWho? Ana'
    assert tokenizer.decode([i for i, wanted in zip(ids, asked) if wanted]) == ' Ana'


def test_fewer_examples_where_they_do_not_fit():
    tasks, tokenizer = script('tasks'), nano()[1]
    item, *examples = tasks.items_of('questions', 1, 4)
    lengths = {}
    for block_size in (1024, 256, 8):
        versions, shots = tasks.with_examples(tokenizer, item, examples, block_size)
        lengths[shots] = len(versions[0].ids)
    assert list(lengths)[0] == 3 and list(lengths)[-1] == 0 and 0 < list(lengths)[1] < 3
    assert list(lengths.values()) == sorted(lengths.values(), reverse=True)


@pytest.mark.parametrize('level', [1, 2])
def test_a_branch_sees_the_story_and_itself_alone(level):
    "Its answer is as probable as when its question is the only one; in fp64, where rounding is no excuse."
    tasks, (model, tokenizer) = script('tasks'), load_model(NANO)
    model = model.double()
    model.config.block_size = 1024
    groups = [tasks.story_group(tokenizer, level, i) for i in range(4)]
    groups = [group[:5] for group in groups]
    rows = [tasks.branched(group, 1024) for group in groups]
    assert all(max(row.branches) == len(group) > 1 for row, group in zip(rows, groups))
    with torch.no_grad():
        together = log_probs(model, rows, tokenizer.pad)
        alone = [log_probs(model, [tasks.branched([one], 1024)], tokenizer.pad) for group in groups for one in group]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_branches_that_do_not_fit_are_left_out():
    tasks, tokenizer = script('tasks'), nano()[1]
    group = tasks.story_group(tokenizer, 1, 0)
    all_of_it = tasks.branched(group, 1024)
    size = len(all_of_it.ids) - 1
    row = tasks.branched(group, size)
    assert len(row.ids) <= size and len(set(row.branches)) < len(set(all_of_it.branches))
    assert len({*map(len, row)}) == 1


def test_the_common_start_ends_before_an_answer():
    tasks = script('tasks')
    equal = tasks.Sequence([1, 4, 9, 5, 8, 2], [False]*4 + [True]*2)
    row = tasks.branched([equal, equal], 100)
    assert tasks.shared_start([equal, equal]) == 3 and row.ids == [1, 4, 9, 5, 8, 2, 5, 8, 2]
    assert row.positions == [0, 1, 2, 3, 4, 5, 3, 4, 5] and row.branches == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert row.targets == [-100]*3 + [8, 2, -100]*2


def test_one_pass_decides_what_greedy_decoding_writes():
    tasks, model = script('tasks'), Transformer(config_for('nano', 64), 0)
    prompts = torch.randint(8, 64, (5, 6))
    written = generate(model, prompts, 4, 0).tolist()
    asked = [False]*6 + [True]*4
    greedy = [tasks.Sequence(ids, asked) for ids in written]
    changed = [tasks.Sequence([*ids[:-1], ids[-1] ^ 1], asked) for ids in written]
    scores = tasks.score(model, [*greedy, *changed], 0)
    assert [right for right, _ in scores] == [True]*5 + [False]*5
    assert all(better > worse for (_, better), (_, worse) in zip(scores[:5], scores[5:]))


def test_what_does_not_fit_is_wrong():
    tasks, (model, tokenizer) = script('tasks'), nano()
    short = tasks.Sequence([1, 5, 9, 2], [False, False, True, True])
    long = tasks.Sequence([1, 5, *[9]*400, 2], [False, False] + [True]*401)
    right = tasks.right_rows(model, [[short, long], [long], [short, short]], tokenizer)
    assert right == [False]*3 # equally probable answers are wrong as well
    assert tasks.judge([(False, -1), (True, -2)]) and not tasks.judge([(True, -2), (False, -1)])


def test_the_best_constant():
    tasks = script('tasks')
    def item(kind, answer, others=()): return tasks.Item(message_row('', '', answer)['messages'], list(others), kind)
    known = [item('where', 'cave')]*3 + [item('where', 'mill')]*2 + [item('who', 'Ana')]
    held = [item('where', 'mill'), item('where', 'cave'), item('who', 'Ana'), item('many', 'one')]
    assert tasks.constant_rows('questions', known, held) == [False, True, True, False]
    labels = [item('sad', 'negative', ['positive']), item('glad', 'positive', ['negative'])]
    assert tasks.constant_rows('sentiment', labels[:1], labels) == [True, False] # a mood would tell
    assert tasks.constant_rows('facts', known, [item('trade', 'a', 'bcd')]) == [0.25]
    assert tasks.by_kind(held, [1, 0, 1, 0]) == {'all': 0.5, 'where': 0.5, 'who': 1, 'many': 0}


@pytest.mark.parametrize('base, fresh, prompted, used', [
    (0.9, 0.2, 0, 'yes'), (0.9, 0.8, 0, 'no'), (0.49, 0, 0, 'no'), (0.6, 0.2, 0.9, 'yes'),
    (0.9, 0.9, 0.9, 'yes, untrained'), (0.5, 0.5, 0.44, 'no')])
def test_which_levels_are_used(base, fresh, prompted, used):
    line = {'base': [base], 'fresh': [fresh], 'prompted': prompted, 'constant': 0.25}
    assert script('tasks').verdict(line) == used


def test_levels_of_tasks():
    levels = {task: script('tasks').levels_of(task) for task in TASKS}
    assert levels.pop('arithmetic') == [1, 2, 3] and set(map(tuple, levels.values())) == {(1, 2)}


def test_a_table_of_another_model_is_not_continued(tmp_path):
    tasks, path = script('tasks'), tmp_path/'tasks.json'
    path.write_text(json.dumps({'settings': {'steps': 300}, 'cells': {'a': 1}}))
    assert tasks.kept_cells(path, {'steps': 300}) == {'a': 1} and tasks.kept_cells(tmp_path/'none', {}) == {}
    with pytest.raises(SystemExit, match='made with steps 300, not 200'): tasks.kept_cells(path, {'steps': 200})


def test_of_some_names_training_asks_neither_trade_nor_home():
    tasks, tokenizer = script('tasks'), nano()[1]
    asked = [tokenizer.decode(sequence.ids) for i in range(60) for sequence in tasks.story_group(tokenizer, 1, i)]
    about = {text.split('?')[-2].split()[-1] for text in asked if 'the trade of' in text or 'the home of' in text}
    assert len(about) > 10 and not about & tasks.NEVER
    assert any(f'first place of {name}' in text for text in asked for name in tasks.NEVER)
    kinds = {item.kind for item in tasks.items_of('questions', 1, 300)}
    assert {f'{kind}, name {when}' for kind in ('trade', 'home') for when in ('asked', 'never asked')} <= kinds


def test_training_rows_stop_at_so_many_tokens_or_rows():
    tasks, tokenizer = script('tasks'), nano()[1]
    rows = tasks.training_rows('counting', 1, 10_000, 2000, tokenizer, 256)
    lengths = [len(row.ids) for row in rows]
    assert sum(lengths[:-1]) < 2000 <= sum(lengths)
    assert len(tasks.training_rows('counting', 1, 7, 10**6, tokenizer, 256)) == 7


def test_the_fingerprint_is_of_the_weights():
    tasks, model = script('tasks'), book_model()[0]
    before = tasks.fingerprint(model)
    with torch.no_grad(): model.norm.weight[0] += 1
    assert before == tasks.fingerprint(book_model()[0]) != tasks.fingerprint(model)


@pytest.mark.slow
def test_tasks_continue_after_a_kill(tmp_path):
    "What is finished is not done again, and what is missing comes out the same, in another process too."
    path = tmp_path/'tasks.json'
    args = ('--tasks', 'arithmetic', 'sentiment', '--levels', 1, '--seeds', 2, '--steps', 3, '--held', 20)
    out, found = bench('tasks.py', *args, to=path)
    assert out.count(' s\n') == len(found['cells']) == 10 and out.count('| exact match |') == 1
    lost = {name: found['cells'].pop(name) for name in ('arithmetic 1 base 1', 'sentiment 1 prompted')}
    path.write_text(json.dumps(found))
    out, again = bench('tasks.py', *args, '--jobs', 2, to=path)
    assert out.count(' s\n') == 2 and again['table'] == found['table']
    figures = {name: {key: value for key, value in cell.items() if 'seconds' not in key}
               for name, cell in again['cells'].items()}
    for name, cell in lost.items():
        assert figures[name] == {key: value for key, value in cell.items() if 'seconds' not in key}
