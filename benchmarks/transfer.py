"""What a pretrained body is worth against the number of labels, and the same job done by transformers' Trainer.

python benchmarks/transfer.py [--parts words spans tasks trainer] [--seeds 0 1 2] [--starts MLM ...]
        [--out runs/transfer] [--save]

words: of what kind is a word? A few words of each kind have labels, and other words are held out.
spans: answers as spans of stories. tasks: the three tasks of classes. All cells of a part take the same number of steps, so
a model with few labels reads them more often. A finished cell is kept in --out, and the same command continues after a
kill. With --save the results go to nbs/results/classify.json. One thread; seconds are those of the processor.
"""
import argparse
import os
import random
import shutil
import time
from datetime import date
from pathlib import Path

import torch

from llmbook.core import environment
from llmbook.files import read_json, read_jsonl, write_json, write_jsonl
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_trained
from llmbook.model.encoder_heads import span_finder_from
from llmbook.model.heads_on_disk import save_classifier
from llmbook.text.corpus import HELD_START
from llmbook.text.state import NAMES, NEGATIVE, PLACES, POSITIVE, THINGS, TRADES
from llmbook.text.task_files import task_rows
from llmbook.train.class_tasks import SpanTask, row_logits
from llmbook.train.classify import AnswerSpans, classify, world_rows
from llmbook.train.step import LocalOptions
from llmbook.train.tuning import warmup_linear

ASSETS = Path(__file__).resolve().parents[1]/'llmbook'/'assets'
MLM, CLM = str(ASSETS/'nano-mlm'), str(ASSETS/'nano-pretrain')
STARTS = { # name -> model, flags
    'MLM': (MLM, {}), 'CLM': (CLM, {}), 'scratch': (MLM, {'scratch': True}),
    'MLM frozen': (MLM, {'freeze': True}), 'CLM frozen': (CLM, {'freeze': True}),
}
STEPS, ROWS, HELD, WORD_STEPS = 200, 16, 400, 100


def held_out(out, task, level):
    "The rows that all cells are measured on."
    path = out/f'{task}-{level}-val.jsonl'
    if not path.exists(): write_jsonl(path, task_rows(task, HELD, level, 0, HELD_START))
    return str(path)


KINDS = {'name': NAMES, 'place': PLACES, 'thing': THINGS, 'trade': TRADES, 'mood': POSITIVE + NEGATIVE}
POOL = 8 # words of each kind that may get a label; all others are held out


def word_rows(folder, seed, count):
    "What kind of word is it? Files of labelled words, `count` of each kind, and of all words that never have a label."
    folder.mkdir(parents=True, exist_ok=True)
    train, held = [], []
    for kind, words in KINDS.items():
        words = random.Random(f'{kind} {seed}').sample(sorted(words), len(words))
        rows = [{'text': f'the {word}', 'label': kind} for word in words]
        train += rows[:count]
        held += rows[POOL:]
    write_jsonl(folder/'train.jsonl', train)
    write_jsonl(folder/'val.jsonl', held)
    return folder


def word_cell(out, start, count, seed):
    "One run on kinds of words, or what is kept of it."
    path = out/f"words-{start.replace(' ', '-')}-{count}-{seed}.json"
    if path.exists(): return read_json(path)
    model, flags = STARTS[start]
    run = path.with_suffix('')
    data = word_rows(out/f'words-{seed}-{count}', seed, count)
    classify(model, data=str(data), steps=WORD_STEPS, batch_size=ROWS, seed=seed, eval_every=0, out=str(run), fresh=True, **flags)
    figures = read_json(run/'figures.json')
    found = {'start': start, 'labels': figures['trained_on'], 'seed': seed, 'held_out': figures['rows']}
    found |= {name: figures[name] for name in ('accuracy', 'error')} | {'macro_f1': figures['macro']['f1']}
    found |= {'bag_of_words': figures['baseline']['accuracy'], 'constant': figures['constant']['accuracy']}
    if start == 'CLM' and count == POOL: found |= {'names': figures['names'], 'matrix': figures['matrix']}
    write_json(path, found)
    shutil.rmtree(run)
    return found


def cell(out, task, level, start, count, seed):
    "One run on a task of the world, or what is kept of it."
    path = out/f"{task}-{level}-{start.replace(' ', '-')}-{count}-{seed}.json"
    if path.exists(): return read_json(path)
    model, flags = STARTS[start]
    run, began = str(path.with_suffix('')), time.process_time()
    classify(model, task=task, level=level, rows=count, steps=STEPS, batch_size=ROWS, seed=seed, eval_every=0, out=run,
             val_data=held_out(out, task, level), fresh=True, **flags)
    seconds = time.process_time() - began
    figures = read_json(Path(run)/'figures.json')
    losses = [row['loss'] for row in read_jsonl(Path(run)/'log.jsonl') if 'loss' in row]
    found = {'start': start, 'rows': count, 'seed': seed, 'seconds': seconds, 'last_loss': sum(losses[-20:]) / 20,
             'baseline': figures['baseline'].get('exact', figures['baseline'].get('accuracy'))}
    found |= {name: figures[name] for name in ('exact', 'f1', 'accuracy', 'error') if name in figures}
    write_json(path, found)
    shutil.rmtree(run)
    return found


def with_trainer(folder, stream, steps, lr, masked=False):
    "Trainer on the same batches, in the same order, from the same weights, at the same rates; its model, losses and seconds."
    from torch.optim.lr_scheduler import LambdaLR
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import BertForQuestionAnswering, Trainer, TrainerCallback, TrainingArguments
    names = {'ids': 'input_ids', 'types': 'token_type_ids', 'mask': 'attention_mask', 'start': 'start_positions',
             'end': 'end_positions'}
    batches = [stream[step] for step in range(steps)]
    losses = []
    class Rows(Dataset):
        def __len__(self): return steps * ROWS
        def __getitem__(self, i):
            batch = batches[i // ROWS]
            return {theirs: batch[ours][i % ROWS].long() for ours, theirs in names.items()}
    class InOrder(Trainer):
        def _get_train_sampler(self, *_): return SequentialSampler(self.train_dataset)
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, warmup_linear(1., STEPS, round(0.1 * STEPS)))
            return self.lr_scheduler
        def compute_loss(self, model, inputs, **more):
            if not masked: return super().compute_loss(model, inputs, **more)
            out = model(**{name: inputs[name] for name in ('input_ids', 'token_type_ids', 'attention_mask')})
            batch = {ours: inputs[theirs] for ours, theirs in names.items()}
            both = torch.stack([out.start_logits, out.end_logits], -1)
            return AnswerSpans().loss(both, batch, {'rows': len(both)})[0]
    class Heard(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if logs and 'loss' in logs: losses.append(float(logs['loss']))
    model = BertForQuestionAnswering.from_pretrained(folder)
    args = TrainingArguments(output_dir=str(folder/'trainer'), per_device_train_batch_size=ROWS, max_steps=steps,
                             learning_rate=lr, weight_decay=0.01, adam_beta2=0.95, max_grad_norm=1.0, logging_steps=1,
                             save_steps=100, save_total_limit=2, report_to=[], use_cpu=True, disable_tqdm=True,
                             optim='adamw_torch_fused', seed=0)
    began = time.process_time()
    InOrder(model=model, args=args, train_dataset=Rows(), callbacks=[Heard()]).train()
    return model, losses, time.process_time() - began


def beside_trainer(out, seed, count=3200, lr=1e-3):
    "Both ways from one file with a new head: exact match, processor seconds, and how far the losses are apart."
    path = out/f'trainer-{seed}.json'
    if path.exists(): return read_json(path)
    begun, tokenizer = load_trained(MLM)
    job, folder = SpanTask(), out/'trainer-start'
    save_classifier(span_finder_from(begun, seed), tokenizer, folder)
    stream = job.stream(world_rows('extractive', count, 1, seed), tokenizer, ROWS, 256, seed)
    began = time.process_time()
    classify(str(folder), task='extractive', rows=count, steps=STEPS, batch_size=ROWS, lr=lr, eval_every=0, save_every=100,
             keep=2, seed=seed, val_data=held_out(out, 'extractive', 1), out=str(out/'trainer-ours'), fresh=True)
    seconds = time.process_time() - began
    ours = [row['loss'] for row in read_jsonl(out/'trainer-ours'/'log.jsonl') if 'loss' in row]
    model, theirs, other = with_trainer(folder, stream, STEPS, lr)
    masked = with_trainer(folder, stream, 20, lr, masked=True)[1] if seed == 0 else []
    held = world_rows('extractive', HELD, 1, 0, HELD_START)
    asked = job.stream(held, tokenizer, ROWS, 256)
    figures = job.figures(held, held, row_logits(LocalOptions().freeze(Logits(model)), asked, AnswerSpans()), asked)
    own = read_json(out/'trainer-ours'/'figures.json')
    first = stream[0]['ids'].shape[1], stream[0]['mask'].sum(1).float().log().mean().exp().item()
    found = {'rows': count, 'steps': STEPS, 'lr': lr, 'seed': seed, 'first_losses': [ours[0], theirs[0]], 'first_places': first,
             'apart': max(map(lambda a, b: abs(a - b), ours, theirs)),
             'apart_masked': max(map(lambda a, b: abs(a - b), ours[:20], masked), default=None),
             'ours': {'exact': own['exact'], 'f1': own['f1'], 'error': own['error'], 'seconds': seconds},
             'trainer': {'exact': figures['exact'], 'f1': figures['f1'], 'error': figures['error'], 'seconds': other}}
    write_json(path, found)
    return found


class Logits(torch.nn.Module):
    "A model of transformers that is called like one of ours."
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, types, mask):
        out = self.model(input_ids=ids, token_type_ids=types, attention_mask=mask.long())
        return torch.stack([out.start_logits, out.end_logits], -1)


def words(out, seeds, starts):
    return [word_cell(out, start, count, seed) for seed in seeds for count in (1, 2, 4, 8) for start in starts]


def spans(out, seeds, starts):
    return [cell(out, 'extractive', 1, start, count, seed) for seed in seeds[:1] for count in (200, 3200) for start in starts]


def tasks(out, seeds, starts):
    "A negative result: after 3,200 rows, the classes of the world are still a coin's."
    found = [cell(out, task, 1, 'CLM', 3200, 0) for task in ('sentiment', 'entailment', 'next-sentence')]
    return [row | {'task': task} for row, task in zip(found, ('sentiment', 'entailment', 'next-sentence'))]


def trainer(out, seeds, starts): return [beside_trainer(out, seed) for seed in seeds]


PARTS = {'words': words, 'spans': spans, 'tasks': tasks, 'trainer': trainer}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--parts', nargs='+', default=list(PARTS), choices=list(PARTS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--starts', nargs='+', default=list(STARTS), choices=list(STARTS))
    parser.add_argument('--out', type=Path, default=Path('runs/transfer'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ['HF_HUB_OFFLINE'] = '1'
    args.out.mkdir(parents=True, exist_ok=True)
    found = {part: PARTS[part](args.out, args.seeds, args.starts) for part in args.parts}
    if not args.save: return
    here = environment()
    facts = {name: here.get(name) for name in ('device', 'cores', 'versions', 'commit')}
    save_results('classify', dict(date=str(date.today()), **facts, command='python benchmarks/transfer.py --save',
                 settings=dict(steps=STEPS, word_steps=WORD_STEPS, batch_size=ROWS, held_out=HELD), **found))


if __name__ == '__main__': main()
