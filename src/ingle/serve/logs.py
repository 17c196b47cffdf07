"""The server's log: one line per event on standard error, as JSON except at a terminal. Never a word of a prompt or an answer."""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ingle.core.report import Fact

_LONGEST = 300  # most characters of a library's message
_FRAMES = 6  # most calls that tell where an error happened


class LogLines(logging.Handler):
    """Writes what libraries log, and errors that nobody caught, as lines of this log: where they happened, and never a word that was said.

    An error's own message may hold such words, so its type and its place stand for it. At a terminal its traceback follows.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        facts: dict[str, Fact] = {"from": record.name}
        error = record.exc_info[1] if record.exc_info else record.msg if isinstance(record.msg, BaseException) else None
        if error is None:
            facts["message"] = (record.getMessage().splitlines() or [""])[0][:_LONGEST]
        else:
            facts |= {"error": type(error).__name__, "place": place_of(error)}
        log(record.levelname.lower(), facts)
        if error is not None and sys.stderr.isatty():
            traceback.print_exception(error, file=sys.stderr)


def place_of(error: BaseException) -> str:
    """Return where an error happened, the innermost call first."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " < ".join(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in reversed(frames))


def log_everything() -> None:
    """Write all that this process would print about errors as lines of the log, for as long as it runs."""
    lines = LogLines()
    logging.getLogger().handlers[:] = [lines]
    logging.captureWarnings(True)

    def uncaught(hook: threading.ExceptHookArgs) -> None:
        name = hook.thread.name if hook.thread else "thread"
        error = hook.exc_value or hook.exc_type()
        logging.getLogger(name).error("ended", exc_info=(type(error), error, hook.exc_traceback))

    threading.excepthook = uncaught


def log(what: str, facts: Mapping[str, Fact]) -> None:
    """Write one line. The page's tasks, the scheduler and the ledger write from threads of their own, so it is written in one piece."""
    now = datetime.now(UTC)
    if sys.stderr.isatty():
        values = "  ".join(f"{name} {value}" for name, value in facts.items())
        line = f"{now.astimezone():%H:%M:%S}  {what}  {values}"
    else:
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), "event": what, **facts}, ensure_ascii=False)
    sys.stderr.write(f"{line}\n")  # in one piece: `print` writes the end of a line apart, and another thread's line would come between
    sys.stderr.flush()
