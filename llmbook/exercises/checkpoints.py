"What `grade` asks of the answers to the exercises of the chapter `checkpoints`."


def check_1(answer):
    "(step, warnings) of a run that resumes."
    step, warnings = answer
    assert step != 400, "The folder of step 400 was never finished, so it never got its name."
    assert step != 300, "A file of step 300 is missing, so its manifest does not hold."
    assert step != 200, "There is a newer one that holds, under a hidden name."
    assert step == 250, "Go through the folders from the newest step to the oldest."
    assert warnings == 1, "A line is printed for each folder that is looked at and does not hold, before the first that holds."


def check_2(answer):
    "Names of the checkpoints that are older than the newest `keep` that hold."
    import tempfile
    from pathlib import Path

    from llmbook.files import atomic_folder
    with tempfile.TemporaryDirectory() as run:
        for step in range(1, 6):
            with atomic_folder(Path(run)/'checkpoints'/f'step-{step:08d}', step=step) as stage:
                (stage/'config.json').write_text(f'{{"step": {step}}}')

        def steps(keep):
            names = answer(run, keep)
            assert names is not None, "It returns nothing so far."
            return {int(name.removeprefix('step-')) for name in names}
        assert steps(2) == {1, 2, 3}, f"All five hold and two are kept: steps 1, 2 and 3 are old, not {steps(2)}."
        for step in (4, 5): (Path(run)/'checkpoints'/f'step-{step:08d}'/'config.json').write_text('{}')
        assert not steps(2) & {2, 3}, "Steps 4 and 5 are damaged; after this no two checkpoints that hold would be left."
        assert steps(2) == {1}, f"Steps 4 and 5 are damaged, 3 and 2 are kept: only step 1 is old, not {steps(2)}."
        assert steps(4) == set(), "Only three hold, fewer than the four to keep: nothing is old."


def check_3(answer):
    "Are two state dicts the same, bit for bit?"
    import torch
    w = torch.arange(1.0, 7).view(2, 3) / 7
    broken = torch.tensor([1.0, float('nan')])
    assert answer({'a': w, 'b': broken}, {'a': w.clone(), 'b': broken.clone()}), "A model with NaN is the same as its copy."
    pairs = {
        "rounded to bf16 and back": ({'a': w}, {'a': w.bfloat16().float()}),
        "one unit in the last place off": ({'a': w}, {'a': torch.nextafter(w, w + 1)}),
        "without its last name": ({'a': w, 'b': w}, {'a': w}),
        "with two names exchanged": ({'a': w, 'b': 2 * w}, {'b': w, 'a': 2 * w}),
        "of another shape": ({'a': w}, {'a': w.view(3, 2)}),
        "of another type": ({'a': torch.zeros(4)}, {'a': torch.zeros(4, dtype=torch.int32)}),
        "with the other zero": ({'a': torch.zeros(2)}, {'a': -torch.zeros(2)}),
    }
    for what, (a, b) in pairs.items():
        try: passed = answer(a, b)
        except RuntimeError: passed = False
        assert not passed, f"A model {what} passes."
