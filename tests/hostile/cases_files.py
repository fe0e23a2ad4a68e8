"Corruptions: files of runs, checkpoints, tokens, tokenizers and weights that are not what they were."
import json
import pickle

import numpy as np
import torch

from .harness import (Case, append, array, copy, cut, edit, fifo, flip, folder, link, mode, move, put, remove, sign,
     swap,
                      tensors)
from .templates import BOOK, PRETRAIN

CHECKPOINTS = 'run/checkpoints'
NEW, OLD = f'{CHECKPOINTS}/step-00000008', f'{CHECKPOINTS}/step-00000006'
TRAINER = f'{OLD}/trainer'
GENERATE = 'generate --model run --n 3 --prompt Once --seed 1'
OWN = 'generate --model model --n 3 --prompt Once --seed 1'
UNFINISHED = remove(NEW) # the run then resumes from step 6
RESUMED = ('run/*',) # what a resumed run may change
SKIPS = dict(code=0, words=('warning', 'step-00000008', 'skipped', 'Once'))
DEEP = '[' * 100_000 + ']' * 100_000


class Exploit:
    "What a pickle may do to who reads it."
    def __reduce__(self): return (open, ('pwned', 'w'))


def with_two_ids_exchanged(text):
    "A tokenizer that loads, and gives the ids of two letters to one another."
    tokenizer = json.loads(text)
    ids = tokenizer['model']['vocab']
    ids['x'], ids['z'] = ids['z'], ids['x']
    return json.dumps(tokenizer)


def untouched(d, result):
    if (d/'pwned').exists(): return 'code from a file was run'


def same_as(command):
    "The output must be that of another command."
    def check(d, result):
        expected = d.server.run(command, d).out
        if result.out != expected: return f'writes {result.out!r}, not {expected!r}'
    return check


def broken_checkpoint(name, *steps, quick=False, **more):
    "The newest checkpoint is broken: the one before is used, and it says so."
    return Case(name, GENERATE, steps, **SKIPS, quick=quick, **more)


def signed(name, *steps, **more):
    "Step 6 agrees with its manifest and yet cannot be resumed from: one line says so, or it is skipped with a warning."
    more = dict(words='step-00000006', code=(0, 2), check=warned) | more
    change = ('run/config.json', 'run/log.jsonl', 'run/loss.png')
    return Case(name, PRETRAIN, (UNFINISHED, *steps, sign(OLD)), change=change, **more)


def warned(d, result):
    if result.code == 0 and 'warning' not in result.said: return 'uses it without a warning'


CHECKPOINT_CASES = [
    broken_checkpoint('weights cut short', cut(f'{NEW}/model.safetensors', 3000), quick=True),
    broken_checkpoint('a flipped bit in the weights', flip(f'{NEW}/model.safetensors')),
    broken_checkpoint('weights of no bytes', cut(f'{NEW}/model.safetensors', 0)),
    broken_checkpoint('weights missing', remove(f'{NEW}/model.safetensors')),
    broken_checkpoint('a folder in the place of the weights', folder(f'{NEW}/model.safetensors')),
    broken_checkpoint('a pipe in the place of the weights', fifo(f'{NEW}/model.safetensors'), quick=True),
    broken_checkpoint('a dangling link in the place of the weights', link(f'{NEW}/model.safetensors', 'nowhere')),
    broken_checkpoint('a loop of links in the place of the weights',
         link(f'{NEW}/model.safetensors', 'model.safetensors')),
    broken_checkpoint('a device in the place of the weights', link(f'{NEW}/model.safetensors', '/dev/zero')),
    broken_checkpoint('weights that the disk cannot read', link(f'{NEW}/model.safetensors', '/proc/self/mem')),
    broken_checkpoint('weights that may not be read', mode(f'{NEW}/model.safetensors', 0), permissions=True,
         quick=True),
    broken_checkpoint('a checkpoint that may not be entered', mode(NEW, 0), permissions=True),
    broken_checkpoint('weights of another checkpoint', swap(f'{NEW}/model.safetensors', f'{OLD}/config.json')),
    broken_checkpoint('manifest missing', remove(f'{NEW}/manifest.json')),
    broken_checkpoint('manifest of no bytes', cut(f'{NEW}/manifest.json', 0)),
    broken_checkpoint('manifest null', put(f'{NEW}/manifest.json', 'null')),
    broken_checkpoint('manifest a list', put(f'{NEW}/manifest.json', '[1, 2]')),
    broken_checkpoint('manifest nested a hundred thousand deep', put(f'{NEW}/manifest.json', DEEP), quick=True),
    broken_checkpoint('manifest in UTF-16', put(f'{NEW}/manifest.json', '{}'.encode('utf-16'))),
    broken_checkpoint('a pipe as manifest', fifo(f'{NEW}/manifest.json')),
    broken_checkpoint('a folder as manifest', folder(f'{NEW}/manifest.json')),
    broken_checkpoint('manifest whose files are a list', edit(f'{NEW}/manifest.json', files=['model.safetensors'])),
    broken_checkpoint('manifest whose checksums are numbers',
         edit(f'{NEW}/manifest.json', files={'model.safetensors': 1})),
    broken_checkpoint('manifest without files', edit(f'{NEW}/manifest.json', files={})),
    broken_checkpoint('manifest that leads out of its folder',
                      edit(f'{NEW}/manifest.json', files={'../step-00000006/config.json': '0' * 64})),
    broken_checkpoint('manifest with a zero byte in a name', edit(f'{NEW}/manifest.json', files={'a\0b': '0' * 64})),
    broken_checkpoint('manifest of a later format', edit(f'{NEW}/manifest.json', format=99)),
    broken_checkpoint('manifest whose format is true', edit(f'{NEW}/manifest.json', format=True)),
    broken_checkpoint('manifest of another step', edit(f'{NEW}/manifest.json', step=6), quick=True),
    broken_checkpoint('manifest with a step below zero', edit(f'{NEW}/manifest.json', step=-8)),
    broken_checkpoint('manifest with NaN as step',
         put(f'{NEW}/manifest.json', '{"format": 1, "files": {}, "step": NaN}')),
    broken_checkpoint('a file that the manifest does not know', put(f'{NEW}/adapter.safetensors', b'x')),
    broken_checkpoint('another config than the manifest has', edit(f'{NEW}/config.json', vocab_size=12)),
    Case('a file with the name of a checkpoint', GENERATE, put(f'{CHECKPOINTS}/step-00000010', 'x'), code=0,
         words=('warning', 'step-00000010', 'Once')),
    Case('an empty folder with the name of a checkpoint', GENERATE, folder(f'{CHECKPOINTS}/step-00000010'), code=0,
         words=('warning', 'step-00000010', 'Once')),
    Case("a user's copy named step-best", GENERATE, copy(OLD, f'{CHECKPOINTS}/step-best'), code=0, words='Once',
         never='step-best', check=same_as(f'generate --model {NEW} --n 3 --prompt Once --seed 1'), quick=True),
    Case("a user's copy survives rotation", PRETRAIN.replace('--keep 0', '--keep 1'),
         (UNFINISHED, copy(OLD, f'{CHECKPOINTS}/step-best'), copy(OLD, f'{CHECKPOINTS}/step-6')), code=0, words='done',
         change=('run/log.jsonl', 'run/loss.png', 'run/config.json', 'run/checkpoints/step-0*')),
    Case('traces of JupyterLab in a checkpoint', GENERATE,
         (folder(f'{NEW}/.ipynb_checkpoints'), copy(f'{NEW}/config.json', f'{NEW}/.ipynb_checkpoints/config.json')),
         code=0, words='Once', never='warning', quick=True),
    Case('traces of a Mac in a checkpoint', PRETRAIN,
         (put(f'{NEW}/.DS_Store', b'\0'), put(f'{NEW}/._config.json', b'\0')),
         code=0, words='done', never='warning', change=('run/loss.png', 'run/config.json')),
    Case('all checkpoints broken, nothing to generate from', GENERATE,
         tuple(cut(f'{CHECKPOINTS}/step-0000000{i}/model.safetensors', 9) for i in (2, 4, 6, 8)),
         words=('run', 'checkpoint')),
    Case('all checkpoints broken, the run starts over and keeps them', PRETRAIN,
         tuple(cut(f'{CHECKPOINTS}/step-0000000{i}/model.safetensors', 9) for i in (2, 4, 6, 8)), code=0,
         words=('warning', 'done'), change=('run/log.jsonl', 'run/loss.png', 'run/config.json')),
    Case('checkpoints is a file', GENERATE, (remove(CHECKPOINTS), put(CHECKPOINTS, 'x')), words='run'),
    Case('checkpoints is a file, on resuming', PRETRAIN, (remove(CHECKPOINTS), put(CHECKPOINTS, 'x')), words='run'),
    Case('checkpoints is a link to a folder elsewhere', GENERATE,
         (move(CHECKPOINTS, 'elsewhere'), link(CHECKPOINTS, '../elsewhere')),
         code=0, words='Once', never='warning'),
    Case('checkpoints is a loop of links', GENERATE, link(CHECKPOINTS, 'checkpoints'), words='run'),
    Case('a broken newest checkpoint, on resuming', PRETRAIN, cut(f'{NEW}/trainer/state.safetensors', 500), code=0,
         words=('warning', 'resuming from step 6', 'done'),
         change=('run/log.jsonl', 'run/loss.png', 'run/config.json')),
    Case('a stale staging folder', PRETRAIN,
         (UNFINISHED, put(f'{CHECKPOINTS}/.step-00000008.tmp/model.safetensors', 'half')),
         code=0, words='done', change=('run/log.jsonl', 'run/loss.png', 'run/config.json', '*.tmp', '*.tmp/*'),
         quick=True),
    Case('a file named as a staging folder', PRETRAIN, (UNFINISHED, put(f'{CHECKPOINTS}/.step-00000008.tmp', 'x')),
         code=0, words='done', change=('run/log.jsonl', 'run/loss.png', 'run/config.json', '*.tmp')),
    Case('a link named as a staging folder', PRETRAIN,
         (UNFINISHED, link(f'{CHECKPOINTS}/.step-00000008.tmp', '../../other')),
         code=0, words='done', needs='other', change=('run/log.jsonl', 'run/loss.png', 'run/config.json', '*.tmp')),
    Case('a pipe named as the staging file of the log', PRETRAIN, (UNFINISHED, fifo('run/.log.jsonl.1.tmp')),
         code=0, words='done', change=('run/log.jsonl', 'run/loss.png', 'run/config.json', '*.tmp')),
    Case('an old checkpoint set aside by a killed save', GENERATE, move(NEW, f'{CHECKPOINTS}/.step-00000008.old'),
         code=0,
         words='Once', never='warning',
         check=same_as(f'generate --model {CHECKPOINTS}/.step-00000008.old --n 3 --prompt Once --seed 1')),
]

STATE_CASES = [
    signed('steps of the trainer are a text', edit(f'{TRAINER}/trainer.json', steps='six'), quick=True),
    signed('steps of the trainer are missing', edit(f'{TRAINER}/trainer.json', steps=...)),
    signed('steps of the trainer are negative', edit(f'{TRAINER}/trainer.json', steps=-3)),
    signed('steps of the trainer are another number than the name', edit(f'{TRAINER}/trainer.json', steps=1)),
    signed('trainer.json is null', put(f'{TRAINER}/trainer.json', 'null')),
    signed('trainer.json is nested deep', put(f'{TRAINER}/trainer.json', DEEP)),
    signed('trainer.json is missing', remove(f'{TRAINER}/trainer.json')),
    signed('state of the trainer missing', remove(f'{TRAINER}/state.safetensors')),
    signed('state and random numbers exchanged', swap(f'{TRAINER}/state.safetensors', f'{TRAINER}/rng-0.safetensors')),
    signed('random numbers of another type',
         tensors(f'{TRAINER}/rng-0.safetensors', lambda t: {'torch': torch.zeros(5056)})),
    signed('random numbers of another length',
           tensors(f'{TRAINER}/rng-0.safetensors', lambda t: {'torch': torch.zeros(8, dtype=torch.uint8)})),
    signed('random numbers under another name',
         tensors(f'{TRAINER}/rng-0.safetensors', lambda t: {'tourch': t['torch']})),
    signed('a moment of another shape', tensors(f'{TRAINER}/state.safetensors',
           lambda t: t | {'exp_avg.norm.weight': torch.zeros(3)})),
    signed('moments of whole numbers', tensors(f'{TRAINER}/state.safetensors',
           lambda t: {k: v.to(torch.int32) if k.startswith('exp_avg') else v for k, v in t.items()}),
           doubt='moments could also be converted'),
    signed('a weight missing in the state', tensors(f'{TRAINER}/state.safetensors',
           lambda t: {k: v for k, v in t.items() if k != 'weight.norm.weight'}), words='norm.weight'),
    signed('a weight too many in the state', tensors(f'{TRAINER}/state.safetensors',
           lambda t: t | {'weight.extra': torch.zeros(3)}), words='extra'),
    signed('NaN weights in the state', tensors(f'{TRAINER}/state.safetensors',
           lambda t: t | {'weight.norm.weight': t['weight.norm.weight'] * float('nan')}), code=(0, 2, 3), new='run/*'),
    signed('a negative second moment', tensors(f'{TRAINER}/state.safetensors',
           lambda t: {k: -1 - v.abs() if k.startswith('exp_avg_sq') else v for k, v in t.items()}), code=(0, 2, 3),
           new='run/*',
           doubt='the square root is NaN: the weights are then NaN, and must not be saved as done'),
]


def weights(name, change, *more_steps, **more):
    "A stranger's folder whose weights are wrong."
    more = dict(words='model') | more
    steps = (tensors('model/model.safetensors', change), *more_steps)
    return Case(name, OWN, steps, **more)


EMBED = 'model.embed_tokens.weight'
NORM = 'model.norm.weight'


def header(text, data=b'', size=None):
    "A file of the safetensors format with any header."
    raw = text.encode('utf-8', 'surrogatepass') if isinstance(text, str) else text
    return put('model/model.safetensors', (len(raw) if size is None else size).to_bytes(8, 'little') + raw + data)


WEIGHT_CASES = [
    weights('one NaN among the weights', lambda t: t[NORM].__setitem__(0, float('nan')), words='nan', quick=True),
    weights('an infinite weight', lambda t: t[EMBED][3].fill_(float('inf')), words=('model',)),
    Case('NaN weights are not measured', 'evaluate --model model --tasks text --text short.txt',
         tensors('model/model.safetensors', lambda t: t[NORM].fill_(float('nan'))), words='nan'),
    Case('NaN weights are not trained further',
         PRETRAIN.replace('--model base', '--model model').replace('--out run', '--out out'),
         tensors('model/model.safetensors', lambda t: t[NORM].fill_(float('nan'))), words='nan'),
    weights('weights of whole numbers', lambda t: {k: (v*100).to(torch.int64) for k, v in t.items()}),
    weights('weights of eight bits', lambda t: {k: (v*10).to(torch.int8) for k, v in t.items()}),
    weights('weights of truth values', lambda t: {k: v > 0 for k, v in t.items()}),
    weights('complex weights', lambda t: {k: v.to(torch.complex64) for k, v in t.items()}),
    Case('weights in half precision', OWN,
         tensors('model/model.safetensors', lambda t: {k: v.bfloat16() for k, v in t.items()}),
         code=0, words='Once'),
    weights('weights turned', lambda t: t | {EMBED: t[EMBED].T.contiguous()}, words='shape'),
    weights('a weight without dimensions', lambda t: t | {NORM: torch.tensor(1.0)}, words='shape'),
    weights('a weight of no numbers', lambda t: t | {NORM: torch.zeros(0)}, words='shape'),
    weights('a weight missing', lambda t: {k: v for k, v in t.items() if k != NORM}, words='norm'),
    weights('a weight too many', lambda t: t | {'model.layers.7.mlp.up_proj.weight': torch.zeros(2, 2)},
         words='layers.7'),
    weights('a weight under a name of another library',
         lambda t: {k.replace('model.', 'decoder.'): v for k, v in t.items()},
            words='decoder'),
    weights('no weights at all', lambda t: {'x': torch.zeros(1)}),
    Case('weights that are a pickle', OWN, put('model/model.safetensors', pickle.dumps(Exploit())), words='model',
         check=untouched, quick=True),
    Case('only a pickle beside the config', OWN, (remove('model/model.safetensors'),
         put('model/pytorch_model.bin', pickle.dumps(Exploit()))), words='safetensors', check=untouched),
    Case('weights that are a page of a website', OWN,
         put('model/model.safetensors', '<!doctype html><title>401</title>'), words='model'),
    Case('a pointer of Git LFS', OWN, put('model/model.safetensors',
         'version https://git-lfs.github.com/spec/v1\noid sha256:0\n'),
         words='model'),
    Case('a header longer than the file', OWN, header('{}', size=2**40), words='model'),
    Case('a header of nearly 2**64 bytes', OWN, header('{}', size=2**64 - 1), words='model'),
    Case('a header that is no JSON', OWN, header('{"a":'), words='model'),
    Case('a header nested deep', OWN, header(DEEP), words='model'),
    Case('a header that is a list', OWN, header('[]'), words='model'),
    Case('a header with offsets beyond the file', OWN,
         header('{"model.norm.weight": {"dtype": "F32", "shape": [16], "data_offsets": [0, 640000]}}'), words='model'),
    Case('a header with offsets that overlap', OWN,
         header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], '
                '"data_offsets": [4, 12]}}', b'\0' * 12), words='model'),
    Case('a header with a type that nobody knows', OWN,
         header('{"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}', b'\0' * 4), words='model'),
    Case('a header whose shape is too large for its bytes', OWN,
         header('{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}', b'\0' * 4),
         words='model'),
    Case('a header of half a character pair', OWN,
         header('{"\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b'\0' * 4), words='model'),
    Case('weights are a pipe', OWN, fifo('model/model.safetensors'), words='model'),
    Case('weights are a folder', OWN, folder('model/model.safetensors'), words='model'),
    Case('weights may not be read', OWN, mode('model/model.safetensors', 0), permissions=True,
         words='model.safetensors'),
]

INDEX = 'model/model.safetensors.index.json'
NO_WEIGHTS = move('model/model.safetensors', 'model/part.safetensors')


def index(name, content, *steps, **more):
    more = dict(words='index') | more
    return Case(name, OWN, (NO_WEIGHTS, put(INDEX, content), *steps), **more)


INDEX_CASES = [
    index('an index that is null', 'null'),
    index('an index whose map is a list', {'weight_map': ['part.safetensors']}),
    index('an index without a map', {'metadata': {}}),
    index('an index whose files are numbers', {'weight_map': {NORM: 7}}),
    index('an index whose file is null', {'weight_map': {NORM: None}}),
    index('an index that leads out of its folder', {'weight_map': {NORM: '../base/model.safetensors'}}, needs='base'),
    index('an index that leads to a pickle', {'weight_map': {NORM: 'part.bin'}},
         put('model/part.bin', pickle.dumps(Exploit())),
          check=untouched, words='model'),
    index('an index of a file that is not there', {'weight_map': {NORM: 'part-2.safetensors'}}, words='part-2'),
    index('an index of no files', {'weight_map': {}}, words='model'),
    index('an index nested deep', DEEP),
]

TOKENIZER = 'model/tokenizer.json'


def tokenizer(name, content, command=OWN, **more):
    more = dict(words='tokenizer') | more
    steps = content if isinstance(content, tuple) else (content,) if callable(content) else (put(TOKENIZER, content),)
    return Case(name, command, steps, **more)


def change_tokenizer(change):
    "Change the object of a tokenizer.json."
    def step(d):
        table = d.json(TOKENIZER)
        d.put(TOKENIZER, change(table) or table)
    return step


def add_token(id, name='<|extra|>'):
    token = {'id': id, 'content': name, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False,
             'special': True}
    return change_tokenizer(lambda t: t['added_tokens'].append(token))


CUTTING = {'direction': 'Right', 'max_length': 2, 'strategy': 'LongestFirst', 'stride': 0}
PADDING = {'strategy': {'Fixed': 64}, 'direction': 'Right', 'pad_to_multiple_of': None, 'pad_id': 0, 'pad_type_id': 0,
           'pad_token': '<|pad|>'}

TOKENIZER_CASES = [
    tokenizer('no tokenizer beside the model', remove(TOKENIZER)),
    tokenizer('a tokenizer of no bytes', b''),
    tokenizer('a tokenizer that is null', 'null'),
    tokenizer('a tokenizer that is an empty object', '{}'),
    tokenizer('a tokenizer nested deep', DEEP),
    tokenizer('a tokenizer in UTF-16', '{}'.encode('utf-16')),
    tokenizer('a tokenizer with a byte-order mark',
         lambda d: d.put(TOKENIZER, b'\xef\xbb\xbf' + (d/TOKENIZER).read_bytes()),
              doubt='it could also be read'),
    tokenizer('a tokenizer cut short', cut(TOKENIZER, 4000)),
    tokenizer('a tokenizer that is a pipe', fifo(TOKENIZER)),
    tokenizer('a tokenizer that is a folder', folder(TOKENIZER)),
    tokenizer('a tokenizer that is a dangling link', link(TOKENIZER, 'nowhere')),
    tokenizer('a tokenizer that may not be read', mode(TOKENIZER, 0), permissions=True),
    tokenizer('a tokenizer of an unknown kind', change_tokenizer(lambda t: t['model'].update(type='Magic'))),
    tokenizer('merges of tokens that do not exist',
         change_tokenizer(lambda t: t['model']['merges'].append(['zz', 'qq']))),
    tokenizer('merges that are numbers', change_tokenizer(lambda t: t['model'].update(merges=[1, 2]))),
    tokenizer('ids that are texts', change_tokenizer(lambda t: t['model'].update(vocab={'a': 'one'}))),
    tokenizer('an id below zero', change_tokenizer(lambda t: t['model']['vocab'].update(zzz=-1))),
    tokenizer('an id of four thousand million',
         change_tokenizer(lambda t: t['model']['vocab'].update(zzz=4_000_000_000)),
              words='model'),
    tokenizer('more tokens than the model has rows', add_token(280), words=('281', '280'), quick=True),
    tokenizer('more tokens than the model has rows, when measured', add_token(300), words='280',
              command='evaluate --model model --tasks text --text short.txt', needs='short.txt'),
    tokenizer('a tokenizer that cuts every text', change_tokenizer(lambda t: t.update(truncation=CUTTING)), code=0,
              words='12,745 tokens', command='evaluate --model model --tasks text --text short.txt', quick=True),
    tokenizer('a tokenizer that pads every text', change_tokenizer(lambda t: t.update(padding=PADDING)), code=0,
              words='Once', check=same_as('generate --model run --n 3 --prompt Once --seed 1'), needs='run'),
    tokenizer('a decoder that is missing', change_tokenizer(lambda t: t.update(decoder=None)), code=0, words='O n c e',
              doubt='a tokenizer without decoder joins tokens by spaces'),
    tokenizer('tokens written with a tokenizer that is broken', put('tokenizer/tokenizer.json', '{"version": "1.0"}'),
              command='tokens --text text --tokenizer tokenizer --out out', words='tokenizer.json'),
    tokenizer('special tokens that are numbers', edit('model/tokenizer_config.json', bos_token=5, eos_token=[1]),
         code=(0, 2),
              doubt='config.json has the ids'),
    tokenizer('tokenizer_config.json is a list', put('model/tokenizer_config.json', '[]'),
         words='tokenizer_config.json'),
    tokenizer('tokenizer_config.json is a pipe', fifo('model/tokenizer_config.json'), words='tokenizer_config.json'),
    tokenizer('generation_config.json is null', put('model/generation_config.json', 'null'),
         words='generation_config.json'),
    tokenizer('generation_config.json is nested deep', put('model/generation_config.json', DEEP),
         words='generation_config.json'),
    tokenizer('a chat template that never ends',
         put('model/chat_template.jinja', '{% for i in range(10**9) %}x{% endfor %}'),
              code=0, words='Once'),
]

TOKENS = 'tokens/tokens.json'


def shards(name, *steps, command=PRETRAIN, **more):
    more = dict(words='tokens', needs=('tokens', 'base')) | more
    return Case(name, command.replace('--out run', '--out out'), steps, **more)


def save_array(name, value):
    "Write a numpy file, pickled objects too."
    def step(d): np.save(d/name, value, allow_pickle=True)
    return step


def vast_header(d):
    "A numpy file whose header promises more than there is."
    with open(d/'tokens/train.ids.npy', 'wb') as f:
        np.lib.format.write_array_header_1_0(f, {'descr': '<u2', 'fortran_order': False, 'shape': (10**15,)})


def split(**changes):
    "Change what tokens.json says of the training split."
    def step(d):
        table = d.json(TOKENS)
        table['splits']['train'] |= changes
        d.put(TOKENS, table)
    return step


IDS, STARTS = 'tokens/train.ids.npy', 'tokens/train.starts.npy'
TOKEN_CASES = [
    shards('ids cut short', cut(IDS, 1000)),
    shards('ids of no bytes', cut(IDS, 0)),
    shards('ids missing', remove(IDS)),
    shards('ids are a pipe', fifo(IDS)),
    shards('ids are a folder', folder(IDS)),
    shards('ids are a device', link(IDS, '/dev/zero')),
    shards('ids that are fractions', array(IDS, lambda a: a.astype(np.float32))),
    shards('ids that are negative', array(IDS, lambda a: -a.astype(np.int64))),
    shards('ids in a table', array(IDS, lambda a: a[:len(a)//2*2].reshape(-1, 2)), split(tokens=9_830)),
    shards('ids that are a pickle', save_array(IDS, np.array([Exploit()], dtype=object)), check=untouched, quick=True),
    shards('ids beyond the vocabulary', array(IDS, lambda a: a + 200), words=('tokens',), quick=True),
    shards('ids that are words', save_array(IDS, np.array(['a', 'b']))),
    shards('ids from a big-endian machine', array(IDS, lambda a: a.astype('>u2')), doubt='they could also be read',
         code=(0, 2)),
    shards('ids with a later version of the format', lambda d: d.put(IDS, b'\x93NUMPY\x09' + (d/IDS).read_bytes()[7:])),
    shards('ids whose header is a program',
         lambda d: d.put(IDS, (d/IDS).read_bytes().replace(b"'descr'", b"open('pw")), check=untouched),
    shards('ids whose header promises a petabyte', vast_header),
    shards('ids in a zip archive', lambda d: np.savez(d/'tokens/x.npz',
         np.zeros(3)) or (d/'tokens/x.npz').rename(d/IDS)),
    shards('starts and ids exchanged', swap(IDS, STARTS)),
    shards('training and held-out ids exchanged', swap(IDS, 'tokens/val.ids.npy')),
    shards('starts that go backwards', array(STARTS, lambda a: np.concatenate([a[:1], a[1:-1][::-1], a[-1:]]))),
    shards('starts that do not begin at zero', array(STARTS, lambda a: np.concatenate([[5], a[1:]]))),
    shards('starts that are negative', array(STARTS, lambda a: np.concatenate([a[:3], [-7], a[4:]]))),
    shards('starts that are fractions', array(STARTS, lambda a: a + 0.5)),
    shards('starts of no documents', array(STARTS, lambda a: a[:0])),
    shards('a single start', save_array(STARTS, np.int64(3))),
    shards('documents of no tokens', array(STARTS, lambda a: np.repeat(a, 3)), code=(0, 2), words='',
         doubt='empty documents could be skipped'),
    shards('tokens.json missing', remove(TOKENS), words='tokens'),
    shards('tokens.json null', put(TOKENS, 'null'), words='tokens.json'),
    shards('tokens.json nested deep', put(TOKENS, DEEP), words='tokens.json'),
    shards('tokens.json is a pipe', fifo(TOKENS), words='tokens'),
    shards('splits missing', edit(TOKENS, splits=...), words=('tokens.json', 'splits'), quick=True),
    shards('splits a list', edit(TOKENS, splits=['train']), words=('tokens.json', 'splits')),
    shards('splits with null', edit(TOKENS, splits={'train': None}), words='tokens.json'),
    shards('a split whose number is a text', split(tokens='many'), words='tokens'),
    shards('a split of fewer tokens', split(tokens=-1), words='tokens'),
    shards('a split named by a path', lambda d: d.edit(TOKENS,
         splits=d.json(TOKENS)['splits'] | {'../../x': {'tokens': 1}}),
           code=(0, 2), doubt='a split that nobody asks for may be ignored'),
    shards('a vocabulary that is a text', edit(TOKENS, vocab_size='280'), words=('tokens.json', 'vocab_size')),
    shards('a vocabulary of a thousand million', edit(TOKENS, vocab_size=10**9), words='tokens',
           command=PRETRAIN.replace(' --model base', '')),
    shards('a vocabulary of zero', edit(TOKENS, vocab_size=0), words='tokens',
         command=PRETRAIN.replace(' --model base', '')),
    shards('a fingerprint that is a number', edit(TOKENS, tokenizer=12), words='tokens'),
    shards('the tokenizer of other tokens',
         lambda d: d.put('tokens/tokenizer.json', with_two_ids_exchanged((d/'tokens/tokenizer.json').read_text('utf-8'))),
           words='tokenizer'),
    shards('no tokenizer beside the tokens', remove('tokens/tokenizer.json'), words='tokenizer'),
    Case('tokens that were rewritten during a run', PRETRAIN,
         (UNFINISHED, array(IDS, lambda a: np.concatenate([a[:5], a[6:7], a[5:6], a[7:]]))),
         words='tokens', change='run/config.json', quick=True),
    Case('a starting model that was changed during a run', PRETRAIN,
         (UNFINISHED, tensors('base/model.safetensors', lambda t: t[NORM].mul_(2))), words='model',
         change='run/config.json'),
]

LOG = 'run/log.jsonl'


def resumes(name, *steps, code=2, **more):
    "A run folder with something wrong in it, when it is resumed from step 6."
    more = dict(words='run') | more
    change = more.pop('change', ('run/log.jsonl', 'run/config.json', 'run/loss.png') if code == 0 else ())
    return Case(name, PRETRAIN, (UNFINISHED, *steps), code=code, change=change, **more)


def reports(name, *steps, runs='run', code=2, **more):
    "A folder with something wrong in it, when it is reported."
    more = dict(words=('run',) if code else 'report.html') | more
    return Case(name, f'report --runs {runs} --out page/report.html', steps, code=code, **more)


def insert_line(number, line):
    "Put a line into the log."
    def step(d):
        lines = (d/LOG).read_bytes().splitlines(keepends=True)
        raw = line if isinstance(line, bytes) else line.encode('utf-8', 'surrogatepass')
        (d/LOG).write_bytes(b''.join([*lines[:number], raw + b'\n', *lines[number:]]))
    return step


def all_rows_reported(d, result):
    "The rows after a damaged line must not be lost."
    page = d/'page/report.md'
    if page.exists() and '| steps | 8 |' not in page.read_text(): return 'rows after the damaged line are missing'


RUN_CASES = [
    resumes('config of a run missing', remove('run/config.json')),
    resumes('config of a run null', put('run/config.json', 'null'), words='config.json'),
    resumes('config of a run a list', put('run/config.json', '[]'), words='config.json'),
    resumes('config of a run cut short', cut('run/config.json', 100), words='config.json'),
    resumes('config of a run nested deep', put('run/config.json', DEEP), words='config.json'),
    resumes('config of a run is a pipe', fifo('run/config.json'), words='config.json'),
    resumes('config of a run is a folder', folder('run/config.json'), words='config.json'),
    resumes('config of a run may not be read', mode('run/config.json', 0), permissions=True, words='config.json'),
    resumes('arguments null', edit('run/config.json', args=None), words=('config.json', 'args'), quick=True),
    resumes('arguments a list', edit('run/config.json', args=[1]), words=('config.json', 'args')),
    resumes('the format of a run is a text', edit('run/config.json', format='two')),
    resumes('the command of a run is a number', edit('run/config.json', command=7)),
    resumes('speed is a text', edit('run/config.json', speed='fast'), words=('config.json', 'speed')),
    resumes('speed with names that nobody knows', edit('run/config.json', speed={'threads': 1, 'turbo': True}),
         words='config.json'),
    resumes('speed with threads below zero', edit('run/config.json', speed={'precision': 'fp32', 'threads': -4}),
         words='config.json'),
    resumes('speed with a text as threads', edit('run/config.json', speed={'threads': 'many'}), words='config.json'),
    resumes('layouts are a text', edit('run/config.json', layouts='all'), words='config.json'),
    resumes('layouts of null', edit('run/config.json', layouts=[None]), words='config.json'),
    resumes('log of a run missing', remove(LOG), code=0, words='done'),
    resumes('log of a run is a pipe', fifo(LOG), words='log'),
    resumes('log of a run is a folder', folder(LOG), words='log'),
    resumes('log of a run is binary', put(LOG, bytes(range(256)) * 9), code=0, words='done'),
    resumes('a damaged line inside the log', insert_line(3, '{"step": 3, "lo'), code=0, words='done',
            check=lambda d, r: None if (d/LOG).read_text().count('"loss"') >= 8 else 'undamaged lines were lost',
            quick=True),
    resumes('a log whose rows are lists', insert_line(2, '[1, 2]'), code=0, words='done'),
    resumes('a log whose steps are texts', insert_line(2, '{"step": "x", "loss": 1.0}'), code=0, words='done'),
    resumes('a log without steps', insert_line(2, '{"loss": 1.0}'), code=0, words='done'),
    resumes('a log with null', insert_line(2, 'null'), code=0, words='done'),
    resumes('a log with a line nested deep', insert_line(2, DEEP), code=0, words='done'),
    resumes('a log with half a character pair', insert_line(2, '{"step": 2, "note": "\\ud800"}'), code=0, words='done'),
    resumes('a log with a number of five thousand digits', insert_line(2, '{"step": ' + '9' * 5000 + '}'), code=0,
         words='done'),
    resumes('a log whose tokens are null', insert_line(2, '{"step": 2, "loss": 1.0, "tokens": null}'), code=0,
         words='done'),
    reports('a damaged line inside a log that is reported', insert_line(4, b'\xff\xfe{'), code=0,
         check=all_rows_reported, quick=True),
    reports('a logged loss that is a text', insert_line(2, '{"step": 2, "loss": "low", "tokens": 9}'), code=0),
    reports('a logged loss of null', insert_line(2, '{"step": 2, "loss": null, "tokens": 9, "tokens_per_s": 5.0}'),
         code=0),
    reports('a logged loss of NaN', insert_line(2, '{"step": 2, "loss": NaN, "tokens": 9, "tokens_per_s": 5.0}'),
         code=0),
    reports('a logged speed of zero', insert_line(2, '{"step": 2, "loss": 1.5, "tokens": 9, "tokens_per_s": 0}'),
         code=0),
    reports('a logged step of zero', insert_line(2, '{"step": 0, "loss": 1.5, "tokens": 9, "tokens_per_s": 5.0}'),
         code=0),
    reports('a logged loss below zero', insert_line(2, '{"step": 2, "loss": -5, "tokens": 9, "tokens_per_s": 5.0}'),
         code=0),
    reports('an empty log', cut(LOG, 0), words='log'),
    reports('a log of held-out losses alone', put(LOG, '{"step": 1, "val_loss": 2.0}\n'), words='log'),
    reports('a log that is a pipe', fifo(LOG)),
    reports('versions that are a list', edit('run/config.json', versions=[1])),
    reports('a date that is a number', edit('run/config.json', date=2026), code=(0, 2), doubt='it could be left out'),
    reports('cores that are an object', edit('run/config.json', cores={'a': 1}), code=(0, 2),
         doubt='it could be left out'),
    reports('a config that is a list', put('run/config.json', '[]'), words='config.json'),
    reports('a config without arguments', edit('run/config.json', args=...), words='config.json'),
    reports('weights of a reported run that are broken', cut(f'{NEW}/model.safetensors', 9), code=0,
            doubt='the count of parameters is then taken from an older checkpoint, or left out'),
    reports('step-best in a reported run', (folder(f'{CHECKPOINTS}/step-best')), code=0),
    reports('half of a character pair in a config', edit('run/config.json', device='\ud800'), code=0),
    reports('a config with markup', edit('run/config.json', device='<script>alert(1)</script>'), code=0,
            check=lambda d, r: '<script>' in (d/'page/report.html').read_text() and 'markup reaches the page' or None),
]


def page(name, file, content, **more):
    "A folder of `llmbook run` with one file that is wrong: refused, or left out of the report with a warning."
    more = dict(words=file, code=(0, 2), why=(file, 'report:')) | more
    step = content if callable(content) else put(f'book/{file}', content)
    return Case(name, 'report --runs book --out page/report.html', step, **more)


BOOK_CASES = [
    page('results null', 'results.json', 'null'),
    page('results a list', 'results.json', '[1]'),
    page('results without tasks', 'results.json', {'model': 'x'}),
    page('tasks a list', 'results.json', {'tasks': ['world']}),
    page('a task of null', 'results.json', {'tasks': {'text': None}}),
    page('a task without its numbers', 'results.json', {'tasks': {'text': {'bits_per_byte': 2.0}}}, code=0, words='report:',
         check=lambda d, r: None if 'not known' in (d/'page/report.html').read_text() else 'counts what is not known'),
    page('a task with texts for numbers', 'results.json',
         {'tasks': {'text': {'bits_per_byte': 'low', 'documents': 'x'}}}),
    page('a ladder that is an object', 'results.json',
         {'tasks': {'text': {'ladder': {}, 'documents': 1, 'tokens': 1}}}),
    page('a rung without a name', 'results.json',
         {'tasks': {'text': {'ladder': [{'nats': 1}], 'documents': 1, 'tokens': 1}}}),
    page('a rung of a text', 'results.json',
         {'tasks': {'text': {'ladder': [{'name': 'model', 'nats': 'two', 'error': 0}], 'documents': 1, 'tokens': 1}}}),
    page('results nested deep', 'results.json', DEEP),
    page('results are a pipe', 'results.json', fifo('book/results.json')),
    page('results with NaN', 'results.json', '{"tasks": {"text": {"bits_per_byte": NaN, "bits_per_byte_error": NaN, '
         '"nats_per_byte": NaN, "nats_per_token": NaN, "documents": 1, "tokens": 1, "bytes": 1}}}'),
    page('an error of NaN, as the version before wrote it', 'results.json', '{"tasks": {"text": {"bits_per_byte": 2.0, '
         '"bits_per_byte_error": NaN, "nats_per_byte": 1.4, "nats_per_token": 3.0, "documents": 1, "tokens": 9, "bytes": 9}}}',
         code=0, words='report.html'),
    page('an error of null', 'results.json', '{"tasks": {"text": {"bits_per_byte": 2.0, "bits_per_byte_error": null, '
         '"nats_per_byte": 1.4, "nats_per_token": 3.0, "documents": 1, "tokens": 9, "bytes": 9}}}', code=0,
         words='report.html'),
    page('a count of documents that is not there', 'text/text/corpus.json', {'source': 'x'}, words='corpus.json'),
    page('a source that is a list', 'text/text/corpus.json', {'source': [1], 'documents': 1, 'bytes': 1},
         words='corpus.json'),
    page('a count of bytes that is a text', 'text/text/corpus.json', {'source': 'x', 'documents': 1, 'bytes': 'much'},
         words='corpus.json'),
    page('samples that are numbers', 'samples.json', [1, 2]),
    page('samples without a prompt', 'samples.json', [{'text': 'x'}]),
    page('samples that are an object', 'samples.json', {'text': 'x'}),
    page('a sample of half a character pair', 'samples.json', '[{"prompt": "", "text": "\\ud800", "truth": ""}]',
         code=0,
         words='report.html'),
    page('next commands that are a text', 'next.json', '"llmbook run"'),
    page('next commands that are numbers', 'next.json', '[1, 2]'),
    page('tokens of a split of no tokens', 'tokens/tokens.json',
         {'splits': {'train': {'documents': 1, 'tokens': 0, 'bytes': 1}}},
         words='tokens.json', why='report:', doubt='a ratio by zero could be left out'),
    page('tokens of a split of texts', 'tokens/tokens.json', {'splits': {'train': 'x'}}, words='tokens.json'),
]


def redo(name, *steps, **more):
    "`llmbook run` once more, after something in its folder has changed."
    more = dict(code=2) | more
    change = ('book/*',) if 0 in (more['code'] if isinstance(more['code'], tuple) else (more['code'],
         )) else ('book/report*', 'book/next.json')
    return Case(name, BOOK, steps, needs='text', change=more.pop('change', change), new=('book/*',), **more)


REDO_CASES = [
    redo('the plan of a run is a list', put('book/plan.json', '[]'), words='plan.json'),
    redo('the steps of a plan are a text', edit('book/plan.json', steps='two'), words='plan.json'),
    redo('the steps of a plan are negative', edit('book/plan.json', steps=-2), words='plan.json'),
    redo('the plan is missing its speed', edit('book/plan.json', speed=...), remove('book/pretrain'),
         words='plan.json'),
    redo('the counts of a run are null', put('book/counted.json', 'null'), remove('book/results.json'),
         words='counted.json'),
    redo('the counts of a run are of other documents', edit('book/counted.json', uniform=[1.0]),
         remove('book/results.json'),
         words='counted.json'),
    redo('results of a run null', put('book/results.json', 'null'), words='results.json'),
    redo('samples of a run are a text', put('book/samples.json', '"x"'), words='samples.json'),
    redo('tokens of a run are gone, their marker is there', remove('book/tokens/train.ids.npy'),
         remove('book/pretrain'),
         words='tokens'),
    redo('documents of a run are gone, their marker is there', remove('book/text/text/documents.jsonl'),
         remove('book/counted.json'),
         words='text'),
    redo('the text was edited since', append('text/documents.jsonl', '{"id": "new", "text": "A line more."}\n'),
         code=(0, 2),
         words='text', never='Text: done before', seconds=60),
    redo('the tokenizer of a run is broken', put('book/tokenizer/tokenizer.json', '{}'),
         remove('book/counted.json'), words='tokenizer'),
    redo('dead staging files of a killed run', put('book/text/text/.documents.jsonl.99.tmp', 'half'), code=0,
         words='done before',
         check=lambda d,
         r: 'a dead file is still there' if (d/'book/text/text/.documents.jsonl.99.tmp').exists() else None,
         doubt='removed on the next start'),
]

MOVED_CASES = [
    Case('a project that was moved, and trains on', '',
         shell=f'mkdir moved; mv tokens base run moved; cd moved; $LLMBOOK {PRETRAIN}',
         prepare=UNFINISHED, needs=('tokens', 'base', 'run'), code=0, words='resuming from step 6',
         change=('run*', 'tokens*', 'base*')),
    Case('a project that was moved, and runs on', '',
         shell=f'mkdir moved; mv text book moved; cd moved; $LLMBOOK {BOOK}', needs=('text', 'book'),
         code=0, words=('done before', 'report:'), change=('text*', 'book*')),
]

CASES = [*MOVED_CASES, *CHECKPOINT_CASES, *STATE_CASES, *WEIGHT_CASES, *INDEX_CASES, *TOKENIZER_CASES, *TOKEN_CASES,
     *RUN_CASES,
         *BOOK_CASES, *REDO_CASES]
