"""`State`: everything that one sequence needs to continue. It is the only mutable value in `core`.

Keys and values lie in *blocks* of 16 tokens (core/blocks.py). Retrieval groups grow by *pages* of 64 tokens that forks share, since a
full page is never written again; streaming groups have a *ring* (sinks, then the window plus one step's tokens), whose blocks after the
sinks are used in a circle. Block b of all rings lies together, before block b + 1, so written blocks are in front, and only these are held,
copied and saved. A recurrent memory S [V, K] lies in float32 as [V/16, K, 16], so that 16 of its rows can be updated by themselves.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core import blocks
from ingle.core.blocks import BLOCK_TOKENS
from ingle.core.errors import CannotRewind, CheckpointError
from ingle.core.files import atomic_file
from ingle.core.state_layout import PAGE_TOKENS, STEP_TOKENS, VERSION, StateLayout


@dataclass(frozen=True, slots=True)
class RollbackPoint:
    """A position that a state can return to; see `State.rollback_point`."""

    length: int
    memories: npt.NDArray[np.float32]


@dataclass
class State:
    """One sequence: the number of tokens read, and their keys, values and memories. Only backends write to it."""

    layout: StateLayout
    length: int = 0
    """Tokens read so far; also the position of the next one."""
    pages: list[npt.NDArray[Any]] = field(default_factory=list)
    rings: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    """The blocks in front; there are more as they are needed (`reserve`), up to `StateLayout.rings_shape`."""
    memories: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Recurrent memories of the streaming groups, in the order of `StateLayout.memory_places`, then the states of other mixers."""
    furthest: int = 0
    """Tokens read before the last rewind: rings were written this far."""
    shared_pages: int = 0
    """The number of its pages that a fork may also read."""
    _addresses: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rings.size == 0:
            self.rings = np.zeros((0, *self.layout.rings_shape[1:]), self.layout.dtype)
        if self.memories.size == 0:
            self.memories = np.zeros(self.layout.memory_floats, np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes held, pages shared with forks included."""
        return sum(nbytes for _, nbytes in self.pieces())

    @property
    def written(self) -> npt.NDArray[Any]:
        """The blocks of the rings that have been written to."""
        return self.rings[: self.layout.written_blocks(max(self.length, self.furthest))]

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield identity and bytes of each piece of memory. Forks share their full pages."""
        yield from ((id(page), page.nbytes) for page in self.pages)
        yield id(self.rings), self.written.nbytes
        yield id(self.memories), self.memories.nbytes

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` more."""
        if self.layout.retrieval_groups:
            while len(self.pages) * PAGE_TOKENS < self.length + tokens:
                self.pages.append(self.layout.new_page())
        held, needed = len(self.rings), self.layout.written_blocks(max(self.length, self.furthest) + tokens)
        if needed > held:  # half as many more, so that few steps copy
            rings = np.zeros((min(max(needed, held + held // 2), self.layout.rings_shape[0]), *self.rings.shape[1:]), self.rings.dtype)
            rings[:held] = self.rings
            self.rings = rings

    @property
    def page_addresses(self) -> list[int]:
        """Addresses of its pages. They are cached: collecting all of them takes a twentieth of a step after 16,000 tokens."""
        self._addresses += [page.ctypes.data for page in self.pages[len(self._addresses) :]]
        return self._addresses

    def append(self, keys: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """Append n tokens by their keys (turned by RoPE) and values [layers, groups, n, D], as a backend does for tokens that it reads.

        At most STEP_TOKENS at once, as a window may hold no more. Not for layouts with memories: keys turned by RoPE don't enter one.
        """
        assert not self.memories.size, "a memory takes in what a backend reads, and nothing else"
        end = self.length + keys.shape[2]
        assert keys.shape[2] <= STEP_TOKENS, "windows have no room for more"
        self.reserve(keys.shape[2])
        for number in range(self.length // BLOCK_TOKENS, -(-end // BLOCK_TOKENS)):
            first = number * BLOCK_TOKENS
            start, stop = max(first, self.length), min(first + BLOCK_TOKENS, end)
            columns, new = slice(start - first, stop - first), slice(start - self.length, stop - self.length)
            for i, g in np.ndindex(keys.shape[:2]):
                blocks.write(self._block(i, g, number), self.layout.width, columns, keys[i, g, new], values[i, g, new])
        self.length = end

    def _block(self, layer: int, group: int, number: int) -> npt.NDArray[Any]:
        """Return the writable block number `number` of a group."""
        slot = int(self.layout.page_slots[layer, group])
        each = PAGE_TOKENS // BLOCK_TOKENS
        block: npt.NDArray[Any]
        if slot >= 0:
            block = self.pages[number // each][slot, number % each]
            return block
        sinks, ring = (int(count) for count in self.layout.ring_blocks[layer])
        block = self.rings[number if number < sinks else sinks + (number - sinks) % ring, int(self.layout.ring_slots[layer, group])]
        return block

    def fork(self) -> "State":
        """Return an independent copy. Full pages are shared, the rest is copied."""
        full = self.length // PAGE_TOKENS
        used = -(-self.length // PAGE_TOKENS)
        pages = self.pages[:full] + [page.copy() for page in self.pages[full:used]]
        self.shared_pages = max(self.shared_pages, min(full, len(self.pages)))
        return State(self.layout, self.length, pages, self.written.copy(), self.memories.copy(), self.furthest, self.shared_pages)

    def rewind(self, length: int) -> None:
        """Go back to the first `length` tokens.

        Raises CannotRewind if a window no longer holds its tokens, or a recurrent memory has moved on.
        """
        if not 0 <= length <= self.length:
            raise CannotRewind("length", f"must be between 0 and {self.length}", length)
        earliest = self.earliest_rewind
        if length < earliest and length > 0:
            cure = "Read the prompt again from a fork."
            if earliest == self.length:
                cure = "A memory has taken in what came since; the engine reads the prompt again from the nearest state that it kept."
            raise CannotRewind("length", f"This state can go back to {earliest} at the earliest", length, cure)
        if length == 0:
            self.memories[:], self.written[:] = 0, 0
        self._cut(length)

    def _cut(self, length: int) -> None:
        """Drop the keys and values of tokens after `length`."""
        used = -(-length // PAGE_TOKENS)
        del self.pages[used:], self._addresses[max(used - 1, 0) :]
        if length % PAGE_TOKENS and 0 < len(self.pages) <= self.shared_pages:
            self.pages[-1] = self.pages[-1].copy()  # a fork may still read what will now be written over
        self.shared_pages = min(self.shared_pages, length // PAGE_TOKENS)
        self.furthest = max(self.furthest, self.length) if length else 0
        self.length = length

    def rollback_point(self, earlier: RollbackPoint | None = None) -> RollbackPoint:
        """Return the present position, for `rollback`. An `earlier` point that is no longer needed is written over."""
        if earlier is None or not self.memories.size:
            return RollbackPoint(self.length, self.memories.copy())
        np.copyto(earlier.memories, self.memories)  # half as long as a copy in new memory
        return replace(earlier, length=self.length)

    def rollback(self, length: int, point: RollbackPoint) -> None:
        """Go back to the first `length` tokens; some were read since `point`, in the one step since then.

        Where a memory has taken in a token since, it goes back to the point itself: `length` says where it is then.
        """
        assert point.length < length <= self.length, "only what was read since the point is taken back"
        if length == self.length:
            return
        if length < self.earliest_rewind:
            self.memories[:], length = point.memories, point.length
        self._cut(length)

    @property
    def earliest_rewind(self) -> int:
        """The smallest length above 0 that `rewind` accepts."""
        groups = self.layout.kv_groups
        streaming = [s for s in self.layout.layers if s.streaming(groups)]
        if self.layout.mixed or any(s.memory != "none" and self.length - s.window > s.sinks for s in streaming):  # one has taken in a token
            return self.length
        # Position p is overwritten by p + ring tokens; one block less is safe whatever the alignment.
        step = self.layout.step_tokens
        slack = [math.ceil((s.window + step) / BLOCK_TOKENS) * BLOCK_TOKENS - s.window for s in streaming]
        return max(0, min(self.length, max(self.length, self.furthest) - min(slack))) if slack else 0

    def save(self, path: Path, model_digest: str) -> None:
        """Write the state to a file, whole or not at all."""
        if not np.isfinite(self.memories).all():
            raise CheckpointError(f"{path}: memories", "must hold finite numbers", "NaN or infinity", "The prompt must be read again.")
        header = {"version": VERSION, "model": model_digest, "layout": self.layout.digest, "length": self.length}
        header["cache"] = self.layout.dtype
        if self.rings.size and self.furthest > self.length:
            header["furthest"] = self.furthest  # without rings it means nothing, and would tell of what was gone back from
        used = -(-self.length // PAGE_TOKENS)
        pages = np.stack(self.pages[:used]) if used and self.pages else np.zeros(0, self.layout.dtype)
        if pages.size and self.length % PAGE_TOKENS:
            self._clear_behind(pages[-1])
        with atomic_file(path, mode=0o600) as file:  # as private as the text that it has read
            about = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez(file, header=about, pages=pages, rings=self._rings_without_what_went(), memories=self.memories)

    def _clear_behind(self, page: npt.NDArray[Any]) -> None:
        """Zero the tokens after `length` in a copy of the last page: text that was rewound must not be saved."""
        block, column = divmod(self.length % PAGE_TOKENS, BLOCK_TOKENS)
        page[:, block + (column > 0) :] = 0
        if column:
            blocks.clear(page[:, block], self.layout.width, column)

    def _rings_without_what_went(self) -> npt.NDArray[Any]:
        """Return the written part of the rings, with rewound tokens zeroed as in `_clear_behind`."""
        rings, (first, column) = self.written, divmod(self.length, BLOCK_TOKENS)
        gone = range(first, -(-self.furthest // BLOCK_TOKENS))
        if not rings.size or not gone:
            return rings
        rings = rings.copy()
        for layer, (sinks, ring) in enumerate(self.layout.ring_blocks):
            slots = self.layout.ring_slots[layer]
            slots = slots[slots >= 0]
            for number in gone if slots.size else ():
                place = number if number < sinks else sinks + (number - sinks) % ring
                held = rings[place, slots]
                blocks.clear(held, self.layout.width, column if number == first else 0)
                rings[place, slots] = held
        return rings

    @staticmethod
    def load(path: Path, layout: StateLayout, model_digest: str) -> "State":
        """Read a state from a file. Raises CheckpointError for a damaged file, or one of another model, layout or version."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                header = json.loads(archive["header"].tobytes())
                pages, rings, memories = archive["pages"], archive["rings"], archive["memories"]
        except Exception as error:  # NumPy and zipfile have many words for damage
            raise CheckpointError(str(path), "must be a whole state file", error, "Delete it; the prompt will be read again.") from error
        cache = header.get("cache", layout.dtype)  # files of before int8 don't say it, but their layout does
        if cache != layout.dtype:
            cure = f"Set chat.cache to {cache}, or delete it; the prompt will be read again."
            raise CheckpointError(f"{path}: cache", f"must hold keys and values in {layout.dtype}", str(cache), cure)
        for name, mine in (("version", VERSION), ("model", model_digest), ("layout", layout.digest)):
            if header.get(name) != mine:
                raise CheckpointError(
                    f"{path}: {name}", f"must be {mine}", header.get(name), "The state belongs to another model or version."
                )
        length, furthest, cure = int(header["length"]), int(header.get("furthest", 0)), "Delete it; the prompt will be read again."
        page_count = -(-length // PAGE_TOKENS) if layout.retrieval_groups else 0
        block_count = layout.written_blocks(max(length, furthest))
        if len(pages) != page_count or rings.shape != (block_count, *layout.rings_shape[1:]):
            raise CheckpointError(str(path), f"must hold {page_count} pages and {block_count} blocks", (len(pages), len(rings)), cure)
        for name, part, like in (("pages", pages, layout.new_page().shape), ("rings", rings, layout.rings_shape[1:])):
            if len(part) and (part.shape[1:], part.dtype) != (like, layout.dtype):
                raise CheckpointError(f"{path}: {name}", f"must be {like} {layout.dtype}", f"{part.shape[1:]} {part.dtype}", cure)
        if memories.shape != (layout.memory_floats,) or memories.dtype != np.float32 or not np.isfinite(memories).all():
            shape = f"{layout.memory_floats} finite float32"
            raise CheckpointError(f"{path}: memories", f"must be {shape}", f"{memories.shape} {memories.dtype}", cure)
        return State(layout, length, list(pages), rings, memories, furthest)
