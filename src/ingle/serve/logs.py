"""The server's log: one line per event on standard error, as JSON except at a terminal. Never a word of a prompt or an answer."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from ingle.core.event import Fact


def log(what: str, facts: Mapping[str, Fact]) -> None:
    """Write one line."""
    now = datetime.now(UTC)
    if sys.stderr.isatty():
        values = "  ".join(f"{name} {value}" for name, value in facts.items())
        line = f"{now.astimezone():%H:%M:%S}  {what}  {values}"
    else:
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), "event": what, **facts}, ensure_ascii=False)
    print(line, file=sys.stderr, flush=True)
