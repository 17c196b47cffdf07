"""Reports of a training from scratch: `report.json` beside the base, and facts for the ledger."""

from collections.abc import Mapping
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.report import Event, Fact, shown_interval
from ingle.train.report import cost_rows, figure_facts, training_facts

VERSION = 1


def trained_event(report: Mapping[str, Any]) -> Event:
    """Event of a new base, for the ledger."""
    names = ("base", "data_digest", "rows", "seed", "parameters", "memory_parameters")
    return Event("train", report["model"], {name: report[name] for name in names} | training_facts(report))


def judged_event(report: Mapping[str, Any]) -> Event | None:
    """Event of judging the model as it is served; None if nothing was measured."""
    facts: dict[str, Fact] = {"base": report["base"], "judged": digest_json(report["settings"]["judge"])[:16]}
    for one in report["served"]:
        if one["name"] in ("bits_per_byte", "recalled"):
            name = one["name"] if one["of"] == "planted pairs" else f"{one['of']}_{one['name']}"
            facts |= {**figure_facts(name, one), "model_digest": one["model_digest"]}
    return Event("train.judge", report["model"], facts) if report["served"] else None


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (figure, value, interval or origin), for people."""
    train, held_out = report["train"], report["held_out"]
    table = [
        ("parameters", f"{report['parameters']:,}", f"{report['memory_parameters']:,} of them in memories; MLP {report['mlp']} wide"),
        ("loss, training", f"{train['loss']:.4f}", f"{train['first_loss']:.4f} at the first step"),
    ]
    if held_out["after"] is not None:
        table.append(("loss, held out", f"{held_out['after']:.4f}", f"{held_out['before']:.4f} before"))
    for one in report["served"]:
        label = f"{one['of']}: {one['name'].replace('_', ' ')}"
        table.append((label, f"{one['value']:.4f}", shown_interval(one)))
    return [*table, *cost_rows(train)]
