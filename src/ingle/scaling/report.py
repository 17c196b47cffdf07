"""What a training from scratch leaves behind in words and figures: `report.json` beside the base, and facts for the ledger."""

import json
from collections.abc import Mapping
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.energy import amount, reported
from ingle.core.event import Event, Fact

VERSION = 1


def to_json(report: Mapping[str, Any]) -> bytes:
    """As the file holds it."""
    return json.dumps(report, indent=1, ensure_ascii=False).encode()


def trained_event(report: Mapping[str, Any]) -> Event:
    """The fact that a base was made."""
    train, held_out = report["train"], report["held_out"]
    facts: dict[str, Fact] = {name: report[name] for name in ("base", "data_digest", "rows", "seed", "parameters", "memory_parameters")}
    facts |= {name: train[name] for name in ("steps", "tokens", "seconds", "tokens_per_s", "first_loss", "loss", "precision", "peak_bytes")}
    facts |= {"held_out_before": held_out["before"], "held_out_after": held_out["after"]}
    if energy := reported(train):
        facts |= energy.facts()
    return Event("train", report["model"], facts)


def judged_event(report: Mapping[str, Any]) -> Event | None:
    """The fact of how the model is served; None if nothing was measured."""
    facts: dict[str, Fact] = {"base": report["base"], "judged": digest_json(report["settings"]["judge"])[:16]}
    for one in report["served"]:
        if one["name"] in ("bits_per_byte", "recalled"):
            name = one["name"] if one["of"] == "planted pairs" else f"{one['of']}_{one['name']}"
            facts |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"], f"{name}_n": one["n"]}
            facts["model_digest"] = one["model_digest"]
    return Event("train.judge", report["model"], facts) if report["served"] else None


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(figure, value, interval or how it came about) for people."""
    train, held_out = report["train"], report["held_out"]
    table = [
        ("parameters", f"{report['parameters']:,}", f"{report['memory_parameters']:,} of them in memories; MLP {report['mlp']} wide"),
        ("loss, training", f"{train['loss']:.4f}", f"{train['first_loss']:.4f} at the first step"),
    ]
    if held_out["after"] is not None:
        table.append(("loss, held out", f"{held_out['after']:.4f}", f"{held_out['before']:.4f} before"))
    for one in report["served"]:
        label = f"{one['of']}: {one['name'].replace('_', ' ')}"
        table.append((label, f"{one['value']:.4f}", f"{one['low']:.4f} … {one['high']:.4f} (n = {one['n']})"))
    energy = reported(train)
    return [
        *table,
        ("speed", f"{train['tokens_per_s']:.0f} tokens/s", train["precision"]),
        ("time", f"{train['seconds']:.0f} s", f"{train['steps']} steps, {train['tokens']:,} tokens"),
        ("memory at its peak", f"{train['peak_bytes'] / 1e6:.0f} MB", ""),
        *([("energy", amount(energy.joules), str(energy))] if energy else []),
    ]
