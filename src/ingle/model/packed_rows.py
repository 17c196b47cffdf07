"""Documents that lie on end in one row of tokens, for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ingle.core.spec import LayerSpec
from ingle.model.memory import RecurrentMemory


class Attend(Protocol):
    """Attention of packed documents in one row, for one layer."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """Attend: q [N, heads, D], k and v [T, G, D], none of them turned yet; cos and sin [T, D] → [N, heads, D].

        `some`: the queries are those of the `wanted` tokens only.
        """
        ...


Read = Callable[[RecurrentMemory, Tensor, Tensor, Tensor, Tensor, LayerSpec, Sequence[int]], Tensor]
"""`Memory.packed`, or an equivalent."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Documents on end in one row; none sees another."""

    attend: Attend
    """The attention; it knows the documents' bounds."""
    bounds: tuple[int, ...]
    """The documents' beginnings, and T."""
    wanted: Tensor | None = None
    """int [N]: tokens whose states the last layer returns; None = all. For the others it computes keys and values only."""
    read: Read = RecurrentMemory.packed
    """The reading of memories."""
