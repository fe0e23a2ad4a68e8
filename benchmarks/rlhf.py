"""A step of GRPO beside TRL's: the same model, prompts, number of answers and limit of their length, on one core.

python benchmarks/rlhf.py [--rounds 3] [--steps 4] [--save]

Both begin with the committed fine-tuned `nano` model in fp32 with one thread and see 16 prompts with 8 answers each in a
step, at temperature 1, of 100 tokens at most, paid by the same function, with the distance from the start (beta 0.04)
in the loss. Rounds are interleaved; each begins anew with the committed weights, and its first step is not counted.
Reported are medians of seconds per step and of answer tokens per second, and for llmbook where the time went. TRL's own
`generate` is that of transformers; it can use vLLM, which needs a GPU. Needs trl.
"""
import argparse
import os
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import torch

from llmbook.align.chat_template import ChatTemplate
from llmbook.align.grpo import grpo
from llmbook.align.rewards import told_prompts
from llmbook.core import environment
from llmbook.files import read_jsonl, write_jsonl
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_model

START = Path(__file__).resolve().parents[1]/'llmbook'/'assets'/'nano-sft'
PROMPTS, SAMPLES, TOKENS = 16, 8, 100
SOURCE = '''
def brief(prompts, answers):
    return [-len(answer.split()) / 10 for answer in answers]
'''


def ours(folder, data, steps):
    "Seconds and answer tokens of each step, and where the time went."
    source = folder/'brief.py'
    source.write_text(SOURCE)
    out = folder/f'ours-{time.monotonic_ns()}'
    grpo(str(START), reward=f'{source}:brief', data=str(data), steps=steps, batch_size=PROMPTS, samples=SAMPLES, tokens=TOKENS,
         eval_every=0, lr=1e-5, unended=0, out=str(out))
    found, before = [], 0
    for row in read_jsonl(out/'log.jsonl'):
        tokens = row['tokens'] - before
        before = row['tokens']
        found.append({'seconds': tokens / row['tokens_per_s'], 'tokens': tokens,
                      'generation': row['seconds_generation'], 'scoring': row['seconds_scoring']})
    return found[1:]


def theirs(folder, asked, steps):
    "The same for TRL's trainer."
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    tokenizer = AutoTokenizer.from_pretrained(START)
    model = AutoModelForCausalLM.from_pretrained(START, dtype=torch.float32)
    tokens, ends = [], []
    def brief(completions, completion_ids=None, **_):
        tokens.append(sum(map(len, completion_ids)))
        return [-len(c[0]['content'].split()) / 10 for c in completions]
    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs): ends.append(time.perf_counter())
    config = GRPOConfig(output_dir=str(folder/'theirs'), per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
                        max_completion_length=TOKENS, temperature=1.0, top_p=1.0, top_k=0, beta=0.04, learning_rate=1e-5,
                        max_steps=steps, use_cpu=True, bf16=False, report_to='none', save_strategy='no', logging_steps=10**6,
                        gradient_checkpointing=False, dataloader_num_workers=0, disable_tqdm=True, seed=0)
    rows = Dataset.from_list([{'prompt': prompt.messages} for prompt in asked])
    trainer = GRPOTrainer(model, brief, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[Clock()])
    trainer.train()
    seconds = [b - a for a, b in zip(ends, ends[1:])]
    return [{'seconds': s, 'tokens': n} for s, n in zip(seconds, tokens[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=4)
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ['HF_HUB_OFFLINE'] = '1'
    folder = Path(tempfile.mkdtemp())
    asked = told_prompts(PROMPTS * args.steps * 2, ChatTemplate(load_model(START)[1]))
    data = folder/'prompts.jsonl'
    write_jsonl(data, [{'messages': prompt.messages} for prompt in asked])
    found = {'llmbook': [], 'trl': []}
    for _ in range(args.rounds):
        found['llmbook'] += ours(folder, data, args.steps + 1)
        found['trl'] += theirs(folder, asked, args.steps + 1)
    def middle(rows, name): return median(row[name] for row in rows)
    result = {}
    for name, rows in found.items():
        result[name] = {'seconds_per_step': middle(rows, 'seconds'), 'tokens': middle(rows, 'tokens'),
                        'tokens_per_s': median(r['tokens'] / r['seconds'] for r in rows)}
    parts = {name: middle(found['llmbook'], name) for name in ('generation', 'scoring')}
    result['llmbook'] |= parts | {'training': result['llmbook']['seconds_per_step'] - sum(parts.values())}
    result['ratio'] = result['llmbook']['tokens_per_s'] / result['trl']['tokens_per_s']
    print(result)
    if args.save:
        here = environment()
        save_results('rlhf', dict(date=str(date.today()), device=here['device'], commit=here['commit'],
                     command='python benchmarks/rlhf.py --save', rounds=args.rounds, steps=args.steps, **result))


if __name__ == '__main__': main()
