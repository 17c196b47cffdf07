"""A pull for a server (serve/pulling.py): progress and outcome as one JSON object a line on standard output.

It works at low priority. When its standard input ends, it ends as by Ctrl-C: what has arrived is kept for the next attempt.
"""

import json
import os
import signal
import sys
import threading
import time

from ingle.app.bringing import bring, bring_part, lay_lean
from ingle.app.house import enter
from ingle.app.settings import read_settings
from ingle.core.errors import IngleError
from ingle.engine.bandwidth import check_room
from ingle.home.catalogue import SHIPPED, parts_called
from ingle.home.place import Home

_EVERY_S = 0.2


class JsonLines:
    """A `Watcher` that writes JSON, at most five lines a second for each label."""

    def __init__(self) -> None:
        self._last: tuple[str, float] = ("", 0.0)

    def bytes(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """See `Watcher`."""
        self._tell(label, done_bytes, total_bytes, "bytes")

    def pieces(self, label: str, done: int, total: int, detail: str = "") -> None:
        """See `Watcher`."""
        if total:
            self._tell(label, done, total, "pieces")

    def say(self, text: str) -> None:
        """See `Watcher`."""
        tell({"note": text})

    def _tell(self, label: str, done: int, total: int | None, unit: str) -> None:
        before, at = self._last
        if label == before and done != total and time.monotonic() - at < _EVERY_S:
            return
        self._last = label, time.monotonic()
        tell({"label": label, "done": done, "total": total, "unit": unit})


def tell(table: dict[str, object]) -> None:
    """Write one line."""
    print(json.dumps(table), flush=True)


def attached_pull(what: str, force: bool, lean: bool | None) -> None:
    """Pull a model, or parts, for a server; `lean`: None = as the home's settings say. An error is the last line, and raised."""
    threading.Thread(target=_end_with_server, name="attached", daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(19)
    home = enter()
    try:
        kept = _bring(home, what, force, lean, JsonLines())
    except IngleError as error:
        tell({"error": str(error)})
        raise
    tell({"kept": kept})


def _bring(home: Home, what: str, force: bool, lean: bool | None, watch: JsonLines) -> str:
    """Pull it, and return the name by which it is kept."""
    if what not in SHIPPED and (parts := parts_called(what)):
        for part in parts:
            bring_part(home, part, watch)
        return what
    check_room(home, what, force, watch.say)
    settings = read_settings(home, options={"pull.lean": lean})
    brought = bring(home, what, watch, format_=settings.chat.format)
    if settings.pull.lean:
        lay_lean(home, brought, watch)
    return brought.kept.name


def _end_with_server() -> None:
    """Interrupt this process when its standard input ends. It is read without Python's buffer, whose lock an ending process would want."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
