"""A chart of joules by day: bars for the energy, whiskers for its interval. SVG is written here, PNG by Pillow."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingle.core.energy import amount
from ingle.core.errors import ConfigError
from ingle.core.files import write_atomic
from ingle.core.installing import how_to_install
from ingle.energy.totals import AccountLine

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 34, 34
_MOST_NAMES = 8
"""Most days named under the bars."""
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
