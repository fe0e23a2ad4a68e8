"The chapter `quality`: a cut and a lottery by a classifier's score."
import os
import subprocess
import sys
from functools import partial

import cloudpickle
import pytest

from llmbook.text.pipeline import apply_rules, rule_name
from llmbook.text.quality import good_quality, sampled_quality


def by_text(text): return float(text)


PAGES = [{'id': f'page-{i}', 'text': str(score)} for i, score in enumerate([0.0, 0.5, 0.8, 0.9, 1.0] * 400)]


def shares(rule):
    "Share kept by score."
    kept = {}
    for page in PAGES: kept.setdefault(float(page['text']), []).append(isinstance(rule(page), dict))
    return {score: sum(flags) / len(flags) for score, flags in kept.items()}


def test_a_cut_keeps_what_is_at_least_there():
    rule = partial(good_quality, scorer=by_text)
    assert shares(rule) == {0.0: 0, 0.5: 1, 0.8: 1, 0.9: 1, 1.0: 1}
    assert shares(partial(rule, least=0.81)) == {0.0: 0, 0.5: 0, 0.8: 0, 0.9: 1, 1.0: 1}
    assert rule(PAGES[1]) is PAGES[1] and apply_rules(PAGES[0], [rule]) == (None, 'good_quality', 'low quality')


@pytest.mark.parametrize('alpha', [0.5, 3, 9])
def test_the_lottery_keeps_by_the_formula(alpha):
    for score, share in shares(partial(sampled_quality, scorer=by_text, alpha=alpha)).items():
        chance = (2 - score) ** -alpha
        assert abs(share - chance) <= 4 * (chance * (1 - chance) / 400) ** 0.5 + 1e-12


def test_the_lottery_is_the_same_in_any_order_and_process():
    rule = partial(sampled_quality, scorer=by_text)
    first = {page['id']: rule(page) for page in PAGES}
    again = cloudpickle.loads(cloudpickle.dumps(rule))
    assert {page['id']: again(page) for page in reversed(PAGES)} == first
    assert rule_name(rule) == 'sampled_quality' and 'low quality' in first.values()


def test_the_lottery_does_not_hash_by_process():
    rule = partial(sampled_quality, scorer=float)
    code = ('import sys, cloudpickle; rule, pages = cloudpickle.load(sys.stdin.buffer); '
            'print(*map(type, map(rule, pages)), sep=",")')
    child = subprocess.run([sys.executable, '-c', code], input=cloudpickle.dumps((rule, PAGES)), capture_output=True,
                           check=True, env={**os.environ, 'PYTHONHASHSEED': '12345'})
    assert child.stdout.decode().strip().split(',') == [str(type(rule(page))) for page in PAGES]


def test_another_seed_draws_other_pages():
    kept = [{page['id'] for page in PAGES if isinstance(sampled_quality(page, by_text, seed=seed), dict)} for seed in (0, 1)]
    assert kept[0] != kept[1] and len(kept[0] & kept[1]) >= 400 # those of score 1 are always kept


def test_a_larger_alpha_keeps_a_part_of_what_a_smaller_one_keeps():
    kept = [{page['id'] for page in PAGES if isinstance(sampled_quality(page, by_text, alpha=alpha), dict)} for alpha in (3, 9)]
    assert kept[1] < kept[0]
