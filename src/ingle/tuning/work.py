"""Where an unfinished run lies, so that the same command goes on with it; and what becomes of those that nobody goes on with.

HOME/tuning/KEY/run.json       how the delta came about, as it was when the run began
HOME/tuning/KEY/data/          training parts of suites
HOME/tuning/KEY/DIGEST/        what `train` writes: checkpoints, loss.csv, loss.svg; one folder for each state of the data
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors, write_atomic
from ingle.home.place import Home
from ingle.home.staging import idle_days

FILE = "run.json"
DAYS = 30
"""After which a run that nobody went on with is let go."""


def folder_of(home: Home, key: str) -> Path:
    """Where the run of that key lies."""
    return home.tuning / key[:32]


def read_origin(folder: Path) -> dict[str, str] | None:
    """The origin of the run that lies here, or None. Raises HomeError if what lies here can't be read."""
    path = folder / FILE
    if not path.exists():
        return None
    with os_errors(path):
        data = path.read_bytes()
    try:
        return {str(key): str(value) for key, value in json.loads(data).items()}
    except (ValueError, AttributeError) as error:
        raise HomeError(str(path), "must describe an unfinished run", error, f"Delete the folder {folder}.") from error


def write_origin(folder: Path, origin: Mapping[str, str]) -> None:
    """Keeps it. Raises HomeError."""
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / FILE, json.dumps(dict(origin), indent=1).encode(), mode=0o600)


def clean(folder: Path) -> None:
    """Lets a finished run go."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Home, days: float = DAYS) -> list[str]:
    """Lets runs go that nobody has touched for so long. Returns their names."""
    swept = []
    for folder in sorted(home.tuning.iterdir()) if home.tuning.is_dir() else ():
        with contextlib.suppress(OSError):  # somebody is at work in it
            if idle_days(folder) > days:
                clean(folder)
                swept.append(folder.name)
    return swept
