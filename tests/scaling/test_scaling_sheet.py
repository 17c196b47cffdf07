"""Lines of a law are what a slow search finds; a sweep's report says what its files say, and what is missing."""

import json
import math
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingle.core.config import from_table, to_table
from ingle.core.errors import ConfigError, NotKept
from ingle.home.place import Home
from ingle.scaling.frontier import Curves, curves_of, fit_svg
from ingle.scaling.interval import Fit, fit_points
from ingle.scaling.points import Place, Point
from ingle.scaling.sheet import findings, plots_of, read_sheet, report_html, sheet_table, sweeps_of, write_report
from tests.scaling.sheets import ADVICE, LARGE, SIZES, TOKENS, kept_sweep, loss_at, write

SVG = "{http://www.w3.org/2000/svg}"
PLACE = Place(LARGE["parameters"], LARGE["tokens"])


def points(noise: float = 0.0) -> list[Point]:
    draw = np.random.default_rng(1)
    return [Point(n, d, loss_at(n, d) * float(np.exp(noise * draw.standard_normal()))) for n in SIZES.values() for d in TOKENS]


@pytest.fixture(scope="module")
def exact() -> Fit:
    return fit_points(points(), ("chinchilla",))


@pytest.fixture(scope="module")
def noisy() -> Fit:
    return fit_points(points(0.005))


def test_lines_of_a_known_law_are_exact(exact: Fit) -> None:
    curves = curves_of(exact, PLACE)
    scale = (0.3 * 30 / (0.35 * 60)) ** (1 / 0.65)
    for flops, least, size in zip(curves.frontier.x, curves.frontier.y, curves.best_sizes.y, strict=True):
        best = scale * (flops / 6) ** (0.35 / 0.65)
        assert size == pytest.approx(best, rel=0.01)
        assert least == pytest.approx(loss_at(best, flops / 6 / best), rel=1e-4)
    fall = 0.3 * 0.35 / 0.65
    assert curves.quarter == pytest.approx(curves.gain.x[0] * 4 ** (1 / (1 + fall)), rel=0.04)
    assert curves.expected == pytest.approx([one.loss for one in exact.points], rel=1e-4)
    for size_line in curves.sizes:
        for flops, loss in zip(size_line.line.x, size_line.line.y, strict=True):
            assert loss == pytest.approx(loss_at(size_line.parameters, flops / 6 / size_line.parameters), rel=1e-4)
    assert len(curves.levels) >= 5
    for level in curves.levels:
        for size, tokens in zip(level.line.x, level.line.y, strict=True):
            assert loss_at(size, tokens) == pytest.approx(level.loss, rel=1e-3)


def test_the_best_split_and_its_interval_are_those_of_a_slow_search(noisy: Fit) -> None:
    """Every drawn law is searched by itself, over many more splits."""
    curves = curves_of(noisy, PLACE)
    for i in (0, 16, 32):
        flops = curves.frontier.x[i]
        sizes = np.geomspace(math.sqrt(flops / 6 / 3000), math.sqrt(flops / 6 / 0.03), 2001)
        drawn = noisy.samples([Place(n, flops / 6 / n) for n in sizes.tolist()])
        low, middle, high = np.quantile(drawn.min(axis=1), [0.05, 0.5, 0.95])
        line = curves.frontier
        assert (line.low[i], line.y[i], line.high[i]) == pytest.approx((low, middle, high), rel=2e-4)
        low, middle, high = np.quantile(sizes[drawn.argmin(axis=1)], [0.05, 0.5, 0.95])
        line = curves.best_sizes
        assert (line.low[i], line.y[i], line.high[i]) == pytest.approx((low, middle, high), rel=0.03)


def test_a_gain_is_what_the_next_compute_takes_off(noisy: Fit) -> None:
    curves = curves_of(noisy)
    x, least, gain = (np.array(part) for part in (curves.frontier.x, curves.frontier.y, curves.gain.y))
    inner = slice(2, -2)
    assert -np.gradient(least, x)[inner] == pytest.approx(gain[inner], rel=0.05)
    assert (np.diff(gain) < 0).all() and (np.array(curves.gain.low) <= gain).all() and (gain <= np.array(curves.gain.high)).all()
    assert x[-1] == pytest.approx(3 * noisy.largest)


def test_lines_end_where_laws_are_no_longer_believed(noisy: Fit) -> None:
    far = curves_of(noisy, Place(1e9, 1e9))
    assert far.frontier.x[-1] == pytest.approx(10 * noisy.largest)


def test_lines_come_back_from_a_file_as_they_were(noisy: Fit) -> None:
    curves = curves_of(noisy, PLACE)
    assert from_table(Curves, json.loads(json.dumps(to_table(curves), allow_nan=False))) == curves


def test_anyones_runs_are_drawn(noisy: Fit) -> None:
    text = "".join(ET.fromstring(fit_svg(noisy, loss_name="nats")).itertext())
    assert "nats" in text and text.count("beside the law") == 12 and "another kind" not in text
    some = [replace(one, loss=one.loss * (1.08 if i in (2, 7) else 1)) for i, one in enumerate(points(0.003))]
    text = "".join(ET.fromstring(fit_svg(fit_points(some))).itertext())
    assert text.count(", of another kind") == 2


def test_a_sweep_that_was_checked_is_told_whole(tmp_path: Path) -> None:
    home = Home(tmp_path)
    came = loss_at(LARGE["parameters"], LARGE["tokens"]) * 1.004
    folder = kept_sweep(home, came=came)
    sheet = read_sheet(home, "street")
    report = write_report(folder, sheet)
    html = report.read_text("utf-8")
    assert {path.name for path in folder.glob("*.svg")} == {"loss.svg", "equal-loss.svg", "gain.svg", "residuals.svg"}
    assert all(ET.parse(path).getroot().tag == f"{SVG}svg" for path in folder.glob("*.svg"))
    assert html.count("<svg") == 4 and not re.search(r"<script|<link|src=|https?://(?!www\.w3\.org/2000/svg)", html)
    told = sheet.told()
    assert told is not None and told.got == came and told.inside
    assert f"The run came to {came:.4f}: inside the interval." in html and "fact 41 of the ledger" in html
    assert html.count("<tr><td>") == 15 + len(sheet.fit["laws"]) and "8x256, 5.25M tokens, seed 0 (foretold)" in html
    assert "<nothing>" not in html and "&lt;nothing&gt;" in html
    [line] = sweeps_of(home)
    assert line == {
        "name": "street", "done": 14, "of": 14, "running": False, "foretold": f"{told.loss:.4f} ({told.low:.4f} to {told.high:.4f})",
        "came": f"{came:.4f}, inside",
    }  # fmt: skip
    json.dumps(sheet_table(sheet), allow_nan=False)


def test_a_run_outside_of_its_interval_is_called_so(tmp_path: Path) -> None:
    kept_sweep(Home(tmp_path), came=2.5)
    said = " ".join(findings(read_sheet(Home(tmp_path), "street")))
    assert "The run came to 2.5000: outside the interval, so the law or its interval was wrong here." in said
    assert sweeps_of(Home(tmp_path))[0]["came"] == "2.5000, outside"


def test_the_signed_prediction_stands_after_a_later_fit(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home, came=1.6)
    signed = json.loads((folder / "check.json").read_text())
    fit = json.loads((folder / "fit.json").read_text())
    fit["prediction"] |= {"loss": 9.0, "low": 8.0, "high": 10.0}
    write(folder / "fit.json", fit)
    told = read_sheet(home, "street").told()
    assert told is not None and (told.loss, told.low, told.high) == (signed["loss"], signed["low"], signed["high"])


def test_what_branches_share_is_paid_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home)
    before, energy = read_sheet(home, "street").cost()
    path = sorted((folder / "runs").glob("*.json"))[0]
    run = json.loads(path.read_text())
    write(path, run | {"shared_steps": run["steps"] / 2})
    after, less = read_sheet(home, "street").cost()
    assert before - after == pytest.approx(run["seconds"] / 2)
    assert energy.high - less.high == pytest.approx(run["energy"]["high"] / 2)


def test_runs_of_another_kind_are_marked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home)
    path = sorted((folder / "runs").glob("*.json"))[3]
    write(path, json.loads(path.read_text()) | {"kind": "hybrid"})
    assert "Of another kind than most: 1 run." in plots_of(read_sheet(home, "street"))["residuals"]


def test_runs_that_the_fit_calls_worse_are_marked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home)
    fit, run = json.loads((folder / "fit.json").read_text()), read_sheet(home, "street").runs[4]
    worse = [{name: run[name] for name in ("parameters", "tokens", "unique", "seed")}]
    write(folder / "fit.json", fit | {"kinds": {"worse": worse, "gap": 0.07, "low": 0.05, "high": 0.09, "chance": 0.9}})
    sheet = read_sheet(home, "street")
    assert [dot.apart for dot in sheet.dots()] == [i == 4 for i in range(14)]
    assert all("a run of another kind" in svg for name, svg in plots_of(sheet).items() if name != "gain")


def test_advice_is_a_table_in_which_what_nobody_measured_has_no_figure(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write(kept_sweep(home) / "advice.json", ADVICE)
    html = report_html(read_sheet(home, "street"))
    rows = [re.sub(r"<[^>]+>", " ", row) for row in html.partition("Advice")[2].partition("</table>")[0].split("<tr>")[2:]]
    assert [" ".join(row.split()) for row in rows] == [
        "data: let 6x192 read &lt;more&gt; by the sweep&#x27;s law ingle make train --config offers/data.toml --minutes 30 "
        "+0.051 +0.030 to +0.070 81% 29 min, 21.0 kJ 96 min",
        "hybrid: train it as a hybrid nobody tried ingle scale probe --lever hybrid – not measured – – – –",
    ]
    assert "For 30 min, compared with" in html and "2M tokens a day the cheapest" in html and "have no figure." in html


def test_missing_parts_are_said_and_nothing_is_made_up(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home, finished=3, fitted=False)
    sheet = read_sheet(home, "street")
    assert list(plots_of(sheet)) == ["loss"] and sheet.told() is None and sheet.faults == ()
    assert findings(sheet) == ["3 of 14 planned runs are done.", "There is no law yet. It is fitted with: ingle scale fit street"]
    assert "The law</h2>" not in report_html(sheet) and "Advice" not in report_html(sheet)
    for path in (folder / "runs").glob("*.json"):
        path.unlink()
    assert "No run is done yet." in report_html(read_sheet(home, "street"))
    write(folder / "plan.json", {})
    assert "0 of 0 planned runs are done." in report_html(read_sheet(home, "street"))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"done": NaN}', '{"loss": 1e999, "low": 0}', "\x00", '"x"', '{"runs": 3, "laws": "x", "notes": 5}'],
)
@pytest.mark.parametrize("name", ["plan", "fit", "check", "progress", "advice", "curves"])
def test_any_damaged_file_leaves_a_readable_report(tmp_path: Path, name: str, text: str) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home, finished=14, fitted=False)
    (folder / f"{name}.json").write_text(text)
    sheet = read_sheet(home, "street")
    assert len(sheet.runs) == 14
    assert report_html(sheet).count("<tr><td>") == 14
    json.dumps(sheet_table(sheet), allow_nan=False)
    assert sweeps_of(home)[0]["done"] == 14


def test_a_progress_is_shown_with_the_time_that_is_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = kept_sweep(home, finished=5, fitted=False)
    write(folder / "progress.json", {"done": 5, "of": 14, "running": ["6x192 & more"], "seconds_left": 80.0})
    html = report_html(read_sheet(home, "street"))
    assert "5 of 14 runs done, about 80 s left." in html and "6x192 &amp; more" in html
    os.utime(folder / "progress.json", (0, 0))  # of a sweep that was killed long ago
    assert not read_sheet(Home(tmp_path), folder.name).progress
    write(folder / "progress.json", {"done": 0, "of": 14, "running": [], "seconds_left": None})
    assert "0 of 14 runs done.<" in report_html(read_sheet(home, "street"))


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    assert sweeps_of(home) == []
    with pytest.raises(NotKept, match="ingle scale plan none"):
        read_sheet(home, "none")
    with pytest.raises(ConfigError):
        read_sheet(home, "../models")
