"What `grade` asks of the answers to the exercises of the chapter `loop`."

def check_1(answer):
    "How often to save."
    for given, steps in (((0.5, 4, 5), 759), ((2, 30, 24), 1138), ((600, 1, 0.1), 1)):
        found = answer(*given)
        assert isinstance(found, int) and found >= 1, "Return a whole number of steps, at least 1."
        assert abs(found - steps) <= 1, f"{given}: about {steps} steps, not {found}."
