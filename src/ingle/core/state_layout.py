"""The memory layout of one sequence's keys, values and memories; see `core.state`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core import blocks
from ingle.core.blocks import BLOCK_TOKENS
from ingle.core.digest import digest_json
from ingle.core.spec import LayerSpec, ModelConfig

PAGE_TOKENS = 64
STEP_TOKENS = 256  # most tokens of one sequence that one step may append; rings have room for them beside the window
REMEMBERING_STEP_TOKENS = 128  # the same where rings are no use for going back, since a memory can't: they are most of such a state
VERSION = 4
"""Version of states on disk."""


@dataclass(frozen=True)
class StateLayout:
    """Offsets of each layer's and group's keys and values, counted in blocks (keys and values of 16 tokens)."""

    layers: tuple[LayerSpec, ...]
    kv_groups: int
    head_dim: int
    """The model's head width; rows are padded to `width`."""
    dtype: str
    """Number type of keys and values: one of `blocks.CACHES`."""
    mixed: tuple[int, ...] = ()
    """float32 of each layer's state of another mixer; () = there are none."""

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
        return blocks.block_elements(self.width, self.dtype)

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
