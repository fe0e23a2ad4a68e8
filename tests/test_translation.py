"The second language: one translation for each sentence, the way back, and pairs of words kept out of training."

import json
import random
import re
from hashlib import sha256
from itertools import product
from pydoc_data.topics import topics

import pytest

from llmbook.core import UserError
from llmbook.text.corpus import HELD_START
from llmbook.text.state import NAMES, PLACES, QUALITIES, THINGS, TRADES
from llmbook.text.stories import write_story
from llmbook.text.tasks import task_story
from llmbook.text.translation import LEXICON, gloss, held_pairs, is_second_language, translate, translate_back
from llmbook.text.translation import translation_rows

# Everything that a sentence can be, once more: a regular expression and the gloss, without the module's grammar.
WHO, T, P = '(?P<who>[A-Z][a-z]+|she|he)', '(?P<q>[a-z]+) (?P<t>[a-z]+)', '(?P<p>[a-z]+)'
N, SAID = '(?P<n>[A-Z][a-z]+)', '(?P<who>[A-Z][a-z]+) said, '
WHEN = '(?:(?P<when>Then|Soon|Later) )?'
TIME = '(?:One (?P<one>morning|evening|summer)(?: day)? |Long (?P<long>ago) )?'
OWNER = f'{TIME}(?P<who>[A-Z][a-z]+)(?: the (?P<trade>[a-z]+))?'
GO = f'{WHEN}{WHO} went to the {P}', '{p}-TO go'
WALK = f'{WHEN}{WHO} walked to the {P}', '{p}-TO walk'
HOME = f'{WHEN}{WHO} went home to the {P}', '{p}-TO return'
GUIDE = f'{WHEN}{WHO} went with (?P<with>[A-Z][a-z]+) to the {P}', '{with} WITH {p}-TO go'
SPOTS = {f'was in the {P}': '{p}-IN be', 'was with (?P<w>[A-Z][a-z]+)': '{w} WITH be'}
PLAIN = {  # after who and when
    f'visited {N} in the {P}': '{p}-IN {n} OBJ visit', f'took the {T}': '{t}-OBJ {q} take',
    f'picked up the {T}': '{t}-OBJ {q} lift', f'left the {T} in the {P}': '{p}-IN {t}-OBJ {q} leave',
    f'gave the {T} to {N}': '{n} TO {t}-OBJ {q} give', f'looked for the {T} and found it': '{t}-OBJ {q} seek AND find',
    f'looked for the {T} in vain': '{t}-OBJ {q} vainly seek', 'felt (?P<m>[a-z]+)': '{m} feel',
    'waited for a while': 'awhile wait', 'sang a song': 'song-OBJ sing', 'slept for an hour': 'hour sleep',
    f'had last seen the {T} in the {P}': '{p}-IN {t}-OBJ {q} recall',
    'now had (?P<c>nothing|(?:one|two|three) things?)': 'now {c} have'}
ASKED = {f'Where is the {T}': '{t} {q} where be', 'Have you seen (?P<x>[A-Z][a-z]+)': 'you {x} OBJ see',
         'What is your trade': 'you trade what be', 'Where do you live': 'you where live',
         'How many things do you have': 'you howmany thing-OBJ have'}
REPLIES = {f'It is in the {P}': 'it {p}-IN be', f'It is with {N}': 'it {n} WITH be',
           'It is here with me': 'it I WITH here be', f'She is in the {P}': 'she {p}-IN be',
           f'He is in the {P}': 'he {p}-IN be', f'I live in the {P}': 'I {p}-IN live',
           'I am a (?P<trade>[a-z]+)': 'I {trade} be', 'I have (?P<c>nothing|(?:one|two|three) things?)': 'I {c} have'}


def all_forms():
    "(regular expression, gloss) of every kind of sentence but lists of things."
    forms = [(f'{WHEN}{WHO} {english}.', '{who} PAST {when}' + other) for english, other in PLAIN.items()]
    ends = {'': '{}', ' and met (?P<met>[A-Z][a-z]+)': '{} AND {met} OBJ meet',
            f' and saw the {T}': '{} AND {t}-OBJ {q} see', f' with the {T}': '{t}-WITH {q} {}'}
    for (walk, way), (end, other) in product((GO, WALK, HOME, GUIDE), ends.items()):
        forms.append((walk + end + '.', '{who} PAST {when}' + other.replace('{}', way)))
    for verb, word in {'lived': 'live', 'was': 'be'}.items():
        forms.append((f'{OWNER} {verb} in the {P}.', '{who} {trade}PAST {time}{p}-IN ' + word))
        forms.append((f'{OWNER} {verb} in the {P} with a {T}.', '{who} {trade}PAST {time}{p}-IN {t}-WITH {q} ' + word))
    forms += [(f'{WHEN}{WHO} asked {N}, "{question}?"', '{who} PAST {when}{n} TO "' + other + '?" ask')
              for question, other in ASKED.items()]
    forms += [(f'{SAID}"{reply}."', '{who} PAST "' + other + '" say') for reply, other in REPLIES.items()]
    for (spot, other), (start, word) in product(SPOTS.items(), {'By now': 'already', 'All this time': 'still'}.items()):
        forms.append((f'{start} the {T} {spot}.', '{t} {q} PAST ' + word + ' ' + other))
    for spot, other in SPOTS.items():
        end = f'In the end the {T} {spot}, and {N} felt (?P<m>[a-z]+).'
        forms.append((end, '{t} {q} PAST finally ' + other + ' AND {n} {m} feel'))
    return [(re.compile(re.sub(r'([.?])("?)$', r'\\\1\2', english)), other) for english, other in forms]


FORMS = all_forms()
COUNTED = {'nothing': 'nothing-OBJ', 'one thing': 'thing-OBJ one', 'two things': 'thing-OBJ two',
           'three things': 'thing-OBJ three'}
BY_HAND = {
    'She now had two things.': 'ri zu gomi valuru vozi pafa.',
    'One summer day Ruth the doctor lived in the cave with a white key.':
        'Ruth votu zu gibi kebuvi lugugu guke loda.',
    'There was a red lamp in the mill and a blue rope in the barn and a small map in the cave.':
        'zu fonuvi risu zoge viza va kozuvi gufu nise viza va kebuvi vudu kuve viza.',
    'By now the large bell was with Zoe.': 'sanu kole zu zeli Zoe gu viza.',
    'Viktor said, "It is here with me."': 'Viktor zu "bi du gu leki viza" faka.',
    'Later he gave the green ring to Ines.': 'vo zu fisi Ines ke zosuru tase gusa.',
    'In the end the red lamp was in the mill, and Odo felt sad.':
        'risu zoge zu teni fonuvi viza va Odo gize voma.'}


def by_expression(sentence):
    "The gloss of a sentence, from regular expressions alone."
    if sentence.startswith('There was a '):
        things = re.findall(f'a {T} in the {P}', sentence)
        return 'PAST ' + ' AND '.join(f'{p}-IN {t} {q} be' for q, t, p in things) + '.'
    found = [(match, other) for form, other in FORMS if (match := form.fullmatch(sentence))]
    assert len(found) == 1, sentence
    values = {key: value or '' for key, value in found[0][0].groupdict().items()}
    time = values.get('one') or values.get('long')
    spaced = {'time': time, 'trade': values.get('trade'), 'when': values.get('when', '').lower()}
    if 'said' not in sentence: values |= {key: value + ' ' if value else '' for key, value in spaced.items()}
    if 'c' in values: values['c'] = COUNTED[values['c']]
    if values.get('who') in ('She', 'He'): values['who'] = values['who'].lower()
    return found[0][1].format(**values) + '.'


def into_words(glossed):
    return re.sub(r'\w+', lambda found: LEXICON[found[0]], glossed).replace('-', '')


def cut(text):
    "Sentences of an English text."
    return re.findall(r'[^ .?][^.?]*[.?]"?', text)


def digest(rows): return sha256(json.dumps(list(rows), sort_keys=True).encode()).hexdigest()[:16]


@pytest.fixture(scope='module')
def rows():
    "Of both levels: training, and held out."
    return {(level, start): list(translation_rows(300 if level == 1 else 40, level, start=start))
            for level in (1, 2) for start in (0, HELD_START)}


@pytest.fixture(scope='module')
def sentences():
    "All different sentences of 3,000 stories, short ones and long ones."
    texts = [task_story(5, i).text for i in range(2700)] + [write_story(i).text for i in range(300)]
    return list(dict.fromkeys(sentence for text in texts for sentence in cut(text)))


def test_by_hand():
    for source, target in BY_HAND.items():
        assert translate(source) == target and translate_back(target) == source


def test_every_sentence_has_one_translation(sentences):
    targets = [translate(sentence) for sentence in sentences]  # refuses what has no parse, or two
    assert len(set(targets)) == len(sentences) > 10_000
    number = 13_000  # about as many as 2,000 stories have
    assert [translate_back(target) for target in targets[:number]] == sentences[:number]
    kinds = {form.pattern for form, _ in FORMS for sentence in sentences[:6000] if form.fullmatch(sentence)}
    assert len(kinds) == len(FORMS)  # every kind of sentence was among them


def test_the_way_back():
    for i in range(100):
        text = task_story(6, i).text
        assert translate_back(translate(text)) == text


def test_translations_from_the_text_alone(rows):
    for some in rows.values():
        for row in some:
            glosses = [by_expression(sentence) for sentence in cut(row['source'])]
            assert row['target'] == into_words(' '.join(glosses))
            assert gloss(row['source']) == ' '.join(glosses)
            assert is_second_language(row['target']) and not is_second_language(row['source'])


def test_a_wrong_translation_is_seen(rows):
    rng = random.Random(0)
    for row in rows[1, 0] + rows[1, HELD_START]:
        words = row['target'][:-1].split()
        i = rng.randrange(len(words) - 1)
        swapped = ' '.join(words[:i] + [words[i + 1], words[i]] + words[i + 2:]) + '.'
        wanted = into_words(by_expression(row['source']))
        assert swapped != wanted and not is_second_language(swapped)
        other = row['target'].replace(words[0], next(w for w in LEXICON.values() if w != words[0]), 1)
        assert other != wanted


def pairs_of(text):
    "(quality, thing) and (verb, place) pairs, from the text alone."
    qualities, things, places = ('|'.join(words) for words in (QUALITIES, THINGS, PLACES))
    found = set(re.findall(rf'({qualities}) ({things})\b', text))
    for sentence in cut(text):
        for place in re.findall(rf'(?:in|to) the ({places})\b', sentence):
            verbs = {'lived in': 'live', 'I live': 'live', 'went home': 'return', 'walked': 'walk', 'went': 'go',
                     'visited': 'visit', 'left': 'leave', 'last seen': 'recall', 'was': 'be', 'is in': 'be'}
            found.add((next(verb for word, verb in verbs.items() if word in sentence), place))
    return found


def test_pairs_that_never_meet_in_training(rows):
    training = {pair for level in (1, 2) for row in rows[level, 0] for pair in pairs_of(row['source'])}
    words = {word for pair in training for word in pair}
    for level in (1, 2):
        for row in rows[level, HELD_START]:
            new = pairs_of(row['source']) & set(map(tuple, (pair.split() for pair in row['meta']['held'])))
            assert new and not new & training and len(new) == len(row['meta']['held'])
            assert {word for pair in new for word in pair} <= words  # each word by itself is known
    assert words == {*QUALITIES, *THINGS, *PLACES, *'live be go walk return visit leave recall'.split()}
    for row in rows[1, 0] + rows[2, 0]: assert not row['meta']['held'] and not held_pairs(row['source'])
    assert held_pairs('She left the yellow bell in the barn.') == [('yellow', 'bell'), ('leave', 'barn')]


def test_nothing_is_in_both(rows):
    for part in ('source', 'target'):
        seen, held = ({row[part] for level in (1, 2) for row in rows[level, start]} for start in (0, HELD_START))
        assert not seen & held
    stories = [{row['meta']['story'] for level in (1, 2) for row in rows[level, start]} for start in (0, HELD_START)]
    assert max(stories[0]) < HELD_START <= min(stories[1])


def test_rows_depend_on_their_number_alone(rows):
    for (level, start), some in rows.items():
        assert list(translation_rows(5, level, start=start)) == some[:5]
        assert list(translation_rows(2, level, start=start + 3)) == some[3:5]
    other = list(translation_rows(3, seed=1))
    for row in other: assert row['source'] in task_story(1, row['meta']['story']).text
    assert other != rows[1, 0][:3]
    assert (digest(rows[1, 0][:20]), digest(rows[2, HELD_START][:5])) == DIGESTS


DIGESTS = 'd4d6de53b0e3ce8b', '957ca7a04912afc9'


def test_rows_are_well_formed(rows):
    for (level, start), some in rows.items():
        assert len({row['id'] for row in some}) == len(some)
        for i, row in enumerate(some):
            assert list(row) == ['id', 'source', 'target', 'meta'] and json.loads(json.dumps(row)) == row
            assert row['id'] == f'translation-{level}-0-{start + i}'
            assert row['meta']['task'] == 'translation' and row['meta']['level'] == level
            text = task_story(0, row['meta']['story']).text
            assert row['source'] == text if level == 2 else row['source'] in cut(text)
            last = re.findall(r'\w+', by_expression(row['source']))[-1] if level == 1 else 'story'
            assert row['meta']['kind'] == last


@pytest.mark.parametrize('level', [0, 3, '1', None])
def test_no_such_level(level):
    with pytest.raises(UserError, match=r'^--level .*translation has level 1 or 2$'): list(translation_rows(1, level))


def test_the_words():
    new = {gloss: word for gloss, word in LEXICON.items() if gloss not in NAMES}
    stems = {word for word in new.values() if len(word) == 4}
    endings = [new[ending] for ending in ('OBJ', 'IN', 'TO', 'WITH')]
    nouns = *PLACES, *THINGS, *TRADES, 'thing', 'song'
    forms = set(new.values()) | {new[noun] + end for noun in nouns for end in endings}
    assert len(set(new.values())) == len(new)
    for form in forms: assert re.fullmatch('([bdfgklmnprstvz][aeiou]){1,3}', form)
    world = {word.lower() for i in range(300) for word in re.findall(r'\w+', write_story(i).text)}
    english = {word for page in topics.values() for word in re.findall(r'[a-z]+', page.lower())}
    assert not forms & (world | english | set(LEXICON))
    for a, b in product(stems, stems): assert a == b or sum(x != y for x, y in zip(a, b)) >= 2


NONE = ['', ' ', '.', 'Mira', 'Mira took the red lamp', 'Mira  took the red lamp.', 'mira took the red lamp.',
        'Mira took the red lamp. ', 'Mira took the lamp red.', 'Mira zu risuru zoge zuka.', 'Mira ate.',
        'Then Mira now had nothing.', 'Then She felt sad.', 'She said, "Mira is in the mill."', 'x' * 100_000,
        'There was' + ' a red lamp in the mill and' * 2000 + ' a red lamp in the mill.']


@pytest.mark.parametrize('text', NONE, ids=range(len(NONE)))
def test_no_sentence_of_the_stories(text):
    with pytest.raises(ValueError, match='^no sentence of the stories: '): translate(text)
    if text != 'Mira zu risuru zoge zuka.': assert not is_second_language(text)


def test_no_sentence_of_the_second_language():
    for text in ('Mira zu risuru zoge zuka', 'zu Mira risuru zoge zuka.', 'Mira zu risu zoge zuka.', 'Mira zu',
                 'Mira risuru zoge zuka.', 'Mira zu risuru zuka.', 'Mira zu zoge risuru zuka.', 'ri zu zoge. ',
                 'Mira zu risuru zoge zuka. ',
                 'Mira zu risuru zoge zuka.\n', 'Ri zu risuru zoge zuka.', '. ' * 50_000, 'Mira zu ' * 20_000 + '.'):
        assert not is_second_language(text)
        with pytest.raises(ValueError, match='^no sentence of the stories: '): translate_back(text)
    assert is_second_language('Mira zu risuru zoge zuka. ri zu zime voma.')
