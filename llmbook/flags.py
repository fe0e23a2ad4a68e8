"Command lines read off functions: flags, types, ranges, defaults and help come from signatures and docments."
import argparse
import inspect
import math
import re
import sys
import types
import typing
from dataclasses import dataclass

from fastcore.docments import docments

from .configuration import expand_home, read_config, shown
from .core import UserError, did_you_mean

_HIDDEN = {'engine', 'on_eval'} # parameters that are no flags; keyword-only ones are none either


@dataclass(frozen=True, repr=False)
class Range:
    "The numbers that a flag takes, for `Annotated[int, at_least(1)]`; NaN is in no range."
    words:str # such as 'at least 1', which also completes 'must be ...'
    low:float=-math.inf # the smallest number
    high:float=math.inf # the largest number
    infinite:bool=False # may it be infinity? Otherwise a flag refuses that, whatever its ranges
    def __contains__(self, number): return self.low <= number <= self.high
    def __repr__(self): return self.words

def at_least(
    low:float, # the smallest number
)->Range: # `low` or more
    "Numbers from `low` on: `Annotated[int, at_least(1)]`."
    return Range(f'at least {low}', low=low)

def above(
    low:float, # left out itself
    infinite:bool=False, # may it be infinity?
)->Range: # more than `low`
    "Numbers above `low`: `Annotated[float, above(0)]`."
    return Range(f'more than {low}', low=math.nextafter(low, math.inf), infinite=infinite)

def below(
    high:float, # left out itself; `math.inf` asks for a finite number
)->Range: # less than `high`
    "Numbers below `high`: `Annotated[float, at_least(0), below(1)]`."
    words = 'finite' if high == math.inf else f'less than {high}'
    return Range(words, high=math.nextafter(high, -math.inf))

def between(
    low:float, # the smallest number
    high:float, # the largest number
)->Range: # both ends included
    "Numbers from `low` to `high`: `Annotated[float, between(0, 1)]`."
    return Range(f'between {low} and {high}', low, high)

def at_most(
    high:float, # the largest number
)->Range: # `high` or less
    "Numbers up to `high`: `Annotated[float, above(0), at_most(1)]`."
    return Range(f'at most {high}', high=high)

_FINITE = Range('finite', -sys.float_info.max, sys.float_info.max)
SEED = Range('between 0 and 2**63 - 1', 0, 2**63 - 1) # the seeds that all generators take

class Flag(typing.NamedTuple):
    "What a signature says about a parameter that is a flag."
    kind:type # of the value, or of each value of a list
    default:object=inspect.Parameter.empty # empty where the flag is required
    help:str='' # its docment
    choices:tuple|None=None # the only values allowed
    many:bool=False # is it a list?
    ranges:tuple[Range, ...]=() # in which a number must be

def _read_hint(hint)->Flag:
    "Kind, choices, many and ranges of a type, bare or inside Annotated, Optional, list or Literal."
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin is typing.Annotated:
        flag = _read_hint(inner[0])
        ranges = tuple(extra for extra in inner[1:] if isinstance(extra, Range))
        return flag._replace(ranges=flag.ranges + ranges)
    if origin in (types.UnionType, typing.Union):
        given = [kind for kind in inner if kind is not types.NoneType]
        return _read_hint(given[0])
    if origin is list: return _read_hint(inner[0])._replace(many=True)
    if origin is typing.Literal: return Flag(str, choices=inner)
    return Flag(hint)

def read_flags(
    fn:typing.Callable, # a stage
)->dict[str, Flag]: # by the parameter's name
    "What the signature and its docments say about each parameter that is a flag."
    try: docs = docments(fn, full=True)
    except OSError: docs = {} # its source is not at hand
    hints = typing.get_type_hints(fn, include_extras=True)
    flags = {}
    for name, p in inspect.signature(fn).parameters.items():
        if name in _HIDDEN or p.kind is not p.POSITIONAL_OR_KEYWORD: continue
        docment = docs[name].docment if name in docs else None
        text = (docment or '').replace('\n', ' ')
        flag = _read_hint(hints.get(name, str))
        flags[name] = flag._replace(default=p.default, help=text)
    return flags

def _flags_of(fns:typing.Iterable[typing.Callable])->dict[str, Flag]:
    "The flags of several functions together; of two with one name, the first counts."
    flags = {}
    for fn in fns: flags = flags | {name: flag for name, flag in read_flags(fn).items() if name not in flags}
    return flags

def flag_name(
    name:str, # of a parameter
)->str: # as it is typed
    "`--dry-run` for `dry_run`."
    return '--' + name.replace('_', '-')

def _cast(value, kind:type):
    "Turn a value into its type. Raises one of Python's own errors where that is not possible."
    if not isinstance(value, (str, int, float)): raise ValueError # such as a date or a list of TOML
    if kind is bool: return _cast_bool(value)
    if isinstance(value, bool): raise ValueError
    if kind is not int: return kind(value)
    digits = str(value).lstrip('+-')
    if isinstance(value, str) and digits.isdecimal(): return int(value)
    number = float(value) # such as 1e3
    if number != int(number): raise ValueError
    return int(number)

def _cast_bool(value)->bool:
    "A truth value from TOML, or a word for it."
    if isinstance(value, bool): return value
    words = {'true': True, 'yes': True, 'false': False, 'no': False}
    return words[value.lower()]

def _check_range(name:str, number, ranges:tuple, typed=None):
    "Raise `UserError` for a number outside the ranges of its flag, and for NaN and infinity unless a range allows them."
    if number is None: return
    odd = isinstance(number, float) and not math.isfinite(number)
    if odd and not any(r.infinite for r in ranges): ranges = (*ranges, _FINITE)
    if all(number in r for r in ranges): return
    asked = number if typed is None else typed
    wanted = ' and '.join(dict.fromkeys(map(str, ranges)))
    raise UserError(f"{flag_name(name)} {shown(asked)}: must be {wanted}")

def _place(flag:Flag)->str:
    "PATH, FOLDER or FILE if the docment of a text says that it names one; otherwise empty."
    if flag.kind is not str or flag.choices: return ''
    words = re.findall('[a-z]+', flag.help.lower())
    words = {word.removesuffix('s') for word in words}
    if words & {'path', 'document'} or {'file', 'folder'} <= words: return 'PATH'
    if 'folder' in words: return 'FOLDER'
    return 'FILE' if 'file' in words else ''

def _check_path(name:str, value, flag:Flag):
    "Raise `UserError` for a path that cannot be one."
    if not _place(flag) or not isinstance(value, str): return
    if not value.strip(): raise UserError(f"{flag_name(name)}: empty; give a path, or leave the flag out")
    if '\0' in value: raise UserError(f"{flag_name(name)} {shown(value)!r}: no path holds a zero byte")

def _parse_value(name:str, value, flag:Flag):
    "One typed value of a flag, in its type. Raises a `UserError` with the flag, the value and what was expected."
    words = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
    typed = f'{flag_name(name)} {shown(value)}'
    try: parsed = _cast(value, flag.kind)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        expected = words.get(flag.kind, flag.kind.__name__)
        raise UserError(f"{typed}: not {expected}") from None
    if flag.choices and parsed not in flag.choices:
        allowed = ', '.join(map(str, flag.choices))
        raise UserError(f"{typed}: not one of {allowed}{did_you_mean(parsed, flag.choices)}")
    _check_range(name, parsed, flag.ranges, value)
    _check_path(name, parsed, flag)
    return expand_home(flag_name(name), parsed) if _place(flag) else parsed

def _check_some(name:str, values):
    "Raise `UserError` for an empty list."
    if values in ([], ()): raise UserError(f"{flag_name(name)}: empty; give at least one, or leave the flag out")

def check_ranges(
    stage:typing.Callable, # whose signature holds the ranges
    args:dict, # its arguments by name, such as `locals()` in its first line
):
    "Refuse numbers out of range and empty paths where a stage is called from Python, as its command line does."
    for name, flag in read_flags(stage).items():
        given = args.get(name)
        values = given if isinstance(given, (list, tuple)) else [given]
        if flag.many: _check_some(name, given)
        for value in values:
            _check_range(name, value, flag.ranges)
            _check_path(name, value, flag)

class _Parser(argparse.ArgumentParser):
    "argparse whose complaints are `UserError`s of one line."
    def error(self, message): raise UserError(message)

def _help_text(flag:Flag)->str:
    "What `--help` says about a flag: meaning, ranges, and the default if there is one."
    default = flag.default
    notes = [str(r) for r in flag.ranges]
    if isinstance(default, (list, tuple)): default = ' '.join(map(str, default))
    if isinstance(default, bool): default = 'yes' if default else 'no'
    if default is inspect.Parameter.empty: notes.append('required')
    elif default not in (None, ''): notes.append(f'default: {default}')
    text = f"{flag.help} ({'; '.join(notes)})" if notes else flag.help
    return text.replace('%', '%%')

def _metavar(name:str, flag:Flag)->str:
    "What stands for the value in `--help`: PATH, FOLDER and FILE if the docment speaks of one."
    if flag.choices: return '|'.join(map(str, flag.choices))
    if flag.kind is int: return 'N'
    if flag.kind is float: return 'X'
    return _place(flag) or name.upper()

_EPILOG = """Of a flag that is given twice, the last value counts. Exit codes: 0 done, 1 a fault of llmbook,
2 input or system, 3 diverged; `llmbook --help` has them all."""

def _build_parser(*fns:typing.Callable, prog:str)->_Parser:
    "A command line from signatures: flags, types, ranges, defaults and help all come from the functions."
    summary = (fns[0].__doc__ or '').split('\n')[0]
    notes = [inspect.cleandoc(fn.__doc__ or '').partition('\n\n')[2] for fn in fns[1:]] # what a second stage adds
    epilog = '\n\n'.join(note for note in [*notes, _EPILOG] if note)
    settings = dict(allow_abbrev=False, argument_default=argparse.SUPPRESS, epilog=epilog)
    parser = _Parser(prog=prog, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
    for name, flag in _flags_of(fns).items():
        options = {'dest': name, 'help': _help_text(flag)}
        if flag.kind is bool: options['action'] = argparse.BooleanOptionalAction
        else: options['metavar'] = _metavar(name, flag)
        if flag.many: options['nargs'] = '+'
        parser.add_argument(flag_name(name), **options)
    config = "a TOML file with values for any of these flags; flags on the command line win"
    debug = "show the full traceback of an error (default: no)"
    parser.add_argument('--config', metavar='FILE', action='append', help=config)
    parser.add_argument('--debug', action='store_true', help=debug)
    return parser

def _dashed(argument:str, known:set[str])->str:
    "`--max-rows=a_b` for `--max_rows=a_b` if there is such a flag; everything else stays."
    if not argument.startswith('--'): return argument
    name, equals, value = argument.partition('=')
    name = flag_name(name[2:])
    return name + equals + value if name.replace('--no-', '--') in known else argument

def _parse_argv(argv:list[str], fns:tuple, prog:str)->dict:
    "What was typed, by flag. Raises `UserError` with the nearest name for a typo."
    parser = _build_parser(*fns, prog=prog)
    known = [flag_name(name) for name in (*_flags_of(fns), 'config', 'debug')]
    typed, rest = parser.parse_known_args([_dashed(argument, set(known)) for argument in argv])
    if rest:
        nearest = did_you_mean(flag_name(rest[0].split('=')[0].lstrip('-')), known)
        raise UserError(f"unknown argument {shown(rest[0])}{nearest}")
    return vars(typed)

def _parse_values(name:str, value, flag:Flag):
    "The value of a flag, or its list of values."
    if not flag.many: return _parse_value(name, value, flag)
    values = value if isinstance(value, list) else [value]
    _check_some(name, values)
    return [_parse_value(name, v, flag) for v in values]

def read_args(
    argv:list[str], # what was typed after the verb
    *fns:typing.Callable, # the stage, then whatever else takes flags
    prog:str='llmbook', # how the command is called
    verbs:typing.Iterable[str]=(), # all there are: the tables that a configuration may have
)->list[dict]: # the keyword arguments of each function
    "Arguments from defaults, then `--config`, then the command line. Raises `UserError` for whatever does not fit."
    flags = _flags_of(fns)
    typed = _parse_argv(argv, fns, prog)
    paths = typed.pop('config', None) or [None]
    if len(paths) > 1: raise UserError(f"--config {shown(paths[1])}: a second file of flags; give one")
    path = paths[0]
    typed.pop('debug', None)
    verb = prog.split()[-1]
    given = {} if path is None else read_config(path, verb, verbs)
    for key in given:
        if key in flags: continue
        raise UserError(f"--config {path}: unknown key {shown(key)!r}{did_you_mean(key, flags)}")
    values = {}
    for name, value in (given | typed).items(): values[name] = _parse_values(name, value, flags[name])
    for name, flag in flags.items():
        if flag.default is inspect.Parameter.empty and name not in values:
            raise UserError(f"{flag_name(name)} is missing; `{prog} --help` lists the flags")
    arguments = []
    for fn in fns: arguments.append({name: values[name] for name in read_flags(fn) if name in values})
    return arguments
