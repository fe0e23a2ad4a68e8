"""One hostile case: a folder is prepared, a command runs in it, and what it said and left behind is judged.

A command may refuse (exit code 2 or 3, one line on stderr), be stopped (128 plus the signal), or do its work (0) and then
the case says which words show that this is right. It shows no traceback, ends in time, and loses nothing: every file that
was there before still has its bytes, under its own name or under the name it was set aside by.
"""
import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, '-m', 'llmbook']
MEMORY = 1 << 30 # bytes that a command may take beyond what the imports take
NOISE = ('Traceback (most recent', 'panicked at', 'Fatal Python error', 'Exception ignored',
         'a fault of llmbook, please', 'Segmentation fault', 'terminate called', 'leaked')
SAYS = {'corpus': 'document', 'tokens': 'tokens', 'tokenizer': 'merges', 'evaluate': 'per', 'report': 'report:',
        'pretrain': 'done', 'run': 'report:', 'generate': 'Once', 'sft': 'done', 'reward': 'done', 'dpo': 'done',
        '--help': 'usage'} # how a verb shows that it has done its work
NOTES = ('warning:', 'left out:', 'llmbook: stopping') # lines on stderr that are not the reason of an end
LEFTOVER = re.compile(r'\..*\.(tmp|gone|old)$')
ASIDE = re.compile(r'broken-|\.old\d*($|/)')


# Cases

@dataclass
class Case:
    "A command, what surrounds it, and what is right."
    name:str # what is hostile about it
    command:str # words after `llmbook`, as a shell splits them; paths are relative to the folder of the case
    prepare:tuple|Callable=() # functions of the folder
    code:int|tuple=2 # the exit code, or several that are right
    words:tuple|str=() # all of which must be said, in the line of an error or anywhere; ' / ' stands between alternatives
    why:tuple|str=() # what must be said where success is one of several right ends; by default what the verb says
    never:tuple|str=() # none of which may be said
    needs:tuple|str=() # templates besides those that the command names
    change:tuple|str=() # patterns of names that may change or go
    new:tuple|str=() # patterns of names that a refused command may leave
    env:dict=field(default_factory=dict) # None removes a name
    limits:dict=field(default_factory=dict) # such as {'RLIMIT_FSIZE': 1000}
    ignored:tuple=() # signals that are ignored from the start
    stdin:str|None='/dev/null' # None closes it
    stdout:str|None='' # a path; None closes it; 'unread' is a pipe without a reader; '' is a file to be looked at
    stderr:str|None=''
    real:bool=False # a new interpreter, instead of a fork of one that has imported everything
    shell:str='' # a bash script to run instead, in which $LLMBOOK is the command
    permissions:bool=False # permissions bind, root too
    act:Callable|None=None # done to the running process
    then:tuple=() # commands that must end with 0 afterwards, each with words
    check:Callable|None=None # a look at the folder and the result; returns a complaint
    last:Callable|None=None # a look at the folder after `then`; returns a complaint
    seconds:float=30
    memory:int=MEMORY
    quick:bool=False # one of the few that `make test` runs
    doubt:str='' # where the expectation itself may be argued about

    def __post_init__(self):
        for name in ('prepare', 'words', 'why', 'never', 'needs', 'change', 'new'):
            value = getattr(self, name)
            if not isinstance(value, tuple): setattr(self, name, (value,))
        if isinstance(self.code, int): self.code = (self.code,)
        if 1 in self.code: raise ValueError(f'{self.name}: exit code 1 is a fault, and never expected')
        heard = self.stdout == '' # else nothing can be heard, and a look at the folder has to do
        if heard and 0 in self.code and len(self.code) > 1 and not self.why:
            self.why = (SAYS.get(self.command.split(' ')[0], ''),)
        reason = self.check or any(self.words if len(self.code) == 1 else self.why) or self.shell
        if 0 in self.code and not reason: raise ValueError(f'{self.name}: success needs a reason')


@dataclass
class Result:
    "How a command ended."
    code:int|None # as a shell gives it; None where it had to be killed
    out:str
    err:str
    seconds:float=0.0
    memory:int=0 # beyond what the imports take
    processor:float=0.0 # seconds

    @property
    def said(self): return self.out + self.err


# The folder of a case

class Place:
    "The folder of a case, and what may be done to it."
    def __init__(self, path): self.path, self.mounts, self.kept = Path(path), [], {}
    def __truediv__(self, name): return self.path/name

    def put(self, name, content=''):
        "Write a file; what is neither text nor bytes becomes JSON."
        path = self/name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file(): path.unlink()
        if not isinstance(content, (str, bytes)): content = json.dumps(content)
        if isinstance(content, str): content = content.encode('utf-8', 'surrogatepass')
        path.write_bytes(content)
        return path

    def json(self, name): return json.loads((self/name).read_text())

    def edit(self, name, **changes):
        "Change values of a JSON file; `...` removes one."
        table = self.json(name)
        for key, value in changes.items():
            if value is ...: table.pop(key, None)
            else: table[key] = value
        self.put(name, table)

    def remove(self, name):
        path = self/name
        if path.is_dir() and not path.is_symlink(): shutil.rmtree(path)
        else: path.unlink()

    def sign(self, name):
        "Make the manifest of a checkpoint agree with its files."
        folder = self/name
        manifest = json.loads((folder/'manifest.json').read_text())
        files = {}
        for path in sorted(folder.rglob('*')):
            inner = str(path.relative_to(folder))
            if path.is_file() and inner != 'manifest.json': files[inner] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder/'manifest.json').write_text(json.dumps(manifest | {'files': files}))

    def mount(self, name, options='size=1m', kind='tmpfs', source='none'):
        "Mount a file system of its own, which needs root."
        path = self/name
        path.mkdir(parents=True, exist_ok=True)
        if os.geteuid(): pytest.skip('only root may mount a disk')
        done = subprocess.run(['mount', '-t', kind, '-o', options, source, str(path)], capture_output=True, text=True)
        if done.returncode: pytest.skip(f'no disk can be mounted here: {done.stderr.strip()}')
        self.mounts.append(path)
        return path

    def remount(self, name, options):
        "Change a mounted disk, such as to read-only."
        subprocess.run(['mount', '-o', f'remount,{options}', str(self/name)], check=True, capture_output=True)

    def close(self):
        if 'holder' in self.kept: self.kept['holder'].kill()
        for path in reversed(self.mounts): subprocess.run(['umount', '-l', str(path)], capture_output=True)


def snapshot(folder)->dict[str, tuple]: # name -> kind and content
    "What is in a folder. Links are not followed, pipes and devices not opened."
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            inner, mode = os.path.relpath(path, folder), os.lstat(path).st_mode
            if stat.S_ISLNK(mode): found[inner] = 'link', os.readlink(path)
            elif stat.S_ISDIR(mode): found[inner] = 'folder', ''
            elif stat.S_ISREG(mode):
                with open(path, 'rb') as f: found[inner] = 'file', hashlib.file_digest(f, 'sha256').hexdigest()
            else: found[inner] = 'special', stat.S_IFMT(mode)
    return found


# What is judged

def _matches(name, patterns): return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def lost(before, after, change)->list[str]:
    "What was there, and is there no more: neither in its place nor set aside."
    complaints = []
    aside = {fact for name, fact in after.items() if ASIDE.search(name)}
    for name, fact in before.items():
        if after.get(name) == fact or _matches(name, change): continue
        if fact in aside or fact[0] == 'folder' and any(ASIDE.search(other) for other in after): continue
        complaints.append(f"{name} {'was changed' if name in after else 'is gone'}")
    return complaints


def left(before, after, case, result)->list[str]:
    "What should not have stayed behind."
    if result.code == 137: return []
    fresh = [name for name in after if name not in before]
    complaints = [f'{name} was left behind' for name in fresh if LEFTOVER.search(name)]
    if result.code != 2: return complaints
    files = [name for name in fresh if after[name][0] == 'file' and not os.path.basename(name).startswith('.')]
    foreign = [name for name in files if not _matches(name, case.new)]
    return complaints + [f'{name} was written although the command refused' for name in foreign]


def lines_of(err)->list[str]:
    "The lines of stderr but for warnings."
    return [line for line in err.splitlines() if line.strip() and not line.startswith(NOTES)]


def complaints(case, before, after, result)->list[str]:
    "Everything that is wrong with how a command ended; empty if nothing is."
    if result.code is None: return [f'still there after {case.seconds:g} s']
    wrong = []
    if result.code not in case.code: wrong.append(f'exit code {result.code}, not {" or ".join(map(str, case.code))}')
    wrong += [f'says {noise!r}' for noise in NOISE if noise in result.said]
    lines = lines_of(result.err)
    if result.code in (2, 3) and case.stderr == '':
        if len(lines) != 1: wrong.append(f'{len(lines)} lines on stderr, not one')
        if not lines or not lines[-1].startswith('llmbook: '): wrong.append('no line that begins with "llmbook: "')
    heard = (result.said if result.code not in (2, 3) else '\n'.join(lines)).lower()
    words = case.why if result.code == 0 and len(case.code) > 1 else case.words
    wrong += [f'does not say {word!r}' for word in words if not any(one in heard for one in word.lower().split(' / '))]
    wrong += [f'says {word!r}' for word in case.never if word.lower() in result.said.lower()]
    if result.memory > case.memory: wrong.append(f'takes {result.memory >> 20} MiB')
    return wrong + lost(before, after, case.change) + left(before, after, case, result)


# Running

class Running:
    "A command that has been started."
    def __init__(self, server, case, place, pid, streams):
        self.server, self.case, self.place, self.pid, self.streams = server, case, place, pid, streams
    def send(self, *signals):
        for number in signals: os.kill(self.pid, number)
    def said(self):
        return ''.join(Path(path).read_text(errors='replace') for path in self.streams if os.path.exists(path))
    def ended(self):
        try: return Path(f'/proc/{self.pid}/stat').read_text().rsplit(')', 1)[1].split()[0] == 'Z'
        except OSError: return True
    def until(self, ready, seconds=25):
        "Wait until something holds, or the command has ended."
        deadline = time.monotonic() + seconds
        while not ready() and not self.ended() and time.monotonic() < deadline: time.sleep(0.003)
    def wait(self, seconds=None)->Result:
        answer = self.server.ask(wait=self.pid, seconds=seconds or self.case.seconds)
        status = answer['status']
        code = status if status is None or status >= 0 else 128 - status
        texts = [Path(p).read_text(errors='replace') if os.path.exists(p) else '' for p in self.streams]
        extra = answer['memory'] - (0 if self.case.real else self.server.memory)
        self.server.processor += answer['processor']
        return Result(code, *texts, answer['seconds'], extra, answer['processor'])


class Server:
    "The process that forks one child per case."
    def __init__(self, folder):
        self.folder = Path(folder)
        self.home = self.folder/'home'
        self.home.mkdir()
        keep = {name: os.environ[name] for name in ('PATH', 'LD_LIBRARY_PATH', 'MPLCONFIGDIR') if name in os.environ}
        self.env = {'MPLCONFIGDIR': str(self.folder/'mpl'), **keep, 'HOME': str(self.home), 'LANG': 'C.UTF-8',
                    'OMP_NUM_THREADS': '1', 'RAYON_NUM_THREADS': '1', 'TOKENIZERS_PARALLELISM': 'false',
                    'MPLBACKEND': 'agg', 'PYTHONPATH': str(ROOT)}
        env = self.env | {'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT/"tests"}'}
        self.process = subprocess.Popen([sys.executable, '-m', 'hostile.server'], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
        self.memory = json.loads(self.process.stdout.readline())['memory']
        self.count, self.processor = 0, 0.0

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, case, place, command=None)->Running:
        "Start the command of a case, or another one under its circumstances."
        self.count += 1
        streams, looked_at = [case.stdin], []
        for name, path in (('out', case.stdout), ('err', case.stderr)):
            own = str(self.folder/f'{self.count}.{name}')
            looked_at.append(own)
            if path == '': open(own, 'w').close()
            streams.append(own if path == '' else path)
        env = {name: value for name, value in (self.env | case.env).items() if value is not None}
        program, argv = None, shlex.split(case.command if command is None else command)
        if case.real: program = PROGRAM
        if case.shell and command is None:
            env['LLMBOOK'] = shlex.join(PROGRAM)
            program, argv = ['/bin/bash', '-c'], [case.shell]
        pid = self.ask(argv=argv, program=program, cwd=str(place.path), env=env, streams=streams, limits=case.limits,
                       ignored=case.ignored, permissions=case.permissions)['pid']
        return Running(self, case, place, pid, looked_at)

    def run(self, command, place)->Result:
        "Run a plain command that is expected to succeed."
        case = Case('', command, words=('',), seconds=120)
        return self.start(case, place).wait()

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


TEMPLATES = ('text', 'tokenizer', 'tokens', 'base', 'model', 'run', 'book', 'results', 'short.txt', 'long.jsonl',
     'other', 'whole', 'chat.jsonl', 'pairs.jsonl', 'judge', 'adapter')


class House:
    "What all cases start from, made once by the commands themselves. All cases have the same path, one after the other."
    def __init__(self, folder):
        self.folder, self.server = Path(folder), Server(folder)
        self.templates = self.folder/'templates'
        self.templates.mkdir()

    def open(self, names)->Place:
        "An empty folder with copies of some templates."
        for name in names: self.template(name)
        place = Place(self.folder/'case')
        place.server = self.server
        place.path.mkdir()
        for name in names:
            source = self.templates/name
            if source.is_dir(): shutil.copytree(source, place/name, symlinks=True)
            else: shutil.copy(source, place/name)
        return place

    def close(self, place):
        "Remove the folder of a case, whatever has become of it."
        place.close()
        if shutil.rmtree(place.path, ignore_errors=True) or place.path.exists():
            subprocess.run(['chmod', '-R', 'u+rwX', str(place.path)], capture_output=True)
            shutil.rmtree(place.path)

    def template(self, name):
        "Make a template when it is first asked for."
        from . import templates
        if (self.templates/name).exists(): return
        place = self.open(templates.NEEDS.get(name, ()))
        try:
            templates.make(name, place)
            (place/name).rename(self.templates/name)
        finally: self.close(place)

    def names(self, case):
        "The templates that a case uses: those that its commands name, and those it needs besides."
        commands = [re.sub(r'^\w+ ', '', command) for command in (case.command, *(command for command, _ in case.then))]
        commands.append(re.sub(r'\$LLMBOOK \w+', '', case.shell))
        words = {word.split('/')[0] for command in commands for word in re.split(r'[\s=]+', command)}
        return [name for name in TEMPLATES if name in words | set(case.needs)]

    def play(self, case)->list[str]: # complaints
        "Prepare the folder, run the command, judge."
        place = self.open(self.names(case))
        try:
            for step in case.prepare: step(place)
            before = snapshot(place.path)
            running = self.server.start(case, place)
            if case.act: case.act(running)
            result = running.wait()
            after = snapshot(place.path)
            if result.code == 99 and 'capget' in result.err + 'prctl': pytest.skip('capabilities cannot be given up here')
            wrong = complaints(case, before, after, result)
            if case.check: wrong += filter(None, [case.check(place, result)])
            for command, words in case.then:
                done = self.server.start(Case('', command, words=(words,), real=case.real), place).wait()
                if done.code != 0: wrong.append(f'afterwards, {command!r} ends with {done.code}: {done.said[-300:]}')
                elif words.lower() not in done.said.lower():
                    wrong.append(f'afterwards, {command!r} does not say {words!r}: {done.said[-300:]}')
            if case.last: wrong += filter(None, [case.last(place)])
            if wrong:
                wrong.append(f'code {result.code} in {result.seconds:.1f} s, stdout ...{result.out[-300:]!r}')
                wrong.append(f'stderr ...{result.err[-600:]!r}')
            return wrong
        finally: self.close(place)


# How a folder is prepared: each of these returns a function of the folder

def put(name, content=''): return lambda d: d.put(name, content)
def edit(name, **changes): return lambda d: d.edit(name, **changes)
def remove(name): return lambda d: d.remove(name)
def sign(name): return lambda d: d.sign(name)
def fifo(name): return lambda d: os.mkfifo(_free(d, name))
def made(name): return lambda d, result: None if (d/name).exists() or result.code else f'{name} is missing'
def link(name, target): return lambda d: os.symlink(target, _free(d, name))
def folder(name): return lambda d: os.makedirs(_free(d, name))
def mode(name, bits): return lambda d: os.chmod(d/name, bits)
def mount(name, options='size=1m'): return lambda d: d.mount(name, options)


def _free(d, name):
    "A path whose place is free."
    path = d/name
    if path.is_symlink() or path.is_file(): path.unlink()
    elif path.is_dir(): shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cut(name, size):
    "Cut a file to so many bytes; a negative number cuts so many off."
    def step(d):
        content = (d/name).read_bytes()
        (d/name).write_bytes(content[:size])
    return step


def flip(name, at=-5):
    "Turn one bit of a file."
    def step(d):
        content = bytearray((d/name).read_bytes())
        content[at] ^= 1
        (d/name).write_bytes(content)
    return step


def append(name, content):
    def step(d):
        with open(d/name, 'ab') as f: f.write(content if isinstance(content, bytes) else content.encode('utf-8',
        'surrogatepass'))
    return step


def swap(one, other):
    "Exchange two files."
    def step(d):
        (d/one).rename(d/'.swap')
        (d/other).rename(d/one)
        (d/'.swap').rename(d/other)
    return step


def copy(source, target):
    def step(d):
        if (d/source).is_dir(): shutil.copytree(d/source, d/target)
        else: shutil.copy(d/source, d/target)
    return step


def move(source, target): return lambda d: (d/source).rename(d/target)


def tensors(name, change):
    "Change a safetensors file: `change` is given the dict of tensors, and may return another."
    def step(d):
        from safetensors.torch import load_file, save_file
        table = load_file(d/name)
        changed = change(table)
        if isinstance(changed, dict): table = changed
        save_file({key: value.contiguous() for key, value in table.items()}, d/name, metadata={'format': 'pt'})
    return step


def array(name, change):
    "Change a numpy file."
    def step(d):
        import numpy as np
        np.save(d/name, change(np.load(d/name)), allow_pickle=True)
    return step


# What is done to a running command

def once_log_has(name, lines, *signals):
    "Send signals when a log has so many lines."
    def act(running):
        path = running.place/name
        running.until(lambda: path.exists() and path.read_bytes().count(b'\n') >= lines)
        _send(running, signals)
    return act


def once_said(words, *signals):
    "Send signals when the command has said something."
    def act(running):
        running.until(lambda: words in running.said())
        _send(running, signals)
    return act


def once_there(pattern, *signals):
    "Send signals when a file appears."
    def act(running):
        running.until(lambda: any(running.place.path.glob(pattern)))
        _send(running, signals)
    return act


def after(seconds, *signals):
    "Send signals after some seconds."
    def act(running):
        deadline = time.monotonic() + seconds
        running.until(lambda: time.monotonic() > deadline)
        _send(running, signals)
    return act


def _send(running, signals):
    for number in signals:
        if isinstance(number, (int, float)) and not isinstance(number, signal.Signals): time.sleep(number)
        elif callable(number): number(running)
        elif not running.ended():
            try: running.send(number)
            except ProcessLookupError: pass
