"A crawl on a site of this machine: traps end, strangers' rules hold, and a kill loses nothing."
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from itertools import chain, repeat

import pytest

from llmbook.core import UserError
from llmbook.exercises.crawl import Clock, Site
from llmbook.text import crawl as module
from llmbook.text import fetch
from llmbook.text.crawl import crawl
from llmbook.text.fetch import canonical_address, fetch_once


def run(site, out, **flags):
    settings = dict(contact='kim@example.org', private=True, clock=Clock(), limit=50_000)
    return crawl(site.url + '/', out, **settings | flags)


def documents(out):
    return [json.loads(line) for line in (out/'documents.jsonl').read_text().splitlines()]


def links(*paths):
    return ''.join(f'<a href="{path}">x</a>' for path in paths)


def tree(n, name=''):
    return {'/': name + links('/1'), **{f'/{i}': f'page {i}{name}' + links(f'/{2*i}', f'/{2*i+1}', f'/{i}') for i in range(1, n)}}


def paths(site):
    return [path for path in site.paths() if path != '/robots.txt']


@pytest.mark.parametrize('link, wanted', [
    ('HTTPS://Example.ORG:443', 'https://example.org/'), ('http://example.org:443/', 'http://example.org:443/'),
    ('/a/./b/../../c/.', 'http://h.org/c/'), ('/../..', 'http://h.org/'), ('/a//b', 'http://h.org/a//b'),
    ('/%7e%c3%a4%2F', 'http://h.org/~%C3%A4%2F'), ('/ä b', 'http://h.org/%C3%A4%20b'), ('/%2e%2e/x', 'http://h.org/x'),
    ('?utm_source=a&b=1&UTM_x=2', 'http://h.org/d/e?b=1'), ('?b=2&a=1', 'http://h.org/d/e?b=2&a=1'), ('#f', 'http://h.org/d/e'),
    ('//bücher.example./', 'http://xn--bcher-kva.example/'), ('mailto:a@b.org', ''), ('http://a:b@h.org/', ''),
    ('http://h.org:99999/', ''), ('ftp://h.org/', ''), ('http:///x', 'http://h.org/x'), (' f\t', 'http://h.org/d/f'), ('/100%', 'http://h.org/100%')])
def test_addresses(link, wanted):
    assert canonical_address(link, 'http://h.org/d/e') == wanted
    assert not wanted or canonical_address(wanted) == wanted


def test_private_hosts(tmp_path):
    "A public site cannot lead a crawler inside, by a name, a redirect or an odd spelling."
    for host in ('127.0.0.1', 'localhost', '169.254.169.254', '[::ffff:10.0.0.1]', '2130706433', '0'):
        assert fetch_once(f'http://{host}/', 'x', 99, 1).problem == 'private hosts', host
    with Site({'/': 'inside'}) as site, pytest.raises(UserError, match='no page to keep'):
        run(site, tmp_path/'out', private=False)
    assert site.log == []


def test_lookup_once(monkeypatch):
    "The address that was checked is the one that is connected to, whatever the name says afterwards."
    asked, connected = [], []
    def look_up(*args, **kwargs):
        asked.append(args[0])
        return [(2, 1, 6, '', ('93.184.216.34' if len(asked) == 1 else '127.0.0.1', 80))]
    def connect(place, timeout):
        connected.append(place)
        raise OSError
    monkeypatch.setattr(fetch.socket, 'getaddrinfo', look_up)
    monkeypatch.setattr(fetch.socket, 'create_connection', connect)
    assert fetch_once('http://rebind.example/', 'x', 99, 1).problem == 'no connection'
    assert connected == [('93.184.216.34', 80)] and asked == ['rebind.example']


def test_answers_that_never_end():
    "Slow heads, endless bodies and bombs are all left in time."
    def drip(_): return 200, {}, iter(lambda: time.sleep(0.02) or 'x', '')
    pages = {'/drip': drip, '/endless': lambda _: (200, {}, iter(lambda: 'x' * 999, '')),
             '/bomb': (200, {'Content-Encoding': 'gzip'}, gzip.compress(bytes(3_000_000))),
             '/empty': (200, {'Content-Encoding': 'gzip'}, gzip.compress(b'')),
             '/after': lambda _: (200, {'Content-Encoding': 'gzip'}, chain([gzip.compress(b'done')], repeat(b'x' * 999))),
             '/odd': (200, {'Content-Encoding': 'br'}, b'x'), '/broken': (200, {'Content-Encoding': 'gzip'}, b'no gzip'),
             '/short': (200, {'Content-Length': '99'}, b'x')}
    with Site(pages) as site:
        answers = {path: fetch_once(site.url + path, 'x', 1000, 0.3, True) for path in pages}
    assert answers.pop('/after').body == b'done' # and what follows is not read
    problems = {path: answer.problem for path, answer in answers.items() if answer.problem}
    assert problems == {'/drip': 'too slow', '/odd': 'broken answers', '/broken': 'broken answers', '/short': 'broken answers'}
    assert [len(answers[path].body) for path in ('/endless', '/bomb', '/empty')] == [1001, 1001, 0]


def test_memory_of_a_bomb():
    with Site({'/': (200, {'Content-Encoding': 'gzip'}, gzip.compress(bytes(30_000_000)))}) as site:
        tracemalloc.start()
        fetch_once(site.url + '/', 'x', 1000, 5, True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 5_000_000


def test_redirects(tmp_path):
    "A loop ends, a chain of five arrives and one of six does not; each step waits for its turn."
    pages = {f'/five{i}': (302, {'Location': f'five{i+1}'}, '') for i in range(5)} | {'/five5': 'arrived'}
    pages |= {f'/six{i}': (301, {'Location': f'/six{i+1}'}, '') for i in range(6)} | {'/six6': 'never'}
    pages |= {'/loop': (302, {'Location': '/loop'}, ''), '/out': (302, {'Location': 'ftp://h/'}, ''), '/none': (302, {}, '')}
    with Site({'/': links('/five0', '/six0', '/loop', '/out', '/none')} | pages) as site: outcomes = run(site, tmp_path/'out')
    assert [d['text'] for d in documents(tmp_path/'out')][1:] == ['arrived'] and '/six6' not in paths(site)
    assert outcomes['redirects after five'] == 1 and len(set(paths(site))) == len(paths(site))


def test_start_that_moved(tmp_path):
    "A start address may lead to another host; a page's link may not, unless it is allowed."
    with Site({'/': 'there' + links('/x'), '/x': 'too'}) as other:
        pages = {'/': (301, {'Location': other.url + '/'}, '')}
        with Site(pages) as site: assert run(site, tmp_path/'moved')['pages'] == 2
        with Site({'/': links(other.url + '/')}) as site:
            assert run(site, tmp_path/'stays') == {'pages': 1}
            assert run(site, tmp_path/'goes', anywhere=True)['pages'] == 3


@pytest.mark.parametrize('status, body, allowed', [
    (200, 'User-agent: *\nDisallow: /a', 2), (200, 'User-agent: llmbook\nDisallow:\n\nUser-agent: *\nDisallow: /', 3),
    (404, 'User-agent: *\nDisallow: /', 3), (403, '', 3), (200, '\ufeffUser-agent: *\nDisallow: /a', 2)])
def test_robots(tmp_path, status, body, allowed):
    robots = (status, {'Content-Type': 'text/plain'}, body)
    with Site({'/robots.txt': robots, '/': links('/a', '/b'), '/a': 'a', '/b': 'b'}) as site:
        assert run(site, tmp_path/'out')['pages'] == allowed


def test_robots_of_an_odd_kind(tmp_path):
    "Rules count whatever kind of file the server takes them for."
    robots = (200, {'Content-Type': 'application/octet-stream'}, 'User-agent: *\nDisallow: /a')
    with Site({'/robots.txt': robots, '/': links('/a'), '/a': 'a'}) as site:
        assert run(site, tmp_path/'out') == {'pages': 1, 'forbidden by robots.txt': 1}


@pytest.mark.parametrize('robots', [(500, {}, ''), (503, {}, ''), (429, {}, ''), (200, {}, 'User-agent: *\nDisallow: /'),
                                    (200, {}, 'User-agent: *\nCrawl-delay: 99999')])
def test_nothing_allowed(tmp_path, robots):
    with Site({'/robots.txt': robots, '/': 'x'}) as site, pytest.raises(UserError): run(site, tmp_path/'out')
    assert site.paths() == ['/robots.txt']


@pytest.mark.parametrize('first', [(503, {}, ''), (429, {}, ''), (200, {'Content-Length': '99'}, 'short')])
def test_rules_known_later(tmp_path, first):
    "Rules that could not be read are asked for again by the next run, which finds what it would have found."
    pages = tree(4)
    with Site(pages) as site:
        assert run(site, tmp_path/'whole') == {'pages': 4, 'status 404': 4}
        before = len(site.log)
        site.pages = pages | {'/robots.txt': first}
        for _ in range(2):
            with pytest.raises(UserError, match='robots.txt: .*later'): run(site, tmp_path/'out')
        site.pages = pages
        for _ in range(2): assert run(site, tmp_path/'out') == {'pages': 4, 'status 404': 4}
    asked = [path for path in site.paths()[before:] if path != '/robots.txt']
    assert documents(tmp_path/'out') == documents(tmp_path/'whole') and len(asked) == len(set(asked)) == 8


def test_one_host_known_later(tmp_path):
    "Hosts whose rules are known are not asked twice because of one whose rules are not."
    with Site(tree(6, 'a')) as known, Site(tree(6, 'b') | {'/robots.txt': (500, {}, '')}) as unknown:
        starts = [unknown.url + '/', known.url + '/']
        def go(out, **flags): return crawl(starts, out, contact='a@b.c', private=True, clock=Clock(), **flags)
        assert go(tmp_path/'out', pages=3) == {'pages': 3, 'robots.txt: status 500': 1}
        assert go(tmp_path/'out') == {'pages': 6, 'status 404': 6, 'robots.txt: status 500': 1}
        unknown.pages = tree(6, 'b')
        assert go(tmp_path/'out') == go(tmp_path/'out') == {'pages': 12, 'status 404': 12}
    for site in (known, unknown): assert len(set(paths(site))) == len(paths(site)) == 12


@pytest.mark.parametrize('hops, allowed', [(1, 1), (5, 1), (6, 2)])
def test_robots_that_moved(tmp_path, hops, allowed):
    "Rules behind five redirects count for the host that was asked; behind six there are none."
    pages = {'/robots.txt': (301, {'Location': '/r1'}, ''), '/': links('/a'), '/a': 'a'}
    pages |= {f'/r{i}': (302, {'Location': f'/r{i+1}'}, '') for i in range(1, hops)}
    pages[f'/r{hops}'] = (200, {'Content-Type': 'text/plain'}, 'User-agent: *\nDisallow: /a')
    with Site(pages) as site: assert run(site, tmp_path/'out')['pages'] == allowed


def test_rules_are_read_daily(tmp_path):
    clock = Clock()
    with Site(tree(9), clock) as site: run(site, tmp_path/'out', delay=3 * 3600, clock=clock)
    asked = [now for now, path, _ in site.log if path == '/robots.txt']
    assert len(asked) > 1 and all(23 <= (b - a) / 3600 <= 30 for a, b in zip(asked, asked[1:]))


def test_own_address_is_not_asked_for(tmp_path):
    "An address that a page gave as its own costs no request."
    with Site({'/': links('/print', '/story'), '/print': '<link rel=canonical href="/story">', '/story': 'x'}) as site:
        assert run(site, tmp_path/'out') == {'pages': 2, 'other addresses of a page': 1}
    assert paths(site) == ['/', '/print']


def test_journal_reaches_the_disk(tmp_path, monkeypatch):
    "All lines of a batch are in the file when the disk is asked to confirm them."
    sizes = []
    monkeypatch.setattr(module.os, 'fsync', lambda fd: sizes.append(os.fstat(fd).st_size))
    for i in (1, 2):
        module._append(tmp_path/'journal', [{'url': 'a'}, {'url': 'b'}])
        assert len(sizes) == i and sizes[-1] == (tmp_path/'journal').stat().st_size


@pytest.mark.parametrize('busy', [503, 429])
def test_manners(tmp_path, busy):
    "One request to a host at a time, the pauses kept, and a host that is too busy left alone for a minute."
    clock = Clock()
    pages = tree(4) | {'/2': (busy, {}, '')}
    with Site(pages, clock) as site: run(site, tmp_path/'out', delay=3, clock=clock)
    times = {path: now for now, path, _ in site.log}
    pauses = [b - a for a, b in zip(sorted(times.values()), sorted(times.values())[1:])]
    assert min(pauses) >= 3 and times['/3'] - times['/2'] >= 60
    assert all('llmbook/' in agent and 'kim@example.org' in agent for *_, agent in site.log)


def test_orders_of_a_page(tmp_path):
    "noindex, nofollow, in a page, in a header, in a link."
    pages = {'/': links('/a', '/b', '/c') + '<a rel=nofollow href="/d">d</a>',
             '/a': '<meta name="ROBOTS" content="NOINDEX">' + links('/e'),
             '/b': '<meta name=llmbook content=nofollow>' + links('/f'),
             '/c': (200, {'X-Robots-Tag': 'none'}, links('/g'))} | {f'/{x}': x for x in 'defg'}
    with Site(pages) as site: run(site, tmp_path/'out')
    assert sorted(paths(site)) == ['/', '/a', '/b', '/c', '/e']
    assert [d['url'].removeprefix(site.url) for d in documents(tmp_path/'out')] == ['/', '/b', '/e']


def test_limits(tmp_path):
    "Depth, requests and pages each end an endless site; a crawl is continued with more pages."
    pages = {'/': '<a href="/n?i=0">x</a>', '/n': lambda path: f'{path}<a href="/n?i={int(path[5:]) + 1}">x</a>'}
    with Site(pages) as site:
        assert run(site, tmp_path/'depth', depth=4)['pages'] == 5
        assert run(site, tmp_path/'requests', requests=7) == {'pages': 7, 'beyond the limit of a host': 1}
        assert run(site, tmp_path/'pages', pages=3)['pages'] == 3
        before = len(site.log)
        assert run(site, tmp_path/'pages', pages=5)['pages'] == 5 and len(paths(site)) - before <= 2
        with pytest.raises(UserError, match='depth was 20, now 3'): run(site, tmp_path/'pages', depth=3)


@pytest.mark.parametrize('start, contact', [('ftp://h/', 'a@b.c'), ('example.org', 'a@b.c'), ('http://h/', ''),
                                            ('http://h/', 'a@b\r\nX: y')])
def test_bad_arguments(tmp_path, start, contact):
    with pytest.raises(UserError, match='--start|--contact'): crawl(start, tmp_path/'out', contact=contact)
    assert list(tmp_path.iterdir()) == []


def test_threads_change_nothing(tmp_path):
    "The journal of eight threads on three sites is that of one."
    sites = [Site(tree(12, name)).__enter__() for name in 'abc']
    starts = [site.url + '/' for site in sites]
    flags = dict(contact='a@b.c', private=True, delay=0, pages=30)
    journals = []
    for threads in (1, 8):
        crawl(starts, tmp_path/str(threads), clock=Clock(), threads=threads, **flags)
        journals.append((tmp_path/str(threads)/'.crawl.jsonl').read_bytes())
    for site in sites: site.__exit__()
    assert journals[0] == journals[1] and len(documents(tmp_path/'8')) == 30


def test_damaged_journal(tmp_path):
    with Site(tree(5)) as site:
        run(site, tmp_path/'out', pages=4)
        journal = tmp_path/'out/.crawl.jsonl'
        lines = journal.read_text().splitlines(True)
        journal.write_text(''.join([*lines[:2], *lines[3:]]))
        with pytest.raises(UserError, match='damaged at'): run(site, tmp_path/'out')


CHILD = """
import sys
from llmbook.text.crawl import crawl
crawl(sys.argv[1], sys.argv[2], contact='a@b.c', private=True, delay=0)
"""


@pytest.mark.slow
def test_kill(tmp_path):
    "Killed at random moments and started again: the same documents, and at most the page in flight asked for twice."
    rng, kills = random.Random(0), 0
    with Site(tree(300)) as site:
        run(site, tmp_path/'whole', delay=0)
        wanted, first = documents(tmp_path/'whole'), len(site.log)
        journal = tmp_path/'out/.crawl.jsonl'
        while True:
            child = subprocess.Popen([sys.executable, '-c', CHILD, site.url + '/', str(tmp_path/'out')])
            aim = (journal.read_bytes().count(b'\n') if journal.exists() else 0) + rng.randrange(5, 60)
            while child.poll() is None and kills < 4:
                if journal.exists() and journal.read_bytes().count(b'\n') >= aim: break
                time.sleep(0.002)
            if kills < 4 and child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            done = child.wait()
            if done == 0: break
            assert done == -signal.SIGKILL
    asked = [path for path in site.paths()[first:] if path != '/robots.txt']
    assert kills == 4 and documents(tmp_path/'out') == wanted
    assert len(asked) - len(set(asked)) <= kills


def test_without_protego(monkeypatch):
    monkeypatch.setitem(sys.modules, 'protego', None)
    rules = module._parse_robots('User-agent: *\nDisallow: /a\nCrawl-delay: 3')
    assert not rules.allows('http://h/a') and rules.allows('http://h/b') and rules.delay == 3
