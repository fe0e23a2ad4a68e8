"""Malformed files of many kinds, each read twice.

Strict reading ends in one line that names the file and, where the file has lines or rows, the place. Lenient reading
keeps exactly the good documents, and counts the rest.
"""
import bz2
import gzip
import io
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llmbook.core import UserError
from llmbook.text import unpack
from llmbook.text.documents import local_documents
from llmbook.text.genres import book_documents, social_documents
from llmbook.text.unpack import Skipped
from needs import needs

zst = zstandard.ZstdCompressor(write_checksum=True).compress
PACK = {'': bytes, '.gz': gzip.compress, '.zst': zst, '.bz2': bz2.compress}


@dataclass
class Bad:
    "A malformed file, and what becomes of it."
    kind:str # of fault, such as 'truncated'
    name:str # of the file
    content:bytes|object # or a function that makes it
    says:str # what the strict reader says, after the name of the file
    good:tuple=() # the texts that a lenient reader keeps
    counts:int=1 # and what it counts
    read:object=local_documents
    limit:int=0 # bytes that a packed file may unpack to

    def __str__(self): return f'{self.kind}, {self.name}, {self.says[:40]}'


# Rows of JSON: each fault between two good rows, in a plain file and in each kind of packed one

FIRST, LAST = b'{"text": "first"}\n', b'\n{"text": "last"}\n'
ROWS = {
    'wrong type': [b'{"text": 1}', b'{"text": null}', b'{"text": ["a"]}', b'{"text": {"a": "b"}}', b'{"text": true}'],
    'no row': [b'null', b'[]', b'["text"]', b'"text"', b'7', b'true'],
    'missing key': [b'{}', b'{"title": "a"}', b'{"Text": "a"}', b'{"text ": "a"}'],
    'not JSON': [b'{"text": "cut', b'{"text": "a",}', b"{'text': 'a'}", b'{"text": "a"} {"text": "b"}', b'text',
                 b'{"text": "a"}x',
                 b'{text: "a"}', b'{"text": "a\tb"}', b'{"text": "\\x41"}', b'{"text": "\\ud8"}', b'# comment'],
    'bad UTF-8': [b'{"text": "caf\xe9"}', b'{"text": "\xed\xa0\x80"}', b'{"text": "\xc0\xaf"}',
                  b'{"text": "\xf5\x80\x80\x80"}',
                  b'\xff\xfe{\0}\0', b'{"text": "a\xe2\x82"}'],
    'lone surrogate': [b'{"text": "a\\ud83d"}', b'{"text": "\\ude00\\ud83d"}', b'{"text": "a", "id": "\\udfff"}',
                       b'{"text": "a", "url": "\\ud800"}', b'{"text": "a", "licence": "\\ud800"}'],
    'NUL': [b'\0\0\0\0', b'{"text": "a\0b"}', b'\0{"text": "a"}'],
    'BOM': [b'\xef\xbb\xbf{"text": "a"}', '\u2060{"text": "a"}'.encode()],
    'duplicate keys': [b'{"text": "a", "text": "b"}', b'{"id": 1, "id": 2, "text": "a"}',
                       b'{"text": "a", "m": {"x": 1, "x": 2}}'],
    'numbers': [b'{"text": NaN}', b'{"text": "a", "x": ' + b'9' * 5000 + b'}', b'{"text": "a", "x": 01}',
                b'{"text": -}'],
    'deep nesting': [b'[' * 100_000, b'{"text": "a", "x": ' + b'[' * 300 + b']' * 300 + b'}',
                     b'{"text": "a", "x": ' + b'{"a":' * 5000 + b'1' + b'}' * 5000 + b'}'],
}


def row_cases():
    suffixes = ['', '.gz', '.zst', '.bz2']
    for kind, faults in ROWS.items():
        for i, fault in enumerate(faults):
            suffix = suffixes[i % 4] # every kind of packing meets every kind of fault
            content = PACK[suffix](FIRST + fault + LAST)
            yield Bad(kind, f'a.jsonl{suffix}', content, ' 2: ', ('first', 'last'))
    for suffix, pack in PACK.items():
        yield Bad('wrong type', f'many.jsonl{suffix}', pack(b'{"text": 1}\n' * 500 + FIRST), 'row 1: no ', ('first',
                ), 500)


# Files that break off

def truncated():
    many = b''.join(b'{"text": "row %d"}\n' % i for i in range(300))
    texts = tuple(f'row {i}' for i in range(300))
    for suffix in ('.gz', '.zst', '.bz2'):
        pack = PACK[suffix]
        kept = {'.gz': None, '.zst': texts, '.bz2': (*texts,
                                                     *['last'] * 99)} # only the mark of the end is cut off of bzip2
        yield Bad('truncated', f'a.jsonl{suffix}', pack(many) + pack(LAST * 99)[:-9], ', after line ', kept[suffix])
        if suffix != '.bz2': yield Bad('not packed', f'b.jsonl{suffix}', pack(many) + b'garbage',
                                       ', after line 300: ', texts)
        yield Bad('truncated', f'c.jsonl{suffix}', pack(many)[:3], ', after line 0: ')
        yield Bad('truncated', f'd.txt{suffix}', pack(b'text' * 99)[:-9], ': ')
        yield Bad('not packed', f'e.jsonl{suffix}', many, ', after line 0: ')
        yield Bad('not packed', f'f.txt{suffix}', b'plain text', ': ')
        yield Bad('not packed', f'g.csv{suffix}', b'text\na\n', ', after line 0: ')
    yield Bad('truncated', 'a.jsonl', FIRST + FIRST + b'{"text": "cu', ', line 3: ', ('first', 'first'))
    flipped = bytearray(zst(many))
    flipped[len(flipped) // 2] ^= 255
    yield Bad('flipped bit', 'a.jsonl.zst', bytes(flipped), ', after line ', None)
    checksum = gzip.compress(many)[:-8] + b'\0' * 8
    yield Bad('flipped bit', 'a.jsonl.gz', checksum, ', after line 300: ', texts)


# Tables with commas

CSV = {
    'columns': [b'2,two,too\n', b'2\n', b',,,\n'],
    'quotes': [b'2,"two\n', b'2,"two"x\n', b'2,"two""\n'],
    'bad UTF-8': [b'2,caf\xe9\n', b'\xff,two\n', b'2,\xed\xa0\x80\n'],
}


def csv_cases():
    for kind, faults in CSV.items():
        for suffix, fault in zip(['', '.gz', '.zst'], faults):
            content = PACK[suffix](b'id,text\n1,first\n' + fault + b'3,last\n')
            yield Bad(kind, f'a.csv{suffix}', content, ', line 3: ', ('first', 'last'))
    yield Bad('columns', 'a.tsv', b'id\ttext\n1\tfirst\n2\ta\tb\n3\tlast\n', ', line 3: 3 cells', ('first', 'last'))
    yield Bad('columns', 'twice.csv', b'text,text\na,b\n', ', line 1: two columns of one name')
    yield Bad('missing key', 'b.csv', b'id,title\n1,a\n', ', row 1: no ')
    yield Bad('UTF-16', 'c.csv', 'text\na\n'.encode('utf-16'), ', line 1: not UTF-8')
    yield Bad('UTF-16', 'd.tsv', 'text\na\n'.encode('utf-16-le'), ' 1: ', counts=2)
    yield Bad('quotes', 'e.csv', b'text\n"never closed' + b'\nrow' * 2000, ', line 2: broken quotes', ('row',) * 2000)


# Parquet

def table(columns, **options):
    def content():
        f = io.BytesIO()
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), f, **options)
        return f.getvalue()
    return content


def damaged_group():
    raw = bytearray(table({'text': [f'row {i}' for i in range(30)]}, row_group_size=10, use_dictionary=False)())
    begin = pq.ParquetFile(io.BytesIO(bytes(raw))).metadata.row_group(1).column(0).data_page_offset
    raw[begin:begin + 20] = b'\xff' * 20
    return bytes(raw)


def broken_utf8():
    raw = pa.array([b'A lamp.', b'caf\xe9'], pa.binary())
    return table({'text': pa.Array.from_buffers(pa.string(), 2, raw.buffers())})()


TWINS = pa.Table.from_arrays([pa.array(['a']), pa.array(['b'])], names=['text', 'text'])
PARQUET = [
    Bad('truncated', 'a.parquet', lambda: table({'text': ['a']})()[:-9], ': not a parquet file'),
    Bad('truncated', 'b.parquet', b'PAR1', ': not a parquet file'),
    Bad('empty', 'c.parquet', b'', ': not a parquet file'),
    Bad('broken archive', 'd.parquet', damaged_group, ', row group 2: damaged',
        tuple(f'row {i}' for i in (*range(10), *range(20, 30)))),
    Bad('wrong type', 'e.parquet', table({'text': [1, 2]}), ', row 1: no ', (), 2),
    Bad('wrong type', 'f.parquet', table({'text': pa.array(['first', None, 'last'])}), ', row 2: no ', ('first',
            'last')),
    Bad('wrong type', 'g.parquet', table({'text': pa.array([b'a'], pa.binary())}), ', row 1: no '),
    Bad('missing key', 'h.parquet', table({'body': ['a']}), ', row 1: no '),
    Bad('duplicate keys', 'i.parquet', table(TWINS), ': two columns of one name'),
    Bad('bomb', 'j.parquet', table({'text': ['x' * 100_000 + str(i) for i in range(30)]}, compression='zstd',
                                   use_dictionary=False,
                                   write_statistics=False), ': ', limit=1 << 20),
    Bad('bad UTF-8', 'l.parquet', broken_utf8, ', row 2: no ', ('A lamp.',), 2),
]


# Plain text and pages

TEXT = [
    Bad('bad UTF-8', 'a.txt', b'caf\xe9', ': not UTF-8 at byte 3'), Bad('bad UTF-8', 'a.md', b'\xed\xa0\x80',
            ': not UTF-8 at byte 0'),
    Bad('UTF-16', 'b.txt', 'text'.encode('utf-16'), ': not UTF-8 at byte 0'),
    Bad('UTF-16', 'c.jsonl', FIRST.decode().encode('utf-16'), ', line 1: not UTF-8', counts=2),
    Bad('UTF-16', 'd.jsonl', FIRST.decode().encode('utf-32'), ', line 1: not UTF-8', counts=2),
    Bad('truncated', 'e.txt', 'é'.encode()[:1], ': not UTF-8 at byte 0'),
    Bad('binary', 'f.txt', b'\x7fELF\xff', ': not UTF-8'), Bad('bad UTF-8', 'g.txt.zst', zst(b'caf\xe9'),
            ': not UTF-8'),
    Bad('bomb', 'h.txt.gz', gzip.compress(bytes(1 << 22)), ': ', limit=1 << 20),
    Bad('bomb', 'h.txt.zst', zst(bytes(1 << 22)), ': ', limit=1 << 20),
    Bad('bomb', 'h.txt.bz2', bz2.compress(bytes(1 << 22)), ': ', limit=1 << 20),
    Bad('bomb', 'i.jsonl.gz', gzip.compress(FIRST + b' ' * (1 << 22)), ', after line 0: ', limit=1 << 20),
    Bad('bomb', 'i.jsonl.zst', zst(FIRST * 100_000), ', after line 0: ', limit=1 << 20),
    Bad('bomb', 'i.csv.bz2', bz2.compress(b'text\nfirst\n' + b' ' * (1 << 22)), ', after line 0: ', limit=1 << 20),
    Bad('empty', 'j.txt', b'', ''), Bad('empty', 'k.jsonl', b'\n \n', '', counts=0), Bad('empty', 'l.txt',
            b'\xef\xbb\xbf', ''),
    Bad('empty', 'm.csv', b'', '', counts=0), Bad('empty', 'n.jsonl.gz', b'', '', counts=0), Bad('empty', 'o.html',
            b' ', ''),
    Bad('charset', 'a.html', b'<p>caf\xe9', ': not utf-8 at byte 6'),
    Bad('charset', 'b.html', b'<meta charset=klingon>', ": charset 'klingon' is not known"),
    Bad('charset', 'c.html', b'<meta charset="unicode_escape">\\ud800', ": charset 'unicode_escape'"),
    Bad('charset', 'd.htm', b'\xff\xfe\0', ': not utf-16-le at byte 0'),
    Bad('charset', 'e.xhtml', b'<?xml version="1.0" encoding="shift_jis"?>\x81', ': not cp932'),
    Bad('charset', 'f.html', b'<meta charset=windows-1252>\x81', ': not cp1252'),
    Bad('charset', 'g.html.gz', gzip.compress(b'\xe9'), ': not utf-8'),
    Bad('lone surrogate', 'h.html', b'\xff\xfe\x3d\xd8', ': not utf-16-le'),
]


# Crawls

def record(body, status=b'200 OK', more=b'', length=None, kind=b'text/html', version=b'WARC/1.0',
           url=b'https://a.org/'):
    block = b'HTTP/1.1 ' + status + b'\r\nContent-Type: ' + kind + b'\r\n' + more + b'\r\n' + body
    head = [version, b'WARC-Type: response', b'WARC-Target-URI: ' + url,
            b'Content-Type: application/http; msgtype=response']
    if length is not False: head.append(b'Content-Length: %d' % (len(block) if length is None else length))
    return b'\r\n'.join([*head, b'', block, b'', b''])


ONE, TWO = record(b'first'), record(b'last')
PACKED_BODY, ENCODED = gzip.compress(b'packed' * 99), b'Content-Encoding: gzip\r\n'
BROKEN_RECORDS = {
    'truncated': [TWO[:-8], TWO[:20], TWO[:80]],
    'wrong length': [record(b'x', length=9999), record(b'x', length=1), record(b'x', length=False), record(b'x',
            length=10**14)],
    'broken archive': [b'garbage\r\n\r\n', b'\0' * 100 + b'\r\n', record(b'x', version=b'WRAC/1.0')],
    'broken answer': [record(PACKED_BODY[:-9], more=ENCODED), record(b'no gzip', more=ENCODED), record(b'x',
            more=b'Content-Encoding: br\r\n'),
                      record(b'5\r\nab', more=b'Transfer-Encoding: chunked\r\n'), record(b'zz\r\n',
                              more=b'Transfer-Encoding: chunked\r\n'),
                      record(b'2\r\nab\r\n', more=b'Transfer-Encoding: chunked\r\n')],
    'bad UTF-8': [record(b'caf\xe9'), record(b'caf\xe9', kind=b'text/html; charset=klingon')],
}


def warc_cases():
    for kind, faults in BROKEN_RECORDS.items():
        for i, fault in enumerate(faults):
            suffix = ['', '.gz', '.zst'][i % 3]
            yield Bad(kind, f'{kind[0]}{i}.warc{suffix}', PACK[suffix](ONE + fault + TWO), ', record 2: ', ('first',
                    'last'))
    yield Bad('truncated', 'cut.warc.gz', gzip.compress(ONE) + gzip.compress(TWO)[:-8], ', after record 1: ', ('first',))
    for at in (0, 3, 12, 60, -8, -1): # in its head, in what is packed, in its checksum and in its length
        bad = bytearray(gzip.compress(record(b'x' * 99)))
        bad[at] ^= 255
        yield Bad('flipped bit', f'bit{at}.warc.gz', gzip.compress(ONE) + bytes(bad) + gzip.compress(TWO) + bytes(9),
                  ', record 2: ', ('first', 'last'))
    yield Bad('not packed', 'plain.warc.gz', ONE, ', after record 0: ')
    yield Bad('empty', 'empty.warc', b'', '', counts=0)
    yield Bad('no crawl', 'text.warc', b'just text\n', ', record 1: ')
    packed = gzip.compress(ONE + record(bytes(1 << 22)))
    yield Bad('bomb', 'bomb.warc.gz', packed, ', after record 0: ', limit=1 << 20)


# Dumps

def page(i,
         text): return f'<page><title>P{i}</title><ns>0</ns><id>{i}</id><revision><text>{text}</text></revision></page>'


DUMP = f'<mediawiki>{page(1, "first")}{page(2, "last")}</mediawiki>'.encode()
LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
WIKI = [
    Bad('truncated', 'a.xml', DUMP[:-30], ', line 1: broken XML', ('first',)),
    Bad('truncated', 'a.xml.bz2', bz2.compress(DUMP)[:-9], ', line 1: ', ('first', 'last')),
    Bad('truncated', 'b.xml.bz2', bz2.compress(DUMP[:-9]) + bz2.compress(b'x')[:-9], ', line 1: ', ('first', 'last')),
    Bad('not packed', 'c.xml.bz2', DUMP, ', line 1: '),
    Bad('billion laughs', 'd.xml', LAUGHS + DUMP, ', line 1: it has a DOCTYPE'),
    Bad('billion laughs', 'e.xml', b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + DUMP, ', line 1: it has a DOCTYPE'),
    Bad('billion laughs', 'f.xml', (LAUGHS + DUMP).decode().encode('utf-16'), ', line 1: it has a DOCTYPE'),
    Bad('broken archive', 'g.xml', DUMP.replace(b'</title><ns>0</ns><id>2', b'<ns>'),
        ', line 1: broken XML (mismatched tag)', ('first',)),
    Bad('broken archive', 'h.xml', DUMP.replace(b'last', b'&undefined;'), ', line 1: broken XML (undefined entity)',
        ('first',)),
    Bad('bad UTF-8', 'i.xml', DUMP.replace(b'last', b'caf\xe9'), ', line 1: broken XML', ('first',)),
    Bad('NUL', 'j.xml', DUMP.replace(b'last', b'a\0b'), ', line 1: broken XML', ('first',)),
    Bad('empty', 'k.xml', b'', ', line 1: broken XML (no element found)'),
]


# Books and conversations

POST = b'{"id": 1, "text": "first"}\n'
GENRES = [
    Bad('no marks', 'a.txt', b'A text.', ': no *** START OF', read=book_documents),
    Bad('no marks', 'b.txt', b'*** START OF THE PROJECT GUTENBERG EBOOK X ***\nA text.', ': no *** START OF',
        read=book_documents),
    Bad('bad UTF-8', 'c.txt', b'caf\xe9', ': not UTF-8', read=book_documents),
    Bad('missing key', 'd.jsonl', POST + b'{"text": "a"}\n', ', row 2: no ', ('first',), read=social_documents),
    Bad('wrong type', 'e.jsonl', POST + b'{"id": 2, "text": 5}\n', ', row 2: no ', ('first',), read=social_documents),
    Bad('duplicate keys', 'f.jsonl', POST + POST, ', row 2: the id ', ('first',), read=social_documents),
    Bad('lone surrogate', 'g.jsonl', POST + b'{"id": 2, "text": "\\ud800"}\n', ', row 2: half', ('first',),
        read=social_documents),
    Bad('circle', 'h.jsonl', POST + b'{"id": 2, "text": "a", "reply_to": 2}\n', ', post 2: ', ('first',),
        read=social_documents),
    Bad('not JSON', 'i.jsonl', POST + b'{"id"\n', ', line 2: ', ('first',), read=social_documents),
]

CASES = [*row_cases(), *truncated(), *csv_cases(), *PARQUET, *TEXT, *warc_cases(), *WIKI, *GENRES]


def test_there_are_enough():
    kinds = Counter(case.kind for case in CASES)
    assert len(CASES) >= 150 and len(kinds) >= 20


def marked(case):
    "A case, and what it needs."
    if '.warc' in case.name: return pytest.param(case, marks=needs('warcio', 'web'))
    return pytest.param(case, marks=needs('mwparserfromhell', 'web')) if '.xml' in case.name else case


@pytest.mark.parametrize('case', map(marked, CASES), ids=str)
def test_a_malformed_file(case, tmp_path, monkeypatch):
    if case.limit: monkeypatch.setattr(unpack, '_FREE', case.limit)
    path = tmp_path/case.name
    path.write_bytes(case.content() if callable(case.content) else case.content)

    with pytest.raises(UserError) as e: list(case.read(path, Skipped()))
    said = str(e.value).replace(f'{tmp_path}/', '')
    assert said.startswith(case.name) or case.name.split('.')[0] in said
    assert case.says in said and '\n' not in said and len(said) < 300
    if case.limit: assert 'unpack to more than' in said

    left_out, found = Skipped(lenient=True), []
    (tmp_path/'good.txt').write_text('good') # or a folder without any text would be refused
    if case.read is not local_documents: (tmp_path/'good.txt').unlink()
    try:
        for document in case.read(tmp_path if case.read is local_documents else path,
                                  left_out): found.append(document['text'])
    except UserError as e: assert 'no text in it' in str(e) and not found
    if case.read is local_documents: found.remove('good')
    if case.good is not None: assert found == list(case.good)
    if case.counts is not None: assert left_out.total() == case.counts
    assert '?' not in ''.join(found) and '\ufffd' not in ''.join(found)
