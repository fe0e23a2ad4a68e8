"The command line: find the stage of a verb, read its flags, and say in one line what went wrong."

import sys
from pathlib import Path

if __name__ == '__main__' and not __package__: # a launcher runs this file as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import importlib
import json
import os
import re
import signal
import textwrap
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager, nullcontext

VERBS = { # verb -> module, function, does it train?
    'run': ('llmbook.book', 'run', True),
    'corpus': ('llmbook.text.corpus', 'corpus', False),
    'clean': ('llmbook.text.funnel', 'clean', False),
    'dedup': ('llmbook.text.dedup', 'dedup', False),
    'tokenizer': ('llmbook.text.bpe', 'tokenizer', False),
    'tokens': ('llmbook.text.store', 'tokens', False),
    'pretrain': ('llmbook.train.clm', 'pretrain', True),
    'mlm': ('llmbook.train.pretrain_encoder', 'mlm', True),
    'classify': ('llmbook.train.classify', 'classify', True),
    'sft': ('llmbook.align.sft', 'sft', True),
    'reward': ('llmbook.align.reward', 'reward', True),
    'dpo': ('llmbook.align.dpo', 'dpo', True),
    'ppo': ('llmbook.align.ppo', 'ppo', True),
    'grpo': ('llmbook.align.grpo', 'grpo', True),
    'generate': ('llmbook.model.completion', 'generate_text', False),
    'evaluate': ('llmbook.evaluation.measure', 'evaluate', False),
    'report': ('llmbook.evaluation.report', 'report', False),
    'env': ('llmbook.core', 'environment', False),
}
INSTEAD = { # verb -> module, function and flag of a stage that takes its place if this flag is given
    'corpus': ('llmbook.text.task_files', 'write_task', 'task'),
    'generate': ('llmbook.align.answers', 'answer_file', 'prompts'),
    'evaluate': ('llmbook.align.scoring', 'score_file', 'answers'),
}

FROM_LATER = { # verb -> a parameter of its stage that is no flag, and the module and function of a later chapter that it gets
    'corpus': ('mixed', 'llmbook.text.task_files', 'mixed_documents'),
}

AFTER = { # verb -> module and function of a later chapter that reports on the run
    'classify': ('llmbook.evaluation.report', 'report'),
}

ADAPTED = ('sft', 'reward', 'dpo', 'grpo') # verbs that can train an adapter in place of all weights


def main(
    argv:list[str]|None=None, # without the program's name; if it is None, what the process was started with
):
    """Run one verb, and end the process.

    Exit codes: 0 done, 1 a fault of llmbook, 2 something to fix in the input or the system, 3 the training diverged;
    129, 130 and 143 after SIGHUP, Ctrl-C and SIGTERM, 141 if nobody reads the output."""
    if argv is None: argv = sys.argv[1:]
    check_working_folder()
    os.environ['MPLBACKEND'] = 'agg' # pictures go into files
    let_threads_sleep()
    if argv[:1] == ['--debug']: argv = [*argv[1:], '--debug']
    argv = [a for a in argv if not re.match('--local[_-]rank=', a)] # DeepSpeed's launcher adds it
    debug = '--debug' in argv
    code = 0
    try:
        open_streams()
        try:
            with signals_as_errors(), one_of_many(debug): act(argv)
        except SystemExit as e: code = e.code # --help, and the end of a training that was stopped
        sys.stdout.flush()
    except BaseException as e: leave(e, debug) # also a panic of a library in Rust
    sys.exit(code)


def check_working_folder():
    "End the process if the folder that it was started in is gone: even torch cannot be imported there."
    try: os.getcwd()
    except OSError as e:
        print(f'llmbook: the working folder: {(e.strerror or str(e)).lower()}; change to another', file=sys.stderr)
        sys.exit(2)


def let_threads_sleep():
    "Before torch is imported: a thread that waits for another gives up its core soon. `benchmarks/busy.py` measures it."
    if 'OMP_WAIT_POLICY' not in os.environ: os.environ.setdefault('GOMP_SPINCOUNT', '1000')


def open_streams():
    "Make sure that there is somewhere to print, and that no character ends a run."
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None: setattr(sys, name, open(os.devnull, 'w'))
        stream = getattr(sys, name)
        if hasattr(stream, 'reconfigure'): stream.reconfigure(errors='backslashreplace')


ASKED = [] # signals that came: code that is being imported may swallow the error that they raise


def check_asked():
    "Raise the error of a signal that came and had no effect."
    from llmbook.core import Interrupted
    if ASKED: raise Interrupted(ASKED[0])


@contextmanager
def signals_as_errors():
    "In this block SIGTERM, SIGHUP and Ctrl-C are errors that clean up on their way; the training loop takes them over."
    ASKED.clear()
    def early(number, frame):
        ASKED.append(number)
        raise KeyboardInterrupt
    def stop(number, frame):
        ASKED.append(number)
        raise Interrupted(number)
    before = {}
    in_main = threading.current_thread() is threading.main_thread()
    def hear(number, handler):
        if not in_main or signal.getsignal(number) == signal.SIG_IGN: return # such as under nohup
        before.setdefault(number, signal.signal(number, handler))
    try:
        hear(signal.SIGINT, early)
        from llmbook.core import Interrupted
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): hear(number, stop)
        check_asked()
        yield
    finally:
        for number, handler in before.items(): signal.signal(number, handler)


def leave(
    error:BaseException, # what stopped the verb
    debug:bool, # show its traceback?
):
    "Say in one line what went wrong, and end the process with the code that goes with it."
    text, code = 'interrupted; nothing was saved', 130
    if type(error) is not KeyboardInterrupt: # which may come while torch is being imported
        from llmbook.core import explain
        text, code = explain(error)
    try: sys.stdout.flush()
    except OSError: silence(1) # nobody reads it, or the disk is full
    try:
        if debug: traceback.print_exception(error)
        if code != 141: print('llmbook:', *text.splitlines(), file=sys.stderr, flush=True)
    except OSError: silence(2)
    sys.exit(code)


def silence(
    stream:int, # 1 is standard output, 2 the error stream
):
    "Lead a stream nowhere, so that Python does not complain about it at the end."
    try: os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    except OSError: pass # no file can be opened any more


def one_of_many(
    debug:bool, # show tracebacks?
):
    "The context of a process that a launcher started: all join, fail and leave together."
    if 'RANK' not in os.environ or 'WORLD_SIZE' not in os.environ: return nullcontext()
    from llmbook.scale.ranks import as_rank
    return as_rank(debug)


def usage()->str: # the verbs, one line each
    "Say which verbs there are; `llmbook` alone prints it. Each line is the stage's own."
    from llmbook import __version__
    lines = [f'llmbook {__version__}: train language models and measure them', '']
    lines += ['usage: llmbook VERB [--help] [flags]', '']
    for verb, (module, name, _) in VERBS.items():
        doc = getattr(importlib.import_module(module), name).__doc__ or '' # there is none under python -OO
        lines.append(f"  {verb:10} {doc.split(chr(10))[0]}")
    codes = (main.__doc__ or '').split('\n\n')[-1].split()
    return '\n'.join([*lines, '', *textwrap.wrap(' '.join(codes), 78)])


def act(
    argv:list[str], # verb and flags
):
    "Find the stage, read the flags, call it."
    from llmbook.core import UserError, did_you_mean
    if not argv or argv[0] in ('-h', '--help', 'help'): return print(usage())
    if argv[0] in ('--version', '-V'):
        from llmbook import __version__
        return print(__version__)
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise UserError(f"no such verb: {verb}{did_you_mean(verb, VERBS)}; `llmbook --help` lists them")
    module, name, trains = VERBS[verb]
    stage = getattr(importlib.import_module(module), name)
    check_asked()
    call = call_training if trains else call_alone
    call(verb, stage, rest)


def call_alone(
    verb:str, # of the command
    stage:Callable, # its function
    argv:list[str], # flags
):
    "Call a stage that is work for one process."
    from llmbook.core import current_rank
    from llmbook.flags import read_args
    stages = [stage]
    if verb in INSTEAD:
        module, name, _ = INSTEAD[verb]
        stages.append(getattr(importlib.import_module(module), name))
    given = read_args(argv, *stages, prog=f'llmbook {verb}', verbs=VERBS)
    stage, args = choose_stage(verb, stages, given)
    if current_rank() > 0: return
    if verb in FROM_LATER and stage is stages[0]:
        name, module, function = FROM_LATER[verb]
        args[name] = getattr(importlib.import_module(module), function)
    result = stage(**args)
    if verb == 'env': print(json.dumps(result, indent=1))


def choose_stage(
    verb:str, # of the command
    stages:list[Callable], # its function, and perhaps the one that may take its place
    given:list[dict], # the flags that were typed, by stage
)->tuple[Callable, dict]: # the stage to call, and its arguments
    "The verb's own stage, unless the flag of the other one was given. Raises `UserError` for flags of both."
    from llmbook.core import UserError
    from llmbook.flags import flag_name
    if len(stages) == 1: return stages[0], given[0]
    flag = INSTEAD[verb][2]
    chosen = int(flag in given[1])
    strange = sorted(given[1 - chosen].keys() - given[chosen].keys())
    if strange and chosen: raise UserError(f"{flag_name(strange[0])}: not with {flag_name(flag)}; leave it out")
    if strange: raise UserError(f"{flag_name(strange[0])}: only with {flag_name(flag)}; leave it out")
    return stages[chosen], given[chosen]


def call_training(
    verb:str, # of the command
    stage:Callable, # its function
    argv:list[str], # flags of the stage, of the engine, and of an adapter
):
    "Build the engine's options, say what is about to run, and call a stage that trains."
    from llmbook.flags import read_args, read_flags
    from llmbook.scale.engine import engine_flags, engine_options
    flagged = [stage, engine_flags]
    if verb in ADAPTED:
        from llmbook.align.lora import lora_flags, lora_options
        flagged.append(lora_flags)
    args, flags, *others = read_args(argv, *flagged, prog=f'llmbook {verb}', verbs=VERBS)
    adapter = others[0] if others else {}
    options = {'engine': engine_options(args.get('optimizer', 'adamw'), **flags)}
    if others: options['adapt'] = lora_options(args.get('seed', 0), flags.get('zero'), **adapter)
    defaults = {name: flag.default for fn in flagged for name, flag in read_flags(fn).items()}
    print_effective(verb, defaults | args | flags | adapter)
    stage(**args, **options)
    if verb in AFTER: call_after(verb, (defaults | args)['out'])


def call_after(
    verb:str, # of the command
    out:str, # folder that its stage has written; perhaps no run
):
    "Write the report of a run into its own folder, in one process."
    from llmbook.core import current_rank
    module, name = AFTER[verb]
    if current_rank() > 0 or not (Path(out)/'log.jsonl').exists(): return
    getattr(importlib.import_module(module), name)([out], f'{out}/report.html')


def print_effective(
    verb:str, # of the command
    args:dict, # every flag with its value
):
    "Say what is about to run."
    given = [f'{name} {value}' for name, value in args.items() if value is not None]
    print(f"llmbook {verb}: {', '.join(given)}", flush=True)


if __name__ == '__main__': main()
