"What `grade` asks of the answers to the exercises of the chapter `grammar`."
import re
from copy import deepcopy

from llmbook.text.grammar import is_story
from llmbook.text.ledger import Reader, Writer
from llmbook.text.state import State

BROKEN = ('One summer day Tom the weaver was in the tower with a small coin. Dora the painter was in the tower. '
          'Nora lived in the harbour with a blue pot. There was a black mirror in the tower. Nora walked to the '
          'market. Tom took the black mirror. He gave the small coin to Dora. He looked for the blue pot in '
          'vain. He went to the school and met Nora. Tom felt glad. In the end the black mirror was with Tom, '
          'and Nora felt lonely.')


def check_1(answer):
    "One word changed, and the text is a story."
    old, new = BROKEN.split(), answer.split()
    assert len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == 1, "Change exactly one word."
    assert is_story(answer), "Not a story yet: ask `parse` where it stops."


def check_2(answer):
    "How probable it is that Nora takes the rope."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Go through the table: for each condition, is there anything that Nora could do it with? Add up what remains."
    assert abs(answer - 6/13.45) < 0.006, hint


def check_3(answer):
    "Two things change owners, the words say so, and the reader agrees."
    start = State(cast=['Mira', 'Tom', 'Nora', 'Odo'], things=['lamp', 'key', 'rope', 'bell', 'drum'])
    start.where = dict(Mira='mill', Tom='mill', Nora='mill', Odo='barn')
    start.where |= dict(lamp='Mira', key='Mira', rope='Tom', bell='Nora', drum='Odo')
    start.quality = dict(lamp='red', key='small', rope='blue', bell='black', drum='white')
    start.came = dict.fromkeys(start.things)
    for seed in range(30):
        s, w = deepcopy(start), Writer(seed)
        answer(w, s, 'Mira')
        text = ''.join(w.parts)
        said = re.fullmatch(r' (\w+) (\w+) for the (\w+) (\w+) with (\w+)\.', text)
        assert said, f"Not as asked: {'Mira swapped the' + text!r}."
        first, mine, second, theirs, other = said.groups()
        assert first == start.quality.get(mine) and second == start.quality.get(theirs), "A thing has another's quality."
        assert start.where[mine] == 'Mira', f"Mira does not have the {mine}."
        assert start.where[theirs] == other and other in ('Tom', 'Nora'), f"{other} cannot give the {theirs}."
        assert s.where == start.where | {mine: other, theirs: 'Mira'}, "The state is not what the words say."
        again, r = deepcopy(start), Reader(text)
        answer(r, again, 'Mira')
        assert r.choices == w.choices and again.where == s.where, "Read back, the sentence does something else."
