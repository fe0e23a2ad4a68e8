"What `grade` asks of the answers to the exercises of the chapter `checkpoints`."



def check_1(answer):
    "Bytes of a file."
    assert answer != 4*(2*100*8 + 20), "Tied: the matrix of the logits is the embedding, and stored once."
    assert answer == 4*(100*8 + 20), "Four bytes for each number of the 100 x 8 matrix and of the 20 others."


def check_2(answer):
    "Names of the files that changed."
    old, new = {'a': '1', 'b': '2', 'c': '3'}, {'a': '1', 'b': '9', 'd': '4'}
    assert answer(old, old) is not None, "Return a set of names."
    assert set(answer(old, old)) == set(), "Nothing changed between a manifest and itself."
    assert set(answer(old, new)) == {'b', 'c', 'd'}, "b has another checksum, c is gone, d is new."


def check_3(answer):
    "Is a name safe?"
    for name in ('model.safetensors', 'trainer/rng-0.x', 'a..b'): assert answer(name), f"{name!r} is harmless."
    for name in ('../x', '/etc/passwd', 'a/../../x', '..', '', 'a//b', 'C:\\x', '.hidden'):
        assert not answer(name), f"{name!r} was let through."


def check_4(answer):
    "(parameters, bytes) of a file's tensors."
    assert len(answer) == 2 and answer[0] > 0 and answer[1] > 0, "Give (numbers, bytes), both above zero."
    assert answer[1] / answer[0] in (1, 2, 4, 8), "Bytes over numbers is the size of one type; leave out the header."
