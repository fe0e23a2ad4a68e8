"What `grade` asks of the answers to the exercises of the chapter `bpe`."
from llmbook.text.bpe import BPE, FIRST_MERGE, as_tokenizer, bytes_per_token, count_words, train_bpe


def check_1(answer):
    "Two merges by hand: (left, right, tokens left)."
    words = {'mama': 4, 'am': 3, 'ma': 2}
    bpe = BPE(train_bpe(words, 2))
    left, right, n = answer
    too_early = (left, right) == ('a', 'm')
    assert not too_early, "Count again after the first merge: most of the pairs (a, m) are gone."
    second = left.encode() + right.encode() == bpe.pieces[FIRST_MERGE + 1] and left == right
    assert second, "That is not the second merge."
    tokens = sum(times * len(bpe.encode(word)) for word, times in words.items())
    assert n == tokens, "Count the tokens of all nine words again."


_LEAST = {'': 0, 'x': 1, 'abc': 1}
_LEAST |= dict.fromkeys(('abcde', 'aaaa', 'aacaaa', 'é', 'abcaaa', 'caaab'), 2)


def check_2(answer):
    "A spelling of a word with the fewest pieces."
    pieces = {bytes([b]) for b in range(256)}
    pieces |= {b'ab', b'abc', b'cde', b'aa', b'aaa', b'caaa'}
    for word, least in _LEAST.items():
        spelling = answer(pieces, word)
        assert spelling is not None, "It returns nothing so far."
        known = pieces.issuperset(spelling)
        assert known, f"The spelling of {word!r} uses strings that are no pieces."
        joined = b''.join(spelling)
        assert joined == word.encode(), f"{word!r} is spelt {joined}; it should be {word.encode()}."
        n = len(spelling)
        assert n == least, f"{word!r} can be spelt with {least} pieces; this spelling has {n}."


def _shown_after(bpe, ids):
    "What a reader should have seen after these ids."
    return b''.join(bpe.pieces[i] for i in ids).decode(errors='ignore')


def check_3(answer):
    "One string for each id, never half a character, none later than it can be."
    text = 'naïve 🙂 日本語, told 🙂 twice'
    merges = train_bpe(count_words([text] * 3), 20)
    for bpe in (BPE([]), BPE(merges)):
        ids = bpe.encode(text)
        out = list(answer(bpe, ids))
        assert len(out) == len(ids), f"{len(ids)} ids need as many strings; here are {len(out)}."
        assert '\ufffd' not in ''.join(out), "A replacement character came out: half a character."
        for k in range(len(ids) + 1):
            expected = _shown_after(bpe, ids[:k])
            shown = ''.join(out[:k])
            assert shown == expected, f"After {k} ids the reader should see {expected!r}."


def check_4(answer):
    "(texts, n): n merges are just enough for two bytes per token."
    texts, n = list(answer[0]), answer[1]
    size = sum(len(text.encode()) for text in texts)
    assert size >= 10_000, "Give at least 10,000 bytes of text, as a list of strings."
    merges = train_bpe(count_words(texts), n)
    def reached(k):
        return bytes_per_token(as_tokenizer(BPE(merges[:k])), texts)
    assert reached(n) >= 2, f"{n} merges give {reached(n):.2f} bytes per token."
    less = reached(max(0, n - 1))
    assert less < 2, "Fewer merges would do."
