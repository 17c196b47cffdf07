"""Folders of sweeps as `ingle scale` leaves them, with losses of a known law instead of hours of training."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from ingle.home.place import Home
from ingle.scaling.interval import fit_points
from ingle.scaling.points import Place, Point
from ingle.scaling.sheet import keep_curves

SIZES = {"2x64": 240_000, "3x128": 820_000, "5x128": 1_190_000, "6x192": 2_760_000}
TOKENS = (750_000, 1_500_000, 3_000_000)
LARGE = {"key": "f" * 32, "label": "8x256, 5.25M tokens, seed 0", "parameters": 6_430_000, "tokens": 5_250_000, "unique": 0}


def loss_at(parameters: float, tokens: float) -> float:
    return 1.1 + 30 / parameters**0.3 + 60 / tokens**0.35


def report(key: str, label: str, parameters: int, tokens: int, loss: float, seed: int = 0) -> dict[str, Any]:
    """A report with the fields that sweep reports have."""
    seconds = tokens / 12_000 * parameters / 820_000
    return {
        "version": 1, "key": key, "label": label, "kind": "transformer, muon, 2048 words", "parameters": parameters, "tokens": tokens,
        "unique": tokens, "seed": seed, "flops": 6.0 * parameters * tokens, "loss": loss, "unit": "bits/byte", "precision": "bf16",
        "steps": tokens // 2048, "shared_steps": 0, "seconds": seconds,
        "energy": {"joules": 12 * seconds, "low": 8 * seconds, "high": 20 * seconds, "source": "model"},
    }  # fmt: skip


def kept_sweep(home: Home, name: str = "street", finished: int = 14, fitted: bool = True, came: float = 0.0) -> Path:
    """Write a sweep of fourteen runs; `came`: loss of the foretold run, 0 = not made."""
    folder = home.create().scaling / name
    (folder / "runs").mkdir(parents=True)
    draw, runs = np.random.default_rng(0), []
    for (size, n), d, seed in itertools.product(SIZES.items(), TOKENS, (0, 1)):
        if seed == 0 or (size == "2x64" and d < 3e6):
            loss = loss_at(n, d) * float(np.exp(0.005 * draw.standard_normal()))
            runs.append(report(f"{len(runs):032x}", f"{size}, {d / 1e6:.2f}M tokens, seed {seed}", n, d, loss, seed))
    assert len(runs) == 14
    large = LARGE | {"flops": 6.0 * LARGE["parameters"] * LARGE["tokens"]}
    write(folder / "plan.json", {"version": 1, "name": name, "runs": runs, "foretold": large, "cost": {"whole": {"core_minutes": 77.0}}})
    for one in runs[:finished]:
        write(folder / "runs" / f"{one['key']}.json", one)
    if fitted:
        fold(folder, runs[:finished], large, came)
    return folder


def fold(folder: Path, runs: list[dict[str, Any]], large: dict[str, Any], came: float) -> None:
    """Write the law, its lines and what came."""
    points = {one["key"]: Point(one["parameters"], one["tokens"], one["loss"], one["unique"], one["seed"]) for one in runs}
    fit, place = fit_points(list(points.values())), Place(large["parameters"], large["tokens"])
    [said] = fit.predict([place])
    write(
        folder / "fit.json", fit.table() | {"prediction": said.table() | large, "notes": ["These sizes say <nothing> of far larger ones"]}
    )
    keep_curves(folder, fit, points, place)
    if came:
        write(folder / "runs" / f"{large['key']}.json", report(large["key"], large["label"], large["parameters"], large["tokens"], came))
        signed = {name: value for name, value in said.table().items() if name != "level"}
        inside = said.low <= came <= said.high
        write(folder / "check.json", signed | {"run": large["key"], "came": came, "inside": inside, "fact": 41, "unit": "bits/byte"})


ADVICE: dict[str, Any] = {
    "budget": {"unit": "minutes", "amount": 30.0, "said": "30 min", "level": 0.9},
    "incumbent": {"label": "6x192, 3.00M tokens, seed 0", "loss": 1.77},
    "offers": [
        {
            "lever": "data", "do": "let 6x192 read <more>", "command": "ingle make train --config offers/data.toml --minutes 30",
            "gain": 0.051, "low": 0.03, "high": 0.07, "probability_best": 0.81,
            "stops_paying": 96.0, "measured": True, "why": "by the sweep's law",
            "cost": {"minutes": 29.0, "core_minutes": 29.0, "flops": 1e14, "money": 0.01, "spent": 29.0,
                     "energy": {"joules": 21_000.0, "low": 14_000.0, "high": 35_000.0, "source": "model"}},
            "gain_per_unit": 0.0018,
        },
        {"lever": "hybrid", "do": "train it as a hybrid", "command": "ingle scale probe --lever hybrid", "gain": None, "low": None,
         "high": None, "probability_best": 0.0, "stops_paying": None, "measured": False, "why": "nobody tried", "cost": {}},
    ],
    "notes": ["Ways that were not measured have no figure."],
    "serving": {"said": ["For 1.719 and 2M tokens a day the cheapest is 1.2M on 6M."]},
}  # fmt: skip
"""Advice as `ingle scale advise` leaves it."""


def write(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table))
