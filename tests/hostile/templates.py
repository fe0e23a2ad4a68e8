"Folders that cases start from: small, and made by the commands themselves."
import json
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRETRAIN = ('pretrain --tokens tokens --model base --steps 8 --save-every 2 --keep 0 --eval-every 4 --batch-size 4 '
            '--block-size 32 --out run')
LONG = ('pretrain --tokens tokens --model base --steps 120 --save-every 30 --keep 0 --batch-size 4 --block-size 32 '
        '--out long') # long enough to be hit in the middle
BOOK = 'run --text text --size nano --vocab-size 280 --steps 2 --out book'
COMMANDS = {
    'text': 'corpus --source world --docs 60 --out text',
    'tokenizer': 'tokenizer --text text --vocab-size 280 --out tokenizer',
    'tokens': 'tokens --text text --tokenizer tokenizer --val 0.1 --out tokens',
    'run': PRETRAIN,
    'book': BOOK,
    'whole': LONG.replace('--out long', '--out whole'), # what an interrupted run must come to
    'judge': 'reward --model base --data pairs.jsonl --steps 2 --batch-size 2 --out judge',
    'adapter': 'sft --model base --data chat.jsonl --steps 2 --batch-size 2 --lora 2 --out adapter',
    'results': 'evaluate --model model --tasks text --text short.txt --out results',
}
NEEDS = {'tokenizer': ('text',), 'tokens': ('text', 'tokenizer'), 'run': ('tokens', 'base'), 'book': ('text',),
     'whole': ('tokens', 'base'),
         'model': ('run',), 'base': ('tokenizer',), 'results': ('model', 'short.txt'), 'other': (),
         'judge': ('base', 'pairs.jsonl'), 'adapter': ('base', 'chat.jsonl')}


def _base(place):
    "A model of two blocks, which reads these tokens."
    from llmbook.model.hf_format import save_model
    from llmbook.model.transformer import Config, Transformer
    from llmbook.text.bpe import load_tokenizer
    tokenizer = load_tokenizer(place/'tokenizer')
    config = Config(vocab_size=280, block_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=16, n_hidden=32, tied=False)
    save_model(Transformer(config, 0), tokenizer, place/'base')


def _rows(name):
    "Twelve conversations, or pairs of answers, that are short enough for the model."
    if name == 'pairs.jsonl':
        rows = [{'prompt': f'Who is {i}?', 'chosen': f'It is {i}.', 'rejected': 'No.'} for i in range(12)]
    else: rows = [{'prompt': f'Who is {i}?', 'completion': f'It is {i % 3}.'} for i in range(12)]
    return ''.join(json.dumps(row) + '\n' for row in rows)


def _bare(run):
    "Of a run only its model, without a manifest."
    shutil.move(run/'checkpoints/step-00000002', run.parent/'bare')
    shutil.rmtree(run)
    shutil.rmtree(run.parent/'bare/trainer')
    (run.parent/'bare/manifest.json').unlink()
    (run.parent/'bare').rename(run)


def make(name, place):
    "Make a template in a folder that holds those it needs."
    if name == 'short.txt': return place.put(name, (ROOT/'LICENSE').read_text() + (ROOT/'SECURITY.md').read_text())
    if name == 'long.jsonl': # nine megabytes
        text = (ROOT/'LICENSE').read_text()
        return place.put(name, ''.join(json.dumps({'text': f'{i} {text[i % 500:]}'}) + '\n' for i in range(800)))
    if name == 'other': return place.put('other/notes.txt', 'These are notes of somebody.\n')
    if name == 'base': return _base(place)
    if name == 'model': # as a stranger's folder: without a manifest
        newest, unwanted = place/'run/checkpoints/step-00000008', shutil.ignore_patterns('manifest.json', 'trainer')
        return shutil.copytree(newest, place/'model', ignore=unwanted)
    if name in ('chat.jsonl', 'pairs.jsonl'): return place.put(name, _rows(name))
    done = place.server.run(COMMANDS[name], place)
    if done.code: raise RuntimeError(f'{COMMANDS[name]}: {done.code}: {done.said}')
    if name in ('judge', 'adapter'): _bare(place/name)
