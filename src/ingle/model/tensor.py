"""One tensor of a checkpoint: its raw rows as they lie in the file, and their meaning."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.kernels import formats

PLAIN_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Later:
    """Bytes that are made again whenever they are asked for: see model/lean.py."""

    nbytes: int
    make: Callable[[], npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named tensor whose bytes are mapped, not copied."""

    name: str
    """Hugging Face's parameter name."""
    shape: tuple[int, ...]
    """(rows, columns) or (n,)."""
    kind: str
    """GGML's name for the type: `F32`, `F16`, `BF16`, `Q8_0`, `Q4_1`, …; or our own `Q4_16` and `Q3_16` (kernels/formats.py)."""
    data: npt.NDArray[np.uint8] | Later
    """[rows, bytes per row], or [bytes] for a vector; read-only. Quantised blocks lie along the columns."""

    @property
    def raw(self) -> npt.NDArray[np.uint8]:
        """The bytes of `data`."""
        return self.data.make() if isinstance(self.data, Later) else self.data

    @property
    def nbytes(self) -> int:
        """How many bytes `raw` has; none is made for it."""
        return self.data.nbytes

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Return the numbers, float32 of `shape`, in their own memory."""
        return decode(self.kind, self.raw).reshape(self.shape)

    def row_chunks(self, chunk_bytes: int = 1 << 22) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the numbers some rows at a time, so that a large tensor needs little memory."""
        rows = np.atleast_2d(self.raw)
        step = max(1, chunk_bytes // max(rows.shape[1], 1))
        for start in range(0, len(rows), step):
            yield decode(self.kind, rows[start : start + step])


def decode(kind: str, raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Decode raw bytes [..., bytes per row] → float32 [..., columns]. The kind was checked when the checkpoint was opened."""
    if kind == "F32":
        return np.array(np.ascontiguousarray(raw).view("<f4"), np.float32)
    if kind == "F16":
        return np.ascontiguousarray(raw).view("<f2").astype(np.float32)
    if kind == "BF16":
        return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind in formats.BYTES_16:
        return formats.decode(kind, raw)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    numbers: npt.NDArray[np.float32] = dequantize(raw, GGMLQuantizationType[kind])
    return numbers


def check_kind(kind: str, name: str) -> None:
    """Raise CheckpointError unless `decode` can read this kind."""
    if kind in PLAIN_BYTES or _decodes(kind):
        return
    from gguf.constants import GGMLQuantizationType

    known = [*PLAIN_BYTES, *(member.name for member in GGMLQuantizationType if member.name not in PLAIN_BYTES and _decodes(member.name))]
    raise CheckpointError(name, "is of a type that cannot be decoded", kind, f"Known: {', '.join(known)}.")


@cache
def _decodes(kind: str) -> bool:
    """Return whether the gguf library dequantises this kind, by trying it on one block of zeros."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    if kind not in GGMLQuantizationType.__members__:
        return False
    member = GGMLQuantizationType[kind]
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[member][1]), np.uint8), member)
    except NotImplementedError:
        return False
    return True
