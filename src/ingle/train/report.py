"""Reports of a training, whatever was trained: facts for the ledger, rows for people, and whether it taught anything."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ingle.core.energy import amount, reported
from ingle.core.report import Fact

if TYPE_CHECKING:
    from ingle.train.settings import TrainReport

_COSTS = ("steps", "tokens", "seconds", "tokens_per_s", "first_loss", "loss", "precision", "peak_bytes")


def held_out_of(trained: "TrainReport", patience: int) -> tuple[float | None, float | None]:
    """Held-out loss before training, and of the parameters that were kept."""
    return trained.first_held_out, trained.best_held_out if patience else trained.held_out


def taught_nothing(trained: "TrainReport", patience: int, what: str) -> str | None:
    """A warning for the owner if the held-out loss did not fall."""
    before, after = held_out_of(trained, patience)
    if before is None or after is None or after < before:
        return None
    return f"{what} taught nothing: the held-out loss was {before:.4f} before and is {after:.4f} after"


def training_facts(report: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts on the cost and losses of a training, from a report that holds them under `train` and `held_out`."""
    train, held_out = report["train"], report["held_out"]
    facts: dict[str, Fact] = {name: train[name] for name in _COSTS}
    facts |= {"held_out_before": held_out["before"], "held_out_after": held_out["after"]}
    return facts | (energy.facts() if (energy := reported(train)) else {})


def figure_facts(name: str, figure: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts of a measured figure with its interval; `figure` is a table like `core.report.Report`."""
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"], f"{name}_n": figure["n"]}


def cost_rows(train: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (figure, value, more) on a training's cost, for people."""
    energy = reported(train)
    return [
        ("speed", f"{train['tokens_per_s']:.0f} tokens/s", train["precision"]),
        ("time", f"{train['seconds']:.0f} s", f"{train['steps']} steps, {train['tokens']:,} tokens"),
        ("memory at its peak", f"{train['peak_bytes'] / 1e6:.0f} MB", ""),
        *([("energy", amount(energy.joules), str(energy))] if energy else []),
    ]
