"What `grade` asks of the answers to the exercises of the chapter `travel`."


def check_1(answer):
    "What travels with a function."
    assert sorted(answer) == ['a', 'b', 'c'], "Each of the three letters once is expected."
    assert answer[-1] == 'a', "A global that a function mentions travels with it."
    assert answer == 'cba', "The code of a function of a cell travels, line by line."
