"""No page is wider than a phone: every staged page, in headless Chromium, 390 pixels wide.

The pages are a stand-in for Quarto's (`standin.py`): nbconvert's HTML in Quarto's class names, with `book.scss`.
"""
import json
import sys

import pytest
from needs import needs
from test_jupyterlab import BROWSER, FLAGS
from test_layout import ROOT, copy_house, run

pytestmark = [pytest.mark.slow, needs('playwright', 'dev'), needs('sass', 'dev'),
              pytest.mark.skipif(BROWSER is None, reason='no browser on the PATH')]

WIDTH = 390
WIDE = """limit => [...document.querySelectorAll('main *')]
    .filter(e => e.getBoundingClientRect().right > limit && !e.parentElement.closest('pre, table, mjx-container'))
    .slice(0, 3).map(e => e.tagName.toLowerCase() + ' ' + e.textContent.trim().slice(0, 60))"""


def wide_pages(files):
    "The pages that scroll sideways, each with what sticks out."
    from playwright.sync_api import sync_playwright
    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={'width': WIDTH, 'height': 844})
        for file in files:
            page.goto(file.as_uri())
            width = page.evaluate('document.documentElement.scrollWidth')
            if width > WIDTH: found[file.name] = width, page.evaluate(WIDE, WIDTH + 1)
        browser.close()
    return found


@pytest.fixture(scope='module')
def staged(tmp_path_factory):
    site = copy_house(ROOT, tmp_path_factory.mktemp('site'))
    assert json.loads(run(site, sys.executable, ROOT/'tests/book/staging.py').splitlines()[-1]) == []
    return site/'_proc'


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_every_page_fits_a_phone(staged, tmp_path, dark):
    from standin import build
    files = build(staged, tmp_path/'html', dark=dark)
    assert len(files) > 40 and not wide_pages(files)


def test_a_wide_page_is_seen(tmp_path):
    from standin import page, stylesheet
    wide = tmp_path/'wide.md'
    wide.write_text('---\ntitle: Wide\n---\n\n<div style="width: 500px">too wide</div>\n')
    (tmp_path/'wide.html').write_text(page(wide, stylesheet()))
    assert list(wide_pages([tmp_path/'wide.html'])) == ['wide.html']
