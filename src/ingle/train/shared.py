"""Rows of documents that share their start (train/shared_rows.py), read by a module in PyTorch.

Shapes: T tokens in the row, of which A predict one that carries the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.kernels.packed_attention import AttentionPlan
from ingle.model.module import CausalLM
from ingle.model.module_parts import PackedRows
from ingle.train import shared_rows
from ingle.train.example_files import Document
from ingle.train.forward import BlockAttention, read_packed
from ingle.train.packing import ROUND


@dataclass(frozen=True, eq=False)
class SharedRow:
    """A row's numbers as tensors."""

    own: shared_rows.DocumentRow

    @cached_property
    def ids(self) -> Tensor:
        """int [T]; 0 behind the documents."""
        return torch.from_numpy(self.own.ids)

    @cached_property
    def positions(self) -> Tensor:
        """float32 [T]: each token's place in its document."""
        return torch.from_numpy(self.own.positions).float()

    @cached_property
    def owners(self) -> Tensor:
        """int [T]: the document that a token belongs to; see `DocumentRow`."""
        return torch.from_numpy(self.own.owners)

    @cached_property
    def rows(self) -> Tensor:
        """int [A], ascending: the tokens whose next one carries the loss."""
        return torch.from_numpy(self.own.wanted)

    @property
    def targets(self) -> Tensor:
        """int [A]: the token after each of `rows`."""
        return self.ids[self.rows + 1]

    @property
    def learnt(self) -> Tensor:
        """int [A]: which document each of `rows` belongs to."""
        return self.owners[self.rows]


def sharing(module: CausalLM, documents: Sequence[Document]) -> int:
    """The start that this module can share among these documents: 0 where a layer goes on from token to token."""
    return shared_rows.shared_start(module.config, documents)


def make_row(documents: Sequence[Document], start: int) -> SharedRow:
    """Make the row of these documents, which begin with the same `start` tokens."""
    return SharedRow(shared_rows.make_row(documents, start, ROUND))


class SharedAttention(BlockAttention):
    """Attention in a row whose documents share their start, in blocks of queries that may belong to several documents."""

    def __init__(self, row: SharedRow, wanted: Tensor | None = None) -> None:
        super().__init__(row.own.edges, wanted)
        self._row = row.own

    def _plan(self, window: int, sinks: int, some: bool) -> AttentionPlan:
        return self._row.plan(LayerSpec((), window, sinks) if window else None, some and self._wanted is not None)


@torch.no_grad()
def lower_states_of(module: CausalLM, row: SharedRow, layers: int) -> Tensor:
    """Inputs of layer number `layers`: [T, hidden]."""
    x: Tensor = module.model.embed_tokens(row.ids)
    cos, sin = module.angles(row.positions, x.dtype)
    packed = PackedRows(SharedAttention(row), row.own.edges, read=read_packed)
    for layer in module.model.layers[:layers]:
        x = layer(x, cos, sin, packed)
    return x


def final_states_of(module: CausalLM, row: SharedRow, first: int, x: Tensor) -> Tensor:
    """States after the final norm at `row.rows`: [A, hidden], from the input of layer `first`, x [T, hidden]."""
    cos, sin = module.angles(row.positions, x.dtype)
    packed = PackedRows(SharedAttention(row, row.rows), row.own.edges, row.rows, read_packed)
    for layer in module.model.layers[first:]:
        x = layer(x, cos, sin, packed)
    if first == len(module.model.layers):
        x = x[row.rows]
    y: Tensor = module.model.norm(x)
    return y
