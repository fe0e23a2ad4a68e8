"The whole book in one run, at a size of seconds: resumes after a kill, opens in transformers, reads any text."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llmbook import book
from llmbook.core import Interrupted, UserError
from llmbook.model.checkpoints import load_model, newest_checkpoint
from llmbook.model.completion import continue_text, generate_text, prompts_from
from llmbook.model.generate import generate

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(stories=40, steps=4, vocab_size=300, pretrain_only=True)
MARKERS = ['text/pydoc/corpus.json', 'tokenizer/tokenizer_config.json', 'tokens/tokenizer_config.json', 'counted.json',
           'plan.json', 'pretrain/loss.png', 'results.json', 'samples.json']


@pytest.fixture(scope='module', autouse=True)
def few_documents():
    "Reading all of Python's documentation takes seconds; the first pages are enough here."
    pages = book.pydoc_documents()[:20]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, 'pydoc_documents', lambda: pages)
        yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A run that nobody disturbed."
    out = tmp_path_factory.mktemp('book')/'run'
    return book.run(out=str(out), **TINY).parent


def results(out): return [json.loads((out/name).read_text()) for name in ('results.json', 'samples.json')]


def test_report_has_every_section(whole):
    text = (whole/'report.md').read_text()
    for section in ('The ladder: world', 'Loss: pretrain', 'What it writes', 'Held-out real text', 'The run: pretrain',
                    'Settings: pretrain', 'Text that was read', 'Tokens that were kept', 'All samples', 'How to continue'):
        assert f'## {section}' in text, section
    assert all(f'| {rung} |' in text for rung in ('uniform', 'unigram', '5-gram', 'unigram by kind', 'model', 'exact floor'))
    assert (whole/'report.html').exists() and 'commit' in text
    tasks, samples = results(whole)
    assert not tasks['tasks']['world']['under_floor'] and tasks['tasks']['pydoc']['bits_per_byte'] > 0
    assert samples[0]['prompt'] == '' and all(s['truth'] and s['text'].startswith(s['prompt'].strip()) for s in samples[1:])


def test_second_start_does_nothing(whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob('*') if p.is_file()}
    began = time.monotonic()
    book.run(out=str(whole), **TINY)
    said = capsys.readouterr().out
    assert said.count('done before') == 9 and '...' not in said and time.monotonic() - began < 30
    assert 'exact floor' in said and str(whole/'report.html') in said and 'llmbook generate' in said
    written = {p.name.split('-')[0] for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert written <= {'next.json', 'report.md', 'report.html', 'report'}


def test_another_flag_is_refused(whole):
    with pytest.raises(UserError, match=r'holds another run \(--steps was 4, now 5\)') as e:
        book.run(out=str(whole), **TINY | {'steps': 5})
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('name', MARKERS)
def test_killed_before_a_marker(whole, name):
    was = results(whole)
    (whole/name).unlink()
    book.run(out=str(whole), **TINY)
    assert (whole/name).exists() and results(whole) == was


@pytest.mark.parametrize('step', ['_make_tokens', *(pytest.param(step, marks=pytest.mark.slow)
                                                   for step in ('_collect', 'pretrain', '_finish'))])
def test_killed_after_a_step(whole, tmp_path, step, monkeypatch):
    "The work of a step is done, and the process ends there."
    out = tmp_path/'run'
    work = getattr(book, step)
    def killed(*args, **kwargs):
        work(*args, **kwargs)
        raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(book, step, killed)
        book.run(out=str(out), **TINY)
    book.run(out=str(out), **TINY)
    mine, theirs = results(out), results(whole)
    assert mine[0]['tasks'] == theirs[0]['tasks'] and mine[1] == theirs[1]


def test_opens_in_transformers(whole):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = newest_checkpoint(whole/'pretrain')
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ours, own = load_model(whole/'pretrain')
    prompt = json.loads((whole/'samples.json').read_text())[1]['prompt']
    ids = torch.tensor([[1, *own.encode(prompt, add_special_tokens=False).ids]])
    assert tokenizer(prompt, add_special_tokens=False)['input_ids'] == ids[0, 1:].tolist()
    with torch.no_grad(): torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=0)
    wrote = generate(ours, ids, 20, temperature=0, end=2)
    theirs.generation_config.max_length = None
    assert theirs.generate(ids, max_new_tokens=20, do_sample=False)[0].tolist() == wrote[0].tolist()


def test_own_text(tmp_path, capsys):
    "A folder of two files in a script without spaces, and one with."
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/a.txt').write_text('吾輩は猫である。名前はまだ無い。' * 60)
    (tmp_path/'mine/b.md').write_text('Der Müller schlief in der Mühle. ' * 60)
    page = book.run(text=str(tmp_path/'mine'), out=str(tmp_path/'run'), steps=4, vocab_size=300)
    tasks, samples = results(page.parent)
    assert [r['name'] for r in tasks['tasks']['text']['ladder']] == ['uniform', 'unigram', '5-gram', 'model']
    assert 'Mühle' in samples[1]['prompt'] + samples[1]['truth'] and 'gap_closed' not in tasks['tasks']['text']
    assert '## Held-out real text' in page.with_suffix('.md').read_text()
    said = capsys.readouterr().out
    assert '--tasks text --text' in said and 'Mira' not in said


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    "A run on a text of its own, that nobody disturbed; and how to give the command again."
    d = tmp_path_factory.mktemp('written')
    (d/'mine.txt').write_text('Der Müller schlief in der Mühle. ' * 90)
    def again(text=d/'mine.txt', out=d/'run', **more):
        return book.run(text=str(text), out=str(out), **dict(steps=2, vocab_size=300) | more)
    again()
    return d, again


def test_an_edited_text_is_read_again(written, capsys, monkeypatch):
    "Every step is done again, the old run stays beside it, and one line says so."
    d, again = written
    before = (d/'run/results.json').read_bytes()
    with open(d/'mine.txt', 'a') as f: f.write('Die Katze saß am Fluss. ' * 9)
    capsys.readouterr()
    again()
    out = capsys.readouterr().out
    assert out.startswith(f"{d/'mine.txt'} has been edited since") and 'done before' not in out and out.count('edited since') == 1
    assert (d/'run.old1/results.json').read_bytes() == before != (d/'run/results.json').read_bytes()
    assert 'Katze' in (d/'run/text/text/val/documents.jsonl').read_text()
    again()
    assert capsys.readouterr().out.count('done before') == 8 and not (d/'run.old2').exists()


def test_paths_are_compared_resolved(written, capsys, monkeypatch):
    d, again = written
    monkeypatch.chdir(d)
    monkeypatch.setenv('HOME', str(d))
    (d/'link.txt').symlink_to('mine.txt')
    for text in ('mine.txt', './mine.txt', '../' + d.name + '/mine.txt', '~/mine.txt', 'link.txt'):
        again(text=text, out='run')
        assert capsys.readouterr().out.count('done before') == 8, text
    (d/'copy.txt').write_text('Another text by another name. ' * 90)
    with pytest.raises(UserError, match='does not hold what this run began with') as e: again(text='copy.txt')
    assert '\n' not in str(e.value)


def test_an_edited_text_with_another_flag_is_another_run(written):
    d, again = written
    before = (d/'mine.txt').read_text()
    (d/'mine.txt').write_text(before + 'Mehr.')
    with pytest.raises(UserError, match='--steps was 2, now 3'): again(steps=3)
    assert not (d/'run.old2').exists()
    (d/'mine.txt').write_text(before)


def test_what_a_killed_process_left_is_removed(written, capsys):
    "Files of processes that have ended, at any depth; those of others that live, and files of other names, stay."
    d, again = written
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    dead = [d/'run/text/text/val'/f'.documents.jsonl.{ended.pid}.tmp', d/'run/tokens'/f'.train.ids.npy.{os.getpid()}.tmp',
            d/'run'/f'.counted.json.{ended.pid}.tmp']
    alive = [d/'run/text/text'/f'.documents.jsonl.{os.getppid()}.tmp', d/'run/text/text/.mine.tmp', d/'run/notes.5.tmp']
    for path in dead + alive: path.write_text('half')
    again()
    assert not any(path.exists() for path in dead) and all(path.exists() for path in alive)
    for path in alive: path.unlink()


@pytest.mark.parametrize('name, content', [
    ('counted.json', '{"uniform": [1.0], "unigram": [null], "5-gram": []}'), ('counted.json', '[]'), ('counted.json', '{'),
    ('plan.json', '{"steps": "2", "speed": {}}'), ('plan.json', '{"steps": 2, "speed": {"precision": 3}}'),
    ('plan.json', '{"steps": 2, "speed": {"precision": "fp32", "threads": 1, "compile": false, "x": 1}}'), ('plan.json', '3'),
    ('results.json', '{"tasks": {"text": {"tokens": null, "ladder": 3}}}'), ('results.json', '{}'),
    ('samples.json', '[{"prompt": 3}]'), ('samples.json', '{}'), ('config.json', '[]'),
    ('config.json', '{"command": "run", "args": 3}')])
def test_damaged_files_of_a_run_are_one_line(written, name, content):
    d, again = written
    path = d/'run'/name
    before, loss = path.read_text(), (d/'run/pretrain/loss.png').read_bytes()
    path.write_text(content)
    (d/'run/pretrain/loss.png').unlink() # or the rungs are not asked for
    with pytest.raises(UserError) as e: again()
    assert '\n' not in str(e.value) and name in str(e.value)
    path.write_text(before)
    (d/'run/pretrain/loss.png').write_bytes(loss)


def test_generate_takes_the_folder_of_the_whole_run(written):
    d, again = written
    assert generate_text(str(d/'run'), 'Der', n=3)[0].startswith('Der')


@pytest.mark.parametrize('step', ['_collect', '_make_tokens', '_measure'])
def test_a_signal_names_the_step_and_leaves_no_half(written, tmp_path, step, monkeypatch):
    "The signal comes after the step has written, and before it is done."
    d, again = written
    out = tmp_path/'run'
    shutil.copytree(d/'run', out)
    for marker in ('text/text/corpus.json', 'tokenizer/tokenizer_config.json', 'tokens/tokenizer_config.json', 'counted.json',
                   'plan.json', 'results.json', 'samples.json'): (out/marker).unlink()
    work = getattr(book, step)
    def stopped(*args, **kwargs):
        work(*args, **kwargs)
        raise Interrupted(signal.SIGTERM)
    with monkeypatch.context() as m, pytest.raises(Interrupted) as e:
        m.setattr(book, step, stopped)
        again(out=out)
    assert 'stopped by SIGTERM in the step' in str(e.value) and 'resumes' in str(e.value) and e.value.number == 15
    again(out=out)
    assert [(out/name).read_bytes() for name in ('counted.json', 'samples.json', 'tokens/train.ids.npy')] == \
        [(d/'run'/name).read_bytes() for name in ('counted.json', 'samples.json', 'tokens/train.ids.npy')]


def test_a_run_does_not_read_what_it_writes(tmp_path):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine/a.txt').write_text('a b ' * 500)
    for out in (tmp_path/'mine', tmp_path/'mine/run', tmp_path):
        with pytest.raises(UserError, match='must lie apart from --text'): book.run(text=str(tmp_path/'mine'), out=str(out))
    assert [p.name for p in (tmp_path/'mine').iterdir()] == ['a.txt']


@pytest.mark.parametrize('flags', [dict(minutes=0.0), dict(minutes=float('inf')), dict(minutes=float('nan')), dict(seed=-1),
                                   dict(seed=2**63), dict(vocab_size=2*10**6), dict(out=''), dict(text='')])
def test_numbers_that_no_run_takes(tmp_path, flags, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'t.txt').write_text('a b ' * 500)
    flag = '--' + next(iter(flags)).replace('_', '-')
    with pytest.raises(UserError, match=flag) as e: book.run(**dict(text='t.txt', out='r') | flags)
    assert '\n' not in str(e.value) and not (tmp_path/'r').exists()


def test_text_that_will_not_do(tmp_path):
    out, small = tmp_path/'run', tmp_path/'small.txt'
    for name, content in (('no.txt', None), ('empty.txt', '  \n'), ('x.pdf', '%PDF')):
        if content is not None: (tmp_path/name).write_text(content)
        with pytest.raises(UserError) as e: book.run(text=str(tmp_path/name), out=str(out), steps=4)
        assert '\n' not in str(e.value) and name in str(e.value) and not out.exists()
    small.write_text('Odo slept . ' * 9)
    for _ in range(2):
        with pytest.raises(UserError, match='the corpus is shorter than one block.*--fresh') as e:
            book.run(text=str(small), out=str(out), steps=4, vocab_size=300)
        assert '\n' not in str(e.value)
    small.write_text('Odo slept . ' * 200)
    book.run(text=str(small), out=str(out), steps=4, vocab_size=300, fresh=True)


@pytest.mark.parametrize(('flags', 'words'), [
    (dict(steps=0), '--steps 0'), (dict(minutes=-1.0), '--minutes -1'), (dict(stories=0), '--stories 0'),
    (dict(steps=3, minutes=1.0), 'give one of them'), (dict(size='nanno'), 'nano'), (dict(vocab_size=20), '20')])
def test_flags_that_cannot_be(tmp_path, flags, words):
    with pytest.raises(UserError, match=words) as e: book.run(out=str(tmp_path/'run'), **flags)
    assert '\n' not in str(e.value)


def test_openings():
    one = [{'id': 'a', 'text': 'Long ago Mira lived in the mill by the river'}, {'id': 'b+', 'text': 'der that was cut off'}]
    assert prompts_from(one, words=3) == [('Long ago Mira', ' lived in the mill by the river'), ('that was cut', ' off')]
    for text in ('word ' * 400, 'あ' * 900, 'x', ' \n ', 'a' * 500 + ' b'):
        for start, rest in prompts_from([{'id': 'c', 'text': text}]): assert start + rest in text and len(start) <= 60


def test_samples_do_not_touch_the_training(whole):
    model, tokenizer = load_model(whole/'pretrain')
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model.train()
    first = continue_text(model, tokenizer, 'a', 3, 10)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert continue_text(model, tokenizer, 'a', 3, 10) == first


def test_plan_fits_the_minutes(whole, monkeypatch):
    monkeypatch.setattr(book, 'rows_per_second', lambda *_: 40.0)
    plan = book._plan_steps(whole/'tokens', 'nano', 10.0, 0)
    assert plan['steps'] == round(0.75*600*40/16/20)*20 and plan['speed']['precision'] == 'fp32'


@pytest.mark.slow
def test_killed_at_any_instant(tmp_path):
    "SIGKILL after 1, 2, 3 ... seconds, until a start gets through."
    command = [sys.executable, '-m', 'llmbook', 'run', '--stories', '40', '--steps', '6', '--vocab-size', '300',
               '--pretrain-only']
    env, out = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}, tmp_path/'killed'
    subprocess.run([*command, '--out', str(tmp_path/'whole')], env=env, check=True, capture_output=True)
    for seconds in range(4, 60, 2):
        p = subprocess.Popen([*command, '--out', str(out)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            p.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            os.kill(p.pid, signal.SIGKILL)
            p.communicate()
    assert p.returncode == 0
    mine, theirs = results(out), results(tmp_path/'whole')
    assert mine[0]['tasks'] == theirs[0]['tasks'] and mine[1] == theirs[1] and not list(out.rglob('.*.tmp'))
