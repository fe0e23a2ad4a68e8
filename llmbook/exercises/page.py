"What `grade` asks of the answers to the exercises of the chapter `page`."
from llmbook.evaluation.page import Part


def check_1(answer):
    "A table as comma-separated values."
    rows = [('rung', 'nats'), ('5-gram, counted', '1.25'), ('a "model"', '0.91')]
    lines = answer(Part('table', rows)).splitlines()
    assert len(lines) == 3, "One line per row, the head first."
    assert lines[0] == 'rung,nats', "A plain cell needs no quotes."
    assert lines[1] == '"5-gram, counted",1.25', "A comma inside a cell: put the cell into quotes."
    assert lines[2] == '"a ""model""",0.91', "A quote inside a cell is doubled, and the cell put into quotes."


def check_2(answer):
    "A link whose text and address come from outside."
    assert answer('a', 'https://x.org/?a=1&b=2') == '<a href="https://x.org/?a=1&amp;b=2">a</a>', "A plain link has another form."
    for words, to in (('<b>', 'https://x.org'), ('a', 'https://x.org/" onclick="alert(1)')):
        found = answer(words, to)
        assert '<b>' not in found, "The words were taken for a tag."
        assert found.count('"') == 2, "A quote in the address ends the attribute, and what follows is a new one."
    for bad in ('javascript:alert(1)', 'JavaScript:alert(1)', ' javascript:alert(1)', 'data:text/html,x'):
        assert '<a' not in answer('a', bad), f"{bad!r} is an address that runs; show its words alone."
