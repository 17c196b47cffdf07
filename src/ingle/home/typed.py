"""The lines typed in `ingle chat`, one JSON string a line, kept for the next time unless that is off."""

import json
from collections.abc import Collection

from ingle.core.files import os_errors, write_atomic
from ingle.home.place import Home
from ingle.home.quoting import seeker


def forget_typed(home: Home, texts: Collection[str]) -> int:
    """Delete the lines with one of these texts, in any case of letters. Returns how many. Raises HomeError."""
    path = home.history
    if not path.is_file() or not texts:
        return 0
    with os_errors(path):
        lines = path.read_bytes().splitlines()
    is_there = seeker(texts)
    left = [line for line in lines if not is_there(_decoded(line))]
    if len(left) < len(lines):
        write_atomic(path, b"".join(line + b"\n" for line in left), mode=0o600)
    return len(lines) - len(left)


def _decoded(line: bytes) -> str:
    try:
        return str(json.loads(line))
    except ValueError:  # as it was written before lines were JSON, or half of one
        return line.decode("utf-8", "replace")
