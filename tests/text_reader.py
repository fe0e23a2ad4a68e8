"""A second reader of stories, written from the sentences alone: the witness of the tests of tasks.

It shares no code and no table with `llmbook.text`. A story is cut into sentences, each sentence is matched by one
pattern, and what it tells is applied to a `World`. A sentence that no pattern matches raises `Unreadable`; one that
cannot be true at its place raises `Untrue`, and one that stories never say there `Unusual`.
"""
import re
from typing import NamedTuple

SHE = 'Mira Nora Ana Clara Pia Wanda Lena Greta Ruth Dora Zoe Ines'.split()
HE = 'Tom Odo Bruno Felix Hugo Karl Paul Emil Jonas Viktor Oskar Ivo'.split()
PLACES = 'mill barn garden market forest castle school tower cave valley harbour kitchen'.split()
THINGS = 'lamp rope bell book coin drum flute hammer kettle key ladder map mirror pot ring basket spoon shell'.split()
QUALITIES = 'red blue green white black yellow small large'.split()
TRADES = 'baker miller smith tailor farmer fisher painter weaver doctor teacher'.split()
GOOD = 'glad happy thankful proud calm merry rested hopeful relieved'.split()
BAD = 'sad lonely bored tired'.split()
NUMBERS = ['nothing', 'one thing', 'two things', 'three things']
WAITS = {'waited for a while': 'bored', 'sang a song': 'merry', 'slept for an hour': 'rested'}

class Unreadable(ValueError): "No sentence of the world."
class Untrue(ValueError): "A sentence of the world that cannot be true here."
class Unmeant(Untrue): "A pronoun that means nobody here."
class Unusual(Untrue): "True, but no story says it here: nobody sets out twice in a row, nothing is told twice ..."

def _any(words): return '(?:' + '|'.join(words) + ')'

_PARTS = {'N': _any(SHE + HE), 'P': _any(PLACES), 'T': f'{_any(QUALITIES)} {_any(THINGS)}', 'J': _any(TRADES),
         'M': _any(GOOD + BAD), 'C': _any(NUMBERS), 'W': _any(WAITS)}

def _pattern(text):
    "`{who:N} took the {thing:T}` as a regular expression with groups who and thing."
    return re.compile(re.sub(r'\{(\w+):(\w)\}', lambda m: f'(?P<{m[1]}>{_PARTS[m[2]]})', text))

_INTRO = _pattern(r'(?:(?:One morning|One evening|One summer day|Long ago) )?{who:N}(?: the {trade:J})? '
                  r'(?P<verb>lived|was) in the {place:P}(?: with a {thing:T})?\.')
_LIE = _pattern(r'a {thing:T} in the {place:P}')
_LAY = re.compile(rf'There was ({_LIE.pattern.replace("?P<thing>", "?:").replace("?P<place>", "?:")}'
                  r'(?: and |\.$)){1,3}')
_SPOT = r'was (?:in the {place:P}|with {other:N})'
_REPORT = _pattern(r'(?P<start>By now|All this time) the {thing:T} ' + _SPOT + r'\.')
_END = _pattern(r'In the end the {thing:T} ' + _SPOT + r', and {who:N} felt {mood:M}\.')
_SUBJECT = re.compile(rf'(?:(?P<adverb>Then|Soon|Later) )?(?P<who>{_PARTS["N"]}|She|He|she|he) (?P<deed>.*)', re.S)
_ARRIVAL = r'(?: and met {met:N}| and saw the {saw:T}| with the {thing:T}|)\.'
_DEEDS = {name: _pattern(text) for name, text in {
    'go': r'(?:went|walked) to the {place:P}' + _ARRIVAL,
    'home': r'went home to the {place:P}' + _ARRIVAL,
    'together': r'went with {other:N} to the {place:P}' + _ARRIVAL,
    'visit': r'visited {other:N} in the {place:P}\.',
    'take': r'(?:took|picked up) the {thing:T}\.',
    'leave': r'left the {thing:T} in the {place:P}\.',
    'give': r'gave the {thing:T} to {other:N}\.',
    'find': r'looked for the {thing:T} and found it\.',
    'miss': r'looked for the {thing:T} in vain\.',
    'recall': r'had last seen the {thing:T} in the {place:P}\.',
    'feel': r'felt {mood:M}\.',
    'count': r'now had {count:C}\.',
    'wait': r'{wait:W}\.',
    'ask where': r'asked {other:N}, "Where is the {thing:T}\?"',
    'ask who': r'asked {other:N}, "Have you seen {about:N}\?"',
    'ask trade': r'asked {other:N}, "What is your trade\?"',
    'ask home': r'asked {other:N}, "Where do you live\?"',
    'ask many': r'asked {other:N}, "How many things do you have\?"'}.items()}
_REPLY = re.compile(rf'(?P<who>{_PARTS["N"]}|She|He) said, "(?P<words>.*)"')
_REPLIES = {name: _pattern(text) for name, text in {
    'ask where': r'It is (?:in the {place:P}|with {other:N}|here with (?P<me>me))\.',
    'ask who': r'(?P<pronoun>She|He) is in the {place:P}\.',
    'ask trade': r'I am a {trade:J}\.',
    'ask home': r'I live in the {place:P}\.',
    'ask many': r'I have {count:C}\.'}.items()}

def sentences(text):
    "(offset, sentence) of a text; a question and its answer are two."
    found, start = [], 0
    for gap in re.finditer(r'(?<=[."]) (?=[A-Z])', text):
        found.append((start, text[start:gap.start()]))
        start = gap.end()
    return [*found, (start, text[start:])]

class Told(NamedTuple):
    "One thing that a sentence says happened."
    deed: str
    who: str|None = None
    thing: str|None = None
    place: str|None = None
    other: str|None = None
    value: str|None = None
    at: int = 0     # sentence number

class World:
    "What is true after some sentences of a story; `facts`, (name, trade or home) -> value, are known beforehand."
    def __init__(self, facts=()):
        self.facts = dict(facts)
        self.cast, self.things, self.places = [], [], []      # in order of mention; things as `red lamp`
        self.where, self.came, self.mood, self.walks = {}, {}, {}, {}
        self.seen, self.trail, self.trade, self.home = {}, {}, {}, {}
        self.told = []        # (name, relation, value), each once, in order: trade, home, first
        self.log = []         # of Told
        self.said_mood = {}   # name -> mood, as last told since it changed
        self.moved, self.told_where, self.asked, self.counted, self.turns = set(), set(), set(), {}, 0
        self.subject = self.pronoun = self.question = None
        self.stage = 'people'
        self.at = 0           # number of the sentence

    def carried(self, who): return [t for t in self.things if self.where[t] == who]
    def lying(self, place): return [t for t in self.things if self.where[t] == place]
    def here(self, who): return [n for n in self.cast if n != who and self.where[n] == self.where[who]]
    def spot(self, thing): return self.where.get(self.where[thing], self.where[thing])
    def gifts(self): return [(t.who, t.thing, t.other) for t in self.log if t.deed == 'give']

    def need(self, true, why, error=Untrue):
        if not true: raise error(f'sentence {self.at}: {why}')
    def usual(self, true, why): self.need(true, why, Unusual)
    def last(self): return self.log[-1]
    def know(self, *names):
        for name in names: self.need(name in self.where, f'{name} was never introduced')
    def note(self, deed, who=None, thing=None, place=None, other=None, value=None):
        self.log.append(Told(deed, who, thing, place, other, value, self.at))
    def about(self, who, other=None):
        "Now `she` or `he` means `who`, unless it could mean `other`."
        self.subject = who
        self.pronoun = who if other is None or (other in SHE) != (who in SHE) else None
    def tell(self, name, relation, value):
        if (name, relation, value) not in self.told: self.told.append((name, relation, value))
    def feel(self, who, mood):
        self.mood[who] = mood
        self.said_mood.pop(who, None)
    def stroll(self, who, mood):
        "The mood after a walk: every third one is tiring."
        self.feel(who, 'tired' if self.walks[who] % 3 == 0 else mood)
    def look(self, place):
        for name in self.cast:
            if self.where[name] != place: continue
            for thing in self.things:
                if self.spot(thing) == place: self.seen[name, thing] = place
    def move(self, who, place):
        self.need(self.where[who] != place, f'{who} is in the {place} already')
        self.where[who] = place
        self.trail[who].append(place)
        self.walks[who] += 1
        self.mention(place)
    def mention(self, place):
        if place not in self.places: self.places.append(place)
    def hand(self, thing, to):
        self.came[thing], self.where[thing] = self.where[thing], to
        self.moved.add(thing)
        self.told_where.discard(thing)
    def new_thing(self, thing, where):
        quality, noun = thing.split()
        for other in self.things: self.need(quality not in other and noun not in other.split(), f'a second {thing}')
        self.things.append(thing)
        self.where[thing], self.came[thing] = where, None

    def read(self, text):
        "Apply all sentences of a text."
        for _, sentence in sentences(text): self.hear(sentence)
        return self

    def hear(self, sentence):
        "Apply one sentence."
        if self.stage == 'over': raise Unreadable(f'after the end: {sentence}')
        if self.question:
            self.turns += 1
            self.answer(sentence)
        elif self.stage == 'people': self.open(sentence)
        elif m := _END.fullmatch(sentence): self.end(m)
        else:
            self.turns += 1
            if m := _REPORT.fullmatch(sentence): self.report(m)
            else: self.act(sentence)
        self.at += 1

    def open(self, sentence):
        m = _INTRO.fullmatch(sentence)
        if m and bool(re.match('One|Long', sentence)) == (not self.cast) and len(self.cast) < 3:
            self.introduce(m)
        elif _LAY.fullmatch(sentence) and len(self.cast) > 1: self.lay(sentence)
        else: raise Unreadable(sentence)

    def introduce(self, m):
        who, place = m['who'], m['place']
        self.need(who not in self.where, f'{who} is introduced twice')
        self.cast.append(who)
        self.where[who], self.trail[who], self.mood[who], self.walks[who] = place, [place], 'calm', 0
        self.said_mood[who] = 'calm'
        self.mention(place)
        if m['trade']: self.learn('trade', who, m['trade'])
        if m['verb'] == 'lived': self.learn('home', who, place)
        self.tell(who, 'first', place)
        if m['thing']: self.new_thing(m['thing'], who)
        self.note('intro', who, m['thing'], place)
        self.counted[who] = len(self.carried(who))

    def learn(self, relation, who, value):
        known = self.trade if relation == 'trade' else self.home
        self.need(known.get(who, value) == value, f'{who} has another {relation}')
        self.need(self.facts.get((who, relation), value) == value, f'{who} has another {relation} in all stories')
        known[who] = value
        self.tell(who, relation, value)

    def lay(self, sentence):
        for m in _LIE.finditer(sentence):
            self.new_thing(m['thing'], m['place'])
            self.mention(m['place'])
            self.note('lie', None, m['thing'], m['place'])
        for place in self.places: self.look(place)
        self.stage = 'deeds'

    def where_told(self, m):
        self.know(m['thing'], *filter(None, [m['other']]))
        self.need(self.where[m['thing']] == (m['place'] or m['other']), f'the {m["thing"]} is elsewhere')
    def end(self, m):
        self.where_told(m)
        self.know(m['who'])
        self.need(self.mood[m['who']] == m['mood'], f'{m["who"]} feels {self.mood[m["who"]]}')
        self.note('end', m['who'], m['thing'], m['place'], m['other'], m['mood'])
        self.stage = 'over'
    def report(self, m):
        self.where_told(m)
        self.need((m['thing'] in self.moved) == (m['start'] == 'By now'), f'{m["start"]}?')
        self.usual(m['thing'] not in self.told_where | {self.last().thing}, f'where the {m["thing"]} is was just said')
        self.usual(self.turns > 3, 'too early for a report')
        self.told_where.add(m['thing'])
        self.note('report', None, m['thing'], m['place'], m['other'])
        self.subject = self.pronoun = None

    def person(self, word):
        "Whom a name or a pronoun means."
        if word.lower() not in ('she', 'he'):
            self.know(word)
            return word
        meant = self.pronoun and (self.pronoun in SHE) == (word.lower() == 'she')
        self.need(meant, f'nobody is meant by {word}', Unmeant)
        return self.pronoun

    def act(self, sentence):
        m = _SUBJECT.fullmatch(sentence)
        if not m or bool(m['adverb']) != (m['who'] in ('she', 'he')) and m['who'] in ('she', 'he', 'She', 'He'):
            raise Unreadable(sentence)
        found = {deed: pattern.fullmatch(m['deed']) for deed, pattern in _DEEDS.items()}
        deed, d = next(((deed, d) for deed, d in found.items() if d), (None, None))
        if deed is None: raise Unreadable(sentence)
        if m['adverb'] and deed in ('recall', 'count'): raise Unreadable(sentence)
        found = d.groupdict()
        self.know(*filter(None, [found.get(key) for key in ('thing', 'saw', 'other', 'met', 'about')]))
        who = self.person(m['who'])
        self.need(who not in found.values(), f'{who} alone is no company')
        getattr(self, '_' + deed.split()[0])(who, d, deed)

    def _go(self, who, d, deed):
        other = d.groupdict().get('other')
        if deed == 'go':
            walked = self.last().deed in ('go', 'home', 'together', 'visit') and self.last().who == who
            self.usual(not walked, f'{who} walked just now')
        if other: self.need(other in self.here(who), f'{other} is elsewhere')
        if deed == 'home': self.learn('home', who, d['place'])
        if other:
            self.move(other, d['place'])
            self.stroll(other, 'merry')
        self.move(who, d['place'])
        others, lying = [n for n in self.here(who) if n != other], self.lying(d['place'])
        if d['met']: self.need(d['met'] in others, f'{d["met"]} is elsewhere')
        if d['saw']: self.need(d['saw'] in lying and not others, f'the {d["saw"]} is elsewhere, or somebody is met')
        if d['thing']: self.need(d['thing'] in self.carried(who), f'{who} does not carry the {d["thing"]}')
        if not (d['met'] or d['saw'] or d['thing']): self.need(not others and not lying, 'something is there')
        mood = 'merry' if other else 'glad' if others else 'hopeful' if lying else 'lonely'
        self.stroll(who, mood)
        self.look(d['place'])
        self.note(deed, who, d['thing'] or d['saw'], d['place'], other)
        self.about(who, d['met'] or (None if d['saw'] else other))
    _home = _together = _go

    def _visit(self, who, d, deed):
        self.need(self.where[d['other']] == d['place'], f'{d["other"]} is elsewhere')
        self.move(who, d['place'])
        self.stroll(who, 'glad')
        self.feel(d['other'], 'merry')
        self.look(d['place'])
        self.note('visit', who, None, d['place'], d['other'])
        self.about(who, d['other'])

    def _take(self, who, d, deed):
        thing = d['thing']
        self.need(self.where[thing] == self.where[who] and self.came[thing] != who, f'the {thing} is not to be taken')
        self._get(who, thing, 'take', 'happy')
    def _get(self, who, thing, deed, mood):
        self.hand(thing, who)
        self.feel(who, mood)
        self.note(deed, who, thing, self.where[who])
        self.about(who)
    def _leave(self, who, d, deed):
        thing = d['thing']
        self.need(self.where[thing] == who and self.where[who] == d['place'], f'{who} cannot leave the {thing} there')
        self.need(self.came[thing] != d['place'], f'the {thing} was picked up right here')
        self.hand(thing, d['place'])
        self.feel(who, 'calm')
        self.note('leave', who, thing, d['place'])
        self.about(who)
    def _give(self, who, d, deed):
        thing, other = d['thing'], d['other']
        self.need(self.where[thing] == who and other in self.here(who), f'{who} cannot give the {thing}')
        self.need(self.came[thing] != other, f'{other} gave it')
        self.hand(thing, other)
        self.feel(who, 'proud')
        self.feel(other, 'thankful')
        self.note('give', who, thing, self.where[who], other)
        self.about(who, other)
    def _missing(self, who, thing):
        self.usual(self.last().deed != 'miss', 'two who look in vain in a row')
        near = [who, *self.here(who)]
        self.need(self.where[thing] not in near and self.came[thing] != who, f'{who} knows where the {thing} is')
    def _find(self, who, d, deed):
        self._missing(who, d['thing'])
        self.need(self.where[d['thing']] == self.where[who], 'it is not here')
        self._get(who, d['thing'], 'find', 'relieved')
    def _miss(self, who, d, deed):
        self._missing(who, d['thing'])
        self.need(self.where[d['thing']] != self.where[who], 'it is here')
        self.feel(who, 'sad')
        self.note('miss', who, d['thing'], self.where[who])
        self.about(who)
    def _recall(self, who, d, deed):
        thing = d['thing']
        self.need(self.seen.get((who, thing)) == d['place'], f'{who} saw the {thing} elsewhere or never')
        self.need(self.spot(thing) != self.where[who], f'the {thing} is here')
        self.note('recall', who, thing, d['place'])
        self.about(who)
    def _feel(self, who, d, deed):
        self.need(self.mood[who] == d['mood'], f'{who} feels {self.mood[who]}')
        self.need(who not in self.said_mood, f'the mood of {who} is known')
        self.said_mood[who] = d['mood']
        self.note('feel', who, value=d['mood'])
        self.about(who)
    def _count(self, who, d, deed):
        self.need(NUMBERS[len(self.carried(who))] == d['count'], f'{who} has {self.carried(who)}')
        self.usual(self.counted[who] != len(self.carried(who)), 'the number was told before')
        self.counted[who] = len(self.carried(who))
        self.note('count', who, value=d['count'])
        self.about(who)
    def _wait(self, who, d, deed):
        self.usual(self.last().deed not in WAITS, 'two who wait in a row')
        self.feel(who, WAITS[d['wait']])
        self.note(d['wait'], who, None, self.where[who])
        self.about(who)
    def _ask(self, who, d, deed):
        found = d.groupdict()
        self.need(d['other'] in self.here(who), f'{d["other"]} is elsewhere')
        if thing := found.get('thing'): self.need(self.where[thing] != who, f'{who} has the {thing}')
        if about := found.get('about'): self.need(self.where[about] != self.where[who], f'{about} is here')
        topic = found.get('thing') or found.get('about') or (deed, d['other'])
        self.usual(topic not in self.asked or deed == 'ask many', f'{topic} was asked for before')
        self.asked.add(topic)
        self.question = deed, who, d['other'], found.get('thing') or found.get('about')

    def answer(self, sentence):
        deed, asker, who, about = self.question
        m = _REPLY.fullmatch(sentence)
        r = m and _REPLIES[deed].fullmatch(m['words'])
        if not r: raise Unreadable(sentence)
        clear = (asker in SHE) != (who in SHE)
        speaker = ('She' if who in SHE else 'He') if clear else who
        self.need(m['who'] == speaker, f'{who} is asked', Unmeant)
        value = self._reply(deed, who, about, r)
        self.note(deed, asker, about, self.where[who], who, value)
        self.about(who, asker)
        self.question = None

    def _reply(self, deed, who, about, r):
        if deed == 'ask trade':
            self.learn('trade', who, r['trade'])
            return r['trade']
        if deed == 'ask home':
            self.learn('home', who, r['place'])
            return r['place']
        if deed == 'ask many':
            self.need(NUMBERS[len(self.carried(who))] == r['count'], f'{who} has {self.carried(who)}')
            return r['count']
        if deed == 'ask who':
            self.need((r['pronoun'] == 'She') == (about in SHE), f'{about} is no {r["pronoun"]}', Unmeant)
            spot = r['place']
        else: spot = who if r['me'] else r['place'] or r['other']
        self.need(self.where[about] == spot, f'{about} is elsewhere')
        self.need(r.groupdict().get('other') != who, f'{who} would say: here with me')
        return spot

def read(text):
    "The world at the end of a text; complete or not."
    world = World().read(text)
    if world.question: raise Unreadable('a question without an answer')
    return world

def is_complete(text):
    "Is this a story from its beginning to its end?"
    try: return read(text).stage == 'over'
    except ValueError: return False


# --- the second language ---

_WORDS = dict(pair.split(':') for pair in (
    'AND:va I:du OBJ:ru PAST:zu TO:ke WITH:gu ago:pesi already:zeli ask:daga awhile:zoki baker:gapu barn:kozu '
    'basket:meku be:viza bell:sanu black:bage blue:nise book:godu bored:nute calm:zime castle:nizu cave:kebu '
    'coin:davu doctor:votu drum:naru evening:lipi farmer:lidu feel:voma finally:teni find:nata fisher:tubu '
    'flute:rulu forest:lesu garden:muzu give:gusa glad:pabe go:moba green:tase hammer:kipu happy:noke '
    'harbour:suru have:pafa he:vo here:leki hopeful:mafe hour:nufi howmany:ladi it:bi kettle:fitu key:lugu '
    'kitchen:gilu ladder:refu lamp:risu large:kole later:fisi leave:mika lift:bula live:loda lonely:sege '
    'map:vudu market:pamu meet:lera merry:vufe mill:fonu miller:razu mirror:nupu morning:buni nothing:bavi '
    'now:gomi one:suti painter:tagu pot:sobu proud:veke recall:fuza red:zoge relieved:nefe rested:fure '
    'return:tela ring:zosu rope:gufu sad:gize say:faka school:vimu see:zasa seek:kova she:ri shell:pibu '
    'sing:mava sleep:kena small:kuve smith:doru song:dumu soon:sili spoon:nomu still:dami summer:gibi '
    'tailor:kasu take:zuka teacher:tiru thankful:soze then:sebi thing:valu tired:depe tower:buvu trade:semu '
    'two:vozi vainly:bidi valley:tepu visit:suda wait:fiva walk:kara weaver:delu what:zapi where:mubi white:guke '
    'yellow:gebe you:su').split())
_ADVERBS = dict(zip(('One morning', 'One evening', 'One summer day', 'Long ago', 'Then', 'Soon', 'Later', 'By now',
                     'All this time', 'In the end'),
                    'morning evening summer ago then soon later already still finally'.split(), strict=True))

def _word(gloss): return gloss if gloss in SHE + HE else _WORDS[gloss.lower() if gloss != 'I' else 'I']
def _ended(word, case): return f'{_word(word)} {_WORDS[case]}' if word in SHE + HE else _WORDS[word] + _WORDS[case]
def _place(word): return _WORDS[word] + 'vi'   # in
def _thing(text, case=None):
    "`red lamp`: the noun, with the ending of its case, before the quality."
    quality, noun = text.split()
    return f'{_ended(noun, case) if case else _WORDS[noun]} {_WORDS[quality]}'
def _count(text):
    number = text.split()[0]
    return _ended('nothing', 'OBJ') if number == 'nothing' else f'{_ended("thing", "OBJ")} {_WORDS[number]}'
def _said(verb, *parts): return ' '.join([*filter(None, parts), *(_WORDS[v] for v in verb.split())])

def _spot(d): return _place(d['place']) if d['place'] else _ended(d['other'], 'WITH')

def _arrival(verb, d):
    "A walk: with what, with whom, where to; then who is met or what is seen."
    found = d.groupdict()
    text = _said(verb, found['thing'] and _thing(found['thing'], 'WITH'),
                 found.get('other') and _ended(found['other'], 'WITH'), _ended(found['place'], 'TO'))
    if found['met']: text += f' va {_ended(found["met"], "OBJ")} {_WORDS["meet"]}'
    if found['saw']: text += f' va {_thing(found["saw"], "OBJ")} {_WORDS["see"]}'
    return text

_WAITING = {'waited for a while': 'awhile wait', 'slept for an hour': 'hour sleep'}

def _asking(deed, d):
    if deed == 'ask where': return _said('be', _thing(d['thing']), _WORDS['where'])
    if deed == 'ask who': return _said('see', 'su', _ended(d['about'], 'OBJ'))
    return {'ask trade': _said('trade what be', 'su'), 'ask home': _said('where live', 'su'),
            'ask many': _said('have', 'su', _WORDS['howmany'], _ended('thing', 'OBJ'))}[deed]

def _predicate(deed, words, d):
    "What follows the tense of a sentence about somebody."
    if deed == 'go': return _arrival('walk' if words.startswith('walked') else 'go', d)
    if deed in ('home', 'together'): return _arrival('return' if deed == 'home' else 'go', d)
    if deed == 'visit': return _said('visit', _place(d['place']), _ended(d['other'], 'OBJ'))
    if deed == 'take': return _said('take' if words.startswith('took') else 'lift', _thing(d['thing'], 'OBJ'))
    if deed in ('leave', 'recall'): return _said(deed, _place(d['place']), _thing(d['thing'], 'OBJ'))
    if deed == 'give': return _said('give', _ended(d['other'], 'TO'), _thing(d['thing'], 'OBJ'))
    if deed == 'find': return _said('seek AND find', _thing(d['thing'], 'OBJ'))
    if deed == 'miss': return _said('vainly seek', _thing(d['thing'], 'OBJ'))
    if deed == 'feel': return _said('feel', _WORDS[d['mood']])
    if deed == 'count': return _said('have', _WORDS['now'], _count(d['count']))
    if deed == 'wait':
        if d['wait'] == 'sang a song': return _said('sing', _ended('song', 'OBJ'))
        return _said(_WAITING[d['wait']])
    return _said('ask', _ended(d['other'], 'TO'), f'"{_asking(deed, d)}?"')

def _replied(r, deed):
    if deed == 'ask trade': return _said('be', 'du', _WORDS[r['trade']])
    if deed == 'ask home': return _said('live', 'du', _place(r['place']))
    if deed == 'ask many': return _said('have', 'du', _count(r['count']))
    if deed == 'ask who': return _said('be', _word(r['pronoun']), _place(r['place']))
    return 'bi du gu leki viza' if r['me'] else _said('be', 'bi', _spot(r))

def _second(sentence):
    "One sentence in the second language."
    adverb = next((start for start in _ADVERBS if sentence.startswith(start + ' ')), None)
    when = adverb and _WORDS[_ADVERBS[adverb]]
    if m := _INTRO.fullmatch(sentence):
        return _said('live' if m['verb'] == 'lived' else 'be', m['who'], m['trade'] and _WORDS[m['trade']], 'zu', when,
                     _place(m['place']), m['thing'] and _thing(m['thing'], 'WITH')) + '.'
    if _LAY.fullmatch(sentence):
        lying = [f'{_place(m["place"])} {_thing(m["thing"])} viza' for m in _LIE.finditer(sentence)]
        return f'zu {" va ".join(lying)}.'
    if m := _REPORT.fullmatch(sentence): return _said('be', _thing(m['thing']), 'zu', when, _spot(m)) + '.'
    if m := _END.fullmatch(sentence):
        return f'{_said("be", _thing(m["thing"]), "zu", when, _spot(m))} va {m["who"]} {_WORDS[m["mood"]]} voma.'
    if m := _REPLY.fullmatch(sentence):
        for deed, pattern in _REPLIES.items():
            if r := pattern.fullmatch(m['words']): return _said('say', _word(m['who']), 'zu', f'"{_replied(r, deed)}"') + '.'
    if m := _SUBJECT.fullmatch(sentence):
        for deed, pattern in _DEEDS.items():
            if d := pattern.fullmatch(m['deed']):
                return _said('', _word(m['who']), 'zu', when, _predicate(deed, m['deed'], d)) + '.'
    raise Unreadable(sentence)

def second_language(text):
    "The translation of sentences of stories."
    return ' '.join(_second(sentence) for _, sentence in sentences(text))

_VERBS = (('went home to', 'return'), ('went', 'go'), ('walked', 'walk'), ('visited', 'visit'), ('left', 'leave'),
          ('had last seen', 'recall'), ('live', 'live'), ('was', 'be'), ('is in', 'be'))

def word_pairs(text):
    "The pairs of a quality and a thing, and of a verb and a place, in a text."
    pairs = {tuple(m[0].split()) for m in re.finditer(rf'\b{_PARTS["T"]}\b', text)}
    for _, sentence in sentences(text):
        verb = next((gloss for words, gloss in _VERBS if re.search(rf'\b{words}', sentence)), None)
        for place in re.findall(rf'\b{_PARTS["P"]}\b', sentence): pairs.add((verb, place))
    return pairs
