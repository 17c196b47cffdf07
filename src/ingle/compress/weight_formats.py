"""The forms that weights can take, as blocks that the kernels serve without loss; llama.cpp reads those that GGUF has.

| form | block of 32 columns | a weight is | bits a weight, as stored |
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
from ingle.engine.quantised import GROUP
from ingle.kernels import blocks_16

_HEADROOM = 251 / 255
"""Of a row's largest scale: what is trained can still grow."""
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, slots=True)
class Form:
    """How weights are written down."""

    name: str
    kind: str
    """GGML's name, or ours."""
    bits: int
    low: int
    high: int
    """The codes are low … high."""
    has_minimum: bool
    block_bytes: int
    """Of `GROUP` columns."""
    columns: int = GROUP
    """That share a scale."""
    row_bytes: int = 0
    """That a row begins with: its unit, of which scales and minima are whole numbers."""

    @property
    def stored_bits(self) -> float:
        """Bits a weight takes, scales and minima included."""
        return 8 * self.block_bytes / GROUP


FORMS = {
    form.name: form
    for form in (
        Form("int8", "Q8_0", 8, -127, 127, False, 34),
        Form("int4", "Q4_16", 4, 0, 15, True, blocks_16.BLOCK_BYTES["Q4_16"], blocks_16.COLUMNS, blocks_16.UNIT_BYTES),
        Form("int3", "Q3_16", 3, 0, 7, True, blocks_16.BLOCK_BYTES["Q3_16"], blocks_16.COLUMNS, blocks_16.UNIT_BYTES),
        Form("q4_1", "Q4_1", 4, 0, 15, True, 20),
    )
}
"""By name."""
USUAL = ("int8", "int4", "int3")
"""What there is to choose from, unless one is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What weights can become: per row and group a scale and a minimum, float32 [N, groups], each a number that a block can hold."""

    form: Form
    scale: Tensor
    minimum: Tensor
    unit: Tensor | None = None
    """float32 [N, 1]: of what scales are whole numbers, and minima multiples of −16; None = they are float16."""

    def nearest(self, scale: Tensor, minimum: Tensor) -> "Grid":
        """The grid nearest to these planes, [N, any], with this one's units."""
        if self.unit is None:
            return Grid(self.form, as_half(scale), as_half(minimum))
        step = -blocks_16.STEP * self.unit
        scale, minimum = ((plane / of).round().clamp(0, 255) * of for plane, of in ((scale, self.unit), (minimum, step)))
        return Grid(self.form, scale, minimum, self.unit)

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest codes of float32 [N, K], as float32."""
        groups = grouped(weight, self.scale)
        q = ((groups - self.minimum[..., None]) / _divisor(self.scale)[..., None]).round()
        return q.clamp(self.form.low, self.form.high).flatten(1)

    def values(self, codes: Tensor) -> Tensor:
        """The weights that codes [N, K] stand for."""
        return (grouped(codes, self.scale) * self.scale[..., None] + self.minimum[..., None]).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A matrix on a grid."""

    grid: Grid
    codes: Tensor
    """float32 [N, K], whole numbers."""

    @property
    def values(self) -> Tensor:
        """float32 [N, K], to the bit what is served."""
        return self.grid.values(self.codes)

    def blocks(self) -> npt.NDArray[np.uint8]:
        """As it is kept, and as GGUF has it if it can: [N, row_bytes + K/32 · block_bytes]."""
        grid = self.grid
        if grid.unit is not None:
            whole = (grid.scale / grid.unit).round(), (grid.minimum / (-blocks_16.STEP * grid.unit)).round(), self.codes
            return blocks_16.join(grid.form.kind, grid.unit[:, 0].numpy(), *(part.numpy() for part in whole))
        codes = self.codes.reshape(len(self.codes), -1, GROUP).to(torch.int16).numpy()
        planes = [_halves(grid.scale)]
        if grid.form.has_minimum:
            planes.append(_halves(grid.minimum))
        return np.concatenate([*planes, _CODES[grid.form.bits][0](codes)], axis=2).reshape(len(codes), -1)


_Way = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
_CODES: dict[int, tuple[_Way, _Way]] = {
    4: (  # the first 16 codes are low halves of bytes, the others high ones
        lambda codes: (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8),
        lambda raw: np.concatenate([raw & 15, raw >> 4], -1),
    ),
    8: (lambda codes: codes.astype(np.int8).view(np.uint8), lambda raw: np.ascontiguousarray(raw).view(np.int8)),
}
"""By bits: codes [..., 32] as bytes, and back."""


def read_blocks(form: Form, blocks: npt.NDArray[np.uint8]) -> Quantised:
    """What `Quantised.blocks` wrote."""
    if form.row_bytes:
        unit, scale, least, whole = (torch.from_numpy(part.astype(np.float32)) for part in blocks_16.split(form.kind, blocks))
        unit = unit[:, None]
        return Quantised(Grid(form, scale * unit, least * (-blocks_16.STEP * unit), unit), whole)
    parts = blocks.reshape(len(blocks), -1, form.block_bytes)
    halves = 2 if form.has_minimum else 1
    planes = torch.from_numpy(np.ascontiguousarray(parts[..., : 2 * halves]).view(np.float16).astype(np.float32))
    codes = _CODES[form.bits][1](parts[..., 2 * halves :])
    minimum = planes[..., 1] if form.has_minimum else torch.zeros_like(planes[..., 0])
    grid = Grid(form, planes[..., 0].contiguous(), minimum.contiguous())
    return Quantised(grid, torch.from_numpy(codes.astype(np.float32)).flatten(1))


def find_form(name: str) -> Form:
    """The form of that name. Raises ConfigError."""
    if name not in FORMS:
        raise ConfigError("form", f"must be one of {', '.join(FORMS)}", name)
    return FORMS[name]


def plain_grid(form: Form, weight: Tensor) -> Grid:
    """From the smallest to the largest of each group; without a minimum, from −max |w| to max |w|. float32 [N, K], K a multiple of 32."""
    groups = weight.reshape(len(weight), -1, form.columns)
    if not form.has_minimum:
        scale = groups.abs().amax(2) / form.high
        return Grid(form, scale, scale).nearest(scale, torch.zeros_like(scale))
    low = groups.amin(2)
    if not form.row_bytes:
        low = as_half(low)
        scale = (groups.amax(2) - low) / form.high
        return Grid(form, scale, low).nearest(scale, low)
    low = low.clamp(max=0)
    scale = (groups.amax(2) - low) / form.high
    unit = torch.maximum(scale.amax(1, keepdim=True) / (255 * _HEADROOM), low.amin(1, keepdim=True) / (-255 * blocks_16.STEP))
    return Grid(form, scale, low, torch.where(unit > 0, unit, 1)).nearest(scale, low)


def as_half(values: Tensor) -> Tensor:
    """float32 of the nearest float16, never infinite."""
    return values.float().clamp(-_LARGEST, _LARGEST).half().float()


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a matrix can be written in blocks: otherwise it stays as it is."""
    return len(shape) == 2 and shape[1] % GROUP == 0


def best_grid(form: Form, weight: Tensor, importance: Tensor | None = None, rounds: int = 3) -> Grid:
    """The grid with the least squared error, each column weighed by `importance` [K]; every group is cut at several places at both ends.

    After each cut, scale and minimum are fitted to the codes by least squares, `rounds` times (as llama.cpp's `make_qkx2_quants` does).
    """
    plain = plain_grid(form, weight)
    weighed = torch.ones(1, weight.shape[1]) if importance is None else importance.float().clamp(min=1e-12)[None]
    sums = _Sums(form, weight, weighed)
    best, least = plain, sums.fit(plain)[0]
    span = plain.scale * (form.high - form.low)
    for low in _CUTS if form.has_minimum else (0.0,):
        for high in _CUTS:
            kept = 1 - low - high if form.has_minimum else 1 - high
            grid = plain.nearest(plain.scale * kept, plain.minimum + low * span if form.has_minimum else plain.minimum)
            for _ in range(rounds + 1):
                errors, fitted = sums.fit(grid)
                won = errors < least
                scale, minimum = torch.where(won, grid.scale, best.scale), torch.where(won, grid.minimum, best.minimum)
                best, least, grid = Grid(form, scale, minimum, plain.unit), torch.where(won, errors, least), fitted
    return best


_CUTS = (0.0, 0.08, 0.16)
"""Shares of a group's range that are cut off at one end."""


class _Sums:
    """Weights [N, K] and what each column counts, [1, K]: what is the same for every grid."""

    def __init__(self, form: Form, weight: Tensor, weighed: Tensor) -> None:
        groups, weighed = (matrix.reshape(len(matrix), -1, form.columns) for matrix in (weight, weighed))
        self._form, self._weight, self._weighed = form, weight, weighed
        self._w = groups * weighed
        self._total, self._w1, self._ww = weighed.sum(2), self._w.sum(2), (self._w * groups).sum(2)

    def fit(self, grid: Grid) -> tuple[Tensor, Grid]:
        """The squared error of each group, [N, G], with the nearest codes; and the grid that fits these codes best."""
        q = grouped(grid.codes(self._weight), grid.scale)
        qw, weighed_q = (q * self._w).sum(2), q * self._weighed
        qq, q1, s, m = (weighed_q * q).sum(2), weighed_q.sum(2), grid.scale, grid.minimum
        errors = self._ww - 2 * (s * qw + m * self._w1) + s * s * qq + 2 * s * m * q1 + m * m * self._total
        if not self._form.has_minimum:
            return errors, grid.nearest(qw / _divisor(qq), m)
        determinant = self._total * qq - q1 * q1
        sound = determinant > 1e-6 * self._total * qq
        scale = torch.where(sound, (self._total * qw - q1 * self._w1) / torch.where(sound, determinant, 1), s)
        return errors, grid.nearest(scale, (self._w1 - scale * q1) / self._total)


def grouped(matrix: Tensor, plane: Tensor) -> Tensor:
    """[N, K] by the groups of a plane [N, groups]: [N, groups, columns]."""
    return matrix.reshape(len(matrix), plane.shape[1], -1)


def _divisor(scale: Tensor) -> Tensor:
    return torch.where(scale != 0, scale, 1)


def _halves(plane: Tensor) -> npt.NDArray[np.uint8]:
    return plane.half().numpy()[..., None].view(np.uint8)
