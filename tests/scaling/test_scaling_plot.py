"""The plots of a sweep: what stands where, that texts don't touch, and that everybody can tell the colours apart."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ingle.scaling.plot import (
    ComputeUnit,
    Curve,
    Dot,
    EqualLoss,
    Foretold,
    SizeLine,
    equal_loss,
    loss_against_compute,
    marginal_gain,
    residuals,
)
from ingle.train.loss_curve import COLOURS, PAPER, STAR, WIDTH, Scale, alike, colour_class, loss_svg, scale_over, shape_of, short

SVG = "{http://www.w3.org/2000/svg}"
SIZES, TOKENS = (0.24e6, 0.82e6, 1.19e6, 2.76e6), (0.75e6, 1.5e6, 3e6)


def law(parameters: float, tokens: float) -> float:
    return 1.1 + 30 / parameters**0.3 + 60 / tokens**0.35


def runs() -> list[Dot]:
    """Twelve; one of them of another kind."""
    found = []
    for i, (n, d) in enumerate(itertools.product(SIZES, TOKENS)):
        off = 1.05 if i == 4 else 1 + 0.004 * (-1) ** i
        found.append(Dot(n, d, law(n, d) * off, 6 * n * d, law(n, d), i == 4))
    return found


def size_lines() -> list[SizeLine]:
    tokens = np.geomspace(5e5, 6e6, 40)
    return [SizeLine(n, Curve(tuple(6 * n * tokens), tuple(law(n, d) for d in tokens))) for n in SIZES]


def foretold(got: float = math.nan) -> Foretold:
    n, d = 6.43e6, 5.25e6
    return Foretold(n, d, 6 * n * d, law(n, d), law(n, d) * 0.98, law(n, d) * 1.02, got)


FLOPS = tuple(np.geomspace(5e11, 4e14, 40))
BEST = tuple(3 - 0.1 * math.log10(c) for c in FLOPS)
FRONTIER = Curve(FLOPS, BEST, tuple(y - 0.05 for y in BEST), tuple(y + 0.05 for y in BEST))
LEVELS = [EqualLoss(y, Curve((2e5, 1e6, 3e6), (4e6 * k, 2e6 * k, 0.8e6 * k))) for k, y in ((1.0, 2.2), (0.6, 2.3), (0.58, 2.31))]
GAIN = Curve((1.0, 2.0, 4.0, 8.0), (0.2, 0.1, 0.04, 0.02), (0.1, 0.05, 0.02, 0.01), (0.3, 0.2, 0.06, 0.03))
PLOTS = {
    "loss": loss_against_compute(runs(), size_lines(), FRONTIER, foretold(law(6.43e6, 5.25e6))),
    "loss, many sizes": loss_against_compute([Dot(10.0**i, 1e6, 3 - i / 9, 6e6 * 10.0**i) for i in range(3, 12)], (), FRONTIER, foretold()),
    "loss, no law": loss_against_compute(runs()),
    "loss, one run": loss_against_compute(runs()[:1]),
    "loss, nothing": loss_against_compute([]),
    "equal": equal_loss(runs(), LEVELS, Curve((2e5, 2e6), (1e6, 5e6)), foretold()),
    "equal, nothing": equal_loss([], []),
    "gain": marginal_gain(GAIN, 3.2, ComputeUnit("core minute", "core minutes", 3.6e12)),
    "gain, unsure": marginal_gain(Curve((1.0, 2.0, 3.0), (0.1, -0.1, 0.0), (-0.2, -0.3, -1.0), (0.2, 0.1, 0.1)), 2.5),
    "gain, nothing": marginal_gain(Curve((), ())),
    "residuals": residuals(runs(), 0.006),
    "residuals, no law": residuals([Dot(1e6, 1e6, 2.0, 6e12)]),
    "training": loss_svg("loss <nats>", [(i, 5 / (1 + i)) for i in range(50)], [(10, 3.0), (49, 1.0)]),
    "training, nothing": loss_svg("loss", [], []),
}


def texts(svg: str) -> list[tuple[float, float, float, str]]:
    """(left, right, baseline, words) of every text that is drawn, with letters as wide as the widest usual font has them."""
    found = []
    for one in ET.fromstring(svg).iter(f"{SVG}text"):
        said, size = one.text or "", 15 if one.get("class") == "title" else 13
        wide, x = 0.54 * size * len(said), float(one.attrib["x"])
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[one.get("text-anchor", "start")]
        found.append((left, left + wide, float(one.attrib["y"]), said))
    return found


@pytest.mark.parametrize("name", PLOTS)
def test_texts_touch_neither_each_other_nor_the_border(name: str) -> None:
    found = texts(PLOTS[name])
    assert len(found) >= 2
    for left, right, y, said in found:
        assert left >= 0 and right <= WIDTH, said
        assert 10 < y < float(ET.fromstring(PLOTS[name]).attrib["height"]) - 2, said
    for one, other in itertools.combinations(found, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or abs(one[2] - other[2]) >= 13
        assert apart, f"{one[3]!r} touches {other[3]!r}"


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_is_one_file_with_a_title_and_words_for_who_does_not_see_it(name: str) -> None:
    root = ET.fromstring(PLOTS[name])
    [title, said] = [root.findtext(f"{SVG}{tag}") for tag in ("title", "desc")]
    assert title and said is not None and root.get("role") == "img"
    assert "prefers-color-scheme:dark" in PLOTS[name]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|<image|url\(|nan|inf\b(?!o)", PLOTS[name])


def test_what_was_predicted_and_what_came_are_drawn_and_said() -> None:
    open_, inside, outside = (loss_against_compute(runs(), (), FRONTIER, foretold(got)) for got in (math.nan, 1.65, 3.0))
    shown = foretold()
    assert f"predicted {shown.loss:.4g}, 90 %: {shown.low:.4g} to {shown.high:.4g}" in open_
    assert STAR not in open_ and "came" not in open_
    assert STAR in inside and "the run came to 1.65, inside" in inside
    assert "the run came to 3, outside" in outside and "outside the interval" in outside


def test_every_run_has_a_mark_where_it_lies() -> None:
    root = ET.fromstring(PLOTS["loss, no law"])
    marks = {one.findtext(f"{SVG}title"): one for one in root.iter(f"{SVG}g") if one.find(f"{SVG}title") is not None}
    assert len(marks) == 12
    places = {said: [float(v) for v in re.findall(r"[\d.]+", one.attrib["transform"])] for said, one in marks.items()}
    one = runs()
    words = [f"{short(run.parameters)} parameters × {short(run.tokens)} tokens: {run.loss:.4g} bits per byte" for run in one]
    where = [next(place for said, place in places.items() if said and said.startswith(text)) for text in words]
    assert np.array_equal(np.argsort([run.flops for run in one]), np.argsort([x for x, _ in where]))
    assert np.array_equal(np.argsort([-run.loss for run in one]), np.argsort([y for _, y in where]))
    [(x0, _), (x1, _), (x2, _)] = where[:3]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)  # twice the tokens is the same way each time


def test_a_run_of_another_kind_is_hollow_and_named() -> None:
    assert PLOTS["residuals"].lower().count("of another kind") == 3  # legend, mark, words
    assert PLOTS["residuals"].count(' hollow" transform') == 2
    assert "another kind" not in residuals([Dot(1e6, 1e6, 2.0, 6e12, 1.99)])
    assert "farthest lies 5 % from the law" in PLOTS["residuals"]


def test_runs_without_numbers_are_left_out() -> None:
    bad = [Dot(1e6, 1e6, loss, 6e12) for loss in (math.nan, math.inf, 0.0, -1.0)]
    assert loss_against_compute([*runs(), *bad]) == loss_against_compute(runs())
    assert "No run is done yet." in loss_against_compute(bad)


def test_the_point_of_a_quarter_is_marked() -> None:
    assert "a quarter of the first gain, at 3.2" in PLOTS["gain"]
    assert "gained by one more core minute" in PLOTS["gain"]
    assert "quarter of the first" not in marginal_gain(GAIN)


def test_numbers_are_short_and_round() -> None:
    said = {
        2.4e5: "0.24M",
        1e6: "1M",
        64e3: "64k",
        999.0: "999",
        999_900.0: "1M",
        0.25: "0.25",
        2e14: "200T",
        1.08e12: "1.08T",
        3e9: "3G",
        1e5: "0.1M",
    }
    assert {value: short(value) for value in said} == said
    assert short(1.7e9, "B") == "1.7B"
    assert alike([1.8, 2.0, 2.25]) == ["1.80", "2.00", "2.25"] and alike([0.0, 5.0]) == ["0", "5"] and alike([5e5, 1e6]) == ["0.5M", "1M"]
    assert Scale(0.2e6, 3e6, True).ticks() == [0.2e6, 0.5e6, 1e6, 2e6]
    assert Scale(1e3, 1e12, True).ticks() == [1e3, 1e5, 1e7, 1e9, 1e11]
    assert Scale(1.9, 2.4).ticks() == pytest.approx([1.9, 2.0, 2.1, 2.2, 2.3, 2.4])


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0], [math.nan], [1e-9, 1e9], [0.0, -1.0], [1.0, 1.0000001], [5.0, math.inf]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_have_axes(values: list[float], log: bool) -> None:
    scale = scale_over(values, log)
    assert scale.low < scale.high
    held = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    assert all(0 <= scale.share(value) <= 1 for value in held)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8 and ticks == sorted(set(ticks))
    assert all(-1e-6 <= scale.share(tick) <= 1 + 1e-6 for tick in ticks)


# Colours as people see them: Machado et al. 2009, complete loss of one kind of cone, on linear light.
SIGHTS = {
    "all": np.eye(3),
    "no red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    sent = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(sent <= 0.04045, sent / 12.92, ((sent + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.maximum(XYZ @ light / (XYZ @ np.ones(3)), 0.009))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """By WCAG; marks need 3."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [0, 1])
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_of_neighbouring_sizes_differ_for_everybody(sight: str, dark: int) -> None:
    seen = [lab(np.clip(SIGHTS[sight] @ linear(pair[dark]), 0, 1)) for pair in COLOURS]
    assert all(contrast(pair[dark], PAPER[dark]) >= 3 for pair in COLOURS)
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 8
    four = [seen[int(colour_class(i, 4)[1:])] for i in range(4)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(four, 2)) > 12


def test_up_to_six_sizes_have_colours_and_shapes_of_their_own() -> None:
    for count in range(1, 7):
        assert len({colour_class(i, count) for i in range(count)}) == count == len({shape_of(i) for i in range(count)})
    assert len({(colour_class(i, 9), shape_of(i)) for i in range(9)}) >= 6
