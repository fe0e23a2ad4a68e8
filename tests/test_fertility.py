"What a text costs in tokens, and a vocabulary in weights and work."

import json
import unicodedata
from pathlib import Path

import pytest

from llmbook.core import UserError
from llmbook.exercises import fertility as checks
from llmbook.lesson import grade
from llmbook.text.bpe import BPE, as_tokenizer, count_words, train_bpe, train_tokenizer
from llmbook.text.fertility import fertility, flops_per_byte, parallel_sentences, table_weights, token_premium
from llmbook.text.framing import TextTokenizer

SCRIPTS = {'Russian': 'CYRILLIC', 'Greek': 'GREEK', 'Hindi': 'DEVANAGARI'}
ROOT = Path(__file__).parents[1]


def bytes_alone(): return as_tokenizer(BPE([]))


def test_sentences_are_pairs_in_the_right_letters():
    sentences = parallel_sentences()
    assert set(map(len, sentences.values())) == {20} and len(sentences) == 8
    every = [text for texts in sentences.values() for text in texts]
    assert len(set(every)) == 160
    for text in every: assert text == unicodedata.normalize('NFC', text.strip()) and text[-1] in '.?。।;'
    for language, texts in sentences.items():
        letters = [c for c in ''.join(texts) if c.isalpha()]
        names = {unicodedata.name(c).split()[0] for c in letters}
        if language == 'Japanese': assert names == {'HIRAGANA', 'KATAKANA', 'CJK'}
        else: assert names == {SCRIPTS.get(language, 'LATIN')}, language
    for texts in sentences.values():
        questions = [text[-1] in '?;' or text.endswith('か。') for text in texts]
        assert questions.index(True) == 4 and sum(questions) == 1  # the fifth is the only one


def test_counts_are_those_on_paper():
    texts = ['one two', 'three']
    assert fertility(bytes_alone(), texts) == 12 / 3
    rust = as_tokenizer(BPE(train_bpe(count_words(['one two one two one']), 9)))
    assert fertility(rust, ['one two']) == 1 and fertility(TextTokenizer(rust, 1, [2]), ['one two']) == 1
    assert token_premium(bytes_alone(), ['ψωμί', 'né'], ['bread', 'new']) == 11 / 8
    assert token_premium(bytes_alone(), ['<|end|>'], ['1234567']) == 1  # names are text
    for texts in ([], ['', ' \n']):
        with pytest.raises(UserError, match='no words'): fertility(bytes_alone(), texts)
    with pytest.raises(UserError, match='1 texts and 2 of the reference'): token_premium(bytes_alone(), ['a'], ['a', 'b'])


def test_more_merges_never_make_more_tokens_and_their_own_language_gains():
    english = parallel_sentences()['English']
    sizes = [train_tokenizer(english, n) for n in (280, 320, 420)]
    values = [fertility(t, english) for t in sizes]
    assert values == sorted(values, reverse=True)
    premiums = [token_premium(t, parallel_sentences()['Greek'], english) for t in sizes]
    assert premiums == sorted(premiums) and premiums[0] < 2 < premiums[2]


def test_cost_of_an_entry():
    assert table_weights(50_257, 768) == 38_597_376 and table_weights(32_000, 4096, tied=False) == 262_144_000
    assert flops_per_byte(0, 1, 2, 10) == 6 * 12 * 2 * 100
    assert flops_per_byte(1000, 4, 2, 10) == 6 * (2400 + 10_000) / 4


def test_committed_figures_are_whole():
    run = json.loads((ROOT/'nbs/results/fertility.json').read_text())
    sentences = parallel_sentences()
    assert set(run['tokens']) == set(sentences) and run['merges'][0] == 0
    for name, counts in run['tokens'].items():
        assert counts[0] == sum(len(text.encode()) for text in sentences[name])  # the file belongs to these sentences
        assert counts == sorted(counts, reverse=True) and len(counts) == len(run['merges'])
    assert run['bytes_per_token'] == sorted(run['bytes_per_token']) and run['bytes_per_token'][0] == 1


def test_exercise_1_accepts_one_per_cent():
    for answer in (3299, 3275, 3325, 190_000 / 57.6): assert grade('fertility.1', answer)


@pytest.mark.parametrize('answer', [
    0, -3299, 1024, 3200, 3400, 2 * 190_000 / 57.6, 190_000 / 4.8, 50_000 / 288])
def test_exercise_1_refuses(answer): assert not grade('fertility.1', answer)


@pytest.mark.parametrize('answer', [
    lambda L, C, share, tied: 64, lambda L, C, share, tied: 1000,
    lambda L, C, share, tied: int(12*L*C*share/(1 - share)), lambda L, C, share, tied: 10**7 // 64 * 64,
    lambda L, C, share, tied: int(12*L*C*share/(1 - share)/2) // 64 * 64])
def test_exercise_2_refuses(answer): assert not grade('fertility.2', answer)


def test_exercise_3_compares_what_all_have():
    def right(counts):
        rows = [row for row in zip(*counts.values()) if None not in row]
        totals = list(map(sum, zip(*rows)))
        return max(totals) / min(totals)
    def skips_only_its_own(counts):
        totals = [sum(n for n in column if n is not None) for column in counts.values()]
        return max(totals) / min(totals)
    def averages_ratios(counts):
        rows = [row for row in zip(*counts.values()) if None not in row]
        return max(sum(max(row) / min(row) for row in rows) / len(rows), 1)
    def first_is_least(counts):
        rows = [row for row in zip(*counts.values()) if None not in row]
        totals = list(map(sum, zip(*rows)))
        return max(totals) / totals[0]
    assert grade('fertility.3', right)
    for wrong in (skips_only_its_own, averages_ratios, first_is_least): assert not grade('fertility.3', wrong)


def test_exercise_4_wants_new_sentences():
    english = parallel_sentences()['English']
    texts = ['a', 'b', 'c', 'd', 'e']
    price = token_premium(train_tokenizer(english, 400), texts, english[:5])
    assert grade('fertility.4', (texts, price)) and not grade('fertility.4', (texts, price + 1))
    assert not grade('fertility.4', (texts[:4], price)) and not grade('fertility.4', (english[:5], 1.0))
    assert checks._fits(100, 4, 128, 0.3, True)
