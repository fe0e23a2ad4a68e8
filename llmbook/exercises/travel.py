"What `grade` asks of the answers to the exercises of the chapter `travel`."


def check_1(answer):
    "What travels with a function."
    assert sorted(answer) == ['a', 'b', 'c', 'd'], "Each of the four letters once is expected."
    right = 'bdac'
    places = sum(ours == theirs for ours, theirs in zip(answer, right))
    hint = "Ask of each: does it go by name or as code? And what is part of it before it is called?"
    assert answer == right, f"{places} of 4 are in their place. {hint}"
