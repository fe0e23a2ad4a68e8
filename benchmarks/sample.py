"""The sample of the front page: of 200, the one whose beginning stays true longest if one sentence is left out.

    python benchmarks/sample.py

writes `nbs/results/index.json`, in about two minutes on two cores.
"""
import re

from llmbook.lesson import save_results
from llmbook.model.checkpoints import book_model
from llmbook.model.completion import continue_text
from llmbook.text.stories import accepted

SAMPLES = 200


def sentences(text): return re.findall(r'.*?[.?]"?(?=\s|$)', text)


def true_sentences(told):
    "How many of the first sentences could be true together."
    end, length = accepted(''.join(told)), 0
    for n, sentence in enumerate(told):
        length += len(sentence)
        if length > end: return n
    return len(told)


def one_false(text):
    "The sentences of a sample, the number of the first false one, and how many could be true without it."
    told = sentences(text)
    wrong = true_sentences(told)
    return told, wrong, true_sentences(told[:wrong] + told[wrong + 1:])


def main():
    model, tokenizer = book_model()
    best = 0
    for seed in range(SAMPLES):
        told, wrong, good = one_false(continue_text(model, tokenizer, 'One morning', seed, 220))
        if wrong < len(told) and good > best:
            best = good
            found = {'seed': seed, 'samples': SAMPLES, 'sentences': told[:good + 1], 'false': wrong}
    path = save_results('index', found)
    print(path.name, *found['sentences'], sep='\n')


if __name__ == '__main__': main()
