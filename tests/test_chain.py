"The stages after pretraining: their sizes, their markers, and one small run through all of them."
import json
from pathlib import Path

import pytest

from llmbook import book
from llmbook.align import chain
from llmbook.evaluation.align_parts import read_alignment
from llmbook.files import read_jsonl

TINY = dict(stories=300, steps=4, vocab_size=1000)


def test_sizes_follow_pretraining():
    usual = chain.stage_sizes(chain._PRETRAINING)
    assert usual == chain._USUAL
    half = chain.stage_sizes(chain._PRETRAINING // 2)
    assert all(abs(2*part - full) <= 1 for part, full in zip(half, usual))
    assert min(chain.stage_sizes(1)) >= 2


def test_a_stage_runs_once_and_without_its_marker_again(tmp_path):
    calls = []
    def stage(out, steps, engine, **flags):
        Path(out).mkdir(exist_ok=True)
        calls.append(flags)
    for _ in range(2): chain._run_stage('sft', tmp_path, stage, 3, None, model='base')
    assert calls == [{'model': 'base'}]
    (tmp_path/'sft'/'done.json').unlink()
    chain._run_stage('sft', tmp_path, stage, 3, None, model='base')
    assert len(calls) == 2 and json.loads((tmp_path/'sft'/'done.json').read_text())['steps'] == 3


@pytest.mark.slow
def test_a_small_run_reaches_the_end_and_resumes(tmp_path, monkeypatch, capsys):
    pages = book.pydoc_documents()[:20]
    monkeypatch.setattr(book, 'pydoc_documents', lambda: pages)
    out = tmp_path/'run'
    book.run(out=str(out), **TINY, pretrain_only=True)
    assert not (out/'sft').exists()
    page = book.run(out=str(out), **TINY) # continues where the first call stopped
    found = read_alignment(out/'alignment.json')
    assert set(found['policies']) == {'SFT', 'DPO', 'GRPO'}
    assert [row['stage'] for row in found['stages']] == ['sft', 'reward', 'dpo', 'grpo']
    assert list(read_jsonl(out/'preferences.jsonl')) and list(read_jsonl(out/'questions.jsonl'))
    text = page.with_suffix('.md').read_text()
    for section in ('Fine-tuning: questions answered', 'The reward model', 'Policies, by the true reward',
                    'Loss: dpo', 'Reward: grpo'):
        assert f'## {section}' in text, section
    measured = (out/'alignment.json').read_bytes()
    for marker in ('reward/done.json', 'alignment.json'): (out/marker).unlink()
    capsys.readouterr()
    book.run(out=str(out), **TINY)
    said = capsys.readouterr().out
    assert 'sft: done before' in said and 'Preferences: done before' in said
    again = json.loads((out/'alignment.json').read_text())
    assert again['policies'] == json.loads(measured)['policies'] and again['pairs'] == json.loads(measured)['pairs']
