"The chapter `filters`: which language a text is in."
import subprocess
import sys
from functools import partial

import cloudpickle
import pytest

from llmbook.core import UserError
from llmbook.text import filters
from llmbook.text.corpus import world_documents
from llmbook.text.filters import ENGLISHES, english, in_language
from llmbook.text.pipeline import rule_name
from llmbook.text.templates import FIRST

FOREIGN = {code: ' '.join(lines) for code, lines in FIRST['foreign'].items()}


def kept(rule, text, **more): return isinstance(rule({'id': 'a', 'text': text} | more), dict)


def test_stories_stay_and_the_same_object_comes_back():
    for document in world_documents(100, seed=4): assert english(document) is document


@pytest.mark.parametrize('code', FOREIGN)
def test_foreign_text_goes_by_its_own_reason(code):
    document = {'id': code, 'text': FOREIGN[code]}
    assert english(document) == 'another language'
    assert in_language(document, languages=[code]) is document
    assert document == {'id': code, 'text': FOREIGN[code]}


def test_probabilities_of_several_languages_are_added_up(monkeypatch):
    monkeypatch.setattr(filters, '_language_probabilities', lambda text: {'sv': 0.4, 'no': 0.35, 'en': 0.25})
    assert not kept(in_language, 'x') and not kept(partial(in_language, languages=['sv']), 'x')
    assert kept(partial(in_language, languages=['sv', 'no']), 'x')
    assert not kept(partial(in_language, languages=['sv', 'no'], least=0.76), 'x')
    assert kept(partial(in_language, languages=['sv', 'no', 'en'], least=0.99), 'x')


def test_the_threshold_itself_is_enough(monkeypatch):
    monkeypatch.setattr(filters, '_language_probabilities', lambda text: {'en': 0.5, 'de': 0.5})
    assert kept(english, 'x') and not kept(partial(in_language, least=0.51), 'x')


def test_code_is_left_alone_and_missing_fields_are_no_problem():
    assert kept(english, FOREIGN['de'], meta={'format': 'code'})
    assert not kept(english, FOREIGN['de'], meta={'format': 'html'})
    assert not kept(english, FOREIGN['de'], meta={}) and not kept(english, FOREIGN['de'], meta=None)


@pytest.mark.parametrize('text', ['', ' \n ', '12 34', '🙂', '\ud800', '\x00', 'a', '\u202e', 'x' * 100_000])
def test_any_text_has_an_answer(text):
    document = {'id': 'a', 'text': text}
    assert english(document) in ('another language', document)


def test_only_the_beginning_counts_and_spaces_do_not():
    story = next(iter(world_documents(1, seed=4)))['text']
    assert kept(english, (story + ' ') * 4 + FOREIGN['ru'] * 50)
    spread = '\n\n      '.join(story.split(' '))
    assert filters._language_probabilities(story)['en'] == filters._language_probabilities(spread)['en']


def test_an_unknown_code_is_named():
    with pytest.raises(UserError, match="^language 'english' is not known; give a code of ISO 639, such as 'en'$"):
        in_language({'id': 'a', 'text': 'x'}, languages=['en', 'english'])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'py3langid.langid', None)
    filters._identifier.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'llmbook\[web\]'"): english({'id': 'a', 'text': 'x'})
    finally: filters._identifier.cache_clear()


def test_rules_can_be_pickled_and_are_named_after_their_function():
    nordic = cloudpickle.loads(cloudpickle.dumps(partial(in_language, languages=('sv', 'no', 'da'))))
    assert rule_name(nordic) == 'in_language' and rule_name(english) == 'english'
    assert kept(nordic, FOREIGN['sv']) and not kept(nordic, FOREIGN['fr'])


def test_importing_the_chapter_loads_no_model():
    code = "import sys, llmbook.text.filters; print('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'False'


def test_the_sentences_in_four_kinds_of_english():
    assert len(ENGLISHES) == 30 and all(len(row) == 4 for row in ENGLISHES)
    assert all(text == text.strip() and text for row in ENGLISHES for text in row)
    assert len({text for row in ENGLISHES for text in row}) > 110
