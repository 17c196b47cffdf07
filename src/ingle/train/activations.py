"""Inputs of the first trained layer, kept for each document, so that the layers below run once instead of once an epoch.

A document's states are computed from it alone, never in a row with others; so they are the same to the last bit whether they were kept
or not, however batches are cut, and after a run was killed. They are kept in the type that the module computes in, without loss: in memory,
or in a file, which other runs on the same data and the same lower layers go on using.
"""

import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.core.digest import digest_json
from ingle.core.files import os_errors
from ingle.model.module import CausalLM
from ingle.train.corpus import Corpus
from ingle.train.forward import lower_states
from ingle.train.packing import Batch

_ZEROS = 1 << 22  # bytes written at a time
_RAW = {2: torch.int16, 4: torch.int32}  # NumPy has no bfloat16; bytes are bytes


class Activations:
    """States [tokens, hidden] at the input of layer `first`, by document."""

    def __init__(self, module: CausalLM, corpus: Corpus, first: int, budget_bytes: int, folder: Path | None = None) -> None:
        """Keeps as many documents as fit into the budget; with a folder, in a file there. Raises HomeError if that can't be made."""
        self._module, self._corpus, self.first = module, corpus, first
        weight = module.model.embed_tokens.weight
        self._dtype, self._device = weight.dtype, weight.device
        width = module.config.hidden_size * weight.element_size()
        fitting = int(np.searchsorted(corpus.bounds, budget_bytes // width, "right")) - 1
        self._kept = max(0, min(fitting, len(corpus.bounds) - 1))
        tokens, kind = int(corpus.bounds[self._kept]), f"i{weight.element_size()}"
        shape = (tokens, module.config.hidden_size)
        self._states: npt.NDArray[Any]
        self._sums: npt.NDArray[Any]  # 1 + the CRC-32 of each document's states; 0 = not there yet
        if folder is None or not self._kept:
            self._states, self._sums = np.empty(shape, kind), np.zeros(self._kept, np.int64)
        else:
            name = folder / f"activations-{self._digest()[:16]}-{self._kept}"
            with os_errors(name):
                folder.mkdir(parents=True, exist_ok=True)
                self._states = _mapped(name.with_suffix(".states"), kind, shape)
                self._sums = _mapped(name.with_suffix(".sums"), "i8", (self._kept,))
        self._checked: set[int] = set()
        self.hits = 0
        """Documents whose states were kept."""
        self.misses = 0
        """Documents that had to be computed."""

    @property
    def hit_rate(self) -> float:
        """Share of the documents asked for whose states were kept."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def share_kept(self) -> float:
        """Share of all documents that have a place."""
        return self._kept / max(1, len(self._corpus.bounds) - 1)

    def states(self, batch: Batch) -> Tensor:
        """States [T, hidden] of a batch; 0 behind its documents."""
        edges = pairwise(batch.bounds)
        states = [self._document(number, batch.ids[a:b]) for number, (a, b) in zip(batch.documents, edges, strict=True)]
        return torch.cat([*states, states[0].new_zeros(len(batch.ids) - batch.tokens, states[0].shape[1])])

    def _document(self, number: int, ids: Tensor) -> Tensor:
        span = slice(self._corpus.bounds[number], self._corpus.bounds[number + 1])
        if number < self._kept and self._is_there(number, span):
            self.hits += 1
            return torch.from_numpy(self._states[span]).view(self._dtype).to(self._device)
        self.misses += 1
        states = lower_states(self._module, ids, self.first)
        if number < self._kept:
            self._states[span] = states.cpu().view(_RAW[self._dtype.itemsize]).numpy()
            self._sums[number] = 1 + zlib.crc32(np.ascontiguousarray(self._states[span]).data)
            self._checked.add(number)
        return states

    def _is_there(self, number: int, span: slice) -> bool:
        """Whether this document's states are kept and, checked once a run, whole: a crash may have cut off the file."""
        if number in self._checked:
            return True
        if not self._sums[number] or self._sums[number] != 1 + zlib.crc32(np.ascontiguousarray(self._states[span]).data):
            return False
        self._checked.add(number)
        return True

    def _digest(self) -> str:
        """Digest of all that the states follow from: corpus, configuration, type, lower weights."""
        names = ("model.embed_tokens.", *(f"model.layers.{i}." for i in range(self.first)))
        weights = {name: _sum(p) for name, p in self._module.named_parameters() if name.startswith(names)}
        return digest_json([self._corpus.digest, repr(self._module.config), str(self._dtype), self.first, weights])


def _mapped(path: Path, kind: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """A file as an array, zeros if it is new. Its place on the disk is taken at once: a full disk is an error here, not a crash later."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if not path.exists() or path.stat().st_size != size:
        try:
            with path.open("wb") as file:
                for start in range(0, size, _ZEROS):
                    file.write(bytes(min(_ZEROS, size - start)))
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return np.memmap(path, kind, "r+", shape=tuple(shape))


def _sum(parameter: Tensor) -> str:
    import hashlib

    raw = parameter.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()
