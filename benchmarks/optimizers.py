"""AdamW and Muon on the same model, the same batches and the same schedule: nats per token on held-out stories, and time.

One seed and the learning rates that are given: a fair comparison needs a grid of rates for each optimiser, wide enough
that neither's best is at its edge.

python benchmarks/optimizers.py [--tokens 820000] [--lr-adamw 3e-3 6e-3] [--lr-muon 5e-3 1e-2]
"""
import argparse
import json
import tempfile
import time
from pathlib import Path

from llmbook.core import environment
from llmbook.evaluation.perplexity import oracle_nats, ladder
from llmbook.model.transformer import Transformer, config_for
from llmbook.text.batches import Stream, document_batches
from llmbook.text.store import TokenStore
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.train.clm import CLM, world_tokens
from llmbook.train.step import LocalEngine
from llmbook.train.optim import warmup_cosine


def train(store, val, optimizer, lr, steps, rows=16, block_size=256):
    "Held-out nats per token after `steps`, and seconds."
    model, clm = Transformer(config_for('nano', store.meta['vocab_size']), seed=0), CLM()
    engine = LocalEngine(model, warmup_cosine(lr, steps, round(0.02*steps)), optimizer=optimizer)
    stream, began = Stream(store, rows, block_size, 0), time.perf_counter()
    for step in range(steps): engine.step(stream[step], clm)
    return engine.evaluate(val, clm)['loss'], time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--tokens', type=float, default=820_000)
    parser.add_argument('--stories', type=int, default=10_000)
    parser.add_argument('--lr-adamw', type=float, nargs='+', default=[3e-3, 6e-3])
    parser.add_argument('--lr-muon', type=float, nargs='+', default=[5e-3, 1e-2])
    args, out = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as folder:
        world_tokens(Path(folder), args.stories, 1024, 0)
        store, val = TokenStore(folder), TokenStore(folder, 'val')
        ids, stories = [val[i] for i in range(len(val))], list(world_documents(len(val), 0, HELD_START))
        bounds = {r.name: r.nats for r in ladder(oracle_nats(stories), ids)}
        print({k: round(v, 3) for k, v in bounds.items()}, flush=True)
        for optimizer, lr in [('adamw', lr) for lr in args.lr_adamw] + [('muon', lr) for lr in args.lr_muon]:
            loss, seconds = train(store, list(document_batches(ids, 256)), optimizer, lr, round(args.tokens / 4096))
            way = (bounds['unigram by kind'] - loss) / (bounds['unigram by kind'] - bounds['exact floor'])
            out.append(dict(optimizer=optimizer, lr=lr, loss=loss, closed=way, seconds=seconds))
            print(f"{optimizer:6} lr {lr:g}: {loss:.3f} nats per token, {way:.0%} of the way, {seconds:.0f} s", flush=True)
    where = environment()
    print(json.dumps({'tokens': args.tokens, 'device': where['device'], 'commit': where['commit'], 'rows': out}))


if __name__ == '__main__': main()
