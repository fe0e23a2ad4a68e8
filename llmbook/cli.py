"The command line: finds the stage of a verb, reads its flags, and says what went wrong in one line."

import sys
from pathlib import Path

if __name__ == '__main__' and not __package__: # a launcher runs this file as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import importlib
import os
import re
from contextlib import nullcontext

VERBS = { # verb -> module, function, does it train?
    'run': ('llmbook.book', 'run', True),
    'corpus': ('llmbook.text.corpus', 'corpus', False),
    'tokenizer': ('llmbook.text.bpe', 'tokenizer', False),
    'tokens': ('llmbook.text.store', 'tokens', False),
    'pretrain': ('llmbook.train.clm', 'pretrain', True),
    'generate': ('llmbook.model.completion', 'generate_text', False),
    'evaluate': ('llmbook.evaluation.measure', 'evaluate', False),
    'report': ('llmbook.evaluation.report', 'report', False),
    'env': ('llmbook.core', 'environment', False),
}


def main(
    argv:list[str]|None=None, # without the program's name; None takes the process's own
):
    "Run one verb. Exit codes: 0 done, 2 something to fix, 130 interrupted, 143 ended by SIGTERM after saving."
    from llmbook.core import UserError
    argv = [a for a in (sys.argv[1:] if argv is None else argv) if not re.match('--local[_-]rank=', a)]
    try:
        with one_of_many('--debug' in argv): act(argv)
        sys.exit(0)
    except UserError as e:
        if '--debug' in argv: raise
        print(f'llmbook: {e}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if '--debug' in argv: raise
        print('llmbook: interrupted; the same command resumes from the newest checkpoint', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def one_of_many(
    debug:bool, # show tracebacks?
):
    "What surrounds a process that a launcher made: joining, failing and leaving together."
    if 'RANK' not in os.environ or 'WORLD_SIZE' not in os.environ: return nullcontext()
    from llmbook.scale.ranks import as_rank
    return as_rank(debug)


def usage()->str: # the verbs, a line each
    "What `llmbook` alone prints: read from the stages themselves."
    from llmbook import __version__
    lines = [f'llmbook {__version__}: train language models, and measure them', '', 'usage: llmbook VERB [--help] [flags]', '']
    for verb, (module, name, _) in VERBS.items():
        doc = getattr(importlib.import_module(module), name).__doc__.split('\n')[0]
        lines.append(f'  {verb:10} {doc}')
    return '\n'.join(lines)


def act(
    argv:list[str], # verb and flags
):
    "Find the stage, read the flags, call it."
    from llmbook.core import UserError, did_you_mean, current_rank
    from llmbook.flags import read_flags, read_args
    if not argv or argv[0] in ('-h', '--help', 'help'): return print(usage())
    if argv[0] in ('--version', '-V'):
        from llmbook import __version__
        return print(__version__)
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS: raise UserError(f"no such verb: {verb}{did_you_mean(verb, VERBS)}; `llmbook --help` lists them")
    module, name, trains = VERBS[verb]
    stage, prog = getattr(importlib.import_module(module), name), f'llmbook {verb}'
    if not trains:
        [args] = read_args(rest, stage, prog=prog)
        if current_rank() > 0: return # work for one process
        result = stage(**args)
        if verb == 'env':
            import json
            print(json.dumps(result, indent=1))
        return
    from llmbook.scale.engine import engine_flags, engine_options
    args, flags = read_args(rest, stage, engine_flags, prog=prog)
    engine = engine_options(args.get('optimizer', 'adamw'), **flags)
    print_effective(verb, {n: f.default for fn in (stage, engine_flags) for n, f in read_flags(fn).items()} | args | flags)
    stage(**args, engine=engine)


def print_effective(
    verb:str, # of the command
    args:dict, # every flag with its value
):
    "Say what is about to run."
    print(f"llmbook {verb}: " + ', '.join(f'{k} {v}' for k, v in args.items() if v is not None), flush=True)


if __name__ == '__main__': main()
