"What `grade` asks of the answers to the exercises of the chapter `claims`."
import random
import re

from llmbook.text.claims import claim_sentence, read_claims, story_claims
from llmbook.text.tasks import task_story

_STORY = 435  # the one that is shown


def check_1(answer):
    "How many claims are true."
    right = len(story_claims(task_story(0, _STORY)))
    assert int(answer) == answer, "A whole number, please."
    assert answer == right, f"Not {answer}. What does the text tell, where is everybody in the end, who has what?"


def _summaries(story, rng):
    "Summaries of one story: true, false, repeated, unreadable, empty."
    true = [claim_sentence(claim) for claim in story_claims(story)]
    some = rng.sample(true, 3)
    other = task_story(1, rng.randrange(10**6))
    false = [claim_sentence(claim) for claim in story_claims(other)[:2]]
    yield true
    yield some
    yield [*some, some[0]]
    yield [*some, *false, false[0]]
    yield [*some, 'He sang a song.', 'He sang a song.']
    yield ['Nobody came.']
    yield []


def _counted(summary, story):
    "Precision and recall, slowly."
    true, made, nothing = story_claims(story), [], 0
    for claim in read_claims(summary):
        if claim is None: nothing += 1
        elif claim not in made: made.append(claim)
    right = len([claim for claim in made if claim in true])
    return right / ((len(made) + nothing) or 1), right / len(true)


def check_2(answer):
    "Precision and recall of summaries."
    rng = random.Random(0)
    for number in range(10):
        story = task_story(0, number)
        for sentences in _summaries(story, rng):
            summary = ' '.join(sentences)
            received = answer(summary, story)
            assert received is not None, "Return two numbers."
            precision, recall = received
            wanted = _counted(summary, story)
            shown = summary[:60] or 'an empty summary'
            assert abs(precision - wanted[0]) < 1e-9, f"{shown!r}: the precision is {wanted[0]:.3f}, not {precision:.3f}."
            assert abs(recall - wanted[1]) < 1e-9, f"{shown!r}: the recall is {wanted[1]:.3f}, not {recall:.3f}."


def check_3(answer):
    "False claims that differ in the name only."
    rng = random.Random(0)
    for number in range(200):
        story = task_story(0, number)
        claim, true = answer(story, rng), story_claims(story)
        assert claim is not None, "Return a claim."
        assert claim not in true, f"{claim_sentence(claim)!r} is true in story {number}."
        assert claim.name in story.state.cast, f"{claim.name} is not in story {number}."
        assert claim[1:] in [one[1:] for one in true], f"{claim_sentence(claim)!r} changes more than the name."


def check_4(answer):
    "(text, passage, false sentence): the words are there, the sentence is not."
    text, passage, false = (str(part) for part in answer)
    words = re.findall(r'\w+', text.lower())
    assert len(words) >= 50, f"The text has {len(words)} words; take 50 or more."
    assert passage.strip() and passage in text, "The passage is not in the text."
    quoted = re.findall(r'\w+', passage.lower())
    assert len(quoted) >= 4, "The passage has fewer than four words."
    said = re.findall(r'\w+', false.lower())
    assert len(set(said)) >= 4, "The false sentence has fewer than four different words."
    missing = [word for word in said if word not in words]
    assert not missing, f"{missing[0]!r} is not a word of the text, so a judge of words would refuse."
    about = [word for word in said if word in quoted and len(word) > 3]
    assert about, "No word of four letters or more is both in the sentence and in the passage."
    assert f" {' '.join(said)} " not in f" {' '.join(words)} ", "The sentence is in the text."
