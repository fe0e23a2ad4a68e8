"What `grade` asks of the answers to the exercises of the chapter `book`."
import math
import shlex
import tempfile
from pathlib import Path

from llmbook.core import UserError


def check_1(answer):
    "The share of time that is lost to checkpoints and to kills."
    answer = float(answer)
    rare, often = 4/104 + 50/600, 4/24 + 10/600
    assert not math.isclose(answer, often, rel_tol=0.05), "That is the worse of the two."
    assert not math.isclose(answer, 4/104, rel_tol=0.05), "Steps that are done again cost time too."
    assert math.isclose(answer, rare, rel_tol=0.05), "Two shares add up: time spent saving, and time lost at each kill."


def check_2(answer):
    "Steps that run again."
    needs = {'text': [], 'tokenizer': ['text'], 'tokens': ['text', 'tokenizer'], 'plan': [], 'training': ['tokens', 'plan']}
    everything = set(needs)
    cases = [
        (everything, set(), []),
        (set(), set(), list(needs)),
        (everything, {'plan'}, ['plan', 'training']),
        (everything - {'tokenizer'}, set(), ['tokenizer', 'tokens', 'training']),
        (everything - {'training'}, {'tokens'}, ['tokens', 'training'])]
    for done, changed, right in cases:
        steps = list(answer(needs, done, changed))
        missing = sorted(everything - done) or 'no marker'
        edited = sorted(changed) or 'nothing'
        assert steps == right, f"With {missing} missing and {edited} changed it says {steps}."


def check_3(answer):
    "A result that is kept once it is complete."
    with tempfile.TemporaryDirectory() as name:
        done, calls = Path(name)/'done', []

        def failing():
            calls.append('failed')
            raise KeyboardInterrupt

        def working():
            calls.append('worked')
            assert not done.exists(), "The file is there while the work is still going on."
            return 'the result'

        for work in (failing, failing, working, working):
            try: result = answer(done, work)
            except KeyboardInterrupt: continue
            assert result == 'the result', f"After {calls} it returned {result!r}."
        assert calls == ['failed', 'failed', 'worked'], f"The work was called like this: {calls}."
        assert done.exists() and done.read_text() == 'the result', "The result was not kept."


def check_4(answer):
    "The command for a reader's own text."
    from llmbook.book import run
    from llmbook.flags import read_args
    from llmbook.scale.engine import engine_flags
    words = shlex.split(answer)
    assert words[:2] == ['llmbook', 'run'], "It begins with llmbook run."
    try: args = read_args(words[2:], run, engine_flags)[0]
    except UserError as e: raise AssertionError(f"The command line says: {e}") from None
    assert args.get('text'), "Which text?"
    assert args.get('out') not in (None, 'runs/book'), "runs/book belongs to the run of the book; this one needs its own folder."
    assert args.get('full') or args.get('size') == 'tiny', "That trains the smaller size."
    assert args.get('minutes') == 30, "How long?"
    assert args.get('vocab_size') == 4096, "How many tokens in the vocabulary?"
