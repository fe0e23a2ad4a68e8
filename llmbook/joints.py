"The types that chapters share: batches, what is learned from them, and where the numbers are."
# B rows, T tokens in a row. Objectives are in `train` and `align`, engines in `train.step` and `scale.engine`.
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Tensor]  # every tensor has the rows first; `rows` (B,) holds their numbers in the data


class Objective(Protocol):
    "What is learned. It knows nothing about machines."

    def inputs(self, batch:Batch)->tuple:
        "The arguments of the one call of the model."

    def counts(self, batch:Batch)->dict[str, int]:
        "The denominators of the loss, known before any forward pass."

    def loss(self, outputs:Any, batch:Batch, counts:dict[str, int])->tuple[Tensor, dict]:
        "This micro-batch's share of the global loss, and of metrics to log. `counts` are of the global batch."

    def scores(self, outputs:Any, batch:Batch)->Batch:
        "Row-wise results of the same call: log-probabilities, values, rewards."


class Scorer(Protocol):
    "A model that runs and is not trained, such as a reference or a reward model."

    def score(self, batch:Batch, objective:Objective)->Batch:
        "Row-wise results for this data rank's rows, without gradients."


class Engine(Scorer, Protocol):
    "Where the numbers are: one process, or many that act as one."
    rank:int        # of this process
    world:int       # processes in all
    data_rank:int   # this process's slice of a global batch; a tensor- or pipeline-parallel group shares one
    data_world:int  # slices of a global batch
    steps:int       # optimiser steps taken
    layout:dict     # how the numbers are spread, for the run's config
    model:nn.Module # its weights may be shards: see `weights` and `full_weights`

    def step(self, batch:Batch, objective:Objective)->dict:
        "One optimiser step on this data rank's rows: split, count, forward, backward, reduce, clip, update."

    def skip(self):
        "Count a step for which the stream has no batch."

    def evaluate(self, batches:Iterable[Batch], objective:Objective)->dict:
        "Measure the objective over all batches together, the same list on every rank, without learning."

    def sum(self, values:dict)->dict:
        "Add numbers or tensors up over the data ranks, name by name."

    def weights(self)->Iterator[tuple[str, Tensor]]:
        "The complete weights by name, one at a time. All ranks must call it."

    def full_weights(self)->AbstractContextManager:
        "The context in which every rank holds complete weights."

    def save(self, folder:Path):
        "Write what is needed to resume on any layout."

    def load(self, folder:Path):
        "Resume from what `save` wrote."

    def apply(self, speed:Any):
        "Take over a choice of speed."

    def broadcast(self, value:Any)->Any:
        "Send rank 0's value to every rank."

    def any_rank(self, flag:bool)->bool:
        "True on every rank where it is true on one."

    def barrier(self):
        "Wait for all ranks."


class EngineOptions(Protocol):
    "What the command line says about the engine: builds the engine of a stage, and hosts frozen models."
    zero:int|None # ZeRO stage; None is one process without DeepSpeed
    speed:Any     # 'exact', 'auto' (measure once what pays), or a choice made before

    def build(self, model:nn.Module, schedule:Callable[[int], float], **settings)->Engine:
        "An engine that trains `model`; the settings are the optimiser's."

    def freeze(self, model:nn.Module)->Scorer:
        "Host a model that runs and is never trained."


class Adapter(Protocol):
    "Trains something small in place of all weights of a model. Its `str` is what may not change when a run is resumed."

    def apply(self, model:nn.Module)->nn.Module:
        "Freeze the model and add to it, in place; returns what is to be trained."

    def save(self, model:nn.Module, tokenizer:Any, folder:Path):
        "Write what was trained, and the tokenizer, into the folder of a checkpoint."
