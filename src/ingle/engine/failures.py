"""Turns whatever ends a job into an error for its client, and remembers whether memory has run out."""

import logging
from collections.abc import Callable

import numpy as np

from ingle.core.errors import IngleError, KernelError, NoMemory
from ingle.engine.job import Job

_LEAST_BYTES = 16 << 20
"""Bytes that an answer needs at least, scratch memory of the backend included."""


class Failures:
    """Failed jobs of one scheduler."""

    def __init__(self) -> None:
        self._lacked_bytes = 0

    def error_of(self, job: Job, error: Exception) -> IngleError:
        """Return the error for the client. One that is not Ingle's is logged, and reported as a bug."""
        if isinstance(error, IngleError):
            return error
        if isinstance(error, MemoryError):
            self._lacked_bytes = max(job.needed_bytes, _LEAST_BYTES)
            return NoMemory("memory", "There is no memory left for this answer", "", "Ask again later, or lower serve.state_mb.", 5.0)
        logging.getLogger("ingle").error("engine", exc_info=error)
        cure = "This is a bug in Ingle; the server's log has more."
        return KernelError("engine", "The engine failed on this request", type(error).__name__, cure)

    def starved(self) -> bool:
        """Return whether an answer failed for lack of memory, and so much still can't be had. Costs nothing as long as none has failed."""
        try:
            np.empty(self._lacked_bytes, np.uint8)
        except MemoryError:
            return True
        self._lacked_bytes = 0
        return False


def spared(work: Callable[[], None]) -> None:
    """Run work that no answer depends on: its errors are logged, and answers go on."""
    try:
        work()
    except Exception:
        logging.getLogger("ingle").exception("states")
