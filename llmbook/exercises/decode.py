"What `grade` asks of the answers to the exercises of the chapter `decode`."
import torch


def check_1(answer):
    "What memory allows."
    alone, together = map(float, answer)
    assert abs(alone - 50) > 1, "Two bytes to a weight."
    assert abs(alone - 25) < 1, "How many bytes does a step read, and how often can they be read in a second?"
    assert abs(together - alone) > 1, "The weights are read once for a step, whatever the rows are."
    assert abs(together - 200) < 8, "A step gives a token to each row."


def check_2(answer):
    "The scale of the scores, in the queries."
    g = torch.Generator().manual_seed(0)
    weight, bias, x, keys = (torch.randn(shape, generator=g) for shape in ((6, 4), (6,), (3, 4), (5, 6)))
    found = answer(weight, None, 6)
    assert isinstance(found, tuple) and len(found) == 2, "Return a weight and a bias."
    assert found[1] is None, "Without a bias there is none to scale."
    for b in (None, bias):
        query = x @ weight.T + (0 if b is None else b)
        new_weight, new_bias = answer(weight, b, 6)
        new_query = x @ new_weight.T + (0 if new_bias is None else new_bias)
        off = (new_query @ keys.T - query @ keys.T / 6**0.5).abs().max()
        assert off < 1e-4, f"The scores are off by {off:.2f}" + (" where there is a bias." if b is not None else ".")


def check_3(answer):
    "Orders that nobody sees."
    assert not isinstance(answer, str), "Give a list of letters."
    found = {str(letter).strip().lower() for letter in answer}
    assert found <= set('abcd'), "The letters are a, b, c and d."
    assert 'a' not in found, "Who reads the values, and in which order?"
    assert 'c' not in found, "Which two numbers are turned together then?"
    assert found == {'b', 'd'}, "One is missing."
