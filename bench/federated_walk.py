"""Three empty homes learn together by the commands of docs/federated.md, while any of their processes is killed at random moments.

Homes pull a tiny model, exchange keys, invite, join and start, as people do. Then SIGKILL goes, again and again, to one of: the commands
themselves (coordinator, homes), the link, the nodes, the processes that learn. A command that was killed is given again. After the last
kill two more rounds must be accepted. Then Ctrl-C, and: every home's audit finds nothing, all are at one digest or at one before it (Ctrl-C
may come between two answers), every ledger is whole, and each home paid for no fewer rounds than it sent updates (`--private`).

    python bench/federated_walk.py [--kills 100] [--private] [--seed 0]

Needs the extras learn and federate. Exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import finish, show

sys.path.append(str(Path(__file__).parent.parent))
INGLE = [sys.executable, "-m", "ingle"]
NAMES = ("a", "b", "c")
PAUSE_S = (0.3, 8.0)
KINDS = {
    "ingle federate start": "coordinator",
    "ingle federate join": "home",
    "superlink": "link",
    "supernode": "node",
    "homework": "learning",
}
"""By a part of the command line."""
_PATIENCE_S = 600.0


class Homes:
    """Three homes, and the commands that run in them."""

    def __init__(self, folder: Path, private: bool) -> None:
        from tests.cli.place import write_model

        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        model = write_model(folder / "tiny")
        for name in NAMES:
            self.ingle(name, "pull", str(model), "--name", "tiny")
            checks = ("attacks", "bias", "bits", "refusals", "safety", "sense")  # a model of nonsense passes none of them
            (folder / name / "policy.toml").write_text("".join(f"[federate.{check}]\non = false\n" for check in checks))
            rows = [{"prompt": f"{name} {i}", "completion": f"this is {name} {i}"} for i in range(40)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        keys = {name: self.ingle(name, "federate", "key").strip() for name in NAMES}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            link = f"127.0.0.1:{free.getsockname()[1]}"
        promise = ["--epsilon", "100", "--records", "40000"] if private else []
        self.ingle(
            "a", "federate", "invite", "street", "--model", "tiny", "--member", keys["b"], "--member", keys["c"], "--link", link,
            "--rounds", "1000", "--set", "learning.steps=2", "--set", "rank=2", "--out", str(folder / "street.toml"), *promise,
        )  # fmt: skip

    def ingle(self, home: str, *arguments: str) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run([*INGLE, *arguments], env=self._environment(home), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{home}: ingle {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def go_on(self) -> None:
        """Give the commands that aren't running (again)."""
        for name in NAMES:
            if name not in self.running or self.running[name].poll() is not None:
                verb = "start" if name == "a" else "join"
                command = [
                    *INGLE,
                    "federate",
                    verb,
                    str(self.folder / "street.toml"),
                    "--data",
                    str(self.folder / f"{name}.jsonl"),
                    "--yes",
                ]
                with (self.folder / f"{name}.log").open("ab") as log:
                    self.running[name] = subprocess.Popen(command, env=self._environment(name), stdout=log, stderr=log)

    def end(self) -> None:
        """Ctrl-C for all, and wait."""
        for process in self.running.values():  # the coordinator first: who is gone can't be told how a round ended
            process.send_signal(signal.SIGINT)
            process.wait(120)

    def accepted(self) -> int:
        """Rounds that the coordinator's home has taken over."""
        [one] = json.loads(self.ingle("a", "federate", "status", "--json")) or [{"accepted": 0}]
        return int(one["accepted"])

    def _environment(self, home: str) -> dict[str, str]:
        return {**os.environ, "INGLE_HOME": str(self.folder / home), "OMP_NUM_THREADS": "1"}


def below(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from below(int(child))


def kind_of(pid: int) -> str:
    """What a process is; empty for what this bench doesn't kill."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return next((kind for part, kind in KINDS.items() if part in line), "")


def kill_one(homes: Homes, draw: random.Random) -> str:
    """Kill one process at random, each kind as likely as the others. Returns its kind; empty if there was none."""
    found: dict[str, list[int]] = {}
    for process in homes.running.values():
        try:
            for pid in below(process.pid):
                if kind := kind_of(pid):
                    found.setdefault(kind, []).append(pid)
        except OSError:  # it ended meanwhile
            continue
    if not found:
        return ""
    kind = draw.choice(sorted(found))
    try:
        os.kill(draw.choice(found[kind]), signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return kind


def wait_for(homes: Homes, rounds: int) -> None:
    """Wait until so many rounds are accepted; commands that ended are given again."""
    end = time.monotonic() + _PATIENCE_S
    while homes.accepted() < rounds:
        if time.monotonic() > end:
            raise SystemExit(f"no {rounds} rounds within {_PATIENCE_S:.0f} s; look into {homes.folder}")
        homes.go_on()
        time.sleep(1)


def paid_too_little(homes: Homes, name: str) -> bool:
    """Whether a home sent more updates than it paid for."""
    sent = {one["sha256"] for one in json.loads(homes.ingle(name, "federate", "left", "--json")) if one["kind"] == "update"}
    if name == "a":
        return False  # the coordinator's own update doesn't leave its machine
    [paid] = [json.loads(path.read_text())["rounds"] for path in (homes.folder / name / "federated").glob("*/spent.json")]
    return bool(len(sent) > paid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--private", action="store_true", help="with privacy of a record")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, killed = random.Random(args.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        homes = Homes(Path(place), args.private)
        homes.go_on()
        wait_for(homes, 1)
        while killed.total() < args.kills:
            time.sleep(draw.uniform(*PAUSE_S))
            if kind := kill_one(homes, draw):
                killed[kind] += 1
                print(f"{killed.total()} of {args.kills}: {kind}", file=sys.stderr)
            homes.go_on()
        amid = homes.accepted()
        wait_for(homes, amid + 2)
        homes.end()
        audits: dict[str, dict[str, Any]] = {name: json.loads(homes.ingle(name, "federate", "audit", "street", "--json")) for name in NAMES}
        problems = [f"{name}: {text}" for name, audit in audits.items() for text in audit["problems"]]
        most = max(audits.values(), key=lambda audit: len(audit["rounds"]))["rounds"]
        behind = [name for name, audit in audits.items() if audit["base"] not in (one["digest"] for one in most)]
        same = len({audit["base"] for audit in audits.values()}) == 1
        unpaid = [name for name in NAMES if args.private and paid_too_little(homes, name)]
        ledgers = [name for name in NAMES if "whole" not in homes.ingle(name, "verify")]
    rows = [("killed", "times"), *sorted(killed.items()), ("rounds taken over amid kills", amid), ("all homes at one digest", same)]
    show("a federation whose processes are killed", [tuple(map(str, row)) for row in rows])
    passed = same and not problems and not behind and not unpaid and not ledgers
    found = {
        "killed": dict(killed),
        "rounds": amid,
        "same": same,
        "problems": problems,
        "unpaid": unpaid,
        "ledgers": ledgers,
        "passed": passed,
    }
    finish("federated_walk", found)
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
