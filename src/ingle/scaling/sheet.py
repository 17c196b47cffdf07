"""The contents of a sweep's folder: plan, runs, law, prediction and check. Nothing is computed anew; what is missing is said.

HOME/scaling/NAME/curves.json   lines of the law for the plots, written with the law

No PyTorch is imported here: the server reads sweeps too.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.energy import NOTHING, Energy, total
from ingle.core.errors import ConfigError, NotKept
from ingle.core.files import write_atomic
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.scaling.curves import Curves, curves_of
from ingle.scaling.interval import Fit
from ingle.scaling.plot import ComputeUnit, Curve, Dot, Foretold, equal_loss, loss_against_compute, marginal_gain, residuals
from ingle.scaling.points import Place, Point

CURVES = "curves.json"
STALE_S = 300.0
"""Seconds without a step after which a sweep is no longer said to run."""
_FILES = ("plan", "fit", "check", "progress", "advice", "curves")
_NEEDED = ("key", "parameters", "tokens", "loss", "flops", "seconds")
LOSS = "bits per byte"


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A sweep as its folder has it. A file that is not there is an empty table."""

    name: str
    plan: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]
    """Reports of the finished runs that the law is of, in the plan's order."""
    foretold: Mapping[str, Any] | None
    """Report of the run that was foretold, if it was made."""
    fit: Mapping[str, Any]
    check: Mapping[str, Any]
    progress: Mapping[str, Any]
    """How far a running sweep is: done, of, running, seconds_left. Empty = none runs."""
    advice: Mapping[str, Any]
    curves: Curves | None
    expected: Mapping[str, float]
    """Loss by the law, by the run's key."""
    faults: tuple[str, ...]
    """Files that can't be read, as sentences."""

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
