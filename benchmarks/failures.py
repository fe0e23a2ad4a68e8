"""Five ways in which reinforcement learning fails, each provoked on purpose, and the curves by which one knows them.

python benchmarks/failures.py [--only NAME ...] [--out runs/failures] [--save]

Each run begins with the committed fine-tuned `nano` model and is short. What is kept are columns of its log: reward,
distance from the start (kl, nats per answer), length, entropy, the share of groups with unequal rewards, and, where the
reward is not the truth, the true reward of the same rollouts. Finished runs are kept in --out. With --save the results
go to nbs/results/failures.json.
"""
import argparse
from datetime import date
from pathlib import Path

import torch

from llmbook.align import policy
from llmbook.align.grpo import grpo
from llmbook.core import environment
from llmbook.files import read_json, read_jsonl, write_json
from llmbook.lesson import save_results
from llmbook.text.preferences import gold_reward

ASSETS = Path(__file__).resolve().parents[1]/'llmbook'/'assets'
START, JUDGE = ASSETS/'nano-sft', ASSETS/'nano-reward'
KEPT = ('step', 'reward', 'kl', 'length', 'entropy', 'uneven', 'grad_norm')
COMMON = dict(prompts=1200, eval_every=0)
FAILURES = { # name -> steps, arguments of `grpo`
    'healthy': (40, dict(reward='gold', beta=0.1)),
    'KL runs away': (40, dict(reward='gold', beta=1e-9, lr=3e-3)),
    'reward hacked': (60, dict(reward=str(JUDGE), beta=1e-9, lr=1e-3)),
    'length explodes': (40, dict(reward='LONG', beta=1e-9, lr=8e-4)),
    'entropy collapses': (640, dict(reward='gold', beta=1e-9, lr=1.5e-3, minibatches=4, passes=4)),
    'nothing learned': (20, dict(reward='exact', beta=1e-9, unended=0)),
}
LONG = '''
def words(prompts, answers):
    return [len(answer.split()) / 10 for answer in answers]
'''


class Watched:
    "A reward that also notes the true one."
    def __init__(self, pays, seen): self.pays, self.seen = pays, seen
    def check(self, asked): self.pays.check(asked)
    def __call__(self, asked, answers, batch):
        if asked[0].story:
            gold = [gold_reward(text, prompt.story).total for prompt, several in zip(asked, answers) for text in several]
            self.seen.append(sum(gold) / len(gold))
        return self.pays(asked, answers, batch)


def one_run(name, out):
    "Train, and keep the curves."
    path = out/f"{name.replace(' ', '-')}.json"
    if path.exists(): return read_json(path)
    steps, flags = FAILURES[name]
    if flags['reward'] == 'LONG':
        (out/'long.py').write_text(LONG)
        flags = flags | {'reward': f"{out/'long.py'}:words"}
    seen, load = [], policy.load_reward
    policy.load_reward = lambda *args: Watched(load(*args), seen)
    try: grpo(str(START), **COMMON | flags, steps=steps, out=str(out/path.stem))
    finally: policy.load_reward = load
    rows = [row for row in read_jsonl(out/path.stem/'log.jsonl') if 'reward' in row]
    curves = {key: [round(row[key], 4) for row in rows if key in row] for key in KEPT}
    found = {'name': name, 'curves': curves | {'gold': [round(value, 4) for value in seen]}}
    write_json(path, found)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', nargs='*', default=list(FAILURES), choices=list(FAILURES))
    parser.add_argument('--out', type=Path, default=Path('runs/failures'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [one_run(name, args.out) for name in args.only]
    if not args.save: return
    here = environment()
    settings = {name: {'steps': steps} | {k: v for k, v in flags.items() if k != 'reward'}
                for name, (steps, flags) in FAILURES.items()}
    save_results('failures', dict(date=str(date.today()), device=here['device'], commit=here['commit'],
                 command='python benchmarks/failures.py --save', settings=settings, runs=runs))


if __name__ == '__main__': main()
