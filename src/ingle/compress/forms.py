"""The forms that weights can take, as GGUF's blocks, which the kernels serve without loss and llama.cpp reads.

| form | block of 32 columns | a weight is | bits a weight, as stored |
|---|---|---|---|
| int8 | Q8_0: float16 scale, 32 signed bytes | scale · q, −127 … 127 | 8.5 |
| int4 | Q4_1: float16 scale and minimum, 32 codes | scale · q + minimum, 0 … 15 | 5 |
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ingle.core.errors import ConfigError

GROUP = 32
"""Columns that share a scale."""
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, slots=True)
class Form:
    """How weights are written down."""

    name: str
    kind: str
    """GGML's name."""
    bits: int
    low: int
    high: int
    """The codes are low … high."""
    has_minimum: bool
    block_bytes: int
    """Of `GROUP` columns."""

    @property
    def stored_bits(self) -> float:
        """Bits a weight takes, scales and minima included."""
        return 8 * self.block_bytes / GROUP


FORMS = {form.name: form for form in (Form("int8", "Q8_0", 8, -127, 127, False, 34), Form("int4", "Q4_1", 4, 0, 15, True, 20))}
"""By name."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What weights can become: per row and group a scale and a minimum, float32 [N, K/32], each a float16's value."""

    form: Form
    scale: Tensor
    minimum: Tensor

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest codes of float32 [N, K], as float32."""
        groups = weight.unflatten(1, (-1, GROUP))
        q = ((groups - self.minimum[..., None]) / _divisor(self.scale)[..., None]).round()
        return q.clamp(self.form.low, self.form.high).flatten(1)

    def values(self, codes: Tensor) -> Tensor:
        """The weights that codes [N, K] stand for."""
        return (codes.unflatten(1, (-1, GROUP)) * self.scale[..., None] + self.minimum[..., None]).flatten(1)


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
        """As GGUF holds it: [N, K/32 · block_bytes]."""
        codes = self.codes.unflatten(1, (-1, GROUP)).to(torch.int16).numpy()
        planes = [_halves(self.grid.scale)]
        if self.grid.form.has_minimum:
            planes.append(_halves(self.grid.minimum))
        if self.grid.form.bits == 4:  # the first 16 codes are low halves of bytes, the others high ones
            packed: npt.NDArray[Any] = (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8)
        else:
            packed = codes.astype(np.int8).view(np.uint8)
        return np.concatenate([*planes, packed], axis=2).reshape(len(codes), -1)


def find_form(name: str) -> Form:
    """The form of that name. Raises ConfigError."""
    if name not in FORMS:
        raise ConfigError("form", f"must be one of {', '.join(FORMS)}", name)
    return FORMS[name]


def plain_grid(form: Form, weight: Tensor) -> Grid:
    """From the smallest to the largest of each group; without a minimum, from −max |w| to max |w|. float32 [N, K], K a multiple of 32."""
    groups = weight.unflatten(1, (-1, GROUP))
    if not form.has_minimum:
        return exact_grid(form, groups.abs().amax(2) / form.high, torch.zeros_like(groups[..., 0]))
    low = as_half(groups.amin(2))
    return exact_grid(form, (groups.amax(2) - low) / form.high, low)


def exact_grid(form: Form, scale: Tensor, minimum: Tensor) -> Grid:
    """A grid of the nearest float16."""
    return Grid(form, as_half(scale), as_half(minimum))


def as_half(values: Tensor) -> Tensor:
    """float32 of the nearest float16, never infinite."""
    return values.float().clamp(-_LARGEST, _LARGEST).half().float()


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a matrix can be written in blocks: otherwise it stays as it is."""
    return len(shape) == 2 and shape[1] % GROUP == 0


def best_grid(form: Form, weight: Tensor, importance: Tensor | None = None, rounds: int = 2) -> Grid:
    """The grid with the least squared error, each column weighed by `importance` [K]; every group is cut at several places at both ends.

    After each cut, scale and minimum are fitted to the codes by least squares, `rounds` times (as llama.cpp's `make_qkx2_quants` does).
    """
    plain = plain_grid(form, weight)
    groups = weight.unflatten(1, (-1, GROUP))
    weighed = torch.ones(weight.shape[1]) if importance is None else importance.float().clamp(min=1e-12)
    weighed = weighed.view(1, -1, GROUP)
    best, least = plain, _group_errors(plain, groups, weighed)
    cuts = (0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25)
    span = plain.scale * (form.high - form.low)
    for low in cuts if form.has_minimum else (0.0,):
        for high in cuts:
            if form.has_minimum:
                grid = exact_grid(form, plain.scale * (1 - low - high), plain.minimum + low * span)
            else:
                grid = exact_grid(form, plain.scale * (1 - high), plain.minimum)
            for _ in range(rounds + 1):
                best, least = _better(best, least, grid, _group_errors(grid, groups, weighed))
                grid = _fitted(grid, groups, weighed)
    return best


def _group_errors(grid: Grid, groups: Tensor, weighed: Tensor) -> Tensor:
    error = grid.values(grid.codes(groups.flatten(1))).unflatten(1, (-1, GROUP)) - groups
    return (error.square() * weighed).sum(2)


def _better(best: Grid, least: Tensor, grid: Grid, errors: Tensor) -> tuple[Grid, Tensor]:
    won = errors < least
    scale, minimum = torch.where(won, grid.scale, best.scale), torch.where(won, grid.minimum, best.minimum)
    return Grid(grid.form, scale, minimum), torch.where(won, errors, least)


def _fitted(grid: Grid, groups: Tensor, weighed: Tensor) -> Grid:
    """Scale and minimum by weighed least squares, the codes as they are."""
    q = grid.codes(groups.flatten(1)).unflatten(1, (-1, GROUP))
    qq, qw = (weighed * q * q).sum(2), (weighed * q * groups).sum(2)
    if not grid.form.has_minimum:
        return exact_grid(grid.form, qw / _divisor(qq), grid.minimum)
    total, q1, w1 = weighed.sum(2), (weighed * q).sum(2), (weighed * groups).sum(2)
    determinant = total * qq - q1 * q1
    sound = determinant > 1e-6 * total * qq
    scale = torch.where(sound, (total * qw - q1 * w1) / torch.where(sound, determinant, 1), grid.scale)
    return exact_grid(grid.form, scale, (w1 - scale * q1) / total)


def _divisor(scale: Tensor) -> Tensor:
    return torch.where(scale != 0, scale, 1)


def _halves(plane: Tensor) -> npt.NDArray[np.uint8]:
    return plane.half().numpy()[..., None].view(np.uint8)
