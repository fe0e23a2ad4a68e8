"What `grade` asks of the answers to the exercises of the chapter `page`."
from llmbook.evaluation.page import Part


def check_1(answer):
    "A table as comma-separated values."
    rows = [('rung', 'nats'), ('5-gram, counted', '1.25'), ('a "model"', '0.91')]
    text = answer(Part('table', rows))
    assert isinstance(text, str), "Return the text of the file."
    lines = text.splitlines()
    assert len(lines) == 3, "One line per row, the head first."
    assert lines[0] == 'rung,nats', "A plain cell needs no quotes."
    assert lines[1] == '"5-gram, counted",1.25', "A comma inside a cell: put the cell in quotes."
    assert lines[2] == '"a ""model""",0.91', "Look at the cell that has quotes of its own."


def check_2(answer):
    "A link whose text and address come from outside."
    plain = answer('a', 'https://x.org/?a=1&b=2')
    assert plain.startswith('<a href="https://x.org') and plain.endswith('">a</a>'), "A harmless link should stay a link."
    assert '&amp;b=2' in plain, "The address is text in an attribute."
    for words, address in (('<b>', 'https://x.org'), ('a', 'https://x.org/" onclick="alert(1)')):
        link = answer(words, address)
        assert '<b>' not in link, "The words were taken for a tag."
        assert link.count('"') == 2, "One of the addresses ends its attribute early."
    for address in ('javascript:alert(1)', 'JavaScript:alert(1)', ' javascript:alert(1)', 'data:text/html,x'):
        link = answer('<b>', address)
        assert '<a' not in link, f"{address!r} became a link."
        assert '<b>' not in link, "Words without a link are text all the same."
