"""Documents that begin alike, in one row: their common start is read once, and each goes on from there on its own.

    [ the start | the rest of document 0 | the rest of document 1 | … | padding ]

A token sees the start and what is before it in its own document. So the states are those of the documents one by one; the start is saved,
once for each document but the first. Conversations all begin with the template's system prompt, which for a short question is half of
what there is to read. Recurrent memories can't be shared like this: for models that have some, the start is empty.

Shapes: T tokens in the row, of which S are the start; A of them predict one that carries the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.kernels.attention_plan import AttentionBlock, AttentionPlan, pieces
from ingle.model.cache import visible
from ingle.model.module import CausalLM
from ingle.model.packed_rows import PackedRows
from ingle.train.attention import BlockAttention
from ingle.train.encode import Document
from ingle.train.kernel_memory import read_packed
from ingle.train.packing import ROUND

START = -1
"""Owner of a token that belongs to all documents, in place of a document's number."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedRow:
    """Documents in one row, with a common start."""

    start: int
    """S: tokens that all of them begin with."""
    bounds: tuple[int, ...]
    """Where the rest of each document begins, and where the last one ends."""
    ids: Tensor
    """int [T]; 0 behind the documents."""
    positions: Tensor
    """float32 [T]: each token's place in its document."""
    owners: Tensor
    """int [T]: the document that a token belongs to, START, or the number of documents for padding."""
    rows: Tensor
    """int [A], ascending: the tokens whose next one carries the loss."""
    targets: Tensor
    """int [A]: the token after each of `rows`."""

    @property
    def learnt(self) -> Tensor:
        """int [A]: which document each of `rows` belongs to."""
        return self.owners[self.rows]


def common_start(documents: Sequence[Document]) -> int:
    """Count the tokens that all documents begin with, short enough that each document itself predicts its answer's first token."""
    most = min(int(np.argmax(d.answer)) if d.answer.any() else len(d.ids) for d in documents) - 1
    first = documents[0].ids[: max(0, most)]
    for document in documents[1:]:
        other = document.ids[: len(first)]
        differing = np.flatnonzero(first[: len(other)] != other)
        first = first[: differing[0] if len(differing) else len(other)]
    return len(first)


def sharing(module: CausalLM, documents: Sequence[Document]) -> int:
    """The start that this module can share among these documents: 0 where it has recurrent memories."""
    memories = any(spec.memory != "none" for spec in module.config.layers)
    return 0 if memories else common_start(documents)


def make_row(documents: Sequence[Document], start: int) -> SharedRow:
    """Make the row of these documents, which begin with the same `start` tokens."""
    lengths = [len(document.ids) - start for document in documents]
    bounds = np.cumsum([start, *lengths])
    rest = -int(bounds[-1]) % ROUND
    ids = np.concatenate([documents[0].ids[:start], *(document.ids[start:] for document in documents), np.zeros(rest)])
    positions = [np.arange(start), *(start + np.arange(length) for length in lengths), np.arange(rest)]
    owners = np.repeat(np.arange(START, len(documents) + 1), [start, *lengths, rest])
    learnt = np.flatnonzero(np.concatenate([np.zeros(start, np.bool_), *(document.answer[start:] for document in documents)]))
    whole, rows = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(learnt - 1)
    places = torch.from_numpy(np.concatenate(positions).astype(np.float32))
    return SharedRow(start, tuple(bounds.tolist()), whole, places, torch.from_numpy(owners), rows, whole[rows + 1])


class SharedAttention(BlockAttention):
    """Attention in a row whose documents share their start, in blocks of queries that may belong to several documents."""

    def __init__(self, row: SharedRow, wanted: Tensor | None = None) -> None:
        super().__init__(edges(row), wanted)
        self._row = row

    def _plan(self, window: int, sinks: int, some: bool) -> AttentionPlan:
        key = (window, sinks, some)
        if key not in self._plans:
            tokens = self._wanted if some and self._wanted is not None else torch.arange(len(self._row.ids))
            spec = LayerSpec((), window, sinks) if window else None
            self._plans[key] = AttentionPlan([self._block(queries, tokens, spec) for queries in pieces(len(tokens))])
        return self._plans[key]

    def _block(self, queries: slice, tokens: Tensor, spec: LayerSpec | None) -> AttentionBlock:
        row, chosen = self._row, tokens[queries]
        last, owner = int(chosen[-1]) + 1, int(row.owners[chosen[0]])
        low = 0 if owner == START else row.bounds[owner]
        spans = [(0, last)] if low <= row.start else [(0, row.start), (low, last)] if row.start else [(low, last)]
        seen = torch.cat([torch.arange(a, b) for a, b in spans])
        mask = ~sees(row.owners[chosen], row.positions[chosen], row.owners[seen], row.positions[seen], spec)
        return AttentionBlock(queries, tuple(slice(a, b) for a, b in spans), mask.numpy() if mask.any() else None)


def sees(owners: Tensor, positions: Tensor, key_owners: Tensor, key_positions: Tensor, spec: LayerSpec | None) -> Tensor:
    """bool [queries, keys]: which keys each query sees. `spec` of a streaming group; None = the query sees all that is before it."""
    own = (key_owners == START) | (key_owners == owners[:, None])
    return own & visible(positions, key_positions, spec)


def edges(row: SharedRow) -> tuple[int, ...]:
    """Where each stretch of tokens begins that belongs to one owner, and T."""
    starts = (*((0,) if row.start else ()), *row.bounds)
    return starts if starts[-1] == len(row.ids) else (*starts, len(row.ids))


@torch.no_grad()
def lower_states_of(module: CausalLM, row: SharedRow, layers: int) -> Tensor:
    """Inputs of layer number `layers`: [T, hidden]."""
    x: Tensor = module.model.embed_tokens(row.ids)
    cos, sin = module.angles(row.positions, x.dtype)
    packed = PackedRows(SharedAttention(row), edges(row), read=read_packed)
    for layer in module.model.layers[:layers]:
        x = layer(x, cos, sin, packed)
    return x


def final_states_of(module: CausalLM, row: SharedRow, first: int, x: Tensor) -> Tensor:
    """States after the final norm at `row.rows`: [A, hidden], from the input of layer `first`, x [T, hidden]."""
    cos, sin = module.angles(row.positions, x.dtype)
    packed = PackedRows(SharedAttention(row, row.rows), edges(row), row.rows, read_packed)
    for layer in module.model.layers[first:]:
        x = layer(x, cos, sin, packed)
    if first == len(module.model.layers):
        x = x[row.rows]
    y: Tensor = module.model.norm(x)
    return y
