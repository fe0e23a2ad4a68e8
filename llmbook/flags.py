"Command lines that are read off functions: flags, types, ranges, defaults and help come from signatures and docments."
import argparse
import inspect
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path

from fastcore.docments import docments

from .core import UserError, did_you_mean

_HIDDEN = {'engine', 'on_eval'} # parameters that are no flags; keyword-only ones are none either


@dataclass(frozen=True, repr=False)
class Range:
    "The numbers that a flag takes, for `Annotated[int, at_least(1)]`; NaN is in no range."
    words:str # such as 'at least 1', which also completes '... is needed'
    low:float=-math.inf # the smallest number
    high:float=math.inf # the largest number
    def __contains__(self, number): return self.low <= number <= self.high
    def __repr__(self): return self.words

def at_least(
    low:float, # the smallest number
)->Range: # `low` or more
    "Numbers from `low` on: `Annotated[int, at_least(1)]`."
    return Range(f'at least {low}', low=low)

def above(
    low:float, # left out itself
)->Range: # more than `low`
    "Numbers above `low`: `Annotated[float, above(0)]`."
    return Range(f'more than {low}', low=math.nextafter(low, math.inf))

def below(
    high:float, # left out itself; `math.inf` asks for a finite number
)->Range: # less than `high`
    "Numbers below `high`: `Annotated[float, at_least(0), below(1)]`."
    words = 'infinity' if high == math.inf else high
    return Range(f'less than {words}', high=math.nextafter(high, -math.inf))

def between(
    low:float, # the smallest number
    high:float, # the largest number
)->Range: # both ends included
    "Numbers from `low` to `high`: `Annotated[float, between(0, 1)]`."
    return Range(f'between {low} and {high}', low, high)

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
        return _read_hint(next(t for t in inner if t is not types.NoneType))
    if origin is list: return _read_hint(inner[0])._replace(many=True)
    if origin is typing.Literal: return Flag(str, choices=inner)
    return Flag(hint)

def read_flags(
    fn:typing.Callable, # a stage
)->dict[str, Flag]: # by the parameter's name
    "What the signature and its docments say about each parameter that is a flag."
    docs = docments(fn, full=True)
    hints = typing.get_type_hints(fn, include_extras=True)
    flags = {}
    for name, p in inspect.signature(fn).parameters.items():
        if name in _HIDDEN or p.kind is not p.POSITIONAL_OR_KEYWORD: continue
        text = (docs[name].docment or '').replace('\n', ' ')
        flags[name] = _read_hint(hints.get(name, str))._replace(default=p.default, help=text)
    return flags

def flag_name(
    name:str, # of a parameter
)->str: # as it is typed
    "`--dry-run` for `dry_run`."
    return '--' + name.replace('_', '-')

def _cast(value, kind:type):
    "Turn a value into its type. Raises one of Python's own errors where that is not possible."
    if isinstance(value, (list, dict)): raise ValueError
    words = {'true': True, 'false': False, 'yes': True, 'no': False}
    if kind is bool: return value if isinstance(value, bool) else words[value.lower()]
    if isinstance(value, bool): raise ValueError
    if kind is not int: return kind(value)
    if isinstance(value, str) and value.lstrip('+-').isdecimal(): return int(value)
    number = float(value)
    if number != int(number): raise ValueError
    return int(number)

def _check_range(name:str, number, ranges:tuple, typed=None):
    "Raise `UserError` for a number outside the ranges of its flag."
    if number is None or all(number in r for r in ranges): return
    shown = number if typed is None else typed
    raise UserError(f"{flag_name(name)} {shown}: {' and '.join(map(str, ranges))} is needed")

def _parse_value(name:str, value, flag:Flag):
    "One typed value of a flag, in its type. Raises a `UserError` that names the flag, the value and what was expected."
    words = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
    try: parsed = _cast(value, flag.kind)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
        raise UserError(f"{flag_name(name)} {value}: not {words.get(flag.kind, flag.kind.__name__)}") from None
    if flag.choices and parsed not in flag.choices:
        allowed = ', '.join(map(str, flag.choices))
        raise UserError(f"{flag_name(name)} {value}: not one of {allowed}{did_you_mean(parsed, flag.choices)}")
    _check_range(name, parsed, flag.ranges, value)
    return parsed

def check_ranges(
    stage:typing.Callable, # whose signature holds the ranges
    args:dict, # its arguments by name, such as `locals()` in its first line
):
    "Raise for a stage called from Python the `UserError` that its command line would raise for a number out of range."
    for name, flag in read_flags(stage).items():
        value = args.get(name)
        numbers = value if isinstance(value, list) else [value]
        for number in numbers: _check_range(name, number, flag.ranges)

class _Parser(argparse.ArgumentParser):
    "argparse whose complaints are `UserError`s of one line."
    def error(self, message): raise UserError(f"{self.prog}: {message}")

def _help_text(flag:Flag)->str:
    "What `--help` says about a flag: meaning, ranges, default."
    default = flag.default
    if isinstance(default, list): default = ' '.join(map(str, default))
    if default is inspect.Parameter.empty: note = 'required'
    elif default in (None, ''): note = 'default: none'
    else: note = f'default: {default}'
    notes = '; '.join([*map(str, flag.ranges), note])
    return f'{flag.help} ({notes})'.replace('%', '%%')

def _build_parser(*fns:typing.Callable, prog:str)->_Parser:
    "A command line from signatures: flags, types, ranges, defaults and help all come from the functions."
    summary = (fns[0].__doc__ or '').split('\n')[0]
    parser = _Parser(prog=prog, description=summary, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    flags = {name: flag for fn in fns for name, flag in read_flags(fn).items()}
    for name, flag in flags.items():
        options = {'dest': name, 'help': _help_text(flag)}
        if flag.kind is bool: options['action'] = argparse.BooleanOptionalAction
        elif flag.choices: options['metavar'] = '|'.join(map(str, flag.choices))
        else: options['metavar'] = {int: 'N', float: 'X'}.get(flag.kind, 'TEXT')
        if flag.many: options['nargs'] = '+'
        parser.add_argument(flag_name(name), **options)
    parser.add_argument('--config', help="a TOML file that gives any of these flags by name; what is typed wins (default: none)")
    parser.add_argument('--debug', action='store_true', help="show the whole traceback of an error (default: False)")
    return parser

def _read_config(path:Path|str, verb:str)->dict:
    "Flags from a TOML file; its table `verb` overrides its top level. Raises `UserError` where it is missing or not TOML."
    try: table = tomllib.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as e: raise UserError(f"--config {path}: {(e.strerror or str(e)).lower()}") from None
    except ValueError as e: raise UserError(f"--config {path}: not TOML ({e})") from None
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if isinstance(table.get(verb), dict): values |= table[verb]
    return {key.replace('-', '_'): value for key, value in values.items()}

def _dashed(argument:str)->str:
    "`--max-rows=a_b` for `--max_rows=a_b`; everything else stays."
    name, equals, value = argument.partition('=')
    return flag_name(name[2:]) + equals + value if name.startswith('--') else argument

def _parse_argv(argv:list[str], fns:tuple, prog:str)->dict:
    "What was typed, by flag. Raises `UserError` with the nearest name for a typo."
    typed, rest = _build_parser(*fns, prog=prog).parse_known_args([_dashed(a) for a in argv])
    if rest:
        known = [flag_name(name) for fn in fns for name in read_flags(fn)] + ['--config', '--debug']
        raise UserError(f"{prog}: unknown argument {rest[0]}{did_you_mean(rest[0].split('=')[0], known)}")
    return vars(typed)

def _parse_values(name:str, value, flag:Flag):
    "The value of a flag, or its list of values."
    if not flag.many: return _parse_value(name, value, flag)
    return [_parse_value(name, v, flag) for v in (value if isinstance(value, list) else [value])]

def read_args(
    argv:list[str], # what was typed after the verb
    *fns:typing.Callable, # the stage, then whatever else takes flags
    prog:str='llmbook', # how the command is called
)->list[dict]: # the keyword arguments of each function
    "Arguments from defaults, then `--config`, then the command line. Raises `UserError` for whatever does not fit."
    flags = {name: flag for fn in fns for name, flag in read_flags(fn).items()}
    typed = _parse_argv(argv, fns, prog)
    given = _read_config(typed['config'], prog.split()[-1]) if 'config' in typed else {}
    for key in given:
        if key not in flags: raise UserError(f"--config {typed['config']}: unknown key {key!r}{did_you_mean(key, flags)}")
    given |= {name: value for name, value in typed.items() if name in flags}
    values = {name: _parse_values(name, value, flags[name]) for name, value in given.items()}
    for name, flag in flags.items():
        if flag.default is inspect.Parameter.empty and name not in values:
            raise UserError(f"{prog}: {flag_name(name)} is missing")
    return [{name: values[name] for name in read_flags(fn) if name in values} for fn in fns]
