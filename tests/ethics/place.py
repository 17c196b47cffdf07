"""A home with facts, bundles of it, and the ways to verify them."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from ingle.core.report import Event
from ingle.ethics import verify_bundle
from ingle.ethics.bundle import attest
from ingle.home.database import open_database
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS

PROGRAM = Path(str(verify_bundle.__file__))
BENCH = Path(__file__).parent.parent.parent / "bench"


def make_home(root: Path, facts: int = 12) -> Home:
    home = Home(root).create()
    record(home, *(Event(("answer", "pull")[number % 2], "smollm2", {"n": number, "key": f"k{number % 3}"}) for number in range(facts)))
    return home


def record(home: Home, *events: Event) -> None:
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        for event in events:
            Ledger(engine, home.keys).append(event)
    finally:
        engine.dispose()


def bundle(home: Home, out: Path, seqs: Sequence[int] = (3, 5, 8), cards: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """The files of a bundle, which is also written to `out`."""
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        attest(home, engine, seqs, cards or {}, out)
    finally:
        engine.dispose()
    return {path.name: path.read_bytes() for path in out.iterdir()}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def run(folder: Path, key: str = "", program: Path = PROGRAM) -> "subprocess.CompletedProcess[str]":
    """A stranger's run: the program alone, without our package."""
    command = [sys.executable, "-I", str(program), str(folder), *([key] if key else [])]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def refused(folder: Path, key: str = "") -> bool:
    """The program within this process."""
    try:
        verify_bundle.verify(folder, key)
    except (Exception, SystemExit):
        return True
    return False


def fingerprint(home: Home) -> str:
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    head = Ledger(engine, home.keys).head()
    engine.dispose()
    assert head is not None
    return head.fingerprint


def load_bench(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
