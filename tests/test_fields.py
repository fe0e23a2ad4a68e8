"Fields: what a file from outside may say."
import math

import pytest

from llmbook.core import UserError
from llmbook.fields import Field, check_fields
from llmbook.files import read_json, write_text


def says(obj, fields, **flags):
    with pytest.raises(UserError) as e: check_fields(obj, fields, 'a.json', **flags)
    assert str(e.value).startswith('a.json: ') and '\n' not in str(e.value) and len(str(e.value)) < 200
    return str(e.value)


@pytest.mark.parametrize('kind, good, bad', [
    (int, [0, -3, 10**30], [10**400, True, 1.0, '1', [1], None, {}, math.nan]),
    (float, [0, 1.5, -1e300], [False, '1', None, [], math.nan, math.inf, -math.inf, 10**400]),
    (str, ['', 'x'], [1, None, ['x'], True]),
    (bool, [True, False], [0, 1, 'true', None]),
    (list, [[], [1]], ['x', {}, None, 1]),
    (dict, [{}, {'a': 1}], [[], 'x', None]),
    ((int, list), [1, [1]], ['1', 1.5, True, {}])])
def test_kinds(kind, good, bad):
    for value in good: assert check_fields({'x': value}, {'x': Field(kind)}, '') == {'x': value}
    for value in bad: says({'x': value}, {'x': Field(kind)})


def test_ranges():
    half = {'x': Field(float, 0, 0.5)}
    for value in (0, 0.5): check_fields({'x': value}, half, '')
    for value in (-1e-9, 0.6, math.inf, -math.inf, math.nan, 10**400): assert 'from 0 to 0.5' in says({'x': value}, half)
    assert 'of at least 1' in says({'x': 0}, {'x': Field(int, 1)})


def test_missing_optional_and_unknown():
    fields = {'steps': Field(int), 'note': Field(str, optional=True)}
    for obj in ({'steps': 1}, {'steps': 1, 'note': None}, {'steps': 1, 'more': [1]}): assert check_fields(obj, fields, '') is obj
    assert "'steps' is missing" in says({}, fields) and "'steps' is null" in says({'steps': None}, fields)
    assert "did you mean 'steps'" in says({'steps': 1, 'step': 2}, fields, strict=True)
    for obj in ([], 'x', 3, None, [{'steps': 1}]): assert 'not an object' in says(obj, fields)


def test_a_long_or_odd_value_stays_one_short_line():
    for value in ('x\n' * 1000, ['\udcff'] * 500, {'a': {'b': {}}}): says({'x': value}, {'x': Field(int)})


def test_read_json_checks(tmp_path):
    path = write_text(tmp_path/'c.json', '{"steps": "12"}')
    with pytest.raises(UserError, match=r"""c\.json: 'steps' is "12"; it must be a whole number of at least 1"""):
        read_json(path, {'steps': Field(int, 1)})
