"""Sweeps that take seconds."""

from pathlib import Path
from typing import Any

from ingle.core.config import from_table
from ingle.home.place import Home
from ingle.scaling.sweep import Sweep, keep_plan
from ingle.scaling.sweep_settings import LEAST_STEPS, RunSettings, SweepSettings
from ingle.scratch.text_sources import Prepared, prepare

STEP = 96


def tiny_sweep(source: str, **changes: Any) -> SweepSettings:
    """Two sizes, two lengths of a few thousand tokens: a second each."""
    table = {
        "data": {"sources": [source], "row_tokens": 48, "held_out": 0.2}, "vocabulary": 300, "sizes": ["1x32", "2x32"],
        "tokens": [LEAST_STEPS * STEP, 2 * LEAST_STEPS * STEP], "more_seeds": 1, "foretold_size": "2x64",
        "foretold_tokens": 2 * LEAST_STEPS * STEP, "batch_tokens": STEP, "rate": 0.01, "precision": "fp32",
    }  # fmt: skip
    return from_table(SweepSettings, {**table, **changes})


def planned(home: Home, source: str, name: str = "small", **changes: Any) -> Sweep:
    """Prepare the text and keep the plan."""
    home.create()
    settings = tiny_sweep(source, **changes)
    return keep_plan(home, name, settings, prepare(home, settings.data, settings.vocabulary), {})


def alone(run: RunSettings, prepared: Prepared, work: Path) -> dict[str, Any]:
    """Train one run by itself, from its first step, in this process."""
    from ingle.scaling.climb import FinishedRun, climb

    got = list[FinishedRun]()
    climb([run], prepared, work, got.append)
    return got[0].report
