"""Origin of a run: kept in HOME/tuning/KEY/run.json while it is unfinished, so that the delta tells of its first sitting."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from ingle.core.errors import HomeError
from ingle.core.files import os_errors, write_atomic

FILE = "run.json"


def read_origin(folder: Path) -> dict[str, str] | None:
    """Read the origin of the run in this folder, or None. Raises HomeError if the file can't be read."""
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
    """Keep the origin. Raises HomeError."""
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(folder / FILE, json.dumps(dict(origin), indent=1).encode(), mode=0o600)


def files_of(origin: Mapping[str, str]) -> list[Path]:
    """Return the files of a finished delta's origin that stand where its command named them, seen from this folder."""
    names = set(origin.get("data", "").split(", "))
    try:
        named = [Path(word) for word in shlex.split(origin.get("command", ""))]
    except ValueError:
        return []
    return [path for path in dict.fromkeys(named) if path.name in names and path.is_file()]
