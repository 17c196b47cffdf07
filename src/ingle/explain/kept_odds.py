"""Calibrations as they are kept: one JSON file for each model, by its digest.

A file that is damaged, or of another model, counts as none.
"""

import json
from pathlib import Path
from typing import Any

from ingle.core.config import from_table, to_table
from ingle.core.digest import digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic
from ingle.explain.odds import Calibration
from ingle.home.place import Home

VERSION = 1  # changes when an answer is looked at in another way, so that what was fitted before no longer counts
SHIPPED = Path(__file__).parent / "calibrations"


def keep_calibration(home: Home, calibration: Calibration) -> Path:
    """Write a calibration into the home's cache. Raises HomeError."""
    path = _path(home.root / "cache" / "sure", calibration.model)
    with os_errors(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, sealed(calibration))
    return path


def sealed(calibration: Calibration) -> bytes:
    """Return a calibration as JSON with a digest of itself."""
    body = {"version": VERSION, **to_table(calibration)}
    return json.dumps({"digest": digest_json(body), **body}, indent=1).encode() + b"\n"


def find_calibration(home: Home, model: str) -> Calibration | None:
    """Return the calibration of a model by its digest: the home's, else the one that Ingle brings; None if it was not measured."""
    return _read(_path(home.root / "cache" / "sure", model), model) or _read(_path(SHIPPED, model), model)


def _path(folder: Path, model: str) -> Path:
    return folder / f"{digest_json(model)[:32]}.json"


def _read(path: Path, model: str) -> Calibration | None:
    """Return what a file holds; None if it is not there, damaged, of another version or of another model."""
    try:
        table: dict[str, Any] = json.loads(path.read_bytes())
        digest, version = table.pop("digest"), table["version"]
        if digest_json(table) != digest or version != VERSION or table["model"] != model:
            return None
        del table["version"]
        return from_table(Calibration, table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        return None
