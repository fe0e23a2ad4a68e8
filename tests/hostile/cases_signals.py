"Signals and pipes: a command that is stopped, crashed or no longer listened to, at different moments of different verbs."
from signal import (SIGABRT, SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM,
                    SIGUSR1, SIGWINCH)

from .harness import LEFTOVER, Case, after, made, once_log_has, once_said, once_there, put
from .templates import BOOK, LONG, PRETRAIN

DONE = 'long: done'
NUMBERS = {'SIGTERM': 143, 'SIGINT': 130, 'SIGHUP': 129}
NEXT = ((LONG, DONE),)
FILES = 'checkpoints/step-00000120/model.safetensors'


def whole(d):
    "An interrupted run ends in the same bytes as one that was left alone, and leaves no dead files."
    if (d/'long'/FILES).read_bytes() != (d/'whole'/FILES).read_bytes(): return 'ends in other weights than the undisturbed run'
    return no_leftovers(d)


def no_leftovers(d):
    found = [p.name for p in d.path.rglob('.*') if LEFTOVER.search(p.name)]
    if found: return f'{found[0]} is still there'


def train(name, act, code, *words, **more):
    "Training, hit in the middle; the same command then finishes with the same bytes."
    more = dict(then=NEXT, last=whole, needs='whole') | more
    return Case(name, LONG, code=code, words=words, act=act, **more)


def at_line(*signals, lines=20): return once_log_has('long/log.jsonl', lines, *signals)


TRAINING_CASES = [
    train('SIGTERM in training', at_line(SIGTERM), 143, 'SIGTERM', 'saved at step'),
    train('Ctrl-C in training', at_line(SIGINT), 130, 'saved at step'),
    train('SIGHUP in training', at_line(SIGHUP), 129, 'SIGHUP', 'saved at step'),
    train('SIGKILL in training', at_line(SIGKILL), 137),
    train('Ctrl-C twice', at_line(SIGINT, SIGINT), 130, seconds=10),
    train('Ctrl-C twice, a moment apart', at_line(SIGINT, 0.01, SIGINT), 130, seconds=10),
    train('Ctrl-C five times', at_line(*[SIGINT, 0.002] * 5), 130, seconds=10),
    train('Ctrl-C, then SIGTERM', at_line(SIGINT, SIGTERM), (130, 143)),
    train('SIGTERM, then SIGKILL', at_line(SIGTERM, 0.01, SIGKILL), (137, 143)),
    train('SIGTERM and SIGHUP together', at_line(SIGTERM, SIGHUP), (129, 143)),
    train('SIGTERM before the first step', once_said('llmbook pretrain:', SIGTERM), 143),
    train('Ctrl-C before the first step', once_said('llmbook pretrain:', SIGINT), 130),
    train('SIGTERM as the folder is made', once_there('long', SIGTERM), 143),
    train('SIGTERM while a checkpoint is written', once_there('long/checkpoints/.step-*.tmp', SIGTERM), 143, 'SIGTERM'),
    train('Ctrl-C while a checkpoint is written', once_there('long/checkpoints/.step-*.tmp', SIGINT), 130),
    train('SIGKILL while a checkpoint is written', once_there('long/checkpoints/.step-*.tmp', SIGKILL), 137),
    train('SIGKILL after the first checkpoint', once_there('long/checkpoints/step-*', SIGKILL), 137),
    train('SIGKILL at the last step', at_line(SIGKILL, lines=119), (0, 137)),
    train('SIGTERM at the last step', at_line(SIGTERM, lines=120), (0, 143)),
    train('SIGKILL before the config is written', once_there('long', SIGKILL), 137),
    train('a process that is stopped and continued', at_line(SIGSTOP, 0.3, SIGCONT), 0, 'done'),
    train('a window that changes its size', at_line(SIGWINCH), 0, 'done'),
    train('SIGPIPE from elsewhere', at_line(SIGPIPE), 0, 'done'),
    train('a crash in C', at_line(SIGSEGV), 139),
    train('an abort in C', at_line(SIGABRT), 134),
    train('SIGQUIT', at_line(SIGQUIT), 131),
    train('an alarm clock', at_line(SIGALRM), 142),
    train('SIGUSR1, as some queues send it', at_line(SIGUSR1), 138),
    train('SIGTERM to a training that ignores SIGHUP', at_line(SIGTERM), 143, 'saved at step', ignored=('SIGHUP',)),
    train('SIGHUP under nohup', at_line(SIGHUP), 0, 'done', ignored=('SIGHUP',)),
    train('Ctrl-C for a job in the background', at_line(SIGINT), 0, 'done', ignored=('SIGINT',)),
    train('nobody reads the output any more', None, 141, stdout='unread', change=()),
    train('the output goes to a full disk', None, 2, 'space', stdout='/dev/full', new='long/*'),
    train('the errors go to a full disk', at_line(SIGTERM), 143, stderr='/dev/full'),
    Case('SIGTERM while resuming', PRETRAIN, lambda d: d.remove('run/checkpoints/step-00000008'),
         act=once_said('resuming', SIGTERM),
         code=(0, 143), change=('run/log.jsonl', 'run/config.json', 'run/loss.png'), then=((PRETRAIN, 'done'),)),
]

ROWS = 'long.jsonl'


def work(name, command, act, code, *words, then=None, **more):
    "A verb that works for one process, hit in the middle: it says that nothing was saved, and leaves nothing."
    more.setdefault('last', no_leftovers)
    return Case(name, command, code=code, words=words, act=act, then=then or (),
         needs=(ROWS,) if ROWS in command else (), **more)


CORPUS, STAGED = 'corpus --docs 200000 --out out', '**/*documents.jsonl*'
SMALL = (('corpus --docs 200000 --out out'.replace('200000', '5'), '5 documents'),)
TOKENS = f'tokens --text {ROWS} --tokenizer tokenizer --out out'
TOKENIZER = f'tokenizer --text {ROWS} --vocab-size 600 --out out'
ANSWERS = 'generate --model model --prompts ask.txt --samples 4000 --out answers.jsonl'
ASKED = put('ask.txt', 'A lamp.\n' * 99)
WORLD = 'evaluate --model model --tasks world --docs 300'
OTHER_CASES = [
    work('SIGTERM in a corpus', CORPUS, once_there(STAGED, SIGTERM), 143, 'SIGTERM', 'nothing was saved', then=SMALL,
         quick=True),
    work('Ctrl-C in a corpus', CORPUS, once_there(STAGED, SIGINT), 130, 'nothing was saved', then=SMALL),
    work('SIGHUP in a corpus', CORPUS, once_there(STAGED, SIGHUP), 129, 'nothing was saved', then=SMALL),
    work('SIGKILL in a corpus', CORPUS, once_there(STAGED, 0.2, SIGKILL), 137, then=SMALL),
    work('Ctrl-C twice in a corpus', CORPUS, once_there(STAGED, SIGINT, SIGINT), 130, then=SMALL, seconds=10),
    work('a corpus that is stopped for good', CORPUS, once_there(STAGED, SIGSTOP, 0.1, SIGKILL), 137, then=SMALL),
    work('SIGHUP in a corpus under nohup', 'corpus --docs 3000 --out out', once_there(STAGED, SIGHUP), 0,
         '3,000 documents', ignored=('SIGHUP',)),
    work('SIGTERM in tokens', TOKENS, once_there('**/*train.ids.npy*', SIGTERM), 143, 'nothing was saved',
         then=((TOKENS, '800 documents'),)),
    work('Ctrl-C in tokens', TOKENS, once_there('**/*train.ids.npy*', SIGINT), 130, 'nothing was saved'),
    work('SIGKILL in tokens', TOKENS, once_there('**/*train.ids.npy*', SIGKILL), 137,
         then=((TOKENS, '800 documents'),)),
    work('SIGTERM in the training of a tokenizer', TOKENIZER, after(0.5, SIGTERM), (0, 143), seconds=30),
    work('Ctrl-C in the training of a tokenizer', TOKENIZER, after(0.5, SIGINT), (0, 130), seconds=30),
    work('SIGKILL in the training of a tokenizer', TOKENIZER, after(0.5, SIGKILL), (0, 137),
         then=((TOKENIZER, 'merges'),)),
    work('Ctrl-C while a model writes', 'generate --model model --n 60 --samples 4000', after(0.7, SIGINT), (0, 130)),
    work('SIGTERM while a model writes', 'generate --model model --n 60 --samples 4000', after(0.7, SIGTERM), (0, 143)),
    work('Ctrl-C while a model answers a file', ANSWERS, after(1.0, SIGINT), 130, 'nothing was saved', prepare=ASKED),
    work('SIGTERM while processes answer a file', ANSWERS, after(6.0, SIGTERM), 143, 'SIGTERM', prepare=ASKED),
    work('SIGTERM while a model is measured', WORLD, after(1.0, SIGTERM), 143, 'SIGTERM'),
    work('Ctrl-C while a model is measured', WORLD, after(1.0, SIGINT), 130),
    work('SIGHUP while a model is measured', WORLD, after(1.0, SIGHUP), 129),
    work('SIGTERM in a report', 'report --runs run --out page.html', after(0.1, SIGTERM), (0, 143)),
    work('SIGKILL in a report', 'report --runs run --out page.html', after(0.1, SIGKILL), (0, 137),
         then=(('report --runs run --out page.html', 'page.html'),)),
]

RUN = BOOK.replace('--out book', '--out out')
RUN_CASES = [
    Case('SIGTERM in the text of a run', 'run --stories 100000 --steps 2 --out out',
         act=once_said('Text ...', 0.3, SIGTERM), code=143,
         words='SIGTERM', new='out/*', last=no_leftovers),
    Case('Ctrl-C in the text of a run', 'run --stories 100000 --steps 2 --out out',
         act=once_said('Text ...', 0.3, SIGINT), code=130,
         words='saved / kept', last=no_leftovers),
    Case('SIGKILL in the text of a run, then a start', RUN, act=once_there('out/text/**/*documents.jsonl*', SIGKILL),
         code=137,
         needs='text', seconds=60, then=((RUN, 'report'),), last=no_leftovers),
    Case('SIGKILL in the tokens of a run, then a start', RUN, act=once_said('Tokens ...', SIGKILL), code=137,
         needs='text', seconds=60,
         then=((RUN, 'report'),), last=no_leftovers),
    Case('SIGTERM in the training of a run, then a start', RUN.replace('--steps 2', '--steps 4'),
         act=once_log_has('out/pretrain/log.jsonl', 1, SIGTERM),
         code=143, words='saved at step', needs='text', then=((RUN.replace('--steps 2', '--steps 4'), 'report'),),
         last=no_leftovers, seconds=60),
    Case('SIGHUP in the evaluation of a run, then a start', RUN, act=once_said('Evaluation ...', SIGHUP),
         code=(0, 129), needs='text', seconds=60, then=((RUN, 'report'),), last=no_leftovers),
    Case('nobody reads the output of a run', RUN, stdout='unread', code=141, needs='text', last=no_leftovers),
]


def pipe(name, command, code, *words, **more):
    return Case(name, command, code=code, words=words, **more)


PIPE_CASES = [
    pipe('nobody reads the help', '--help', 141, stdout='unread'),
    pipe('nobody reads the help of a verb', 'pretrain --help', 141, stdout='unread'),
    pipe('nobody reads the environment', 'env', 141, stdout='unread'),
    pipe('nobody reads the text of a model', 'generate --model model --n 5', 141, stdout='unread', quick=True),
    pipe('nobody reads the count of a corpus', 'corpus --docs 3 --out out', 141, stdout='unread'),
    pipe('nobody reads the count of tokens', 'tokens --text text --tokenizer tokenizer --out out', 141,
         stdout='unread'),
    pipe('nobody reads the name of a report', 'report --runs run --out page.html', 141, stdout='unread'),
    pipe('nobody reads the figures of a model', 'evaluate --model model --tasks text --text short.txt --out figures',
         141, stdout='unread'),
    pipe('nobody reads the errors', 'generate --model nowhere', 2, stderr='unread'),
    pipe('nobody reads anything', 'generate --model nowhere', 2, stdout='unread', stderr='unread'),
    pipe('the text of a model goes to a full disk', 'generate --model model --n 5', 2, 'space', stdout='/dev/full'),
    pipe('the help goes to a full disk', '--help', 2, 'space', stdout='/dev/full'),
    pipe('the figures of a corpus go to a full disk', 'corpus --docs 3 --out out', 2, 'space', stdout='/dev/full',
         new='out/*'),
    pipe('the errors go to a full disk, and there is one', 'generate --model nowhere', 2, stderr='/dev/full'),
    pipe('warnings go to a full disk', 'generate --model run --n 3 --prompt Once', (0, 2), stderr='/dev/full',
         prepare=lambda d: d.put('run/checkpoints/step-00000010', 'x')),
    pipe('the first line of a training is enough for its reader', '', 141,
         shell=f'$LLMBOOK {LONG} | head -n 1; exit ${{PIPESTATUS[0]}}',
         then=NEXT, last=whole, needs='whole'),
    pipe('the first line of a corpus is enough for its reader', '', (0, 141), 'documents',
         shell='$LLMBOOK corpus --docs 3 --out out | head -n 1; exit ${PIPESTATUS[0]}'),
    pipe('the standard input is closed', 'corpus --docs 3 --out out', 0, '3 documents', stdin=None, real=True),
    pipe('the standard output is closed', 'corpus --docs 3 --out out', (0, 2), stdout=None, real=True,
         check=made('out/documents.jsonl')),
    pipe('the standard output is closed, and figures are kept',
         'evaluate --model model --tasks text --text short.txt --out figures', (0, 2),
         stdout=None, real=True, check=made('figures/results.json')),
    pipe('the standard errors are closed', 'generate --model nowhere', 2, stderr=None, real=True),
    pipe('the standard errors are closed, and all is well', 'corpus --docs 3 --out out', 0, '3 documents',
         stderr=None, real=True),
    pipe('everything is closed', 'corpus --docs 3 --out out', (0, 2), stdin=None, stdout=None, stderr=None, real=True,
         check=made('out/documents.jsonl')),
    pipe('everything is closed, and there is an error', 'generate --model nowhere', 2, stdin=None, stdout=None,
         stderr=None, real=True),
    pipe('the output of a real process goes to a full disk', 'generate --model model --n 5', 2, 'space',
         stdout='/dev/full', real=True),
    pipe('nobody reads the output of a real process', '--help', 141, stdout='unread', real=True),
    pipe('a standard input that never ends', '', 0, '3 documents', shell='yes | $LLMBOOK corpus --docs 3 --out out'),
    pipe('nohup', '', 0, '3 documents', shell='nohup $LLMBOOK corpus --docs 3 --out out 2>/dev/null'),
]


def start(name, seconds, number, command='corpus --docs 100000 --out out', **more):
    "A signal at a moment of the start, while libraries are imported."
    code = NUMBERS[number.name]
    return Case(name, command, act=after(seconds, number), code=code, real=True, last=no_leftovers, **more)


START_CASES = [
    start('Ctrl-C as the libraries are imported', 0.5, SIGINT),
    start('Ctrl-C a little later', 1.0, SIGINT),
    start('Ctrl-C later still', 2.0, SIGINT),
    start('SIGTERM as the libraries are imported', 0.5, SIGTERM),
    start('SIGTERM a little later', 1.2, SIGTERM),
    start('SIGHUP as the libraries are imported', 0.8, SIGHUP),
    Case('Ctrl-C twice at the start', 'corpus --docs 100000 --out out', act=after(0.7, SIGINT, 0.05, SIGINT),
         code=130, real=True, last=no_leftovers),
    Case('Ctrl-C for a whole pipeline', '',
         shell='set -m; ($LLMBOOK corpus --docs 300000 --out out; echo code $?) & sleep 4; kill -INT -- -$!; wait',
         code=(0, 130), check=lambda d, r: None if 'Traceback' not in r.said else 'a traceback', last=no_leftovers),
    Case('SIGTERM for a training of a real process', LONG, act=once_log_has('long/log.jsonl', 5, SIGTERM), code=143,
         words='saved at step',
         real=True, then=NEXT, last=whole, needs='whole'),
    Case('Ctrl-C for a training of a real process', LONG, act=once_log_has('long/log.jsonl', 5, SIGINT), code=130,
         words='saved at step',
         real=True, then=NEXT, last=whole, needs='whole'),
    Case('SIGKILL for a training of a real process', LONG, act=once_log_has('long/log.jsonl', 40, SIGKILL), code=137,
         real=True, then=NEXT, last=whole, needs='whole'),
]

CASES = [*TRAINING_CASES, *OTHER_CASES, *RUN_CASES, *PIPE_CASES, *START_CASES]
