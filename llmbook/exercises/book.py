"What `grade` asks of the answers to the exercises of the chapter `book`."
import shlex
from pathlib import Path


def check_1(answer):
    "Steps that fit into a time."
    assert not abs(float(answer) - 1200) < 1, "Some of the time is kept back: 0.93 of it is for steps."
    assert abs(float(answer) - 1116) < 11, "Seconds times rows per second, over rows a batch, times 0.93."


def check_2(answer):
    "Steps that run again."
    done = ['text', 'tokenizer', 'plan']
    order = ['text', 'tokenizer', 'tokens', 'plan', 'training']
    assert answer(order, done) == ['tokens', 'training'], "A step runs when its own marker is missing, and only then."
    assert answer(order, order) == [], "All markers are there: nothing runs."
    assert answer(order, []) == order, "No marker: everything runs, in order."


def check_3(answer):
    "A step whose marker comes last and whole."
    import tempfile
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        for fails in (True, True, False):
            def work(fails=fails):
                (room/'part.txt').write_text('part')
                if fails: raise KeyboardInterrupt
            try: answer(room/'done', work)
            except KeyboardInterrupt: pass
            assert not (fails and (room/'done').exists()), "The marker is there, and the work was killed."
            assert fails or (room/'done').exists(), "No marker after the work."
        def never(): raise AssertionError("Done before, and done again.")
        answer(room/'done', never)


def check_4(answer):
    "The command for a reader's own text."
    words = shlex.split(answer)
    assert words[:2] == ['llmbook', 'run'], "It begins with llmbook run."
    flags = dict(zip(words[2::2], words[3::2]))
    assert '--text' in flags, "Say which text with --text."
    assert flags.get('--out', 'runs/book') != 'runs/book', "runs/book belongs to the run of the book; give an --out of its own."
    assert '--minutes' in flags or '--steps' in flags, "Say how long: --minutes, or --steps."
