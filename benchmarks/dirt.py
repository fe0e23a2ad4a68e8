"""What cleaning is worth: the same model trained on dirty, cleaned and perfect text, measured on the same held-out stories.

Each model reads the same number of tokens from the same number of web pages; one tokenizer serves all. The pages are
made from templates that no rule was written against. Dirty text is what is left of a page when its tags are removed;
perfect text is the stories that the pages were made from, each once.

python benchmarks/dirt.py [--stories 8000] [--steps 300] [--seeds 3] [--out llmbook/assets/dirt_cost.json]
"""
import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

from llmbook.core import environment
from llmbook.evaluation.perplexity import ladder, oracle_nats
from llmbook.files import write_json
from llmbook.model.transformer import Transformer, config_for
from llmbook.text.batches import Stream, document_batches
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.dirt import dirty_pages
from llmbook.text.documents import local_documents
from llmbook.text.intake import clean_world
from llmbook.text.store import TokenStore, write_store
from llmbook.train.clm import CLM
from llmbook.train.optim import warmup_cosine
from llmbook.train.step import LocalEngine


def visible_text(document):
    "A page without its tags, in one line like all the other texts, and nothing else removed."
    from resiliparse.extract.html2text import extract_plain_text
    text = extract_plain_text(document['text'], main_content=False)
    return document | {'text': ' '.join(text.split())}


def texts_of(n, half, folder):
    "Name -> documents: the same pages as three texts. They are cleaned as `llmbook run` does it."
    dirty = [visible_text(page) for page in dirty_pages(n, half=half)]
    clean_world(folder/'pages', n, half=half)
    cleaned = list(local_documents(folder/'pages'/'documents.jsonl'))
    return {'dirty': dirty, 'cleaned': cleaned, 'perfect': list(world_documents(n))}


def train(store, val, steps, seed, rows=16, block_size=256):
    "The model after so many steps: held-out nats per token of every story."
    model, clm = Transformer(config_for('nano', store.meta['vocab_size']), seed=seed), CLM()
    engine = LocalEngine(model, warmup_cosine(9e-3, steps, round(0.02*steps)), optimizer='muon')
    stream = Stream(store, rows, block_size, seed)
    for step in range(steps): engine.step(stream[step], clm)
    return engine.evaluate(val, clm)['loss']


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--stories', type=int, default=8000)
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--half', default='second')
    parser.add_argument('--out', default='')
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        held = list(world_documents(500, 0, HELD_START))
        texts = texts_of(args.stories, args.half, folder)
        tokenizer = train_tokenizer((d['text'] for d in texts['cleaned']), 1024)
        for name, documents in texts.items():
            counts = write_store(folder/name, {'train': documents, 'val': held}, tokenizer)
            print(f"{name}: {len(documents):,} documents, {counts['train']['tokens']:,} tokens", flush=True)
        store = TokenStore(folder/'perfect', 'val')
        ids = [store[i] for i in range(len(store))]
        val = list(document_batches(ids, 256))
        bounds = {rung.name: rung.nats for rung in ladder(oracle_nats(held), ids)}
        for seed in range(args.seeds):
            for name in texts:
                began = time.perf_counter()
                loss = train(TokenStore(folder/name), val, args.steps, seed)
                rows.append({'text': name, 'seed': seed, 'val_loss': loss})
                print(f"{name:8} seed {seed}: {loss:.3f} nats per token, {time.perf_counter()-began:.0f} s", flush=True)
    summary = {}
    for name in texts:
        losses = [row['val_loss'] for row in rows if row['text'] == name]
        error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
        summary[name] = {'val_loss': statistics.mean(losses), 'error': error, 'documents': len(texts[name])}
        print(f"{name:8} {summary[name]['val_loss']:.3f} ± {error:.3f}")
    where = environment()
    result = {'stories': args.stories, 'steps': args.steps, 'tokens': args.steps*16*256, 'half': args.half,
              'blind': bounds['unigram by kind'], 'floor': bounds['exact floor'], 'rows': rows, 'summary': summary,
              'device': where['device'], 'commit': where['commit'], 'date': time.strftime('%Y-%m-%d')}
    if args.out: write_json(args.out, result)
    print(json.dumps(result))


if __name__ == '__main__': main()
