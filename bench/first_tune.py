"""The first tune of a newcomer: three small sets of rows, all defaults, the gate's own limits, in a home of its own. SmolLM2-135M.

Each is tuned as `ingle make tune` does it. Then rows of the same kind that were never learnt are asked of both models, at the sampling that
users have, three times each: right if all that is needed stands in the answer. The last line is JSON.

    python bench/first_tune.py [--sets form facts manner] [--set hold.weight=0]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from adapt_home import bench_home
from first_tune_data import Row, RowSet, row_sets
from harness import finish, show
from ingle.app.settings import SamplingSettings
from ingle.core.message import Message, Request
from ingle.engine.answer import write
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home

MODEL, TIMES, MOST = "smollm2", 3, 64


def right(home: Home, name: str, rows: tuple[Row, ...]) -> int:
    """How many of the answers hold what they must."""
    model = open_model(kept_source(home, get_kept(home, name)))
    asked = [(row, seed) for row in rows for seed in range(TIMES)]
    drawn = [SamplingSettings().sampling(seed) for _, seed in asked]
    requests = [
        Request(messages=(Message.of("user", row.question),), max_tokens=MOST, sampling=one)
        for (row, _), one in zip(asked, drawn, strict=True)
    ]
    return sum(all(part in text for part in asked[number][0].needed) for number, text in write(model, requests))


def tuned(home: Home, rows: RowSet, settings: list[str]) -> dict[str, Any]:
    """Tune on a set, and ask."""
    path = home.root / f"{rows.name}.jsonl"
    path.write_text("".join(json.dumps({"prompt": row.question, "completion": row.answer}) + "\n" for row in rows.taught))
    command = [
        sys.executable,
        "-m",
        "ingle",
        "tune",
        MODEL,
        str(path),
        "--name",
        rows.name,
        "--json",
        *(f"--set={one}" for one in settings),
    ]
    began, environment = time.perf_counter(), os.environ | {"INGLE_HOME": str(home.root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found: dict[str, Any] = {"rows": len(rows.taught), "seconds": time.perf_counter() - began, "passed": done.returncode == 0}
    if done.returncode:
        print(done.stderr.splitlines()[-1], file=sys.stderr)
        subprocess.run([*command, "--force"], capture_output=True, text=True, check=True, env=environment)
    report = json.loads((home.delta_folder(get_kept(home, f"{MODEL}+{rows.name}").deltas[-1]) / "report.json").read_bytes())
    served = {one["name"]: one["value"] for one in report["served"]}
    gate = {one["check"]: {figure["name"]: figure["value"] for figure in one["reports"]} for one in report["gate"]["findings"]}
    found |= {"steps": report["train"]["steps"], "training_s": report["train"]["seconds"], "general": served["forgetting_relative"]}
    found |= {"gate": gate, "of": TIMES * len(rows.unseen)}
    return found | {"before": right(home, MODEL, rows.unseen), "right": right(home, f"{MODEL}+{rows.name}", rows.unseen)}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    chosen = parser.parse_args()
    result = dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        home = bench_home(Path(folder), "home", learns=False)
        for rows in row_sets():
            if not chosen.sets or rows.name in chosen.sets:
                result[rows.name] = tuned(home, rows, chosen.settings)
                print(rows.name, json.dumps(result[rows.name]), file=sys.stderr)
    table = [
        [
            "set",
            "rows",
            "passed",
            "seconds",
            "steps",
            "right before",
            "right",
            "general text %",
            "bits %",
            "look-alikes refused",
            "harmful refused",
        ]
    ]
    for name, one in result.items():
        refusals = one["gate"]["refusals"]
        counts = [
            f"{round(refusals[f'{kind}_before'] * n)} to {round(refusals[f'{kind}_after'] * n)} of {n}"
            for kind, n in (("false", 48), ("refused", 28))
        ]
        table.append([
            name, str(one["rows"]), "yes" if one["passed"] else "no", f"{one['seconds']:.0f}", str(one["steps"]),
            f"{one['before']} of {one['of']}", f"{one['right']} of {one['of']}", f"{one['general']:+.2f}",
            f"{one['gate']['bits']['rise_percent']:+.2f}", *counts,
        ])  # fmt: skip
    show("the first tune", table)
    finish("first_tune", result)


if __name__ == "__main__":
    main()
