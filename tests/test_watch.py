"What training watches: the rungs are those of the documents that are looked at, as far as these are looked at."
import numpy as np

from llmbook.evaluation import watch
from llmbook.evaluation.perplexity import as_ids, oracle_nats, questions
from llmbook.evaluation.watch import first_rungs, write_counted
from llmbook.model.checkpoints import book_model
from llmbook.text.corpus import HELD_START, world_documents


def test_a_story_that_is_cut_is_left_out_where_its_probability_is_known_as_a_whole(tmp_path, monkeypatch):
    tokenizer = book_model()[1]
    val, train = list(world_documents(3, 0, HELD_START)), list(world_documents(20, 0))
    ids = as_ids(tokenizer, val)
    monkeypatch.setattr(watch, 'validation_subset', lambda ids: [ids[0], ids[1][:20]])
    write_counted(tmp_path/'counted.json', as_ids(tokenizer, train), ids, tokenizer.vocab_size)
    rungs = {rung.name: rung.nats for rung in first_rungs(tmp_path/'counted.json', val, tokenizer, world=True)}
    known = oracle_nats(val[:1])['unigram by kind'].sum() / questions(ids[:1]).sum()
    assert np.isclose(rungs['unigram by kind'], known)
    assert np.isclose(rungs['uniform'], np.log(tokenizer.vocab_size))
    cut = first_rungs(tmp_path/'counted.json', val, tokenizer)
    assert len(cut) == len(rungs) - 1  # the rungs of counting take what is there of it
