"""A home with a tiny model, data that can be learnt, and general text that needs no network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingle.core.candidate import Admit
from ingle.home.deltas import put_candidate
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.train.making import MadeDelta, RunWatch
from ingle.tuning.tune import tune
from ingle.tuning.tune_settings import TuneSettings, settings_of

SMALL: dict[str, Any] = {
    "options": {"rank": 4},
    "data": {"held_out": 0.2},
    "train": {"epochs": 2, "batch_tokens": 192},
    "judge": {"forgetting": 0, "held_out": 0},
}


def small(method: str = "lora", options: Mapping[str, Any] | None = None, **changes: Mapping[str, Any]) -> TuneSettings:
    """Settings for seconds; `changes` are added to the tables of that name."""
    table = {**SMALL, "method": method, "options": dict(options if options is not None else SMALL["options"])}
    for name, more in changes.items():
        table[name] = {**table.get(name, {}), **more}
    return settings_of(table)


def write_examples(path: Path, rows: Sequence[Any] | None = None, count: int = 40) -> str:
    """Prompts and completions that follow a rule, or these rows, a line each."""
    told = rows if rows is not None else [{"prompt": f"say {i}", "completion": f"it is {i}"} for i in range(count)]
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in told), "utf-8")
    return str(path)


def admitting(home: Home) -> Admit:
    """Lets every candidate in: how they are judged is tested elsewhere (tests/gate)."""
    return lambda candidate, _stopped: put_candidate(home, candidate)


def tuned(
    home: Home, data: str, settings: TuneSettings, name: str = "x", model: str = "tiny", watch: RunWatch | None = None,
    admit: Admit | None = None,
) -> MadeDelta:  # fmt: skip
    """What `tune` makes of it."""
    return tune(home, kept(home, model), [data], name, settings, admit or admitting(home), watch or RunWatch())


def kept(home: Home, name: str = "tiny") -> Kept:
    """The model of that name."""
    return get_kept(home, name)
