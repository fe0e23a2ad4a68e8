"Output folders: the lock, whose folder it is, what stays after an error, and inputs that are known by their content."
import os
import signal
import subprocess
import sys
import time

import pytest

from llmbook import outputs
from llmbook.core import UserError
from llmbook.files import read_json, write_json, write_text
from llmbook.outputs import FolderLock, changed_argument, make_folder, output_folder, path_fingerprint

HOLD = ('import sys, time; from llmbook.outputs import FolderLock; x = FolderLock(sys.argv[1]); '
        'print("held", flush=True); time.sleep(60)')


def refusal(work, *args, **flags):
    with pytest.raises(UserError) as e: work(*args, **flags)
    assert '\n' not in str(e.value)
    return str(e.value)


def write(out, words='old', fresh=False, inputs=None, command='words'):
    with output_folder(out, command, {'words': words, 'out': str(out)}, inputs, fresh) as stage:
        write_text(stage/'words.txt', words)


def names(folder): return sorted(p.name for p in folder.rglob('*'))


def test_a_lock_holds_another_process_off_and_dies_with_its_own(tmp_path):
    child = subprocess.Popen([sys.executable, '-c', HOLD, tmp_path], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b'held\n'
    said = refusal(FolderLock, tmp_path)
    assert f'process {child.pid} on ' in said and 'is writing there' in said
    child.send_signal(signal.SIGKILL)
    child.wait()
    with FolderLock(tmp_path): assert names(tmp_path) == ['.lock']
    assert names(tmp_path) == []


def test_a_forked_child_does_not_hold_the_lock(tmp_path):
    lock = FolderLock(tmp_path)
    if (child := os.fork()) == 0:
        time.sleep(5)
        os._exit(0)
    os.close(lock.file)
    lock.file = None
    code = 'import sys; from llmbook.outputs import FolderLock; FolderLock(sys.argv[1])'
    assert subprocess.run([sys.executable, '-c', code, tmp_path]).returncode == 0
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_lock_file_that_was_removed_is_taken_anew(tmp_path, monkeypatch):
    real, tries = outputs.fcntl.lockf, []
    def lockf(*args):
        if not tries: (tmp_path/'.lock').unlink()
        tries.append(args)
        return real(*args)
    monkeypatch.setattr(outputs.fcntl, 'lockf', lockf)
    lock = FolderLock(tmp_path)
    assert len(tries) == 2 and (tmp_path/'.lock').stat().st_ino == os.fstat(lock.file).st_ino
    lock.release()


def test_places_where_no_folder_can_be(tmp_path):
    write_text(tmp_path/'file', 'mine')
    os.symlink(tmp_path/'gone/away', tmp_path/'dangling')
    os.symlink(tmp_path/'loop', tmp_path/'loop')
    os.symlink(tmp_path, tmp_path/'link')
    assert make_folder(tmp_path/'link/x') == tmp_path/'x'
    for place in (tmp_path/'file', tmp_path/'file/x', tmp_path/'loop', tmp_path/'dangling', tmp_path/'dangling/x', '', ' ',
                  '/dev/null', '/dev/null/x', 'a\0b', '~nobody_here/x', tmp_path/('x'*300), '/proc/nothing'):
        refusal(make_folder, place)
    assert (tmp_path/'file').read_text() == 'mine'


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert make_folder('~/runs/x') == tmp_path/'runs/x'


def test_the_same_command_writes_again_another_is_refused(tmp_path):
    out = tmp_path/'out'
    write(out)
    write(out)
    assert names(out) == ['manifest.json', 'words.txt'] and (out/'words.txt').read_text() == 'old'
    assert "(--words was old, now new)" in refusal(write, out, 'new')
    assert 'not written by llmbook tokens' in refusal(write, out, command='tokens')
    assert 'not written by llmbook tokens' in refusal(write, out, command='tokens', fresh=True)
    write(out, 'new', fresh=True)
    assert (out/'words.txt').read_text() == 'new' and (tmp_path/'out.old1/words.txt').read_text() == 'old'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'out.old1']


def test_what_somebody_else_wrote_stays(tmp_path):
    write_text(tmp_path/'mine/notes.txt', 'mine')
    for fresh in (False, True):
        assert 'notes.txt, which llmbook words did not write' in refusal(write, tmp_path/'mine', fresh=fresh)
    write_json(tmp_path/'json/manifest.json', [1])
    write_json(tmp_path/'odd/manifest.json', {'command': 'words', 'args': 3, 'files': {}})
    for name in ('json', 'odd'): refusal(write, tmp_path/name)
    write(tmp_path/'both')
    write_text(tmp_path/'both/sub/notes.txt', 'mine')
    for fresh in (False, True): assert 'sub/notes.txt' in refusal(write, tmp_path/'both', fresh=fresh)
    write_text(tmp_path/'hidden/.ipynb_checkpoints/x', '')
    write(tmp_path/'hidden')
    assert (tmp_path/'mine/notes.txt').read_text() == 'mine' == (tmp_path/'both/sub/notes.txt').read_text()


def test_stale_names_beside_do_not_stop_it(tmp_path):
    write_text(tmp_path/'.a.tmp', 'a file')
    os.symlink(tmp_path/'gone', tmp_path/'.b.tmp')
    (tmp_path/'.c.tmp/deep').mkdir(parents=True)
    (tmp_path/'.other.tmp').mkdir()
    for name in 'abc': write(tmp_path/name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.other.tmp', 'a', 'b', 'c']


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    write(tmp_path/'out')
    os.rename(tmp_path/'out', tmp_path/'.out.old')
    with pytest.raises(KeyError), output_folder(tmp_path/'out', 'words', {'words': 'old'}): raise KeyError
    assert names(tmp_path) == ['manifest.json', 'out', 'words.txt']
    os.rename(tmp_path/'out', tmp_path/'.out.old')
    make_folder(tmp_path/'out')
    write(tmp_path/'out')
    assert names(tmp_path) == ['manifest.json', 'out', 'words.txt']


def test_changed_inputs_are_said(tmp_path, capsys):
    for content in ('a', 'a', 'b'): write(tmp_path/'out', inputs={'text': content})
    assert capsys.readouterr().out.count('its inputs have changed') == 1
    assert read_json(tmp_path/'out/manifest.json')['inputs'] == {'text': 'b'}


def test_inputs_are_free_and_other_arguments_are_compared_as_json(tmp_path):
    assert changed_argument({'a': 1, 'p': 'x'}, {'a': 1, 'p': tmp_path}, ['p']) == ''
    assert changed_argument({'p': str(tmp_path)}, {'p': tmp_path}) == ''
    assert changed_argument({'a_b': None}, {'a_b': 2}) == '--a-b was None, now 2'
    assert changed_argument({'a': 1}, {}) == '--a was 1, now None'


def test_fingerprints_follow_the_content(tmp_path, monkeypatch):
    write_text(tmp_path/'a/x', 'one')
    write_text(tmp_path/'b/x', 'one')
    first = path_fingerprint(tmp_path/'a')
    assert first == path_fingerprint(f'{tmp_path}/b/../a/') == path_fingerprint(tmp_path/'b')
    write_text(tmp_path/'b/manifest.json', '{}')
    write_text(tmp_path/'b/.hidden', '')
    assert path_fingerprint(tmp_path/'b') == first
    for change in ({'x': 'One'}, {'x': 'one', 'y': ''}, {'y': 'one'}, {'x': 'on', 'xe': ''}):
        for name, text in change.items(): write_text(tmp_path/'c'/name, text)
        assert path_fingerprint(tmp_path/'c') != first
        for name in change: (tmp_path/'c'/name).unlink()
    monkeypatch.setattr(outputs, '_LIMIT', 1000)
    monkeypatch.setattr(outputs, '_BLOCK', 10)
    big = bytearray(50_000)
    (tmp_path/'big').write_bytes(big)
    sampled = path_fingerprint(tmp_path/'big')
    for place in (0, 49_999):
        big[place] = 1
        (tmp_path/'big').write_bytes(big)
        assert path_fingerprint(tmp_path/'big') != sampled
        big[place] = 0


def test_hidden_files_come_along(tmp_path):
    out = tmp_path/'out'
    write_text(out/'.gitkeep', 'of git')
    write_text(out/'.notes/a.txt', 'of an editor')
    (out/'.link').symlink_to('nowhere')
    write(out)
    write(out, 'old', inputs={'text': 'changed'})
    assert names(out) == ['.gitkeep', '.link', '.notes', 'a.txt', 'manifest.json', 'words.txt']
    assert (out/'.notes/a.txt').read_text() == 'of an editor' and (out/'.link').is_symlink()


@pytest.mark.parametrize('put', [os.mkfifo, lambda p: p.symlink_to('nowhere')], ids=['pipe', 'dangling link'])
def test_a_folder_with_a_pipe_is_not_empty(tmp_path, put):
    (tmp_path/'out').mkdir()
    put(tmp_path/'out/manifest.json')
    assert 'holds manifest.json, which' in refusal(write, tmp_path/'out')
    assert os.path.lexists(tmp_path/'out/manifest.json')


def test_what_is_named_as_the_lock_and_is_none(tmp_path):
    write_text(tmp_path/'precious', 'mine')
    for i, put in enumerate((lambda p: p.symlink_to('../precious'), os.mkfifo, os.mkdir)):
        out = tmp_path/f'out{i}'
        out.mkdir()
        put(out/'.lock')
        assert 'not a lock' in refusal(write, out) and (tmp_path/'precious').read_text() == 'mine'


def test_the_root_of_a_disk_is_refused(): assert refusal(write, '/').startswith('/: a disk is mounted there')


def test_a_result_is_put_back_although_a_hidden_file_came_meanwhile(tmp_path):
    write_text(tmp_path/'.out.old/words.txt', 'saved')
    write_text(tmp_path/'out/.notes', 'mine')
    outputs._put_back(tmp_path/'out')
    assert names(tmp_path/'out') == ['.notes', 'words.txt'] and not (tmp_path/'.out.old').exists()
