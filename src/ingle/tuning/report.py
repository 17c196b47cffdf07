"""Reports of a tuning run: `report.json` beside the delta, and facts for the ledger."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingle.core.files import os_errors
from ingle.core.report import Event, Fact, shown_interval
from ingle.train.report import cost_rows, figure_facts, training_facts
from ingle.tuning.judge import Judgement
from ingle.tuning.samples import Sample

VERSION = 1
POINTS = 400
"""Most points of a curve; longer ones are thinned out."""
_FIGURES = ("held_out_loss", "held_out_loss_change", "general_bits_per_byte", "forgetting", "forgetting_relative")


def curve(path: Path) -> dict[str, list[list[float]]]:
    """Read loss and held-out loss by step from a run's loss.csv; the loss is thinned out evenly."""
    if not path.exists():
        return {"loss": [], "held_out": []}
    with os_errors(path), path.open(encoding="utf-8", newline="") as file:
        rows = [(int(row["step"]), float(row["loss"]), float(row["held_out"])) for row in csv.DictReader(file)]
    every = max(1, math.ceil(len(rows) / POINTS))
    loss = [[step, value] for i, (step, value, _) in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
    return {"loss": loss, "held_out": [[step, value] for step, _, value in rows if not math.isnan(value)]}


def trained_change(report: Mapping[str, Any]) -> float | None:
    """Change of the held-out loss in training. None if nothing was held out, or if the objective is not the cross-entropy of the answers,
    which is measured when a model is served.
    """
    if report["settings"]["objective"]["kind"] != "answers":
        return None
    before, after = (report["held_out"][side] for side in ("before", "after"))
    return None if before is None or after is None else float(after - before)


def with_judgement(report: Mapping[str, Any], judgement: Judgement, samples: Sequence[Sample] = ()) -> dict[str, Any]:
    """Return the report with the judgement of the served model, and sample answers."""
    notes, shown = [*report["notes"], *judgement.notes], [asdict(one) for one in samples]
    return {**report, "served": [asdict(one) for one in judgement.reports], "learned": judgement.learned, "samples": shown, "notes": notes}


def figure(report: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """One figure of the served model, as a table like `core.report.Report`; None if it was not measured."""
    return next((dict(one) for one in report.get("served", ()) if one["name"] == name), None)


def trained_event(report: Mapping[str, Any]) -> Event:
    """Event of a new delta, for the ledger."""
    facts: dict[str, Fact] = {name: report[name] for name in ("method", "kind", "delta", "base", "data_digest", "examples", "seed")}
    facts |= {"trained_parameters": report["train"]["trained_parameters"], "modules": report["modules"]["touched"]}
    facts |= training_facts(report)
    return Event("tune", report["model"], facts)


def judged_event(report: Mapping[str, Any]) -> Event | None:
    """Event of judging the model with the delta, as served; None if that was not measured."""
    facts: dict[str, Fact] = {}
    for name in _FIGURES:
        if one := figure(report, name):
            facts |= {**figure_facts(name, one), "model_digest": one["model_digest"]}
    return Event("tune.judge", report["model"], {"delta": report["delta"], **facts}) if facts else None


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (figure, before, after, interval of the change), for people."""
    train, modules = report["train"], report["modules"]
    table = [("loss, training", _number(train["first_loss"]), _number(train["loss"]), "")]
    before, after = report["held_out"]["before"], report["held_out"]["after"]
    if before is not None:
        table.append((f"loss, held out (n = {report['held_out_examples']})", _number(before), _number(after), ""))
    pairs = (
        ("loss, held out, as served", "held_out_loss_before", "held_out_loss", "held_out_loss_change"),
        ("bits/byte of general text (forgetting)", "general_bits_per_byte_before", "general_bits_per_byte", "forgetting"),
    )
    for label, *names in pairs:
        figures = [figure(report, name) for name in names]
        if None not in figures:
            first, second, change = (one for one in figures if one)
            table.append(
                (label, _number(first["value"]), _number(second["value"]), f"{change['value']:+.4f} ({shown_interval(change, '+.4f')})")
            )
    share = 100 * train["trained_parameters"] / report["model_parameters"]
    return [
        *table,
        ("parameters trained", "", f"{train['trained_parameters']:,}", f"{share:.2f} % of {report['model_parameters']:,}"),
        ("parts touched", "", f"{modules['touched']} of {modules['intended']}", ""),
        *((label, "", value, more) for label, value, more in cost_rows(train)),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
