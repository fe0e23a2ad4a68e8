"What `grade` asks of the answers to the exercises of the chapter `lesson`."


def check_1(answer):
    "A number with a given square."
    assert answer*answer == 49, "Its square should be 49."
