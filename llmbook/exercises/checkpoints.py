"What `grade` asks of the answers to the exercises of the chapter `checkpoints`."
import tempfile
from pathlib import Path

import torch

from llmbook.files import atomic_folder


def check_1(answer):
    "(step, warnings) of a run that resumes."
    step, warnings = answer
    assert step != 400, "The folder of step 400 was never finished, so it never got its name."
    assert step != 300, "A file of step 300 is missing, so its manifest does not hold."
    assert step != 200, "There is a newer one that holds, under another kind of name."
    assert step == 250, "Go through the folders from the newest step to the oldest."
    hint = "Each folder that is looked at and does not hold gets a line"
    assert warnings == 1, f"{hint}; the search ends at the first that holds."


def check_2(answer):
    "Names of the checkpoints that are older than the newest `keep` that hold."
    with tempfile.TemporaryDirectory() as run:
        folders = {step: Path(run)/'checkpoints'/f'step-{step:08d}' for step in range(1, 6)}
        for step, folder in folders.items():
            with atomic_folder(folder, step=step) as stage:
                (stage/'config.json').write_text(f'{{"step": {step}}}')

        def steps(keep):
            names = answer(run, keep)
            assert names is not None, "It returns nothing so far."
            return {int(name.removeprefix('step-')) for name in names}

        def damage(step): (folders[step]/'config.json').write_text('{}')

        found = steps(2)
        assert found == {1, 2, 3}, f"All five hold and two are kept: steps 1, 2 and 3 are old, not {found}."
        damage(4)
        damage(5)
        found = steps(2)
        assert not found & {2, 3}, "Steps 4 and 5 are damaged; after this no two that hold would be left."
        assert found == {1}, f"Steps 4 and 5 are damaged, 3 and 2 are kept: only step 1 is old, not {found}."
        assert steps(4) == set(), "Only three hold, fewer than the four to keep: nothing is old."
        damage(1)
        found = steps(2)
        assert found == {1}, f"Step 1 is damaged as well, and older than the two that are kept; {found} are named."


def check_3(answer):
    "Are two state dicts the same, bit for bit?"
    w = torch.arange(1.0, 7).view(2, 3) / 7
    broken = torch.tensor([1.0, float('nan')])
    model = {'a': w, 'b': broken}
    assert answer(model, {'a': w.clone(), 'b': broken.clone()}), "A model with NaN is the same as its copy."
    zeros = torch.zeros(4)
    pairs = {
        "rounded to bf16 and back": ({'a': w}, {'a': w.bfloat16().float()}),
        "one unit in the last place off": ({'a': w}, {'a': torch.nextafter(w, w + 1)}),
        "without its last name": ({'a': w, 'b': w}, {'a': w}),
        "with two names exchanged": ({'a': w, 'b': 2 * w}, {'b': w, 'a': 2 * w}),
        "of another shape": ({'a': w}, {'a': w.view(3, 2)}),
        "of another type": ({'a': zeros}, {'a': zeros.int()}),
        "with other bits for the same value": ({'a': zeros}, {'a': -zeros}),
    }
    for what, (a, b) in pairs.items():
        try: passed = answer(a, b)
        except RuntimeError: passed = False
        assert not passed, f"A model {what} passes."
