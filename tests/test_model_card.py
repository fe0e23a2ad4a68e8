"Cards of models: what a run knows is in them, no path is, and the Hub's own parser reads them."

import pytest
from huggingface_hub import ModelCard

from llmbook.align.lora import LoraOptions
from llmbook.align.sft import sft
from llmbook.files import write_jsonl
from llmbook.model.checkpoints import load_encoder, load_model
from llmbook.model.hf_format import save_model
from llmbook.model.model_card import _KINDS, model_card, named_path, newest_values, of_the_world, training_facts
from llmbook.train.clm import pretrain
from llmbook.train.pretrain_encoder import mlm

HUB_TASKS = {'text-generation', 'text-classification', 'question-answering', 'fill-mask', 'feature-extraction'}


def read_card(folder):
    card = ModelCard.load(folder/'README.md')
    return card.data.to_dict(), card.text


@pytest.mark.parametrize('kind', _KINDS)
def test_every_kind_is_read_by_the_hub(tmp_path, kind):
    (tmp_path/'README.md').write_text(model_card(kind, 'llama', '5 parameters'))
    front, text = read_card(tmp_path)
    assert front['tags'] == ['llmbook', 'llama'] and front['license'] == 'unknown' and front['pipeline_tag'] in HUB_TASKS
    assert front['library_name'] == ('peft' if 'adapter' in kind else 'transformers') and 'language' not in front
    assert f'{kind} of the family llama' in text and '5 parameters.' in text and 'Not known' in text


def test_a_path_says_nothing_about_the_machine(tmp_path):
    assert named_path(tmp_path/'my | data.jsonl') == 'my_data.jsonl' and named_path('/disk/me/x/`rm`\n.csv') == '_rm_.csv'
    assert named_path(tmp_path/'run/checkpoints/step-00000010') == 'run' and named_path('/') == 'unnamed'
    facts = training_facts('sft', {'data': '/disk/me/secret/a.jsonl', 'mix': ['/b/c=0.2'], 'model': '/d/e'}, {})
    assert facts['data'] == '`a.jsonl`' and facts['data mixed in'] == '`c`' and facts['began as'] == '`e`'


def test_what_a_log_said_last():
    rows = [{'step': 1, 'loss': 3.}, {'step': 2, 'val_loss': 2.}, {'step': 3, 'loss': 1.}]
    latest = {}
    for row in rows: latest = newest_values(latest, row)
    assert latest == {'step': 3, 'loss': 1., 'val_loss': 2., 'measured': 2}
    assert training_facts('x', {'data': 'f'}, latest)['held-out loss'] == '2 at step 2'
    assert of_the_world({'seed': 1}) and not of_the_world({'tokens': 'runs/tokens'})


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "A model of the world, an encoder, and an adapter on a file of ours."
    top = tmp_path_factory.mktemp('secret-place')
    answer = {'role': 'assistant', 'content': 'A number.'}
    rows = [{'messages': [{'role': 'user', 'content': f'What is {i}?'}, answer]} for i in range(30)]
    write_jsonl(top/'mine.jsonl', rows)
    clm = pretrain(steps=3, stories=60, vocab_size=600, batch_size=2, out=str(top/'first'), eval_every=2, save_every=1)
    both = dict(steps=2, save_every=1, batch_size=2)
    return {
        'top': top, 'clm': clm, 'mlm': mlm(stories=60, block_size=64, out=str(top/'reader'), **both),
        'world': sft(model=str(top/'first'), stories=60, out=str(top/'asked'), **both),
        'file': sft(model=str(top/'first'), data=str(top/'mine.jsonl'), out=str(top/'told'), adapt=LoraOptions(), **both)}


def test_a_run_writes_what_it_knows(runs):
    front, text = read_card(runs['clm'])
    assert front['language'] == 'en' and front['tags'] == ['llmbook', 'pretrain', 'llama']
    for words in ('| made by | `llmbook pretrain` |', "60 stories of llmbook's invented world", '| steps | 3 |', '| seed | 0 |',
                  'at step 3 |', 'knows nothing of ours', 'licence is unknown'): assert words in text
    assert 'Not known' not in text
    front, text = read_card(runs['mlm'])
    assert front['pipeline_tag'] == 'fill-mask' and '| held-out masked_' not in text.split('## Training')[0]


def test_what_a_model_began_as_counts(runs, tmp_path):
    "A model of the world that reads a file of yours no longer knows only the world; nor does a stranger that reads the world."
    front, text = read_card(runs['world'])
    assert front['language'] == 'en' and '| began as | `first` |' in text and 'knows nothing of ours' in text
    front, text = read_card(runs['file'])
    assert 'language' not in front and '| data | `mine.jsonl` |' in text and 'knows nothing of ours' not in text
    assert front['library_name'] == 'peft' and 'to be used with the model first' in text
    save_model(*load_model(runs['clm']), tmp_path/'stranger')
    front, text = read_card(sft(model=str(tmp_path/'stranger'), stories=60, steps=1, batch_size=2, out=str(tmp_path/'x')))
    assert 'language' not in front and 'knows nothing of ours' not in text and "llmbook's invented world" in text


def test_no_path_and_no_date(runs):
    for name, folder in runs.items():
        if name == 'top': continue
        text = (folder/'README.md').read_text()
        assert 'secret-place' not in text and '/tmp' not in text and '202' not in text


def test_a_resumed_run_writes_the_same_card(runs, tmp_path):
    again = dict(stories=60, vocab_size=600, batch_size=2, out=str(tmp_path/'first'), eval_every=2, save_every=1)
    killed = []
    def die(model, step, stats, say):
        if not killed:
            killed.append(step)
            raise KeyboardInterrupt
        return {}
    with pytest.raises(KeyboardInterrupt): pretrain(steps=3, on_eval=die, **again)
    newest = pretrain(steps=3, **again)
    assert killed and (newest/'README.md').read_bytes() == (runs['clm']/'README.md').read_bytes()


def test_saved_again_it_is_not_known(runs, tmp_path):
    "A model that was changed by hand is not what its run made."
    save_model(*load_model(runs['clm']), tmp_path)
    assert 'Not known' in read_card(tmp_path)[1]
    assert load_encoder(runs['mlm'])[1] is not None
