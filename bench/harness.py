"""What the benchmarks share: engines in processes of their own, runs that alternate, medians with their range, one JSON line at the end."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
LLAMA = ("llama.cpp", "llama.cpp flash")  # without flash attention, as its Python binding comes, and with it: either may be faster


def machine() -> dict[str, Any]:
    """The machine that a figure belongs to."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        model = next((value.strip() for key, value in lines.items() if key.strip() == "model name"), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "system": f"{platform.system()} {platform.release()}", "python": platform.python_version()}


class Engine:
    """A peer (or we) in a process of its own: `bench/peers.py NAME` answers JSON lines, so that no engine disturbs another's memory."""

    script = "peers.py"

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        command = [sys.executable, str(ROOT / self.script), name, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.about = self._read()

    def ask(self, **question: Any) -> dict[str, Any]:
        """One measurement, after a pause in which the threads that other engines leave spinning go to sleep."""
        time.sleep(0.4)
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._process.pid

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    raise SystemExit(f"{self.name}: {answer['error']}")
                return answer
        raise SystemExit(f"{self.name} ended with code {self._process.wait()}; is it installed? In the clone: pip install '.[bench]'")


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.4g} ({min(self.values):.4g} – {max(self.values):.4g})"

    def table(self) -> dict[str, Any]:
        """For the JSON line."""
        return {"median": self.median, "low": min(self.values), "high": max(self.values), "n": len(self.values)}


def ratios(mine: Figure, theirs: Figure) -> Figure:
    """Pair by pair, so that a drift of the machine's speed falls out."""
    return Figure(tuple(a / b for a, b in zip(mine.values, theirs.values, strict=True)))


def over_best(mine: Figure, others: Iterable[Figure]) -> Figure:
    """Mine over the others' fastest, by their medians."""
    return ratios(mine, max(others, key=lambda figure: figure.median))


def alternate(rounds: int, runs: dict[str, Callable[[], float]]) -> dict[str, Figure]:
    """Each run once to warm up, then all in turn, `rounds` times."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for number in range(rounds):
        for name, run in runs.items():
            values[name].append(run())
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {name: Figure(tuple(v)) for name, v in values.items()}


def show(title: str, rows: Sequence[Sequence[object]]) -> None:
    """A table in the terminal."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def finish(name: str, result: dict[str, Any]) -> None:
    """The last line: everything, as JSON."""
    print(json.dumps({"bench": name, "machine": machine(), **result}, ensure_ascii=False))
