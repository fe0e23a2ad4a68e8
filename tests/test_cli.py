"The command line as a user meets it: forms, help, and one line for every mistake."
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from llmbook.cli import main
from llmbook.cli import INSTEAD, VERBS
from llmbook.flags import _place, read_flags

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


def process(*args, form=('-m', 'llmbook'), cwd=None):
    "Run a command line as a user does; its output and errors as text."
    return subprocess.run([sys.executable, *form, *map(str, args)], capture_output=True, text=True, env=ENV,
                          cwd=cwd or ROOT, timeout=300)


def llmbook(*args):
    "The same in this process, which spares importing torch each time."
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended: main(list(map(str, args)))
    return subprocess.CompletedProcess(args, ended.value.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A corpus, a tokenizer, tokens and a model, made by the verbs themselves."
    d = tmp_path_factory.mktemp('small')
    for args in (['corpus', '--source', 'world', '--docs', 300, '--out', d/'corpus'],
                 ['tokenizer', '--text', d/'corpus', '--vocab-size', 400, '--out', d/'tokenizer'],
                 ['tokens', '--text', d/'corpus', '--tokenizer', d/'tokenizer', '--out', d/'tokens', '--val', 0.1],
                 ['pretrain', '--tokens', d/'tokens', '--steps', 4, '--batch-size', 4, '--block-size', 64, '--out', d/'run',
                  '--eval-every', 2]):
        done = llmbook(*args)
        assert done.returncode == 0, done.stderr
    return d


def test_the_verbs_make_what_they_say(small):
    rows = [json.loads(line) for line in (small/'corpus/documents.jsonl').read_text().splitlines()]
    assert len(rows) == 300 and all(r['meta']['logp'] < 0 and r['meta']['blind'] < r['meta']['logp'] for r in rows)
    log = [json.loads(line) for line in (small/'run/log.jsonl').read_text().splitlines()]
    train = [r for r in log if 'loss' in r]
    assert [r['step'] for r in train] == [1, 2, 3, 4]
    assert {'tokens', 'loss', 'lr', 'grad_norm', 'tokens_per_s', 'mfu'} <= set(train[0])
    assert [r['step'] for r in log if 'val_loss' in r] == [2, 4] and (small/'run/loss.png').stat().st_size > 1000
    config = json.loads((small/'run/config.json').read_text())
    assert config['command'] == 'pretrain' and config['args']['steps'] == 4 and config['versions']['torch']


def test_generate_evaluate_report(small):
    wrote = llmbook('generate', '--model', small/'run', '--prompt', 'Long ago', '--temperature', 0, '--n', 8)
    assert wrote.returncode == 0 and wrote.stdout.startswith('Long ago'), wrote.stderr
    done = llmbook('evaluate', '--model', small/'run', '--tasks', 'text', '--text', small/'corpus', '--out', small/'eval')
    assert done.returncode == 0, done.stderr
    assert 2 < json.loads((small/'eval/results.json').read_text())['tasks']['text']['bits_per_byte'] < 8
    done = llmbook('report', '--runs', small/'run', '--out', small/'page.html')
    assert done.returncode == 0 and '<svg' in (small/'page.html').read_text() and (small/'page.md').exists(), done.stderr


@pytest.mark.parametrize('form', [pytest.param(('-m', 'llmbook'), marks=pytest.mark.slow), (str(ROOT/'llmbook/cli.py'),)],
                         ids=['module', 'script'])
def test_forms(form, tmp_path):
    done = process('--help', form=form, cwd=tmp_path)
    assert done.returncode == 0 and all(f'  {v} ' in done.stdout for v in VERBS)
    done = process('corpus', '--local_rank=0', '--docs', 3, '--out', tmp_path/'c', form=form, cwd=tmp_path)
    assert done.returncode == 0 and len((tmp_path/'c/documents.jsonl').read_text().splitlines()) == 3, done.stderr


def test_help_is_complete():
    for verb, (module, stage, _) in VERBS.items():
        for name, flag in read_flags(getattr(importlib.import_module(module), stage)).items():
            assert len(flag.help) > 3, f'--{name} of {verb} says nothing'


def test_config_file_and_spellings(tmp_path):
    (tmp_path/'run.toml').write_text('docs = 5\n[corpus]\nseed = 3\n')
    done = llmbook('corpus', '--config', tmp_path/'run.toml', '--out', tmp_path/'a')
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path/'a/corpus.json').read_text())
    assert (made['source'], made['seed'], made['documents']) == ('world', 3, 5)
    done = llmbook('tokens', '--text', 'x', '--token_izer', 'y')
    assert done.returncode == 2 and "did you mean '--tokenizer'" in done.stderr


MISTAKES = { # name -> (arguments, words that the line must have)
    'verb': (['pretrian'], ['pretrian', "did you mean 'pretrain'?"]),
    'flag': (['pretrain', '--step', '5'], ['--step', "did you mean '--steps'?"]),
    'key': (['pretrain', '--config', '{d}/bad.toml'], ['stpes', "did you mean 'steps'?"]),
    'not toml': (['pretrain', '--config', '{d}/not.toml'], ['not.toml', 'not TOML']),
    'type': (['pretrain', '--steps', 'many'], ['--steps many', 'whole number']),
    'choice': (['pretrain', '--arch', 'lama'], ['lama', "did you mean 'llama'?"]),
    'missing flag': (['generate'], ['--model', 'missing']),
    'missing value': (['generate', '--model'], ['--model']),
    'missing file': (['tokenizer', '--text', '{d}/nowhere.txt'], ['nowhere.txt', 'no such file']),
    'missing model': (['generate', '--model', '{d}/nowhere'], ['nowhere', 'no such folder']),
    'empty corpus': (['tokenizer', '--text', '{d}/empty.txt'], ['empty.txt', 'empty']),
    'no text in a row': (['tokenizer', '--text', '{d}/rows.jsonl'], ['row 1', "'text'"]),
    'broken row': (['tokenizer', '--text', '{d}/broken.jsonl'], ['line 2', 'JSON']),
    'unknown kind of file': (['corpus', '--source', '{d}/picture.png'], ['.png']),
    'not UTF-8': (['corpus', '--source', '{d}/latin.txt'], ['latin.txt', 'UTF-8']),
    'shorter than a block': (['pretrain', '--tokens', '{d}/short', '--out', '{d}/short-run'], ['shorter than one block']),
    'small vocabulary': (['tokenizer', '--text', '{s}/corpus', '--vocab-size', '100'], ['100', '280']),
    'another vocabulary': (['pretrain', '--tokens', '{d}/short', '--model', '{s}/run', '--out', '{d}/r1'], ['another shape']),
    'another shape': (['generate', '--model', '{d}/wrong'], ['another shape']),
    'another run': (['pretrain', '--tokens', '{s}/tokens', '--steps', '9', '--out', '{s}/run'], ['another run', '--fresh']),
    'a folder of something else': (['pretrain', '--tokens', '{s}/tokens', '--out', '{s}/corpus'], ['not a run', '--out']),
    'size': (['pretrain', '--size', 'huge', '--out', '{d}/r2'], ['huge', 'nano', '124m']),
    'steps': (['pretrain', '--steps', '0', '--out', '{d}/r3'], ['--steps 0']),
    'micro': (['pretrain', '--micro', '0', '--out', '{d}/r4'], ['--micro 0']),
    'stage': (['pretrain', '--zero', '4', '--out', '{d}/r5'], ['--zero 4', '0, 1, 2 and 3']),
    'offload': (['pretrain', '--offload', '--out', '{d}/r6'], ['--offload', '--zero 1']),
    'precision': (['pretrain', '--precision', 'bf61', '--out', '{d}/r7'], ['bf61', "did you mean 'bf16'?"]),
    'fp16': (['pretrain', '--precision', 'fp16', '--out', '{d}/r8'], ['--precision fp16', '--zero 1']),
    'parts': (['pretrain', '--tokens', '{s}/tokens', '--batch-size', '6', '--accum', '4', '--out', '{d}/r9'],
              ['--accum 4', '6 rows']),
    'a matrix cut up': (['pretrain', '--tokens', '{s}/tokens', '--zero', '1', '--optimizer', 'muon', '--out', '{d}/r10'],
                        ['muon', '--zero 0']),
    'two choices of precision': (['pretrain', '--speed', 'auto', '--precision', 'bf16', '--out', '{d}/r11'],
                                 ['--speed auto', '--precision']),
    'another precision': (['pretrain', '--tokens', '{s}/tokens', '--steps', '4', '--batch-size', '4', '--block-size', '64',
                           '--eval-every', '2', '--precision', 'bf16', '--out', '{d}/run'], ['--precision bf16', 'in fp32']),
    'task': (['evaluate', '--model', '{s}/run', '--tasks', 'wrold'], ['wrold', "did you mean 'world'?"]),
    'nothing to report': (['report', '--runs', '{d}/nowhere'], ['nowhere', 'no such folder']),
    'unknown table': (['corpus', '--config', '{d}/table.toml'], ['[corpsu]', "did you mean 'corpus'?"]),
    'two spellings': (['pretrain', '--config', '{d}/twice.toml'], ['save_every', 'twice']),
    'no time': (['run', '--text', '{d}/short.txt', '--minutes', '0', '--out', '{d}/r12'], ['--minutes 0', 'more than 0']),
    'endless time': (['run', '--text', '{d}/short.txt', '--minutes', 'inf', '--out', '{d}/r13'], ['--minutes inf', 'finite']),
    'no tokens': (['generate', '--model', '{s}/run', '--n', '-1'], ['--n -1', 'at least 1']),
    'no samples': (['generate', '--model', '{s}/run', '--samples', '0'], ['--samples 0', 'between 1']),
    'not a number': (['generate', '--model', '{s}/run', '--temperature', 'nan'], ['--temperature nan']),
    'too warm': (['generate', '--model', '{s}/run', '--temperature', 'inf'], ['--temperature inf', 'finite']),
    'no share': (['generate', '--model', '{s}/run', '--top-p', 'nan'], ['--top-p nan', 'at most 1']),
    'a negative seed': (['generate', '--model', '{s}/run', '--seed', '-1'], ['--seed -1']),
    'a huge seed': (['evaluate', '--model', '{s}/run', '--seed', str(2**63)], ['--seed', '2**63 - 1']),
    'fewer than no documents': (['evaluate', '--model', '{s}/run', '--docs', '-5'], ['--docs -5', 'at least 2']),
    'nowhere to write': (['evaluate', '--model', '{s}/run', '--out', ''], ['--out: empty']),
    'no tasks': (['evaluate', '--model', '{s}/run', '--config', '{d}/none.toml'], ['--tasks: empty']),
    'a file for a folder': (['evaluate', '--model', '{s}/run', '--out', '{d}/short.txt'], ['short.txt', 'a file is in the way']),
    'a page in a file': (['report', '--runs', '{s}/run', '--out', '{d}/short.txt/a.html'], ['short.txt', 'file is in the way']),
    'notes in the way': (['report', '--runs', '{s}/run', '--out', '{d}/notes.html'], ['notes.md', 'in the way']),
    'a device': (['generate', '--model', '/dev/null'], ['/dev/null']),
    'no home': (['generate', '--model', '~nobody-of-that-name/m'], ['no such user']),
    'bytes in a name': (['generate', '--model', '{d}/\udcff'], ['no such folder']),
    'long prompt': (['generate', '--model', '{s}/run', '--prompt', 'lamp ' * 400], ['prompt', 'shorten']),
}


@pytest.fixture(scope='module')
def faulty(small, tmp_path_factory):
    "Files that are wrong in one way each."
    d = tmp_path_factory.mktemp('faulty')
    files = {'bad.toml': 'stpes = 5\n', 'not.toml': 'steps = = 5\n', 'empty.txt': ' \n', 'rows.jsonl': '{"id": "a"}\n',
             'broken.jsonl': '{"text": "a"}\n{"text"\n', 'picture.png': 'x', 'table.toml': '[corpsu]\ndocs = 5\n',
             'none.toml': 'tasks = []\n', 'notes.md': '# mine\n', 'twice.toml': 'save-every = 5\nsave_every = 6\n',
             'short.txt': 'A few words are all there is.'}
    for name, text in files.items(): (d/name).write_text(text)
    (d/'latin.txt').write_bytes('café'.encode('latin-1'))
    assert llmbook('tokenizer', '--text', d/'short.txt', '--vocab-size', 290, '--out', d/'tok').returncode == 0
    assert llmbook('tokens', '--text', d/'short.txt', '--tokenizer', d/'tok', '--out', d/'short').returncode == 0
    newest = sorted((small/'run/checkpoints').glob('step-*'))[-1]
    shutil.copytree(newest, d/'wrong')
    config = json.loads((d/'wrong/config.json').read_text())
    (d/'wrong/config.json').write_text(json.dumps(config | {'intermediate_size': 99}))
    (d/'wrong/manifest.json').unlink()
    shutil.copytree(small/'run', d/'run')
    shutil.rmtree(d/'run/checkpoints')
    return d


@pytest.mark.parametrize('name', MISTAKES)
def test_one_line_for_a_mistake(name, small, faulty):
    args, words = MISTAKES[name]
    done = llmbook(*[str(a).format(d=faulty, s=small) for a in args])
    assert done.returncode == 2, f'{done.returncode}: {done.stdout}{done.stderr}'
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and 'Traceback' not in done.stderr, done.stderr
    assert all(w in lines[0] for w in words), lines[0]
    assert lines[0].startswith('llmbook: ') and not lines[0].startswith('llmbook: llmbook'), lines[0]


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    done = process('pretrain', '--stpes', 5, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1) and '--steps' in done.stderr


def test_debug_shows_the_traceback_and_changes_no_code(capsys):
    with pytest.raises(SystemExit, match='2'): main(['generate', '--model', 'nowhere', '--debug'])
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith('Traceback') and lines[-1] == 'llmbook: nowhere: no such folder'


def test_import_is_light():
    heavy = ['deepspeed', 'bitsandbytes', 'flash_attn', 'datasets', 'transformers']
    code = f"import sys, llmbook; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV).stdout.strip() == '[]'
    code = f"import sys, llmbook.book, llmbook.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=ENV).stdout.strip() == '[]'


PATHS = {'run': {'text', 'out'}, 'corpus': {'source', 'out'}, 'tokenizer': {'text', 'out'},
         'clean': {'text', 'out'}, 'dedup': {'text', 'out'}, 'tokens': {'text', 'tokenizer', 'out'},
         'pretrain': {'tokens', 'mix', 'model', 'out'}, 'mlm': {'text', 'model', 'val_data', 'tokenizer', 'out'},
         'sft': {'model', 'data', 'val_data', 'out'},
         'reward': {'model', 'data', 'val_data', 'out'}, 'dpo': {'model', 'data', 'val_data', 'out'},
         'ppo': {'model', 'reward', 'data', 'val_data', 'out'}, 'grpo': {'model', 'reward', 'data', 'val_data', 'out'},
         'classify': {'model', 'data', 'val_data', 'predict', 'out'},
         'generate': {'model'}, 'evaluate': {'model', 'text', 'out'},
         'report': {'runs', 'out'}, 'env': set()}
INSTEAD_PATHS = {'corpus': {'out'}, 'generate': {'model', 'prompts', 'out'},
                 'evaluate': {'model', 'answers', 'out'}} # of the stage that takes a verb's place


def test_flags_that_name_a_path_are_known_by_their_words():
    "Only these are refused when empty and have their `~` replaced; a prompt is none of them."
    for verb, (module, stage, _) in VERBS.items():
        flags = read_flags(getattr(importlib.import_module(module), stage))
        assert {name for name, flag in flags.items() if _place(flag)} == PATHS[verb], verb
    for verb, (module, stage, _) in INSTEAD.items():
        flags = read_flags(getattr(importlib.import_module(module), stage))
        assert {name for name, flag in flags.items() if _place(flag)} == INSTEAD_PATHS[verb], verb


def test_every_verb_says_how_it_ends(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit, match='0'): main([verb, '--help'])
        assert 'Exit codes: 0 done' in capsys.readouterr().out


def test_bytes_that_are_no_text(small, tmp_path):
    "In a prompt they are refused; a name may have them where we open the file ourselves."
    name = tmp_path/os.fsdecode(b'r\xff\xfe.html')
    done = process('generate', '--model', small/'run', '--n', 2, '--prompt', os.fsdecode(b'the \xff lamp'))
    assert done.returncode == 2 and '--prompt the ? lamp: not UTF-8' in done.stderr, done.stderr
    done = process('report', '--runs', small/'run', '--out', name)
    assert done.returncode == 0 and name.exists() and 'Traceback' not in done.stderr, done.stderr


def test_help_names_paths_and_nothing_else_so(capsys):
    for verb, wanted, refused in (('generate', '--prompt PROMPT', '--prompt PATH'), ('evaluate', '--text PATH', '--tasks PATH'),
                                  ('corpus', '--out FOLDER', '--docs PATH'), ('report', '--out FILE', '(default: none)')):
        with pytest.raises(SystemExit): main([verb, '--help'])
        said = capsys.readouterr().out
        assert wanted in said and refused not in said


def test_a_signal_that_an_import_swallows_is_heard(monkeypatch, capsys, tmp_path):
    (tmp_path/'swallows.py').write_text('import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\n'
                                        'except BaseException: pass\ndef verb(): print("ran on")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VERBS, 'swallow', ('swallows', 'verb', False))
    with pytest.raises(SystemExit) as e: main(['swallow'])
    said = capsys.readouterr()
    assert e.value.code == 130 and not said.out and 'stopped by SIGINT; nothing was saved' in said.err


@pytest.mark.parametrize('given, wanted', [({}, '1000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'active'}, None)])
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(monkeypatch, given, wanted):
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'): monkeypatch.delenv(name, raising=False)
    for name, value in given.items(): monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit): main(['--version', 'x'])
    assert os.environ.get('GOMP_SPINCOUNT') == wanted
    monkeypatch.delenv('GOMP_SPINCOUNT', raising=False)
