"Checkpoints: which is believed, what broken and half-written ones do, and that a kill leaves the old or the new one."

import errno
import itertools
import multiprocessing
import os
import shutil
import signal
import stat
import sys

import pytest
import torch
from safetensors.torch import save_file

from llmbook import files
from llmbook.core import UserError
from llmbook.files import atomic_folder, find_damage, read_json, write_json
from llmbook.model.checkpoints import book_model, load_model, model_folder, newest_checkpoint
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer

TEXTS = ['the lamp was in the mill and the boat was in the harbour. ' * 3, 'Odo went to the mill. Mira took the lamp.'] * 4


@pytest.fixture(scope='module')
def tokenizer(): return train_tokenizer(TEXTS, 300)


def small(vocab_size=40): return Transformer(Config(vocab_size, 64, 2, 4, 4, 32, 48, 'llama', True), seed=0).eval()


def checkpoint(run, step, model, tokenizer=None):
    with atomic_folder(run/'checkpoints'/f'step-{step:08d}', step=step, world=1) as stage:
        save_model(model, tokenizer, stage)
        (stage/'trainer').mkdir()
        save_file({'m': torch.ones(3)}, stage/'trainer'/'state.safetensors')
    return run/'checkpoints'/f'step-{step:08d}'


def test_manifest_faults(tmp_path, capsys):
    model = small(40)
    old, new = (checkpoint(tmp_path, step, model) for step in (1, 2))
    table = read_json(new/'manifest.json')
    assert table['step'] == 2 and table['format'] == 1 and 'trainer/state.safetensors' in table['files']
    assert find_damage(new) == ''
    kept = tmp_path/'kept'/new.name
    shutil.copytree(new, kept)
    weights, trainer = 'model.safetensors', 'trainer/state.safetensors'
    raw = (new/weights).read_bytes()

    def names(*pairs): return lambda: write_json(new/'manifest.json', table | {'files': table['files'] | dict(pairs)})
    harms = {
        f'{weights} was changed': lambda: (new/weights).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1])),
        f'{weights} was changed or': lambda: (new/weights).write_bytes(raw[:-1]),
        f'{trainer} is missing': (new/trainer).unlink,
        f'{weights} is missing': (new/weights).unlink,
        'adapter_config.json is not in its manifest': lambda: (new/'adapter_config.json').write_text('{}'),
        'trainer/more.safetensors is not in': lambda: (new/'trainer/more.safetensors').write_text(''),
        "'../kept/README.md' in its manifest is not a regular name": names(('../kept/README.md', 'x')),
        "'/etc/passwd' in its manifest": names(('/etc/passwd', 'x')), "'a//b' in its": names(('a//b', 'x')),
        "'trainer/../README.md' in": names(('trainer/../README.md', 'x')), "'.hidden' in": names(('.hidden', 'x')),
        'no readable manifest': (new/'manifest.json').unlink,
        'no readable manifest (': lambda: (new/'manifest.json').write_text('[1, '),
        'is not an object': lambda: write_json(new/'manifest.json', [1]),
        "'files' is 3": lambda: write_json(new/'manifest.json', table | {'files': 3}),
        'that of step 1': lambda: write_json(new/'manifest.json', table | {'step': 1}),
        'format 2, not 1': lambda: write_json(new/'manifest.json', table | {'format': 2}),
    }
    for words, harm in harms.items():
        shutil.rmtree(new); shutil.copytree(kept, new)
        assert newest_checkpoint(tmp_path) == new and capsys.readouterr() == ('', '')
        harm()
        assert newest_checkpoint(tmp_path) == old
        out, said = capsys.readouterr()
        assert not out, 'warnings go to stderr'
        assert words in said and said.count('\n') == 1 and new.name in said and new.is_dir()
        if (new/'manifest.json').exists():
            with pytest.raises(UserError): load_model(new)
    shutil.rmtree(new); shutil.copytree(kept, new)
    (new/'model.gguf').write_text('')  # what no reader of ours opens may lie there
    assert newest_checkpoint(tmp_path) == new and load_model(tmp_path)[0].config == model.config


def test_files_are_readable_by_all(tmp_path, tokenizer):
    folder = checkpoint(tmp_path, 1, small(tokenizer.get_vocab_size()), tokenizer)
    for path in folder.rglob('*'):
        if path.is_file() and 'trainer' not in path.parts: assert stat.S_IMODE(path.stat().st_mode) == 0o644, path


def fill(folder, word):
    for name in ('a.json', 'b.safetensors', 'trainer/c.json'):
        (folder/name).parent.mkdir(exist_ok=True)
        (folder/name).write_text(word)


def write_and_die(folder, at):
    "Replace a checkpoint in a child process, which kills itself at its line number `at`."
    def child():
        count = itertools.count(1)
        def trace(frame, event, arg):
            if event == 'line' and next(count) == at: os.kill(os.getpid(), signal.SIGKILL)
            return trace if 'json' not in frame.f_code.co_filename else None
        sys.settrace(trace)
        with atomic_folder(folder, step=2) as stage: fill(stage, 'new')
        sys.settrace(None)
        os._exit(0)
    process = multiprocessing.get_context('fork').Process(target=child)
    process.start(); process.join()
    return process.exitcode == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork, which Windows lacks')
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('replaces', [True, False])
def test_killed_at_any_line_old_or_new_is_there(tmp_path, replaces):
    folder, states = tmp_path/'run/checkpoints/step-00000002', []
    other = folder.with_name('step-00000001')
    for at in itertools.count(3, 71):
        shutil.rmtree(tmp_path/'run', ignore_errors=True)
        with atomic_folder(folder if replaces else other, step=2 if replaces else 1) as stage: fill(stage, 'old')
        done = write_and_die(folder, at)
        found = newest_checkpoint(tmp_path/'run')
        words = {(found/name).read_text() for name in ('a.json', 'b.safetensors', 'trainer/c.json')}
        assert len(words) == 1
        states += words
        with atomic_folder(folder.with_name('step-00000003')) as stage: fill(stage, 'newer')  # the run resumes
        assert not list(folder.parent.glob('.*')) and (folder if replaces else other).is_dir()
        if done: break
    assert states == ['old'] * states.count('old') + ['new'] * states.count('new') and len(set(states)) == 2


def test_a_folder_that_stepped_aside_is_found_and_put_back(tmp_path):
    folder = checkpoint(tmp_path, 7, small(40))
    hidden = folder.rename(folder.with_name(f'.{folder.name}.old'))  # killed between the two renames
    assert newest_checkpoint(tmp_path) == hidden and load_model(tmp_path)
    for end in ('tmp', 'gone'): (folder.parent/f'.step-00000003.{end}'/'x').mkdir(parents=True)
    checkpoint(tmp_path, 8, small(40))
    assert sorted(p.name for p in folder.parent.iterdir()) == ['step-00000007', 'step-00000008']


def test_an_exception_while_filling_leaves_the_old_folder(tmp_path):
    folder = checkpoint(tmp_path, 1, small(40))
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as stage: fill(stage, str(1 // 0))
    assert newest_checkpoint(tmp_path) == folder


def test_what_is_not_there(tmp_path):
    (tmp_path/'run/checkpoints').mkdir(parents=True); (tmp_path/'empty').mkdir()
    calls = {'no such folder': lambda: model_folder(tmp_path/'no'), '~nobody-of-this-name/x: no such folder':
             lambda: model_folder('~nobody-of-this-name/x'), 'no complete checkpoint': lambda: load_model(tmp_path/'run'),
             'no such file': lambda: load_model(tmp_path/'empty'), 'no trained model': lambda: book_model('nothing')}
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as e: call()
        assert '\n' not in str(e.value)


def test_only_folders_named_by_a_step_count(tmp_path, capsys):
    folder = checkpoint(tmp_path, 7, small(40))
    parent = folder.parent
    for name in ('step-best', 'step-8', 'step-000000008', 'step-00000009.bak', 'last', '.step-best.old', 'step-0000000x'):
        shutil.copytree(folder, parent/name)
    (parent/'step-00000010').symlink_to(folder, target_is_directory=True)
    (parent/'step-00000011').write_text('a file')
    (parent/'step-00000012').symlink_to('nowhere')
    os.mkfifo(parent/'step-00000013')
    assert newest_checkpoint(tmp_path) == folder
    said = capsys.readouterr().err.splitlines()  # what has the name of a checkpoint and is none is named
    assert len(said) == 4 and all(f'step-000000{i}' in line for i, line in zip((10, 11, 12, 13), said))
    folder.rename(parent/'step-00000020')  # and what was renamed is not believed
    assert newest_checkpoint(tmp_path) is None and 'that of step 7' in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_read_is_skipped(tmp_path, capsys, monkeypatch):
    old, new = (checkpoint(tmp_path, step, small(40)) for step in (1, 2))
    def refuse(path, real=files.sha256_of):
        if new in path.parents: raise OSError(errno.EIO, 'Input/output error', str(path))
        return real(path)
    monkeypatch.setattr(files, 'sha256_of', refuse)
    assert newest_checkpoint(tmp_path) == old
    said = capsys.readouterr().err
    assert 'cannot be read' in said and said.count('\n') == 1
    assert load_model(tmp_path)[0]
    monkeypatch.undo()
    for make in (os.mkfifo, os.mkdir, lambda p: os.symlink(p, p)):
        (new/'manifest.json').unlink()
        make(new/'manifest.json')
        assert newest_checkpoint(tmp_path) == old and 'is skipped: no readable manifest' in capsys.readouterr().err
        if (new/'manifest.json').is_dir(): (new/'manifest.json').rmdir(); (new/'manifest.json').touch()


def test_a_tilde_and_the_folder_of_a_book_are_models(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path/'book'/'pretrain', 3, small(40))
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in ('~/book', '~/book/pretrain', str(tmp_path/'book')):
        assert model_folder(name) == folder and load_model(name)[0]
    assert newest_checkpoint('~/book/pretrain') == folder
    own = checkpoint(tmp_path/'book', 1, small(40))  # a run of its own goes first
    assert model_folder('~/book') == own
    save_model(small(40), None, tmp_path/'plain')
    assert model_folder('~/plain') == tmp_path/'plain'


def test_a_model_keeps_its_special_ids(tmp_path):
    save_model(small(40), None, tmp_path/'a')
    ids = dict(bos_token_id=None, eos_token_id=[7, 9], pad_token_id=11)
    for file in ('config.json', 'generation_config.json'):
        write_json(tmp_path/'a'/file, read_json(tmp_path/'a'/file) | ids)
    save_model(load_model(tmp_path/'a')[0], None, tmp_path/'b')
    for file in ('config.json', 'generation_config.json'):
        assert read_json(tmp_path/'a'/file) == read_json(tmp_path/'b'/file)
