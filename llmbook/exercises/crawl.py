"What `grade` asks of the answers to the exercises of the chapter `crawl`, and the site that the chapter crawls."
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    "A web site on this machine: a table of path -> answer, served in a thread, which notes what it was asked and when."
    def __init__(self, pages, clock=time):
        self.pages, self.clock, self.log = pages, clock, []
        site = self
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self): site.answer(self)
            def log_message(self, *_): pass
        class Server(ThreadingHTTPServer): daemon_threads, block_on_close = True, False
        self.server = Server(('127.0.0.1', 0), Handler)
        self.host = f'127.0.0.1:{self.server.server_port}'
        self.url = f'http://{self.host}'

    def answer(self, request):
        self.log.append((self.clock.monotonic(), request.path, request.headers['User-Agent']))
        page = self.pages.get(request.path, self.pages.get(request.path.split('?')[0], (404, {}, 'not here')))
        if callable(page): page = page(request.path)
        status, headers, body = page if isinstance(page, tuple) else (200, {}, page)
        request.send_response(status)
        for name, value in {'Content-Type': 'text/html; charset=utf-8', **headers}.items(): request.send_header(name, value)
        request.end_headers()
        try:
            for part in [body] if isinstance(body, (str, bytes)) else body:
                request.wfile.write(part.encode() if isinstance(part, str) else part)
        except OSError: pass  # the crawler hung up

    def paths(self): return [path for _, path, _ in self.log]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Clock:
    "A clock that stands still until somebody sleeps."
    def __init__(self): self.now, self.lock = 0.0, threading.Lock()
    def monotonic(self): return self.now

    def sleep(self, seconds):
        with self.lock: self.now += seconds


def check_1(answer):
    "Addresses that are the same page."
    assert answer is not None, "Give a number."
    assert int(answer) == 5, (
        f"Not {answer}. Which differences may a server never see, and which may it answer differently?")


def check_2(answer):
    "A robots.txt, read by hand."
    answer = [bool(x) for x in answer]
    assert len(answer) == 6, "Six addresses, six answers."
    wrong = [i + 1 for i, (a, b) in enumerate(zip(answer, (True, False, True, False, True, True))) if a != b]
    assert not wrong, (
        f"Look again at number {wrong[0]}: which group is for us, and which of its rules is the longest that fits?")


def check_3(answer):
    "Traps among addresses."
    traps = ['http://h/a/b/a/b/a/b/', 'http://h/x/x/x/page', 'http://h/blog/tag/blog/tag/blog/tag/1', 'http://h/one/a/a/a',
             'http://h/a/b/c/a/b/c/a/b/c/d']
    good = ['http://h/', 'http://h/a/b/a/c', 'http://h/x/x/page', 'http://h/a/b/a/b/c', 'http://h/2024/01/01', 'http://h/a/b/a/c/a/d',
            'http://h/aaa/aaaa/aa', 'http://h/p?a=/x/x/x/x']
    for url in traps: assert answer(url) is True, (
        f"{url} repeats a run of segments three times, one after another.")
    for url in good: assert answer(url) is False, (
        f"{url} is no trap: no run of segments of its path comes three times in a row.")


def check_4(answer):
    "When each of several addresses is asked for."
    cases = [('aab', 2, [0, 2, 0]), ('abab', 3, [0, 0, 3, 3]), ('aaaa', 1, [0, 1, 2, 3]),
             ('abcaab', 5, [0, 0, 0, 5, 10, 5]), ('', 1, [])]
    for hosts, delay, wanted in cases:
        times = answer(list(hosts), delay)
        assert times is not None, "Return a list of seconds."
        problem = f"hosts {' '.join(hosts)}, {delay} s between requests: {list(times)}"
        assert len(times) == len(wanted), f"{problem} has not one time for each address."
        late = [t > w for t, w in zip(times, wanted)]
        assert not any(late), (
            f"{problem}: number {late.index(True) + 1} waits for a host that is not its own.")
        assert list(times) == wanted, f"{problem}: some host is asked too soon."
