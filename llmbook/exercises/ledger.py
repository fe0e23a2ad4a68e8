"What `grade` asks of the answers to the exercises of the chapter `ledger`."

def check_1(answer):
    "The entropy of the changed tiny world, in bits."
    assert isinstance(answer, (int, float)), "The answer is a number."
    hint = "Weigh Odo's own entropy by how often Odo is drawn, and add the bit for the name."
    assert abs(answer - 1.4056) < 0.006, hint
