"What `grade` asks of the answers to the exercises of the chapter `bpe`."
from llmbook.text.bpe import BPE, as_tokenizer, bytes_per_token, count_words, train_bpe


def check_1(answer):
    "Two merges by hand: (left, right, tokens left)."
    words = {'mama': 4, 'am': 3, 'ma': 2}
    bpe = BPE(train_bpe(words, 2))
    left, right, n = answer
    assert (left, right) != ('a', 'm'), "Count again after the first merge: most of the pairs (a, m) are gone."
    assert left.encode() + right.encode() == bpe.pieces[-1] and left == right, "That is not the second merge."
    assert n == sum(k * len(bpe.encode(w)) for w, k in words.items()), "Count the tokens of all nine words again."


def check_2(answer):
    "The fewest pieces that spell a word."
    pieces = {bytes([b]) for b in range(256)} | {b'ab', b'abc', b'cde', b'aa', b'aaa', b'caaa'}
    for word, least in {'': 0, 'x': 1, 'abc': 1, 'abcde': 2, 'aaaa': 2, 'aacaaa': 2, 'é': 2, 'abcaaa': 2}.items():
        assert (n := answer(pieces, word)) == least, f"{word!r} can be spelt with {least} pieces; the answer says {n}."


def check_3(answer):
    "One string for each id, never half a character, none later than it can be."
    text = 'naïve 🙂 日本語, told 🙂 twice'
    for bpe in (BPE([]), BPE(train_bpe(count_words([text] * 3), 20))):
        ids = bpe.encode(text)
        out = list(answer(bpe, ids))
        assert len(out) == len(ids), f"{len(ids)} ids need as many strings (some may be empty); here are {len(out)}."
        assert '\ufffd' not in ''.join(out), "A replacement character came out: half a character was decoded."
        for k in range(len(ids) + 1):
            whole = b''.join(bpe.pieces[i] for i in ids[:k]).decode(errors='ignore')
            assert ''.join(out[:k]) == whole, f"After {k} ids the reader should see {whole!r}."


def check_4(answer):
    "(texts, n): n merges are just enough for two bytes per token."
    texts, n = list(answer[0]), answer[1]
    assert sum(len(t.encode()) for t in texts) >= 10_000, "Give at least 10,000 bytes of text, as a list of strings."
    merges = train_bpe(count_words(texts), n)
    enough, less = (bytes_per_token(as_tokenizer(BPE(merges[:k])), texts) for k in (n, max(0, n - 1)))
    assert enough >= 2, f"{n} merges give {enough:.2f} bytes per token."
    assert less < 2, f"Fewer would do: {n - 1} merges already give {less:.2f} bytes per token."
