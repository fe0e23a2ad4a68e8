"""Lower-casing and stop words on a language model: fresh `nano` models of the same documents, as they are and simplified.

Every variant of Python's documentation has a tokenizer of its own, of the same size, and every model trains for the same
number of steps. Held-out documents are measured in bits, together with the bits that bring back what was thrown away.

python benchmarks/lowered.py [--only NAME ...] [--steps 100] [--seeds 2] [--out runs/lowered] [--save]

Finished runs are kept in --out. With --save the results go to nbs/results/lowered.json.
"""
import argparse
import math
from pathlib import Path

import numpy as np
import torch

from llmbook.core import environment
from llmbook.evaluation.perplexity import as_ids, document_nats, questions, rate
from llmbook.files import read_json, write_json
from llmbook.lesson import save_results
from llmbook.model.checkpoints import load_model
from llmbook.text.bpe import save_tokenizer, train_tokenizer
from llmbook.text.corpus import hold_out, pydoc_documents
from llmbook.text.store import write_store
from llmbook.train.clm import pretrain
from llmbook.train.lowered import Restorer, case_decisions, lowered, stop_word_decisions, without_stop_words

ROWS, CHARACTERS = 8, 2000 # rows of a batch; characters of each held-out document
VARIANTS = { # name -> what is done to the text, and the decisions that undo it
    'plain': (lambda text: text, lambda text: []),
    'lowered': (lowered, case_decisions),
    'no stop words': (without_stop_words, stop_word_decisions),
}


def texts():
    "Documents to train on, and the beginnings of those that are held out."
    train, val = hold_out(pydoc_documents())
    return [d['text'] for d in train], [d['text'][:CHARACTERS] for d in val]


def one_run(name, seed, steps, out, train, val):
    "Train on one variant; nats, tokens and bytes of every held-out document, and the bits that undo the change."
    path = out/f"{name.replace(' ', '-')}-{seed}.json"
    if path.exists(): return read_json(path)
    change, decisions = VARIANTS[name]
    folder = out/name.replace(' ', '-')
    changed = [{'id': str(i), 'text': change(text)} for i, text in enumerate(train)]
    if not (folder/'tokens.json').exists():
        tokenizer = train_tokenizer((d['text'] for d in changed), 1024)
        save_tokenizer(tokenizer, folder)
        write_store(folder, {'train': changed}, tokenizer)
    run = out/path.stem
    pretrain(tokens=str(folder), steps=steps, batch_size=ROWS, optimizer='muon', seed=seed, out=str(run))
    model, tokenizer = load_model(run)
    ids = as_ids(tokenizer, [{'text': change(text)} for text in val])
    restorer = Restorer().fit(decision for text in train for decision in decisions(text))
    found = {'name': name, 'seed': seed, 'nats': document_nats(model, ids).round(3).tolist(), 'tokens': questions(ids).tolist(),
             'bytes': [len(change(text).encode()) for text in val],
             'lost': [round(restorer.bits(decisions(text)), 3) for text in val],
             'train_tokens': read_json(folder/'tokens.json')['splits']['train']['tokens']}
    write_json(path, found)
    return found


def summary(name, runs, val):
    "The figures of one variant: means over seeds, all sums over the same documents."
    first = runs[0]
    tokens, own = np.array(first['tokens']), np.array(first['bytes'])
    size = np.array([len(text.encode()) for text in val])
    bits = np.mean([run['nats'] for run in runs], 0) / math.log(2)
    lost = np.array(first['lost'])
    return {'name': name, 'nats_per_token': rate(bits * math.log(2), tokens).mean, 'own': rate(bits, own).mean,
            'bits': rate(bits, size).mean, 'lost': rate(lost, size).mean, 'fair': rate(bits + lost, size).mean,
            'train_tokens': first['train_tokens'], 'total': bits + lost, 'size': size,
            'seeds': [float((np.array(run['nats']).sum() / math.log(2) + lost.sum()) / size.sum()) for run in runs]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', nargs='*', default=list(VARIANTS), decisions=list(VARIANTS))
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('runs/lowered'))
    parser.add_argument('--save', action='store_true')
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, val = texts()
    runs = [one_run(name, seed, args.steps, args.out, train, val) for seed in range(args.seeds) for name in args.only]
    rows = [summary(name, [run for run in runs if run['name'] == name], val) for name in args.only]
    plain = rows[0]
    for row in rows: # the difference to the first, paired by document
        row['more'] = list(rate(row['total'] - plain['total'], plain['size']))
    rows = [{key: value for key, value in row.items() if not isinstance(value, np.ndarray)} for row in rows]
    for row in rows: print(row, flush=True)
    if not args.save: return
    where = environment()
    save_results('lowered', {
        'steps': args.steps, 'batch_size': ROWS, 'seeds': args.seeds, 'documents': len(val), 'characters': CHARACTERS,
        'bytes': sum(len(text.encode()) for text in val), 'rows': rows,
        'device': where['device'], 'threads': 1, 'commit': where['commit']})


if __name__ == '__main__': main()
