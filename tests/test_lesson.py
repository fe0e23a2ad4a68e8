"Exercises that answer and never raise; results that are kept."

import pytest

from llmbook import lesson
from llmbook.core import UserError
from llmbook.lesson import grade


def test_grade_never_raises(monkeypatch):
    def check(answer):
        assert answer() == 1, "not one\nand more"
    monkeypatch.setattr('llmbook.exercises.core.check_99', check, raising=False)
    def fails(error):
        def answer(): raise error
        return answer
    assert grade('core.99', lambda: 1) and repr(grade('core.99', lambda: 1)) == 'Exercise core.99: passed.'
    for answer in (None, ..., 5, 'x', [], lambda: 2, lambda x: 1,
            *map(fails, (ValueError(), KeyError('k'), SystemExit(1), RecursionError('a\nb')))):
        said = grade('core.99', answer)
        assert not said and 'not yet' in repr(said) and '\n' not in repr(said)


def test_an_id_is_checked_before_anything_is_imported(monkeypatch):
    monkeypatch.setattr(lesson.importlib, 'import_module', lambda name: pytest.fail(f'imported {name}'))
    for name in ('../core.1', 'core.1.2', 'os.path.1', 'Core.1', 'core', 'core.', 'core.x', 'core.\u0661', 'a b.1', 1, None, ()):
        assert 'is no exercise' in repr(grade(name, 1)), name


def test_an_unknown_exercise_is_named():
    for name, hint in (('corpse.1', "did you mean 'corpus'"), ('moon.1', 'no such exercise'), ('core.98', 'no such exercise')):
        assert hint in repr(grade(name, 1))


def test_results(tmp_path, monkeypatch):
    (tmp_path/'nbs/results').mkdir(parents=True)
    for where in (tmp_path, tmp_path/'nbs'):
        monkeypatch.chdir(where)
        assert lesson.save_results('x', {'loss': [2.5], 'run': {'steps': 3}}) == tmp_path/'nbs/results/x.json'
        assert lesson.load_results('x').loss[0] == 2.5 and lesson.load_results('x').run.steps == 3
    text = lesson.save_results('x', {'loss': [float('nan'), 1.0, {'a': float('inf')}]}).read_text()
    assert 'NaN' not in text and 'Infinity' not in text and lesson.load_results('x').loss[0] is None
    with pytest.raises(UserError, match='under 20,000'): lesson.save_results('x', {'loss': [0.123] * 10_000})
    with pytest.raises(UserError, match='no such file'): lesson.load_results('y')
