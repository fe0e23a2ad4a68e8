"What `grade` asks of the answers to the exercises of the chapter `grammar`."
from llmbook.text.grammar import is_story


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
