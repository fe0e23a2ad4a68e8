"What `grade` asks of the answer to the exercise of the page `start`."
import re

from llmbook.text.state import NEGATIVE, POSITIVE
from llmbook.text.stories import read_story

TALE = ('One morning Mira the baker lived in the mill with a red lamp. Tom was in the barn. '
        'There was a small bell in the mill.')


def _accepted(text):
    "How many characters the world would have written."
    try: return len(read_story(text).text)
    except ValueError as problem: return int(re.search(r'character (\d+)', str(problem))[1])


def check_1(answer):
    "A sentence after which Tom is lonely."
    sentence = str(answer).strip()
    assert sentence.startswith('Tom ') and sentence.endswith('.'), "One sentence about Tom, with a full stop at its end."
    told = f'{TALE} {sentence}'
    n = _accepted(told)
    assert n >= len(told), f"The world would not write this sentence: it stops before {told[n:n + 20]!r}."
    prompt = f'{told} He felt'
    moods = [mood for mood in POSITIVE + NEGATIVE if _accepted(f'{prompt} {mood}') > len(prompt)]
    assert moods, "After this sentence the world would not say how he feels."
    assert moods == ['lonely'], f"After this sentence Tom feels {moods[0]}."
