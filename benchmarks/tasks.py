"""Every task at every level: what `nano` makes of it, with and without fine-tuning, and which levels chapters use.

python benchmarks/tasks.py [--tasks questions ...] [--levels 1 2] [--seeds 3] [--tokens 300000] [--jobs 1] [--json FILE]

Prints a table in markdown with a line per task and level: the best constant answer, the book's model prompted, a
fresh model fine-tuned, and the book's model after the same fine-tuning; then some tasks by kind of row. With --json
each finished cell is kept at once, and the same command continues after a kill or prints the tables again.

Fine-tuning is a plain loop: AdamW, a learning rate that falls linearly to 0, fp32, one pass over rows of so many
tokens in all (fewer if --steps come first), loss on the tokens of answers and the marks that end them. A row of
questions is a story with many questions as branches, each of which sees the story and itself alone; of every third
name neither trade nor home is asked in training. The seeds are of the order of rows and of fresh weights. The model is
prompted with plain text, without examples and with up to three, and the better of the two counts; no mark ends an
answer in plain text, so none is asked for.

Measures, on rows that are held out. Exact match: all answers of a row, with their end marks, as greedy decoding writes
them. Accuracy: of several answers the right one has the highest log-probability, summed over its tokens. A row that
does not fit into the model's context counts as wrong; training skips it. The constant is the most frequent answer of
the training rows of the same kind, or the most frequent label, or 1 divided by the number of choices.
"""
import argparse
import copy
import hashlib
import math
import multiprocessing
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from llmbook.core import UserError, environment, seed_of
from llmbook.files import read_json, write_json
from llmbook.model.checkpoints import book_model
from llmbook.model.transformer import Transformer
from llmbook.text.batches import IGNORE
from llmbook.text.corpus import HELD_START
from llmbook.text.state import NAMES
from llmbook.text.task_files import TASKS, task_rows
from llmbook.text.tasks import message_row, questions_about, task_story

BETAS, CLIP = (0.9, 0.95), 1.0
BRANCHES, SHOTS = 12, 3 # questions about a story, examples in a prompt; both at most
NO_ANSWER = 'no answer' # where the form has an empty list
BY_KIND = ('questions', 'summaries') # tasks of the second table
LABELLED = 'text, text_pair, label'
OF_A_NAME = ('trade', 'home') # the same in every story, so they can be learnt by heart for a name that is asked about
NEVER = set(NAMES[::3]) # names for which they are not asked in training
LEAST, MARGIN = 0.5, 0.2
RULE = (f"Later chapters use a level if the fine-tuned base reaches {LEAST} and is {MARGIN} above both the constant "
        f"and the fine-tuned random weights; untrained, if the base prompted reaches {LEAST} and is {MARGIN} above the "
        "constant.")


# Rows of any form as conversations

class Item(NamedTuple):
    "A row of a task: a conversation, and what else its last message might say."
    messages: list    # the last one is the right answer
    others: list[str] # wrong answers; none if the right one has to be written
    kind: str         # what kind of row it is


def as_question(row, labels):
    "A request, the right answer and the wrong ones, of a row that is no conversation yet."
    match TASKS[row['meta']['task']].form:
        case 'source, target':
            return row['source'], row['target'], []
        case 'text, text_pair, label':
            wrong = [label for label in labels if label != row['label']]
            return f"{row['text']}\n{row['text_pair']}", row['label'], wrong
        case 'context, question, answers':
            answers = row['answers']['text'] or [NO_ANSWER]
            return f"{row['context']}\n{row['question']}", answers[0], []
        case 'context, question, choices, answer':
            request = ' '.join(filter(None, (row['context'], row['question'])))
            wrong = [choice for i, choice in enumerate(row['choices']) if i != row['answer']]
            return request, row['choices'][row['answer']], wrong
        case 'prompt, chosen, rejected':
            return row['prompt'], row['chosen'], [row['rejected']]
        case 'prompt, answers, scores':
            ranked = sorted(zip(row['scores'], row['answers']), reverse=True)
            right, *wrong = [answer for _, answer in ranked]
            return row['prompt'], right, wrong


def is_never_asked(kind, question): return kind in OF_A_NAME and question.rstrip('?').split()[-1] in NEVER


def kind_of(row):
    "What kind of row it is; of trades and homes also whether training asks about the name."
    kind = row['meta']['kind']
    if row['meta']['task'] != 'questions' or kind not in OF_A_NAME: return kind
    return f"{kind}, name {'never ' if is_never_asked(kind, row['messages'][0]['content']) else ''}asked"


def item_of(row, labels=()):
    "A row of any form as a conversation. A sentence without a request is a text, which has no marks of a chat."
    kind = kind_of(row)
    if 'messages' in row: return Item(row['messages'], [], kind)
    if 'sentence_good' in row:
        return Item([{'role': 'text', 'content': row['sentence_good']}], [row['sentence_bad']], kind)
    request, right, wrong = as_question(row, labels)
    return Item(message_row('', request, right)['messages'], wrong, kind)


def versions_of(item):
    "The conversation with each of its answers, the right one first."
    *before, last = item.messages
    return [item.messages, *([*before, last | {'content': wrong}] for wrong in item.others)]


def answer_of(item): return tuple(message['content'] for message in item.messages if message['role'] != 'user')


# Conversations as tokens

class Sequence(NamedTuple):
    "Tokens, and which of them belong to answers."
    ids: list[int]
    asked: list[bool]


@lru_cache(1 << 16)
def text_ids(tokenizer, text): return tokenizer.encode_texts([text])[0]


def joined(parts):
    "(ids, are they asked for?), one after the other."
    ids = [i for part, _ in parts for i in part]
    return Sequence(ids, [asked for part, asked in parts for _ in part])


def chat(tokenizer, messages):
    "A conversation as the chat template writes it; answers and the marks that end them are asked for."
    begin, end = (tokenizer.token_to_id(name) for name in ('<|begin|>', '<|end|>'))
    parts = [([begin], False)]
    for message in messages:
        role, content = message['role'], text_ids(tokenizer, message['content'])
        if role != 'text': parts.append(([tokenizer.token_to_id(f'<|{role}|>')], False))
        parts.append(([*content, end], role != 'user'))
    return joined(parts)


def plain_parts(messages):
    "A conversation as plain text, in parts: (text, is it an answer?). After `5+27=` there is no space."
    parts, before = [], ''
    for message in messages:
        is_answer = message['role'] != 'user'
        glue = '' if not before or before.endswith('=') else ' ' if is_answer else '\n'
        before = message['content']
        parts.append((glue + before, is_answer))
    return parts


def plain(tokenizer, messages, examples=()):
    "A conversation as plain text after examples, separated by newlines; only its own answers are asked for."
    parts = [([tokenizer.token_to_id('<|begin|>')], False)]
    for example in examples:
        text = ''.join(part for part, _ in plain_parts(example.messages))
        parts += [(text_ids(tokenizer, text), False), (text_ids(tokenizer, '\n'), False)]
    parts += [(text_ids(tokenizer, text), asked) for text, asked in plain_parts(messages)]
    return joined(parts)


def fits(sequences, block_size): return all(len(sequence.ids) <= block_size for sequence in sequences)


# Tokens as batches

def shared_start(group):
    "How many tokens sequences have in common, before the first that is asked for and what predicts it."
    most = min(sequence.asked.index(True) for sequence in group) - 1
    for i in range(most):
        if len({sequence.ids[i] for sequence in group}) > 1: return i
    return most


class Row(NamedTuple):
    "Sequences that share their start, one after the other."
    ids: list[int]
    positions: list[int] # in the sequence
    branches: list[int]  # 0 is the start, which all of them see
    targets: list[int]   # the next token if it is asked for


def branched(group, block_size):
    "As many sequences as fit, with their common start written once."
    start = shared_start(group)
    row = Row(group[0].ids[:start], list(range(start)), [0]*start, [IGNORE]*start)
    for branch, (ids, asked) in enumerate(group, 1):
        n = len(ids) - start
        if len(row.ids) + n > block_size: continue
        row.ids.extend(ids[start:])
        row.positions.extend(range(start, len(ids)))
        row.branches.extend([branch]*n)
        row.targets.extend(i if wanted else IGNORE for i, wanted in zip(ids[start + 1:], asked[start + 1:]))
        row.targets.append(IGNORE)
    return row


def padded(lists, value):
    "Lists of numbers as one tensor (B,T)."
    longest = max(map(len, lists))
    return torch.tensor([[*numbers, *[value]*(longest - len(numbers))] for numbers in lists])


def collate(rows, pad):
    "Rows as a batch. Where no row has two branches, looking back is all that the mask has to say."
    ids, positions, branches, targets = (padded(lists, value) for lists, value in zip(zip(*rows), (pad, 0, -1, IGNORE)))
    mask = None
    if branches.max() > 1:
        own = branches[:, None, :, None] == branches[:, None, None, :] # (B,1,T,T)
        mask = own | (branches[:, None, None, :] == 0)
    return {'ids': ids, 'positions': positions, 'mask': mask, 'targets': targets}


def answer_logits(model, batch):
    "Logits where an answer's token comes next, and these tokens."
    asked = batch['targets'] != IGNORE
    hidden = model.hidden(batch['ids'], batch['positions'], mask=batch['mask'])
    return model.head(hidden[asked]), batch['targets'][asked]


# Training and measuring

def precision(bf16): return torch.autocast('cpu', torch.bfloat16) if bf16 else nullcontext()


def train(model, rows, pad, settings):
    "The plain loop: one pass over the rows; the mean loss of the last tenth of it."
    size, losses = settings['rows'], []
    steps = len(rows) // size
    optimizer = torch.optim.AdamW(model.parameters(), settings['lr'], BETAS, weight_decay=0)
    for step in range(steps):
        optimizer.param_groups[0]['lr'] = settings['lr'] * (1 - step/steps)
        batch = collate(rows[step*size:(step + 1)*size], pad)
        with precision(settings['bf16']): logits, targets = answer_logits(model, batch)
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return statistics.mean(losses[-max(1, steps//10):]) if losses else None


@torch.no_grad()
def score(model, sequences, pad, bf16=False):
    "Of each sequence: would greedy decoding write its answers, and their log-probability."
    # Greedy decoding writes an answer if each of its tokens is the most probable one after the right ones before it,
    # which one forward pass decides.
    found, order = {}, sorted(range(len(sequences)), key=lambda i: len(sequences[i].ids))
    for start in range(0, len(order), 32):
        chunk = order[start:start + 32]
        batch = collate([branched([sequences[i]], math.inf) for i in chunk], pad)
        with precision(bf16): logits, targets = answer_logits(model, batch)
        log_probs = -F.cross_entropy(logits.float(), targets, reduction='none')
        wrong = (logits.argmax(-1) != targets).float()
        places = (batch['targets'] != IGNORE).nonzero()[:, 0] # the row of each token
        sums = [torch.zeros(len(chunk)).index_add_(0, places, x).tolist() for x in (wrong, log_probs)]
        for i, misses, total in zip(chunk, *sums): found[i] = misses == 0, total
    return [found[i] for i in range(len(sequences))]


def judge(scores):
    "Is a row right? Of several answers the first must be the most probable; a single one must be written."
    (written, log_prob), *others = scores
    if not others: return written
    return all(log_prob > other for _, other in others)


def right_rows(model, versions, tokenizer, bf16=False):
    "Which rows are right, given the sequences of each row; one that does not fit is wrong."
    block_size = model.config.block_size
    short = [sequences for sequences in versions if fits(sequences, block_size)]
    flat = [sequence for sequences in short for sequence in sequences]
    scores = iter(score(model, flat, tokenizer.pad, bf16))
    verdicts = iter([judge(list(islice(scores, len(sequences)))) for sequences in short])
    return [fits(sequences, block_size) and next(verdicts) for sequences in versions]


def constant_rows(task, known, items):
    "Which rows the best answer without reading gets right, or how often on average."
    labelled = TASKS[task].form == LABELLED
    if items[0].others and not labelled: return [1 / (1 + len(item.others)) for item in items]
    counts = {}
    for item in known: counts.setdefault(labelled or item.kind, Counter())[answer_of(item)] += 1
    best = {kind: answers.most_common(1)[0][0] for kind, answers in counts.items()}
    return [answer_of(item) == best.get(labelled or item.kind) for item in items]


def by_kind(items, right):
    "The share of rows that are right, of all and of each kind."
    kinds = {'all': list(right)}
    for item, is_right in zip(items, right): kinds.setdefault(item.kind, []).append(is_right)
    return {kind: round(sum(found) / len(found), 4) for kind, found in kinds.items()}


# The cells of the table

def levels_of(task):
    "The levels that a task has."
    found = []
    for level in range(1, 4):
        try: next(iter(task_rows(task, 1, level)))
        except UserError: continue
        found.append(level)
    return found


def items_of(task, level, n, start=0):
    "Rows of a task as conversations, one after the other."
    labels = []
    if TASKS[task].form == LABELLED: labels = sorted({row['label'] for row in task_rows(task, 200, level)})
    return (item_of(row, labels) for row in task_rows(task, n, level, 0, start))


@lru_cache(2)
def held_items(task, level, n): return list(items_of(task, level, n, HELD_START))


@lru_cache(1)
def base_model(): return book_model()


def story_group(tokenizer, level, i):
    "Questions about one story as sequences, in random order."
    story = task_story(0, i)
    questions = [q for q in questions_about(story, level) if not is_never_asked(q.kind, q.text)]
    chosen = random.Random(seed_of(0, 'branches', level, i)).sample(questions, min(BRANCHES, len(questions)))
    rows = [message_row('', f'{story.text}\n{question.text}', question.answer) for question in chosen]
    return [chat(tokenizer, row['messages']) for row in rows]


@lru_cache(1)
def training_rows(task, level, n, tokens, tokenizer, block_size):
    "At most `n` rows of so many tokens in all; fewer if hardly any fit."
    if task == 'questions': groups = (story_group(tokenizer, level, i) for i in range(10*n))
    else: groups = ([chat(tokenizer, item.messages)] for item in items_of(task, level, 10*n))
    rows, left = [], tokens
    for group in groups:
        if not fits(group, block_size): continue
        rows.append(branched(group, block_size))
        left -= len(rows[-1].ids)
        if left <= 0 or len(rows) == n: break
    return rows


def tuned(task, level, start, seed, settings):
    "One fine-tuning, from the book's model or from fresh weights, and what comes of it."
    base, tokenizer = base_model()
    model = copy.deepcopy(base) if start == 'base' else Transformer(base.config, seed)
    n = settings['steps'] * settings['rows']
    rows = training_rows(task, level, n, settings['tokens'], tokenizer, base.config.block_size)
    rows = random.Random(seed_of(seed, 'order', task, level)).sample(rows, len(rows))
    began = time.perf_counter()
    loss = train(model, rows, tokenizer.pad, settings)
    seconds = time.perf_counter() - began
    items = held_items(task, level, settings['held'])
    versions = [[chat(tokenizer, messages) for messages in versions_of(item)] for item in items]
    right = right_rows(model, versions, tokenizer, settings['bf16'])
    return {'right': by_kind(items, right), 'loss': loss, 'steps': len(rows) // settings['rows'],
            'training_seconds': round(seconds, 1)}


def with_examples(tokenizer, item, examples, block_size):
    "A row's sequences after as many examples as fit."
    for shots in range(len(examples), -1, -1):
        versions = [plain(tokenizer, messages, examples[:shots]) for messages in versions_of(item)]
        if fits(versions, block_size): break
    return versions, shots


def prompted(task, level, settings):
    "The book's model as it is, with and without examples; the best constant; and how many rows do not fit into a chat."
    model, tokenizer = base_model()
    known = list(items_of(task, level, 2000))
    items = held_items(task, level, settings['held'])
    rng, block_size = random.Random(seed_of(0, 'examples', task, level)), model.config.block_size
    few = [with_examples(tokenizer, item, rng.sample(known, SHOTS), block_size) for item in items]
    zero = [with_examples(tokenizer, item, [], block_size)[0] for item in items]
    long = [not fits([chat(tokenizer, m) for m in versions_of(item)], block_size) for item in items]
    return {'measure': 'accuracy' if items[0].others else 'exact match',
            'counts': Counter(item.kind for item in items), 'too_long': sum(long) / len(items),
            'constant': by_kind(items, constant_rows(task, known, items)),
            'zero': by_kind(items, right_rows(model, zero, tokenizer)),
            'few': by_kind(items, right_rows(model, [versions for versions, _ in few], tokenizer)),
            'shots': statistics.mean(shots for _, shots in few)}


def measure(cell, settings):
    "A cell by its name, such as `questions 1 prompted` or `questions 1 base 0`, with its seconds."
    torch.set_num_threads(1)
    task, level, start, *seed = cell.split()
    began = time.perf_counter()
    found = tuned(task, int(level), start, int(*seed), settings) if seed else prompted(task, int(level), settings)
    return found | {'seconds': round(time.perf_counter() - began, 1)}


def cells_of(pairs, seeds):
    "The names of all cells, task by task and level by level."
    names = []
    for task, level in pairs:
        names.append(f'{task} {level} prompted')
        names += [f'{task} {level} {start} {seed}' for seed in range(seeds) for start in ('base', 'fresh')]
    return names


def finished(cells, settings, jobs):
    "(name, figures) of each cell when it is done; each job is a process with one thread."
    if jobs == 1:
        for cell in cells: yield cell, measure(cell, settings)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context('spawn')) as pool:
        pending = {pool.submit(measure, cell, settings): cell for cell in cells}
        for done in as_completed(pending): yield pending[done], done.result()


# The table

def line_of(task, level, cells, seeds, kind='all'):
    "The figures of a task and level, or of one kind of its rows; None if some cell is not there yet."
    names = {start: [f'{task} {level} {start} {seed}' for seed in range(seeds)] for start in ('fresh', 'base')}
    first = cells.get(f'{task} {level} prompted')
    if not first or any(name not in cells for own in names.values() for name in own): return None
    better = max(('zero', 'few'), key=lambda way: first[way]['all'])
    line = {'task': task, 'level': level, 'kind': kind, 'measure': first['measure'], 'too_long': first['too_long'],
            'constant': first['constant'][kind], 'prompted': first[better][kind]}
    line |= {start: [cells[name]['right'][kind] for name in own] for start, own in names.items()}
    return line | {'used': verdict(line)}


def verdict(line):
    "Which levels later chapters use: those that fine-tuning teaches, and those that the model can do as it is."
    base, fresh = statistics.mean(line['base']), statistics.mean(line['fresh'])
    if base >= LEAST and base - max(line['constant'], fresh) >= MARGIN: return 'yes'
    if line['prompted'] >= LEAST and line['prompted'] - line['constant'] >= MARGIN: return 'yes, untrained'
    return 'no'


def spread(values):
    "The mean, and the smallest and the largest."
    mean = f'{statistics.mean(values):.2f}'
    return mean if len(values) == 1 else f'{mean} ({min(values):.2f} to {max(values):.2f})'


def table(header, rows):
    "A table in markdown."
    lines = [header, ['---']*len(header), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def task_table(lines):
    "All tasks and levels."
    header = ['task', 'level', 'measure', 'constant', 'base prompted', 'fine-tuned from random weights',
              'fine-tuned from the base', 'do not fit', 'later chapters use']
    return table(header, [[line['task'], line['level'], line['measure'], f"{line['constant']:.2f}",
                           f"{line['prompted']:.2f}", spread(line['fresh']), spread(line['base']),
                           f"{line['too_long']:.1%}", line['used']] for line in lines])


def kind_table(lines, cells, seeds):
    "Some tasks by kind of row."
    header = ['task', 'level', 'kind', 'rows', 'constant', 'base prompted', 'random weights', 'base']
    rows = []
    for task, level in [(line['task'], line['level']) for line in lines if line['task'] in BY_KIND]:
        for kind, count in cells[f'{task} {level} prompted']['counts'].items():
            line = line_of(task, level, cells, seeds, kind)
            rows.append([task, level, kind, count, f"{line['constant']:.2f}", f"{line['prompted']:.2f}",
                         spread(line['fresh']), spread(line['base'])])
    return table(header, rows)


def report(pairs, cells, args):
    "Print the tables of what is finished."
    lines = list(filter(None, (line_of(task, level, cells, args.seeds) for task, level in pairs)))
    error = math.sqrt(0.25 / args.held)
    print(f"\n{args.held} held-out rows: the standard error of a share is at most {error:.3f}. {args.seeds} seeds: "
          f"mean (smallest to largest). {RULE}\n")
    print(task_table(lines))
    if any(line['task'] in BY_KIND for line in lines): print('\n' + kind_table(lines, cells, args.seeds))
    return lines


def fingerprint(model):
    "Twelve digits that tell one set of weights from another."
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()): digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()[:12]


def kept_cells(path, settings):
    "The finished cells of an earlier run. Ends the program if that run had other settings."
    if not path or not Path(path).exists(): return {}
    found = read_json(path)
    for key, value in settings.items():
        before = found['settings'].get(key)
        if before != value: raise SystemExit(f'{path}: made with {key} {before}, not {value}; give another file')
    return found['cells']


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tasks', nargs='+', choices=list(TASKS), default=list(TASKS))
    parser.add_argument('--levels', nargs='+', type=int, default=[1, 2, 3])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--tokens', type=int, default=300_000, help='of each fine-tuning')
    parser.add_argument('--steps', type=int, default=1000, help='of each fine-tuning, at most')
    parser.add_argument('--rows', type=int, default=6, help='in a step')
    parser.add_argument('--lr', type=float, default=2e-3, help='at the first step; it falls linearly to 0')
    parser.add_argument('--held', type=int, default=500, help='rows that are held out, of each task and level')
    parser.add_argument('--bf16', action='store_true', help='train and measure fine-tuned models in bf16')
    parser.add_argument('--jobs', type=int, default=1, help='processes, each with one thread')
    parser.add_argument('--json', help='where to keep the figures; what is finished there is not done again')
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in ('tokens', 'steps', 'rows', 'lr', 'held', 'bf16')}
    settings['base'] = fingerprint(base_model()[0])
    pairs = [(task, level) for level in args.levels for task in args.tasks if level in levels_of(task)]
    cells, where = kept_cells(args.json, settings), environment()
    out = {'date': time.strftime('%Y-%m-%d'), 'device': where['device'], 'commit': where['commit'],
           'versions': where['versions'], 'settings': settings, 'cells': cells}
    todo = [cell for cell in cells_of(pairs, args.seeds) if cell not in cells]
    for cell, found in finished(todo, settings, args.jobs):
        cells[cell] = found
        if args.json: write_json(args.json, out)
        share = found['right']['all'] if 'right' in found else max(found[way]['all'] for way in ('zero', 'few'))
        print(f"{cell}: {share:.3f}, {found['seconds']} s", flush=True)
    out['table'] = report(pairs, cells, args)
    if args.json: write_json(args.json, out)


if __name__ == '__main__': main()
