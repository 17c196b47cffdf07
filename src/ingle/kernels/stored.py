"""Matrices as a GGUF file stores them, in the kernels' panels without loss, and back bit for bit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import ShapeError
from ingle.kernels import blocks_16, blocks_32, k_quants, pack
from ingle.kernels.layout import INT4, INT5, INT8_GROUP, IQ4_NL
from ingle.kernels.pack import PackedLinear
from ingle.kernels.unpack import codes_of, group_plane, parts_of

Array = npt.NDArray[Any]
PANELS = {"Q4_0": INT4, "Q4_1": INT4, "Q5_0": INT5, "Q5_1": INT5, "Q8_0": INT8_GROUP, "IQ4_NL": IQ4_NL, **k_quants.KINDS}
"""GGUF's kinds of blocks that kernels multiply as they are, and the kernels' kinds for them."""
LOSSLESS = frozenset({*PANELS, *blocks_16.BLOCK_BYTES})
"""These and our own."""
_MINIMA = {"Q4_0": -8, "Q5_0": -16}
"""Kinds whose minimum is so many scales, and the kernel that takes them wants it written out."""
_MOST = 65_504
"""The largest float16."""


def pack_stored(kind: str, raw: Array) -> PackedLinear:
    """Pack rows as they lie in a file, uint8 [N, bytes]. Raises ShapeError for a kind that isn't in `LOSSLESS`, and for broken rows."""
    if kind in k_quants.KINDS:
        return pack.pack_k(kind, raw)
    if kind in blocks_16.BLOCK_BYTES:
        return pack.pack_sixteens(kind, *blocks_16.split(kind, raw))
    if kind not in blocks_32.BLOCKS:
        raise ShapeError("kind", f"must be one of {', '.join(sorted(LOSSLESS))}", kind)
    q, scale, minimum = blocks_32.split(kind, raw)
    if kind in _MINIMA:
        wide = scale.astype(np.float32) * _MINIMA[kind]
        if (np.abs(wide[np.isfinite(wide)]) > _MOST).any():
            raise ShapeError("scale", f"must be at most {_MOST // -_MINIMA[kind]:,} in {kind}", f"{np.nanmax(np.abs(scale)):,.0f}")
        minimum = wide.astype(np.float16)
    if kind == "Q8_0":
        return pack.pack_int8_groups(q, scale)
    if minimum is None:
        return pack.pack_uneven_values(q, scale)
    return (pack.pack_int4_values if blocks_32.BLOCKS[kind].bits == 4 else pack.pack_int5_values)(q, scale, minimum)


def stored_rows(kind: str, packed: PackedLinear, chunk_bytes: int = 1 << 22) -> Iterator[Array]:
    """Undo `pack_stored`: yield the rows of the file, uint8 [n, bytes], about `chunk_bytes` of codes at a time.

    Raises ShapeError for a matrix of another kind, and our own formats, which no file of others has.
    """
    if PANELS.get(kind) != packed.kind:
        raise ShapeError("kind", "must be one of GGUF's, and the packed matrix's", kind)
    step = max(32, chunk_bytes // max(1, packed.columns) // 32 * 32)
    for start in range(0, packed.rows, step):
        yield _stored(kind, _some(packed, start, min(start + step, packed.rows)))


def _some(packed: PackedLinear, start: int, stop: int) -> PackedLinear:
    """Return rows of a matrix, from a multiple of 32 on: panels follow one another in each plane."""
    panels = packed.padded[0] // 16
    first, last = start // 16, -(-stop // 32) * 2

    def some(plane: Array) -> Array:
        return plane.reshape(panels, -1)[first:last].reshape(-1)

    return replace(packed, rows=stop - start, weights=some(packed.weights), scales=some(packed.scales), minima=some(packed.minima))


def _stored(kind: str, packed: PackedLinear) -> Array:
    if kind in k_quants.KINDS:
        return k_quants.join(kind, parts_of(packed))[: packed.rows]
    q = codes_of(packed)[: packed.rows]
    scale, minimum = (group_plane(packed, plane)[: packed.rows] if plane.size else None for plane in (packed.scales, packed.minima))
    assert scale is not None, "every block has a scale"
    return blocks_32.join(kind, q, scale, minimum if blocks_32.BLOCKS[kind].minimum else None)
