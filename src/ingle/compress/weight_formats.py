"""Formats of weights, as blocks that the kernels serve without loss; llama.cpp reads those that GGUF has.

| format | block of 32 columns | a weight is | bits a weight, as stored |
|---|---|---|---|
| int8 | Q8_0: float16 scale, 32 signed bytes | scale · q, −127 … 127 | 8.5 |
| int4 | Q4_16, ours: two scales and two minima of a byte, 32 codes | unit · (scale · q − 16 · minimum), 0 … 15 | 5, and 4 bytes a row |
| int3 | Q3_16, ours: the same with smaller codes | the same, 0 … 7 | 4, and 4 bytes a row |
| q4_1 | Q4_1: float16 scale and minimum, 32 codes | scale · q + minimum, 0 … 15 | 5 |
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.errors import ConfigError
from ingle.core.progress import Counted
from ingle.engine.delta_kinds import GROUP
from ingle.kernels import formats
from ingle.model.module import CausalLM
from ingle.model.module_parts import rows_of
from ingle.train.optimisers import choose

_HEADROOM = 251 / 255  # part of a row's largest scale that is used at first, so that training can still raise it
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A format of weights: how they are packed in blocks."""

    name: str
    kind: str  # GGML's name, or ours
    bits: int
    low: int
    high: int  # codes are low … high
    has_minimum: bool
    block_bytes: int  # bytes of `GROUP` columns
    columns: int = GROUP  # columns that share a scale
    row_bytes: int = 0  # bytes at the start of a row: its unit, of which scales and minima are whole multiples

    @property
    def stored_bits(self) -> float:
        """Bits that a weight takes, scales and minima included."""
        return 8 * self.block_bytes / GROUP


# All formats by name.
FORMATS = {
    format_.name: format_
    for format_ in (
        WeightFormat("int8", "Q8_0", 8, -127, 127, False, 34),
        WeightFormat("int4", "Q4_16", 4, 0, 15, True, formats.BYTES_16["Q4_16"], formats.COLUMNS_16, formats.UNIT_BYTES),
        WeightFormat("int3", "Q3_16", 3, 0, 7, True, formats.BYTES_16["Q3_16"], formats.COLUMNS_16, formats.UNIT_BYTES),
        WeightFormat("q4_1", "Q4_1", 4, 0, 15, True, 20),
    )
}
USUAL = ("int8", "int4", "int3")  # formats to choose from, unless one is named


@dataclass(frozen=True, slots=True, eq=False)
class QuantisationGrid:
    """Values that weights can take: per row and group a scale and a minimum, float32 [N, groups], each a number that a block can hold."""

    format: WeightFormat
    scale: Tensor
    minimum: Tensor
    # float32 [N, 1]: the unit of scales, which are whole multiples, and of minima, multiples of −16; None = both are float16.
    unit: Tensor | None = None

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
    codes: Tensor  # float32 [N, K], whole numbers

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
# By bits: codes [..., 32] to bytes, and back.
_CODES: dict[int, tuple[_Way, _Way]] = {
    4: (  # the first 16 codes are low halves of bytes, the others high ones
        lambda codes: (codes[..., :16] | codes[..., 16:] << 4).astype(np.uint8),
        lambda raw: np.concatenate([raw & 15, raw >> 4], -1),
    ),
    8: (lambda codes: codes.astype(np.int8).view(np.uint8), lambda raw: np.ascontiguousarray(raw).view(np.int8)),
}


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


_CUTS = (0.0, 0.08, 0.16)  # shares of a group's range that are cut off at one end


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


# Training of the blocks' scales and minima, end to end, while the codes stay (EfficientQAT, arXiv 2407.11062, section 3.3).
# Rounding layer by layer sees each linear's own outputs; this sees the whole model's. Learnt is a share: scale · (1 + a) and minimum +
# scale · b, so that one learning rate fits all blocks. Where scales and minima are whole numbers of a unit, the model computes with the
# nearest ones, and gradients go straight through. Differs from the source: minima are trained too, and the loss follows the original
# model's predictions, not the text's next token.


Array = npt.NDArray[Any]
_A, _B = "scale_change", "minimum_change"


class Gridded(nn.Module):
    """y = W x + bias, W = scale · (1 + a) · codes + minimum + scale · b. Shapes: codes [N, K]; scale, minimum, a, b [N, groups]."""

    def __init__(self, linear: nn.Linear, quantised: Quantised) -> None:
        super().__init__()
        self.bias, self.grid, self.codes = linear.bias, quantised.grid, quantised.codes.to(torch.int8)
        self.scale_change = nn.Parameter(torch.zeros_like(self.grid.scale))
        self.minimum_change = nn.Parameter(torch.zeros_like(self.grid.scale)) if self.grid.format.has_minimum else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: x [..., K] → y [..., N]."""
        weight: Tensor = _Values.apply(  # type: ignore[no-untyped-call]
            self.scale_change, self.minimum_change, self.codes, self.grid, x.dtype
        )
        return nn.functional.linear(x, weight, self.bias)

    @torch.no_grad()
    def settled(self) -> Quantised:
        """Return the matrix with the learnt scales and minima, in numbers that blocks can hold."""
        return Quantised(self.grid.nearest(*_planes(self.scale_change, self.minimum_change, self.grid)), self.codes.float())


class _Values(torch.autograd.Function):
    """The weights, computed in float32; of their gradients only the sums over each block are returned."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, codes: Tensor, grid: QuantisationGrid, dtype: torch.dtype) -> Tensor:
        ctx.codes, ctx.scale, ctx.dtypes = codes, grid.scale, (a.dtype, None if b is None else b.dtype)
        scale, minimum = _planes(a, b, grid)
        if grid.unit is not None:
            new = grid.nearest(scale, minimum)
            scale, minimum = new.scale, new.minimum
        return torch.addcmul(minimum[..., None], grouped(codes, scale).float(), scale[..., None]).flatten(1).to(dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        groups = grouped(slope.float(), ctx.scale)
        a = (ctx.scale * (groups * grouped(ctx.codes, ctx.scale)).sum(2)).to(ctx.dtypes[0])
        b = None if ctx.dtypes[1] is None else (ctx.scale * groups.sum(2)).to(ctx.dtypes[1])
        return a, b, None, None, None


def _planes(a: Tensor, b: Tensor | None, grid: QuantisationGrid) -> tuple[Tensor, Tensor]:
    return grid.scale * (1 + a.float()), grid.minimum if b is None else grid.minimum + grid.scale * b.float()


def attach_grids(module: CausalLM, blocks: Mapping[str, Array], formats: Mapping[str, WeightFormat]) -> dict[str, nn.Parameter]:
    """Put a `Gridded` in the place of each linear whose parameter is in `formats`. Returns the trainable parameters by name."""
    trainable = dict[str, nn.Parameter]()
    for name, format_ in formats.items():
        linear = name.removesuffix(".weight")
        owner, _, last = linear.rpartition(".")
        old = module.get_submodule(linear)
        assert isinstance(old, nn.Linear)
        new = Gridded(old, read_blocks(format_, blocks[name]))
        setattr(module.get_submodule(owner), last, new)
        trainable |= {f"{linear}.{key}": parameter for key, parameter in new.named_parameters() if key in (_A, _B)}
    return trainable


def settled_blocks(module: CausalLM, formats: Mapping[str, WeightFormat]) -> dict[str, Array]:
    """Return the blocks of all these parameters, as `Quantised.blocks` gives them."""
    blocks = dict[str, Array]()
    for name in formats:
        one = module.get_submodule(name.removesuffix(".weight"))
        assert isinstance(one, Gridded)
        blocks[name] = one.settled().blocks()
    return blocks


# Sensitivity: the cost of rounding each linear, and the weight of each token at it, from one reading of a few texts, forward and back.
# A change ΔW of a linear moves its outputs by ΔW x. To second order this moves the model's next-token distribution by a divergence of ½ (g
# · ΔW x)² in the mean, where g is the gradient of −log p of tokens that the model itself draws. That is the Fisher information in the
# direction of the rounding error, token by token: the cost of rounding that linear, known before it is done. Without a ΔW yet, the mean of
# g² over the outputs weighs an error at that token (arXiv 2505.07004).


def sensitivities(
    module: CausalLM, rows: Tensor, parameters: Collection[str], formats: Sequence[WeightFormat], tell: Counted, seed: int = 0
) -> dict[str, dict[str, float]]:  # fmt: skip
    """By parameter and format: nats per token that rounding it alone is expected to cost. `rows`: int64 [rows, tokens].

    Measured for the first of `formats`; for the others in proportion to the weights' squared error. `tell` hears rows done, of all.
    Takes as much memory again as the weights.
    """
    errors, shares = dict[str, Tensor](), dict[str, dict[str, float]]()
    for name in parameters:
        off = {format_.name: _off(format_, module.get_parameter(name).detach()) for format_ in formats}
        errors[name] = off[formats[0].name]
        least = errors[name].square().sum().clamp(min=1e-30)
        shares[name] = {format_: float(error.square().sum() / least) for format_, error in off.items()}
    sums = dict.fromkeys(parameters, 0.0)

    def add(name: str, x: Tensor, slope: Tensor) -> None:
        sums[name] += float((slope * (x @ errors[name].T)).sum(-1).double().square().sum())

    _read_back(module, rows, parameters, add, tell, seed)
    return {name: {format_: share * sums[name] / 2 / rows.numel() for format_, share in shares[name].items()} for name in parameters}


def _off(format_: WeightFormat, weight: Tensor) -> Tensor:
    grid = best_grid(format_, weight, rounds=0)
    return grid.values(grid.codes(weight)) - weight


def guidance(module: CausalLM, rows: Tensor, parameters: Collection[str], tell: Counted, seed: int = 0) -> dict[str, Tensor]:
    """By parameter: the weight of an error of its linear's outputs at each token, float32 [rows · tokens], 1 in the mean.

    `rows`: int64 [rows, tokens]; `tell` hears rows done, of all.
    """
    squares: dict[str, list[Tensor]] = {name: [] for name in parameters}
    _read_back(module, rows, parameters, lambda name, _x, slope: squares[name].append(slope.square().mean(-1).flatten()), tell, seed)
    weights = {name: torch.cat(parts) for name, parts in squares.items()}
    return {name: weight / weight.mean().clamp(min=1e-30) for name, weight in weights.items()}


def _read_back(
    module: CausalLM, rows: Tensor, parameters: Collection[str], add: Callable[[str, Tensor, Tensor], None], tell: Counted, seed: int
) -> None:
    """Read rows one by one forward, draw tokens from the model's predictions, and send the gradients of their −log p back to every linear.
    `add` gets the parameter's name, inputs [tokens, K] and gradients at the outputs [tokens, N].
    """
    half = choose("auto", module.lm_head.weight.device) == "bf16"
    draw, frozen = torch.Generator().manual_seed(seed), [parameter for parameter in module.parameters() if parameter.requires_grad]

    def watch(name: str) -> "torch.utils.hooks.RemovableHandle":
        def after(_linear: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
            x = arguments[0].detach()
            out.register_hook(lambda slope: add(name, x.float(), slope.float()))  # type: ignore[no-untyped-call]

        return module.get_submodule(name.removesuffix(".weight")).register_forward_hook(after)

    hooks = [watch(name) for name in parameters]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        for number, row in enumerate(rows):
            tell(number, len(rows))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                x = module.model.embed_tokens(row).requires_grad_()
                cos, sin = module.angles(torch.arange(len(row), dtype=torch.float32), x.dtype)
                for layer in module.model.layers:
                    x = layer(x, cos, sin, rows_of(1, len(row)))
                logits = module.logits(module.model.norm(x))
            nn.functional.cross_entropy(logits.float(), _drawn(logits.detach().float(), draw), reduction="sum").backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    tell(len(rows), len(rows))


def _drawn(logits: Tensor, draw: torch.Generator) -> Tensor:
    """Draw a token for each row [T, V], by its probability: int64 [T]. `torch.multinomial` draws a number for each of the vocabulary."""
    sums = logits.softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, torch.rand(len(sums), 1, generator=draw) * sums[:, -1:])[:, 0].clamp(max=logits.shape[-1] - 1)


def choose_formats(
    costs: Mapping[str, Mapping[WeightFormat, float]], sizes: Mapping[str, int], bits: float, fixed: Sequence[tuple[int, float]] = ()
) -> dict[str, WeightFormat]:
    """Choose a format for each parameter, out of those that it has costs in, so that the mean over all weights stays within `bits`.

    From the fewest bits up, the next bit always goes where it saves most nats. `sizes`: weights of each parameter; `fixed`: weights and
    bits of linears without a choice, which count in the mean.
    """
    chosen = {name: min(ways, key=lambda format_: format_.bits) for name, ways in costs.items()}
    whole = sum(sizes.values()) + sum(count for count, _ in fixed)
    left = bits * whole - sum(chosen[name].bits * size for name, size in sizes.items()) - sum(count * each for count, each in fixed)

    def better() -> tuple[float, str, WeightFormat] | None:
        """The step that saves most nats a bit, of those that there is room for."""
        best = None
        for name, ways in costs.items():
            for format_, cost in ways.items():
                price = (format_.bits - chosen[name].bits) * sizes[name]
                if 0 < price <= left + 1e-6:
                    saved = (ways[chosen[name]] - cost) / price
                    best = max(best or (0.0, "", format_), (saved, name, format_), key=lambda one: one[0])
        return best if best is not None and best[0] > 0 else None

    while step := better():
        _, name, format_ = step
        left -= (format_.bits - chosen[name].bits) * sizes[name]
        chosen[name] = format_
    return chosen
