"What `grade` asks of the answers to the exercises of the chapter `fertility`."
import math
import random

from llmbook.text.bpe import train_tokenizer
from llmbook.text.fertility import flops_per_byte, parallel_sentences, table_weights, token_premium


def check_1(answer):
    "The width from which on twice the vocabulary pays, where a token then has 4.2 bytes in place of 4.0."
    def pays(width): return flops_per_byte(100_000, 4.2, 24, width) < flops_per_byte(50_000, 4.0, 24, width)
    assert answer > 0, "A width is positive."
    assert pays(answer * 1.01), (
        "At this width the larger vocabulary still costs more per byte: layers 12LC², output VC.")
    assert not pays(answer * 0.99), "A narrower model saves compute as well."


def _fits(vocab_size, n_layer, n_embd, share, tied):
    "Are the tables at most this share of all weights?"
    table = table_weights(vocab_size, n_embd, tied)
    layers = 12 * n_layer * n_embd**2
    return table <= share * (table + layers)


def check_2(answer):
    "The largest multiple of 64 that fits."
    for n_layer, n_embd, share, tied in ((4, 128, 0.3, True), (12, 768, 0.25, True), (32, 4096, 0.1, False),
                                         (6, 256, 0.5, False), (24, 2048, 0.07, True)):
        size = answer(n_layer, n_embd, share, tied)
        assert size is not None, "Return the size of the vocabulary."
        case = f"{n_layer} layers, width {n_embd}, a share of {share}, {'' if tied else 'not '}tied"
        assert size % 64 == 0, f"{case}: {size} is not a multiple of 64."
        assert _fits(size, n_layer, n_embd, share, tied), (
            f"{case}: the tables of {size:,} tokens are more than that.")
        assert not _fits(size + 64, n_layer, n_embd, share, tied), (
            f"{case}: 64 more tokens than {size:,} would fit.")


def _example(rng, order):
    "Token counts of twelve sentences in four languages, some of them missing; and the ratio of the extremes."
    factors = {'a': 1.0, 'b': 3.0, 'c': 0.5, 'd': 2.0}
    lengths = [rng.randrange(5, 60) for _ in range(12)]
    counts = {name: [round(n * factors[name] * rng.uniform(0.8, 1.2)) + 1 for n in lengths] for name in order}
    for _ in range(5): counts[rng.choice(order)][rng.randrange(12)] = None
    kept = [i for i in range(12) if all(column[i] is not None for column in counts.values())]
    totals = [sum(column[i] for i in kept) for column in counts.values()]
    return counts, max(totals) / min(totals)


def check_3(answer):
    "The highest premium over the lowest, on the sentences that all languages have."
    whole = {'a': [2, 4], 'b': [6, 2], 'c': [1, 1]}
    value = answer(whole)
    assert value is not None, "It returns nothing."
    assert math.isclose(value, 4.0), (
        f"{whole}: the dearest language has 8 tokens and the cheapest 2; that is 4, not {value}.")
    missing = {'a': [2, 40], 'b': [6, None]}
    value = answer(missing)
    assert math.isclose(value, 3.0), (
        f"{missing}: only the first sentence is there in both; that is 3, not {value}.")
    rng = random.Random(0)
    for order in ('abcd', 'cbad', 'dcba', 'bacd'):
        counts, right = _example(rng, order)
        value = answer(counts)
        assert math.isclose(value, right), f"{counts}: {right:.3f}, not {value:.3f}."


def check_4(answer):
    "(five translations, their premium with a tokenizer of 400 tokens learnt from the English)."
    texts, premium = list(answer[0]), answer[1]
    sentences = parallel_sentences()
    assert len(texts) == 5 and all(text.strip() for text in texts), (
        "Give five sentences, as a list of strings.")
    known = {text for column in sentences.values() for text in column}
    assert not known & set(texts), "Give translations of your own, in another language."
    english = sentences['English']
    right = token_premium(train_tokenizer(english, 400), texts, english[:5])
    assert math.isclose(premium, right, rel_tol=0.01), (
        f"The premium of these sentences is {right:.2f}, not {premium:.2f}.")
