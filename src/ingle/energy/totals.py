"""A home's energy use, added up from its ledger: by day, model or activity."""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ingle.core.energy import JOULES_PER_WH, NOTHING, Energy, amount, energy_in
from ingle.core.errors import ConfigError
from ingle.core.files import how_to_install, write_atomic
from ingle.core.makers import MAKERS

# Grams of CO₂ equivalent per kilowatt-hour of electricity, by country: a year's average of its generation, life cycle included. What a
# country imports is not in it, nor what a contract for green power says.
# Source: Our World in Data, from Ember and the Energy Institute (CC BY 4.0), as CodeCarbon 3.3 carries it; world and EU: Ember's yearly
# reviews of 2024. Offline: nothing is fetched.


SOURCE, REVIEWS = "Our World in Data, from Ember", "Ember, reviews of 2024"
WORLD, UNION = "WORLD", "EU"
_OF_2023 = {
    "WORLD": 480, "EU": 242,
    "AR": 354, "AT": 111, "AU": 549, "BA": 600, "BD": 691, "BE": 138, "BG": 335, "BO": 532, "BR": 98, "CA": 170, "CH": 35, "CL": 291,
    "CN": 582, "CO": 260, "CR": 53, "CY": 534, "CZ": 450, "DE": 381, "DK": 152, "EC": 150, "EE": 417, "EG": 570, "ES": 174, "FI": 79,
    "FR": 56, "GB": 238, "GE": 168, "GR": 337, "HR": 205, "HU": 204, "IE": 291, "IN": 713, "IR": 655, "IT": 331, "JP": 485, "KE": 70,
    "KR": 431, "KW": 649, "KZ": 821, "LT": 160, "LU": 105, "LV": 123, "MA": 630, "MD": 643, "ME": 417, "MK": 565, "MM": 399, "MN": 775,
    "MT": 459, "MX": 507, "NG": 523, "NL": 268, "NO": 30, "NZ": 113, "OM": 565, "PE": 266, "PH": 611, "PK": 441, "PL": 662, "PT": 166,
    "PY": 24, "QA": 602, "RO": 241, "RS": 636, "RU": 441, "SE": 41, "SG": 471, "SI": 231, "SK": 117, "SV": 271, "TH": 550, "TN": 564,
    "TR": 465, "TW": 642, "US": 369, "UY": 129, "VN": 475, "ZA": 708,
}  # fmt: skip
_OF_2022 = {
    "AE": 561, "AL": 24, "AM": 265, "AZ": 671, "BY": 442, "DO": 581, "DZ": 635, "ET": 25, "GH": 484, "GT": 328, "HK": 699, "ID": 676,
    "IL": 583, "IQ": 689, "IS": 28, "JM": 556, "JO": 541, "KG": 147, "LB": 599, "LK": 510, "MY": 606, "PA": 162, "PR": 679, "SA": 707,
    "TJ": 117, "TM": 1306, "TT": 682, "UA": 260, "UZ": 1168, "VE": 186,
}  # fmt: skip
_OTHER_NAMES = {"UK": "GB", "EL": "GR", "WORLDWIDE": WORLD}


@dataclass(frozen=True, slots=True)
class PowerGrid:
    """The electricity of one country."""

    region: str  # ISO 3166 code of two letters; also EU and WORLD
    g_per_kwh: float  # CO₂ equivalent
    year: int
    source: str = SOURCE

    def grams(self, energy: Energy) -> tuple[float, float, float]:
        """Return the grams for this energy: nominal, low, high. The interval is the energy's alone."""
        per_joule = self.g_per_kwh / 1000 / JOULES_PER_WH
        return energy.joules * per_joule, energy.low * per_joule, energy.high * per_joule

    def __str__(self) -> str:
        return f"{self.region}, {self.g_per_kwh:g} g/kWh in {self.year} ({self.source})"


def find_grid(region: str) -> PowerGrid:
    """Return the electricity of a country. Raises ConfigError for one that is not in the table."""
    name = region.strip().upper()
    name = _OTHER_NAMES.get(name, name)
    for year, table in ((2023, _OF_2023), (2022, _OF_2022)):
        if name in table:
            return PowerGrid(name, float(table[name]), year, REVIEWS if name in (WORLD, UNION) else SOURCE)
    known = ", ".join(sorted({*_OF_2023, *_OF_2022} - {WORLD}))
    raise ConfigError("--region", "must be a country in the table, by its two letters", region, f"Known: {known}, and WORLD.")


# Activities by kind of fact; makers' activities are in core/makers.py.
_ACTIVITIES = {
    "answer": "answers",
    "energy.label": "labels",
    "hear": "hearing",
    "speak": "speaking",
}
Side = Literal["day", "model", "activity"]
SIDES: tuple[Side, ...] = ("day", "activity", "model")


@dataclass(frozen=True, slots=True)
class Deed:
    """One use of energy."""

    day: str  # UTC, `2026-11-26`
    activity: str
    model: str  # the model's name at the time
    energy: Energy | None  # none if Ingle had no meter yet


@dataclass(frozen=True, slots=True)
class AccountLine:
    """The sum of several deeds."""

    name: str
    count: int
    unmetered: int  # deeds without a figure; they are not in `energy`
    energy: Energy

    def table(self, grid: PowerGrid | None) -> dict[str, Any]:
        """Return a table for JSON."""
        table = {"name": self.name, "count": self.count, "unmetered": self.unmetered, **self.energy.table()}
        table["wh"] = float(f"{self.energy.wh:.6g}")
        return table | ({"co2_g": [float(f"{grams:.4g}") for grams in grid.grams(self.energy)]} if grid else {})


def deed_of(at: str, kind: str, subject: str, facts: Mapping[str, Any]) -> Deed | None:
    """Return the energy use in a row of the ledger; None if there is none worth mentioning. `at`: UTC, ISO 8601."""
    maker = MAKERS.get(kind)
    activity = maker.activity if maker else _ACTIVITIES.get(kind)
    return None if not activity else Deed(at[:10], activity, subject, energy_in(facts))


def add_up(deeds: Iterable[Deed], by: Side | None = None) -> list[AccountLine]:
    """Return one line for each day, model or activity, by name; without `by`, one line for all."""
    groups: dict[str, list[Deed]] = defaultdict(list)
    key: Callable[[Deed], str] = (lambda deed: str(getattr(deed, by))) if by else (lambda _: "all")
    for deed in deeds:
        groups[key(deed)].append(deed)
    return [_line(name, groups[name]) for name in sorted(groups)]


def days(deeds: Sequence[Deed]) -> list[AccountLine]:
    """Return a line for every day, those without any use included."""
    lines = {line.name: line for line in add_up(deeds, "day")}
    if not lines:
        return []
    first, last = (datetime.fromisoformat(name).replace(tzinfo=UTC) for name in (min(lines), max(lines)))
    names = [(first + timedelta(days=i)).date().isoformat() for i in range((last - first).days + 1)]
    return [lines.get(name, AccountLine(name, 0, 0, NOTHING)) for name in names]


def _line(name: str, deeds: Sequence[Deed]) -> AccountLine:
    whole = NOTHING
    for deed in deeds:
        whole = whole + (deed.energy or NOTHING)
    return AccountLine(name, len(deeds), sum(deed.energy is None for deed in deeds), whole)


# A chart of joules by day: bars for the energy, whiskers for its interval. SVG is written here, PNG by Pillow.


WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 34, 34
_MOST_NAMES = 8  # most days named under the bars
_WIDEST = 60.0
_TEXT, _BAR, _WHISKER, _GRID = "#333333", "#fdba74", "#7c2d12", "#dddddd"


@dataclass(frozen=True, slots=True)
class Box:
    """A filled box; with a side of 0, a line."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Words:
    """A text; `anchor` says which end of it is at x."""

    x: float
    y: float
    text: str
    anchor: str = "start"


Shape = Box | Words


def draw(path: Path, title: str, lines: Sequence[AccountLine]) -> None:
    """Draw the chart of these days into a file. Raises ConfigError for an unknown kind of file, HomeError where the disk refuses."""
    kind = path.suffix.lower()
    if kind not in (".svg", ".png"):
        raise ConfigError("--plot", "must be a file that ends in .svg or .png", path.name)
    shapes = list(_shapes(title, lines))
    write_atomic(path, svg(shapes).encode() if kind == ".svg" else png(shapes))


def svg(shapes: Sequence[Shape]) -> str:
    """Return the shapes as an SVG file."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [head + f' font-family="sans-serif" font-size="12" fill="{_TEXT}">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for one in shapes:
        if isinstance(one, Words):
            text = one.text.replace("&", "&amp;").replace("<", "&lt;")
            parts.append(f'<text x="{one.x:.1f}" y="{one.y:.1f}" text-anchor="{one.anchor}">{text}</text>')
        else:
            sides = f'width="{max(one.width, 1):.1f}" height="{max(one.height, 1):.1f}"'
            parts.append(f'<rect x="{one.x:.1f}" y="{one.y:.1f}" {sides} fill="{one.colour}"/>')
    return "\n".join([*parts, "</svg>"])


def png(shapes: Sequence[Shape], scale: int = 2) -> bytes:
    """Return the shapes as a PNG file. Raises ConfigError where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        cure = f"Name a file that ends in .svg, or install it. {how_to_install('plot')}"
        raise ConfigError("--plot", "Drawing a PNG needs Pillow, which is not installed", "", cure) from error
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(12 * scale)
    for one in shapes:
        if isinstance(one, Words):
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[one.anchor]
            pen.text((one.x * scale, one.y * scale), one.text, fill=_TEXT, font=font, anchor=anchor)
        else:
            right, bottom = one.x + max(one.width, 1), one.y + max(one.height, 1)
            pen.rectangle((one.x * scale, one.y * scale, right * scale, bottom * scale), fill=one.colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _shapes(title: str, lines: Sequence[AccountLine]) -> Iterator[Shape]:
    yield Words(_LEFT, 20, title)
    most = max((line.energy.high for line in lines), default=0.0) or 1.0
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    floor = HEIGHT - _BOTTOM
    for i in range(5):
        y = floor - down * i / 4
        yield Box(_LEFT, y, across, 0, _GRID)
        yield Words(_LEFT - 6, y + 4, amount(most * i / 4), "end")
    step = across / max(1, len(lines))
    every = -(-len(lines) // _MOST_NAMES)
    for i, line in enumerate(lines):
        x, heights = _LEFT + step * (i + 0.5), [down * value / most for value in (line.energy.joules, line.energy.low, line.energy.high)]
        if line.count:
            width = min(0.7 * step, _WIDEST)
            yield Box(x - width / 2, floor - heights[0], width, heights[0], _BAR)
            yield Box(x - 0.5, floor - heights[2], 1, heights[2] - heights[1], _WHISKER)
        if i % every == 0:
            yield Words(x, floor + 18, line.name, "middle")
