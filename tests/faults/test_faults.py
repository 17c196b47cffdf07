"""Whatever act of the disk fails, in whatever journey: nothing acknowledged is lost, nothing wrong is served, and the next start works.

The whole of it takes an hour or more and is marked `slow` (`make slow`); INGLE_FAULTS_EVERY=5 takes every fifth act only. What is always
run makes sure that faults are injected where they should be, and that a careless program would be found.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingle.home.place import Home
from tests.faults.journeys import JOURNEYS

ROOT = Path(__file__).parents[2]
LEAST = 20
"""Fewer acts than this no journey has: then the injector would not see them."""
pytestmark = [pytest.mark.journey, pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc, and SQLite's table of system calls")]


def program(*arguments: str, code: str = "") -> list[str]:
    """Runs the runner, or a program with its imports, and returns its lines."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "tests.faults.run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def faults(lines: list[str]) -> tuple[list[str], dict[str, Any]]:
    """What the runner found, and its table."""
    return lines[:-1], json.loads(lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", JOURNEYS)
def test_whatever_fails(name: str, tmp_path: Path) -> None:
    found, table = faults(program(name, str(tmp_path / "place"), os.environ.get("INGLE_FAULTS_EVERY", "1")))
    print(f"{name}: {table['acts']} acts, faults injected: {table['faults']}")
    assert found == []
    assert table["acts"] >= LEAST and sum(table["faults"].values()) > 0


@pytest.mark.parametrize("name", ["key added", "teach"])
def test_some_faults_of_a_short_journey(name: str, tmp_path: Path) -> None:
    found, table = faults(program(name, str(tmp_path / "place"), "13"))
    assert found == []
    assert table["acts"] >= LEAST and all(count >= 3 for count in table["faults"].values())


CARELESS = """
import sys
from pathlib import Path
from ingle.home.place import Home
from tests.faults import journeys, run

def act(home, ack):
    ack("kept")
    (home.root / "first").write_text("new")
    (home.root / "second").write_text("new")

def check(home, acks):
    texts = [(home.root / name).read_text() for name in ("first", "second")]
    return [f"half is new: {texts}"] if len(set(texts)) > 1 else ["it is lost"] if acks and texts[0] == "old" else []

def prepare(home):
    home.root.mkdir()
    for name in ("first", "second"):
        (home.root / name).write_text("old")

journeys.JOURNEYS["careless"] = journeys.Journey("careless", prepare, act, check, journeys.never)
run.main("careless", Path(sys.argv[1]), 1)
"""


def test_a_careless_program_is_found(tmp_path: Path) -> None:
    found, table = faults(program(str(tmp_path / "place"), code=CARELESS))
    assert table["acts"] == 4 and table["faults"] == {"once": 4, "full": 4, "kill": 4}
    assert any("half is new" in line for line in found) and any("it is lost" in line for line in found)
    assert any("a bare OSError" in line for line in found)


SEEN = """
import os, sys, tempfile
from pathlib import Path
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
import safetensors.numpy
from ingle.app.house import open_ledger
from ingle.core.errors import IngleError
from ingle.core.report import Event
from ingle.core.files import write_atomic
from ingle.home.place import Home
from tests.faults.injector import Injector

root, nth, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
injector = Injector(str(root), nth, mode).install()
try:
    with open_ledger(Home(root)) as ledger:
        ledger.append(Event("pull", "x"))
    write_atomic(root / "atomic", b"x" * 100)
    with (root / "plain").open("w") as file:
        file.write("y" * 100)
    safetensors.numpy.save_file({"a": np.zeros(99)}, root / "a.safetensors")
    os.link(root / "plain", root / "link")
    (root / "link").unlink()
    Path(tempfile.gettempdir(), "elsewhere").write_text("z")
except (IngleError, OSError, SafetensorError) as error:
    print("failed", type(error).__name__)
print(*injector.seen, sep="\\n")
"""


def test_what_is_counted_fails(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    seen = program(str(tmp_path / "whole"), "0", "once", code=SEEN)
    for act in (
        "open /ingle.db-wal", "write /ingle.db-wal", "write /ingle.db", "ftruncate /ingle.db-shm", "unlink /ingle.db-wal",
        "replace /atomic",
        "replace /keys/ledger.key", "write /plain", "open /plain", "write /a.safetensors", "link /link", "unlink /link", "fsync /keys",
        "mkdir /keys",
    ):  # fmt: skip
        assert act in seen, act
    assert not any("elsewhere" in line for line in seen)
    for act, error in (("write /ingle.db-wal", "HomeError"), ("write /plain", "OSError"), ("write /a.safetensors", "SafetensorError")):
        folder = tmp_path / act.replace("/", "")
        folder.mkdir()
        assert f"failed {error}" in program(str(folder), str(seen.index(act) + 1), "full", code=SEEN)
    assert (tmp_path / "write plain" / "plain").stat().st_size == 50, "half of it was written"


def test_the_home_of_a_journey_is_its_own(tmp_path: Path) -> None:
    """A runner that looked at an untouched home would find nothing: each prepared home differs from the one at the journey's end."""
    home = Home(tmp_path / "home")
    for journey in (JOURNEYS["key revoked"], JOURNEYS["teach"]):
        folder = Home(home.root / journey.name / "home")
        folder.root.parent.mkdir(parents=True)
        journey.prepare(folder)
        assert not journey.settled(folder)
        acks = list[str]()
        journey.act(folder, acks.append)
        assert journey.settled(folder) and acks and journey.check(folder, acks) == []
