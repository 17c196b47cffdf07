"""The journal of a training: a line a step in `loss.csv`, and its curve in `loss.svg`."""

import csv
import io
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, sweep_unfinished, write_atomic

# Axes, marks and lines of a plot as SVG text. Every browser shows it, in light and in dark; nothing is loaded and no script runs.


WIDTH = 640.0
_LEFT, _RIGHT, _BELOW = 64.0, 18.0, 52.0
# Heights and widths of text in user units. A character is given more than most fonts take, so that texts never touch.
_LINE, _CHARACTER, _GLYPH = 18.0, 7.0, 26.0
# Background in light and in dark, as the page has it.
PAPER = ("#fffdf9", "#231d19")
# Colours in light and in dark, in an order that stays one of lightness for people who can't tell red from green.
COLOURS = (
    ("#0b0770", "#c24ba6"), ("#4a039f", "#d85f94"), ("#820aa0", "#e87b7b"), ("#b02991", "#f29a5c"), ("#d14e72", "#f9b93c"),
    ("#e0702a", "#f0e442"),
)  # fmt: skip
_INK = (
    ("text", "fill", "#2a2420", "#ebe2d7"), (".soft", "fill", "#70645a", "#a5978a"), (".paper", "fill", *PAPER),
    (".grid", "stroke", "#e4d9c9", "#362d26"), (".edge", "stroke", "#70645a", "#a5978a"),
    (".ink", "color", "#2a2420", "#ebe2d7"), (".best", "color", "#0f6f5c", "#4fc3a5"), (".told", "color", "#b4481f", "#ff9d66"),
    (".pale", "color", "#e5a46f", "#8a5a3a"),
)  # fmt: skip
_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", "M-4 -4h8v8h-8z", "M0 -5.2l5.2 9h-10.4z", "M0 -5.6l5.6 5.6l-5.6 5.6l-5.6 -5.6z",
    "M0 5.2l5.2 -9h-10.4z", "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
)  # fmt: skip
STAR = "M0 -7.5l2.2 4.9 5.3 .6 -4 3.6 1.1 5.3 -4.6 -2.7 -4.6 2.7 1.1 -5.3 -4 -3.6 5.3 -.6z"
_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: float, billion: str = "G") -> str:
    """Return a number as an axis has it: 0.25M, 1M, 64k, 3T. `billion`: the letter of 10⁹, B where things are counted."""
    for size, letter in _UNITS:
        if abs(value) >= size * (0.0999999 if letter == "M" else 0.9995):
            return f"{value / size:.3g}{billion if letter == 'G' else letter}"
    return f"{value:.3g}"


def alike(values: Sequence[float], billion: str = "G") -> list[str]:
    """Return numbers as an axis in equal steps has them: all with as many decimals as one of them needs."""
    texts = [short(value, billion) for value in values]
    if any(text[-1:].isalpha() or "e" in text for text in texts):
        return texts
    decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{value:.{decimals}f}" for value in values]


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis: the values at its two ends, in equal steps or in equal factors."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -math.inf
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 7) -> list[float]:
        """Return round values between the ends, at most this many."""
        if self.log and self.high / self.low > 6:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = self._inside(step * 10.0**power for power in range(first, last + 1) for step in steps)
                if 2 <= len(found) <= most:
                    return found
            powers = self._inside(10.0**power for power in range(first, last + 1))
            return powers[:: -(-len(powers) // most)] or self._inside((self.low, self.high))
        span = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(span))
        step = next(times * unit for times in (1, 2, 5, 10) if times * unit >= span)
        return self._inside(step * k for k in range(math.floor(self.low / step), math.ceil(self.high / step) + 1))

    def _inside(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if -1e-9 <= self.share(value) <= 1 + 1e-9]


def scale_over(values: Iterable[float], log: bool = False, room: float = 0.05) -> Scale:
    """Return the axis that holds these values with some room. Values that are no number, and for factors those below 0, don't count."""
    kept = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(kept), max(kept)) if kept else (1.0, 2.0)
    if log:
        factor = (high / low) ** room if high > low * 1.0001 else 1.5
        return Scale(low / factor, high * factor, True)
    more = room * (high - low) if high - low > 1e-9 * max(abs(high), abs(low), 1e-9) else 0.05 * abs(high) or 1.0
    return Scale(low - more, high + more)


@dataclass(frozen=True, slots=True)
class Frame:
    """The field of a plot between its axes, in user units."""

    x: Scale
    y: Scale
    top: float
    bottom: float

    @property
    def left(self) -> float:
        """Where the upright axis stands."""
        return _LEFT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a pair of values lies, from the left and from the top."""
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * self.x.share(x), self.bottom - (self.bottom - self.top) * self.y.share(y)

    def holds(self, x: float, y: float) -> bool:
        """Whether a pair of values lies in the field."""
        return all(math.isfinite(value) and -0.001 <= value <= 1.001 for value in (self.x.share(x), self.y.share(y)))

    def line(self, points: Sequence[tuple[float, float]], look: str, width: float = 2.0, dashes: str = "") -> str:
        """A line through the points, broken where one lies outside."""
        way, pen = list[str](), "M"
        for x, y in points:
            if self.holds(x, y):
                across, down = self.at(x, y)
                way.append(f"{pen}{across:.1f} {down:.1f}")
            pen = "L" if self.holds(x, y) else "M"
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        path = f'<path class="{look}" d="{"".join(way)}" fill="none" stroke="currentColor" stroke-width="{width:g}"{dashed}/>'
        return path if way else ""

    def band(self, points: Sequence[tuple[float, float, float]], look: str) -> str:
        """A field between low and high values (x, low, high), cut at the frame."""
        inside = [(x, self._cut(low), self._cut(high)) for x, low, high in points if -0.001 <= self.x.share(x) <= 1.001]
        way = [self.at(x, high) for x, _, high in inside] + [self.at(x, low) for x, low, _ in reversed(inside)]
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in way)
        return f'<path class="{look}" d="M{path}z" fill="currentColor" fill-opacity=".18"/>' if way else ""

    def bar(self, x: float, low: float, high: float, look: str) -> str:
        """An interval: an upright line with a foot and a head, cut at the frame."""
        (across, foot), (_, head) = self.at(x, self._cut(low)), self.at(x, self._cut(high))
        ends = "".join(f"M{across - 6:.1f} {y:.1f}h12" for y in (foot, head))
        return f'<path class="{look}" d="M{across:.1f} {foot:.1f}V{head:.1f}{ends}" fill="none" stroke="currentColor" stroke-width="2.4"/>'

    def mark(self, x: float, y: float, shape: str, look: str, said: str, hollow: bool = False) -> str:
        """A mark, with the words that a pointer over it shows; "" outside of the frame."""
        return _glyph(*self.at(x, y), shape, look, hollow, said) if self.holds(x, y) else ""

    def grid(self, name_x: str, name_y: str, billion: str = "G", named: Sequence[tuple[float, str]] = ()) -> str:
        """Both axes with their ticks, numbers and names. `named`: ticks across with names of their own."""
        left, right, low = _LEFT, WIDTH - _RIGHT, self.bottom
        parts = [f'<text class="soft" x="8" y="{self.top - 10:.1f}">{escaped(name_y)}</text>']
        ticks = self.y.ticks()
        for value, name in zip(ticks, alike(ticks, billion) if not self.y.log else [short(tick, billion) for tick in ticks], strict=True):
            _, down = self.at(self.x.low, value)
            parts.append(f'<path class="grid" d="M{left} {down:.1f}H{right}"/>')
            parts.append(f'<text x="{left - 8}" y="{down + 4.5:.1f}" text-anchor="end">{name}</text>')
        for value, name in named or [(value, short(value, billion)) for value in self.x.ticks()]:
            across, _ = self.at(value, self.y.low)
            parts.append(f'<path class="grid" d="M{across:.1f} {low}V{self.top:.1f}"/>')
            parts.append(f'<text x="{across:.1f}" y="{low + 19:.1f}" text-anchor="middle">{escaped(name)}</text>')
        parts.append(f'<path class="edge" d="M{left} {low}H{right}"/>')
        parts.append(f'<text class="soft" x="{right}" y="{low + 40:.1f}" text-anchor="end">{escaped(name_x)}</text>')
        return "".join(parts)

    def words(self, x: float, y: float, text: str, anchor: str = "start") -> str:
        """A short text beside a pair of values, which stays readable over lines."""
        across, down = self.at(x, y)
        return f'<text class="halo" x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'

    def note(self, text: str) -> str:
        """A sentence in the middle of the field, where there is nothing to draw."""
        middle = (_LEFT + WIDTH - _RIGHT) / 2, (self.top + self.bottom) / 2
        return f'<text class="halo" x="{middle[0]:.1f}" y="{middle[1]:.1f}" text-anchor="middle">{escaped(text)}</text>'

    def _cut(self, y: float) -> float:
        return min(max(y, self.y.low), self.y.high)


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a plot's legend. Its sign is a shape, or a line where there is none."""

    words: str
    look: str
    shape: str = ""
    hollow: bool = False
    dashes: str = ""
    band: bool = False


def legend(keys: Sequence[Key], top: float) -> tuple[str, float]:
    """Return the entries in as many lines as they need, and where the last line ends."""
    parts, x, y = list[str](), 8.0, top
    for key in keys:
        width = _GLYPH + _CHARACTER * len(key.words) + 10
        if x > 8 and x + width > WIDTH - 8:
            x, y = 8.0, y + _LINE
        middle = y - 4.5
        if key.band:
            sign = f'<path class="{key.look}" d="M{x} {middle - 5}h18v10h-18z" fill="currentColor" fill-opacity=".18"/>'
        elif key.shape:
            sign = _glyph(x + 9, middle, key.shape, key.look, key.hollow)
        else:
            dashed = f' stroke-dasharray="{key.dashes}"' if key.dashes else ""
            sign = f'<path class="{key.look}" d="M{x} {middle}h18" stroke="currentColor" stroke-width="2.4"{dashed}/>'
        parts.append(f'{sign}<text x="{x + 24:.1f}" y="{y:.1f}">{escaped(key.words)}</text>')
        x += width
    return "".join(parts), y


def frame_below(top: float, x: Scale, y: Scale, height: float = 280.0) -> Frame:
    """Return the frame under a legend that ends at `top`."""
    return Frame(x, y, top + 36, top + 36 + height)


def document(title: str, said: str, frame: Frame, parts: Iterable[str]) -> str:
    """Return the file. `said`: the plot in words, for people who don't see it."""
    high = frame.bottom + _BELOW
    size = f'viewBox="0 0 {WIDTH:g} {high:g}" width="{WIDTH:g}" height="{high:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" {size}>'
    about = f"<title>{escaped(title)}</title><desc>{escaped(said)}</desc><style>{_style()}</style>"
    back = f'<rect class="paper" width="{WIDTH:g}" height="{high:g}"/><text class="title" x="8" y="24">{escaped(title)}</text>'
    return "\n".join([head + about, back, *(part for part in parts if part), "</svg>"])


def colour_class(index: int, of: int) -> str:
    """Return the class of one of `of` colours, spread over all that there are."""
    last = len(COLOURS) - 1
    return f"c{round(index * last / max(of - 1, 1)) if of <= len(COLOURS) else index % len(COLOURS)}"


def shape_of(index: int) -> str:
    """Return the shape of a mark, so that colour is never all that tells two apart."""
    return _SHAPES[index % len(_SHAPES)]


def escaped(text: str) -> str:
    """Return a text as SVG and HTML may have it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _glyph(x: float, y: float, shape: str, look: str, hollow: bool, said: str = "") -> str:
    about = f"<title>{escaped(said)}</title>" if said else ""
    inner = "hollow" if hollow else "full"
    return f'<g class="{look} {inner}" transform="translate({x:.1f} {y:.1f})"><path d="{shape}"/>{about}</g>'


def _style() -> str:
    inks = (*_INK, *((f".c{i}", "color", *pair) for i, pair in enumerate(COLOURS)))
    light, dark = (
        "".join(f".plot {name}{{{what}:{pair[k]}}}" for name, what, *pair in inks)
        + f".plot .full path{{fill:currentColor;stroke:{paper}}}.plot .hollow path{{fill:{paper};stroke:currentColor;stroke-width:1.8}}"
        + f".plot .halo{{paint-order:stroke;stroke:{paper};stroke-width:4px;stroke-linejoin:round}}"
        for k, paper in enumerate(PAPER)
    )
    text = ".plot text{font:13px system-ui,sans-serif}.plot .title{font-weight:600;font-size:15px}"
    return f"{text}{light}@media (prefers-color-scheme:dark){{{dark}}}"


# A loss curve as an SVG file.


Points = Sequence[tuple[float, float]]


def loss_svg(title: str, loss: Points, held_out: Points) -> str:
    """Draw the training loss, a running mean over it, and the held-out loss: steps along, nats up."""
    everything = [*loss, *held_out]
    values = sorted(y for _, y in everything if math.isfinite(y)) or [0.0, 1.0]
    high = values[min(len(values) - 1, math.ceil(0.995 * len(values)))]  # one spike must not flatten the rest
    steps = [x for x, _ in everything] or [0.0, 1.0]
    drawn = [(name, look, points) for name, look, points in (("loss", "told", _smooth(loss)), ("held out", "c0", held_out)) if points]
    keys, end = legend([Key(f"{name} {points[-1][1]:.4f}", look) for name, look, points in drawn], 48)
    frame = frame_below(end, Scale(min(steps), max(*steps, min(steps) + 1)), scale_over((values[0], high)))
    lines = [frame.line(points, look, 1.4 if look == "told" else 2.4) for _, look, points in drawn]
    said = "; ".join(f"{name}: {points[0][1]:.4f} at first, {points[-1][1]:.4f} at last" for name, _, points in drawn)
    return document(title, said, frame, [keys, frame.grid("step", "nats"), frame.line(loss, "pale", 0.8), *lines])


def _smooth(points: Points) -> list[tuple[float, float]]:
    """Running means over about a twentieth of all points."""
    share, mean, done = 2 / (len(points) / 20 + 2), 0.0, []
    for i, (x, y) in enumerate(points):
        mean += (y - mean) * max(share, 1 / (i + 1))
        done.append((x, mean))
    return done


# Journal of a run: `loss.csv`, a line a step, and `loss.svg`, drawn anew every minute and at the end.


_DRAW_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One step as a line of loss.csv."""

    step: int  # steps done, this one included
    epoch: float  # times that the data was read
    tokens: int  # tokens read so far
    seconds: float  # time spent on training so far
    rate: float  # learning rate of this step
    norm: float  # length of the gradient before clipping
    loss: float  # mean over the terms of this step's batches: nats per answer token, or per example
    held_out: float = math.nan  # mean loss on held-out data, where it was measured after this step


class Journal:
    """Files of one run. A run that goes on continues them after its last checkpoint."""

    def __init__(self, folder: Path, step: int) -> None:
        """Raises HomeError where the folder can't be written, ConfigError if loss.csv is somebody else's."""
        self._path, self._svg = folder / "loss.csv", folder / "loss.svg"
        self.lines = [line for line in _read(self._path) if line.step <= step]
        for path in (self._path, self._svg):
            sweep_unfinished(path)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(field.name for field in fields(JournalLine))
        writer.writerows(map(astuple, self.lines))
        write_atomic(self._path, text.getvalue().encode())
        self._drawn = time.monotonic()

    def add(self, line: JournalLine) -> None:
        """Add a line; it is on the disk when this returns."""
        self.lines.append(line)
        with os_errors(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(astuple(line))
        if time.monotonic() - self._drawn > _DRAW_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Draw the loss curve."""
        loss = [(line.step, line.loss) for line in self.lines]
        held_out = [(line.step, line.held_out) for line in self.lines if not math.isnan(line.held_out)]
        write_atomic(self._svg, loss_svg("loss, nats, by step", loss, held_out).encode())
        self._drawn = time.monotonic()


def _read(path: Path) -> list[JournalLine]:
    if not path.exists():
        return []
    with os_errors(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        names = {field.name for field in fields(JournalLine)}
        if rows.fieldnames is not None and set(rows.fieldnames) != names:
            raise ConfigError(str(path), "must be a run's own loss.csv", ", ".join(rows.fieldnames[:3]), "Give another folder.")
        whole = [row for row in rows if None not in row.values() and None not in row]  # a crash may cut off the last line
    whole_numbers = {"step", "tokens"}
    lines = []
    for row in whole:
        try:
            lines.append(JournalLine(**{name: int(text) if name in whole_numbers else float(text) for name, text in row.items()}))  # type: ignore[arg-type]
        except ValueError:
            break
    return lines
