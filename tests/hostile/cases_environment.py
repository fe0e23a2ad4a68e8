"The environment: variables, locales and neighbours that a command did not ask for."
import os
import signal
import subprocess
import sys
import time

from .cases_files import OWN, UNFINISHED
from .cases_signals import LONG, no_leftovers
from .harness import Case, once_log_has, put
from .templates import BOOK, PRETRAIN

CORPUS = 'corpus --docs 3 --out out'
MADE = dict(code=0, words='3 documents')
TRAIN = PRETRAIN.replace('--out run', '--out out')
TRAINED = dict(code=0, words='out: done')


def env(name, command=CORPUS, **more):
    "Variables in capitals, the rest in small letters."
    variables = {key: value for key, value in more.items() if key.isupper() or key.startswith('LC_')}
    rest = {key: value for key, value in more.items() if key not in variables}
    return Case(name, command, env=variables | rest.pop('extra', {}), **rest)


def ranks(name, *words, **more):
    "Variables of a launcher that was never there."
    more = dict(new='out/*', seconds=30) | more
    return env(name, words=words, **more)


RANKS = [
    ranks('a rank beyond the world', 'RANK', RANK='5', WORLD_SIZE='2', command=TRAIN, quick=True),
    ranks('a rank below zero', 'RANK', RANK='-1', WORLD_SIZE='2'),
    ranks('a rank that is a word', 'RANK', RANK='first', WORLD_SIZE='2'),
    ranks('a rank that is nothing', 'RANK', RANK='', WORLD_SIZE='2'),
    ranks('a rank of a half', 'RANK', RANK='0.5', WORLD_SIZE='2'),
    ranks('a world of nobody', 'WORLD_SIZE', RANK='0', WORLD_SIZE='0'),
    ranks('a world below zero', 'WORLD_SIZE', RANK='0', WORLD_SIZE='-2'),
    ranks('a world that is a word', 'WORLD_SIZE', RANK='0', WORLD_SIZE='two'),
    ranks('a world of 10**9', 'WORLD_SIZE', RANK='0', WORLD_SIZE='1000000000', MASTER_ADDR='127.0.0.1',
         MASTER_PORT='29871', real=True),
    ranks('a rank whose others never come', 'rank', RANK='1', WORLD_SIZE='2', LOCAL_RANK='1', MASTER_ADDR='127.0.0.1',
         MASTER_PORT='29872',
          command=TRAIN, real=True, seconds=30, act=lambda r: after_line(r),
          doubt='says within seconds which rank waits for whom; then it is stopped here',
          code=(2, 130, 143)),
    ranks('a first rank whose others never come', 'rank', RANK='0', WORLD_SIZE='2', LOCAL_RANK='0',
         MASTER_ADDR='127.0.0.1', MASTER_PORT='29873',
          command=TRAIN, real=True, seconds=30, act=lambda r: after_line(r), code=(2, 130, 143)),
    ranks('no address of the first rank', 'MASTER', RANK='0', WORLD_SIZE='2', real=True),
    ranks('a port that is a word', 'MASTER_PORT', RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
         MASTER_PORT='http', real=True),
    ranks('a port beyond all ports', 'MASTER_PORT', RANK='0', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
         MASTER_PORT='99999', real=True),
    ranks('an address that nobody has', 'nowhere.invalid', RANK='1', WORLD_SIZE='2', MASTER_ADDR='nowhere.invalid',
         MASTER_PORT='29874', real=True,
          act=lambda r: after_line(r), code=(2, 130, 143)),
    ranks('a local rank that is a word', 'LOCAL_RANK', RANK='0', WORLD_SIZE='1', LOCAL_RANK='x',
         MASTER_ADDR='127.0.0.1', MASTER_PORT='29875', real=True),
    env('a rank without a world', RANK='3', **MADE),
    env('a world without a rank', WORLD_SIZE='4', **MADE),
    env('a local rank alone', LOCAL_RANK='x', **MADE),
    env('a world of one', RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29876', real=True, **MADE),
    env('help for a rank that has no others', '--help', RANK='1', WORLD_SIZE='2', code=(0, 2)),
    env('a launcher that is gone', TORCHELASTIC_RUN_ID='none', **MADE),
]


def after_line(running):
    "A rank that waits says so within ten seconds; then it is asked to leave."
    running.until(lambda: 'rank' in running.said(), 20)
    if not running.ended(): os.kill(running.pid, signal.SIGTERM)


REAL = dict(real=True)
THREADS = [
    env('threads that are a word', OMP_NUM_THREADS='many', **REAL, code=0, words='3 documents',
         doubt='the library of threads itself says a line'),
    env('threads below zero', OMP_NUM_THREADS='-2', **REAL, **MADE),
    env('no threads', OMP_NUM_THREADS='0', **REAL, **MADE),
    env('a thousand million threads', TRAIN, OMP_NUM_THREADS='1000000000', **REAL, code=(0, 2), words='out',
         new='out/*'),
    env('threads that are nothing', OMP_NUM_THREADS='', **REAL, **MADE),
    env('a list of threads', TRAIN, OMP_NUM_THREADS='2,1', **REAL, **TRAINED),
    env('threads of Rust that are a word', 'tokens --text text --tokenizer tokenizer --out out',
         RAYON_NUM_THREADS='many', **REAL, code=0, words='60 documents'),
    env('parallel tokenizers by a word', 'tokens --text text --tokenizer tokenizer --out out',
         TOKENIZERS_PARALLELISM='perhaps', **REAL, code=(0, 2),
        words='60 documents', doubt='the library of tokenizers reads this variable itself'),
    env('logs of Rust', 'generate --model model --n 3 --prompt Once', RUST_LOG='trace', RUST_BACKTRACE='full', **REAL,
         code=0, words='Once'),
]

PLACES = [
    env('no home', HOME=None, **MADE),
    env('no home, in a new process', 'report --runs run --out page.html', HOME=None, MPLCONFIGDIR=None, **REAL,
         code=0, words='page.html'),
    env('a home that is not there', 'report --runs run --out page.html', HOME='/nowhere', MPLCONFIGDIR=None, **REAL,
         code=0, words='page.html',
        doubt='matplotlib says a line of its own on stderr'),
    env('a home that is a file', 'report --runs run --out page.html', HOME='/etc/hostname', MPLCONFIGDIR=None, **REAL,
         code=0, words='page.html'),
    env('no folder for temporary files', TMPDIR='/nowhere', **MADE),
    env('a folder for temporary files that is a file', 'report --runs run --out page.html', TMPDIR='/etc/hostname',
         MPLCONFIGDIR=None, HOME='/nowhere', **REAL,
        code=0, words='page.html'),
    env('no path to programs', PATH='', **MADE),
    env('no path to programs, in training', TRAIN, PATH='/nowhere', **TRAINED),
    env('no variables at all', '', shell='env -i "PYTHONPATH=$PYTHONPATH" $LLMBOOK corpus --docs 3 --out out', **MADE),
    env('a git that is foreign', TRAIN, GIT_DIR='/nowhere', GIT_WORK_TREE='/nowhere', **TRAINED),
    env('a git that asks', TRAIN, GIT_CEILING_DIRECTORIES='/', GIT_CONFIG_GLOBAL='/dev/full', **TRAINED),
    env('a program named git that hangs', TRAIN,
         prepare=lambda d: (d.put('bin/git', '#!/bin/sh\nsleep 100\n').chmod(0o755)),
        PATH='bin:/usr/bin:/bin', **TRAINED, doubt='a hung git must not hang a training'),
    env('a program named git that fails', TRAIN,
         prepare=lambda d: (d.put('bin/git', '#!/bin/sh\necho oops >&2\nexit 3\n').chmod(0o755)),
        PATH='bin:/usr/bin:/bin', **TRAINED),
    env('a backend of pictures that is not there', 'report --runs run --out page.html', MPLBACKEND='nonsense', **REAL,
         code=(0, 2), words='page.html'),
    env('a backend of pictures that needs a screen', 'report --runs run --out page.html', MPLBACKEND='tkagg',
         DISPLAY='', **REAL, code=0, words='page.html'),
    env('a device of DeepSpeed that is not there', TRAIN, DS_ACCELERATOR='toaster', code=(0, 2), words='out',
         new='out/*'),
    env('GPUs that are hidden', TRAIN, CUDA_VISIBLE_DEVICES='', **TRAINED),
    env('GPUs that are not there', TRAIN, CUDA_VISIBLE_DEVICES='7,x,-1', **REAL, code=0, words='out: done'),
    env('torch that checks everything', TRAIN, TORCH_SHOW_CPP_STACKTRACES='1', TORCH_LOGS='', **TRAINED),
    env('a proxy that leads nowhere', 'corpus --source nobody/nothing --out out', HTTPS_PROXY='http://127.0.0.1:9',
         HTTP_PROXY='http://127.0.0.1:9',
        HF_HUB_OFFLINE='1', words='nobody/nothing', seconds=60),
]

LETTERS = [
    env('the C locale', LANG='C', LC_ALL='C', **REAL, **MADE),
    env('the C locale without UTF-8, and letters', "generate --model model --n 3 --prompt 'Once café'", LANG='C',
         LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0',
        **REAL, code=(0, 2)),
    env('the POSIX locale, and a name with letters', '', shell="$LLMBOOK corpus --docs 3 --out 'ランプ'", LC_ALL='POSIX',
         PYTHONUTF8='0', PYTHONCOERCECLOCALE='0',
        **MADE),
    env('ASCII output, and a text with letters', "generate --model model --n 20 --prompt 'Once ランプ'",
         PYTHONIOENCODING='ascii', **REAL, code=(0, 2)),
    env('ASCII output, and an error with letters', 'generate --model ランプ', PYTHONIOENCODING='ascii', **REAL,
         words='no such'),
    env('Latin-1 output, and figures', 'evaluate --model model --tasks text --text docs', PYTHONIOENCODING='latin-1',
         **REAL, code=0, words='bits',
        prepare=(put('docs/a.txt', 'A lamp.'), put('docs/b.txt', 'A hill.'))),
    env('ASCII output, and figures', 'evaluate --model model --tasks text --text docs', PYTHONIOENCODING='ascii',
         LC_ALL='C', **REAL, code=(0, 2),
        words='', prepare=(put('docs/a.txt', 'A lamp.'), put('docs/b.txt', 'A hill.'))),
    env('a locale that is not installed', LANG='tlh_QO.UTF-8', LC_ALL='tlh_QO.UTF-8', **REAL, **MADE),
    env('numbers with commas', TRAIN, LC_NUMERIC='de_DE.UTF-8', LANG='de_DE.UTF-8', **REAL, **TRAINED),
    env('letters of Turkey', OWN, LANG='tr_TR.UTF-8', **REAL, code=0, words='Once'),
    env('a terminal of one column', '--help', COLUMNS='1', code=0, words='usage'),
    env('a terminal of no columns', 'pretrain --help', COLUMNS='0', code=0, words='usage'),
    env('a terminal whose width is a word', 'pretrain --help', COLUMNS='wide', code=0, words='usage'),
    env('a terminal that nobody knows', TERM='nonsense', **MADE),
    env('UTF-8 mode off', 'tokens --text text --tokenizer tokenizer --out out', PYTHONUTF8='0', LANG='C.UTF-8',
         **REAL, code=0, words='60 documents'),
]

PYTHON = [
    env('Python without asserts and docstrings', '', shell='PYTHONOPTIMIZE=2 $LLMBOOK corpus --docs 3 --out out',
         **MADE),
    env('Python without docstrings, asked for help', '', shell='PYTHONOPTIMIZE=2 $LLMBOOK --help', code=(0, 2),
         words='usage',
        check=lambda d, r: None if 'usage' in r.out else 'no help'),
    env('Python that warns of everything', PYTHONWARNINGS='default', **REAL, code=0, words='3 documents'),
    env('Python in its development mode', 'generate --model model --n 3 --prompt Once', PYTHONDEVMODE='1', **REAL,
         code=0, words='Once'),
    env('Python without a buffer', PYTHONUNBUFFERED='1', **REAL, **MADE),
    env('Python with another seed of hashes', TRAIN, PYTHONHASHSEED='7', **REAL, **TRAINED),
    env('Python that may not write bytecode', PYTHONDONTWRITEBYTECODE='1', PYTHONPYCACHEPREFIX='/dev/null', **REAL,
         **MADE),
]


def while_running(command, name, lines=10):
    "A second process starts while the first one trains, and must leave it alone."
    def act(running):
        log = running.place/name
        running.until(lambda: log.exists() and log.read_bytes().count(b'\n') >= lines)
        second = running.server.start(Case('', command, words=('',)), running.place).wait(20)
        running.place.kept['second'] = second
    return act


def second(code, *words):
    "What became of the second process."
    def check(d, result):
        other = d.kept['second']
        if other.code not in code: return f'the second process ends with {other.code}: {other.said[-300:]}'
        if any(word not in other.said for word in words): return f'the second process says {other.said[-300:]!r}'
        if other.code == 2 and other.err.count('\n') != 1: return f'the second process says more than a line: {other.err!r}'
        if 'Traceback' in other.said: return 'the second process shows a traceback'
    return check


SLOW = LONG.replace('--steps 120', '--steps 500').replace('--save-every 30', '--save-every 250')


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('held', flush=True)
time.sleep(100)
"""


def hold_lock(d):
    "A process that is alive holds the lock of a folder. (Not this one: to read the file would already let go of it.)"
    (d/'out').mkdir()
    d.kept['holder'] = subprocess.Popen([sys.executable, '-c', HOLD, d/'out/.lock'], stdout=subprocess.PIPE)
    d.kept['holder'].stdout.readline()


NEIGHBOURS = [
    Case('two trainings in one folder', SLOW, act=while_running(SLOW, 'long/log.jsonl'), code=0, words='done',
         check=second((2,), 'long')),
    Case('a corpus into the folder of a training', SLOW,
         act=while_running('corpus --docs 3 --out long', 'long/log.jsonl'), code=0, words='done',
         check=second((2,), 'long')),
    Case('a fresh training beside one that runs', SLOW, act=while_running(SLOW + ' --fresh', 'long/log.jsonl'),
         code=0, words='done',
         check=second((2,), 'long')),
    Case('a model is read while it is trained', LONG.replace('--steps 120', '--steps 300'), code=0, words='done',
         act=while_running('generate --model long --n 3 --prompt Once', 'long/log.jsonl', 60),
         check=second((0,), 'Once')),
    Case('a report of a run that is trained', SLOW,
         act=while_running('report --runs long --out page.html', 'long/log.jsonl'), code=0, words='done',
         check=second((0,), 'page.html')),
    Case('two corpora in one folder', 'corpus --docs 20000 --out out', code=0, words='20,000 documents',
         check=second((2,), 'out'),
         act=lambda r: (r.until(lambda: (r.place/'out').exists()), r.place.kept.update(second=r.server.start(
             Case('', 'corpus --docs 20000 --out out', words=('',)), r.place).wait(20)))),
    Case('a folder that somebody holds', CORPUS, hold_lock, words='out', quick=True),
    Case('a run in a folder that somebody holds', TRAIN, hold_lock, words='out'),
    Case('`llmbook run` in a folder that somebody holds', BOOK.replace('--out book', '--out out'), hold_lock,
         words='out', needs='text'),
    Case('the lock of a dead process', CORPUS, put('out/.lock', 'process 1 on this machine'), code=0,
         words='3 documents', change='out/.lock'),
    Case('the lock of a dead process, in a run', PRETRAIN,
         (UNFINISHED, put('run/.lock', 'process 1 on this machine')), code=0, words='resuming from step 6',
         change=('run/.lock', 'run/log.jsonl', 'run/loss.png', 'run/config.json')),
    Case('a training after one that was killed', LONG, act=once_log_has('long/log.jsonl', 10, signal.SIGKILL),
         code=137, then=((LONG, 'done'),),
         last=no_leftovers),
    Case('a clock that stands in 1970', CORPUS, lambda d: os.utime(d.path, (0, 0)), code=0, words='3 documents'),
    Case('files from the future', PRETRAIN,
         (UNFINISHED, lambda d: [os.utime(p, (time.time() + 10**9,) * 2) for p in d.path.rglob('*')]), code=0,
         words='resuming from step 6', change=('run/log.jsonl', 'run/loss.png', 'run/config.json')),
    Case('a mask that hides everything', '', shell='umask 777; $LLMBOOK corpus --docs 3 --out out', code=(0, 2),
         words='out', why='3 documents',
         new='out/*', doubt='root reads it all the same'),
    Case('a mask that opens everything', '', shell='umask 000; $LLMBOOK corpus --docs 3 --out out', code=0,
         words='3 documents',
         check=lambda d,
         r: None if (d/'out/documents.jsonl').stat().st_mode & 0o777 == 0o666 else 'the mode does not follow the mask'),
    Case('weights for oneself alone', '', shell=f'umask 077; $LLMBOOK {TRAIN}', code=0, words='done',
         needs=('tokens', 'base'),
         check=lambda d,
         r: None if all(p.stat().st_mode & 0o077 == 0 for p in d.path.glob('out/checkpoints/*/*')) else 'others may read it'),
]

CASES = [*RANKS, *THREADS, *PLACES, *LETTERS, *PYTHON, *NEIGHBOURS]
