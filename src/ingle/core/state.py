"""`State`: everything that one sequence needs to continue. It is the only mutable value in `core`.

Keys and values lie in *blocks* of 16 tokens (core/state.py). Retrieval groups grow by *pages* of 64 tokens that forks share, since a
full page is never written again; streaming groups have a *ring* (sinks, then the window plus one step's tokens), whose blocks after the
sinks are used in a circle. Block b of all rings lies together, before block b + 1, so written blocks are in front, and only these are held,
copied and saved. A recurrent memory S [V, K] lies in float32 as [V/16, K, 16], so that 16 of its rows can be updated by themselves.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.errors import CannotRewind, CheckpointError
from ingle.core.files import atomic_file
from ingle.core.spec import LayerSpec, ModelConfig

# How 16 tokens' keys and values of one group lie in memory: a *block*.
# `float16`, `float32`: keys [width, 16], one column a token, so that 16 scores are one vector; then values [16, width]. `int8`: the same in
# bytes −127 … 127, then the float16 scales of the 16 keys and of the 16 values; a number is scale · byte. The scale is max |x| / 127 over
# the token's key (after RoPE) or value, rounded to float16 before it divides, so that kernel and NumPy agree to the bit.
#


Array = npt.NDArray[Any]
BLOCK_TOKENS = 16
CACHES = ("float32", "float16", "int8")  # number types that keys and values can be cached in
_LARGEST = np.float32(65504)  # of float16: larger scales would be infinite


def block_elements(width: int, dtype: str) -> int:
    """Return the numbers in one block; for int8, its bytes, scales included."""
    return 2 * BLOCK_TOKENS * width + (4 * BLOCK_TOKENS if dtype == "int8" else 0)


def largest(dtype: str) -> float:
    """Return the largest number that this type can hold."""
    return float(_LARGEST) * 127 if dtype == "int8" else float(np.finfo(dtype).max)


def to_int8(x: Array) -> tuple[Array, Array]:
    """Quantise x [..., D] to int8 bytes [..., D] and float16 scales [...], one for each row. A row that is not finite has the scale NaN."""
    x = np.asarray(x, np.float32)
    most = np.abs(x).max(axis=-1, initial=0) / np.float32(127)
    scale = np.where(np.isfinite(most), np.minimum(most, _LARGEST), np.nan).astype(np.float16)
    step = np.where(scale > 0, scale, 1).astype(np.float32)[..., None]
    return np.clip(np.rint(np.nan_to_num(x / step)), -127, 127).astype(np.int8), scale


def parts(blocks: Array, width: int) -> tuple[Array, Array, Array | None]:
    """Return views of blocks [..., elements]: keys [..., width, 16], values [..., 16, width] and, for int8, scales [..., 2, 16] of both."""
    size, before = BLOCK_TOKENS * width, blocks.shape[:-1]
    keys = blocks[..., :size].reshape(*before, width, BLOCK_TOKENS)
    values = blocks[..., size : 2 * size].reshape(*before, BLOCK_TOKENS, width)
    if blocks.dtype != np.int8:
        return keys, values, None
    return keys, values, blocks[..., 2 * size :].view(np.float16).reshape(*before, 2, BLOCK_TOKENS)


def write(block: Array, width: int, columns: slice, keys: Array, values: Array) -> None:
    """Write tokens into columns of a block: keys and values [n, D]."""
    to_keys, to_values, scales = parts(block, width)
    if scales is not None:
        keys, scales[0, columns] = to_int8(keys)
        values, scales[1, columns] = to_int8(values)
    to_keys[: keys.shape[1], columns] = keys.T
    to_values[columns, : values.shape[1]] = values


def clear(blocks: Array, width: int, column: int) -> None:
    """Zero the columns of blocks from `column` on."""
    keys, values, scales = parts(blocks, width)
    keys[..., column:] = 0
    values[..., column:, :] = 0
    if scales is not None:
        scales[..., column:] = 0


# The memory layout of one sequence's keys, values and memories; see `core.state`.


PAGE_TOKENS = 64
STEP_TOKENS = 256  # most tokens of one sequence that one step may append; rings have room for them beside the window
REMEMBERING_STEP_TOKENS = 128  # the same where rings are no use for going back, since a memory can't: they are most of such a state
VERSION = 4  # version of states on disk


@dataclass(frozen=True)
class StateLayout:
    """Offsets of each layer's and group's keys and values, counted in blocks (keys and values of 16 tokens)."""

    layers: tuple[LayerSpec, ...]
    kv_groups: int
    head_dim: int  # the model's head width; rows are padded to `width`
    dtype: str  # number type of keys and values: one of `blocks.CACHES`
    mixed: tuple[int, ...] = ()  # float32 of each layer's state of another mixer; () = there are none

    @staticmethod
    def of(config: ModelConfig, dtype: str = "float16") -> "StateLayout":
        """Return the layout for a model's config."""
        return StateLayout(config.layers, config.num_kv_heads, config.head_dim, dtype, mixed_floats(config))

    @property
    def width(self) -> int:
        """Head dimension padded to whole vectors of 16."""
        return -(-self.head_dim // BLOCK_TOKENS) * BLOCK_TOKENS

    @property
    def block_elements(self) -> int:
        """Numbers in one block: 16 keys and 16 values, with their scales in int8."""
        return block_elements(self.width, self.dtype)

    @cached_property
    def step_tokens(self) -> int:
        """The most tokens of one sequence that may be written before they are read: the room in rings beside their windows."""
        return REMEMBERING_STEP_TOKENS if any(s.remembering(self.kv_groups) for s in self.layers) else STEP_TOKENS

    @cached_property
    def page_slots(self) -> npt.NDArray[np.int64]:
        """[layers, groups]: index of a retrieval group within a page; −1 for streaming groups."""
        return self._numbered([layer.retrieval for layer in self.layers])

    def _numbered(self, chosen: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
        """Number the chosen groups in order, as [layers, groups]; −1 for the others."""
        numbers = np.full((len(self.layers), self.kv_groups), -1, np.int64)
        for number, place in enumerate((i, g) for i, groups in enumerate(chosen) for g in groups):
            numbers[place] = number
        return numbers

    @cached_property
    def retrieval_groups(self) -> int:
        """The number of retrieval groups in all layers."""
        return int((self.page_slots >= 0).sum())

    @cached_property
    def ring_blocks(self) -> npt.NDArray[np.int64]:
        """[layers, 2]: (sink blocks, ring blocks) of each streaming group of a layer."""
        rows = []
        for layer in self.layers:
            if not layer.streaming(self.kv_groups):
                rows.append((0, 0))
                continue
            rows.append((math.ceil(layer.sinks / BLOCK_TOKENS), math.ceil((layer.window + self.step_tokens) / BLOCK_TOKENS) + 1))
        return np.array(rows, np.int64).reshape(len(self.layers), 2)

    @cached_property
    def ring_slots(self) -> npt.NDArray[np.int64]:
        """[layers, groups]: index of a streaming group within each block of the rings; −1 for retrieval groups."""
        return self._numbered([layer.streaming(self.kv_groups) for layer in self.layers])

    @cached_property
    def rings_shape(self) -> tuple[int, int, int]:
        """Shape of all rings together: blocks of the longest ring, streaming groups, numbers in a block."""
        return int(self.ring_blocks.sum(axis=1).max(initial=0)), int((self.ring_slots >= 0).sum()), self.block_elements

    def written_blocks(self, tokens: int) -> int:
        """Return the number of ring blocks that so many tokens fill."""
        return min(-(-tokens // BLOCK_TOKENS), self.rings_shape[0])

    @cached_property
    def memory_places(self) -> npt.NDArray[np.int64]:
        """[layers, groups]: number of a group's recurrent memory within a state; −1 where it has none."""
        return self._numbered([layer.remembering(self.kv_groups) for layer in self.layers])

    @cached_property
    def mixed_places(self) -> tuple[int, ...]:
        """Where each layer's state of another mixer begins among the memories, in float32; the streaming groups' lie before them."""
        first = int((self.memory_places >= 0).sum()) * self.width**2
        return tuple(first + sum(self.mixed[:i]) for i in range(len(self.mixed)))

    @cached_property
    def memory_floats(self) -> int:
        """float32 of all memories: of each group [V/16, K, 16], both padded to `width`, then the states of other mixers."""
        return int((self.memory_places >= 0).sum()) * self.width**2 + sum(self.mixed)

    def new_page(self) -> npt.NDArray[Any]:
        """Return [retrieval groups, blocks per page, block elements] of zeros, because masked lanes are multiplied by zero weights."""
        return np.zeros((self.retrieval_groups, PAGE_TOKENS // BLOCK_TOKENS, self.block_elements), self.dtype)

    def nbytes(self, tokens: int) -> int:
        """Return the bytes of a state of so many tokens that shares nothing."""
        page = self.retrieval_groups * PAGE_TOKENS // BLOCK_TOKENS * self.block_elements
        elements = -(-tokens // PAGE_TOKENS) * page + self.written_blocks(tokens) * math.prod(self.rings_shape[1:])
        return elements * np.dtype(self.dtype).itemsize + 4 * self.memory_floats

    @cached_property
    def digest(self) -> str:
        """Digest that tells apart layouts whose states are incompatible."""
        layers = [[list(s.retrieval), s.window, s.sinks, s.memory, *map(list, [s.forgetful] if s.forgetful else [])] for s in self.layers]
        return digest_json([VERSION, layers, self.kv_groups, self.head_dim, self.dtype, *([self.mixed] if self.mixed else [])])


def mixed_floats(config: ModelConfig) -> tuple[int, ...]:
    """Return the float32 of each layer's state of another mixer than attention (kernels/sublayer_layout.py); () = there are none."""
    tails = {"attention": 0, "convolution": 0, "delta": 0}
    if (conv := config.convolution) is not None:
        tails["convolution"] = (conv.length - 1) * config.hidden_size
    if (delta := config.delta) is not None:
        tails["delta"] = (delta.length - 1) * delta.channels + delta.value_heads * delta.dim**2
    floats = tuple(tails[spec.mixer] for spec in config.layers)
    return floats if any(floats) else ()


@dataclass(frozen=True, slots=True)
class RollbackPoint:
    """A position that a state can return to; see `State.rollback_point`."""

    length: int
    memories: npt.NDArray[np.float32]


@dataclass
class State:
    """One sequence: the number of tokens read, and their keys, values and memories. Only backends write to it."""

    layout: StateLayout
    length: int = 0  # tokens read so far, after its beginning
    pages: list[npt.NDArray[Any]] = field(default_factory=list)
    # The blocks in front; there are more as they are needed (`reserve`), up to `StateLayout.rings_shape`.
    rings: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    # Recurrent memories of the streaming groups, in the order of `StateLayout.memory_places`, then the states of other mixers.
    memories: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    furthest: int = 0  # tokens read before the last rewind: rings were written this far
    shared_pages: int = 0  # the number of its pages that a fork may also read
    # What stands before every text, if anything: a state that is never written to, and that this one goes back to.
    beginning: "State | None" = None
    _addresses: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rings.size == 0:
            self.rings = np.zeros((0, *self.layout.rings_shape[1:]), self.layout.dtype)
        if self.memories.size == 0:
            self.memories = np.zeros(self.layout.memory_floats, np.float32)

    @property
    def before(self) -> int:
        """Tokens of its beginning."""
        return self.beginning.end if self.beginning is not None else 0

    @property
    def end(self) -> int:
        """All tokens read so far; also the position of the next one."""
        return self.before + self.length

    @property
    def nbytes(self) -> int:
        """Bytes held, pages shared with forks included."""
        return sum(nbytes for _, nbytes in self.pieces())

    @property
    def written(self) -> npt.NDArray[Any]:
        """The blocks of the rings that have been written to."""
        return self.rings[: self.layout.written_blocks(max(self.end, self.furthest))]

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield identity and bytes of each piece of memory. Forks share their full pages."""
        yield from ((id(page), page.nbytes) for page in self.pages)
        yield id(self.rings), self.written.nbytes
        yield id(self.memories), self.memories.nbytes

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` more."""
        if self.layout.retrieval_groups:
            while len(self.pages) * PAGE_TOKENS < self.end + tokens:
                self.pages.append(self.layout.new_page())
        held, needed = len(self.rings), self.layout.written_blocks(max(self.end, self.furthest) + tokens)
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
        end = self.end + keys.shape[2]
        assert keys.shape[2] <= STEP_TOKENS, "windows have no room for more"
        self.reserve(keys.shape[2])
        for number in range(self.end // BLOCK_TOKENS, -(-end // BLOCK_TOKENS)):
            first = number * BLOCK_TOKENS
            start, stop = max(first, self.end), min(first + BLOCK_TOKENS, end)
            columns, new = slice(start - first, stop - first), slice(start - self.end, stop - self.end)
            for i, g in np.ndindex(keys.shape[:2]):
                write(self._block(i, g, number), self.layout.width, columns, keys[i, g, new], values[i, g, new])
        self.length += keys.shape[2]

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
        full = self.end // PAGE_TOKENS
        used = -(-self.end // PAGE_TOKENS)
        pages = self.pages[:full] + [page.copy() for page in self.pages[full:used]]
        self.shared_pages = max(self.shared_pages, min(full, len(self.pages)))
        own = pages, self.written.copy(), self.memories.copy()
        return State(self.layout, self.length, *own, self.furthest, self.shared_pages, self.beginning)

    def begin(self) -> "State":
        """Return a state of which this one is the beginning, and which has read nothing after it. Nothing may be written to this one."""
        return replace(self.fork(), length=0, beginning=self)

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
        if length == 0 and self.beginning is not None:
            vars(self).update(vars(self.beginning.begin()))
            return
        if length == 0:
            self.memories[:], self.written[:] = 0, 0
        self._cut(length)

    def _cut(self, length: int) -> None:
        """Drop the keys and values of tokens after `length`."""
        end = self.before + length
        used = -(-end // PAGE_TOKENS)
        del self.pages[used:], self._addresses[max(used - 1, 0) :]
        if end % PAGE_TOKENS and 0 < len(self.pages) <= self.shared_pages:
            self.pages[-1] = self.pages[-1].copy()  # a fork may still read what will now be written over
        self.shared_pages = min(self.shared_pages, end // PAGE_TOKENS)
        self.furthest = max(self.furthest, self.end) if end else 0
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
        if self.layout.mixed or any(s.memory != "none" and self.end - s.window > s.sinks for s in streaming):  # one has taken in a token
            return self.length
        # Position p is overwritten by p + ring tokens; one block less is safe whatever the alignment.
        step = self.layout.step_tokens
        slack = [math.ceil((s.window + step) / BLOCK_TOKENS) * BLOCK_TOKENS - s.window for s in streaming]
        return max(0, min(self.end, max(self.end, self.furthest) - min(slack)) - self.before) if slack else 0

    def save(self, path: Path, model_digest: str) -> None:
        """Write the state to a file, whole or not at all."""
        if not np.isfinite(self.memories).all():
            raise CheckpointError(f"{path}: memories", "must hold finite numbers", "NaN or infinity", "The prompt must be read again.")
        header = {"version": VERSION, "model": model_digest, "layout": self.layout.digest, "length": self.end}
        header["cache"] = self.layout.dtype
        if self.rings.size and self.furthest > self.end:
            header["furthest"] = self.furthest  # without rings it means nothing, and would tell of what was gone back from
        used = -(-self.end // PAGE_TOKENS)
        pages = np.stack(self.pages[:used]) if used and self.pages else np.zeros(0, self.layout.dtype)
        if pages.size and self.end % PAGE_TOKENS:
            self._clear_behind(pages[-1])
        with atomic_file(path, mode=0o600) as file:  # as private as the text that it has read
            about = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez(file, header=about, pages=pages, rings=self._rings_without_what_went(), memories=self.memories)

    def _clear_behind(self, page: npt.NDArray[Any]) -> None:
        """Zero the tokens after `length` in a copy of the last page: text that was rewound must not be saved."""
        block, column = divmod(self.end % PAGE_TOKENS, BLOCK_TOKENS)
        page[:, block + (column > 0) :] = 0
        if column:
            clear(page[:, block], self.layout.width, column)

    def _rings_without_what_went(self) -> npt.NDArray[Any]:
        """Return the written part of the rings, with rewound tokens zeroed as in `_clear_behind`."""
        rings, (first, column) = self.written, divmod(self.end, BLOCK_TOKENS)
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
                clear(held, self.layout.width, column if number == first else 0)
                rings[place, slots] = held
        return rings

    @staticmethod
    def load(path: Path, layout: StateLayout, model_digest: str, beginning: "State | None" = None) -> "State":
        """Read a state from a file; its first tokens are those of `beginning`.

        Raises CheckpointError for a damaged file, or one of another model, layout or version.
        """
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
        state = State(layout, 0, list(pages), rings, memories, furthest, beginning=beginning)
        state.length = length - state.before
        return state
