"Preferences and conversations: rows, templates, models and disks that `sft`, `reward`, `dpo` and scoring may meet."
import json
import shutil
import signal

from .cases_disks import fill
from .cases_signals import no_leftovers
from .harness import (Case, after, fifo, flip, folder, link, mount, once_log_has, once_there, put,
                      remove, tensors)

STEPS = '--steps 4 --batch-size 2 --out out'
SFT = f'sft --model base --data {{}} {STEPS}'
REWARD = f'reward --model base --data {{}} {STEPS}'
DPO = f'dpo --model base --data {{}} {STEPS}'
SCORE = 'evaluate --model judge --answers {}'
VERBS = {'sft': SFT, 'reward': REWARD, 'dpo': DPO, 'scoring': SCORE}
DONE = {'sft': 'out: done', 'reward': 'out: done', 'dpo': 'out: done', 'scoring': 'points on average'}


def said(question, answer): return {'messages': [{'role': 'user', 'content': question},
                                                {'role': 'assistant', 'content': answer}]}


def turns(*roles): return {'messages': [{'role': role, 'content': f'{role}.'} for role in roles]}


CHATS = [said(f'Who is {i}?', f'It is {i % 3}.') for i in range(12)]
PAIRS = [{'prompt': f'Who is {i}?', 'chosen': f'It is {i}.', 'rejected': 'No.'} for i in range(12)]
LISTS = [{'prompt': f'Who is {i}?', 'answers': ['No.', f'It is {i}.', 'Go.'], 'scores': [0, 2, 1]} for i in range(12)]


def lines(rows): return ''.join(json.dumps(row) + '\n' for row in rows)


def good(verb): return CHATS if verb == 'sft' else PAIRS


# Rows

def row(name, verb, bad, *words, at=3, before=None, flags='', **more):
    "One bad row among good ones. It is named by its file and its number."
    rows = list(before or good(verb))
    rows.insert(at - 1, bad)
    more = dict(words=('rows.jsonl', f' {at}', *words)) | more
    return Case(name, VERBS[verb].format('rows.jsonl') + flags, put('rows.jsonl', lines(rows)), **more)


def many(name, verb, bads, kinds, **more):
    "Many bad rows, which are left out, counted by kind, and the rest is used."
    rows = [*good(verb)[:6], *bads, *good(verb)[6:]]
    command = VERBS[verb].format('rows.jsonl') + ' --skip-bad'
    return Case(name, command, put('rows.jsonl', lines(rows)), code=0, words=(DONE[verb], 'left out', *kinds), **more)


LONG = 'A lamp. ' * 99
NESTED = json.loads('[' * 90 + ']' * 90)
BAD_CHATS = [turns('user'), turns('user', 'robot'), said('Who?', ' '), said('Who?', 7), [1, 2], said('Who?', LONG),
             said('Who?', '<|end|>'), {'text': 'A lamp.'}, turns('user', 'assistant', 'assistant')]
BAD_PAIRS = [PAIRS[0] | {'rejected': PAIRS[0]['chosen']}, PAIRS[0] | {'chosen': ''}, PAIRS[0] | {'chosen': None},
             {'prompt': 'Who?', 'answers': ['One.']}, LISTS[0] | {'scores': [1]}, 'A row.', PAIRS[0] | {'chosen': LONG}]
ROW_CASES = [
    row('a conversation without an answer', 'sft', turns('user'), 'assistant'),
    row('an unknown role', 'sft', turns('user', 'robot'), 'robot'),
    row('an empty answer', 'sft', said('Who?', ' \n'), 'empty answer'),
    row('an answer that is a number', 'sft', said('Who?', 7), '7'),
    row('an answer that names a stop token', 'sft', said('Who?', 'Go.<|end|>Go.'), '<|end|>'),
    row('a conversation that is longer than the model reads', 'sft', said('Who?', LONG), '64'),
    row('a row that is a list', 'dpo', [1, 2], 'object'),
    row('chosen is equal to rejected', 'dpo', BAD_PAIRS[0], 'equal', quick=True),
    row('a list of one answer', 'reward', {'prompt': 'Who?', 'answers': ['One.']}, 'two', quick=True),
    row('scores that are fewer than the answers', 'reward', LISTS[0] | {'scores': [1]}, 'scores'),
    row('a score that is NaN', 'reward', LISTS[0] | {'scores': [1, float('nan'), 0]}, 'scores'),
    row('scores beyond what a number holds', 'reward', LISTS[0] | {'scores': [1, 10**400, 0]}, 'scores'),
    row('answers to score that are no list', 'scoring', {'prompt': 'Who?', 'answers': 'One.'}, 'answers'),
    row('a label that is a word', 'dpo', said('Who?', 'Go.') | {'label': 'good'}, 'label',
        before=[one | {'label': True} for one in CHATS], flags=' --loss kto'),
    many('nine kinds of bad conversations, with --skip-bad', 'sft', BAD_CHATS, ('too long', 'empty answer', 'role')),
    many('seven kinds of bad pairs, with --skip-bad', 'dpo', BAD_PAIRS, ('too long', 'equal', 'one answer', 'scores')),
    many('bad rows among answers to score, with --skip-bad', 'scoring', BAD_PAIRS, ('too long', 'scores')),
    Case('nothing but bad rows, with --skip-bad', SFT.format('rows.jsonl') + ' --skip-bad',
         put('rows.jsonl', lines(BAD_CHATS[:5])), words=('rows.jsonl', 'no conversations')),
    Case('nothing but ties for dpo', DPO.format('rows.jsonl'),
         put('rows.jsonl', lines(one | {'tie': True} for one in PAIRS)), words=('rows.jsonl', 'ties')),
    Case('scores of another order of magnitude, and a margin', REWARD.format('rows.jsonl') + ' --margin 1e300',
         put('rows.jsonl', lines(one | {'scores': [-1e300, 1e300, 0]} for one in LISTS)), words='scores'),
]


# Files

def file(name, verb, *steps, data='rows.jsonl', **more):
    "A file of rows that is not what it should be."
    more = dict(words='rows.jsonl') | more
    return Case(name, VERBS[verb].format(data), steps, **more)


def text(content): return put('rows.jsonl', content)


GOOD = lines(CHATS).encode()
NAME = 'n' * 300
FILE_CASES = [
    file('a name twice in a row', 'sft', text(GOOD + b'{"messages": [], "messages": []}\n'),
         words=('rows.jsonl', 'twice')),
    file('a BOM before the first row', 'sft', text(b'\xef\xbb\xbf' + GOOD), code=(0, 2), why=DONE['sft'],
         words='rows.jsonl'),
    file('a row in Latin-1', 'sft', text(GOOD + b'{"prompt": "caf\xe9", "completion": "A."}\n'),
         words=('rows.jsonl', '13', 'UTF-8')),
    file('a file of rows that was cut short', 'sft', text(GOOD[:-20]), words=('rows.jsonl', '12')),
    file('a row nested 100,000 deep', 'dpo', text(b'{"prompt": ' + b'[' * 100_000 + b']' * 100_000 + b'}\n'),
         words=('rows.jsonl', '1')),
    file('a .json that is an object', 'reward', put('rows.json', {'data': PAIRS}), data='rows.json', words='rows.json'),
    file('an empty file of rows', 'sft', text('')),
    file('rows of one question only', 'sft', text(lines(said('Who?', f'It is {i}.') for i in range(9))),
         words='--val-data'),
    file('rows that are a pipe', 'sft', fifo('rows.jsonl'), words=('rows.jsonl', 'pipe')),
    file('rows from an endless device', 'dpo', link('rows.jsonl', '/dev/zero'), words=('rows.jsonl', 'device')),
    file('rows that are a folder', 'reward', folder('rows.jsonl'), words=('rows.jsonl', 'folder')),
    file('rows by a dangling link', 'sft', link('rows.jsonl', 'nowhere.jsonl')),
    file('rows with a name of 300 characters', 'dpo', data=f'{NAME}.jsonl', words=NAME[:100]),
    Case('held-out rows that are the rows', SFT.format('chat.jsonl') + ' --val-data chat.jsonl', code=(0, 2),
         why='out: done', words='--val-data', doubt='the held-out loss is then that of the training'),
    Case('held-out rows that are missing', DPO.format('pairs.jsonl') + ' --val-data gone.jsonl', words='gone.jsonl'),
    Case('held-out rows that are all too long', DPO.format('pairs.jsonl') + ' --val-data rows.jsonl --skip-bad',
         text(lines(one | {'chosen': LONG} for one in PAIRS)), words='rows.jsonl'),
]


# Models and their chat templates

TEMPLATE = 'base/chat_template.jinja'
TURN = "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"


def template(name, content, *words, verb='sft', **more):
    "A model whose chat template is hostile or broken."
    data = 'chat.jsonl' if verb == 'sft' else 'pairs.jsonl'
    more = dict(words=words) | more
    return Case(name, VERBS[verb].format(data), put(TEMPLATE, content), **more)


def no_code(d, result): return 'code of a template was run' if (d/'pwned').exists() else None


ESCAPE = ("{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch pwned') }}")
WITHOUT_SYSTEM = "{{ bos_token }}{% for m in messages if m['role'] != 'system' %}" + TURN + (
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
FOR_EVER = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'
ON_ADAPTER = f'sft --model adapter --data chat.jsonl {STEPS}'


def foreign_tokenizer(d):
    "The tokenizer of the model, with other names of its special tokens."
    words = (d/'base/tokenizer.json').read_text()
    for name in ('user', 'assistant', 'system'): words = words.replace(f'<|{name}|>', f'<{name}>')
    d.put('base/tokenizer.json', words)


MODEL_CASES = [
    template('a chat template that is broken', '{% for m in messages %}{{ m[', 'template'),
    template('a chat template that tries to leave its sandbox', ESCAPE, 'template', check=no_code),
    template('a chat template that writes gigabytes', "{{ 'x' * 10**15 }}", 'template'),
    Case('a chat template that hides the system turn', SFT.format('rows.jsonl'),
         (put(TEMPLATE, WITHOUT_SYSTEM), text(lines([*CHATS, turns('system', 'user', 'assistant')]))),
         words=('rows.jsonl', 'row 13', 'leaves out the system turn')),
    template('a chat template that never ends, then Ctrl-C', FOR_EVER, code=130, act=after(2, signal.SIGINT)),
    Case('a chat template that is missing, for a tokenizer of another kind', SFT.format('chat.jsonl'),
         (remove(TEMPLATE), foreign_tokenizer), words=('base', 'chat_template.jinja / chat template')),
    Case('a reward model for sft', SFT.format('chat.jsonl').replace('base', 'judge'), words=('judge', 'reward model')),
    Case('a reward model for dpo', DPO.format('pairs.jsonl').replace('base', 'judge'), words=('judge', 'reward model')),
    Case('a language model as judge', SCORE.format('pairs.jsonl').replace('judge', 'base'),
         words=('base', 'language model'), quick=True),
    Case('a reward model without weights of its head', SCORE.format('pairs.jsonl'),
         tensors('judge/model.safetensors', lambda t: {n: w for n, w in t.items() if n != 'score.weight'}),
         words=('judge', 'score.weight')),
    Case('an adapter with a bit that was turned', ON_ADAPTER, flip('adapter/adapter_model.safetensors', 20),
         needs='base', words='adapter'),
    Case('an adapter whose base is gone', ON_ADAPTER, remove('base'), needs='base', words=('adapter', 'base')),
    Case('an adapter whose base has other weights', ON_ADAPTER, tensors('base/model.safetensors', lambda t:
         {name: w * 2 for name, w in t.items()}), needs='base',
         words=('adapter', 'other weights')),
]


# Flags

def flag(name, verb, flags, *words, **more):
    data = 'chat.jsonl' if verb == 'sft' else 'pairs.jsonl'
    return Case(name, f'{VERBS[verb].format(data)} {flags}', **(dict(words=words) | more))


FLAG_CASES = [
    flag('adapters of rank 0', 'sft', '--lora 0', '--lora'),
    flag('a tie of strength 0', 'dpo', '--beta 0', '--beta'),
    flag('a margin for rows without scores', 'reward', '--margin 1', '--margin', 'scores'),
]


# Folders, disks and signals

SFT_LONG = 'sft --model base --data chat.jsonl --steps 40 --save-every 10 --keep 0 --batch-size 2 --out long'


def same_end(d):
    "An interrupted run ends in the bytes of one that was left alone."
    done = d.server.run(SFT_LONG.replace('--out long', '--out other-long'), d)
    one, other = (d/name/'checkpoints/step-00000040/model.safetensors' for name in ('long', 'other-long'))
    if done.code or one.read_bytes() != other.read_bytes(): return 'ends in other weights than the undisturbed run'
    return no_leftovers(d)


def remembers(d):
    "The table of the reference is whole, and no half of one is left."
    if not (d/'out/reference.safetensors').exists(): return 'the scores of the reference are missing'
    return no_leftovers(d)


MANY = put('rows.jsonl', lines({'prompt': f'Who is {i}?', 'chosen': f'It is {i}.', 'rejected': f'No, {i}.'}
                               for i in range(1000)))
DPO_LONG = 'dpo --model base --data rows.jsonl --steps 2 --batch-size 2 --out out'


def reference(name, *signals, code, **more):
    "dpo is hit while the reference scores all answers; the same command then does its work."
    return Case(name, DPO_LONG, MANY, code=code, act=once_there('out/config.json', 0.4, *signals),
                then=((DPO_LONG, 'out: done'),), last=remembers, seconds=60, **more)


def training(name, *signals, code, **more):
    return Case(name, SFT_LONG, code=code, act=once_log_has('long/log.jsonl', 13, *signals),
                then=((SFT_LONG, 'long: done'),), last=same_end, **more)


PLACE_CASES = [
    training('SIGTERM in sft', signal.SIGTERM, code=143, words='saved at step'),
    training('SIGKILL in sft', signal.SIGKILL, code=137, words=()),
    reference('SIGTERM while the reference scores', signal.SIGTERM, code=143, words='SIGTERM'),
    reference('SIGKILL while the reference scores', signal.SIGKILL, code=137, words=()),
    Case('a full disk for a checkpoint of sft', SFT.replace('--out out', '--out disk/out').format('chat.jsonl'),
         mount('disk', 'size=160k'), words=('space / room', 'disk'), new='disk/out/*', last=no_leftovers),
    Case('a full disk for the scores of the reference', DPO_LONG.replace('--out out', '--out disk/out'),
         (MANY, mount('disk', 'size=40k')), words=('space / room', 'disk'), new='disk/out/*', last=no_leftovers),
    Case('a full disk for scored answers', 'evaluate --model judge --answers pairs.jsonl --out disk/figures',
         (mount('disk', 'size=8k'), fill('disk')), words=('space / room', 'disk'), last=no_leftovers),
    Case('the scores of the reference were changed', DPO.format('pairs.jsonl') + ' --save-every 2',
         (lambda d: d.server.run(DPO.format('pairs.jsonl') + ' --save-every 2', d),
          lambda d: shutil.rmtree(d/'out/checkpoints/step-00000004'), flip('out/reference.safetensors')), code=(0, 2),
         why='out: done', words='reference', change='out/*'),
    Case('out of sft is the folder of somebody', SFT.format('chat.jsonl').replace('--out out', '--out other'),
         words=('other', 'not a run'), needs='other'),
    Case('out of dpo is the model', DPO.format('pairs.jsonl').replace('--out out', '--out base'), words='base'),
    Case('scored answers of somebody are in out', 'evaluate --model judge --answers pairs.jsonl --out mine',
         put('mine/scores.jsonl', '{"mine": 1}\n'), words=('mine', 'scores.jsonl')),
    Case('scored rows with half a character and NaN', 'evaluate --model judge --answers rows.jsonl --out figures',
         put('rows.jsonl', lines(one | {'note': '\ud83d', 'x': float('nan'), 'rewards': 'mine'} for one in PAIRS)),
         code=(0, 2), why='points on average', words='rows.jsonl'),
]

CASES = [*ROW_CASES, *FILE_CASES, *MODEL_CASES, *FLAG_CASES, *PLACE_CASES]
