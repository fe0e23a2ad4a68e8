"What `grade` asks of the answers to the exercises of the chapter `dirt`."
import math

from llmbook.text.dirt import dirty_pages


def check_1(answer):
    "Two things happen to the shingles of a copy."
    answer = float(answer)
    assert 0 <= answer <= 1, "A similarity is between 0 and 1."
    assert not math.isclose(answer, 46/56, abs_tol=2e-3), "The replaced word is in some of the copy's shingles."
    assert not math.isclose(answer, 41/56, abs_tol=2e-3), "The copy also has shingles that the story has not."
    hint = "Count the shingles of the story, those of the copy, and those in both; a text of n words has n - 4."
    assert math.isclose(answer, 41/61, abs_tol=2e-3), hint


def _page(name, keep=False, exact='', near=''):
    "A page with the labels that count here."
    dirt = {'exact': [exact] if exact else [], 'near': [near] if near else []}
    return {'id': name, 'meta': {'keep': keep, 'copy_of': exact or near, 'dirt': dirt}}


def check_2(answer):
    "Stories that are on no kept page."
    pages = [_page('a', keep=True), _page('a1', exact='a'), _page('a2', near='a'),
             _page('b', keep=True), _page('b1', near='b'), _page('spam')]
    cases = [({'a', 'b'}, 0, "both stories are kept"), ({'a', 'a1', 'b'}, 0, "a story is kept twice"),
             (set(), 2, "nothing is kept"), ({'spam', 'a'}, 1, "one story and a page of spam are kept"),
             ({'a1', 'b'}, 0, "an exact copy is kept in place of its story"),
             ({'a2', 'b'}, 1, "of one story only a near copy is kept")]
    for kept, wanted, case in cases:
        received = answer(pages, set(kept))
        assert received is not None, "Return the number of stories."
        assert received == wanted, f"If {case}, {wanted} are lost, not {received}."
    pages = list(dirty_pages(60))
    good = [page['id'] for page in pages if page['meta']['keep']]
    assert answer(pages, {page['id'] for page in pages}) == 0, "A cleaner that keeps every page loses no story."
    assert answer(pages, set(good[10:])) >= 1, "Ten stories of real pages are dropped, and some have no copy."


def check_3(answer):
    "Strings that are left besides the story."
    story = 'Tom met Pia. Tom asked Pia, "Where is the red map?" Pia laughed.'
    title, line = 'Where is the red map?', 'Share this story'
    cases = [(story, [], "the text is the story and nothing else"),
             (f'{title}\n{story}', [title], "a title is left, and it is also said in the story"),
             (f'{story}\n{line}', [line], "a line is left that is not in the story"),
             (f'{title}\nTom met Pia. Pia laughed.', [title], "a title is left, and the sentence like it is lost"),
             ('Tom met Pia.\nPia laughed.', [], "a sentence is lost and no dirt is left"),
             (f'{title}\n{story}\n{line}', [title, line], "two strings are left")]
    for cleaned, wanted, case in cases:
        received = answer(cleaned, story, [title, line])
        assert received is not None, "Return a list of strings."
        assert list(received) == wanted, f"If {case}, the answer is {wanted}, not {list(received)}."
