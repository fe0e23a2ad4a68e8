"What `grade` asks of the answers to the exercises of the chapter `hf_format`."

def check_1(answer):
    "Bytes of a file."
    assert answer != 4*(2*100*8 + 20), "Tied: the matrix of the logits is the embedding, and stored once."
    assert answer == 4*(100*8 + 20), "Four bytes for each number of the 100 x 8 matrix and of the 20 others."


def check_2(answer):
    "(parameters, bytes) of a file's tensors."
    assert len(answer) == 2 and answer[0] > 0 and answer[1] > 0, "Give (numbers, bytes), both above zero."
    assert answer[1] / answer[0] in (1, 2, 4, 8), "Bytes over numbers is the size of one type; leave out the header."
