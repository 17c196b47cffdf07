"""Formats of weights, as blocks that the kernels serve without loss; llama.cpp reads those that GGUF has.

| format | block of 32 columns | a weight is | bits a weight, as stored |
|---|---|---|---|
| int8 | Q8_0: float16 scale, 32 signed bytes | scale · q, −127 … 127 | 8.5 |
| int4 | Q4_16, ours: two scales and two minima of a byte, 32 codes | unit · (scale · q − 16 · minimum), 0 … 15 | 5, and 4 bytes a row |
| int3 | Q3_16, ours: the same with smaller codes | the same, 0 … 7 | 4, and 4 bytes a row |
| q4_1 | Q4_1: float16 scale and minimum, 32 codes | scale · q + minimum, 0 … 15 | 5 |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.core.errors import ConfigError
from ingle.engine.delta_kinds import GROUP
from ingle.kernels import formats

_HEADROOM = 251 / 255
"""Part of a row's largest scale that is used at first, so that training can still raise it."""
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A format of weights: how they are packed in blocks."""

    name: str
    kind: str
    """GGML's name, or ours."""
    bits: int
    low: int
    high: int
    """Codes are low … high."""
    has_minimum: bool
    block_bytes: int
    """Bytes of `GROUP` columns."""
    columns: int = GROUP
    """Columns that share a scale."""
    row_bytes: int = 0
    """Bytes at the start of a row: its unit, of which scales and minima are whole multiples."""

    @property
    def stored_bits(self) -> float:
        """Bits that a weight takes, scales and minima included."""
        return 8 * self.block_bytes / GROUP


FORMATS = {
    format_.name: format_
    for format_ in (
        WeightFormat("int8", "Q8_0", 8, -127, 127, False, 34),
        WeightFormat("int4", "Q4_16", 4, 0, 15, True, formats.BYTES_16["Q4_16"], formats.COLUMNS_16, formats.UNIT_BYTES),
        WeightFormat("int3", "Q3_16", 3, 0, 7, True, formats.BYTES_16["Q3_16"], formats.COLUMNS_16, formats.UNIT_BYTES),
        WeightFormat("q4_1", "Q4_1", 4, 0, 15, True, 20),
    )
}
"""All formats by name."""
USUAL = ("int8", "int4", "int3")
"""Formats to choose from, unless one is named."""


@dataclass(frozen=True, slots=True, eq=False)
class QuantisationGrid:
    """Values that weights can take: per row and group a scale and a minimum, float32 [N, groups], each a number that a block can hold."""

    format: WeightFormat
    scale: Tensor
    minimum: Tensor
    unit: Tensor | None = None
    """float32 [N, 1]: the unit of scales, which are whole multiples, and of minima, multiples of −16; None = both are float16."""

    def nearest(self, scale: Tensor, minimum: Tensor) -> "QuantisationGrid":
        """Return the grid nearest to these scales and minima, [N, any], in this one's units."""
        if self.unit is None:
            return QuantisationGrid(self.format, as_half(scale), as_half(minimum))
        step = -formats.STEP * self.unit
        scale, minimum = ((plane / of).round().clamp(0, 255) * of for plane, of in ((scale, self.unit), (minimum, step)))
        return QuantisationGrid(self.format, scale, minimum, self.unit)

    def codes(self, weight: Tensor) -> Tensor:
        """Return the nearest codes of float32 [N, K], as float32."""
        groups = grouped(weight, self.scale)
        q = ((groups - self.minimum[..., None]) / _divisor(self.scale)[..., None]).round()
        return q.clamp(self.format.low, self.format.high).flatten(1)

    def values(self, codes: Tensor) -> Tensor:
        """Return the weights of codes [N, K]."""
        return (grouped(codes, self.scale) * self.scale[..., None] + self.minimum[..., None]).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A matrix on a grid."""

    grid: QuantisationGrid
    codes: Tensor
    """float32 [N, K], whole numbers."""

    @property
    def values(self) -> Tensor:
        """The weights, float32 [N, K], to the bit as they are served."""
        return self.grid.values(self.codes)

    def blocks(self) -> npt.NDArray[np.uint8]:
        """Pack it as it is kept, and as GGUF has it if it can: [N, row_bytes + K/32 · block_bytes]."""
        grid = self.grid
        if grid.unit is not None:
            whole = (grid.scale / grid.unit).round(), (grid.minimum / (-formats.STEP * grid.unit)).round(), self.codes
            return formats.join_16(grid.format.kind, grid.unit[:, 0].numpy(), *(part.numpy() for part in whole))
        codes = self.codes.reshape(len(self.codes), -1, GROUP).to(torch.int16).numpy()
        planes = [_halves(grid.scale)]
        if grid.format.has_minimum:
            planes.append(_halves(grid.minimum))
        return np.concatenate([*planes, _CODES[grid.format.bits][0](codes)], axis=2).reshape(len(codes), -1)


_Way = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
_CODES: dict[int, tuple[_Way, _Way]] = {
    4: (  # the first 16 codes are low halves of bytes, the others high ones
        lambda codes: (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8),
        lambda raw: np.concatenate([raw & 15, raw >> 4], -1),
    ),
    8: (lambda codes: codes.astype(np.int8).view(np.uint8), lambda raw: np.ascontiguousarray(raw).view(np.int8)),
}
"""By bits: codes [..., 32] to bytes, and back."""


def read_blocks(format_: WeightFormat, blocks: npt.NDArray[np.uint8]) -> Quantised:
    """Read the result of `Quantised.blocks`."""
    if format_.row_bytes:
        unit, scale, least, whole = (torch.from_numpy(part.astype(np.float32)) for part in formats.split_16(format_.kind, blocks))
        unit = unit[:, None]
        return Quantised(QuantisationGrid(format_, scale * unit, least * (-formats.STEP * unit), unit), whole)
    parts = blocks.reshape(len(blocks), -1, format_.block_bytes)
    halves = 2 if format_.has_minimum else 1
    planes = torch.from_numpy(np.ascontiguousarray(parts[..., : 2 * halves]).view(np.float16).astype(np.float32))
    codes = _CODES[format_.bits][1](parts[..., 2 * halves :])
    minimum = planes[..., 1] if format_.has_minimum else torch.zeros_like(planes[..., 0])
    grid = QuantisationGrid(format_, planes[..., 0].contiguous(), minimum.contiguous())
    return Quantised(grid, torch.from_numpy(codes.astype(np.float32)).flatten(1))


def find_format(name: str) -> WeightFormat:
    """Return the format of that name. Raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError("format", f"must be one of {', '.join(FORMATS)}", name)
    return FORMATS[name]


def plain_grid(format_: WeightFormat, weight: Tensor) -> QuantisationGrid:
    """Grid from the smallest to the largest of each group; without a minimum, −max |w| to max |w|. float32 [N, K], K a multiple of 32."""
    groups = weight.reshape(len(weight), -1, format_.columns)
    if not format_.has_minimum:
        scale = groups.abs().amax(2) / format_.high
        return QuantisationGrid(format_, scale, scale).nearest(scale, torch.zeros_like(scale))
    low = groups.amin(2)
    if not format_.row_bytes:
        low = as_half(low)
        scale = (groups.amax(2) - low) / format_.high
        return QuantisationGrid(format_, scale, low).nearest(scale, low)
    low = low.clamp(max=0)
    scale = (groups.amax(2) - low) / format_.high
    unit = torch.maximum(scale.amax(1, keepdim=True) / (255 * _HEADROOM), low.amin(1, keepdim=True) / (-255 * formats.STEP))
    return QuantisationGrid(format_, scale, low, torch.where(unit > 0, unit, 1)).nearest(scale, low)


def as_half(values: Tensor) -> Tensor:
    """Round to the nearest float16, never infinite; float32."""
    return values.float().clamp(-_LARGEST, _LARGEST).half().float()


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a matrix can be packed in blocks; otherwise it stays as it is."""
    return len(shape) == 2 and shape[1] % GROUP == 0


def best_grid(format_: WeightFormat, weight: Tensor, importance: Tensor | None = None, rounds: int = 3) -> QuantisationGrid:
    """Find the grid with the least squared error, each column weighed by `importance` [K]: groups are cut at several places at both ends.

    After each cut, scale and minimum are fitted to the codes by least squares, `rounds` times (as llama.cpp's `make_qkx2_quants` does).
    """
    plain = plain_grid(format_, weight)
    weighed = torch.ones(1, weight.shape[1]) if importance is None else importance.float().clamp(min=1e-12)[None]
    sums = _Sums(format_, weight, weighed)
    best, least = plain, sums.fit(plain)[0]
    span = plain.scale * (format_.high - format_.low)
    for low in _CUTS if format_.has_minimum else (0.0,):
        for high in _CUTS:
            rest = 1 - low - high if format_.has_minimum else 1 - high
            grid = plain.nearest(plain.scale * rest, plain.minimum + low * span if format_.has_minimum else plain.minimum)
            for _ in range(rounds + 1):
                errors, fitted = sums.fit(grid)
                won = errors < least
                scale, minimum = torch.where(won, grid.scale, best.scale), torch.where(won, grid.minimum, best.minimum)
                best, least, grid = QuantisationGrid(format_, scale, minimum, plain.unit), torch.where(won, errors, least), fitted
    return best


_CUTS = (0.0, 0.08, 0.16)
"""Shares of a group's range that are cut off at one end."""


class _Sums:
    """Sums that are the same for every grid, of weights [N, K] and their columns' importance [1, K]."""

    def __init__(self, format_: WeightFormat, weight: Tensor, weighed: Tensor) -> None:
        groups, weighed = (matrix.reshape(len(matrix), -1, format_.columns) for matrix in (weight, weighed))
        self._format, self._weight, self._weighed = format_, weight, weighed
        self._w = groups * weighed
        self._total, self._w1, self._ww = weighed.sum(2), self._w.sum(2), (self._w * groups).sum(2)

    def fit(self, grid: QuantisationGrid) -> tuple[Tensor, QuantisationGrid]:
        """Squared error of each group, [N, G], with the nearest codes; and the grid that fits these codes best."""
        q = grouped(grid.codes(self._weight), grid.scale)
        qw, weighed_q = (q * self._w).sum(2), q * self._weighed
        qq, q1, s, m = (weighed_q * q).sum(2), weighed_q.sum(2), grid.scale, grid.minimum
        errors = self._ww - 2 * (s * qw + m * self._w1) + s * s * qq + 2 * s * m * q1 + m * m * self._total
        if not self._format.has_minimum:
            return errors, grid.nearest(qw / _divisor(qq), m)
        determinant = self._total * qq - q1 * q1
        sound = determinant > 1e-6 * self._total * qq
        scale = torch.where(sound, (self._total * qw - q1 * self._w1) / torch.where(sound, determinant, 1), s)
        return errors, grid.nearest(scale, (self._w1 - scale * q1) / self._total)


def grouped(matrix: Tensor, plane: Tensor) -> Tensor:
    """Reshape [N, K] by the groups of a plane [N, groups]: [N, groups, columns]."""
    return matrix.reshape(len(matrix), plane.shape[1], -1)


def _divisor(scale: Tensor) -> Tensor:
    return torch.where(scale != 0, scale, 1)


def _halves(plane: Tensor) -> npt.NDArray[np.uint8]:
    return plane.half().numpy()[..., None].view(np.uint8)
