"What `grade` asks of the answers to the exercises of the chapter `store`."


def check_1(answer):
    "Bytes of a split."
    tokens, documents = 3_000_000, 4_000
    short_ids = 2*tokens + 8*(documents + 1)
    assert answer != short_ids, "Two bytes count up to 65,535; the largest id here is 99,999."
    one_start_less = 4*tokens + 8*documents
    assert answer != one_start_less, "One start is missing: where the last document ends."
    right = 4*tokens + 8*(documents + 1)
    assert answer == right, "Add the bytes of all ids and the bytes of all starts."
