"""The memory of what makes a model: foretold before it begins, and taken, of `ingle make harden`, `debias` and `tune` at their defaults.

    python bench/making_memory.py                                  # smollm2 and smollm2-hybrid; an hour on two cores
    python bench/making_memory.py --models smollm2 --verbs tune

All parts run: measuring before, training, measuring after, and the gate, whatever it says (`--force`). They run in a home of their own,
where what was measured is forgotten before each command. Taken is the most that the command and its children held at one moment, what they
share counted once (`/proc/PID/smaps_rollup`, PSS, five times a second). Foretold is the report's `predicted`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import finish, show

VERBS: dict[str, tuple[str, ...]] = {
    "harden": (), "debias": (), "tune": ("suite:xsum", "--max-examples", "80", "--epochs", "1"),
}  # fmt: skip
"""Commands and what they are given beside a model: a tune takes rows of 2,048 tokens, its default, where there are enough examples."""
_INGLE, _LOOK_S = (sys.executable, "-m", "ingle"), 0.2


def _at(home: Path) -> dict[str, str]:
    return {**os.environ, "INGLE_HOME": str(home)}


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def held(pid: int) -> int:
    """Bytes that a process and all below it hold now; what they share counts once."""
    total = 0
    for one in family(pid):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def taken(home: Path, model: str, verb: str) -> dict[str, Any]:
    """Run a command; return what it held at most and what was foretold, in MB, its seconds, and its training's tokens a second."""
    for rest in ("cache/measure", "tuning"):
        shutil.rmtree(home / rest, ignore_errors=True)
    began, most = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as told:
        words = [verb, model, *VERBS[verb], "--name", f"memory-{verb}", "--force", "--json"]
        process = subprocess.Popen([*_INGLE, *words], env=_at(home), stdout=told, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            most = max(most, held(process.pid))
            time.sleep(_LOOK_S)
        if process.returncode:
            raise SystemExit(f"ingle {' '.join(words)} ended with code {process.returncode}")
        told.seek(0)
        report = json.load(told)
    foretold = report["predicted"]
    return {
        "model": model, "verb": verb, "taken_mb": most / 1e6, "foretold_mb": foretold["memory_bytes"] / 1e6,
        "ratio": foretold["memory_bytes"] / most, "seconds": time.perf_counter() - began, "foretold_s": foretold["seconds"],
        "tokens_per_s": report["train"]["tokens_per_s"],
    }  # fmt: skip


def main() -> None:
    """Measure each command on each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2", "smollm2-hybrid"])
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=list(VERBS))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            subprocess.run([*_INGLE, "pull", model], env=_at(Path(folder)), check=True, stdout=sys.stderr)
            for verb in options.verbs:
                rows.append(taken(Path(folder), model, verb))
                print(f"{verb} {model}: {rows[-1]['taken_mb']:.0f} MB", file=sys.stderr)
    shown = [
        (r["model"], r["verb"], f"{r['taken_mb']:.0f}", f"{r['foretold_mb']:.0f}", f"{r['ratio']:.2f}", f"{r['seconds']:.0f}") for r in rows
    ]
    show("most memory at one moment", [("model", "command", "taken, MB", "foretold, MB", "foretold / taken", "seconds"), *shown])
    finish("making_memory", {"rows": rows})


if __name__ == "__main__":
    main()
