"""Batches: documents on end in one row of at most so many tokens; no document is padded.

Only the row's end is padded, to a multiple of ROUND: each new size of a matrix product costs PyTorch's library a program and memory.

Which examples go together, and in which order, follows from seed and epoch alone; so a position in the data is (epoch, number of the
batch), and a run goes on exactly where it was.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.core.errors import ConfigError
from ingle.train.corpus import Corpus

ROUND = 64  # tokens: rows then have few lengths, and at most 63 tokens are padding
_OPEN = 16  # batches that are being filled at the same time: with fewer, more room stays empty; with more, order is less random


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Examples, some to learn from and some held out."""

    corpus: Corpus
    train: Sequence[int]  # numbers of the examples to learn from
    held_out: Sequence[int] = ()  # numbers of the examples that are never learnt from
    # Numbers among `train` that keep their place in the order and are not learnt from: the run is the same one, without them.
    left_out: Collection[int] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Documents on end in one row of T tokens, of which the last may belong to none; A of them predict one that carries the loss."""

    documents: tuple[int, ...]  # numbers of the documents in the corpus
    bounds: tuple[int, ...]  # where each document begins in the row, and where the last one ends
    ids: Tensor  # int [T]; 0 behind the documents
    positions: Tensor  # float32 [T]: each token's place in its document
    rows: Tensor  # int [A], ascending: the tokens whose next one carries the loss
    targets: Tensor  # int [A]: the token after each of `rows`
    owners: Tensor  # int [A]: which of the documents each row belongs to, from 0
    labels: Tensor  # int [examples]: 1 liked, 0 not, −1 without label

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return self.bounds[-1]

    @property
    def edges(self) -> tuple[int, ...]:
        """`bounds`, and T if it is larger: the padding is a document of its own, which no other sees."""
        return self.bounds if self.bounds[-1] == len(self.ids) else (*self.bounds, len(self.ids))


def plan(sizes: npt.NDArray[np.int64], members: Sequence[int], most: int, seed: int | None, epoch: int = 0) -> list[list[int]]:
    """Plan which examples go into each batch of at most `most` tokens: every member once, shuffled, or in order where `seed` is None.

    An example goes into the fullest of the open batches that has room for it. Raises ConfigError for one that fits into none.
    """
    order = np.array(members, np.int64)
    if seed is not None:
        order = np.random.default_rng([seed, epoch]).permutation(order)
    if len(order) and sizes[order].max() > most:
        cure = "Raise batch_tokens, or lower the data's max_tokens."
        raise ConfigError("batch_tokens", "must have room for the longest example", f"{most}, with one of {sizes[order].max()}", cure)
    done: list[list[int]] = []
    open_: list[tuple[int, list[int]]] = []  # tokens, examples
    for example in order.tolist():
        size = int(sizes[example])
        fitting = [i for i, (used, _) in enumerate(open_) if used + size <= most]
        if fitting:
            i = max(fitting, key=lambda i: open_[i][0])
            used, examples = open_[i]
            open_[i] = (used + size, [*examples, example])
            continue
        if len(open_) == _OPEN:
            fullest = max(range(_OPEN), key=lambda i: open_[i][0])
            done.append(open_.pop(fullest)[1])
        open_.append((size, [example]))
    return done + [examples for _, examples in open_]


class Order:
    """The order of batches: which of them make up which step, for one process among several."""

    def __init__(self, data: Data, batch_tokens: int, accumulate: int, rank: int, world: int, seed: int) -> None:
        self._data, self._most, self._seed = data, batch_tokens, seed
        self._accumulate, self._rank, self._world = accumulate, rank, world
        self._steps: dict[int, int] = {}
        self._latest: tuple[int, list[list[int]]] = (-1, [])

    def steps(self, epoch: int) -> int:
        """Steps of an epoch; the last may have fewer batches."""
        if epoch not in self._steps:
            self._steps[epoch] = math.ceil(len(self._plan(epoch)) / (self._accumulate * self._world))
        return self._steps[epoch]

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, number of the step in it) of a step of the run."""
        epoch = 0
        while step >= self.steps(epoch):
            step -= self.steps(epoch)
            epoch += 1
        return epoch, step

    def batches(self, epoch: int, index: int) -> list[list[int]]:
        """This process's batches of a step, without what is left out."""
        size, out = self._accumulate * self._world, self._data.left_out
        batches = self._plan(epoch)[index * size : (index + 1) * size][self._rank :: self._world]
        kept = ([example for example in batch if example not in out] for batch in batches) if out else batches
        return [batch for batch in kept if batch]

    def _plan(self, epoch: int) -> list[list[int]]:
        if self._latest[0] != epoch:
            self._latest = epoch, plan(self._data.corpus.sizes, self._data.train, self._most, self._seed, epoch)
        return self._latest[1]


def make_batch(corpus: Corpus, examples: Sequence[int], device: torch.device | None = None) -> Batch:
    """Make the row of these examples."""
    numbers = [example * corpus.per_example + i for example in examples for i in range(corpus.per_example)]
    parts = [corpus.document(number) for number in numbers]
    lengths = [len(part.ids) for part in parts]
    bounds = np.cumsum([0, *lengths])
    rest = -int(bounds[-1]) % ROUND
    ids = torch.from_numpy(np.concatenate([*(part.ids for part in parts), np.zeros(rest)]).astype(np.int64))
    learnt = np.flatnonzero(np.concatenate([part.answer for part in parts]))  # never the first of a document
    owners = np.searchsorted(bounds, learnt, "right") - 1
    positions = np.concatenate([np.arange(length, dtype=np.float32) for length in (*lengths, rest)])
    rows = torch.from_numpy(learnt - 1)
    tensors = (ids, torch.from_numpy(positions), rows, ids[rows + 1], torch.from_numpy(owners))
    labels = torch.from_numpy(corpus.labels[list(examples)].astype(np.int64))
    here = [tensor.to(device) for tensor in (*tensors, labels)]
    return Batch(tuple(numbers), tuple(bounds.tolist()), here[0], here[1], here[2], here[3], here[4], here[5])
