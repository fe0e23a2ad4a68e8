"""A process that has imported everything once and forks a child for each command, which spares two seconds a case.

It reads requests from its standard input and answers on its standard output, a line of JSON each.
"""
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback

DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2 # capabilities that let root read and write what nobody may
PR_CAPBSET_DROP = 24


def give_up_privileges():
    "From here on permissions bind root too. Raises OSError where that is not possible."
    if os.geteuid(): return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0))
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets): raise OSError(ctypes.get_errno(), 'capget')
    words = list(struct.unpack('6I', sets.raw))
    for i in range(3): words[i] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0): raise OSError(ctypes.get_errno(), 'prctl')
    sets = ctypes.create_string_buffer(struct.pack('6I', *words))
    if libc.capset(header, sets): raise OSError(ctypes.get_errno(), 'capset')


def open_streams(streams):
    "Lead 0, 1 and 2 to files; None closes one, and 'unread' is a pipe that nobody reads."
    for number, path in enumerate(streams):
        if path is None:
            os.close(number)
            continue
        if path == 'unread':
            reader, file = os.pipe()
            os.close(reader)
        else:
            file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)


def call_main(argv)->int: # exit code
    "What the console script does, down to the traceback of an error that nobody caught."
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        if number == signal.SIGPIPE: signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)
    sys.stderr = open(2, 'w', encoding='utf-8', errors='backslashreplace', buffering=1, closefd=False)
    sys.stdin = open(0, closefd=False)
    sys.argv = ['llmbook', *argv]
    from llmbook.cli import main
    code = 0
    try: main(argv)
    except SystemExit as e: code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try: sys.stdout.flush()
    except OSError: code = 120 # as Python's own end has it
    return code


def child(request):
    "Become the process of a case."
    code = 99
    try:
        os.setsid()
        for name in request['ignored']: signal.signal(getattr(signal, name), signal.SIG_IGN)
        os.chdir(request['cwd'])
        os.environ.clear()
        os.environ.update(request['env'])
        open_streams(request['streams'])
        for name, limit in request['limits'].items(): resource.setrlimit(getattr(resource, name), (limit, limit))
        if request['permissions']: give_up_privileges()
        argv = request['argv']
        if request['program']: os.execve(request['program'][0], request['program'] + argv, os.environ)
        code = call_main(argv)
    except BaseException: traceback.print_exc()
    finally: os._exit(code)


def wait(pid, seconds)->dict: # status, seconds, memory; status None where it had to be killed
    "Wait for a child, and end it with all that it started if it takes too long."
    began = time.monotonic()
    watch = os.pidfd_open(pid)
    ready = select.select([watch], [], [], seconds)[0]
    os.close(watch)
    if not ready:
        try: os.killpg(pid, signal.SIGKILL)
        except OSError: os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {'status': os.waitstatus_to_exitcode(status) if ready else None, 'seconds': time.monotonic() - began,
            'processor': usage.ru_utime + usage.ru_stime, 'memory': usage.ru_maxrss << 10}


def serve():
    "Import everything, then answer until the input ends."
    import torch
    torch.set_num_threads(1)
    from llmbook.cli import VERBS
    for module, _, _ in VERBS.values(): importlib.import_module(module)
    for name in ('matplotlib.pyplot', 'torch._dynamo'): importlib.import_module(name)
    answers, requests = os.fdopen(os.dup(1), 'w'), os.fdopen(os.dup(0))
    os.set_inheritable(answers.fileno(), False)
    os.set_inheritable(requests.fileno(), False)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1): os.dup2(null, number)
    print(json.dumps({'memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10}), file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        if 'wait' in request: answer = wait(request['wait'], request['seconds'])
        else:
            pid = os.fork()
            if pid == 0:
                os.close(answers.fileno())
                os.close(requests.fileno())
                child(request)
            answer = {'pid': pid}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__': serve()
