"""PPO, GRPO, DPO and best-of-n from one fine-tuned model: true reward, proxy reward and distance, as they learn.

python benchmarks/policies.py [--methods grpo-gold ...] [--seeds 0 1 2] [--out runs/policies] [--save]

The start is the committed fine-tuned `nano` model; the proxy is the committed reward model. A run is measured at a few of
its checkpoints: 300 held-out requests, one answer at temperature 1 and the greedy one. Measured are the true reward of
chapter `preferences`, the reward model's, and the distance from the start in nats per answer (the mean of k1 over the
sampled answers, exact but for the sample). Every finished run is kept in --out, so the same command continues after a
kill. With --save the results go to nbs/results/policies.json. One thread; CPU seconds are those of training alone.
"""
import argparse
import math
import time
from datetime import date
from pathlib import Path
from statistics import fmean, pstdev

import torch

from llmbook.align.branches import sample_answers
from llmbook.align.chat_template import ChatTemplate
from llmbook.align.compare import preferred
from llmbook.align.dpo import dpo
from llmbook.align.grpo import grpo
from llmbook.align.overoptimise import best_of_n, best_of_n_kl
from llmbook.align.ppo import ppo
from llmbook.align.reward import own_lists
from llmbook.align.rewards import ModelReward, told_prompts
from llmbook.align.rollouts import AnswerTokens, lay_out
from llmbook.align.answers import _texts
from llmbook.core import environment
from llmbook.files import read_json, write_json, write_jsonl
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_model, load_reward_model
from llmbook.text.corpus import HELD_START
from llmbook.text.preferences import gold_reward
from llmbook.train.step import Host

ASSETS = Path(__file__).resolve().parents[1]/'llmbook'/'assets'
START, JUDGE = ASSETS/'nano-sft', ASSETS/'nano-reward'
PROMPTS, TOKENS = 300, 100
METHODS = { # name -> stage, steps, steps between measurements, its arguments
    'grpo-gold': (grpo, 100, 20, dict(reward='gold', beta=0.1)),
    'ppo-gold': (ppo, 160, 32, dict(reward='gold', beta=0.05)),
    'grpo-model': (grpo, 100, 20, dict(reward=str(JUDGE), beta=0.5)),
    'ppo-model': (ppo, 160, 32, dict(reward=str(JUDGE), beta=0.1)),
    'grpo-free': (grpo, 100, 10, dict(reward=str(JUDGE), beta=0.0, lr=1e-3)),
    'dpo': (dpo, 400, 200, dict(lr=4e-4)),
}

ONCE = ('ppo-model', 'grpo-free') # with the first seed alone


class Ruler:
    "Measures policies on the same held-out requests."
    def __init__(self):
        self.start, self.tokenizer = load_model(START)
        judge, _ = load_reward_model(JUDGE)
        self.asked = told_prompts(PROMPTS, ChatTemplate(self.tokenizer), first=HELD_START)
        self.pays = ModelReward(Host(judge, 32), judge.pad, judge.config.block_size)
        self.pad = judge.pad

    def answers(self, model, samples=1, temperature=1.0, seed=0):
        "Ids of answers to all requests, and their log-probabilities at temperature 1."
        ids = [asked.ids for asked in self.asked]
        return sample_answers(model, ids, TOKENS, temperature, samples, seed, ends=self.tokenizer.ends, first=2**41, nats=True)

    def points(self, answers):
        "True and proxy rewards of answers (prompts, samples)."
        texts = [_texts(self.tokenizer, several) for several in answers]
        gold = [[gold_reward(text, asked.story).total for text in several] for asked, several in zip(self.asked, texts)]
        proxy = []
        for asked, several in zip(self.asked, answers):
            width = len(asked.ids) + max(map(len, several))
            batch = lay_out([asked], [several], [[[0.] * len(ids) for ids in several]], [0], width, self.pad)
            proxy.append(self.pays([asked], None, batch)[0].tolist())
        return gold, proxy

    def nats(self, model, answers):
        "Log-probability of each answer, and the mean entropy per token on the way."
        width = max(len(a.ids) + max(map(len, several)) for a, several in zip(self.asked, answers))
        batch = lay_out(self.asked, answers, [[[0.] * len(ids) for ids in several] for several in answers],
                        range(len(answers)), width, self.pad)
        found = Host(model, 16).score(batch, AnswerTokens())
        return found['log_probs'].sum(-1), float(found['entropy'].sum() / (batch['labels'] != -100).sum())

    def measure(self, model):
        "Everything about a policy."
        model.eval()
        sampled, nats = self.answers(model)
        greedy, _ = self.answers(model, temperature=0.0)
        gold, proxy = self.points(sampled)
        kl = fmean(sum(several[0]) for several in nats) - float(self.nats(self.start, sampled)[0].mean())
        flat = [several[0] for several in gold]
        return {'gold': fmean(flat), 'error': pstdev(flat) / math.sqrt(len(flat)), 'each': flat,
                'proxy': fmean(several[0] for several in proxy), 'kl': kl,
                'greedy': fmean(several[0] for several in self.points(greedy)[0]),
                'entropy': self.nats(model, sampled)[1], 'length': fmean(len(several[0]) for several in sampled)}


def start_facts(ruler, out):
    "The start: sampled, greedy, best of n by either reward, and sampled at lower temperatures."
    path = out/'start.json'
    if path.exists(): return read_json(path)
    facts = ruler.measure(ruler.start)
    ruler.asked, every = ruler.asked[:150], ruler.asked
    sampled, _ = ruler.answers(ruler.start, 64, seed=1)
    gold, proxy = ruler.points(sampled)
    facts['best_of'] = {}
    for n in (1, 2, 4, 8, 16, 32, 64):
        facts['best_of'][str(n)] = {'kl': best_of_n_kl(n)} | best_of(gold, proxy, n)
    ruler.asked = every
    facts['temperatures'] = []
    for temperature in (0.8, 0.6, 0.4, 0.2):
        sampled, _ = ruler.answers(ruler.start, temperature=temperature)
        flat = [several[0] for several in ruler.points(sampled)[0]]
        facts['temperatures'].append({'temperature': temperature, 'gold': fmean(flat), 'wins': preferred(flat, facts['each'])[0]})
    write_json(path, facts)
    return facts


def best_of(gold, proxy, n):
    "Mean true and proxy reward of the best of n, chosen by the one or the other, over all prompts."
    def mean(worth, chosen_by): return fmean(best_of_n(w, c, n) for w, c in zip(worth, chosen_by))
    return {'gold': mean(gold, gold), 'gold_by_proxy': mean(gold, proxy), 'proxy': mean(proxy, proxy)}


def one_run(name, seed, ruler, first, out):
    "Train and measure."
    path = out/f'{name}-{seed}.json'
    if path.exists(): return read_json(path)
    stage, steps, every, flags = METHODS[name]
    folder = out/f'{name}-{seed}'
    if stage is dpo:
        flags = flags | {'data': str(write_lists(out, seed, ruler)), 'skip_bad': True, 'batch_size': 8}
    began = time.process_time()
    stage(str(START), **flags, steps=steps, seed=seed, save_every=every, keep=0, eval_every=0, out=str(folder))
    seconds = time.process_time() - began
    points = []
    for checkpoint in sorted(folder.glob('checkpoints/step-*')):
        model, _ = load_model(checkpoint)
        found = ruler.measure(model)
        found['wins'], found['wins_error'] = preferred(found.pop('each'), first['each'])
        points.append({'step': int(checkpoint.name[-8:])} | found)
        print(name, seed, {k: round(v, 3) for k, v in points[-1].items()}, flush=True)
    found = {'method': name, 'seed': seed, 'cpu_seconds': seconds, 'points': points}
    write_json(path, found)
    return found


def write_lists(out, seed, ruler):
    "Lists of the start's own answers, as the annotator ranks them."
    path = out/f'lists-{seed}.jsonl'
    if not path.exists(): write_jsonl(path, own_lists(ruler.start, ruler.tokenizer, 1700, seed=seed))
    return path


def rounded(value):
    "The same, with four decimals."
    if isinstance(value, float): return round(value, 4)
    if isinstance(value, dict): return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--methods', nargs='*', default=list(METHODS), choices=list(METHODS))
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=Path('runs/policies'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    ruler = Ruler()
    first = start_facts(ruler, args.out)
    print('start', {k: v for k, v in first.items() if k != 'each'}, flush=True)
    runs = [one_run(name, seed, ruler, first, args.out) for seed in args.seeds for name in args.methods
            if seed == args.seeds[0] or name not in ONCE]
    if not args.save: return
    here = environment()
    settings = {name: {'steps': steps} | {k: v for k, v in flags.items() if k != 'reward'}
                for name, (_, steps, _, flags) in METHODS.items()}
    save_results('policies', dict(date=str(date.today()), device=here['device'], commit=here['commit'],
                 command='python benchmarks/policies.py --save', settings=settings,
                 start=rounded({k: v for k, v in first.items() if k != 'each'}), runs=rounded(runs)))


if __name__ == '__main__': main()
