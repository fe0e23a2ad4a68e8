"What `grade` asks of the answers to the exercises of the chapter `arithmetic`."
import random
from collections import Counter

import regex

from llmbook.text.bpe import BPE, train_bpe
from llmbook.text.framing import GPT2_WORDS
from llmbook.text.vocabulary import OwnBPE


def _merging(text, n_merges):
    "A tokenizer of one text, with GPT-2's expression, so that digits may be merged."
    bpe = BPE(train_bpe(Counter(regex.findall(GPT2_WORDS, text)), n_merges))
    merges = [(bpe.pieces[left], bpe.pieces[right]) for left, right in bpe.merges]
    return OwnBPE(dict(enumerate(bpe.pieces)), merges, pattern=GPT2_WORDS)


def check_1(answer):
    "Sums whose result is cut."
    cut = sum(a + b > 999 for a in range(100, 1000) for b in range(100, 1000)) / 810_000
    assert abs(float(answer) - cut) < 0.005, f"{float(answer):.2f} is not the share of results above 999."


def check_2(answer):
    "Columns of many summands."
    rng = random.Random(0)
    cases = [['47', '85'], ['5', '1234', '70'], ['99'] * 25, ['9' * 60, '1', '1']]
    cases += [[str(rng.randrange(10 ** rng.randint(1, 5))) for _ in range(rng.randint(2, 9))] for _ in range(40)]
    for numbers in cases:
        text = answer(list(numbers))
        assert isinstance(text, str), "Return a text."
        *lines, result = text.split(',')
        shown = ', '.join(numbers[:3]) + (' ...' if len(numbers) > 3 else '')
        assert result == str(sum(map(int, numbers))), f"The result for {shown} is wrong."
        width = max(map(len, numbers))
        assert len(lines) == width, f"{shown}: {width} columns, please."
        carry = None
        for place, line in enumerate(lines):
            digits = [number[-1 - place] if place < len(number) else '0' for number in numbers]
            terms = digits if carry is None else [*digits, str(carry)]
            value = sum(map(int, terms))
            assert line == '+'.join(terms) + f'={value}', f"{shown}: column {place + 1} is wrong."
            carry = value // 10


def check_3(answer):
    "Families of products and quotients."
    held = total = 0
    for a in range(2, 40):
        for b in range(a, 40):
            texts = [f'{a}*{b}=', f'{b}*{a}=', f'{a*b}/{a}=', f'{a*b}/{b}=']
            sides = [bool(answer(text)) for text in texts]
            assert len(set(sides)) == 1, f"{texts[sides.index(True)]} is for exams, {texts[sides.index(False)]} is not."
            assert sides == [bool(answer(text)) for text in texts], "Asked twice, it says something else."
            held += sides[0]
            total += 1
    assert 0.14 < held / total < 0.26, f"{held / total:.2f} of the families are for exams, not about a fifth."


def check_4(answer):
    "(text, merges, numbers that are one token)."
    text, merges, numbers = answer
    assert 20_000 <= len(text) <= 1_000_000, f"20,000 to a million characters, please; here are {len(text):,}."
    assert 500 <= int(merges) <= 5000, "500 to 5,000 merges, please."
    bpe = _merging(text, int(merges))
    single = [number for number in range(10, 100) if len(bpe.encode(str(number))) == 1]
    assert sorted(map(int, numbers)) == single, "That is not what this text and so many merges give."
