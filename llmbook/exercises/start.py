"What `grade` asks of the answer to the exercise of the page `start`."
import re

from llmbook.text.state import NEGATIVE, POSITIVE
from llmbook.text.stories import accepted

TALE = ('Long ago Tom the weaver lived in the castle. Nora was in the cave. '
        'Hugo was in the harbour with a red drum. There was a small bell in the mill.')


def check_1(answer):
    "Two sentences after which Tom is lonely in the cave or in the harbour."
    sentences = ' '.join(str(answer).split())
    assert sentences.endswith('.') and sentences.count('.') == 2, "Two sentences, each with a full stop at its end."
    last = sentences.split('. ')[1]
    assert re.search(r'\bTom\b.* (cave|harbour)\b', last), "The second sentence takes Tom to the cave or to the harbour."
    told = f'{TALE} {sentences}'
    n = accepted(told)
    assert n >= len(told), f"The world would not write this: it stops before {told[n:n + 20]!r}."
    prompt = f'{told} Tom felt'
    moods = [mood for mood in POSITIVE + NEGATIVE if accepted(f'{prompt} {mood}') > len(prompt)]
    assert moods, "After these sentences the world would not say how Tom feels."
    assert moods == ['lonely'], f"After these sentences Tom feels {moods[0]}."
