"""What an unbalanced mixture does: one small model per share of web jargon, all of the same number of steps.

Two sources, one tokenizer. Stories, many; and jargon: invented posts, each a few sentences of a story in the words of
people who want to be liked. There are few posts, so a large share reads them again and again. Measured on held-out
stories, on the posts that were read, on other posts of the same program, and in samples: how many hold a word of jargon.

python benchmarks/mixture.py [--steps 100] [--seeds 3] [--posts 200] [--out nbs/results/mixture.json]
"""
import argparse
import math
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch

from llmbook.core import environment, generator, seed_of
from llmbook.files import write_json
from llmbook.model.generate import generate
from llmbook.model.transformer import Transformer, config_for
from llmbook.text.batches import document_batches
from llmbook.text.bpe import train_tokenizer
from llmbook.text.corpus import HELD_START, world_documents
from llmbook.text.mixture import Mixture
from llmbook.text.store import TokenStore, write_store
from llmbook.train.clm import CLM
from llmbook.train.optim import warmup_cosine
from llmbook.train.step import LocalEngine

SHARES = [0, 0.1, 0.5, 0.9, 1]
ROWS, BLOCK_SIZE, SAMPLES = 16, 256, 32
POSTS_START = 500_000 # of the stories that posts are made of: nobody else reads these

OPENERS = ['omg guys', 'ngl', 'okay so', 'hot take:', 'storytime', 'unpopular opinion:', 'tbh', 'not gonna lie',
           'plot twist:', 'psa:', 'fyi besties', 'brb crying', 'lowkey', 'no cap']
ASIDES = ['lol', 'lmao', 'smh', 'imo', 'fr fr', 'iykyk', 'tldr', 'ikr', 'yolo', 'big mood', 'so cringe', 'total vibe',
          'what a glow up', 'rip', 'literally iconic']
CALLS = ['smash that like button', 'subscribe for part two', 'link in bio', 'drop a follow', 'dm me for collabs',
         'tag a bestie', 'hit the bell', 'giveaway in the comments', 'repost if you agree', 'use my promo code']
TAGS = ['#blessed', '#viral', '#fyp', '#mood', '#nofilter', '#throwback', '#goals', '#grindset', '#selfcare', '#ootd',
        '#foryou', '#trending']


def jargon_words(stories):
    "Hashtags, and openers and asides of one word, unless a story has them."
    plain = {word for document in stories for word in words_of(document['text'])}
    return {phrase for phrase in (*OPENERS, *ASIDES, *TAGS) if re.fullmatch('#?[a-z]{3,}', phrase)} - plain


def words_of(text): return re.findall(r"#?[a-z]+", text.lower())


def post(story, rng):
    "A few sentences of a story as a post."
    sentences = re.findall(r'[^.!?]+[.!?]', story['text'])
    begin = rng.randrange(max(1, len(sentences) - 3))
    parts = [rng.choice(OPENERS)]
    for sentence in sentences[begin:begin + 3]:
        parts.append(sentence.strip(' .').lower())
        parts.append(rng.choice(ASIDES))
    parts += rng.sample(CALLS, 2)
    parts += rng.sample(TAGS, 3)
    return ' '.join(parts)


def posts(n, start):
    "Invented posts; those of another start are made of other stories."
    for i, story in enumerate(world_documents(n, 0, POSTS_START + start)):
        rng = random.Random(seed_of(start + i, 'post'))
        yield {'id': f'post/{start + i}', 'text': post(story, rng)}


def documents_of(store): return [store[i] for i in range(len(store))]


def train(stores, share, steps, seed):
    "A model after so many steps, its engine, and how often it has read the posts."
    weights = {'stories': 1 - share, 'jargon': share}
    mixture, clm = Mixture(stores, weights, ROWS, BLOCK_SIZE, seed), CLM()
    model = Transformer(config_for('nano', stores['stories'].vocab_size), seed=seed)
    engine = LocalEngine(model, warmup_cosine(9e-3, steps, round(0.02 * steps)), optimizer='muon')
    for step in range(steps): engine.step(mixture[step], clm)
    return engine, mixture.epochs(steps).get('jargon', 0.0)


def share_of_samples(model, store, tokenizer, words, seed):
    "The share of samples, drawn at temperature 1 from the beginning of a text, that hold a word of jargon."
    rows = torch.full((SAMPLES, 1), store.begin)
    texts = generate(model, rows, 120, 1.0, end=list(store.ends), rng=generator(seed, 'samples'))
    texts = [tokenizer.decode(row) for row in texts.tolist()]
    return sum(bool(words & set(words_of(text))) for text in texts) / SAMPLES


def measure(stores, held, tokenizer, words, share, steps, seed):
    "One model and all that is measured of it."
    engine, epochs = train(stores, share, steps, seed)
    row = {'share': share, 'seed': seed, 'epochs': round(epochs, 2)}
    for name, batches in held.items(): row[name] = round(engine.evaluate(batches, CLM())['loss'], 4)
    row['samples'] = share_of_samples(engine.model, stores['stories'], tokenizer, words, seed)
    return row


def average(rows):
    "The mean of each figure over the seeds, and its standard error."
    found = {'epochs': rows[0]['epochs']}
    for name in ('story_loss', 'jargon_loss', 'train_jargon_loss', 'samples'):
        values = [row[name] for row in rows]
        found[name] = round(statistics.mean(values), 4)
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        found[f'{name}_error'] = error if error is None else round(error, 4)
    return found


def rungs_of(documents, store):
    "What the held-out stories cost the reader by kind and one who knows everything, in nats per token."
    labels = sum(len(ids) - 1 for ids in documents_of(store))
    nats = {'unigram by kind': 'blind', 'exact floor': 'logp'}
    return {name: -sum(d['meta'][key] for d in documents) / labels for name, key in nats.items()}


def prepare(folder, n_stories, n_posts):
    "Two stores of one tokenizer, the held-out batches, the tokenizer and the words of jargon; the sizes, and two rungs."
    stories = list(world_documents(n_stories))
    texts = {'stories': (stories, list(world_documents(200, 0, HELD_START))),
             'jargon': (list(posts(n_posts, 0)), list(posts(200, 10_000)))}
    many = [*stories, *posts(500, 20_000)] # the tokenizer may have seen more posts than the models
    tokenizer = train_tokenizer((document['text'] for document in many), 1024)
    sizes = {}
    for name, (new, held) in texts.items():
        counts = write_store(folder/name, {'train': new, 'val': held}, tokenizer)['train']
        sizes[name] = {key: counts[key] for key in ('documents', 'tokens')}
        print(f"{name}: {counts['documents']:,} documents, {counts['tokens']:,} tokens", flush=True)
    stores = {name: TokenStore(folder/name) for name in texts}
    sets = {'story_loss': TokenStore(folder/'stories', 'val'), 'jargon_loss': TokenStore(folder/'jargon', 'val'),
            'train_jargon_loss': stores['jargon']}
    held = {name: list(document_batches(documents_of(store), BLOCK_SIZE)) for name, store in sets.items()}
    rungs = rungs_of(texts['stories'][1], sets['story_loss'])
    return (stores, held, tokenizer, jargon_words(stories)), sizes, rungs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--stories', type=int, default=6000)
    parser.add_argument('--posts', type=int, default=200)
    parser.add_argument('--out', default='')
    args = parser.parse_args()
    rows, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared, sizes, rungs = prepare(Path(folder), args.stories, args.posts)
        print(next(posts(1, 0))['text'], flush=True)
        for seed in range(args.seeds):
            for share in SHARES:
                start = time.perf_counter()
                rows.append(measure(*prepared, share, args.steps, seed))
                print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    summary = [average([row for row in rows if row['share'] == share]) for share in SHARES]
    for share, row in zip(SHARES, summary): print(f"{share:4.0%}", row)
    where = environment()
    result = {'steps': args.steps, 'seeds': args.seeds, 'stories': args.stories, 'posts': args.posts, 'size': 'nano',
              'batch_size': ROWS, 'block_size': BLOCK_SIZE, 'tokens': args.steps * ROWS * BLOCK_SIZE, 'sizes': sizes,
              'rungs': rungs, 'shares': SHARES, 'summary': summary, 'rows': rows, 'seconds': round(time.perf_counter() - began),
              'device': where['device'], 'threads': where['threads'], 'commit': where['commit']}
    if args.out: write_json(args.out, result)


if __name__ == '__main__': main()
