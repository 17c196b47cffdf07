"""Plots of a sweep as SVG: loss against compute, equal loss over size and data, the gain of more compute, and what the law left over.

They take plain values, so that anyone's runs can be drawn; `curves.py` makes the lines of a law.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingle.core.errors import counted
from ingle.train.loss_curve import STAR, Frame, Key, Scale, alike, colour_class, document, frame_below, legend, scale_over, shape_of, short

_FIRST_LINE = 50.0  # where a legend begins, in user units
_BAND = "90 % of the fits"
_FREE_BELOW = 14.0  # least height of a line's label over the axis, in user units
_NO_LAW = "There is no law yet."
_NOTHING = "No run is done yet."


@dataclass(frozen=True, slots=True)
class Dot:
    """A run as plots show it."""

    parameters: float
    tokens: float
    loss: float
    flops: float
    expected: float = math.nan  # loss by the law; NaN = no law yet
    apart: bool = False  # whether it belongs to another kind of run than most

    @property
    def left_over(self) -> float:
        """Loss above the law's, in percent of the law's."""
        return 100 * (self.loss / self.expected - 1)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a plot, with an interval where low and high are given."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SizeLine:
    """Loss of one size by the law: FLOPs along, loss up."""

    parameters: float
    line: Curve


@dataclass(frozen=True, slots=True)
class EqualLoss:
    """Sizes along, tokens up, at which the law has the same loss."""

    loss: float
    line: Curve


@dataclass(frozen=True, slots=True)
class Foretold:
    """A run that was predicted, and what came."""

    parameters: float
    tokens: float
    flops: float
    loss: float
    low: float
    high: float
    got: float = math.nan  # loss of the run when it was trained; NaN = not yet

    @property
    def inside(self) -> bool:
        """Whether the run came out inside the interval."""
        return self.low <= self.got <= self.high


@dataclass(frozen=True, slots=True)
class ComputeUnit:
    """Unit of the compute axis."""

    one: str = "TFLOP"  # the unit in words, in the singular
    axis: str = "compute, TFLOP (10¹² operations)"  # name of the axis
    flops: float = 1e12


TERA = ComputeUnit()


def loss_against_compute(
    dots: Sequence[Dot], sizes: Sequence[SizeLine] = (), frontier: Curve | None = None, foretold: Foretold | None = None,
    unit: ComputeUnit = TERA, loss_name: str = "bits per byte",
) -> str:  # fmt: skip
    """Draw the runs, the law of each size, the least loss that each amount of compute buys, and the prediction."""
    runs = _drawable(dots)
    told = [foretold] if foretold else []
    everything: list[Dot | Foretold] = [*runs, *told]
    losses = [run.loss for run in runs] + [y for one in told for y in (one.low, one.high, one.got)]
    x = scale_over([one.flops / unit.flops for one in everything], log=True)
    looks = _looks(runs)
    keys = [Key(f"{short(n, 'B')} parameters", look, shape) for n, (look, shape) in looks.items()]
    keys += _apart_keys(runs)
    keys += [Key("best split of the compute", "best", dashes="7 4"), Key(_BAND, "best", band=True)] if frontier else []
    keys += _told_keys(told)
    end_keys, end = legend(keys, _FIRST_LINE)
    frame = frame_below(end, x, scale_over(losses))
    parts = [end_keys, frame.grid(unit.axis, loss_name) if everything else frame.note(_NOTHING)]
    if frontier:
        along = [value / unit.flops for value in frontier.x]
        parts.append(frame.band(list(zip(along, frontier.low, frontier.high, strict=True)), "best") if frontier.low else "")
        parts.append(frame.line(list(zip(along, frontier.y, strict=True)), "best", 2.4, "7 4"))
    for size in sizes:
        points = [(c / unit.flops, y) for c, y in zip(size.line.x, size.line.y, strict=True)]
        parts.append(frame.line(points, looks.get(size.parameters, ("ink", ""))[0], 1.6))
    parts += [_run_mark(frame, dot, dot.flops / unit.flops, dot.loss, looks, loss_name) for dot in runs]
    for one in told:
        across = one.flops / unit.flops
        parts.append(frame.bar(across, one.low, one.high, "told"))
        parts.append(frame.mark(across, one.loss, shape_of(0), "told", f"predicted: {one.loss:.4g} {loss_name}", hollow=True))
        parts.append(frame.mark(across, one.got, STAR, "ink", f"came: {one.got:.4g} {loss_name}"))
    return document("Loss against compute", _loss_said(runs, told, loss_name), frame, parts)


def equal_loss(
    dots: Sequence[Dot], levels: Sequence[EqualLoss], best: Curve | None = None, foretold: Foretold | None = None,
    loss_name: str = "bits per byte",
) -> str:  # fmt: skip
    """Draw lines of equal loss over size and tokens, the best split on its way through them, and the runs."""
    runs = _drawable(dots)
    told = [foretold] if foretold else []
    everything: list[Dot | Foretold] = [*runs, *told]
    looks = _looks(runs)
    keys = [Key("a run", "ink", shape_of(0)), *_apart_keys(runs), Key(f"equal loss, {loss_name}", "pale")]
    keys += [Key("best split of the compute", "best", dashes="7 4")] if best else []
    keys += [Key("the predicted run", "told", STAR)] if told else []
    end_keys, end = legend(keys, _FIRST_LINE)
    frame = frame_below(
        end, scale_over([one.parameters for one in everything], True, 0.12), scale_over([one.tokens for one in everything], True, 0.12)
    )
    parts = [end_keys, frame.grid("parameters", "tokens read", "B") if everything else frame.note(_NOTHING)]
    labels, taken = list[str](), list[tuple[float, float]]()
    for level, name in zip(levels, alike([level.loss for level in levels]), strict=True):
        points = list(zip(level.line.x, level.line.y, strict=True))
        parts.append(frame.line(points, "pale", 1.6))
        for point in reversed(points):
            across, down = frame.at(*point)
            low_enough = frame.holds(*point) and down < frame.bottom - _FREE_BELOW
            if low_enough and all(abs(across - x) > 48 or abs(down - y) > 20 for x, y in taken):
                taken.append((across, down))
                labels.append(frame.words(*point, name, "end" if across > frame.left + 40 else "start"))
                break
    if best:
        parts.append(frame.line(list(zip(best.x, best.y, strict=True)), "best", 2.4, "7 4"))
    parts += labels
    parts += [_run_mark(frame, dot, dot.parameters, dot.tokens, looks, loss_name) for dot in runs]
    parts += [frame.mark(one.parameters, one.tokens, STAR, "told", f"predicted: {one.loss:.4g} {loss_name}") for one in told]
    said = f"{len(runs)} runs over parameters and tokens, with {len(levels)} lines of equal loss."
    if best and best.x:
        said += f" The best split goes from {_place(best.x[0], best.y[0])} to {_place(best.x[-1], best.y[-1])}."
    return document("Equal loss over size and data", said, frame, parts)


def marginal_gain(gain: Curve, quarter: float = math.nan, unit: ComputeUnit = TERA, loss_name: str = "bits per byte") -> str:
    """Draw what one more unit of compute gains at each amount of it, and where that is a quarter of the first.

    `gain.x` in units; `quarter`: the amount in units, NaN = it lies beyond what is drawn.
    """
    first = gain.y[0] if gain.y else math.nan
    keys = [Key(f"gain of one more {unit.one}", "best")]
    keys += [Key(_BAND, "best", band=True)] if gain.low else []
    there = math.isfinite(quarter)
    keys += [Key(f"a quarter of the first gain, at {short(quarter)}", "told", dashes="3 4")] if there else []
    end_keys, end = legend(keys, _FIRST_LINE)
    frame = frame_below(end, scale_over([*gain.x, quarter], log=True), scale_over([*gain.y, *gain.low, *gain.high], log=True))
    grid = frame.grid(unit.axis, f"{loss_name} gained by one more {unit.one}")
    parts = [end_keys, grid if gain.x else frame.note(_NO_LAW)]
    parts.append(frame.band(list(zip(gain.x, gain.low, gain.high, strict=True)), "best") if gain.low else "")
    parts.append(frame.line(list(zip(gain.x, gain.y, strict=True)), "best", 2.4))
    if there:
        parts.append(frame.line([(quarter, frame.y.low), (quarter, frame.y.high)], "told", 2, "3 4"))
        parts.append(frame.mark(quarter, first / 4, shape_of(3), "told", f"at {short(quarter)}: a quarter of the first gain"))
    said = f"The first {unit.one} gains {first:.3g} {loss_name}. " if gain.x else _NO_LAW
    if gain.x:
        said += f"From {short(quarter)} on, the next gains a quarter of that." if there else "The gain stays above a quarter of that."
    return document("What more compute gains", said, frame, parts)


def residuals(dots: Sequence[Dot], noise: float = math.nan) -> str:
    """Draw how far each run lies from the law, in percent, by size. `noise`: relative spread of one run; 90 % lie within 1.64 of it."""
    runs = [one for one in _drawable(dots) if math.isfinite(one.left_over)]
    looks = _looks(runs)
    sizes = list(looks)
    apart = [one for one in runs if one.apart]
    wide = 164.5 * noise if math.isfinite(noise) and noise > 0 else 0.0
    keys = [Key("a run", "ink", shape_of(0))]
    keys += _apart_keys(runs)
    keys += [Key(f"± {wide:.2g} %: nine of ten runs, by their noise", "told", band=True)] if wide else []
    end_keys, end = legend(keys, _FIRST_LINE)
    last = max(len(sizes), 1) - 0.5
    y = scale_over([0.0, wide, -wide, *(one.left_over for one in runs)], room=0.1)
    frame = frame_below(end, Scale(-0.5, last), y)
    names = [(float(i), f"{short(n, 'B')}") for i, n in enumerate(sizes)] or [(0.0, "")]
    nothing = frame.note(_NO_LAW if dots else _NOTHING)
    parts = [end_keys, frame.grid("parameters", "loss above the law, %", named=names) if runs else nothing]
    parts.append(frame.band([(-0.5, -wide, wide), (last, -wide, wide)], "told") if wide else "")
    parts.append(frame.line([(-0.5, 0.0), (last, 0.0)], "ink", 1.2) if runs else "")
    for i, n in enumerate(sizes):
        mine = sorted((one for one in runs if one.parameters == n), key=lambda one: (one.tokens, one.loss))
        for k, dot in enumerate(mine):
            parts.append(_run_mark(frame, dot, i + 0.7 * ((k + 0.5) / len(mine) - 0.5), dot.left_over, looks, "loss"))
    said = f"{len(runs)} runs; the farthest lies {max((abs(one.left_over) for one in runs), default=0.0):.2g} % from the law."
    said += f" Of another kind than most: {counted(len(apart), 'run')}." if apart else ""
    return document("What the law leaves over", said, frame, parts)


def _drawable(dots: Sequence[Dot]) -> list[Dot]:
    """Runs with numbers that axes can hold; a diverged run has none."""
    return [one for one in dots if all(math.isfinite(v) and v > 0 for v in (one.parameters, one.tokens, one.loss, one.flops))]


def _looks(runs: Sequence[Dot]) -> dict[float, tuple[str, str]]:
    """Colour and shape of each size, the smallest first."""
    sizes = sorted({one.parameters for one in runs})
    return {n: (colour_class(i, len(sizes)), shape_of(i)) for i, n in enumerate(sizes)}


def _run_mark(frame: Frame, dot: Dot, x: float, y: float, looks: dict[float, tuple[str, str]], loss_name: str) -> str:
    look, shape = looks[dot.parameters]
    said = f"{_place(dot.parameters, dot.tokens)}: {dot.loss:.4g} {loss_name}"
    said += f", {dot.left_over:+.2g} % beside the law" if math.isfinite(dot.left_over) else ""
    return frame.mark(x, y, shape, look, said + (", of another kind" if dot.apart else ""), dot.apart)


def _apart_keys(runs: Sequence[Dot]) -> list[Key]:
    return [Key("a run of another kind", "ink", shape_of(0), hollow=True)] if any(one.apart for one in runs) else []


def _told_keys(told: Sequence[Foretold]) -> list[Key]:
    keys = [Key(f"predicted {one.loss:.4g}, 90 %: {one.low:.4g} to {one.high:.4g}", "told", shape_of(0), hollow=True) for one in told]
    came = [one for one in told if math.isfinite(one.got)]
    return keys + [Key(f"the run came to {one.got:.4g}, {'inside' if one.inside else 'outside'}", "ink", STAR) for one in came]


def _loss_said(runs: Sequence[Dot], told: Sequence[Foretold], loss_name: str) -> str:
    if not runs:
        return _NOTHING
    best = min(runs, key=lambda one: one.loss)
    said = f"{len(runs)} runs. The least loss, {best.loss:.4g} {loss_name}, is that of {_place(best.parameters, best.tokens)}."
    for one in told:
        said += f" Predicted for {_place(one.parameters, one.tokens)}: {one.loss:.4g}, from {one.low:.4g} to {one.high:.4g}."
        if math.isfinite(one.got):
            said += f" The run came to {one.got:.4g}, {'inside' if one.inside else 'outside'} the interval."
    return said


def _place(parameters: float, tokens: float) -> str:
    return f"{short(parameters, 'B')} parameters × {short(tokens, 'B')} tokens"
