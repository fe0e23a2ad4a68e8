"Command lines that are read off functions: flags, types, defaults and help come from signatures and docments."
import argparse
import inspect
import tomllib
import types
import typing
from pathlib import Path

from fastcore.docments import docments

from .core import UserError, did_you_mean

HIDDEN = {'engine', 'on_eval'} # parameters that the command line fills in itself

def read_flags(
    fn:typing.Callable, # a stage
)->dict: # name of the flag -> (type, default, help, choices, is a list)
    "What the signature and its docments say about each parameter."
    docs, hints, flags = docments(fn, full=True), typing.get_type_hints(fn), {}
    for name, p in inspect.signature(fn).parameters.items():
        if name in HIDDEN: continue
        kind, choices, many = hints.get(name, str), None, False
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(t for t in typing.get_args(kind) if t is not type(None))
        if typing.get_origin(kind) is list: kind, many = typing.get_args(kind)[0], True
        if typing.get_origin(kind) is typing.Literal: choices, kind = typing.get_args(kind), str
        flags[name] = (kind, p.default, (docs[name].docment or '').replace('\n', ' '), choices, many)
    return flags


def flag_name(
    name:str, # of a parameter
)->str: # as it is typed
    "`--dry-run` for `dry_run`."
    return '--' + name.replace('_', '-')

def cast(
    value, # what was typed, or what a configuration file holds
    kind:type, # what it should be
): # the value in its type
    "Turn a value into its type. Raises one of Python's own errors where it is not of it."
    if isinstance(value, (list, dict)) or isinstance(value, bool) and kind is not bool: raise ValueError
    words = {'true': True, 'false': False, 'yes': True, 'no': False}
    if kind is bool: return value if isinstance(value, bool) else words[value.lower()]
    if kind is not int: return kind(value)
    if isinstance(value, str) and value.lstrip('+-').isdecimal(): return int(value)
    if (number := float(value)) != int(number): raise ValueError
    return int(number)

def parse_value(
    flag:str, # its name, for the message
    value, # what was typed, or what a configuration file holds
    kind:type, # what it should be
    choices:tuple|None=None, # the only values allowed
): # the value in its type
    "`cast`, or a `UserError` that names the flag, the value and what was expected."
    words = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
    try: value = cast(value, kind)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        raise UserError(f"{flag_name(flag)} {value}: not {words.get(kind, kind.__name__)}") from None
    if choices and value not in choices:
        raise UserError(f"{flag_name(flag)} {value}: not one of {', '.join(map(str, choices))}{did_you_mean(value, choices)}")
    return value


class Parser(argparse.ArgumentParser):
    "argparse whose complaints are `UserError`s of one line."
    def error(self, message): raise UserError(f"{self.prog}: {message}")

def default_text(
    default, # of a parameter
)->str: # as help shows it
    "What `--help` says about a default."
    if default is inspect.Parameter.empty: return '(required)'
    if isinstance(default, list): default = ' '.join(map(str, default))
    return '(default: none)' if default in (None, '') else f'(default: {default})'

def build_parser(
    *fns:typing.Callable, # the stage, then whatever else takes flags (an engine)
    prog:str='llmbook', # how the command is called
)->Parser: # help from the docments
    "A command line from signatures: flags, types, defaults and help all come from the functions."
    parser = Parser(prog=prog, description=(fns[0].__doc__ or '').split('\n')[0], allow_abbrev=False,
                    argument_default=argparse.SUPPRESS)
    for name, (kind, default, help, choices, many) in {k: v for fn in fns for k, v in read_flags(fn).items()}.items():
        how = {'dest': name, 'help': f'{help} {default_text(default)}'.replace('%', '%%')}
        if kind is bool: how['action'] = argparse.BooleanOptionalAction
        else: how['metavar'] = '|'.join(map(str, choices)) if choices else {int: 'N', float: 'X'}.get(kind, 'TEXT')
        parser.add_argument(flag_name(name), **how, **({'nargs': '+'} if many else {}))
    parser.add_argument('--config', help="a TOML file that gives any of these flags by name; what is typed wins (default: none)")
    parser.add_argument('--debug', action='store_true', help="show the whole traceback of an error (default: False)")
    return parser


def read_config(
    path:Path|str, # a TOML file
    verb:str, # its table of this name, where it has one, goes over the top level
)->dict: # flag -> value
    "Flags from a file. Raises `UserError` where it is missing or not TOML."
    try: table = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as e: raise UserError(f"--config {path}: {(e.strerror or str(e)).lower()}") from None
    except ValueError as e: raise UserError(f"--config {path}: not TOML ({e})") from None
    own = table.get(verb)
    flat = {k: v for k, v in table.items() if not isinstance(v, dict)} | (own if isinstance(own, dict) else {})
    return {k.replace('-', '_'): v for k, v in flat.items()}

def parse_argv(
    argv:list[str], # what was typed after the verb
    fns:tuple, # the stage, then whatever else takes flags
    prog:str, # how the command is called
)->dict: # flag -> text
    "What was typed, by flag. Raises `UserError` with the nearest name for a typo."
    heads = [a.partition('=') for a in argv]
    argv = [flag_name(head[2:]) + eq + tail if head.startswith('--') else head + eq + tail for head, eq, tail in heads]
    typed, rest = build_parser(*fns, prog=prog).parse_known_args(argv)
    if rest:
        known = [flag_name(n) for fn in fns for n in read_flags(fn)] + ['--config', '--debug']
        raise UserError(f"{prog}: unknown argument {rest[0]}{did_you_mean(rest[0].split('=')[0], known)}")
    return vars(typed)


def read_args(
    argv:list[str], # what was typed after the verb
    *fns:typing.Callable, # the stage, then whatever else takes flags
    prog:str='llmbook', # how the command is called
)->list[dict]: # the keyword arguments of each function
    "Arguments from defaults, then `--config`, then the command line. Raises `UserError` for whatever does not fit."
    flags = {name: f for fn in fns for name, f in read_flags(fn).items()}
    typed = parse_argv(argv, fns, prog)
    given = read_config(typed['config'], prog.split()[-1]) if 'config' in typed else {}
    for key in given:
        if key not in flags: raise UserError(f"--config {typed['config']}: unknown key {key!r}{did_you_mean(key, flags)}")
    values = {}
    for name, value in (given | {k: v for k, v in typed.items() if k in flags}).items():
        kind, _, _, choices, many = flags[name]
        def one(v, name=name, kind=kind, choices=choices): return parse_value(name, v, kind, choices)
        values[name] = [one(v) for v in (value if isinstance(value, list) else [value])] if many else one(value)
    for name, (_, default, *_) in flags.items():
        if default is inspect.Parameter.empty and name not in values: raise UserError(f"{prog}: {flag_name(name)} is missing")
    return [{n: values[n] for n in read_flags(fn) if n in values} for fn in fns]
