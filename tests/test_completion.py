"Completion: prompts to text, whatever special tokens a model has, and the same for the same seed."

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import llmbook
from llmbook.core import UserError, generator
from llmbook.files import read_json, write_json
from llmbook.model.completion import _first_words, continue_text, generate_text, prompts_from
from llmbook.model.generate import generate
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer

TEXTS = ['the lamp was in the mill and the boat was in the harbour. ' * 3, 'Odo went to the mill. Mira took the lamp.'] * 4


@pytest.fixture(scope='module')
def tokenizer(): return train_tokenizer(TEXTS, 300)


def small(vocab_size=40): return Transformer(Config(vocab_size, 64, 2, 4, 4, 32, 48, 'llama', True), seed=0).eval()


def test_other_special_tokens(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    save_model(model, tokenizer, tmp_path)
    for name in ('generation_config.json', 'tokenizer_config.json'): (tmp_path/name).unlink()
    j, ids = read_json(tmp_path/'config.json'), tokenizer.encode('the lamp', add_special_tokens=False).ids
    def draw(start): # as `generate_text` does, without an end
        rows = torch.tensor([start + ids])
        return generate(model, rows, 20, 2.0, rng=generator(0, 'generate'))[0].tolist()[rows.size(1):]
    late, early = draw([5])[9], draw([5])[4] # the second of the ends comes first
    assert late not in draw([5])[:5]
    cases = ((9, 9, [9], [9]), (None, None, [], []), (50256, 50256, [], []), (5, [late, early], [5], [late, early]))
    for bos, eos, start, ends in cases:
        write_json(tmp_path/'config.json', j | dict(bos_token_id=bos, eos_token_id=eos, pad_token_id=None))
        new = draw(start)
        stop = min([new.index(end) for end in ends if end in new], default=len(new))
        assert generate_text(str(tmp_path), 'the lamp', 20, 2.0, top_p=None) == [tokenizer.decode(ids + new[:stop])]
    write_json(tmp_path/'config.json', j | dict(bos_token_id=None))
    with pytest.raises(UserError, match='--prompt'): generate_text(str(tmp_path), '')


def test_a_story_stops_where_transformers_stops():
    nano = str(Path(llmbook.__file__).parent/'assets'/'nano-pretrain')
    theirs = AutoModelForCausalLM.from_pretrained(nano, dtype=torch.float32)  # its file is in bf16
    words = AutoTokenizer.from_pretrained(nano)
    ids = theirs.generate(**words('Long ago', return_tensors='pt'), do_sample=False, max_new_tokens=200)[0]
    assert ids[-1] == 2 and len(ids) < 150
    assert generate_text(nano, 'Long ago', n=200, temperature=0) == [words.decode(ids, skip_special_tokens=True)]


def test_same_text_for_the_same_seed_and_no_draw_from_the_training(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    save_model(model, tokenizer, tmp_path)
    first = generate_text(str(tmp_path), 'the lamp', n=20, samples=2)
    assert len(first) == 2 and first[0] != first[1]
    assert generate_text(str(tmp_path), 'the lamp', n=20, samples=2) == first
    assert generate_text(str(tmp_path), 'the lamp', n=20, samples=2, seed=1) != first
    before = torch.get_rng_state()
    text = continue_text(model, tokenizer, 'the lamp', 3, 10)
    assert text.startswith('the lamp') and continue_text(model, tokenizer, 'the lamp', 3, 10) == text
    assert torch.equal(torch.get_rng_state(), before)


def test_mistakes_have_one_line(tmp_path, tokenizer):
    save_model(small(40), None, tmp_path/'mute')
    save_model(small(tokenizer.get_vocab_size()), tokenizer, tmp_path/'m')
    calls = {'no tokenizer': lambda: generate_text(str(tmp_path/'mute'), 'x'),
             'fills the context': lambda: generate_text(str(tmp_path/'m'), 'the lamp ' * 100),
             '--samples 0': lambda: generate_text(str(tmp_path/'m'), 'x', samples=0),
             '--n -1: must be at least 1': lambda: generate_text(str(tmp_path/'m'), 'x', n=-1),
             '--temperature nan: must be': lambda: generate_text(str(tmp_path/'m'), 'x', temperature=float('nan')),
             '--top-p nan: must be': lambda: generate_text(str(tmp_path/'m'), 'x', top_p=float('nan')),
             '--top-p 0: must be': lambda: generate_text(str(tmp_path/'m'), 'x', top_p=0),
             '--top-k 0: must be': lambda: generate_text(str(tmp_path/'m'), 'x', top_k=0),
             '--seed -1: must be': lambda: generate_text(str(tmp_path/'m'), 'x', seed=-1),
             f'--seed {2**63}: must be': lambda: generate_text(str(tmp_path/'m'), 'x', seed=2**63),
             '--model: empty': lambda: generate_text('', 'x')}
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as e: call()
        assert '\n' not in str(e.value)


def test_prompts_and_what_follows_are_the_text():
    one = [{'id': 'c', 'text': 'a' * 50 + ' Odo slept in the mill . ' * 9}]
    for documents in (one, [{'id': 'a', 'text': 'Odo  slept .'}, {'id': 'b+', 'text': 'pt in the mill'}]):
        pairs = prompts_from(documents, words=2, most=12)
        assert len(pairs) == 2 and all(len(start) <= 12 for start, _ in pairs)
        assert all(any(start + rest in d['text'] for d in documents) for start, rest in pairs)
    assert pairs == [('Odo  slept', ' .'), ('in the', ' mill')]


def test_a_word_that_fits_exactly_is_kept():
    text = 'Odo slept in the mill.'
    for most, start in ((8, 'Odo'), (9, 'Odo slept'), (10, 'Odo slept'), (11, 'Odo slept'), (12, 'Odo slept in')):
        assert _first_words(text, 3, most) == start
    assert _first_words('Odo  slept', 2, 4) == 'Odo' and _first_words('harbour', 2, 4) == 'harb'
    assert _first_words('a b c d', 4, 3) == 'a b'


def test_names_of_special_tokens_in_a_prompt_are_text(tmp_path, tokenizer):
    model = small(tokenizer.get_vocab_size())
    save_model(model, tokenizer, tmp_path)
    for prompt in ('the lamp <|end|> was', '<|begin|>', 'a<|pad|><|user|>'):
        text, = generate_text(str(tmp_path), prompt, n=3)
        assert text.startswith(prompt) and continue_text(model, tokenizer, prompt, 0, 3).startswith(prompt)
    with pytest.raises(UserError, match='--prompt the . lamp: not UTF-8'): generate_text(str(tmp_path), 'the \udcff lamp', n=3)
