"What `grade` asks of the answers to the exercises of the chapter `hf_format`."
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def check_1(answer):
    "Bytes of a file."
    twice = 4*(2*100*8 + 20)
    once = 4*(100*8 + 20)
    assert answer != twice, "Tied: the matrix of the logits is the embedding, and stored once."
    assert answer == once, "Count the numbers of the matrix and the others; each takes the bytes of an fp32."


def check_2(answer):
    "(numbers, bytes) of a file's tensors, from its header."
    tensors = {
        'a': torch.zeros(3, 5),
        'b': torch.zeros(7, dtype=torch.bfloat16),
        'one': torch.tensor(1.0, dtype=torch.float64),
        'none': torch.zeros(0, 4)}
    numbers = 3*5 + 7 + 1
    size = 4*3*5 + 2*7 + 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/'model.safetensors'
        for metadata in (None, {'format': 'pt'}):
            save_file(tensors, path, metadata=metadata)
            found = answer(path)
            assert found is not None, "It returns nothing so far."
            assert len(found) == 2, "Return a pair, (numbers, bytes)."
            assert found[0] == numbers, f"A file with {numbers} numbers of several shapes, not {found[0]}."
            assert found[1] == size, f"Its numbers are of several types and take {size} bytes, not {found[1]}."
        path.write_bytes(path.read_bytes()[:-size])
        try: found = answer(path)
        except Exception: found = None
        assert found == (numbers, size) or found == [numbers, size], \
            "Of this file only the header has arrived. It says everything that is asked."
