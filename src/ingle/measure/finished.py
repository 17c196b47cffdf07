"""Cache of measured items, in the home: an interrupted run goes on, a larger one begins where a small one ended.

One file for each model and suite, one JSON object a line, only ever appended to. It may be deleted at any time.
"""

import json
from collections.abc import Mapping
from typing import Any

from ingle.core.digest import digest_json
from ingle.core.files import os_errors
from ingle.home.place import Home

Row = dict[str, Any]
"""Result of one item, as plain values."""
VERSION = 1
"""Changes when rows mean something else than before."""


class Finished:
    """Finished items of one model and suite, by the digest of all that the model was asked."""

    def __init__(self, home: Home, suite: str, model_digest: str) -> None:
        self.path = home.root / "cache" / "measure" / f"{suite}-{digest_json([VERSION, suite, model_digest])[:32]}.jsonl"
        self._rows: dict[str, Row] = {}
        lines = [b""]
        with os_errors(self.path):
            if self.path.exists():
                lines = self.path.read_bytes().split(b"\n")
        for line in lines:
            self._remember(line)
        self._cut = bool(lines[-1])
        """Whether the last line was cut off, by a kill or a full disk."""

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Row | None:
        """Return the result of an item, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep an item at once. Raises HomeError if the disk refuses."""
        line = json.dumps({"key": key, "row": dict(row)}, ensure_ascii=False).encode() + b"\n"
        with os_errors(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"\n" + line if self._cut else line)
        self._cut = False
        self._rows[key] = dict(row)

    def _remember(self, line: bytes) -> None:
        try:
            table = json.loads(line)
            self._rows[table["key"]] = table["row"]
        except (ValueError, KeyError, TypeError):
            return  # the line was cut off: its item is measured again


class Passing:
    """A cache that keeps nothing: for a single measurement, or one that must not be written down."""

    def get(self, _key: str) -> Row | None:
        """Return None: nothing is cached."""
        return None

    def add(self, _key: str, _row: Mapping[str, Any]) -> None:
        """Do nothing."""
