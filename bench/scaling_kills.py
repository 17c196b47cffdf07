"""SIGKILL for a sweep's processes at random moments: the same outcomes and the same law, and next to nothing trained twice.

A sweep of tiny models runs in a process of its own, the driver. Again and again one of its workers or the driver is killed; with --ray the
sweep runs on a cluster of three nodes on this machine (the head has no core), and a node is killed, too. A driver that was killed begins
again, and a node is replaced. A sweep that ends before all kills are done is followed by another. In the end each is compared with one that
nobody disturbed.

Steps trained twice are counted from what workers say, which is every second: where one goes on at step 41 and another had said 55 before,
15 are trained again. Checkpoints are written every --minutes. Exit code 1 if an outcome differs.

python bench/scaling_kills.py [--kills 50] [--ray] [--minutes 0.1] [--pause 15] [--seed 0]
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import finish, show

sys.path.append(str(Path(__file__).parent.parent))
HEARD = "heard.jsonl"
LEAST_PAUSE_S = 1.0


def drive(root: str, runner: str, address: str, minutes: str) -> None:
    """Run the sweep of a home, and write down every step that is heard: the driver's process."""
    from importlib import import_module

    from ingle.home.place import Home
    from ingle.scaling.sweep import open_sweep, run_sweep

    module: Any = import_module(f"ingle.scaling.runners.{runner}")
    home = Home(Path(root))
    run_jobs, sweep = module.run_jobs, open_sweep(home, "small")
    runs = [replace(run, train=replace(run.train, checkpoint_minutes=float(minutes))) for run in sweep.runs]
    with (home.root / HEARD).open("a", buffering=1) as heard:

        def wrapped(jobs: Any, workers: int, hear: Any, stopped: Any, address: str) -> None:
            def both(number: int, header: dict[str, Any], data: bytes) -> None:
                if header["kind"] == "step":
                    heard.write(json.dumps({name: header[name] for name in ("key", "step", "steps")} | {"at": time.time()}) + "\n")
                hear(number, header, data)

            run_jobs(jobs, workers, both, stopped, address)

        module.run_jobs = wrapped
        run_sweep(home, sweep, runs, runner, 2, address)


def holders(folder: Path) -> list[int]:
    """Processes that hold a file of this folder open: workers hold the lock of their climb."""
    found = set[int]()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found.add(int(link.parts[2]))
    return sorted(found)


class Nodes:
    """A Ray cluster whose head has no core, and two nodes of one core."""

    def __init__(self, stack: ExitStack) -> None:
        from tests.scaling.ray_nodes import add_node, ray_nodes

        self._cluster, [_, *self._nodes] = stack.enter_context(ray_nodes(0, 1, 1))
        self._add, self.address = add_node, self._cluster.address

    def kill(self, draw: random.Random) -> None:
        """Kill a node, and let another one join."""
        node = self._nodes.pop(draw.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add(self._cluster, 1))


def disturb(home: Path, kills: int, minutes: float, pause_s: float, draw: random.Random, nodes: Nodes | None) -> Counter[str]:
    """Kill until there were so many kills or the sweep is done, then let it end."""
    killed = Counter[str]()
    command = [sys.executable, __file__, "--drive", str(home), "ray" if nodes else "local", nodes.address if nodes else "", str(minutes)]
    while True:
        driver = subprocess.Popen(command)
        while driver.poll() is None and killed.total() < kills:
            time.sleep(draw.uniform(LEAST_PAUSE_S, pause_s))
            workers = [pid for pid in holders(home / "scaling" / "small" / "work") if pid != driver.pid]
            kind = draw.choice(["driver", *["worker"] * bool(workers), *["node"] * (nodes is not None)])
            if driver.poll() is not None:
                break
            if kind == "node" and nodes:
                nodes.kill(draw)
            else:
                with suppress(ProcessLookupError):
                    os.kill(driver.pid if kind == "driver" else draw.choice(workers), signal.SIGKILL)
            killed[kind] += 1
            print(f"killed a {kind}: {dict(killed)}", file=sys.stderr)
            if kind == "driver":
                break
        if driver.wait() == 0:
            return killed


def repeated(home: Path) -> tuple[int, int, float]:
    """Steps that were said, steps of these that were trained again, and the most seconds of training that one kill cost."""
    lines = [json.loads(line) for line in (home / HEARD).read_text().splitlines()]
    all_steps, again, most_s = 0, 0, 0.0
    for key in {line["key"] for line in lines}:
        said = [line for line in lines if line["key"] == key]
        all_steps += said[-1]["steps"]
        for before, after in pairwise(said):
            if (lost := before["step"] - after["step"] + 1) > 0:
                again += lost
                first = next(line for line in said if line["step"] >= after["step"])
                most_s = max(most_s, before["at"] - first["at"])
    return all_steps, again, most_s


def main() -> None:
    if sys.argv[1:2] == ["--drive"]:
        drive(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--minutes", type=float, default=0.1)
    parser.add_argument("--pause", type=float, default=15.0, help="most seconds between two kills; more where the machine is busy")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from ingle.core.errors import IngleError
    from ingle.home.place import Home
    from ingle.scaling.interval import fit_points
    from ingle.scaling.sweep import open_sweep, run_sweep
    from ingle.scaling.sweep_settings import outcomes, point_of
    from tests.scaling.place import write_texts
    from tests.scaling.sweeps import planned

    def ended(place: Path) -> tuple[str, str]:
        """Digest of the outcomes, and of the law as far as seconds and joules don't enter it."""
        reports = open_sweep(Home(place), "small").reports()
        points = [replace(point_of(report), seconds=0.0, joules=0.0) for report in reports]
        try:
            return outcomes(reports), fit_points(points).digest
        except IngleError as error:
            return outcomes(reports), str(error)

    draw, killed, sweeps = random.Random(args.seed), Counter[str](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calm = Home(Path(folder) / "calm")
        sweep = planned(calm, write_texts(Path(folder) / "texts.jsonl", 900))
        shutil.copytree(calm.root, Path(folder) / "fresh")
        run_sweep(calm, sweep, sweep.runs, workers=2)
        expected, nodes = ended(calm.root), Nodes(stack) if args.ray else None
        while killed.total() < args.kills:
            place = Path(folder) / f"killed{len(sweeps)}"
            shutil.copytree(Path(folder) / "fresh", place)
            new = disturb(place, args.kills - killed.total(), args.minutes, args.pause, draw, nodes)
            killed += new
            steps, again, most_s = repeated(place)
            sweeps.append({"kills": new.total(), "same": ended(place) == expected, "steps": steps, "again": again, "most_s": most_s})
            print(sweeps[-1], file=sys.stderr)
    rows = [(n, *one.values()) for n, one in enumerate(sweeps)]
    show("sweeps that were disturbed", [("sweep", "kills", "same outcomes and law", "steps", "steps again", "most seconds lost"), *rows])
    passed = all(one["same"] for one in sweeps) and killed.total() == args.kills
    finish("scaling_kills", {"killed": dict(killed), "sweeps": sweeps, "law": expected[1], "minutes": args.minutes, "passed": passed})
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
