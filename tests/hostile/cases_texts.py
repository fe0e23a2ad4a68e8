"Archives and text files: what lies on disks under names that promise text."
import base64
import bz2
import gzip
import json
import os
import tarfile
import zipfile
import zlib
from pathlib import Path

import zstandard

from .cases_files import DEEP
from .harness import Case, fifo, folder, link, put

READ = 'corpus --source {} --out out'


def text(name, file, content, **more):
    "A file that `corpus` refuses in one line that names it."
    more = dict(words=file.split('/')[0]) | more
    return Case(name, READ.format(f"'{file}'"), content if callable(content) else put(file, content), **more)


def rows(name, content, file='rows.jsonl', **more):
    return text(name, file, content, **more)


def fine(n, *words): return dict(code=0, words=(f'{n} document', *words))


def texts_are(*texts):
    "The documents that were written hold these texts."
    def check(d, result):
        path = d/'out/documents.jsonl'
        found = [json.loads(line)['text'] for line in path.read_text().split('\n') if line] if path.exists() else None
        if found != list(texts): return f'the texts are {str(found)[:200]}'
    return check


def bomb(file, block, count):
    "A file that a few kilobytes blow up to gigabytes: one compressed block, many times."
    def step(d):
        member = gzip.compress(block)
        with open(d/file, 'wb') as f:
            for _ in range(count): f.write(member)
    return step


def one_member_bomb(file, size):
    def step(d):
        with gzip.open(d/file, 'wb', compresslevel=1) as f:
            for _ in range(size >> 24): f.write(bytes(1 << 24))
    return step


def evil_zip(path):
    "An archive whose members want to lie elsewhere."
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in ('../up.txt', '/absolute.txt', 'a/../../up.txt'): archive.writestr(name, 'A lamp.')
        link = zipfile.ZipInfo('link')
        link.external_attr = 0o120777 << 16
        archive.writestr(link, '/etc/passwd')
        archive.writestr('bomb.txt', bytes(1 << 24))


def evil_tar(path):
    with tarfile.open(path, 'w:gz') as archive:
        for name, kind, target in (('../up.txt', tarfile.REGTYPE, ''), ('/absolute.txt', tarfile.REGTYPE, ''),
                                   ('link', tarfile.SYMTYPE, '/etc/passwd'), ('hard', tarfile.LNKTYPE, '../x'),
                                   ('device', tarfile.CHRTYPE, ''), ('pipe', tarfile.FIFOTYPE, '')):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)


def nothing_outside(d, result):
    "No member of an archive got out."
    names = {p.name for p in d.path.rglob('*')}
    found = {'up.txt', 'absolute.txt', 'link', 'hard', 'device', 'pipe', 'bomb.txt'} & names
    outside = [p for p in (d.path.parent/'up.txt', Path('/absolute.txt')) if p.exists()]
    return f'{found or outside} got out' if found or outside else None


def zst(content): return zstandard.ZstdCompressor(write_checksum=True).compress(content)


WIKI = (b'<mediawiki><page><title>T</title><ns>0</ns><id>1</id><revision><text>A lamp.</text></revision></page>'
        b'</mediawiki>')
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha">' + b''.join(
    b'<!ENTITY %c "%s">' % (b, b'&%c;' % a * 10) for a, b in zip(b'abcdefghi', b'bcdefghij')) + b']>'
ROW = b'{"id": "a", "text": "A lamp."}\n'
GZIP_CASES = [
    text('gzip cut short', 'a.txt.gz', gzip.compress(os.urandom(5000).hex().encode())[:2000], quick=True),
    text('gzip cut short inside its header', 'a.txt.gz', gzip.compress(b'A lamp.')[:5]),
    text('no gzip in a .gz', 'a.txt.gz', b'A lamp.'),
    text('a .gz of no bytes', 'a.txt.gz', b''),
    text('gzip of nothing', 'a.txt.gz', gzip.compress(b'')),
    text('gzip with a flipped bit', 'a.txt.gz', lambda d: d.put('a.txt.gz', bytes(b ^ (i == 60) for i, b in enumerate(
        gzip.compress(os.urandom(900).hex().encode()))))),
    text('gzip with a wrong checksum', 'a.txt.gz', gzip.compress(b'A lamp.')[:-8] + b'\0' * 8),
    text('gzip with a wrong length', 'a.txt.gz', gzip.compress(b'A lamp.')[:-4] + b'\xff' * 4),
    text('gzip with garbage behind it', 'a.txt.gz', gzip.compress(b'A lamp.') + b'garbage'),
    text('gzip with zeros behind it', 'a.txt.gz', gzip.compress(b'A lamp.') + b'\0' * 100, **fine(1),
         check=texts_are('A lamp.')),
    text('gzip of two members', 'a.txt.gz', gzip.compress(b'A lamp.') + gzip.compress(b' A hill.'), **fine(1),
         check=texts_are('A lamp. A hill.')),
    text('gzip whose second member is cut short', 'a.jsonl.gz', gzip.compress(ROW) + gzip.compress(ROW * 99)[:30]),
    text('gzip with the names of another file and a comment', 'a.txt.gz',
         b'\x1f\x8b\x08\x18' + b'\0' * 6 + b'../../x\0' + b'comment\0' + zlib.compress(b'A lamp.', wbits=-15)
         + zlib.crc32(b'A lamp.').to_bytes(4, 'little') + (7).to_bytes(4, 'little'), **fine(1),
         check=texts_are('A lamp.')),
    text('gzip inside gzip', 'a.txt.gz.gz', gzip.compress(gzip.compress(b'A lamp.'))),
    text('gzip inside gzip under one suffix', 'a.txt.gz', gzip.compress(gzip.compress(b'A lamp.'))),
    text('gzip without a suffix inside', 'a.gz', gzip.compress(b'A lamp.')),
    text('gzip that is named as text', 'a.txt', gzip.compress(b'A lamp.')),
    text('gzip of bytes that are not UTF-8', 'a.txt.gz', gzip.compress(b'caf\xe9')),
    text('capital letters in a suffix', 'A.TXT.GZ', gzip.compress(b'A lamp.'), **fine(1)),
    text('a bomb of two gigabytes, as text', 'a.txt.gz', bomb('a.txt.gz', bytes(1 << 26), 32)),
    text('a bomb of two gigabytes, in one member', 'a.txt.gz', one_member_bomb('a.txt.gz', 2 << 30)),
    text('a bomb of two gigabytes, as one row', 'a.jsonl.gz', bomb('a.jsonl.gz', b' ' * (1 << 26), 32)),
    text('a bomb inside a folder', 'docs',
         lambda d: (d.put('docs/a.txt', 'A lamp.'), bomb('docs/b.txt.gz', bytes(1 << 26), 32)(d))),
    text('a zip archive', 'a.zip', lambda d: zipfile.ZipFile(d/'a.zip', 'w').writestr('a.txt', 'A lamp.'),
         words=('a.zip', 'an archive', 'unpack it')),
    text('a zip archive with paths upwards and a link', 'a.zip', lambda d: evil_zip(d/'a.zip'), check=nothing_outside,
         words=('a.zip', 'an archive'), quick=True),
    text('a tar archive with paths upwards, links and devices', 'a.tar.gz', lambda d: evil_tar(d/'a.tar.gz'),
         check=nothing_outside, words=('a.tar.gz', 'an archive')),
    Case('a folder with hostile archives', 'corpus --source docs --out out',
         lambda d: (d.put('docs/a.txt', 'A lamp.'), evil_zip(d/'docs/b.zip'), evil_tar(d/'docs/c.tgz')),
         code=0, words=('1 document', '.zip files', '.tgz files'), check=nothing_outside),
    text('a zip archive that is named as text', 'a.txt',
         lambda d: zipfile.ZipFile(d/'a.txt', 'w').writestr('a', os.urandom(99))),
    text('a tar archive', 'a.tar.gz', gzip.compress(b'\0' * 1024)),
    text('zstd that is broken', 'a.jsonl.zst', b'\x28\xb5\x2f\xfd' + b'\0' * 20),
    text('zstd cut short', 'a.jsonl.zst', zst(ROW * 99)[:-5], words=('a.jsonl.zst', 'after line')),
    text('zstd', 'a.jsonl.zst', zst(ROW) + zst(ROW), **fine(2)),
    text('a bomb of two gigabytes in zstd, as text', 'a.txt.zst', zst(bytes(1 << 26)) * 32),
    text('a bomb of two gigabytes in zstd, as one row', 'a.jsonl.zst', zst(b' ' * (1 << 26)) * 32),
    text('a bomb of two gigabytes in zstd, as many rows', 'a.jsonl.zst', zst(ROW * 2_000_000) * 33, seconds=90),
    text('bzip2 that is broken', 'a.txt.bz2', b'BZh91AY'),
    text('bzip2', 'a.jsonl.bz2', bz2.compress(ROW) * 2, **fine(2)),
    text('a bomb of two gigabytes in bzip2', 'a.txt.bz2', bz2.compress(bytes(1 << 26)) * 32),
    text('a compression that nobody announced', 'a.txt.xz', b'\xfd7zXZ\0'),
    text('a picture', 'a.png', b'\x89PNG\r\n\x1a\n'),
    text('a file without a suffix', 'README', 'A lamp.'),
]


def parquet(name, columns, file='a.parquet', **more):
    "A parquet file of these columns: name -> a pyarrow array, or a function that makes the table."
    def step(d):
        import pyarrow as pa
        import pyarrow.parquet as pq
        table = columns(pa)
        if isinstance(table, dict): table = pa.table(table)
        pq.write_table(table, d/file)
    more = dict(words=file) | more
    return Case(name, READ.format(file), step, **more)


def broken_bytes(pa):
    "A text column whose bytes are not UTF-8, as a careless writer leaves it."
    raw = pa.array([b'A lamp.', b'caf\xe9'], pa.binary())
    return {'text': pa.Array.from_buffers(pa.string(), 2, raw.buffers())}


def damaged(change):
    "A good parquet file, then damaged."
    def step(d):
        import pyarrow as pa
        import pyarrow.parquet as pq
        pq.write_table(pa.table({'text': [f'A lamp {i}.' for i in range(500)]}), d/'a.parquet')
        d.put('a.parquet', change((d/'a.parquet').read_bytes()))
    return step


def twice(pa):
    return pa.Table.from_arrays([pa.array(['A lamp.']), pa.array(['A hill.'])], names=['text', 'text'])


PARQUET_CASES = [
    text('parquet cut short', 'a.parquet', damaged(lambda raw: raw[:len(raw)//2])),
    text('parquet of no bytes', 'a.parquet', b''),
    text('parquet of its magic word', 'a.parquet', b'PAR1'),
    text('parquet with garbage inside', 'a.parquet', damaged(lambda raw: raw[:40] + b'\xff' * 400 + raw[440:])),
    text('parquet with a wrong length of its footer', 'a.parquet',
         damaged(lambda raw: raw[:-8] + b'\xff\xff\xff\x7f' + raw[-4:])),
    text('parquet that is JSON', 'a.parquet', ROW),
    text('JSON lines that are parquet', 'a.jsonl',
         lambda d: (damaged(lambda raw: raw)(d), (d/'a.parquet').rename(d/'a.jsonl'))),
    text('parquet that is a folder', 'a.parquet', lambda d: d.put('a.parquet/part-0.bin', 'x')),
    text('parquet in gzip', 'a.parquet.gz', gzip.compress(b'PAR1')),
    parquet('parquet without a text column', lambda pa: {'body': ['A lamp.']}, words=('a.parquet', 'text')),
    parquet('parquet whose text is numbers', lambda pa: {'text': [1, 2]}, words=('a.parquet', 'text')),
    parquet('parquet whose text is bytes', lambda pa: {'text': pa.array([b'A lamp.'], pa.binary())},
         words=('a.parquet', 'text')),
    parquet('parquet whose text is null', lambda pa: {'text': pa.array(['A lamp.', None])},
         words=('a.parquet', 'row 2')),
    parquet('parquet whose text is a list', lambda pa: {'text': [['A', 'lamp']]}, words='a.parquet'),
    parquet('parquet whose text is a structure', lambda pa: {'text': [{'a': 'lamp'}]}, words='a.parquet'),
    parquet('parquet of no rows', lambda pa: {'text': pa.array([], pa.string())}),
    parquet('parquet of no columns', lambda pa: {}),
    parquet('parquet with two columns of one name', twice),
    parquet('parquet whose text is not UTF-8', broken_bytes),
    parquet('parquet with a date that Python cannot hold',
         lambda pa: {'text': ['A lamp.'], 'day': pa.array([10**7], pa.date32())},
            **fine(1)),
    parquet('parquet with a moment that Python cannot hold',
            lambda pa: {'text': ['A lamp.'], 'at': pa.array([10**12], pa.timestamp('s'))}, **fine(1)),
    parquet('parquet with a moment in nanoseconds',
         lambda pa: {'text': ['A lamp.'], 'at': pa.array([1], pa.timestamp('ns'))}, **fine(1)),
    parquet('parquet with a time zone that nobody knows',
            lambda pa: {'text': ['A lamp.'], 'at': pa.array([1], pa.timestamp('s', tz='Mars/Olympus'))}, **fine(1)),
    parquet('parquet with a duration that Python cannot hold',
            lambda pa: {'text': ['A lamp.'], 'd': pa.array([2**62], pa.duration('s'))}, **fine(1)),
    parquet('parquet with bytes beside the text',
         lambda pa: {'text': ['A lamp.'], 'raw': pa.array([b'\xff\0'], pa.binary())}, **fine(1)),
    parquet('parquet with decimals beside the text',
            lambda pa: {'text': ['A lamp.'], 'n': pa.array([1], pa.int64()).cast(pa.decimal128(30, 2))}, **fine(1)),
    parquet('parquet with words by number', lambda pa: {'text': pa.array(['A lamp.', 'A lamp.']).dictionary_encode()},
         **fine(2)),
    parquet('parquet with large texts', lambda pa: {'text': pa.array(['A lamp.'], pa.large_string())}, **fine(1)),
    parquet('parquet with a map beside the text',
            lambda pa: {'text': ['A lamp.'], 'm': pa.array([[('a', 1)]], pa.map_(pa.string(), pa.int64()))}, **fine(1)),
    parquet('parquet with NaN beside the text', lambda pa: {'text': ['A lamp.'], 'x': [float('nan')]}, **fine(1),
            check=lambda d, r: 'NaN' in (d/'out/documents.jsonl').read_text() and 'bare NaN in JSON' or None),
    parquet('parquet of a thousand columns', lambda pa: {'text': ['A lamp.']} | {f'c{i}': [i] for i in range(1000)},
         **fine(1)),
    parquet('parquet without the lines of Python', lambda pa: {'text': ['A\u2028lamp.\x85']}, **fine(1),
         check=texts_are('A\u2028lamp.\x85')),
]

JSONL_CASES = [
    rows('a broken row', ROW + b'{"text": "A'+ b'\n' + ROW, words=('rows.jsonl', 'line 2'), quick=True),
    rows('a row that is a list', ROW + b'["A lamp."]\n', words=('rows.jsonl', 'row 2')),
    rows('a row that is a text', b'"A lamp."\n', words=('rows.jsonl', 'row 1')),
    rows('a row that is null', b'null\n', words=('rows.jsonl', 'row 1')),
    rows('a row without text', b'{"id": 1}\n', words=('rows.jsonl', 'row 1', 'text')),
    rows('a text of null', b'{"text": null}\n', words=('rows.jsonl', 'row 1')),
    rows('a text that is a number', b'{"text": 5}\n', words=('rows.jsonl', 'row 1')),
    rows('a text that is a list', b'{"text": ["A", "lamp"]}\n', words=('rows.jsonl', 'row 1')),
    rows('a row nested deep', ROW + DEEP.encode() + b'\n', words=('rows.jsonl', 'line 2')),
    rows('depth beside the text', b'{"text": "A lamp.", "x": ' + b'[' * 900 + b']' * 900 + b'}\n', code=(0, 2)),
    rows('the same name twice in a row', ROW + b'{"text": "A lamp.", "text": "A hill."}\n',
         words=('rows.jsonl', 'line 2', 'twice')),
    rows('an id that is an object', b'{"id": {"a": 1}, "text": "A lamp."}\n', **fine(1)),
    rows('the same id in every row', ROW * 3, **fine(3)),
    rows('NaN beside the text', b'{"text": "A lamp.", "x": NaN, "y": Infinity}\n', **fine(1),
         check=lambda d, r: 'NaN' in (d/'out/documents.jsonl').read_text() and 'bare NaN in JSON' or None),
    rows('a number of ten thousand digits', b'{"text": "A lamp.", "x": ' + b'9' * 10_000 + b'}\n',
         words=('rows.jsonl', 'line 1')),
    rows('a byte-order mark', b'\xef\xbb\xbf' + ROW, **fine(1)),
    rows('a byte-order mark in the middle', ROW + b'\xef\xbb\xbf' + ROW, words=('rows.jsonl', 'line 2')),
    rows('UTF-16 with a mark', ROW.decode().encode('utf-16'), words=('rows.jsonl', 'UTF-8')),
    rows('UTF-16 without a mark', ROW.decode().encode('utf-16-le'), words='rows.jsonl'),
    rows('UTF-32', ROW.decode().encode('utf-32'), words=('rows.jsonl', 'UTF-8')),
    rows('one byte that is not UTF-8', b'{"text": "caf\xe9"}\n', words=('rows.jsonl', 'UTF-8')),
    rows('a zero character in a text', b'{"text": "A\\u0000lamp."}\n', **fine(1), check=texts_are('A\0lamp.')),
    rows('a zero byte between rows', ROW + b'\0\n' + ROW, words=('rows.jsonl', 'line 2')),
    rows('half of a character pair', ROW + b'{"text": "A \\ud800lamp."}\n', words=('rows.jsonl', 'row 2', 'half'),
         quick=True),
    rows('half of a character pair in an id', b'{"id": "\\udfff", "text": "A lamp."}\n', words=('rows.jsonl', 'row 1')),
    rows('half of a character pair beside the text', b'{"text": "A lamp.", "m": "\\ud83d"}\n', **fine(1),
         check=lambda d, r: None if r'\ud83d' in (d/'out/documents.jsonl').read_text() else 'is not what it was'),
    rows('both halves of a character, apart', b'{"text": "\\ude00\\ud83d"}\n', words=('rows.jsonl', 'row 1', 'half')),
    rows('a line of twenty megabytes', b'{"text": "' + b'lamp ' * 4_000_000 + b'"}\n', **fine(1)),
    rows('a million empty lines', b'\n' * 1_000_000 + ROW, **fine(1)),
    rows('nothing in it', b''),
    rows('spaces alone', b'  \n\t\n'),
    rows('texts of spaces alone', b'{"text": "  "}\n' * 3, words='rows.jsonl'),
    rows('an empty document among others', ROW + b'{"text": ""}\n' + ROW, **fine(2, '1 empty / empty documents: 1'),
         doubt='what is left out is counted and named'),
    rows('lines that end as on Windows', ROW.replace(b'\n', b'\r\n') * 2, **fine(2)),
    rows('lines that end as on an old Mac', ROW.replace(b'\n', b'\r') * 2, **fine(2), doubt='Python reads such lines'),
    rows('a line break of Unicode inside a text', '{"text": "A\u2028lamp."}\n'.encode(), **fine(1),
         check=texts_are('A\u2028lamp.')),
    rows('no line break at the end', ROW.strip(), **fine(1)),
    rows('commas between rows', ROW.strip() + b',\n' + ROW, words=('rows.jsonl', 'line 1')),
    rows('two rows on one line', ROW.strip() + ROW, words=('rows.jsonl', 'line 1')),
    rows('one JSON list over many lines', b'[\n' + ROW.strip() + b',\n' + ROW + b']\n', words=('rows.jsonl', 'line 1')),
    rows('comments between rows', b'# rows\n' + ROW, words=('rows.jsonl', 'line 1')),
    rows('the last row cut short', ROW * 2 + b'{"id": "c", "te', words=('rows.jsonl', 'line 3')),
    rows('twenty-five thousand rows', b''.join(b'{"text": "Lamp %d."}\n' % i for i in range(25_000)),
         **fine('25,000'), quick=True),
    Case('rows beyond --docs', 'corpus --source rows.jsonl --docs 10 --out out',
         put('rows.jsonl', b''.join(b'{"text": "Lamp %d."}\n' % i for i in range(50))), code=0, words='10 documents'),
]

PLAIN_CASES = [
    text('a text of no bytes', 'a.txt', b''),
    text('a text of spaces', 'a.txt', b' \n\t ' * 99),
    text('a text of a byte-order mark', 'a.txt', b'\xef\xbb\xbf'),
    text('a text after a byte-order mark', 'a.txt', b'\xef\xbb\xbfA lamp.', **fine(1), check=texts_are('A lamp.')),
    text('a text in UTF-16', 'a.txt', 'A lamp.'.encode('utf-16'), words=('a.txt', 'UTF-8')),
    text('a text in Latin-1', 'a.txt', 'café'.encode('latin-1'), words=('a.txt', 'UTF-8')),
    text('a text in Shift-JIS', 'a.txt', 'ランプ'.encode('shift-jis'), words=('a.txt', 'UTF-8')),
    text('zero bytes', 'a.txt', b'\0' * 1000, code=(0, 2), words='a.txt',
         doubt='zeros are valid UTF-8'),
    text('a program', 'a.txt', b'\x7fELF' + os.urandom(2000), words=('a.txt', 'UTF-8')),
    text('a character cut in two at the end', 'a.txt', 'A lamp é'.encode()[:-1], words=('a.txt', 'UTF-8')),
    text('an overlong character', 'a.txt', b'\xc0\xaf', words=('a.txt', 'UTF-8')),
    text('surrogates in bytes', 'a.txt', b'\xed\xa0\x80', words=('a.txt', 'UTF-8')),
    text('a character beyond Unicode', 'a.txt', b'\xf5\x80\x80\x80', words=('a.txt', 'UTF-8')),
    text('twenty megabytes without a space', 'a.txt', b'ACGT' * 5_000_000, **fine(1), memory=1 << 30),
    text('a million marks on one letter', 'a.txt', ('e' + '\u0301' * 1_000_000).encode(), **fine(1)),
    text('characters that turn the line around', 'a.txt', '\u202eA lamp.\u2066'.encode(), **fine(1)),
    text('commands for a terminal', 'a.txt', b'\x1b[2J\x1b]0;owned\x07 A lamp.', **fine(1)),
    text('a single character', 'a.txt', b'x', **fine(1)),
    text('a text that may not be read', 'a.txt', lambda d: d.put('a.txt', 'A lamp.').chmod(0), permissions=True),
    text('names of special tokens', 'a.txt', b'<|begin|> A lamp. <|end|><|pad|>', **fine(1),
         check=texts_are('<|begin|> A lamp. <|end|><|pad|>')),
    Case('names of special tokens, as tokens', 'tokens --text a.txt --tokenizer tokenizer --out out',
         put('a.txt', '<|end|>' * 50),
         code=0, words='1 document',
         check=lambda d,
         r: None if d.json('out/tokens.json')['splits']['train']['tokens'] > 100 else 'read as special tokens'),
    Case('a tokenizer from twenty megabytes of spaces', 'tokenizer --text a.txt --vocab-size 300 --out out',
         put('a.txt', b'A lamp' + b' ' * 20_000_000 + b'A lamp'),
         code=0, words='merges', memory=2 << 30), # the Rust library takes 80 bytes for each of a single pre-token
    Case('a tokenizer from a text like DNA', 'tokenizer --text a.txt --vocab-size 400 --out out',
         lambda d: d.put('a.txt',
         os.urandom(2_000_000).hex().translate(str.maketrans('0123456789abcdef', 'acgt' * 4))), code=0, words='merges'),
    Case('a tokenizer from base64', 'tokenizer --text a.txt --vocab-size 400 --out out',
         lambda d: d.put('a.txt', base64.b64encode(os.urandom(3_000_000))), code=0, words='merges'),
    Case('a tokenizer from ten megabytes of one letter', 'tokenizer --text a.txt --vocab-size 300 --out out',
         put('a.txt', b'a' * 10_000_000),
         code=0, words='merges'),
    Case('a tokenizer from one character', 'tokenizer --text a.txt --vocab-size 300 --out out', put('a.txt', 'x'),
         code=0, words='280'),
    Case('a tokenizer from half a character pair', 'tokenizer --text rows.jsonl --vocab-size 300 --out out',
         put('rows.jsonl', '{"text": "\\ud800 lamp lamp"}\n'), words=('rows.jsonl', 'row 1', 'half')),
    Case('tokens from ten megabytes of one letter', 'tokens --text a.txt --tokenizer tokenizer --out out',
         put('a.txt', b'a' * 10_000_000),
         code=0, words='1 document', memory=2 << 30), # as above
    Case('tokens from a bad row keep the old ones',
         'tokens --text rows.jsonl --tokenizer tokenizer --val 0.1 --out tokens',
         put('rows.jsonl', ROW + b'{"text": 1}\n'), words='rows.jsonl', quick=True),
    Case('tokens from a text that is not there keep the old ones',
         'tokens --text txet --tokenizer tokenizer --val 0.1 --out tokens', words='txet'),
    Case('a corpus from a bad row keeps the old one', 'corpus --source rows.jsonl --out kept', (put('rows.jsonl', ROW),
         lambda d: d.server.run('corpus --source rows.jsonl --out kept', d),
         put('rows.jsonl', ROW + b'{"text": 1}\n')), words='rows.jsonl'),
    Case('all of the text held out', 'tokens --text a.txt --tokenizer tokenizer --val 0.999999 --out out',
         put('a.txt', 'x'),
         code=(0, 2), words='out', doubt='a single character is either part'),
    Case('measured on a text that is not UTF-8', 'evaluate --model model --tasks text --text a.txt',
         put('a.txt', b'caf\xe9'), words='a.txt'),
    Case('measured on a single character', 'evaluate --model model --tasks text --text a.txt', put('a.txt', 'x'),
         code=0, words='bits'),
    Case('a run on a text that is too short', 'run --text a.txt --steps 2 --out out', put('a.txt', 'A lamp.'),
         words='short', new='out/*'),
    Case('a run on two characters', 'run --text a.txt --steps 2 --out out', put('a.txt', 'ab'), words=(), new='out/*'),
]


def many(name, *steps, **more):
    more = dict(code=0) | more
    return Case(name, 'corpus --source docs --out out', (put('docs/a.txt', 'A lamp.'), *steps), **more)


FOLDER_CASES = [
    many('a folder with unknown kinds of files', put('docs/b.docx', b'PK'), put('docs/c.pdf', b'%PDF'),
         words=('1 document', 'docx'), quick=True),
    many('a folder with a hidden file', put('docs/.b.txt', 'hidden'), words='1 document', check=texts_are('A lamp.')),
    many('a folder with a hidden folder', put('docs/.git/b.txt', 'hidden'), words='1 document',
         check=texts_are('A lamp.')),
    many('a folder with a linked folder', put('elsewhere/b.txt', 'linked'), link('docs/more', '../elsewhere'),
         words=('1 document', 'more')),
    many('a folder with a link to itself', link('docs/again', '.'), words=('1 document', 'again')),
    many('a folder with a linked file', put('elsewhere.txt', 'A hill.'), link('docs/b.txt', '../elsewhere.txt'),
         words='2 documents'),
    many('a folder with a dangling link', link('docs/b.txt', 'nowhere'), words=('1 document', 'b.txt')),
    many('a folder with a pipe', fifo('docs/b.txt'), words=('1 document', 'b.txt'), quick=True),
    many('a folder with an endless device', link('docs/b.txt', '/dev/zero'), words=('1 document', 'b.txt')),
    many('a folder with one bad file', put('docs/b.txt', b'caf\xe9'), code=2, words='b.txt'),
    many('a folder with an empty file', put('docs/b.txt', ''), words=('1 document', '1 empty / empty documents: 1'),
         doubt='counted and named'),
    many('a folder with documents.jsonl beside other files', put('docs/documents.jsonl', ROW),
         words=('1 document', 'a.txt')),
    many('a folder whose documents.jsonl is a folder', put('docs/documents.jsonl/b.txt', 'A hill.'),
         words=('document', 'left out / 2 documents')),
    many('a folder whose documents.jsonl is a pipe', fifo('docs/documents.jsonl'), code=(0, 2),
         words='documents.jsonl'),
    many('two hundred folders inside each other', lambda d: d.put('docs/' + 'x/' * 200 + 'b.txt', 'A hill.'),
         words='2 documents'),
    many('a name with a line break', put('docs/a\nb.txt', 'A hill.'), words='2 documents'),
    many('a name that is not UTF-8', lambda d: open(os.fsencode(d/'docs/') + b'/caf\xe9.txt', 'w').write('A hill.'),
         words='2 documents'),
    many('a folder that may not be entered', lambda d: (d.put('docs/sub/b.txt', 'x'), os.chmod(d/'docs/sub', 0)),
         permissions=True,
         code=(0, 2), words='sub', doubt='named and skipped, or refused'),
    Case('a folder of nothing', 'corpus --source docs --out out', folder('docs'), words='docs'),
    Case('a folder of unknown kinds alone', 'corpus --source docs --out out', put('docs/a.docx', b'PK'), words='docs'),
    Case('a folder of hidden files alone', 'corpus --source docs --out out', put('docs/.a.txt', 'x'), words='docs'),
    Case('the text of a run, held-out part included', 'tokens --text book/text --tokenizer tokenizer --out out',
         code=(0, 2),
         words='val', doubt='refused, or the held-out documents are left out and named'),
]

TABLE = b'id,text\na,A lamp.\n'
OTHER_CASES = [
    text('a table with commas', 'a.csv', TABLE, **fine(1), check=texts_are('A lamp.')),
    text('a table whose quote is never closed', 'a.csv', TABLE + b'b,"A hill.\nc,A well.\n', words=('a.csv', 'line 3')),
    text('a table with a row too long', 'a.csv', TABLE + b'b,A hill.,more\n', words=('a.csv', 'line 3', '3 cells')),
    text('a table with a row too short', 'a.tsv', TABLE.replace(b',', b'\t') + b'b\n', words=('a.tsv', 'line 3')),
    text('a table that is not UTF-8', 'a.csv', TABLE + b'b,caf\xe9\n', words=('a.csv', 'line 3', 'UTF-8')),
    text('a table without a text', 'a.csv', b'id,title\na,A lamp.\n', words=('a.csv', 'text')),
    text('a table with two columns of one name', 'a.csv', b'text,text\na,b\n', words=('a.csv', 'two columns')),
    text('a table with a zero byte', 'a.csv', TABLE + b'b,A\0hill.\n', **fine(2)),
    text('a table of twenty megabytes in one cell', 'a.csv', b'text\n' + b'lamp ' * 4_000_000 + b'\n', **fine(1)),
    text('a table of a header', 'a.csv', b'id,text\n'),
    text('a page', 'a.html', b'<p>A lamp.', code=0, words=('1 document', 'HTML')),
    text('a page in an encoding that it does not name', 'a.html', b'<p>caf\xe9', words=('a.html', 'utf-8')),
    text('a page in an encoding that nobody knows', 'a.html', b'<meta charset=klingon>', words=('a.html', 'klingon')),
    text('a page in an encoding that is a program', 'a.html', b'<meta charset=unicode_escape>', words='a.html'),
    text('a page of half a character', 'a.html', b'\xff\xfe\x3d\xd8', words='a.html'),
    text('a page that keeps an expression busy', 'a.html', b'<link ' * 1_000_000, code=0, words='1 document'),
    text('a crawl cut short', 'a.warc', b'WARC/1.0\r\nContent-Length: 99\r\n\r\nx', words=('a.warc', 'record 1')),
    text('a crawl that is none', 'a.warc', b'A lamp.\n', words=('a.warc', 'record 1')),
    text('a record of a petabyte', 'a.warc', b'WARC/1.0\r\nContent-Length: 999999999999999\r\n\r\nx', words='a.warc'),
    text('a crawl of no bytes', 'a.warc', b''),
    text('a dump', 'a.xml', WIKI, **fine(1), check=texts_are('A lamp.')),
    text('billion laughs', 'a.xml', LAUGHS + WIKI, words=('a.xml', 'line 1', 'DOCTYPE'), quick=True),
    text('a dump that opens another file', 'a.xml', b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
         b'<mediawiki>&a;</mediawiki>', words=('a.xml', 'DOCTYPE')),
    text('a dump cut short', 'a.xml', WIKI[:-20], words=('a.xml', 'line 1')),
    text('a dump of a million open tags', 'a.xml', b'<mediawiki>' + b'<page>' * 1_000_000, words='a.xml'),
    text('a file of XML that is no dump', 'a.xml', b'<project/>', words=('a.xml', 'no text')),
    Case('one bad row, leniently', 'corpus --source rows.jsonl --lenient --out out',
         put('rows.jsonl', ROW + b'{"te\n{"text": 5}\n' + ROW), code=0,
         words=('2 documents', 'not JSON: 1', 'without text: 1'), quick=True),
    Case('nothing but bad rows, leniently', 'corpus --source rows.jsonl --lenient --out out',
         put('rows.jsonl', b'{"text": 5}\n' * 9), words=('rows.jsonl', 'no text')),
    Case('a bomb, leniently', 'corpus --source docs --lenient --out out',
         lambda d: (d.put('docs/a.txt', 'A lamp.'), bomb('docs/b.txt.gz', bytes(1 << 26), 32)(d)), code=0,
         words=('1 document', 'too large: 1')),
    Case('books that are none', 'corpus --source a.txt --format books --out out', put('a.txt', 'A lamp.'),
         words=('a.txt', '*** START OF')),
    Case('code that is a file', 'corpus --source a.txt --format code --out out', put('a.txt', 'A lamp.'), words='a.txt'),
    Case('posts that answer in a circle', 'corpus --source a.jsonl --format social --out out',
         put('a.jsonl', '{"id": 1, "text": "a", "reply_to": 2}\n{"id": 2, "text": "b", "reply_to": 1}\n'), words='a.jsonl'),
    Case('a format that nobody knows', 'corpus --source a.txt --format poems --out out', put('a.txt', 'A lamp.'),
         words=('format', 'poems')),
    Case('a language that nobody knows', 'corpus --source docs --format code --languages pyhton --out out',
         put('docs/a.py', 'x = 1'), words=('pyhton', 'python')),
    Case('a licence for what is no code', 'corpus --source a.txt --licences MIT --out out', put('a.txt', 'A lamp.'),
         words=('licences', 'format')),
]

CASES = [*GZIP_CASES, *PARQUET_CASES, *JSONL_CASES, *PLAIN_CASES, *FOLDER_CASES, *OTHER_CASES]
