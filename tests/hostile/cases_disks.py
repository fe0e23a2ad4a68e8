"Disks and limits: full, small, read-only or vanishing disks, and too few files, threads or bytes of memory."
import os
import shutil
import signal

from .cases_files import UNFINISHED
from .cases_signals import LONG, ROWS, no_leftovers
from .harness import Case, link, mount, once_log_has, once_there, put
from .templates import BOOK, PRETRAIN

SMALL = mount('disk', 'size=64k')
FULL = 'space / room'


def full(name, command, *steps, **more):
    "A verb whose folder is on a disk that is too small."
    more = dict(words=(FULL, 'disk'), last=no_leftovers) | more
    return Case(name, command, steps or (SMALL,), **more)


def fill(name, leave=0):
    "Fill a mounted disk but for so many bytes."
    def step(d):
        size = shutil.disk_usage(d/name).free - leave
        (d/name/'.filler').write_bytes(b'x' * max(0, size))
    return step


def on_disk(name, template, size):
    "A template on a disk of its own."
    def step(d):
        d.mount(name, f'size={size}')
        shutil.copytree(d/template, d/name/template, symlinks=True)
    return step


def fills_up(running):
    "Somebody else fills the disk in the middle."
    fill('disk')(running.place)


RUN_ON_DISK = PRETRAIN.replace('--out run', '--out disk/run')
LONG_ON_DISK = LONG.replace('--out long', '--out disk/long')


def resumes(d):
    "With room again, the same command goes on from the last good checkpoint."
    (d/'disk/.filler').unlink(missing_ok=True)
    done = d.server.run(LONG_ON_DISK, d)
    if done.code or 'done' not in done.out: return f'does not resume: {done.said[-300:]}'
    if 'resuming from step' not in done.out and 'skipped' in done.said: return 'the checkpoint is gone'


FULL_CASES = [
    full('a full disk for a corpus', 'corpus --docs 3000 --out disk/out'),
    full('a full disk for a corpus, in its own root', 'corpus --docs 3000 --out disk', words='disk'),
    full('a full disk for a tokenizer', 'tokenizer --text text --vocab-size 600 --out disk/out',
         mount('disk', 'size=16k')),
    full('a full disk for tokens', f'tokens --text {ROWS} --tokenizer tokenizer --out disk/out'),
    full('a full disk for tokens, and the old ones are there',
         'tokens --text text --tokenizer tokenizer --val 0.1 --out disk/tokens',
         on_disk('disk', 'tokens', '100k'), fill('disk'), needs='tokens', code=(0, 2)),
    full('a disk without any room', 'corpus --docs 3 --out disk/out', mount('disk', 'size=8k'), fill('disk')),
    full('a disk without any room for a run', RUN_ON_DISK, mount('disk', 'size=8k'), fill('disk')),
    full('a full disk for the first checkpoint', RUN_ON_DISK, mount('disk', 'size=300k'), new='disk/run/*', quick=True),
    full('a full disk for the third checkpoint', RUN_ON_DISK, mount('disk', 'size=900k'), new='disk/run/*',
         check=lambda d,
         r: None if len(list((d/'disk/run/checkpoints').glob('step-*'))) >= 2 else 'the good checkpoints are gone'),
    full('a full disk when a run is resumed', RUN_ON_DISK, on_disk('disk', 'run', '2m'),
         lambda d: shutil.rmtree(d/'disk/run/checkpoints/step-00000008'), fill('disk', 30_000), needs='run',
         change=('disk/run/log.jsonl', 'disk/run/config.json'), check=lambda d,
         r: None if (d/'disk/run/checkpoints/step-00000006').exists() else
         'the good checkpoint is gone'),
    full('a full disk for the log alone', RUN_ON_DISK, on_disk('disk', 'run', '2m'),
         lambda d: shutil.rmtree(d/'disk/run/checkpoints/step-00000008'), fill('disk'), needs='run',
         change=('disk/run/log.jsonl', 'disk/run/config.json')),
    full('a disk that fills up in training', LONG_ON_DISK, mount('disk', 'size=4m'),
         act=once_log_has('disk/long/log.jsonl', 40, fills_up),
         new='disk/*', check=lambda d,
         r: None if list((d/'disk/long/checkpoints').glob('step-*')) else 'the good checkpoint is gone',
         last=resumes, change='disk/.filler'),
    full('a full disk when SIGTERM asks for a checkpoint', LONG_ON_DISK, mount('disk', 'size=4m'), code=(2, 143),
         act=once_log_has('disk/long/log.jsonl', 40, fills_up, signal.SIGTERM), new='disk/*', last=resumes,
         change='disk/.filler', words=()),
    full('a full disk for a report', 'report --runs run --out disk/page.html', mount('disk', 'size=16k'), fill('disk')),
    full('a full disk for a report, and the old one is there', 'report --runs run --out disk/page.html',
         mount('disk', 'size=2m'),
         lambda d: d.server.run('report --runs run --out disk/page.html', d), fill('disk'), needs='run'),
    full('a full disk for results', 'evaluate --model model --tasks text --text short.txt --out disk/figures',
         mount('disk', 'size=8k'), fill('disk')),
    full('a full disk for answers', 'generate --model model --prompts ask.txt --out disk/answers.jsonl',
         put('ask.txt', 'A lamp?\n' * 99), mount('disk', 'size=8k'), fill('disk')),
    full('a full disk for the text of `llmbook run`', 'run --stories 600 --steps 2 --out disk/out',
         mount('disk', 'size=200k'), new='disk/out/*',
         seconds=60),
    full('a full disk for the tokens of `llmbook run`', BOOK.replace('--out book', '--out disk/out'),
         mount('disk', 'size=90k'), needs='text',
         new='disk/out/*'),
    full('a disk without inodes', 'corpus --docs 3 --out disk/out', mount('disk', 'size=1m,nr_inodes=2')),
    full('a disk without inodes for a checkpoint', RUN_ON_DISK, mount('disk', 'size=4m,nr_inodes=9'), new='disk/run/*'),
    full('a full disk for temporary files', 'corpus --docs 3 --out out', mount('disk', 'size=8k'), fill('disk'),
         env={'TMPDIR': 'disk'}, code=0,
         words='3 documents'),
    full('a full disk for fonts', 'report --runs run --out page.html', mount('disk', 'size=8k'), fill('disk'),
         env={'MPLCONFIGDIR': 'disk'}, code=0,
         words='page.html'),
    full('a full home', 'report --runs run --out page.html', mount('disk', 'size=8k'), fill('disk'), code=0,
         words='page.html',
         env={'HOME': 'disk', 'MPLCONFIGDIR': None, 'XDG_CACHE_HOME': None}, real=True),
]


def limited(name, command, limits, *steps, **more):
    "A verb under a limit of the system."
    more = dict(words=(), last=no_leftovers) | more
    return Case(name, command, steps, limits=limits, **more)


WHERE = 'out / tokens / run / page / figures' # the line names the file that could not be written


def size(n): return {'RLIMIT_FSIZE': n}


FILE_CASES = [
    limited('a limit on the size of files, for a corpus', 'corpus --docs 3000 --out out', size(100_000),
         words=('large', WHERE), quick=True),
    limited('a limit on the size of files, for a tokenizer', 'tokenizer --text text --vocab-size 280 --out out',
         size(3000), words=('large', WHERE)),
    limited('a limit on the size of files, for tokens', 'tokens --text text --tokenizer tokenizer --out out',
         size(9000), words=('large', WHERE)),
    limited('a limit on the size of files, over older tokens',
         'tokens --text text --tokenizer tokenizer --val 0.1 --out tokens', size(9000),
            words=('large', WHERE), code=(0, 2)),
    limited('a limit on the size of files, for a checkpoint', PRETRAIN.replace('--out run', '--out out'),
         size(40_000), words=('large', WHERE), new='out/*'),
    limited('a limit on the size of files, for a resumed run', PRETRAIN, size(40_000), UNFINISHED,
         words=('large', WHERE),
            change=('run/log.jsonl', 'run/config.json', 'run/loss.png')),
    limited('a limit on the size of files, for the log', LONG, size(5_000), words='', new='long/*'),
    limited('a limit on the size of files, for a report', 'report --runs run --out page.html', size(5_000),
         words=('large', WHERE)),
    limited('a limit on the size of files, for results',
         'evaluate --model model --tasks text --text short.txt --out figures', size(100), words=''),
    limited('no files may grow at all', 'corpus --docs 3 --out out', size(0), stderr='/dev/null', stdout='/dev/null'),
    limited('eight open files', 'corpus --docs 3 --out out', {'RLIMIT_NOFILE': 8}, code=(0, 2)),
    limited('five open files, for training', PRETRAIN.replace('--out run', '--out out'), {'RLIMIT_NOFILE': 5},
         code=(0, 2), new='out/*'),
    limited('four open files', 'tokens --text text --tokenizer tokenizer --out out', {'RLIMIT_NOFILE': 4}, words=''),
    limited('three open files, for a model', 'generate --model model --n 3', {'RLIMIT_NOFILE': 3}, words=''),
    limited('three open files, for a report', 'report --runs run --out page.html', {'RLIMIT_NOFILE': 3}, words=''),
    limited('twenty open files, from the start', 'corpus --docs 3 --out out', {'RLIMIT_NOFILE': 20}, real=True,
         code=(0, 2)),
    limited('no more processes', 'corpus --docs 3 --out out', {'RLIMIT_NPROC': 1}, code=(0, 2)),
    limited('no locked memory', 'generate --model model --n 3 --prompt Once', {'RLIMIT_MEMLOCK': 0}, code=0,
         words='Once'),
    limited('a small stack', 'generate --model model --n 3 --prompt Once', {'RLIMIT_STACK': 1 << 20}, real=True,
         code=(0, 2)),
    limited('two seconds of processor time', LONG.replace('--steps 120', '--steps 30000'), {'RLIMIT_CPU': 2},
         code=(137, 152), new='long/*',
            last=None),
]


def memory(name, command, megabytes, **more):
    "Address space is limited to so much beyond what is taken already, in a fork."
    more = dict(words='memory', last=no_leftovers) | more
    return Case(name, command, limits={'RLIMIT_AS': BASE + (megabytes << 20)}, **more)


BASE = 3 << 29 # of addresses: libraries, and room for their threads
MEMORY_CASES = [
    memory('too little memory for a text', 'tokenizer --text a.txt --vocab-size 300 --out out', -1400,
           prepare=lambda d: d.put('a.txt', b'A lamp. ' * 5_000_000)),
    memory('too little memory for a batch',
         'pretrain --tokens tokens --steps 2 --batch-size 512 --size 124m --out out', 0, new='out/*', seconds=30,
           memory=8 << 30),
    memory('too little memory for a model', 'pretrain --tokens tokens --steps 2 --size 7b --out out', 0, new='out/*',
         memory=8 << 30),
    memory('too little memory for samples', 'generate --model model --n 60 --samples 5000000', 0, memory=8 << 30,
           words='memory / --samples'),
    memory('too little memory for a batch of large rows',
         'pretrain --tokens tokens --model base --steps 2 --batch-size 60000 --block-size 32 --out out',
           0, new='out/*', memory=8 << 30, code=(0, 2), words=''),
]


def vanish(path):
    def act(running):
        aside = running.place.path.parent/'vanished' # at once: into a folder that is emptied slowly the run writes again
        (running.place/path).rename(aside)
        shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink()
    return act


def seal(running): os.chmod(running.place/'long/checkpoints', 0o555)


VANISHING_CASES = [
    Case('the folder of a run vanishes in training', LONG, act=once_log_has('long/log.jsonl', 20, vanish('long')),
         words='long', new='long/*',
         change='long*', code=(0, 2), doubt='the folder may be made again'),
    Case('the checkpoints of a run vanish in training', LONG,
         act=once_there('long/checkpoints/step-*', vanish('long/checkpoints')), code=(0, 2),
         new='long/*', change='long*'),
    Case('the log of a run vanishes in training', LONG,
         act=once_log_has('long/log.jsonl', 20, vanish('long/log.jsonl')), code=(0, 2),
         new='long/*', change='long*'),
    Case('the tokens vanish in training', LONG, act=once_log_has('long/log.jsonl', 20, vanish('tokens')), code=(0, 2),
         new='long/*', change='tokens*', doubt='mapped files stay readable'),
    Case('the tokens are cut short in training', LONG,
         act=once_log_has('long/log.jsonl', 20, lambda r: os.truncate(r.place/'tokens/train.ids.npy', 500)),
         code=(2, 135), new='long/*', change='tokens/*',
         doubt='a mapped file that shrinks is SIGBUS for every program; the run then resumes'),
    Case('the folder of checkpoints is sealed in training', LONG, act=once_there('long/checkpoints/step-*', seal),
         permissions=True, words='long',
         new='long/*'),
    Case('the text vanishes while it is read', f'tokens --text {ROWS} --tokenizer tokenizer --out out',
         act=once_there('**/*train.ids.npy*', vanish(ROWS)),
         needs=ROWS, change=ROWS, code=(0, 2)),
    Case('out vanishes while it is written', 'corpus --docs 100000 --out out',
         act=once_there('out', 0.2, vanish('out')), code=(0, 2), change='out*',
         new='out/*', seconds=60),
    Case('checkpoints by a link on another disk', PRETRAIN, (UNFINISHED, mount('disk', 'size=4m'),
         lambda d: shutil.move(d/'run/checkpoints', d/'disk/checkpoints'),
         link('run/checkpoints', '../disk/checkpoints')), code=0,
         words=('resuming from step 6', 'done'), change=('run/log.jsonl', 'run/loss.png', 'run/config.json')),
    Case('a run by a link on another disk', PRETRAIN,
         (UNFINISHED, mount('disk', 'size=4m'), lambda d: shutil.move(d/'run', d/'disk/run'),
         link('run', 'disk/run')), code=0, words=('resuming from step 6', 'done'),
         change=('disk/run/log.jsonl', 'disk/run/loss.png', 'disk/run/config.json')),
    Case('out by a link on another disk', 'corpus --docs 3 --out away',
         (mount('disk', 'size=4m'), lambda d: (d/'disk/real').mkdir(),
         link('away', 'disk/real')), code=0, words='3 documents', check=lambda d,
         r: None if (d/'disk/real/documents.jsonl').exists() else 'nothing there'),
    Case('a fresh start where a disk is mounted', RUN_ON_DISK.replace('disk/run', 'disk') + ' --fresh',
         (mount('disk', 'size=4m'),
         lambda d: shutil.copytree(d/'run', d/'disk', dirs_exist_ok=True)), needs='run', code=(0, 2), words='disk',
         doubt='the root of a disk cannot be renamed'),
    Case('an older result on the root of a disk', 'corpus --docs 3 --out disk', (mount('disk', 'size=4m'),
         lambda d: d.server.run('corpus --docs 3 --out first', d),
         lambda d: shutil.copytree(d/'first', d/'disk', dirs_exist_ok=True)),
         words=('disk', 'mounted')),
]

CASES = [*FULL_CASES, *FILE_CASES, *MEMORY_CASES, *VANISHING_CASES]
