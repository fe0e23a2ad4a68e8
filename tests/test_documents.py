"Every kind of file, plain and packed; crawls, dumps, books, code and conversations; hostile archives; flat memory."
import bz2
import csv
import gzip
import io
import json
import os
import random
import re
import tarfile
import textwrap
import tracemalloc
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook.core import UserError
from llmbook.text import unpack
from llmbook.text.corpus import corpus, world_documents
from llmbook.text.documents import local_documents, text_path
from llmbook.text.genres import _is_allowed, _licence_of, _mask_handles, _unwrap
from llmbook.text.genres import book_documents, code_documents, social_documents
from llmbook.text.rows import csv_rows, make_document
from llmbook.text.unpack import Skipped, _ZstReader, open_unpacked, read_lines
from needs import needs

web = [needs(module, 'web') for module in ('warcio', 'mwparserfromhell')]
PACK = {'': bytes, '.gz': gzip.compress, '.zst': zstandard.ZstdCompressor().compress, '.bz2': bz2.compress}
packings = pytest.mark.parametrize('suffix', PACK)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def counted(read, path, lenient=True, **flags):
    left_out = Skipped(lenient=lenient)
    return list(read(path, left_out, **flags)), dict(left_out)


# Rows and texts

@packings
def test_rows_and_texts_in_every_packing(suffix, tmp_path):
    text = 'one\n\nzwei é\n'
    put(tmp_path/f'a.txt{suffix}', PACK[suffix](text.encode()))
    put(tmp_path/f'b.jsonl{suffix}', PACK[suffix](json.dumps({'id': 'x', 'text': text}).encode()))
    put(tmp_path/f'c.csv{suffix}', PACK[suffix](f'id,text\r\ny,"{text}"\r\n'.encode()))
    put(tmp_path/f'd.TSV{suffix.upper()}', PACK[suffix](f'text\turl\n"{text}"\tu\n'.encode()))
    put(tmp_path/f'e.html{suffix}', PACK[suffix](b'<p>E'))
    found = list(local_documents(tmp_path))
    assert [d['text'] for d in found] == [text] * 4 + ['<p>E']
    assert [d['id'] for d in found] == [f'a.txt{suffix}', 'x', 'y', f'd.TSV{suffix.upper()}#0', f'e.html{suffix}']


def test_csv_as_the_library_writes_it(tmp_path):
    rng = random.Random(0)
    cells = [''.join(rng.choices('a",\n\r\t é', k=rng.randrange(9))) for _ in range(600)]
    rows = [dict(zip(('id', 'text', 'x'), cells[i:i + 3])) for i in range(0, 600, 3)]
    for name, dialect in (('a.csv', 'excel'), ('a.tsv', 'excel-tab'), ('b.csv', 'unix')):
        with open(tmp_path/name, 'w', newline='', encoding='utf-8') as f:
            writer = csv.DictWriter(f, ['id', 'text', 'x'], dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
        assert list(csv_rows(tmp_path/name, Skipped())) == rows


def test_a_hundred_thousand_characters_in_a_cell(tmp_path):
    text = 'word ' * 100_000
    put(tmp_path/'a.csv', f'text\n{text}\n')
    assert [d['text'] for d in local_documents(tmp_path/'a.csv')] == [text]


@packings
def test_lines_are_numbered_as_an_editor_does(suffix, tmp_path):
    path = put(tmp_path/f'a.txt{suffix}', PACK[suffix](b'one\n\ntwo\r\nthree\rfour'))
    assert list(read_lines(path, Skipped())) == [(1, b'one\n'), (2, b'\n'), (3, b'two\r\n'), (4, b'three\r'), (5,
            b'four')]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 5000))
def test_zstandard_frames_come_out_as_they_went_in(tmp_path_factory, parts, size):
    path = tmp_path_factory.mktemp('zst')/'a.zst'
    path.write_bytes(b''.join(map(zstandard.ZstdCompressor(write_checksum=True).compress, parts)))
    reader, found = _ZstReader(path), b''
    while part := reader.read1(size): found += part
    assert found == b''.join(parts)
    with open_unpacked(path) as f: assert f.read() == found


def test_a_row_that_is_too_long_is_skipped_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, 'LARGEST', 1000)
    content = b'{"text": "first"}\n{"text": "' + b'x' * 2_000_000 + b'"}\n{"text": "last"}\n'
    for suffix, pack in PACK.items():
        path = put(tmp_path/f'a.jsonl{suffix}', pack(content))
        with pytest.raises(UserError, match='line 2: longer than 1,000 bytes'): list(local_documents(path))
        found, left_out = counted(local_documents, path)
        assert [(d['id'][-2:], d['text']) for d in found] == [('#0', 'first'), ('#2',
                'last')] and left_out == {'lines that are too long': 1}
    put(tmp_path/'b.txt', b'x' * 1001)
    with pytest.raises(UserError,
                       match='b.txt: more than 1,000 bytes in one document'): list(local_documents(tmp_path/'b.txt'))


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['', '.gz', '.zst']) # bzip2 takes a minute to pack it
def test_fifty_megabytes_in_a_line(suffix, tmp_path):
    long = b'{"text": "' + b'word ' * 10_000_000 + b'"}\n'
    good = put(tmp_path/f'a.jsonl{suffix}', PACK[suffix](b'{"text": "first"}\n' + long + b'{"text": "last"}\n'))
    assert [len(d['text']) for d in local_documents(good)] == [5, 50_000_000, 4]
    cut = put(tmp_path/f'b.jsonl{suffix}', PACK[suffix](b'{"text": "first"}\n' + long[:-3] + b'\n{"text": "last"}\n'))
    with pytest.raises(UserError, match='b.jsonl.*line 2: not a JSON') as e: list(local_documents(cut))
    assert len(str(e.value)) < 300
    found, left_out = counted(local_documents, cut)
    assert [d['text'] for d in found] == ['first', 'last'] and left_out == {'rows that are not JSON': 1}


@packings
def test_memory_stays_flat(suffix, tmp_path):
    rng = random.Random(0)
    def peak(n):
        rows = (json.dumps({'text': rng.randbytes(600).hex()}) + '\n' for _ in range(n))
        path = put(tmp_path/f'{n}.jsonl{suffix}', PACK[suffix](''.join(rows).encode()))
        tracemalloc.start()
        assert sum(1 for _ in local_documents(path)) == n
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak
    peak(10)
    assert peak(3000) < peak(300) + 300_000 # of 3.6 MB


def test_nan_is_counted_and_written_as_null(tmp_path):
    put(tmp_path/'a.jsonl',
        '{"text": "a", "x": NaN, "y": {"z": [1, -Infinity]}}\n{"text": "b", "x": 1e999}\n{"text": "c", "x": 1.5}\n')
    pq.write_table(pa.table({'text': ['d'], 'x': [float('nan')]}), tmp_path/'b.parquet')
    found, left_out = counted(local_documents, tmp_path, lenient=False)
    assert [d['text'] for d in found] == list('abcd') and left_out == {'NaN or infinity beside a text, written as null': 3}
    corpus(str(tmp_path), str(tmp_path.parent/f'{tmp_path.name}-out'))
    written = (tmp_path.parent/f'{tmp_path.name}-out/documents.jsonl').read_text()
    assert 'NaN' not in written and 'Infinity' not in written and written.count('null') == 4


# Pages

@pytest.mark.parametrize('page, text', [
    (b'\xef\xbb\xbfcaf\xc3\xa9', 'café'), ('café'.encode('utf-16'), 'café'), (b'\xfe\xff' + 'é'.encode('utf-16-be'),
            'é'),
    (b'<meta charset=iso-8859-1>\x80', '€'), (b'<META CHARSET = "Windows-1251">\xe9', 'й'),
    (b"<meta charset='euc-jp'>\xa4\xa2", 'あ'),
    (b'<meta name=x content="y"><meta http-equiv="Content-Type" content="text/html;charset=gb2312">\xc4\xe3', '你'),
    (b'<?xml version="1.0" encoding="iso-8859-2"?>\xb1', 'ą'), (b' ' * 1100 + b'<meta charset=latin1>', ''),
    (b'<meta charset=utf-16>a', 'a'), (b'<meta charset=x-user-junk', None), (b'\xe9', None),
    (b' ' * 1100 + b'<meta charset=latin1>\xe9', None)])
def test_charsets_of_pages(page, text, tmp_path):
    put(tmp_path/'a.html', page)
    if text is None:
        with pytest.raises(UserError, match='a.html: '): list(local_documents(tmp_path/'a.html'))
    else: assert next(local_documents(tmp_path/'a.html'))['text'].endswith(text)


@pytest.mark.parametrize('head, url', [
    ('<link rel="canonical" href="https://a.org/x?a=1&amp;b=2">', 'https://a.org/x?a=1&b=2'),
    ('<LINK HREF=http://a.org REL=canonical>', 'http://a.org'),
    ("<link rel='x canonical' href=' https://a.org/ '/>", 'https://a.org/'), ('<link rel=canonical href=/x>', ''),
    ('<link rel=canonical>', ''),
    ('<link rel=alternate href=https://a.org>', ''), ('<link rel=canonical href="javascript:x">', ''), ('', '')])
def test_addresses_of_pages(head, url, tmp_path):
    put(tmp_path/'a.html', f'<html><head>{head}</head>text')
    assert list(local_documents(tmp_path/'a.html')) == [
        make_document('a.html', f'<html><head>{head}</head>text', 'a.html', url, format='html')]


@pytest.mark.parametrize('page', ['<link ' * 50_000, '<link rel=' * 50_000, '<meta ' * 50_000,
                                  '<link ' + 'a=' * 50_000, '<?xml ' * 50_000])
def test_pages_that_would_keep_an_expression_busy(page, tmp_path):
    put(tmp_path/'a.html', page)
    assert next(local_documents(tmp_path/'a.html'))['url'] == ''


def warc(answers, packed):
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=packed)
    writer.write_record(writer.create_warcinfo_record('a.warc', {'software': 'test'}))
    for url, status, headers, body in answers:
        head = StatusAndHeaders(status, list(headers.items()), protocol='HTTP/1.1')
        writer.write_record(writer.create_warc_record(url, 'request', payload=io.BytesIO(b''),
                                                      http_headers=StatusAndHeaders('GET / HTTP/1.1', [],
                                                              is_http_request=True)))
        writer.write_record(writer.create_warc_record(url, 'response', payload=io.BytesIO(body), http_headers=head))
    return file.getvalue()


@web[0]
@pytest.mark.parametrize('name, packed', [('a.warc', False), ('a.warc.gz', True), ('a.WARC.GZ', True),
                                          ('a.warc.zst', False)])
def test_a_crawl_as_the_library_writes_it(name, packed, tmp_path):
    html = {'Content-Type': 'text/html; charset=windows-1252'}
    answers = [
        ('https://a.org/1', '200 OK', html, b'caf\xe9'), ('https://a.org/2', '404 Not Found', html, b'no'),
        ('https://a.org/3', '301 Moved', html, b''),
        ('https://a.org/4', '200 OK', {'Content-Type': 'image/png'}, b'\x89PNG'), ('https://a.org/5', '200 OK', {},
                b'none'),
        ('https://a.org/6', '200 OK', {'content-type': 'TEXT/HTML', 'Content-Encoding': 'gzip'},
         gzip.compress(b'packed')),
        ('https://a.org/7', '200 OK', {'Content-Type': 'application/xhtml+xml', 'Transfer-Encoding': 'chunked'},
         b'3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n'),
        ('https://a.org/8', '200 OK', {'Content-Type': 'text/html'}, b'\r\n\r\nWARC/1.0\r\nWARC-Type: x\r\n\r\n')]
    raw = warc(answers, packed)
    found, left_out = counted(local_documents, put(tmp_path/name,
                                                   PACK['.zst'](raw) if name.endswith('zst') else raw), lenient=False)
    assert [(d['url'], d['text']) for d in found] == [
        ('https://a.org/1', 'café'), ('https://a.org/6', 'packed'), ('https://a.org/7', 'abcde'),
        ('https://a.org/8', '\r\n\r\nWARC/1.0\r\nWARC-Type: x\r\n\r\n')]
    assert all(d['meta'] == {'format': 'html'} and d['source'] == name for d in found) and len({d['id'] for d in found}) == 4
    assert left_out == {'records that are no answer of a server': 9, 'answers of another status than 200': 2,
                        'answers that are not HTML': 2}


SITE = '''<siteinfo><dbname>dewiki</dbname><base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
<namespaces><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace></namespaces></siteinfo>'''


def dump(pages):
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{SITE}{"".join(pages)}</mediawiki>'.encode()


def page(i, text, ns=0, more='', model='wikitext', title=None):
    text = text.replace('&', '&amp;').replace('<', '&lt;')
    return (f'<page><title>{title or f"P {i}"}</title><ns>{ns}</ns><id>{i}</id>{more}<revision><id>1{i}</id>'
            f'<contributor><id>2</id></contributor><model>{model}</model>'
            f'<text bytes="1" xml:space="preserve">{text}</text></revision></page>')


@web[1]
@packings
def test_a_dump(suffix, tmp_path):
    pages = [page(1, 'One.', title='Käse &amp; Brot'), page(2, '#REDIRECT [[x]]', more='<redirect title="x"/>'),
             page(3, 'talk', ns=1),
             page(4, 'body {}', model='css'), page(5, '{{only a template}}'), page(6, 'Last.')]
    found, left_out = counted(local_documents, put(tmp_path/f'a.xml{suffix}', PACK[suffix](dump(pages))),
                              lenient=False)
    assert found == [make_document('dewiki/1', 'One.', 'dewiki', 'https://de.wikipedia.org/wiki/K%C3%A4se_&_Brot',
                                   'CC-BY-SA-4.0', title='Käse & Brot'),
                     make_document('dewiki/6', 'Last.', 'dewiki', 'https://de.wikipedia.org/wiki/P_6',
                                   'CC-BY-SA-4.0', title='P 6')]
    assert left_out == {'wiki redirects': 1, 'wiki pages that are no articles': 1,
                        'wiki pages that are not wikitext': 1, 'empty documents': 1}


@web[1]
@pytest.mark.parametrize('source, text', [
    ("'''Bold''' and ''it''.", 'Bold and it.'),
    ('[[a|b]] [[c]] [[Datei:x.jpg|thumb|[[no]]]][[Kategorie:Y]][[File:z.png]][[en:A]]!', 'b c !'),
    ('a<ref name="x">no</ref><ref name="x"/> b', 'a b'), ('== H ==\n* one\n# two', 'H\none\ntwo'),
    ('{|\n| no\n|}\nyes', 'yes'),
    ('{{a|{{b}}}}yes', 'yes'), ('[https://a.org name] https://b.org', 'name https://b.org'),
    ('a<!-- no --> b<br/>c', 'a b\nc'),
    ('H<sub>2</sub>O <math>x</math>', 'H2O'), ('a &amp; b&nbsp;c &lt;', 'a & b\xa0c <'), ('__NOTOC__ a\n\n\n\n\nb',
            'a\n\nb'),
    ('[[Talk: show]] [[:Kategorie:Y|shown]]', 'Talk: show shown'), ('{{unclosed [[ <b> text',
            '{{unclosed [[ <b> text')])
def test_wikitext(source, text, tmp_path):
    put(tmp_path/'a.xml', dump([page(1, source), page(2, 'end')]))
    assert [d['text'] for d in local_documents(tmp_path/'a.xml')] == [text, 'end']


@web[1]
def test_other_xml_is_left_out_and_the_last_revision_counts(tmp_path):
    put(tmp_path/'pom.xml', '<project><page/></project>')
    revisions = ''.join(f'<revision><id>{i}</id><text>version {i}</text></revision>' for i in range(3))
    put(tmp_path/'wiki.xml', f'<mediawiki><page><title>T</title><ns>0</ns><id>7</id>{revisions}</page></mediawiki>')
    found, left_out = counted(local_documents, tmp_path, lenient=False)
    assert [(d['id'], d['text'], d['url'], d['licence']) for d in found] == [('wiki.xml/7', 'version 2', '', '')]
    assert left_out == {'.xml files that are no dump of a wiki': 1}
    with pytest.raises(UserError, match='no text in it.*no dump of a wiki'): list(local_documents(tmp_path/'pom.xml'))


# Books

@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 79))
def test_wrapped_prose_is_unwrapped(seed, width):
    rng = random.Random(seed)
    paragraphs = [' '.join('x' * rng.randint(1, 12) for _ in range(rng.randint(30, 90))) for _ in range(4)]
    wrapped = '\n\n'.join(textwrap.fill(text, width) for text in paragraphs)
    assert _unwrap(wrapped) == '\n\n'.join(paragraphs)


@pytest.mark.parametrize('expression, allowed', [
    ('MIT', True), ('mit or GPL-2.0', True), ('(MIT OR GPL-2.0)', True), ('MIT AND Apache-2.0', True),
    ('MIT AND GPL-2.0', False), ('GPL-2.0', False), ('GPL-2.0 OR (MIT AND Apache-2.0)', True), ('', False)])
def test_licences_to_choose_from(expression, allowed):
    assert _is_allowed(expression, ['MIT', 'apache-2.0']) == allowed and _is_allowed(expression, None)


def test_words_with_hyphens_are_joined_without_a_space():
    full = 'word ' * 13
    assert _unwrap(f'{full}well-\nknown lamp') == f'{full}well-known lamp'
    assert _unwrap(f'{full}lamp--\nhis lamp') == f'{full}lamp--his lamp'


def test_verse_lists_and_long_texts_stay(tmp_path):
    for text in ('Roses are red\nviolets are blue', 'CHAPTER I\nThe Beginning', '  indented\n  verse that goes on',
                 'a\n\n\n\nb', '', '\n', 'one line'):
        assert _unwrap(text) == text
    assert len(_unwrap('word ' * 12 + '\n' + ('word ' * 14 + '\n') * 100_000)) > 6_000_000 # and soon


BOOK = '''The Project Gutenberg eBook of X [eBook #99]\n\nTitle: X\nAuthor: Y\nLanguage: English\n
*** START OF {} PROJECT GUTENBERG EBOOK X ***\n\nProduced by Z\n\nText.\n\n{}*** END OF {} PROJECT GUTENBERG EBOOK X ***\nterms'''


@pytest.mark.parametrize('which, end', [('THE', ''), ('THIS', ''), ('THE',
        "End of the Project Gutenberg EBook of X, by Y\n\n")])
@pytest.mark.parametrize('name, change', [('a.txt', str), ('a.txt', lambda s: s.replace('\n', '\r\n')), ('a.txt',
        lambda s: '\ufeff' + s),
                                          ('a.txt', lambda s: s.replace('*** ', '***').replace(' ***', '***'))])
def test_books(which, end, name, change, tmp_path):
    put(tmp_path/'shelf'/name, change(BOOK.format(which, end, which)))
    put(tmp_path/'shelf/cover.png', b'x')
    found, left_out = counted(book_documents, tmp_path/'shelf', lenient=False)
    assert found == [make_document('a.txt', 'Text.', 'Project Gutenberg', 'https://www.gutenberg.org/ebooks/99',
                                   title='X', author='Y', language='English')]
    assert left_out == {'.png files': 1}


# Code

MIT = ('Permission is hereby granted, free of charge, to any person obtaining a copy of this software ... The above\n'
       'copyright notice and  this permission notice shall be included in all copies')


@pytest.mark.parametrize('text, licence', [
    (MIT, 'MIT'), (MIT.upper(), 'MIT'), ('Apache License\n   Version 2.0, January 2004', 'Apache-2.0'),
    ('GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3', 'AGPL-3.0'), ('GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1',
            'LGPL-2.1'),
    ('GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991', 'GPL-2.0'), ('Mozilla Public License Version 2.0',
            'MPL-2.0'),
    ('x' * 500 + ' GNU GENERAL PUBLIC LICENSE Version 2', ''),
    (f'{MIT} This is free and unencumbered software released into the public domain', ''),
    ('', ''), ('All rights reserved.', ''), ('permission ' * 100_000, '')])
def test_licences(text, licence): assert _licence_of(text) == licence


def test_a_repository(tmp_path):
    top = tmp_path/'repo'
    for name, content in {
            'COPYING.txt': MIT, 'a.py': 'a = 1\n', 'sub/b.go': 'package b\n',
            'own/LICENSE': 'Apache License Version 2.0', 'own/deep/c.rs': 'c',
            'two/LICENSE-MIT': MIT, 'two/LICENSE-APACHE': 'Apache License Version 2.0', 'two/d.py': 'd',
            'none/LICENSE': 'secret', 'none/e.py': 'e',
            'spdx.c': '/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */\nint x;',
            'either.js': '// SPDX-License-Identifier: (MIT OR Apache-2.0)\n',
            'gen.py': '# Code generated by x. DO NOT EDIT.\n', 'deep.py': '\n' * 20 + '# do not edit\n',
            'min.js': 'x' * 5000, 'average.js': ('x' * 150 + '\n') * 5,
            'a.min.css': 'a{}', 'bin.c': b'int\0x', 'latin.py': b'caf\xe9', 'big.sql': b'x\n' * 600_000,
            'vendor/v.py': 'v', 'web/node_modules/m.js': 'm',
            '.git/config.py': 'x', 'logo.png': b'x', 'empty.py': ''}.items(): put(top/name, content)
    (top/'link.py').symlink_to(top/'nowhere')
    found, left_out = counted(code_documents, top)
    assert {d['id']: (d['meta']['language'], d['licence']) for d in found} == {
        'a.py': ('python', 'MIT'), 'sub/b.go': ('go', 'MIT'), 'own/deep/c.rs': ('rust', 'Apache-2.0'),
        'two/d.py': ('python', ''), 'none/e.py': ('python', ''),
        'spdx.c': ('c', 'GPL-2.0-only WITH Linux-syscall-note'), 'either.js': ('javascript', '(MIT OR Apache-2.0)'),
        'deep.py': ('python', 'MIT')}
    assert left_out == {
        'licence files': 5, 'generated files': 1, 'minified files': 3, 'binary files': 1,
        'files that are not UTF-8': 1, 'files over 1 MB': 1,
        'folders of vendored code': 2, 'hidden names': 1, '.png files': 1, 'empty documents': 1,
        'links that lead nowhere': 1}
    assert all(d['source'] == 'repo' and d['meta']['format'] == 'code' for d in found)
    with pytest.raises(UserError, match='latin.py: not UTF-8'): counted(code_documents, top, lenient=False)
    allowed, _ = counted(code_documents, top, licences=['MIT'])
    assert [d['id'] for d in allowed] == ['a.py', 'deep.py', 'either.js', 'sub/b.go']
    some, _ = counted(code_documents, top, languages=['Go', 'rust'])
    assert [d['id'] for d in some] == ['own/deep/c.rs', 'sub/b.go']
    put(top/'README.md', 'x')
    for path, words in ((top/'README.md', 'not the folder of a repository'), (top/'nowhere', 'no such file'),
                        (top/'a.py', 'cannot read .py')):
        with pytest.raises(UserError, match=words): counted(code_documents, path)
    with pytest.raises(UserError, match='not a table of posts'): counted(social_documents, top/'README.md')
    with pytest.raises(UserError, match='not a .txt file or a folder'): counted(book_documents, put(top/'a.csv',
            'text\na\n'))


# Conversations

@pytest.mark.parametrize('text, masked', [
    ('@ann hi @ben.k, and @cy_3!', '@user hi @user, and @user!'), ('mail a.b@c.org', 'mail a.b@c.org'),
    ('@ann@social.example hello', '@user hello'),
    ('see https://a.org/x?y=1#z. Then (http://b.org)', 'see [link]. Then ([link])'), ('www.a.org', '[link]'),
    ('u/some_one and /u/Other_1', '@user and @user'),
    ('https://a.org/@ann', '[link]'), ('a @ b', 'a @ b'), ('@', '@'), ('x' * 5 + '@' * 5, 'x' * 5 + '@' * 5),
    ('menu/food', 'menu/food'), ('@änne', '@user')])
def test_handles_and_links(text, masked):
    assert _mask_handles(text) == masked
    assert _mask_handles(_mask_handles(text)) == masked


def test_answers_keep_their_order(tmp_path):
    posts = [{'id': i, 'text': f't{i}', 'reply_to': to} for i, to in ((1, None), (2, 1), (3, 1), (4, 2), (5, 1), (6, 2))]
    one, = social_documents(put(tmp_path/'a.jsonl', '\n'.join(map(json.dumps, posts))), Skipped())
    assert one['text'].split() == ['t1', 't2', 't4', 't6', 't3', 't5']


def test_links_are_kept_by_choice(): assert _mask_handles('@a https://a.org/@b x',
                                                          'keep') == '@user https://a.org/@b x'


def test_threads(tmp_path):
    rng, posts = random.Random(1), []
    for i in range(300): posts.append({'id': i, 'text': str(i), 'author': i % 7, 'reply_to': rng.choice([None,
            *range(i)]) if i else None})
    path = put(tmp_path/'a.jsonl', '\n'.join(map(json.dumps, posts)))
    found = list(social_documents(path, Skipped()))
    told = [int(t) for d in found for t in d['text'].split('\n\n')]
    assert sorted(told) == list(range(300)) and sum(d['meta']['posts'] for d in found) == 300
    place = {i: k for k, i in enumerate(told)}
    for post in posts: assert post['reply_to'] is None or place[post['reply_to']] < place[post['id']]
    assert [d['id'] for d in found] == [str(p['id']) for p in posts if p['reply_to'] is None]


def test_a_thread_of_any_depth_and_other_tables(tmp_path):
    posts = [{'id': i, 'text': f't{i}', 'reply_to': i - 1 if i else ''} for i in range(20_000)]
    pq.write_table(pa.Table.from_pylist([{'id': str(p['id']), 'text': p['text'],
                                          'reply_to': str(p['reply_to'])} for p in posts]), tmp_path/'a.parquet')
    one, = social_documents(tmp_path/'a.parquet', Skipped())
    assert one['meta']['posts'] == 20_000 and one['text'].startswith('t0\n\nt1\n\nt2')
    put(tmp_path/'b.csv', 'id,author,text,reply_to\n2,b,No.,1\n1,a,Is it?,\n3,c,Lost.,9\n')
    found, left_out = counted(social_documents, tmp_path/'b.csv', lenient=False)
    assert [d['text'] for d in found] == ['Is it?\n\nNo.', 'Lost.']
    assert left_out == {'answers to posts that are not there, read without them': 1}


# Archives

def hostile_tar(path, mode):
    with tarfile.open(path, mode) as archive:
        for name, kind, target in (('../up.txt', tarfile.REGTYPE, ''), ('/absolute.txt', tarfile.REGTYPE, ''),
                                   ('a/../../up2.txt', tarfile.REGTYPE, ''),
                                   ('link', tarfile.SYMTYPE, '/etc/passwd'), ('hard', tarfile.LNKTYPE, '../../x'),
                                   ('pipe', tarfile.FIFOTYPE, ''),
                                   ('device', tarfile.CHRTYPE, ''), ('link/through.txt', tarfile.REGTYPE, '')):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b'text'))


def hostile_zip(path):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in ('../up.txt', '/absolute.txt', '..\\up.txt', 'C:\\x.txt'): archive.writestr(name, 'text')
        link = zipfile.ZipInfo('link')
        link.external_attr = 0o120777 << 16
        archive.writestr(link, '/etc/passwd')
        archive.writestr('bomb.txt', bytes(1 << 22))


@pytest.mark.parametrize('name', ['a.tar', 'a.tar.gz', 'a.tgz', 'a.tar.bz2', 'a.zip', 'A.ZIP', 'a.txt.zip',
                                  'a.tar.zst', 'a.7z'])
def test_archives_are_refused_and_nothing_gets_out(name, tmp_path):
    inside = tmp_path/'in'
    inside.mkdir()
    if 'tar' in name or 'tgz' in name: hostile_tar(inside/name,
                                                   'w:gz' if name.endswith('gz') else 'w:bz2' if name.endswith('bz2') else 'w')
    else: hostile_zip(inside/name)
    for read in (local_documents, book_documents, social_documents):
        with pytest.raises(UserError) as e: list(read(inside/name, Skipped()))
        assert name in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(UserError,
                       match=r'an archive \(\..*unpack it into an empty folder'): corpus(str(inside/name),
                               str(tmp_path/'out'))
    put(inside/'good.txt', 'good')
    found, left_out = counted(local_documents, inside, lenient=False)
    assert [d['text'] for d in found] == ['good'] and sum(left_out.values()) == 1
    assert sorted(os.listdir(tmp_path)) == ['in'] and sorted(os.listdir(inside)) == sorted([name, 'good.txt'])


def test_a_missing_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack.importlib.util, 'find_spec', lambda name: None)
    for name in ('a.warc', 'a.xml'):
        put(tmp_path/name, b'x')
        with pytest.raises(UserError,
                           match=rf"{name}: reading it needs \w+; install it with: pip install 'llmbook\[web\]'"):
            list(local_documents(tmp_path/name, Skipped(lenient=True)))


def test_a_folder_without_text_says_what_it_left_out(tmp_path):
    put(tmp_path/'a.png', b'x')
    with pytest.raises(UserError,
                       match=r'no text in it; the corpus is empty \(left out: .png files: 1\)'): list(local_documents(tmp_path))
    assert text_path(tmp_path) == tmp_path


def test_ids_do_not_move_when_a_row_is_repaired(tmp_path):
    rows = [json.dumps({'text': f'row {i}'}) for i in range(6)]
    broken = [rows[0], '{"te', rows[2], '{"text": 3}', '', rows[4], rows[5]]
    found, _ = counted(local_documents, put(tmp_path/'a.jsonl', '\n'.join(broken)))
    complete = {d['id']: d['text'] for d in local_documents(put(tmp_path/'b/a.jsonl', '\n'.join(rows)))}
    assert [complete[d['id']] for d in found] == [d['text'] for d in found] == ['row 0', 'row 2', 'row 4', 'row 5']


def test_ids_do_not_move_behind_a_damaged_group(tmp_path):
    path = tmp_path/'a.parquet'
    texts = [f'row {i}' for i in range(30)]
    pq.write_table(pa.table({'text': texts}), path, row_group_size=10, use_dictionary=False)
    begin = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    raw = bytearray(path.read_bytes())
    raw[begin:begin + 20] = b'\xff' * 20
    found, left_out = counted(local_documents, put(path, bytes(raw)))
    assert [(d['id'], d['text']) for d in found] == [(f'a.parquet#{i}', texts[i]) for i in (*range(10), *range(20, 30))]
    assert left_out == {'groups of rows that are broken': 1}


def test_the_world_is_what_it_was():
    story = next(world_documents(1, seed=3, start=5))
    assert story['id'] == 'world-3-5' and set(story['meta']) == {'logp', 'blind'} and story['source'] == 'world'
    assert re.fullmatch(r'[A-Za-z ,.\'"?!-]+', story['text'])


@pytest.mark.parametrize('suffix', ['.gz', '.zst', '.bz2'])
def test_a_bomb_is_found_before_its_rows_and_a_large_one_while_they_are_read(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, '_FREE', 1 << 20)
    row = json.dumps({'text': 'x' * 1000}) + '\n'
    path = put(tmp_path/f'a.jsonl{suffix}', PACK[suffix](row.encode() * 3000))
    for small, least in ((1 << 26, 0), (0, 900)):
        monkeypatch.setattr(unpack, '_SMALL', small)
        found, left_out = counted(local_documents, put(tmp_path/'docs'/path.name, path.read_bytes())) if least else ([], {})
        with pytest.raises(UserError, match='unpack to more than 1,') as e: list(local_documents(path))
        assert ('after line 0:' in str(e.value)) == (not least)
        assert least <= len(found) <= (1400 if least else 0) and (left_out == {'files that are too large': 1} or not least)


@web[0]
@pytest.mark.parametrize('at', [0, 3, 40, 20_000, -30_000, -8, -1])
@pytest.mark.parametrize('in_one', [False, True])
def test_a_wrong_byte_in_a_packed_crawl_costs_its_member(at, in_one, tmp_path):
    from llmbook.text.pages import warc_pages
    html, rng = {'Content-Type': 'text/html'}, random.Random(0)
    texts = [f'{i} {rng.randbytes(100_000).hex()}'.encode() for i in range(5)]
    members = [gzip.compress(warc([(f'https://a.org/{i}', '200 OK', html, text)], False)) for i, text in enumerate(texts)]
    if in_one: members = [gzip.compress(b''.join(map(gzip.decompress, members)))]
    broken = bytearray(members[len(members) // 2])
    broken[at if at < 0 or not in_one or at < 40 else len(broken) // 2 + at] ^= 255
    members[len(members) // 2] = bytes(broken)
    left_out = Skipped(lenient=True)
    found = [d['text'].encode() for d in warc_pages(put(tmp_path/'a.warc.gz', b''.join(members)), 'a', left_out)]
    broken_ones = sum(n for kind, n in left_out.items() if 'broken' in kind or 'cannot be read' in kind)
    if in_one: assert broken_ones and len([text for text in found if text in texts]) < 5
    else: assert broken_ones == 1 and found == texts[:2] + texts[3:]


@pytest.mark.parametrize('content, ids', [
    (b'text\none\nLONG\ntwo\n', [0, 2]), (b'text\none\n"a\nLONG\nb"\ntwo\n', [0, 2]),
    (b'text\none\n"a\nLONG\ntwo\n', [0, 3]), (b'LONG\none\n', [])])
def test_a_line_of_a_table_that_is_too_long(content, ids, tmp_path, monkeypatch):
    from llmbook.text.rows import as_documents
    monkeypatch.setattr('llmbook.text.unpack.LARGEST', 30)
    path, left_out = put(tmp_path/'a.csv', content.replace(b'LONG', b'x' * 50)), Skipped(lenient=True)
    found = list(as_documents(csv_rows(path, left_out), 'a', skipped=left_out))
    assert [d['id'] for d in found] == [f'a#{i}' for i in ids] and {d['text'] for d in found} <= {'one', 'two'}
    assert left_out['lines that are too long'] == 1
    with pytest.raises(UserError, match='longer than 30 bytes'): list(csv_rows(path, Skipped()))


@pytest.mark.parametrize('content, lines', [
    (b'one\rx', [b'one\r', b'x']), (b'a\rb\rc', [b'a\r', b'b\r', b'c']), (b'a\r\nb', [b'a\r\n', b'b']), (b'a\r', [b'a\r'])])
def test_lines_that_end_in_a_carriage_return(content, lines, tmp_path):
    assert [line for _, line in read_lines(put(tmp_path/'a.txt', content), Skipped())] == lines
