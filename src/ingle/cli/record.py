"""The fact that an answer leaves in the ledger: figures, and digests under a key of this home. Never a word of it.

The key makes the digests useless to somebody who has the ledger alone and guesses at what was said; whoever has both the home
and a text can still prove that this text was the answer.
"""

import hashlib
import hmac
import os
import queue
import secrets
import stat
from threading import Thread

from ingle.cli.generate import Outcome
from ingle.cli.house import open_ledger
from ingle.core.digest import canonical_json
from ingle.core.errors import IngleError, LedgerError
from ingle.core.event import Event
from ingle.core.files import os_errors, write_atomic
from ingle.core.message import Request
from ingle.home.place import Home

KEY = "answers.key"


def answer_key(home: Home) -> bytes:
    """The key of this home's digests, made at the first call (mode 600). Raises LedgerError if others can read it or it is damaged."""
    path = home.keys / KEY
    if not path.exists():
        with home.lock("answers-key"):
            if not path.exists():
                home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(path, secrets.token_hex(32).encode() + b"\n", mode=0o600)
    with os_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii", "replace").strip()
    if os.name != "nt" and mode & 0o077:
        raise LedgerError(str(path), "must be readable by its owner alone", f"mode {mode:o}", f"Run: chmod 600 '{path}'")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise LedgerError(str(path), "must hold 64 hex digits", f"{len(text)} characters", "Restore it from a backup.")
    return key


def answer_event(key: bytes, name: str, model_digest: str, request: Request, outcome: Outcome) -> Event:
    """The fact of one answer."""
    said = request.prompt if request.messages == () else [[message.role, message.text] for message in request.messages]
    usage = outcome.usage
    return Event(
        "answer",
        name,
        {
            "model": model_digest,
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else 0,
            "finish": outcome.finish,
            "seed": request.sampling.seed,
            "temperature": request.sampling.temperature,
            "request": hmac.digest(key, canonical_json(said), hashlib.sha256).hex(),
            "answer": hmac.digest(key, outcome.text.encode(), hashlib.sha256).hex(),
        },
    )


class Recorder:
    """Writes facts behind the conversation's back, in their order. `fault` holds the first failure until it is asked for."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._fault: IngleError | None = None
        self._thread: Thread | None = None

    def add(self, event: Event) -> None:
        """Takes a fact. The first one starts the thread, which imports the database: while the person reads, not before."""
        self._inbox.put(event)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="ledger")
            self._thread.start()

    def fault(self) -> IngleError | None:
        """Why a fact could not be written, once."""
        fault, self._fault = self._fault, None
        return fault

    def close(self) -> None:
        """Waits until everything is written."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (event := self._inbox.get()) is not None:
            try:
                with open_ledger(self._home) as ledger:
                    ledger.append(event)
            except IngleError as error:
                self._fault = error
