"""The contents of a sweep's folder: plan, runs, law, prediction and check. Nothing is computed anew; what is missing is said.

HOME/scaling/NAME/curves.json   lines of the law for the plots, written with the law

No PyTorch is imported here: the server reads sweeps too.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.energy import NOTHING, Energy, amount, total
from ingle.core.errors import ConfigError, NotKept, counted
from ingle.core.files import write_atomic
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.scaling.frontier import Curves, curves_of
from ingle.scaling.interval import Fit
from ingle.scaling.plot import ComputeUnit, Curve, Dot, Foretold, equal_loss, loss_against_compute, marginal_gain, residuals
from ingle.scaling.points import Place, Point
from ingle.train.loss_curve import short

CURVES = "curves.json"
STALE_S = 300.0  # seconds without a step after which a sweep is no longer said to run
_FILES = ("plan", "fit", "check", "progress", "advice", "curves")
_NEEDED = ("key", "parameters", "tokens", "loss", "flops", "seconds")
LOSS = "bits per byte"


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A sweep as its folder has it. A file that is not there is an empty table."""

    name: str
    plan: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]  # reports of the finished runs that the law is of, in the plan's order
    foretold: Mapping[str, Any] | None  # report of the run that was foretold, if it was made
    fit: Mapping[str, Any]
    check: Mapping[str, Any]
    # How far a running sweep is: done, of, running, seconds_left. Empty = none runs.
    progress: Mapping[str, Any]
    advice: Mapping[str, Any]
    curves: Curves | None
    expected: Mapping[str, float]  # loss by the law, by the run's key
    faults: tuple[str, ...]  # files that can't be read, as sentences

    @property
    def planned(self) -> int:
        """How many runs the plan has, the foretold one aside."""
        return len(as_rows(self.plan.get("runs")))

    def dots(self) -> list[Dot]:
        """Return the runs as plots show them. Marked are those that the fit calls a kind of their own, and those trained otherwise."""
        kinds = [str(run.get("kind", "")) for run in self.runs]
        usual = max(kinds, key=kinds.count, default="")
        worse = [_place(run) for run in as_rows(as_table(self.fit.get("kinds")).get("worse"))]
        return [
            Dot(
                run["parameters"], run["tokens"], run["loss"], run["flops"], self.expected.get(run["key"], math.nan),
                kind != usual or _place(run) in worse,
            )
            for run, kind in zip(self.runs, kinds, strict=True)
        ]  # fmt: skip

    def told(self) -> Foretold | None:
        """Return the prediction that counts, and what came. A check names the signed one, which a later law no longer changes."""
        said = {**as_table(self.fit.get("prediction")), **{k: v for k, v in self.check.items() if k in ("loss", "low", "high")}}
        place = {**as_table(self.plan.get("foretold")), **said}
        names = ("parameters", "tokens", "flops", "loss", "low", "high")
        if any(not is_number(place.get(name)) for name in names):
            return None
        parameters, tokens, flops, loss, low, high = (float(place[name]) for name in names)
        return Foretold(parameters, tokens, flops, loss, low, high, number_in(self.check.get("came")))

    def unit(self) -> ComputeUnit:
        """Return the unit of compute: a minute of one core, as fast as these runs were; without times, operations."""
        seconds, flops = (sum(run[name] for run in self.runs) for name in ("seconds", "flops"))
        if seconds <= 0:
            return ComputeUnit()
        a_minute = 60 * flops / seconds
        return ComputeUnit("core minute", f"compute, minutes of one core ({a_minute / 1e12:.2g} TFLOP each)", a_minute)

    def cost(self) -> tuple[float, Energy]:
        """Return seconds of one core, and energy, of all runs made; what a branch shares with its trunk counts once."""
        reports = [*self.runs, *([self.foretold] if self.foretold else [])]
        return sum(run["seconds"] * _own(run) for run in reports), total(_energy(run).scaled(_own(run)) for run in reports)


def sweeps_of(home: Home) -> list[dict[str, Any]]:
    """List this home's sweeps: their runs, what was foretold, and what came."""
    return [_line(read_sheet(home, name)) for name in sorted(path.parent.name for path in home.scaling.glob("*/plan.json"))]


def _line(sheet: Sheet) -> dict[str, Any]:
    told = sheet.told()
    came = told is not None and math.isfinite(told.got)
    return {
        "name": sheet.name,
        "done": len(sheet.runs),
        "of": sheet.planned,
        "running": bool(sheet.progress),
        "foretold": f"{told.loss:.4f} ({told.low:.4f} to {told.high:.4f})" if told else "",
        "came": f"{told.got:.4f}, {'inside' if told.inside else 'outside'}" if told and came else "",
    }


def read_sheet(home: Home, name: str) -> Sheet:
    """Read a sweep's folder. A file that can't be read is a fault of the sheet, and hides no other. Raises NotKept."""
    folder = home.scaling / check_name(name)
    if not (folder / "plan.json").exists():
        raise NotKept(name, "is no sweep of this home", "", f"Plan one: ingle scale plan {name} --minutes 20")
    faults = list[str]()
    tables = {one: _read(folder / f"{one}.json", faults) for one in _FILES}
    if not _is_fresh(folder / "progress.json"):
        tables["progress"] = {}
    found = {path.stem: _read(path, faults) for path in sorted((folder / "runs").glob("*.json"))}
    reports = {key: run for key, run in found.items() if _is_run(run)}
    faults += [f"runs/{key}.json is no report of a run" for key in found.keys() - reports.keys() if found[key]]
    listed = [str(run.get("key")) for run in as_rows(tables["plan"].get("runs"))] or sorted(reports)
    foretold = reports.get(str(as_table(tables["plan"].get("foretold")).get("key")))
    curves = _curves(tables["curves"], faults)
    expected = {key: value for key, value in as_table(tables["curves"].get("expected")).items() if is_number(value)}
    runs = tuple(reports[key] for key in listed if key in reports)
    fit, check, progress, advice = (tables[one] for one in ("fit", "check", "progress", "advice"))
    return Sheet(name, tables["plan"], runs, foretold, fit, check, progress, advice, curves, expected, tuple(faults))


def keep_curves(folder: Path, fit: Fit, points: Mapping[str, Point], foretold: Place | None, text: float = 0.0) -> None:
    """Keep the lines of a sweep's law beside it. `points`: the run of each key; `text`: as in `curves_of`."""
    curves = curves_of(fit, foretold, text)
    losses = dict(zip(fit.points, curves.expected, strict=True))
    table = {"fit": fit.digest, "curves": to_table(curves), "expected": {key: losses[point] for key, point in points.items()}}
    write_atomic(folder / CURVES, json.dumps(table, allow_nan=False).encode())


def plots_of(sheet: Sheet) -> dict[str, str]:
    """Return the plots of a sweep as SVG, by name. Without a law there is one, of the runs alone."""
    dots, told, unit, curves = sheet.dots(), sheet.told(), sheet.unit(), sheet.curves
    if curves is None:
        return {"loss": loss_against_compute(dots, unit=unit, loss_name=LOSS)}
    quarter = curves.quarter / unit.flops if curves.quarter else math.nan
    return {
        "loss": loss_against_compute(dots, curves.sizes, curves.frontier, told, unit, LOSS),
        "equal-loss": equal_loss(dots, curves.levels, curves.path, told, LOSS),
        "gain": marginal_gain(_in_units(curves.gain, unit), quarter, unit, LOSS),
        "residuals": residuals(dots, number_in(sheet.fit.get("noise"))),
    }


def sheet_table(sheet: Sheet) -> dict[str, Any]:
    """Return a sweep as plain values, for JSON."""
    seconds, energy = sheet.cost()
    runs = [dict(run) | {"expected": sheet.expected.get(run["key"])} for run in sheet.runs]
    return {
        **_line(sheet),
        "progress": dict(sheet.progress) or None,
        "runs": runs,
        "fit": dict(sheet.fit) or None,
        "check": dict(sheet.check) or None,
        "foretold_run": dict(sheet.foretold) if sheet.foretold else None,
        "curves": to_table(sheet.curves) if sheet.curves else None,
        "advice": dict(sheet.advice) or None,
        "plan": dict(sheet.plan),
        "spent": {"core_seconds": seconds, "energy": energy.table()},
        "faults": list(sheet.faults),
    }


def _in_units(gain: Curve, unit: ComputeUnit) -> Curve:
    return Curve(
        tuple(x / unit.flops for x in gain.x), *(tuple(y * unit.flops for y in part) for part in (gain.y, gain.low, gain.high))
    )  # fmt: skip


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    """Return a file's table; {} where there is none, or where it can't be read."""
    try:
        table = json.loads(path.read_text("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} can't be read: {str(error)[:120]}")
        return {}
    if not isinstance(table, dict):
        faults.append(f"{path.name} holds no table")
        return {}
    return table


def _is_fresh(path: Path) -> bool:
    """Whether a file was written lately: a sweep that was killed leaves its progress behind."""
    try:
        return time.time() - path.stat().st_mtime < STALE_S
    except OSError:
        return False


def _no_number(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _curves(table: Mapping[str, Any], faults: list[str]) -> Curves | None:
    if not table:
        return None
    try:
        return from_table(Curves, as_table(table.get("curves")))
    except ConfigError as error:
        faults.append(f"{CURVES} can't be used: {error.sentence}")
        return None


def _is_run(table: Mapping[str, Any]) -> bool:
    return all(name in table for name in _NEEDED) and all(is_number(table[name]) for name in _NEEDED[1:])


def is_number(value: object) -> bool:
    """Whether a value of a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_in(value: Any) -> float:
    """Return a value of a file as a number; NaN where it is none."""
    return float(value) if is_number(value) else math.nan


def as_table(value: object) -> Mapping[str, Any]:
    """Return a value of a file as a table; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def as_rows(value: object) -> Sequence[Mapping[str, Any]]:
    """Return the tables in a value of a file; none where it is no list."""
    rows: Iterable[Any] = value if isinstance(value, list) else ()
    return [row for row in rows if isinstance(row, dict)]


def _place(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells runs of one sweep apart."""
    return tuple(run.get(name) for name in ("parameters", "tokens", "unique", "seed"))


def _own(run: Mapping[str, Any]) -> float:
    """Share of a run's steps that were made for it alone."""
    steps, shared = number_in(run.get("steps")), number_in(run.get("shared_steps"))
    return 1 - shared / steps if steps > 0 and 0 <= shared <= steps else 1.0


def _energy(run: Mapping[str, Any]) -> Energy:
    table = as_table(run.get("energy"))
    if not all(is_number(table.get(name)) for name in ("joules", "low", "high")):
        return NOTHING
    return Energy(float(table["joules"]), float(table["low"]), float(table["high"]), str(table.get("source", "")))


# The report of a sweep as one HTML file: plots, law, prediction, every run and what it cost, in words for newcomers.


REPORT = "report.html"
_NONE = "–"  # stands where there is no figure
# How to read each plot.
READING: Mapping[str, str] = {
    "loss": "Each mark is a run: lower is better, farther right costs more. A full line is the law of one size. "
    "The dashed line is the best that each amount of compute can do.",
    "equal-loss": "Along a line, every size and length of reading ends equally well. "
    "The dashed path crosses each line where it costs least.",
    "gain": "What the next unit of compute takes off the loss. Each costs as much as the one before, and gains less.",
    "residuals": "How far each run lies from the law. Marks outside of the band, or all on one side, say that the law is not all there is.",
}
STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #2a2420; background: #faf6ef }
table { border-collapse: collapse } td, th { text-align: left; padding: .3rem .9rem .3rem 0; vertical-align: top }
td { border-top: 1px solid #e4d9c9 } .of { color: #70645a; font-size: .9em } .no { color: #8a4b00 } code { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { background: #191512; color: #ebe2d7 } td { border-color: #362d26 } .of { color: #a5978a } .no { color: #e0a050 }
}
"""
# Style of the parts of a sheet, also inside of another page.
PARTS_STYLE = """
.wide { overflow-x: auto; max-width: 100% } figure { margin: 1.2rem 0 1.8rem } figcaption { max-width: 40rem; margin-top: .4rem }
.plot { display: block; width: 100%; max-width: 46rem; min-width: 34rem; height: auto; border-radius: .6rem }
.wide table { font-size: .925em } .wide .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.wide td:first-child { white-space: nowrap } .way { white-space: normal; width: 20rem }
.said { max-width: 44rem } p, li { overflow-wrap: anywhere }
progress { width: min(24rem, 100%); accent-color: #b4481f }
"""


def write_report(folder: Path, sheet: Sheet) -> Path:
    """Write the report and its plots into the sweep's folder, and return the report's path. Raises HomeError."""
    for name, svg in plots_of(sheet).items():
        write_atomic(folder / f"{name}.svg", svg.encode())
    write_atomic(folder / REPORT, report_html(sheet).encode())
    return folder / REPORT


def report_html(sheet: Sheet) -> str:
    """Return the report as a page that needs no other file."""
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    title = f"Sweep {escape(sheet.name)}"
    return f"{head}<title>{title}</title><style>{STYLE}{PARTS_STYLE}</style><h1>{title}</h1>{sheet_body(sheet)}</html>"


def sheet_body(sheet: Sheet, level: str = "h2") -> str:
    """Return the parts of the report as HTML. `level`: element of their headings."""
    plots = "".join(
        f"<figure><div class=wide>{svg}</div><figcaption class=of>{escape(READING[name])}</figcaption></figure>"
        for name, svg in plots_of(sheet).items()
    )
    parts = {
        "What was found": "".join(f"<p class=said>{escape(text)}</p>" for text in findings(sheet)),
        "Plots": plots,
        "The law": _law(sheet),
        "Advice": advice_table(sheet.advice),
        "Runs": _runs(sheet),
        "Cost": _cost(sheet),
        "Notes": _notes(sheet),
    }
    return progress(sheet) + "".join(f"<{level}>{title}</{level}>{part}" for title, part in parts.items() if part)


def progress(sheet: Sheet) -> str:
    """Return how far a running sweep is, as HTML; "" where none runs."""
    now = sheet.progress
    done, of = number_in(now.get("done")), number_in(now.get("of"))
    if not (of > 0 and done >= 0):
        return ""
    left, share = number_in(now.get("seconds_left")), number_in(now.get("share"))
    time = f", about {_time(left)} left" if math.isfinite(left) else ""
    share = share if math.isfinite(share) else done / of
    running = "; ".join(_texts(now.get("running")))
    names = f"<br><span class=of>Training now: {escape(running)}</span>" if running else ""
    bar = f"<progress max=1 aria-label='part that is done' value={share:.4f}></progress>"
    return f"<p>{bar}<br>{done:.0f} of {counted(int(of), 'run')} done{time}.{names}</p>"


def findings(sheet: Sheet) -> list[str]:
    """Return what a sweep says, as sentences for people who see such a law for the first time."""
    said = [f"{len(sheet.runs)} of {counted(sheet.planned, 'planned run')} are done."]
    curves, told, unit = sheet.curves, sheet.told(), sheet.unit()
    if curves is None:
        return [*said, f"There is no law yet. It is fitted with: ingle scale fit {sheet.name}"]
    largest = max((run["flops"] for run in sheet.runs), default=math.nan)
    here, twice = (_at(curves.frontier.x, curves.frontier.y, flops) for flops in (largest, 2 * largest))
    if here and twice:
        said.append(f"By the law, the compute of the largest run can reach {here:.3f} {LOSS}, and twice as much {twice:.3f}.")
    sizes = curves.best_sizes
    best, low, high = (_at(sizes.x, part, largest) for part in (sizes.y, sizes.low, sizes.high))
    if best and low and high:
        split = f"{short(best, 'B')} parameters and {short(largest / (6 * best), 'B')} tokens"
        said.append(f"The best split of the largest run's compute is {split}.")
        said.append(f"Nine of ten fits put that size between {short(low, 'B')} and {short(high, 'B')} parameters.")
    if curves.quarter:
        amount_ = short(curves.quarter / unit.flops)
        said.append(f"From {counted_units(amount_, unit.one)} on, one more gains less than a quarter of what it gains at the smallest run.")
    if told:
        place = f"{short(told.parameters, 'B')} parameters after {short(told.tokens, 'B')} tokens"
        said.append(f"A model of {place} is foretold to reach {told.loss:.4f} {LOSS}.")
        said.append(f"Nine of ten such runs should come out between {told.low:.4f} and {told.high:.4f}.")
        said.append(_came(sheet))
    return said


def counted_units(number: str, unit: str) -> str:
    """Return `3.2 core minutes`."""
    return f"{number} {unit}{'' if number == '1' else 's'}"


def _came(sheet: Sheet) -> str:
    told = sheet.told()
    if told is None or not math.isfinite(told.got):
        return f"That run was not trained yet. It is, with: ingle scale check {sheet.name}"
    where = "inside the interval" if told.inside else "outside the interval, so the law or its interval was wrong here"
    fact = sheet.check.get("fact")
    signed = f" The prediction was signed before the run began: fact {fact} of the ledger." if isinstance(fact, int) else ""
    return f"The run came to {told.got:.4f}: {where}. The prediction was {abs(told.loss / told.got - 1):.2%} off.{signed}"


def _law(sheet: Sheet) -> str:
    rows = as_rows(sheet.fit.get("laws"))
    if not rows:
        return ""
    head = (
        f"<p class=said>The law says the loss (in {LOSS}, lower is better) of a model with N parameters that has read D tokens. "
        "Several forms are fitted; each has as much weight as it foretold the largest runs well.</p>"
    )
    table = [
        (escape(str(law.get("equation", ""))), f"{law['weight']:.0%}" if is_number(law.get("weight")) else _NONE, escape(figures(law)))
        for law in rows
    ]
    noise = number_in(sheet.fit.get("noise"))
    said = f"<p class=said>Runs alike but for their seed lie about {noise:.2%} to either side of it.</p>" if math.isfinite(noise) else ""
    return f"{head}{_html_table(('form', 'weight', 'numbers'), table)}{said}"


def figures(law: Mapping[str, Any]) -> str:
    """Return the numbers of a law's table by their names."""
    return ", ".join(f"{name} {value:.4g}" for name, value in law.items() if isinstance(value, float) and name != "weight")


def _runs(sheet: Sheet) -> str:
    rows = []
    for run in [*sheet.runs, *([sheet.foretold] if sheet.foretold else [])]:
        law = sheet.expected.get(run["key"])
        name = str(run.get("label") or run["key"])
        rows.append((
            escape(name + (" (foretold)" if run is sheet.foretold else "")), short(run["parameters"], "B"), short(run["tokens"], "B"),
            f"{run['loss']:.4f}", f"{law:.4f}" if law else _NONE, f"{run['loss'] / law - 1:+.2%}" if law else _NONE, _time(run["seconds"]),
            _joules(run),
        ))  # fmt: skip
    if not rows:
        return "<p>No run is done yet.</p>"
    head = ("run", "parameters", "tokens", "loss", "by the law", "beside it", "time", "energy")
    return (
        _html_table(head, rows) + f"<p class=of>Loss in {LOSS} of held-out text. All runs are in runs.csv, and each is a file in runs/.</p>"
    )


def _cost(sheet: Sheet) -> str:
    seconds, energy = sheet.cost()
    said = f"All runs took {_time(seconds)} of one core" + (f" and {escape(str(energy))}." if energy.source else ".")
    minutes = number_in(as_table(as_table(sheet.plan.get("cost")).get("whole")).get("core_minutes"))
    said += f" Planned, with the foretold run: {_time(60 * minutes)} of one core." if math.isfinite(minutes) else ""
    return f"<p class=said>{said} What runs share was trained once, and is counted once.</p>"


def _notes(sheet: Sheet) -> str:
    said = [f"{text.rstrip('.')}." for text in _texts(sheet.fit.get("notes"))]
    items = "".join(f"<li>{escape(text)}</li>" for text in said) + "".join(f"<li class=no>{escape(text)}.</li>" for text in sheet.faults)
    return f"<ul>{items}</ul>" if items else ""


def advice_table(advice: Mapping[str, Any]) -> str:
    """Return advice as HTML: a row for each way to spend the budget, the best first. "" = there is none."""
    offers = as_rows(advice.get("offers"))
    if not offers:
        return ""
    asked, best = as_table(advice.get("budget")), as_table(advice.get("incumbent"))
    said = (
        f"For {asked.get('said', 'the budget')}, compared with the best model so far, {best.get('label', 'unnamed')}. Gains are in {LOSS}."
    )
    notes = [*_texts(advice.get("notes")), *_texts(as_table(advice.get("serving")).get("said"))]
    head = ("way", "gain", "90 % interval", "best with", "cost", "pays until")
    table = _html_table(head, [_offer(one, str(asked.get("unit"))) for one in offers])
    return f"<p class=said>{escape(said)}</p>{table}" + "".join(f"<p class=said>{escape(note)}</p>" for note in notes)


def _offer(offer: Mapping[str, Any], unit: str) -> tuple[str, ...]:
    """Return the cells of one way. A figure that nobody measured is no figure."""
    cost = as_table(offer.get("cost"))
    minutes, energy = number_in(cost.get("minutes")), _joules(cost)
    spent = [*([f"{minutes:.3g} min"] if math.isfinite(minutes) else []), *([energy] if energy != _NONE else [])]
    gain, low, high, chance, stops = (number_in(offer.get(name)) for name in ("gain", "low", "high", "probability_best", "stops_paying"))
    known = math.isfinite(gain + low + high)
    why = f"<span class=of>{_text(offer, 'why')}<br><code>{_text(offer, 'command')}</code></span>"
    return (
        f"<div class=way>{_text(offer, 'lever')}: {_text(offer, 'do')}<br>{why}</div>",
        f"{gain:+.3f}" if known else "– over budget" if cost else "– not measured", f"{low:+.3f} to {high:+.3f}" if known else _NONE,
        f"{chance:.0%}" if known and math.isfinite(chance) else _NONE, ", ".join(spent) or _NONE,
        _units(stops, unit) if math.isfinite(stops) else _NONE,
    )  # fmt: skip


def _text(table: Mapping[str, Any], name: str) -> str:
    """Return a text of a file as HTML may have it."""
    return escape(str(table.get(name) or ""))


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _units(value: float, unit: str) -> str:
    return {"joules": amount(value), "minutes": f"{value:.3g} min", "flops": f"{short(value)} FLOP"}.get(unit, f"{value:.3g}")


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already. Columns of numbers stand to the right."""
    numbers = [i > 0 and all(row[i][:1] in "+-–0123456789" for row in rows) for i in range(len(head))]
    cells = [" class=number" if number else "" for number in numbers]
    top = "".join(f"<th{cell}>{escape(name)}" for name, cell in zip(head, cells, strict=True))
    body = "".join("<tr>" + "".join(f"<td{cell}>{text}" for text, cell in zip(row, cells, strict=True)) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _joules(run: Mapping[str, Any]) -> str:
    joules = as_table(run.get("energy")).get("joules")
    return amount(joules) if is_number(joules) and joules else _NONE


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _at(x: Sequence[float], y: Sequence[float], wanted: float) -> float | None:
    """Return the value of a line at some compute, between its points in equal factors; None beyond its ends."""
    for (x0, y0), (x1, y1) in zip(zip(x, y, strict=True), zip(x[1:], y[1:], strict=True), strict=False):
        if x0 <= wanted <= x1:
            share = math.log(wanted / x0) / math.log(x1 / x0)
            return float(y0 ** (1 - share) * y1**share)
    return None
