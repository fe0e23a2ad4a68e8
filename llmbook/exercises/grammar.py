"What `grade` asks of the answers to the exercises of the chapter `grammar`."
import re
from copy import deepcopy

from llmbook.text.grammar import is_story
from llmbook.text.ledger import Reader, Writer
from llmbook.text.state import State

BROKEN = ('One summer day Tom the weaver was in the tower with a small coin. '
          'Dora the painter was in the tower. Nora lived in the harbour with a blue pot. '
          'There was a black mirror in the tower. Nora walked to the market. '
          'Tom took the black mirror. He gave the small coin to Dora. '
          'He looked for the blue pot in vain. He went to the school and met Nora. Tom felt glad. '
          'In the end the black mirror was with Tom, and Nora felt lonely.')


def check_1(answer):
    "One word changed, and the text is a story."
    old, new = BROKEN.split(), answer.split()
    assert len(old) == len(new), "Change one word; add none and remove none."
    changed = [a for a, b in zip(old, new, strict=True) if a != b]
    assert len(changed) == 1, "Change exactly one word."
    assert is_story(answer), "Not a story yet: ask `parse` where it stops."


def check_2(answer):
    "How probable it is that Nora takes the rope."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "For each row of the table: does its condition hold for Nora? Only those weights count."
    assert abs(answer - 6/13.45) < 0.006, hint


def _market():
    "A state in which Mira can swap with Tom and Nora, but not with Odo."
    s = State(cast=['Mira', 'Tom', 'Nora', 'Odo'], things=['lamp', 'key', 'rope', 'bell', 'drum'])
    s.where = dict(Mira='mill', Tom='mill', Nora='mill', Odo='barn')
    s.where |= dict(lamp='Mira', key='Mira', rope='Tom', bell='Nora', drum='Odo')
    s.quality = dict(lamp='red', key='small', rope='blue', bell='black', drum='white')
    s.came = dict.fromkeys(s.things)
    return s


def _parts(text):
    "The two things and the other person of ` red lamp for the blue rope with Tom.`"
    said = re.fullmatch(r' (\w+) (\w+) for the (\w+) (\w+) with (\w+)\.', text)
    assert said, f"Not the words of the exercise: {'Mira swapped the' + text!r}."
    first, mine, second, theirs, other = said.groups()
    quality = _market().quality
    same = first == quality.get(mine) and second == quality.get(theirs)
    assert same, "A thing has another thing's quality."
    return mine, theirs, other


def check_3(answer):
    "Two things change owners, the words say so, and the reader agrees."
    before = _market()
    for seed in range(30):
        s = deepcopy(before)
        w = Writer(seed)
        answer(w, s, 'Mira')
        text = ''.join(w.parts)
        mine, theirs, other = _parts(text)
        assert before.where[mine] == 'Mira', f"Mira does not have the {mine}."
        holds = before.where[theirs] == other and other in ('Tom', 'Nora')
        assert holds, f"{other} cannot give the {theirs}."
        after = before.where | {mine: other, theirs: 'Mira'}
        assert s.where == after, "The state is not what the words say."
        again = deepcopy(before)
        r = Reader(text)
        answer(r, again, 'Mira')
        same = r.choices == w.choices and again.where == s.where
        assert same, "Read back, the sentence does something else."
