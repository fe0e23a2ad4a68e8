"""Same maths, any layout, same loss: the problem, the layouts, and what is held. A new layout is a row of `LAYOUTS`.

`test_invariance.py` holds it, `benchmarks/invariance.py` writes the table. Functions that ranks run stand here, where a
launched process finds them.
"""
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist

from llmbook.align.chat_template import Encoded
from llmbook.align.lora import add_lora
from llmbook.align.dpo import Preference
from llmbook.align.pairs import EncodedChoice, PairStream, mismatched
from llmbook.align.prefixes import SharedStore
from llmbook.align.reference import score_answers
from llmbook.align.reward import Comparisons
from llmbook.core import generator, current_rank
from llmbook.model.numpy_steps import for_writing
from llmbook.model.encoder_heads import MaskedLM
from llmbook.model.encoders import EncoderConfig
from llmbook.model.generate import generate
from llmbook.model.heads import RewardModel
from llmbook.model.transformer import Config, Transformer
from llmbook.scale.engine import DeepSpeedEngine
from llmbook.text.batches import IGNORE, Stream
from llmbook.text.pair_rows import Frame, frame_row
from llmbook.train.clm import CLM
from llmbook.train.masking import MaskedStream, MaskedTokens
from llmbook.train.next_sentence import MaskedTokensAndNext
from llmbook.train.step import LocalEngine

CONFIG = Config(vocab_size=40, block_size=16, n_layer=2, n_head=2, n_kv_head=2, n_embd=32, n_hidden=64)
ENCODER = EncoderConfig(vocab_size=40, block_size=16, n_layer=2, n_head=2, n_embd=32, n_hidden=64)
STEPS, CLIP, LR = 30, 0.2, 1e-2
ALLOWED = {'loss': 1e-5, 'norm': 1e-3, 'mean': 1e-6} # of any step, of any step (share of itself), of all losses together


def layout(ranks, zero, offload=False, accum=1):
    name = f'{ranks} rank{"s" if ranks > 1 else ""}, ZeRO-{zero}' + (' and offload' if offload else '')
    flags = dict(zero=zero, offload=offload, accum=accum) | (dict(persist=0) if zero == 3 else {}) # cut the smallest weights too
    return name + (f', {accum} micro-batches' if accum > 1 else ''), (ranks, flags)


LAYOUTS = dict([ # name -> ranks, arguments of the engine
    *(layout(2, zero, offload, accum) for zero in range(4) for offload in (False, True)[:zero + 1] for accum in (1, 4)),
    *(layout(4, zero) for zero in (1, 3)),
])


class Uneven:
    "Rows that count upwards from a random start; each learns between 1 and 16 of its places."
    batch_size, block_size, seed = 8, 16, 0

    def __init__(self, rank=0, world=1): self.rank, self.world = rank, world

    def slice(self, rank, world): return Uneven(rank, world)

    def __getitem__(self, step):
        g = generator(self.seed, 'rows', step)
        start, learned = (torch.randint(a, b, (self.batch_size, 1), generator=g) for a, b in ((0, 40), (1, 17)))
        ids = (start + torch.arange(17)) % 40
        labels = ids[:, 1:].masked_fill(torch.arange(16) >= learned, IGNORE)
        batch = dict(ids=ids[:, :-1], labels=labels, rows=torch.arange(self.batch_size) + 100*step)
        return {k: v[self.rank::self.world] for k, v in batch.items()}


def pairs(kind=PairStream, rows=40):
    "Answers of uneven lengths to prompts of uneven lengths: the better one counts upwards. The reference is the first model."
    g, choices = generator(0, 'pairs'), []
    for number in range(rows):
        first, *lengths = torch.randint(2, 9, (4,), generator=g).tolist()
        up, down = (((first + sign * torch.arange(1, n)) % 40).numpy() for sign, n in zip((1, -1), lengths))
        prompt = torch.randint(40, (lengths[-1],), generator=g).numpy()
        choices.append(EncodedChoice(str(number), prompt, [up, down], None))
    stream = kind(choices, Uneven.batch_size, 16)
    stream.others = PairStream(mismatched(choices, 16), Uneven.batch_size, 16)
    plain = PairStream(choices, Uneven.batch_size, 16)
    stream.columns['ref'], stream.others.columns['ref'] = (score_answers(local(), local(), s) for s in (plain, stream.others))
    return stream


def chats(rows=60):
    "Conversations of uneven lengths, packed: a prompt, and an answer that counts upwards from its last token."
    g, encoded = generator(0, 'chats'), []
    for _ in range(rows):
        asks, answers = torch.randint(1, 9, (2,), generator=g).tolist()
        prompt = torch.randint(40, (asks,), generator=g).tolist()
        answer = [(prompt[-1] + i) % 40 for i in range(1, answers + 1)]
        encoded.append(Encoded(prompt + answer, [False]*asks + [True]*answers))
    tokenizer = SimpleNamespace(vocab_size=40, pad=0, begin=None, ends=())
    return Stream(SharedStore(encoded, tokenizer, 'chats', 16), Uneven.batch_size, 16)


def lists(rows=40):
    "Three answers of uneven lengths, the best first: it counts upwards, the next in sevens, the last downwards."
    g, choices = generator(0, 'lists'), []
    for number in range(rows):
        first, *lengths, asks = torch.randint(2, 6, (5,), generator=g).tolist()
        answers = [((first + step * torch.arange(1, n)) % 39 + 1).numpy() for step, n in zip((1, 7, -1), lengths)]
        choices.append(EncodedChoice(str(number), torch.randint(1, 40, (asks,), generator=g).numpy(), answers, None))
    return PairStream(choices, Uneven.batch_size, 16)


def hidden(kind=MaskedStream, rows=60):
    "Pairs of uneven lengths, in which tokens are hidden. Both texts count in six tokens; half of the second ones go on."
    g, framed, follows = generator(0, 'hidden'), [], []
    vocabulary = SimpleNamespace(frame=Frame(1, 2, 3, 0), ordinary=np.arange(40) > 3)
    vocabulary.word_numbers = lambda ids: np.where(vocabulary.ordinary[ids], np.arange(len(ids)), -1)
    for number in range(rows):
        start, other = torch.randint(36, (2,), generator=g).tolist()
        n, m = torch.randint(2, 7, (2,), generator=g).tolist()
        second = other if number % 2 else start + n
        framed.append(frame_row(vocabulary.frame, (start + np.arange(n)) % 6 + 4, (second + np.arange(m)) % 6 + 4))
        follows.append(number % 2)
    columns = {'follows': torch.tensor(follows)}
    return kind(framed, vocabulary, Uneven.batch_size, 16, rate=0.3, columns=columns)


OBJECTIVES = { # name -> what makes an objective, and the stream that it learns from
    'sft': (CLM, chats), 'dpo': (lambda: Preference(block_size=16), pairs),
    'reward': (lambda: Comparisons(center=0.1, block_size=16), lists),
    'mlm': (MaskedTokens, hidden), 'mlm with nsp': (MaskedTokensAndNext, hidden)}
MODELS = { # objectives of another model than the decoder: one that gives points, or an encoder with or without a second head
    'reward': dict(judge=True), 'mlm': dict(encoder='tokens'), 'mlm with nsp': dict(encoder='pairs')}


# Mistakes that the suite must see

class MeanOfMeans(CLM):
    "Every micro-batch divides by its own count, and the means are averaged."
    def counts(self, batch): return super().counts(batch) | {'parts': 1}

    def loss(self, log_probs, batch, counts):
        return super().loss(log_probs, batch, self.counts(batch))[0] / counts['parts'], {}


class Doubled(CLM):
    "The right loss with twice its gradient."
    def loss(self, log_probs, batch, counts):
        loss, _ = super().loss(log_probs, batch, counts)
        return 2*loss - loss.detach(), {}


class Dropped(CLM):
    "The last rank's gradient gets lost."
    def loss(self, log_probs, batch, counts):
        loss, _ = super().loss(log_probs, batch, counts)
        return (loss if current_rank() < dist.get_world_size() - 1 else 0*loss + loss.detach()), {}


class Twice(Uneven):
    "Every rank is fed the first one's slice."
    def slice(self, rank, world): return Uneven(0, world)


class Poisoned(CLM):
    "Not a number at the steps named, on one rank: the loss, or only its gradient."
    def __init__(self, *steps, rank=0, where='loss'): self.steps, self.rank, self.where = steps, rank, where

    def loss(self, log_probs, batch, counts):
        loss, _ = super().loss(log_probs, batch, counts)
        if int(batch['rows'][0]) // 100 not in self.steps or current_rank() != self.rank: return loss, {}
        return (loss*math.nan if self.where == 'loss' else loss + (loss - loss.detach()).sqrt()), {}


# What a process does

def model_of(lora=None, judge=False, encoder=None):
    "The decoder, a reward model or an encoder; with a rank, all of it frozen but for adapters."
    if encoder: return MaskedLM(ENCODER, encoder == 'pairs', seed=0)
    model = RewardModel(CONFIG, 0, seed=0) if judge else Transformer(CONFIG, 0)
    return model if lora is None else add_lora(model, lora)


def rate(judge): return lambda step: LR/5 if judge else LR # points are steeper than log-probabilities


def local(lora=None, judge=False, encoder=None, **flags):
    return LocalEngine(model_of(lora, judge, encoder), rate(judge), **dict(clip=CLIP) | flags)


def sharded(lora=None, judge=False, encoder=None, **flags):
    return DeepSpeedEngine(model_of(lora, judge, encoder), rate(judge), **dict(clip=CLIP, persist=0) | flags)


def advance(engine, steps=STEPS, objective=None, stream=None):
    "Losses and gradient norms of the next steps."
    stream, stats = (stream or Uneven()).slice(engine.data_rank, engine.data_world), []
    stream.engine = engine # a few ask it
    for _ in range(steps): stats.append(engine.step(stream[engine.steps], objective or CLM()))
    return [s['loss'] for s in stats], [s['grad_norm'] for s in stats]


def trajectories(cases):
    "On every rank: one engine after the other, [(flags, objective, stream)] -> [(losses, norms)]."
    found = []
    for flags, objective, stream in cases:
        engine = sharded(**flags)
        found.append(advance(engine, objective=objective, stream=stream))
        engine.close()
    return found


def off(ours, theirs):
    "How far two trajectories are apart, in the terms of `ALLOWED`."
    losses, norms = [a - b for a, b in zip(ours[0], theirs[0])], [abs(a - b)/b for a, b in zip(ours[1], theirs[1])]
    return {'loss': max(map(abs, losses)), 'norm': max(norms), 'mean': abs(sum(losses) / len(losses))}


def same_trajectory(ours, theirs):
    for what, value in off(ours, theirs).items():
        assert value <= ALLOWED[what], f'{what} is off by {value:.1e}, allowed are {ALLOWED[what]:.0e}'


def samples(engine):
    "What its model writes before a step and after it."
    found = []
    for _ in range(2):
        found.append(generate(for_writing(engine.model), torch.arange(4)[None], 8, 0.).tolist())
        engine.step(Uneven().slice(engine.data_rank, engine.data_world)[0], CLM())
    return found


def writes(zero):
    "On every rank: what is written on the way."
    engine = sharded(zero=zero)
    found = samples(engine)
    engine.close()
    return found
