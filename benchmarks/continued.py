"""What a trained decoder gains on other text and forgets of its own: one short run per recipe and seed.

The committed `nano` model goes on to read those pages of Python's documentation that it has not read yet, a million
characters into it. Recipes differ in the highest learning rate, in the share of stories among the rows, and in the length
of the warm-up. Held-out stories and held-out pages are measured before, and every 25 steps.

python benchmarks/continued.py [--only NAME ...] [--steps 200] [--seeds 2] [--out runs/continued] [--save]

Finished runs are kept in --out, and not repeated. With --save all of them go to nbs/results/continued.json.
"""
import argparse
from pathlib import Path

import torch

from llmbook.core import environment
from llmbook.files import read_json, read_jsonl, write_json
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_model
from llmbook.text.bpe import save_tokenizer
from llmbook.text.corpus import HELD_START, hold_out, pydoc_documents, world_documents
from llmbook.text.store import TokenStore, write_store
from llmbook.train.clm import pretrain, validation_batches
from llmbook.train.continued import losses_on, watch_texts

NANO = Path(__file__).resolve().parents[1]/'llmbook/assets/nano-pretrain'
ROWS, EVERY, READ = 4, 25, 1_000_000 # rows of a batch; steps between measurements; characters that the model has read
RECIPES = { # name -> highest rate, share of stories, share of the steps with a rising rate
    'all new, 3e-3': (3e-3, 0, 0.02),
    'a quarter old, 3e-3': (3e-3, 0.25, 0.02),
    'all new, 3e-4': (3e-4, 0, 0.02),
    'a quarter old, 3e-4': (3e-4, 0.25, 0.02),
    'a tenth old, 3e-3': (3e-3, 0.1, 0.02),
    'all new, 1e-3': (1e-3, 0, 0.02),
    'a quarter old, 1e-3': (1e-3, 0.25, 0.02),
    'all new, 3e-3, long warm-up': (3e-3, 0, 0.25),
}


def unread_pages():
    "The documentation after its first million characters."
    seen, pages = 0, []
    for page in pydoc_documents():
        if seen >= READ: pages.append(page)
        seen += len(page['text'])
    return pages


def write_texts(out):
    "Tokens of the two texts, made with the model's own tokenizer, each with some text held out."
    _, tokenizer = load_model(NANO)
    stories = {'train': list(world_documents(2000)), 'val': list(world_documents(200, 0, HELD_START))}
    pages = dict(zip(('train', 'val'), hold_out(unread_pages())))
    folders = {'stories': out/'stories', 'documentation': out/'documentation'}
    for splits, folder in zip((stories, pages), folders.values()):
        if (folder/'tokens.json').exists(): continue
        save_tokenizer(tokenizer, folder)
        write_store(folder, splits, tokenizer)
    return folders


def one_run(name, seed, steps, folders, out):
    "Train, and keep the two losses as they went."
    path = out/f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
    if path.exists(): return read_json(path)
    lr, share, warmup = RECIPES[name]
    mix = [f"{folders['stories']}={share}"] if share else None
    pretrain(tokens=str(folders['documentation']), model=str(NANO), steps=steps, batch_size=ROWS, lr=lr, warmup=warmup,
             mix=mix, eval_every=EVERY, seed=seed, out=str(out/path.stem), on_eval=watch_texts(folders, 256))
    rows = [row for row in read_jsonl(out/path.stem/'log.jsonl') if 'val_loss' in row]
    curve = [[row['step'], *(round(row[f'val_loss on {text}'], 4) for text in folders)] for row in rows]
    found = {'name': name, 'seed': seed, 'lr': lr, 'share': share, 'warmup': warmup, 'curve': curve}
    write_json(path, found)
    return found


def finished(out):
    "All runs that are kept, also those of earlier calls, recipe by recipe."
    runs = [read_json(path) for path in out.glob('*.json')]
    return sorted(runs, key=lambda run: (list(RECIPES).index(run['name']), run['seed']))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', nargs='*', default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('runs/continued'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders = write_texts(args.out)
    held = {text: validation_batches(TokenStore(folder, 'val'), 256) for text, folder in folders.items()}
    before = {text: round(loss, 4) for text, loss in losses_on(load_model(NANO)[0], held).items()}
    print(before, flush=True)
    for seed in range(args.seeds):
        for name in args.only: one_run(name, seed, args.steps, folders, args.out)
    runs = finished(args.out)
    for run in runs: print(run['name'], run['seed'], run['curve'][-1], flush=True)
    if not args.save: return
    asked = {text: sum(int((b['labels'] >= 0).sum()) for b in batches) for text, batches in held.items()}
    tokens = {text: TokenStore(folder).meta['splits']['train']['tokens'] for text, folder in folders.items()}
    where = environment()
    save_results('continued', {
        'steps': args.steps, 'batch_size': ROWS, 'block_size': 256, 'before': before, 'asked': asked,
        'tokens': tokens, 'runs': runs, 'device': where['device'], 'threads': 1, 'commit': where['commit']})


if __name__ == '__main__': main()
