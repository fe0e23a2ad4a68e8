"What `grade` asks of the answers to the exercises of the chapter `filters`."


def check_1(answer):
    "A rare language."
    assert float(answer) < 98, (
        "Most pages are in other languages: how many of those are taken for Dutch?")
    assert round(float(answer)) == 67, (
        "Count the Dutch pages that are kept and all pages that are kept, then divide.")


def check_2(answer):
    "Line by line."
    def judge(line): return 'the' in line
    english, german, short = 'the miller walked to the barn', 'der alte Mann ging nach Hause', 'and sang.'
    cases = {
        'a German line between': ([english, german, english], [english, english]),
        'a short line after a kept one': ([english, short, german], [english, short]),
        'a short line after a dropped one': ([english, german, short], [english]),
        'a short line that `judge` likes, after a dropped one': ([english, german, 'to the end'], [english]),
        'a short first line': ([short, german, english], [short, english]),
        'a line of 20 characters': ([english, 'der Mann ging zu ihm', english], [english, english]),
        'two short lines in a row': ([german, short, short, english, short, short], [english, short, short]),
        'an empty line between': ([english, '', english], [english, '', english])}
    for name, (lines, kept) in cases.items():
        document = {'id': 'a', 'text': '\n'.join(lines), 'meta': {}}
        result = answer(document, judge)
        assert result is not None, "Return a document or a reason."
        assert document['text'] == '\n'.join(lines), (
            f"{name}: the given document was changed; return a new one.")
        assert isinstance(result, dict), (
            f"{name}: some lines are English, but the page was dropped.")
        assert result['text'].split('\n') == kept, f"{name}: these are not the lines to keep."
        assert result['id'] == 'a', f"{name}: the document has lost its id."
    result = answer({'id': 'b', 'text': german}, judge)
    assert result == 'another language', (
        "A page without an English line is to be dropped with the reason.")


def check_3(answer):
    "The largest threshold that loses little."
    cases = [([0.99] * 198 + [0.2, 0.3], 0.01), ([i / 200 for i in range(200)], 0.01),
             ([i / 1000 for i in range(1000, 0, -1)], 0.05), ([0.9, 0.8, 0.7], 0.01), ([0.5] * 10, 0.5),
             ([i / 100 for i in range(100)], 0.07)]
    for probabilities, most in cases:
        least = answer(list(probabilities), most)
        assert least is not None, "Return the threshold."
        lost = sum(p < least for p in probabilities) / len(probabilities)
        assert lost <= most + 1e-9, (
            f"{100*lost:.1f} % of the pages are lost, and {100*most:g} % may be.")
        higher = [p for p in probabilities if p > least]
        if higher:
            more = sum(p < min(higher) for p in probabilities) / len(probabilities)
            assert more > most + 1e-9, (
                f"A higher threshold, {min(higher)}, would still lose at most {100*most:g} %.")


def check_4(answer):
    "From which length on little is dropped."
    def rule(document):
        assert list(document) == ['text'], "Give the rule a document with nothing but `text`."
        return 'another language' if document['text'].count('?') * 5 > len(document['text']) else document
    clear, mixed, late = 'x' * 80, '?' * 10 + 'x' * 70, 'x' * 20 + '?' * 20 + 'x' * 200
    cases = [
        ('no text is dropped', [clear], [10, 20, 40], 0, 10),
        ('one text is dropped if it is short', [mixed], [10, 20, 40, 80], 0, 80),
        ('one text of four is dropped if it is short, and that is allowed', [clear] * 3 + [mixed], [10, 20, 40], 0.25, 10),
        ('it is not allowed', [clear] * 3 + [mixed], [10, 20, 60], 0.2, 60),
        ('one text is kept, dropped, and kept again', [late], [10, 20, 40, 200], 0, 200),
        ('the longest cut is dropped', [late], [10, 20, 40], 0, None),
        ('most texts are short', [clear[:12]] * 3 + [mixed], [10, 20, 40, 80], 0.5, 80),
        ('no text is long enough', [clear[:5]], [10, 20], 0, 10)]
    for name, texts, lengths, most, right in cases:
        received = answer(list(texts), rule, list(lengths), most)
        assert received == right, f"{name}: the answer is {right}, not {received}."
