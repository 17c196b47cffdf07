"""The PyTorch module's state of a sequence: keys and values, and the contents of recurrent memories.

Shapes: B sequences of equal length, T new tokens, K keys, G groups, D head_dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ingle.core.errors import CannotRewind
from ingle.core.spec import LayerSpec


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Keys and values of one kind of group in one layer: [B, groups, K, D] each, and the K positions. Never written in place."""

    keys: Tensor
    values: Tensor
    positions: Tensor

    def keep(self, wanted: Tensor) -> "Held":
        """Return the entries for which `wanted` (bool [K]) is true."""
        if wanted.all():
            return self
        mask = wanted.to(self.keys.device)
        return Held(self.keys[:, :, mask], self.values[:, :, mask], self.positions[wanted])


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """The memories of one layer, and the tokens that will enter next. Never written in place."""

    state: Tensor
    """float32 [B, G, D, D]: rows are values, columns keys."""
    keys: Tensor
    """[B, window, G, D], before RoPE, of the tokens that are still in the window."""
    values: Tensor
    """[B, window, G, D]."""


@dataclass(eq=False)
class Cache:
    """The state of a sequence: all keys and values of retrieval groups; of streaming groups the sinks, the window before the last call,
    that call's tokens, and the memories."""

    length: int = 0
    """Tokens read so far."""
    held: dict[tuple[int, bool], Held] = field(default_factory=dict)
    """By (layer, whether the groups are streaming)."""
    memories: dict[int, Remembered] = field(default_factory=dict)
    """By layer."""
    earliest_rewind: int = 0
    """The smallest length above 0 that `rewind` accepts."""
    mixed: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """States of other mixers than attention, by layer: tensors that are never written in place (model/mixers.py)."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and memories."""
        return sum(nbytes for _, nbytes in self.pieces())

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield identity and bytes of each tensor; forks share tensors until one of them moves on."""
        for h in self.held.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in (h.keys, h.values))
        for m in self.memories.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in (m.state, m.keys, m.values))
        for states in self.mixed.values():
            yield from ((id(tensor), tensor.nbytes) for tensor in states)

    def fork(self) -> "Cache":
        """Return an independent cache; tensors are shared until one of them moves on."""
        return replace(self, held=dict(self.held), memories=dict(self.memories), mixed=dict(self.mixed))

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens.

        Raises CannotRewind where a window no longer holds its tokens, or a memory has taken in a token since.
        """
        if not 0 <= length <= self.length:
            raise CannotRewind("length", f"must be between 0 and {self.length}", length)
        if 0 < length < self.earliest_rewind:
            cure = "Read the prompt again from a fork."
            raise CannotRewind("length", f"This cache can go back to {self.earliest_rewind} at the earliest", length, cure)
        self.held = {place: h.keep(h.positions < length) for place, h in self.held.items()} if length else {}
        gone = self.length - length
        if gone:  # then no memory has taken in anything yet
            self.memories = {i: replace(m, keys=m.keys[:, :-gone], values=m.values[:, :-gone]) for i, m in self.memories.items() if length}
            self.mixed = {}
        self.length, self.earliest_rewind = length, min(self.earliest_rewind, length)

    def rollback_point(self, _earlier: "Cache | None" = None) -> "Cache":
        """Return the present position, for `rollback`: a fork, which costs nothing."""
        return self.fork()

    def rollback(self, length: int, point: "Cache") -> None:
        """Go back to the first `length` tokens, of which some were read since `point`; where that is impossible, to the point itself."""
        if length >= self.earliest_rewind:
            self.rewind(length)
        else:
            self.length, self.earliest_rewind = point.length, point.earliest_rewind
            self.held, self.memories, self.mixed = dict(point.held), dict(point.memories), dict(point.mixed)

    def extend(self, layer: int, spec: LayerSpec | None, keys: Tensor, values: Tensor) -> Held:
        """Append keys and values [B, groups, T, D] and return all; `spec` is the layer's if the groups are streaming."""
        place = (layer, spec is not None)
        new = Held(keys, values, torch.arange(self.length, self.length + keys.shape[2]))
        before = self.held.get(place)
        if before is not None and spec is not None:
            oldest = self.length - spec.window + 1
            before = before.keep((before.positions >= oldest) | (before.positions < spec.sinks))
            if oldest > spec.sinks:  # something between the sinks and the window is gone for good
                self.earliest_rewind = max(self.earliest_rewind, self.length)  # a layer before it may have moved on
        if before is not None:
            joined = [torch.cat(pair, 2) for pair in ((before.keys, keys), (before.values, values))]
            new = Held(joined[0], joined[1], torch.cat((before.positions, new.positions)))
        self.held[place] = new
        return new

    def remember(self, layer: int, spec: LayerSpec, after: Remembered, steps: int) -> None:
        """Store a layer's memories after `steps` more tokens."""
        self.memories[layer] = after
        if self.length + steps > spec.window + spec.sinks:  # one has entered
            self.earliest_rewind = self.length + steps

    def mix(self, layer: int, states: tuple[Tensor, ...], steps: int) -> None:
        """Store the states of a layer's mixer after `steps` more tokens."""
        self.mixed[layer] = states
        self.earliest_rewind = self.length + steps


def visible(queries: Tensor, keys: Tensor, spec: LayerSpec | None) -> Tensor:
    """Return which key positions [K] each query position [T] sees: bool [T, K]; `spec` for streaming groups."""
    q, p = queries[:, None], keys[None]
    seen = p <= q
    if spec is not None:
        seen &= (p > q - spec.window) | (p < spec.sinks)
    return seen
