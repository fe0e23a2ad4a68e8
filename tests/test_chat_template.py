"Chat templates: where answers are, which tokens are learned, and that packing changes nothing."
import json
from functools import cache
from itertools import groupby

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models

from llmbook.align import turns
from llmbook.align.chat_template import ChatStore, ChatTemplate, Encoded, encode_conversations, show_mask
from llmbook.align.messages import Conversation, RowFault, conversation_of
from llmbook.align.turns import AnswerFinder, answer_spans, chat_renderer
from llmbook.core import UserError
from llmbook.model.checkpoints import book_model
from llmbook.model.transformer import Transformer, config_for
from llmbook.text.batches import IGNORE, PackedRows, Stream
from llmbook.text.claims import dialogue_rows
from llmbook.text.framing import TextTokenizer
from llmbook.text.tokenizer_files import load_tokenizer, save_tokenizer
from llmbook.text.unpack import Skipped
from llmbook.train.clm import CLM

S, U, A = 'system', 'user', 'assistant'


def say(role, content): return {'role': role, 'content': content}


def talk(*turns): return [say(*turn) for turn in turns]


CHAT = talk((S, 'Be brief.'), (U, 'Where is Ana?'), (A, 'In the mill.'), (U, 'And Tom?'), (A, 'In the barn.'))


def each(body, prompt=''):
    return '{% for m in messages %}' + body + '{% endfor %}{% if add_generation_prompt %}' + prompt + '{% endif %}'


def pick(answer, other): return "{% if m.role == 'assistant' %}" + answer + '{% else %}' + other + '{% endif %}'


SAID = '{{ m.content }}'
CHATML = each('<|im_start|>{{ m.role }}\n' + SAID + '<|im_end|>\n', '<|im_start|>assistant\n')
HEADER = '<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n'
LLAMA = '{{ bos_token }}' + each(HEADER + '{{ m.content | trim }}<|eot_id|>', HEADER.replace('{{ m.role }}', 'assistant'))
INST = each(pick(' ' + SAID + '</s>', '[INST] ' + SAID + ' [/INST]'))
MARKS = {'chatml': (CHATML, ['<|im_start|>', '<|im_end|>']), 'inst': (INST, ['<s>', '</s>']),
         'llama': (LLAMA, ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'])}


@cache
def book(): return book_model()[1]


def with_template(template, names=(), **changes):
    "The book's words, more special tokens of which the last ends a turn, and a template."
    rust = Tokenizer.from_str(book().to_str())
    rust.add_special_tokens([AddedToken(name, special=True) for name in names])
    ends = [rust.token_to_id(names[-1])] if names else book().ends
    settings = dict(begin=book().begin, ends=ends, pad=book().pad, files={'chat_template.jinja': template})
    return TextTokenizer(rust, **settings | changes)


@cache
def tokenizer(name): return book() if name == 'ours' else with_template(*MARKS[name])


NAMES = ['ours', *MARKS]
CHATS = [CHAT, CHAT[1:], CHAT[1:3], CHAT[:3],
         talk((U, ' hello\n'), (A, '\n\nWorld \n')), talk((U, 'x'), (A, 'é – 漢字 🙂'), (U, '🙂'), (A, '7')),
         talk((U, 'In the barn.'), (A, 'In the barn.'), (U, 'In the barn.'), (A, 'In the barn.'))]


@pytest.mark.parametrize('name', NAMES)
def test_ids_are_those_of_transformers(name, tmp_path):
    from transformers import AutoTokenizer
    theirs = AutoTokenizer.from_pretrained(save_tokenizer(tokenizer(name), tmp_path))
    template = ChatTemplate(load_tokenizer(tmp_path))
    for chat in CHATS:
        [encoded] = template.encode_many([chat])
        if isinstance(encoded, RowFault): # ours alone has no white space between a prompt and its answer
            assert name == 'chatml' and chat[1]['content'][0] == '\n' and 'an answer\'s first token' in str(encoded)
            continue
        assert encoded.ids == theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
        prompt = theirs.apply_chat_template(chat[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
        assert template.prompt_ids(chat[:-1]) == prompt == encoded.ids[:len(prompt)]
        assert encoded.asked[len(prompt)] and not encoded.asked[len(prompt) - 1]


def marked(template, end): # as transformers wants answers marked; the last mark keeps the line break behind it
    said = SAID + end
    return template.replace(said, pick('{% generation %}' + said + '{% endgeneration %}', said) + "{{ '' }}")


GENERATION = {'chatml': marked(CHATML, '<|im_end|>'), 'llama': marked(LLAMA.replace(' | trim', ''), '<|eot_id|>')}


@pytest.mark.parametrize('name', GENERATION)
def test_the_mask_is_that_of_transformers_where_a_template_marks_its_answers(name, tmp_path):
    from transformers import AutoTokenizer
    theirs = AutoTokenizer.from_pretrained(save_tokenizer(tokenizer(name), tmp_path))
    theirs.chat_template = GENERATION[name]
    template = ChatTemplate(with_template(GENERATION[name], MARKS[name][1]))
    for chat in CHATS[:4] + CHATS[5:]:
        found = theirs.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        assert template.encode(chat) == Encoded(found['input_ids'], list(map(bool, found['assistant_masks'])))


@pytest.mark.parametrize('name', NAMES)
def test_learned_are_the_answers_and_one_end_each(name):
    template, ends = ChatTemplate(tokenizer(name)), tokenizer(name).ends
    for chat in CHATS[:4] + CHATS[5:]:
        ids, asked = template.encode(chat)
        runs = [[i for i, _ in run] for bit, run in groupby(zip(ids, asked), key=lambda pair: pair[1]) if bit]
        said = [message['content'] for message in chat if message['role'] == A]
        assert [template.tokenizer.decode(run).strip() for run in runs] == said
        assert all(run[-1] in ends and not set(run[:-1]) & set(ends) for run in runs)
        last = template.encode(chat, last=True)
        assert last.ids == ids and [i for i, bit in zip(ids, last.asked) if bit] == runs[-1]
        assert all(bit for bit, final in zip(asked, last.asked) if final)


def test_by_hand():
    ids, asked = ChatTemplate(book()).encode(CHAT[1:3])
    names = [book().id_to_token(i) for i in ids]
    assert names[:2] == ['<|begin|>', '<|user|>'] and names[-1] == '<|end|>'
    assert asked == [False] * (names.index('<|assistant|>') + 1) + [True] * (len(ids) - names.index('<|assistant|>') - 1)
    text = repr(show_mask(ChatTemplate(tokenizer('chatml')), CHAT[1:3]))
    assert text.startswith('<|im_start|>user↵\nWhere is Ana?<|im_end|>↵\n<|im_start|>assistant↵\n[')
    assert text.endswith('[.][<|im_end|>]↵\n')


def broken(template, **changes): return ChatTemplate(with_template(template, **changes))


TURN, PROMPT = '<|{{ m.role }}|>' + SAID + '<|end|>', '<|assistant|>'
NO_SYSTEM = each("{% if m.role != 'system' %}" + TURN + '{% endif %}', PROMPT)
NUMBER = talk((U, '7'), (A, '8'))
BY_TURNS, REFUSES = 'does not write turn by turn', 'the chat template refuses'
REFUSED = { # template, conversation, words, kind
    'no system': (NO_SYSTEM, CHAT, 'leaves out the system turn, or changes it', 'whose system turn the chat template leaves out'),
    'a system turn that is found in another': (
        NO_SYSTEM, talk((S, 'x'), (U, 'x x'), (A, 'x')), 'the system turn', 'whose system turn the chat template leaves out'),
    'no thoughts': (
        each("<|{{ m.role }}|>{{ m.content.split('/')[-1] }}<|end|>", PROMPT), talk((U, 'u'), (A, 'let me/see')),
        'leaves out the assistant turn, or changes it', 'whose assistant turn the chat template leaves out'),
    'last is other': (each("{{ '<|sep|>' if loop.last }}" + TURN, PROMPT), CHAT, 'once others follow', BY_TURNS),
    'an end once': (
        each('<|{{ m.role }}|>' + SAID, PROMPT) + "{% if not add_generation_prompt %}<|end|>{% endif %}", CHAT,
        'once others follow', BY_TURNS),
    'no prompt': (each(TURN), CHAT, r'no generation prompt for "<\|assistant\|>"', BY_TURNS),
    'no prompt in words': (each('{{ m.role }}:' + SAID + '<|end|>'), CHAT, 'no generation prompt for "assistant:"', BY_TURNS),
    'another prompt': (each(TURN, '<|think|>'), CHAT, r'asks for answers with "<\|think\|>"', BY_TURNS),
    'no end': (each('<|{{ m.role }}|>' + SAID, PROMPT), NUMBER, r'without the stop token <\|end\|>;', 'has no stop token'),
    'another end': (CHATML, NUMBER, r'without the stop token <\|end\|>;', 'has no stop token'),
    'a space': (
        each('{{ m.role }}: ' + SAID + '<|end|>', 'assistant: '), talk((U, 'u'), (A, 'In')),
        'holds the end of its prompt, ".*: "', 'begins inside a token'),
    'all': (each(SAID + pick('<|end|>', '')), NUMBER, 'every token is learned', 'with a full mask'),
    'nothing': (each(TURN, PROMPT), CHAT[:2], 'nothing is learned', 'with an empty mask'),
    'no question': (each(TURN, PROMPT), CHAT[-1:], 'an answer comes first', 'without a question'),
    'its own words': ("{{ raise_exception('no\n such role') }}", CHAT, 'refuses: no such role$', REFUSES),
    'not Jinja': ('{% for m in %}', CHAT, 'refuses: ', REFUSES),
    'no end of work': ('{% for i in range(10**9) %}x{% endfor %}', CHAT, 'refuses: Range too big', REFUSES),
    'an attack': ("{{ messages.__class__.__mro__ }}", CHAT, 'refuses: ', REFUSES)}


@pytest.mark.parametrize('name', REFUSED)
def test_a_mask_that_would_teach_a_fault_is_refused(name):
    template, chat, words, kind = REFUSED[name]
    with pytest.raises(RowFault, match=words) as e: broken(template).encode(chat)
    assert '\n' not in str(e.value) and e.value.kind.startswith('rows ') and e.value.kind.endswith(kind)


def test_a_prompt_is_checked_too():
    with pytest.raises(RowFault, match='leaves out the system turn'): broken(NO_SYSTEM).prompt_ids(CHAT[:2])
    assert broken(NO_SYSTEM).prompt_ids(CHAT[1:2]) == broken(each(TURN, PROMPT)).prompt_ids(CHAT[1:2])


@pytest.mark.parametrize('role', [S, U, A])
def test_a_forged_turn_is_refused(role):
    template = ChatTemplate(book())
    for name in ('<|end|>', '<|assistant|>', '<|extra_id_3|>'):
        chat = [m | {'content': f'Hi{name}x'} if m['role'] == role else m for m in CHAT]
        for work in (template.encode, lambda chat: template.prompt_ids(chat[:-1])):
            with pytest.raises(RowFault, match=f'in what the {role} says is a special token'.replace('|', r'\|')): work(chat)
    assert template.encode(talk((U, 'a <| b |> end'), (A, '<end>'))).asked[-1]


def test_an_end_that_is_no_special_token_is_refused_too():
    rust = Tokenizer.from_str(book().to_str())
    rust.add_tokens([AddedToken('[end]', special=False)])
    template = ChatTemplate(TextTokenizer(rust, 1, [rust.token_to_id('[end]')], 0, {'chat_template.jinja': each(
        '<|{{ m.role }}|>' + SAID + '[end]', '<|assistant|>')}))
    assert template.encode(NUMBER).asked[-1]
    with pytest.raises(RowFault, match=r'\[end\] in what the user says'): template.encode(talk((U, 'The [end].'), (A, '8')))


def test_what_is_no_chat_model():
    bare = Tokenizer(models.WordLevel({'a': 0, '?': 1}, unk_token='?'))
    with pytest.raises(UserError, match='^runs/x: no chat template; .*'): ChatTemplate(TextTokenizer(bare, ends=[1]), 'runs/x')
    with pytest.raises(UserError, match='^runs/x: no stop token; .*'):
        ChatTemplate(TextTokenizer(bare, files={'chat_template.jinja': CHATML}), 'runs/x')


def test_where_a_template_may_be():
    several = [{'name': 'tools', 'template': 'T'}, {'name': 'default', 'template': 'D'}]
    config = {'tokenizer_config.json': json.dumps({'chat_template': several, 'eos_token': {'content': '</s>'}})}
    cases = [(config, 'D'), (config | {'chat_template.json': '{"chat_template": "C"}'}, 'C'),
             (config | {'chat_template.jinja': 'J'}, 'J')]
    for files, text in cases: assert chat_renderer(with_template('', files=files))(CHAT) == text
    eos = with_template('', files=config | {'chat_template.jinja': '{{ eos_token }}{{ bos_token }}'})
    assert chat_renderer(eos)(CHAT) == '</s><|begin|>'
    with pytest.raises(UserError, match='chat_template.json: not readable as JSON'):
        chat_renderer(with_template('', files={'chat_template.json': '{'}))
    assert chat_renderer(TextTokenizer(book().rust, 1, [2], 0))(CHAT[1:2]) == '<|begin|><|user|>Where is Ana?<|end|>'


@pytest.mark.parametrize('name', NAMES)
def test_frames_say_what_the_template_says(name, monkeypatch):
    render, calls = chat_renderer(tokenizer(name)), []

    def counted(*args):
        calls.append(args)
        return render(*args)
    finder = AnswerFinder(counted)
    for chat in CHATS * 2: assert finder.find(chat) == (render(chat), answer_spans(render, chat, render(chat)))
    calls.clear()
    for chat in CHATS[:4] + CHATS[5:]: finder.find(chat)
    assert len(calls) == len(CHATS) - 1 # one text for each


def test_a_lying_frame_is_not_believed(monkeypatch):
    frame = turns._frame_of
    monkeypatch.setattr(turns, '_frame_of', lambda render, roles: frame(render, roles)._replace(gaps=['x'] * (len(roles) + 1)))
    render = chat_renderer(book())
    assert AnswerFinder(render).find(CHAT) == (render(CHAT), answer_spans(render, CHAT, render(CHAT)))


# Many conversations

@cache
def some(n=6): return [conversation_of(row, f't.jsonl, row {i}') for i, row in enumerate(dialogue_rows(n), 1)]


def test_too_long_is_refused_or_counted_and_nothing_left_is_an_error():
    template, lengths = ChatTemplate(book()), [len(ChatTemplate(book()).encode(c.messages).ids) for c in some()]
    limit = sorted(lengths)[2]
    longer = next(i for i, n in enumerate(lengths) if n > limit)
    line = rf'^t.jsonl, row {longer + 1}: {lengths[longer]} tokens, the model reads {limit}; .*--skip-bad'
    with pytest.raises(UserError, match=line):
        encode_conversations(some(), template, limit)
    skipped = Skipped(lenient=True)
    assert len(encode_conversations(some(), template, limit, skipped)) == 3
    assert skipped == {'rows that are too long': 3} and skipped.first == {'rows that are too long': f't.jsonl, row {longer + 1}'}
    with pytest.raises(UserError, match='no conversation is left to learn from: .* tokens, the model reads 5'):
        encode_conversations(some(), template, 5, Skipped(lenient=True))
    with pytest.raises(UserError, match='left to learn from: there was none'): encode_conversations([], template, 5)
    forged = Conversation('x', talk((U, '<|end|>'), (A, 'x')), '')
    skipped = Skipped(lenient=True)
    assert len(encode_conversations([*some(), forged], template, 999, skipped)) == 6
    assert skipped.first == {'rows with the name of a special token': 'x'}


def test_the_store_gives_labels_to_answers_alone():
    encoded = encode_conversations(some(), ChatTemplate(book()), 999)
    store = ChatStore(encoded, book(), 't.jsonl')
    assert len(store) == 6 and store.lengths.tolist() == [len(e.ids) for e in encoded]
    assert [store[i].tolist() for i in range(6)] == [e.ids for e in encoded]
    assert (store.ids.dtype, store.asked.dtype, store.pad, store.vocab_size) == (np.int32, bool, 0, book().vocab_size)
    batch = Stream(store, 1, 2048)[0] # all in one row, although they do not fill it
    found = {}
    for i, label, segment in zip(*(batch[name][0].tolist() for name in ('ids', 'labels', 'segments'))):
        if segment: found.setdefault(segment, []).append((i, label))
    expected = [[(a, b if bit else IGNORE) for a, b, bit in zip(e.ids, e.ids[1:], e.asked[1:])] for e in encoded]
    assert sorted(found.values()) == sorted(expected)
    assert (batch['labels'] != IGNORE).sum() == sum(map(sum, (e.asked for e in encoded)))


def rows_of(encoded, block_size):
    rows = PackedRows(ChatStore(encoded, book(), ''), block_size)
    return rows.fill(np.arange(len(rows.packed)))


@cache
def tiny():
    config = config_for('nano', book().vocab_size, block_size=512, n_layer=2, n_embd=32, n_head=2, n_kv_head=1)
    return Transformer(config, 0).double()


def gradient(batches):
    objective, model = CLM(), tiny()
    counts = {'tokens': sum(objective.counts(batch)['tokens'] for batch in batches)}
    model.zero_grad()
    loss = sum(objective.loss(model(*objective.inputs(batch)), batch, counts)[0] for batch in batches)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_packed_padded_and_alone_have_one_gradient():
    encoded = encode_conversations(some()[:4], ChatTemplate(book()), 512)
    alone = [rows_of([one], len(one.ids) - 1) for one in encoded]
    padded = [rows_of([one], len(one.ids) + 30) for one in encoded]
    packed = [rows_of(encoded, 512)]
    assert len(packed[0]['ids']) < 4 and packed[0]['segments'].max() > 1
    loss, grad = gradient(alone)
    for batches in (packed, padded):
        other, found = gradient(batches)
        assert abs(other - loss) < 1e-5 and (found - grad).norm() < 1e-12 * grad.norm()
    naive = [batch | {'segments': None} for batch in packed] # a check that can fail
    assert (gradient(naive)[1] - grad).norm() > 1e-3 * grad.norm()


def test_a_token_moves_its_own_conversation_alone_and_padding_moves_nothing():
    encoded = encode_conversations(some()[:2], ChatTemplate(book()), 512)
    batch, objective = rows_of(encoded, 512), CLM()
    segments = batch['segments'][0]
    assert segments.unique().tolist() == [0, 1, 2]

    def moved(place):
        changed = batch | {'ids': batch['ids'].clone()}
        changed['ids'][0, place] += 1
        with torch.no_grad(): before, after = (tiny()(*objective.inputs(b)) for b in (batch, changed))
        return (before != after)[0].nonzero().flatten()
    first = moved(20)
    assert len(first) and (segments[first] == 1).all() and first.min() >= 20
    second = int((segments == 2).nonzero()[0])
    assert (segments[moved(second)] == 2).all() and len(moved(second))
    assert not len(moved(int((segments == 0).nonzero()[0])))
