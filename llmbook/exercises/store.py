"What `grade` asks of the answers to the exercises of the chapter `store`."


def check_1(answer):
    "Bytes of a split."
    assert answer != 2*3_000_000 + 8*4_001, "Two bytes count up to 65,535; the largest id here is 99,999."
    assert answer != 4*3_000_000 + 8*4_000, "One start is missing: the end of the last document is kept too."
    assert answer == 4*3_000_000 + 8*4_001, "So many bytes for each id, and eight for each start."
