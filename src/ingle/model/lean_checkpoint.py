"""Open a lean base (home/lean.py) as the GGUF file that it was: matrices are made again from their panels whenever they are read."""

import mmap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError, ShapeError
from ingle.core.spec import ModelConfig
from ingle.home.lean import CURE, REST, WEIGHTS, Lean, Matrix
from ingle.kernels.panels import PANELS, PackedLinear, stored_rows
from ingle.model.gguf import GGUF, Mapped, read_gguf, tensors_from_gguf
from ingle.model.tensor import Later, Tensor, row_order

Array = npt.NDArray[Any]


class Rest:
    """The bytes of the file that a lean base was, those of matrices left 0."""

    head: mmap.mmap

    def __init__(self, folder: Path, lean: Lean) -> None:
        """Raises CheckpointError if the parts don't make one file."""
        self.path, self.nbytes = folder / lean.file.name, lean.file.size
        self.head = Mapped(folder / REST).head
        self.pieces = tuple((piece.begin, piece.size) for piece in lean.pieces)
        spans = sorted([*self.pieces, *((matrix.begin, _nbytes(matrix)) for matrix in lean.matrices)])
        ends = [(0, 0), *spans, (self.nbytes, 0)]
        whole = all(begin + size == after for (begin, size), (after, _) in pairwise(ends)) and all(size > 0 for _, size in spans)
        if not whole or sum(size for _, size in self.pieces) != len(self.head) or self.pieces[:1] != tuple(spans[:1]):
            raise CheckpointError(str(folder), "must hold every byte of its file once", "", CURE)

    def span(self, begin: int, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of the file, mapped; none at all in memory where all are of matrices. Raises CheckpointError for some of each."""
        found, at = list[Array](), 0
        for start, length in self.pieces:
            first, last = max(begin, start), min(begin + size, start + length)
            if first < last:
                found.append(np.frombuffer(self.head, np.uint8, last - first, at + first - start))
            at += length
        if not found:
            return np.broadcast_to(np.uint8(0), (size,))
        if len(found) != 1 or len(found[0]) != size:
            raise CheckpointError(str(self.path), "must have each tensor in one place", f"bytes {begin:,} to {begin + size:,}", CURE)
        return found[0]


def open_lean(folder: Path, lean: Lean) -> tuple[GGUF, ModelConfig, dict[str, Tensor], dict[str, int]]:
    """Return the file that a lean base was, and what `tensors_from_gguf` gives of it. Raises CheckpointError for parts that don't belong
    together."""
    gguf = read_gguf(Rest(folder, lean))
    config, tensors, interleaved = tensors_from_gguf(gguf)
    try:
        panels = np.memmap(folder / WEIGHTS, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise CheckpointError(str(folder / WEIGHTS), "must be readable", error, CURE) from error
    for matrix in lean.matrices:
        there = tensors.get(matrix.name)
        if there is None or (there.shape, there.kind) != ((matrix.rows, matrix.columns), matrix.kind):
            raise CheckpointError(f"{folder}: {matrix.name}", "must be what the file's header says", "", CURE)
        order = row_order(config, matrix.name, matrix.rows, interleaved.get(matrix.name))
        tensors[matrix.name] = Tensor(matrix.name, there.shape, there.kind, Later(there.nbytes, _maker(panels, matrix, order)))
    return gguf, config, tensors, interleaved


def file_bytes(folder: Path, lean: Lean, tensors: Mapping[str, Tensor]) -> Iterator[Array]:
    """Yield the file that a lean base was, piece by piece and matrix by matrix. `tensors`: of `open_lean`."""
    rest, at = Rest(folder, lean), 0
    parts = sorted([*((piece.begin, piece.size, "") for piece in lean.pieces), *((one.begin, 0, one.name) for one in lean.matrices)])
    for begin, size, name in parts:
        part = tensors[name].raw.reshape(-1) if name else rest.span(begin, size)
        at += len(part)
        yield part
    assert at == lean.file.size, "every byte once"


def _maker(panels: Array, matrix: Matrix, order: npt.NDArray[np.int64] | None) -> Any:
    def make() -> npt.NDArray[np.uint8]:
        try:
            packed = PackedLinear(PANELS[matrix.kind], matrix.rows, matrix.columns, *(panels[at : at + size] for at, size in matrix.planes))
            raw = np.concatenate(list(stored_rows(matrix.kind, packed)))
        except (ValueError, IndexError, TypeError, ShapeError) as error:
            raise CheckpointError(matrix.name, "must be made again from its panels", error, CURE) from error
        if order is None:
            return raw
        back = np.empty_like(raw)
        back[order] = raw
        return back

    return make


def _nbytes(matrix: Matrix) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if matrix.kind not in PANELS or matrix.rows < 1 or matrix.columns < 1:
        raise CheckpointError(matrix.name, "must be a matrix of blocks that are packed without loss", matrix.kind, CURE)
    block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[matrix.kind]]
    return matrix.rows * (matrix.columns // block) * nbytes
