"Encoders, heads and their folders against transformers, both ways; what hostile and broken folders do."

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForMaskedLM,
    BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification, BertModel)

from llmbook.core import UserError, generator
from llmbook.files import read_json, write_json
from llmbook.model.bert_format import _kind_of, bert_names, save_encoder
from llmbook.model.checkpoints import load_encoder, load_model, load_reward_model, load_trained
from llmbook.model.encoder_heads import (
    Classifier, DecoderClassifier, DecoderSpanFinder, MaskedLM, PooledEncoder, SpanFinder, classifier_from)
from llmbook.model.encoders import Encoder, EncoderConfig
from llmbook.model.heads import RewardModel
from llmbook.model.heads_on_disk import save_classifier
from llmbook.model.hf_format import save_model
from llmbook.model.transformer import Config, Transformer
from llmbook.text.bpe import train_tokenizer
from llmbook.text.framing import PAD
from llmbook.text.pair_rows import frame_of, frame_row
from llmbook.text.framing import text_tokenizer

TEXTS = ['the lamp was in the mill and the boat was in the harbour. ' * 3, 'Odo went to the mill. Mira took the lamp.'] * 4
LABELS = ['sad', 'neither', 'happy']


@pytest.fixture(scope='module')
def tokenizer(): return text_tokenizer(train_tokenizer(TEXTS, 300))


def encoder_shape(vocab_size=300, **more):
    return EncoderConfig(vocab_size, block_size=64, n_layer=2, n_head=4, n_embd=32, n_hidden=48, **more)


def decoder_shape(vocab_size=300, arch='llama', **more):
    return Config(vocab_size, 64, 2, 4, 4 if arch == 'gpt2' else 2, 32, 48, arch, arch != 'qwen2', **more)


def padded_rows(vocab_size=300):
    "Three rows of 20, 13 and 7 tokens, the second halves of the first text's."
    ids = torch.randint(8, vocab_size, (3, 20), generator=generator(0, 'ids'))
    mask = torch.arange(20) < torch.tensor([20, 13, 7])[:, None]
    types = (torch.arange(20) >= torch.tensor([9, 6, 20])[:, None]) & mask
    return {'ids': ids.where(mask, PAD), 'types': types.long(), 'mask': mask}


def theirs_of(model, batch):
    return model(input_ids=batch['ids'], token_type_ids=batch['types'], attention_mask=batch['mask'].long())


def open_all(kind, folder):
    "Open a folder with transformers, and let nothing be missing or left over."
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    return model.eval()


def same(a, b): return all(torch.equal(w, b[name]) for name, w in a.items()) and a.keys() == b.keys()


@torch.no_grad()
@pytest.mark.parametrize('arch,head', itertools.product(('llama', 'gpt2', 'qwen2', 'qwen3'), ('classes', 'spans')))
def test_decoders_with_heads(tmp_path, tokenizer, arch, head):
    config, batch = decoder_shape(tokenizer.vocab_size, arch), padded_rows(tokenizer.vocab_size)
    ours = (DecoderClassifier(config, 3, seed=1) if head == 'classes' else DecoderSpanFinder(config, seed=1)).eval()
    save_classifier(ours, tokenizer, tmp_path, LABELS if head == 'classes' else None)
    auto = AutoModelForSequenceClassification if head == 'classes' else AutoModelForQuestionAnswering
    found = open_all(auto, tmp_path)(input_ids=batch['ids'], attention_mask=batch['mask'].long())
    logits = found.logits if head == 'classes' else torch.stack([found.start_logits, found.end_logits], -1)
    real = slice(None) if head == 'classes' else batch['mask']
    torch.testing.assert_close(ours(**batch)[real], logits[real], atol=1e-5, rtol=1e-5)
    back, words = load_trained(tmp_path)
    assert type(back) is type(ours) and same(back.state_dict(), ours.state_dict()) and words.vocab_size == tokenizer.vocab_size
    assert back.labels == (LABELS if head == 'classes' else None)
    said = 'a classifier, which puts' if head == 'classes' else 'a span finder, which points'
    for load in (load_model, load_reward_model):
        with pytest.raises(UserError, match=f'{said}.*classify --model'): load(tmp_path)
    with pytest.raises(UserError, match=f'a {arch}, which is no encoder'): load_encoder(tmp_path)
    save_classifier(back, words, tmp_path/'again')
    for name in ('config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'README.md'):
        assert (tmp_path/name).read_bytes() == (tmp_path/'again'/name).read_bytes()


HEADS = { # ours -> transformers' class, and how ours is made
    'pretraining': (BertForPreTraining, lambda c: MaskedLM(c, True, seed=1)),
    'tokens': (BertForMaskedLM, lambda c: MaskedLM(c, seed=1)),
    'classes': (BertForSequenceClassification, lambda c: Classifier(c, 3, seed=1)),
    'spans': (BertForQuestionAnswering, lambda c: SpanFinder(c, seed=1)),
    'vectors': (BertModel, lambda c: PooledEncoder(c, seed=1)),
}


def shaken(model):
    "No bias is 0 and no gain 1, so that a forgotten one shows."
    with torch.no_grad():
        for name, p in model.named_parameters(): p.add_(0.05 * torch.randn(p.shape, generator=generator(3, name)))
    return model.eval()


def losses(head, ours, theirs, batch):
    "The loss of either library on the same rows."
    mask, labels = batch['mask'], torch.tensor([2, 0, 1])
    asked = mask & (torch.arange(20) % 3 == 1)
    tokens = batch['ids'].where(asked, -100)
    starts, ends = torch.tensor([3, 0, 2]), torch.tensor([5, 12, 2])
    found = theirs_of(theirs, batch)
    if head == 'vectors':
        own = ours.hidden(**batch)[mask].square().sum() + ours.pooled(**batch).sum()
        return own, found.last_hidden_state[mask].square().sum() + found.pooler_output.sum()
    out = ours(**batch)
    if head == 'classes': return F.cross_entropy(out, labels), F.cross_entropy(found.logits, labels)
    if head == 'spans':
        far = out.masked_fill(~mask[..., None], -1e4)
        begin, end = (x.masked_fill(~mask, -1e4) for x in (found.start_logits, found.end_logits))
        return (F.cross_entropy(far[..., 0], starts) + F.cross_entropy(far[..., 1], ends),
                F.cross_entropy(begin, starts) + F.cross_entropy(end, ends))
    if head == 'tokens':
        return F.cross_entropy(out[asked], tokens[asked]), F.cross_entropy(found.logits[asked], tokens[asked])
    follows = torch.tensor([0, 1, 0])
    logits, judged = out
    return (F.cross_entropy(logits[asked], tokens[asked]) + F.cross_entropy(judged, follows),
            F.cross_entropy(found.prediction_logits[asked], tokens[asked])
            + F.cross_entropy(found.seq_relationship_logits, follows))


@pytest.mark.parametrize('head', HEADS)
def test_loss_and_every_gradient(tmp_path, tokenizer, head):
    kind, make = HEADS[head]
    ours = shaken(make(encoder_shape(tokenizer.vocab_size)))
    save_encoder(ours, tokenizer, tmp_path, LABELS if head == 'classes' else None)
    theirs = open_all(kind, tmp_path)
    own, other = losses(head, ours, theirs, padded_rows(tokenizer.vocab_size))
    torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)
    own.backward()
    other.backward()
    given, asked = dict(theirs.named_parameters()), dict(ours.named_parameters())
    for name, full in bert_names(ours.config, _kind_of(ours)[1].heads).items():
        if name == 'head.bias': continue
        grad = given[full if head != 'vectors' else full.removeprefix('bert.')].grad
        torch.testing.assert_close(asked[name].grad, grad, atol=1e-5, rtol=1e-5)
    if hasattr(ours, 'head'):
        torch.testing.assert_close(asked['head.bias'].grad, given['cls.predictions.bias'].grad, atol=1e-5, rtol=1e-5)
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize('head', HEADS)
def test_ours_theirs_ours(tmp_path, tokenizer, head):
    kind, make = HEADS[head]
    ours = shaken(make(encoder_shape(tokenizer.vocab_size)))
    save_encoder(ours, tokenizer, tmp_path/'ours', LABELS if head == 'classes' else None)
    open_all(kind, tmp_path/'ours').save_pretrained(tmp_path/'theirs')
    back, _ = load_encoder(tmp_path/'theirs')
    assert type(back) is type(ours) and same(back.state_dict(), ours.state_dict())
    assert back.config == ours.config and back.labels == (LABELS if head == 'classes' else None)


@pytest.mark.parametrize('head', HEADS)
def test_theirs_ours_theirs(tmp_path, tokenizer, head):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                        intermediate_size=96, max_position_embeddings=40, hidden_act='gelu_new', layer_norm_eps=1e-6,
                        type_vocab_size=3,
                        num_labels=4 if head == 'classes' else 2, pad_token_id=0)
    kind, _ = HEADS[head]
    theirs = kind(config).eval()
    theirs.save_pretrained(tmp_path/'theirs')
    ours, words = load_encoder(tmp_path/'theirs')
    assert words is None
    save_encoder(ours, tokenizer, tmp_path/'ours')
    assert same(open_all(kind, tmp_path/'ours').state_dict(), theirs.state_dict())
    own, other = losses(head, ours, theirs, padded_rows(tokenizer.vocab_size)) if head != 'classes' else (
        x(y) for x, y in ((lambda m: m(**padded_rows()), ours), (lambda m: theirs_of(m, padded_rows()).logits, theirs)))
    torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def rewritten(folder, change, config=None):
    "Change the names in a folder's file, and its config."
    tensors = load_file(folder/'model.safetensors')
    save_file(change(tensors), folder/'model.safetensors', {'format': 'pt'})
    if config is not None: write_json(folder/'config.json', read_json(folder/'config.json') | config)


def renamed(tensors, swap): return {swap(name): w for name, w in tensors.items()}


def test_what_other_people_saved(tmp_path, tokenizer):
    "Names of TensorFlow's time, no prefix, buffers, and heads that the config does not mention."
    ours = shaken(MaskedLM(encoder_shape(tokenizer.vocab_size), True, seed=1))
    wanted = ours.state_dict()
    save_encoder(ours, tokenizer, tmp_path)
    tensors = load_file(tmp_path/'model.safetensors')

    def old(name): return name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')
    spare = {'bert.embeddings.position_ids': torch.arange(64)[None], 'cls.predictions.decoder.bias': wanted['head.bias'].clone(),
             'cls.predictions.decoder.weight': wanted['embed.weight'].clone()}
    save_file(renamed(tensors, old) | spare, tmp_path/'model.safetensors', {'format': 'pt'})
    assert same(load_encoder(tmp_path)[0].state_dict(), wanted)
    said = {'architectures': ['BertForMaskedLM']} # as bert-base says
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | said)
    assert same(load_encoder(tmp_path)[0].state_dict(), wanted)
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | {'architectures': None})
    assert same(load_encoder(tmp_path)[0].state_dict(), wanted)
    other = {'cls.predictions.decoder.weight': wanted['embed.weight'] + 1}
    save_file(renamed(tensors, old) | other, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='cls.predictions.decoder.weight: not the embedding'): load_encoder(tmp_path)

    body = {name.removeprefix('bert.'): w for name, w in tensors.items() if name.startswith('bert.')}
    save_file(body, tmp_path/'model.safetensors')
    bare = load_encoder(tmp_path)[0]
    assert type(bare) is PooledEncoder and all(torch.equal(w, wanted[name]) for name, w in bare.state_dict().items())
    assert torch.equal(classifier_from(bare, 3).state_dict()['pooler.dense.weight'], wanted['pooler.dense.weight'])
    no_pooler = {name: w for name, w in body.items() if not name.startswith('pooler')}
    save_file(no_pooler, tmp_path/'model.safetensors')
    bare = load_encoder(tmp_path)[0]
    assert type(bare) is Encoder and classifier_from(bare, 3).fresh == ('pooler', 'score')
    write_json(tmp_path/'config.json', read_json(tmp_path/'config.json') | {'architectures': ['BertForSequenceClassification']})
    with pytest.raises(UserError, match='another shape; bert.pooler.dense.weight is missing'): load_encoder(tmp_path)


@pytest.fixture
def saved(tmp_path, tokenizer):
    save_encoder(Classifier(encoder_shape(tokenizer.vocab_size), 3, seed=1), tokenizer, tmp_path, LABELS)
    return tmp_path


@pytest.mark.parametrize('change,words', [
    ({'model_type': 'roberta'}, "a roberta, which is no encoder"), ({'hidden_act': 'relu'}, "hidden_act 'relu': only silu"),
    ({'position_embedding_type': 'relative_key'}, "position_embedding_type 'relative_key': only 'absolute'"),
    ({'is_decoder': True}, 'is_decoder True: only False'), ({'add_cross_attention': True}, 'add_cross_attention True'),
    ({'tie_word_embeddings': False}, 'tie_word_embeddings False'), ({'pruned_heads': {'0': [1]}}, "pruned_heads {'0': "),
    ({'quantization_config': {'bits': 4}}, 'quantization_config'), ({'hidden_size': 33}, 'width 33 does not divide into 4 heads'),
    ({'hidden_size': 64}, r'word_embeddings.weight is \(300, 32\), not \(300, 64\)'),
    ({'hidden_size': -1}, "'hidden_size' is -1"),
    ({'hidden_size': '32'}, "'hidden_size' is \"32\""), ({'num_hidden_layers': 10**9}, "'num_hidden_layers' is 1000000000"),
    ({'num_hidden_layers': 9999}, 'bert.encoder.layer.2.* is missing'),
    ({'num_hidden_layers': 1}, 'a bert of 1 blocks has no place'),
    ({'vocab_size': 10**9}, r'not \(1000000000, 32\)'), ({'hidden_dropout_prob': 1}, 'dropout 1: give a share'),
    ({'layer_norm_eps': float('nan')}, "'layer_norm_eps' is NaN"), ({'num_attention_heads': 0}, "'num_attention_heads' is 0"),
    ({'max_position_embeddings': 10**9}, r'not \(1000000000, 32\)'), ({'architectures': 5}, "'architectures' is 5"),
    ({'architectures': [7]}, 'architectures 7: only BertForPreTraining'),
    ({'architectures': ['BertForTokenClassification']}, "architectures 'BertForTokenClassification': only"),
    ({'id2label': {'0': 'a'}}, 'with 1 labels: only single_label'),
    ({'id2label': {'0': 'a', '2': 'b', '1': 3}}, 'no name for the class 1'),
    ({'id2label': {'1': 'a', '2': 'b', '3': 'c'}}, 'no name for the class 0'), ({'id2label': [1, 2]}, "'id2label' is"),
    ({'id2label': {'0': 'a', '1': 'b'}}, r'classifier.weight is \(3, 32\), not \(2, 32\)'),
    ({'problem_type': 'multi_label_classification'}, "problem_type 'multi_label_classification'"),
    ({'model_type': None}, 'a None, which is no encoder'), ({'type_vocab_size': 0}, "'type_vocab_size' is 0"),
])
def test_hostile_configs(saved, change, words):
    write_json(saved/'config.json', read_json(saved/'config.json')) # as Python's JSON writes it
    text = json.dumps(read_json(saved/'config.json') | change)
    (saved/'config.json').write_text(text)
    with pytest.raises(UserError, match=words) as told: load_encoder(saved)
    assert str(saved) in str(told.value) and '\n' not in str(told.value)


def test_weights_that_do_not_fit(saved):
    tensors = load_file(saved/'model.safetensors')
    name = 'bert.encoder.layer.1.output.dense.weight'
    for wrong, words in (
            ({name: torch.full_like(tensors[name], float('nan'))}, f'{name}: holds NaN'),
            ({name: tensors[name].T.contiguous()}, 'not'),
            ({'bert.adapter.weight': torch.zeros(1)}, 'bert.adapter.weight: a bert of 2 blocks has no place'),
            ({name: torch.zeros(32, 48, dtype=torch.int8)}, 'weights of type I8')):
        save_file(tensors | wrong, saved/'model.safetensors')
        with pytest.raises(UserError, match=words): load_encoder(saved)
    (saved/'model.safetensors').rename(saved/'pytorch_model.bin')
    with pytest.raises(UserError, match='only safetensors are read, never pickles'): load_encoder(saved)


WORDS = ['[PAD]', '[unused0]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *'abcdefghijklmnopqrstuvwxyz', *'ABCDEFGHIJKLMNOPQRSTUVWXYZ',
         *(f'##{c}' for c in 'abcdefghijklmnopqrstuvwxyz0123456789'), *'0123456789', *'.,;:!?()[]{}"\'`-_=+*/<>%#@&|^~$\\',
         'the', 'of', 'is', 'str', 'int', 'list', 'return', '##ing', '##ed', '##s', 'Python', 'None', '中', 'é', 'e', 'über']


@pytest.mark.parametrize('settings', [
    None, {'do_lower_case': True}, {'do_lower_case': False}, {'do_lower_case': False, 'strip_accents': True},
    {'do_lower_case': True, 'strip_accents': False, 'tokenize_chinese_chars': False}])
def test_a_vocabulary_alone(tmp_path, settings):
    "Ids equal to those of transformers on text that nobody here wrote."
    from pydoc_data.topics import topics
    (tmp_path/'vocab.txt').write_text('\n'.join(dict.fromkeys(WORDS)) + '\n', encoding='utf-8')
    model = MaskedLM(encoder_shape(len(set(WORDS))), seed=1)
    theirs_config = BertConfig(vocab_size=len(set(WORDS)), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                               intermediate_size=48, max_position_embeddings=64)
    BertForMaskedLM(theirs_config).save_pretrained(tmp_path)
    if settings: write_json(tmp_path/'tokenizer_config.json', settings | {'tokenizer_class': 'BertTokenizer'})
    _, ours = load_encoder(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = [topics[name][:1500] for name in sorted(topics)[:40]] + ['Über 中文 café\u0301 \t\x00 [unused0] x' * 2, '']
    frame = frame_of(ours)
    assert frame == (3, 4, 5, 0)
    for text, ids in zip(texts, ours.encode_texts(texts)):
        assert frame_row(frame, ids).ids.tolist() == theirs(text).input_ids
    a, b = ours.encode_texts(texts[:2])
    row, pair = frame_row(frame, a, b), theirs(texts[0], texts[1])
    assert row.ids.tolist() == pair.input_ids and row.types.tolist() == pair.token_type_ids
    save_encoder(model, ours, tmp_path/'ours')
    again = AutoTokenizer.from_pretrained(tmp_path/'ours')(texts[0], texts[1])
    assert (again.input_ids, again.token_type_ids) == (pair.input_ids, pair.token_type_ids)


def test_vocabularies_that_are_none(saved):
    (saved/'tokenizer.json').unlink()
    none = r'vocab.txt: no \[UNK\] in it'
    for content, words in ((b'a\nb\n', none), (b'\xff\xfe', 'vocab.txt: not UTF-8'), (b'', none)):
        (saved/'vocab.txt').write_bytes(content)
        with pytest.raises(UserError, match=words): load_encoder(saved)


def test_others_frame_texts_as_we_do(saved, tokenizer):
    "The tokenizer that is saved beside an encoder puts the frame around a text, and around two."
    theirs, frame = AutoTokenizer.from_pretrained(saved), frame_of(tokenizer)
    a, b = tokenizer.encode_texts(['the lamp', 'Odo went'])
    for row, found in ((frame_row(frame, a), theirs('the lamp')), (frame_row(frame, a, b), theirs('the lamp', 'Odo went'))):
        assert row.ids.tolist() == found.input_ids and row.types.tolist() == found.token_type_ids
    assert (theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id, theirs.pad_token_id) == frame


@torch.no_grad()
@pytest.mark.parametrize('head', HEADS)
def test_a_row_does_not_know_its_neighbours(head):
    "Alone or in a padded batch: the same numbers, and the same gradient."
    ours, batch = shaken(HEADS[head][1](encoder_shape())), padded_rows()
    def first(x): return x[0] if isinstance(x, tuple) else x
    for i, n in enumerate((20, 13, 7)):
        alone = {name: x[i:i+1, :n] for name, x in batch.items()}
        grads = []
        for rows, row in ((alone, 0), (batch, i)):
            ours.zero_grad()
            with torch.enable_grad():
                out = first(ours(**rows))[row]
                if out.ndim == 2: out = out[:n]
                out.square().sum().backward()
            grads.append((out, {name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None}))
        (a, slopes), (b, others) = grads
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        for name, slope in slopes.items(): torch.testing.assert_close(slope, others[name], atol=2e-5, rtol=1e-4)


def test_kinds_and_their_commands(tmp_path, tokenizer):
    c = encoder_shape(tokenizer.vocab_size)
    for name, model, words in (('bare', Encoder(c, seed=1), 'an encoder, which reads.*classify --model'),
                               ('masked', MaskedLM(c, seed=1), 'an encoder, which reads'),
                               ('spans', SpanFinder(c, seed=1), 'a span finder'),
                               ('classes', Classifier(c, 3, seed=1), 'a classifier, which puts')):
        save_classifier(model, tokenizer, tmp_path/name)
        back, words_back = load_trained(tmp_path/name)
        assert type(back) is type(model) and same(back.state_dict(), model.state_dict()) and words_back.vocab_size == c.vocab_size
        for load in (load_model, load_reward_model):
            with pytest.raises(UserError, match=words): load(tmp_path/name)
    assert load_trained(tmp_path/'classes')[0].labels == ['LABEL_0', 'LABEL_1', 'LABEL_2']
    save_model(RewardModel(decoder_shape(tokenizer.vocab_size), seed=1), tokenizer, tmp_path/'reward')
    with pytest.raises(UserError, match='a reward model, which scores'): load_trained(tmp_path/'reward')
    save_model(Transformer(decoder_shape(tokenizer.vocab_size), seed=1), tokenizer, tmp_path/'decoder')
    assert load_trained(tmp_path/'decoder')[0].labels is None
    for model, labels, words in ((Classifier(c, 3), ['a', 'b'], '2 names for 3 classes'),
                                 (Classifier(c, 2), ['a', 'a'], "two classes have the name 'a'"),
                                 (DecoderClassifier(decoder_shape(tokenizer.vocab_size), 1), None, '1 names for 1 classes')):
        with pytest.raises(UserError, match=words): save_classifier(model, tokenizer, tmp_path/'x', labels)
    assert not (tmp_path/'x').exists()
    with pytest.raises(UserError, match='no such folder'): load_trained(tmp_path/'nowhere')


@torch.no_grad()
@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_the_padding_of_the_model_counts(tmp_path, tokenizer, arch):
    "A decoder that was tuned with another padding token than its tokenizer's."
    ours = DecoderClassifier(decoder_shape(tokenizer.vocab_size, arch), 3, pad=9, seed=1).eval()
    save_classifier(ours, tokenizer, tmp_path)
    batch = padded_rows(tokenizer.vocab_size)
    ids = batch['ids'].clamp(min=10).where(batch['mask'], 9)
    theirs = open_all(AutoModelForSequenceClassification, tmp_path)
    found = theirs(input_ids=ids, attention_mask=batch['mask'].long()).logits
    torch.testing.assert_close(ours(ids), found, atol=1e-5, rtol=1e-5)
    assert load_trained(tmp_path)[0].pad == 9 and theirs.config.pad_token_id == 9
