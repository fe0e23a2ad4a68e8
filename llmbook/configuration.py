"Flags from a file: a TOML table becomes arguments, or one line says what is wrong with it."
import os
import tomllib
import typing
from pathlib import Path

from .core import UserError, did_you_mean
from .files import check_regular


def shown(
    value, # of a flag
)->str: # at most 60 characters
    "A value in one short line; what cannot be printed becomes `?`."
    text = ''.join(c if c.isprintable() else '?' for c in ' '.join(str(value)[:1000].split()))
    return text if len(text) <= 60 else text[:57] + '...'


def expand_home(
    flag:str, # such as --out
    value:str, # a path
)->str: # where `~` and `~user` are folders
    "A path with `~` replaced by the home folder."
    if not value.startswith('~'): return value
    path = os.path.expanduser(value)
    if path.startswith('~'): raise UserError(f"{flag} {value}: no such user here; give the complete path")
    return path


def _read_toml(path:str)->dict:
    "The tables of a TOML file. Raises `UserError` if it is missing, not a file, or not TOML."
    if not path.strip(): raise UserError("--config: empty; give a file")
    path = expand_home('--config', path)
    try:
        check_regular(path)
        text = Path(path).read_text(encoding='utf-8-sig') # without the mark that some editors put first
        return tomllib.loads(text)
    except UserError as e: raise UserError(f"--config {e}") from None
    except RecursionError: raise UserError(f"--config {path}: not TOML that can be read (nested too deeply)") from None
    except OSError as e:
        problem = e.strerror or str(e)
        raise UserError(f"--config {path}: {problem.lower()}") from None
    except ValueError as e: raise UserError(f"--config {path}: not TOML ({shown(e)})") from None


def _unhyphened(table:dict, path:str)->dict:
    "A table by the names of parameters. Raises `UserError` for a flag in two spellings."
    values = {}
    for key, value in table.items():
        name = key.replace('-', '_')
        if name in values: raise UserError(f"--config {path}: {name!r} is there twice, with `-` and with `_`; keep one")
        values[name] = value
    return values


def read_config(
    path:str, # the file
    verb:str, # that is about to run
    verbs:typing.Iterable[str]=(), # all there are
)->dict: # by the names of parameters
    "Flags from a TOML file; its table `verb` overrides its top level. Raises `UserError` for what it should not hold."
    table = _read_toml(path)
    known = [verb, *verbs]
    for key, value in table.items():
        if not isinstance(value, dict) or key in known: continue
        raise UserError(f"--config {path}: unknown table [{shown(key)}]{did_you_mean(key, known)}; a table is named after a verb")
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    of_verb = table.get(verb)
    if not isinstance(of_verb, dict): of_verb = {}
    return _unhyphened(values, path) | _unhyphened(of_verb, path)
