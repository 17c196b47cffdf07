"""A model that lies on the disk once (`ingle lean`) beside one whose file and pack both lie there: bytes, seconds, and what reading costs.

    python bench/lean.py FILE.gguf… [--rounds 3]

Each file is pulled into a home of its own. Open: from the start of a process to the first token, in turns lean and whole, files in the
system's cache. Read: every matrix once as float32, as training would. Memory: the most that the process held, mapped files with it.
"""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from harness import Figure, alternate, finish, show

READ = (
    "from ingle.engine.packs import open_weights; from ingle.home.kept import get_kept; from ingle.home.place import find_home; "
    "home = find_home(); c = open_weights(home, get_kept(home, 'm')); sum(c.tensor(n).to_float32().size for n in c.names)"
)
INGLE = ("-m", "ingle")
FIRST = (*INGLE, "run", "Once upon a time", "m", "--temperature", "0", "--max-tokens", "1")


def python(home: Path, *words: str) -> tuple[float, float]:
    """Run Python in a home. Returns seconds, and the most MB that the process held."""
    start = time.perf_counter()
    env = {**os.environ, "INGLE_HOME": str(home)}
    process = subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: {said.decode()}")
    return time.perf_counter() - start, used.ru_maxrss / 1e3


def disk(home: Path) -> float:
    """MB of bases and packs, files with two names once."""
    stats = [path.stat() for part in ("bases", "packs") for path in (home / part).rglob("*") if path.is_file()]
    return sum({one.st_ino: one.st_size for one in stats}.values()) / 1e6


@dataclass(frozen=True)
class Result:
    """Figures of one file."""

    file: str
    file_mb: float
    disk_whole_mb: float
    disk_lean_mb: float
    lean: tuple[float, float]
    """Seconds and MB of `ingle lean`."""
    whole: tuple[float, float]
    """Those of `--whole`."""
    same: bool
    """Whether the file came back and both homes said the same."""
    first: dict[str, Figure]
    """Seconds to the first token."""
    read: dict[str, Figure]
    """Seconds to read all matrices."""


def measured(file: Path, rounds: int) -> Result:
    """Figures of one file."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        homes = {name: Path(folder) / name for name in ("lean", "whole")}
        for home in homes.values():
            python(home, *INGLE, "pull", str(file), "--name", "m")
        before, lean = disk(homes["lean"]), python(homes["lean"], *INGLE, "lean", "m")
        after = disk(homes["lean"])
        first = alternate(rounds, {name: partial(seconds, home, *FIRST) for name, home in homes.items()})
        read = alternate(rounds, {name: partial(seconds, home, "-c", READ) for name, home in homes.items()})
        said = {words(home, *FIRST[:-1], "16") for home in homes.values()}
        whole = python(homes["lean"], *INGLE, "lean", "m", "--whole")
        [back] = (homes["lean"] / "bases").glob("*/*.gguf")
        same = filecmp.cmp(back, file, shallow=False) and len(said) == 1
    return Result(file.name, file.stat().st_size / 1e6, before, after, lean, whole, same, first, read)


def seconds(home: Path, *words: str) -> float:
    """Seconds of a run of Python in a home."""
    return python(home, *words)[0]


def words(home: Path, *command: str) -> bytes:
    """Standard output of a run of Python in a home."""
    return subprocess.run([sys.executable, *command], env={**os.environ, "INGLE_HOME": str(home)}, capture_output=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    results = [measured(file.absolute(), given.rounds) for file in given.files]
    rows = [
        (
            one.file,
            *(f"{mb:,.0f}" for mb in (one.file_mb, one.disk_whole_mb, one.disk_lean_mb)),
            *_cells(one.lean),
            *_cells(one.whole),
            one.same,
        )
        for one in results
    ]
    show("disk, MB", [("file", "its MB", "whole", "lean", "lean: s", "MB", "whole: s", "MB", "same"), *rows])
    for title, name in (("to the first token, s", "first"), ("all matrices read, s", "read")):
        show(
            title, [("file", "lean", "whole"), *((one.file, *(getattr(one, name)[home] for home in ("lean", "whole"))) for one in results)]
        )
    finish("lean", {"results": [asdict(one) for one in results]})


def _cells(cost: tuple[float, float]) -> tuple[str, str]:
    return f"{cost[0]:.1f}", f"{cost[1]:,.0f}"


if __name__ == "__main__":
    main()
