"What `grade` asks of the answers to the exercises of the chapter `privacy`."
import math


def check_1(answer):
    "A precision that a checksum leaves."
    assert isinstance(answer, (int, float)), "Give a number between 0 and 1."
    assert 0 < answer < 1, "It is a share: between 0 and 1."
    assert math.isclose(answer, 0.2, abs_tol=0.01), "How many of the order numbers pass the check by chance?"


def _isbn(first:str)->str:
    "A number of a book that begins with these twelve digits."
    total = sum(int(digit) * (3 if i % 2 else 1) for i, digit in enumerate(first))
    return first + str(-total % 10)


def check_2(answer):
    "A checksum with the weights 1 and 3."
    for first in ('978316148410', '978030640615', '979123456789', '978000000000'):
        right = _isbn(first)
        wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
        swapped = right[:4] + right[5] + right[4] + right[6:]
        assert answer(right) is not None, "Return True or False."
        assert answer(right), f"{right} is a number of a book."
        assert answer(f'{right[:3]}-{right[3]}-{right[4:9]}-{right[9:12]}-{right[12]}'), "Hyphens are allowed."
        assert not answer(wrong), f"{wrong}: the last digit is wrong."
        if (int(right[4]) - int(right[5])) % 5: assert not answer(swapped), f"{swapped}: two digits are swapped."
    assert not answer(_isbn('978316148410')[:-1]), "12 digits are too few."
    assert not answer('0' * 14), "14 digits are too many."


def check_3(answer):
    "Limits on both sides."
    masked = (('at 00:1a:2b:3c:4d:5e.', 'at <mac>.'), ('AA:BB:CC:DD:EE:FF', '<mac>'), ('(00:1a:2b:3c:4d:5e)', '(<mac>)'))
    for text, wanted in masked: assert answer(text) == wanted, f"{text!r} should become {wanted!r}."
    longer = ('fe80:00:11:22:33:44:55:66', '00:11:22:33:44:55:66:77', 'sha1 da:39:a3:ee:5e:6b:4b:0d:32:55')
    hint = "Something that is no number of a network card is destroyed. What else is written in pairs?"
    for text in longer: assert answer(text) == text, hint
    for text in ('x00:1a:2b:3c:4d:5e', '12:30:45', 'a00:1a:2b:3c:4d:5ef'): assert answer(text) == text, "Too much is masked."
    assert answer('link:00:1a:2b:3c:4d:5e') == 'link:<mac>', "A colon before it does not always belong to it."
    assert answer('00:1a:2b:3c:4d:5e: up') == '<mac>: up', "Nor does a colon after it."
