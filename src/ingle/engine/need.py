"""Memory of a kept model while it is served: its weights as they are packed, and its states. Nothing is opened or packed to know it."""

import math
from dataclasses import dataclass

from ingle.core.spec import ModelConfig
from ingle.core.state import StateLayout
from ingle.engine.packing import kept_as_stored, read_pack
from ingle.engine.source import kept_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.model.checkpoint import open_checkpoint

LIBRARIES = 170_000_000
"""Bytes of Python, compiled kernels, the tokenizer, and a step's buffers."""
_BYTES = {"fp32": 4.0, "bf16": 2.0, "int4": 0.7}
"""Of a packed number; 8 bits and their scales where nothing else is said."""
_PACKING = 12
"""Bytes of each number of the largest matrix while it is packed."""


@dataclass(frozen=True, slots=True)
class ServedSize:
    """A model as it is served."""

    config: ModelConfig
    weights: int
    """Bytes of its packed weights, which are mapped."""
    packing: int
    """Bytes more that it takes to pack them; 0 where that has been done."""

    def state_bytes(self, tokens: int) -> int:
        """Bytes of a state of so many tokens."""
        return StateLayout.of(self.config).nbytes(tokens)


def served_size(home: Home, kept: Kept, format_: str = "auto") -> ServedSize:
    """Return the size of a kept model as it is served. Raises the errors of `kept_source` and `open_checkpoint`."""
    source = kept_source(home, kept)
    info = read_pack(source.pack_folder(format_), source.digest)
    if info is not None:
        return ServedSize(info.config, info.nbytes, 0)
    checkpoint = open_checkpoint(source.folder)
    tensors = [checkpoint.stored[name] for name in checkpoint.names]
    each = _BYTES.get(format_, 17 / 16)
    weights = sum(tensor.nbytes if kept_as_stored(tensor, format_) else math.prod(tensor.shape) * each for tensor in tensors)
    return ServedSize(checkpoint.config, round(weights), _PACKING * max(math.prod(tensor.shape) for tensor in tensors))
