"""Transports carry bytes between a coordinator and its homes, and know nothing of what is in them. All that left this machine is listed.

A transport is one function (`Ask`). `local` is the one between homes of one process, for tests and trials; others are held to
the same contract (tests/contracts/test_transports.py).

HOME/federated/KEY/left.jsonl    a line a message, written before the message goes: when, to whom, of which kind, how many bytes, with which
digest. The bytes themselves are not kept.
"""

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ingle.core.clock import REAL, Clock
from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors
from ingle.federated.statement import from_bytes

# Requests by seat, seconds → replies with their seats, as they come, at most one of each home. Who doesn't answer in time, or can't, is
# left out; what comes later is dropped.
Ask = Callable[[Mapping[int, bytes], float], Iterator[tuple[int, bytes]]]

LOOK_S = 0.2  # how often it is looked whether somebody asked to stop


def local(homes: Mapping[int, Callable[[bytes], bytes | None]], clock: Clock = REAL) -> Ask:
    """Return the transport between homes of this process: by seat, what answers a request (or None). Each has its own thread."""

    def ask(requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        replies: queue.SimpleQueue[tuple[int, bytes] | Literal["late"] | None] = queue.SimpleQueue()

        def one(seat: int, data: bytes) -> None:
            reply = None
            try:
                reply = homes[seat](data)
            finally:  # a home that breaks is one that doesn't answer
                replies.put(None if reply is None else (seat, reply))

        for seat, data in requests.items():
            threading.Thread(target=one, args=(seat, data), daemon=True, name=f"home {seat}").start()
        alarm = clock.after(deadline_s, lambda: replies.put("late"))
        try:
            for _ in requests:
                reply = replies.get()
                if reply == "late":
                    return
                if reply is not None:
                    yield reply
        finally:
            alarm.cancel()

    return ask


def never() -> bool:
    return False


def beside(ask: Ask, seat: int, respond: Callable[[bytes], bytes | None], stopped: Callable[[], bool] = never) -> Ask:
    """Return a transport that answers for one seat in this process, and asks all others by `ask`, at the same time.

    Once `stopped` is true nobody is waited for any more.
    """
    own = local({seat: respond})

    def ask_all(requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        replies: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()

        def drain(part: Ask, some: Mapping[int, bytes]) -> None:
            try:
                for reply in part(some, deadline_s):
                    replies.put(reply)
            finally:
                replies.put(None)

        parts = ((own, {seat: requests[seat]} if seat in requests else {}), (ask, {at: one for at, one in requests.items() if at != seat}))
        for part, some in parts:
            threading.Thread(target=drain, args=(part, some), daemon=True, name="asking").start()
        asking = len(parts)
        while asking:
            try:
                reply = replies.get(timeout=LOOK_S)
            except queue.Empty:
                if stopped():
                    return
                continue
            if reply is None:
                asking -= 1
            else:
                yield reply

    return ask_all


LEFT = "left.jsonl"
TO_HOMES = ("join", "meet", "keys", "update", "agree", "shares", "vote", "end")
# The kinds of messages that there are. Nothing else leaves.
TO_COORDINATOR = ("join", "met", "keys", "update", "agree", "shares", "vote", "ended", "refused")
_WRITING = threading.Lock()  # a home answers and asks from several threads; that only one process does is the federation's own lock's part


@dataclass(frozen=True, slots=True)
class LeftMessage:
    at: str  # when, in UTC
    to: str  # to whom: `coordinator`, or `seat N`
    kind: str  # its kind: a name of TO_HOMES or TO_COORDINATOR
    bytes: int
    sha256: str


def logged_answers(respond: Callable[[bytes], bytes], folder: Path) -> Callable[[bytes], bytes]:
    """Return `respond`, whose every reply is on the list before it goes."""

    def respond_and_tell(data: bytes) -> bytes:
        reply = respond(data)
        _add(folder, "coordinator", reply, TO_COORDINATOR)
        return reply

    return respond_and_tell


def logged_requests(ask: Ask, folder: Path) -> Ask:
    """Return `ask`, whose every request is on the list before it goes."""

    def ask_and_tell(requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        for seat, data in requests.items():
            _add(folder, f"seat {seat}", data, TO_HOMES)
        return ask(requests, deadline_s)

    return ask_and_tell


def what_left(folder: Path) -> list[LeftMessage]:
    """Return what left, oldest first; a line that a crash cut off is the last and is left out. Raises HomeError for other damage."""
    path = folder / LEFT
    if not path.exists():
        return []
    with os_errors(path):
        *lines, _rest = path.read_bytes().split(b"\n")
    try:
        return [LeftMessage(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        cure = "Restore it from a backup. What left can't be known for certain now."
        raise HomeError(str(path), "must list what left this machine", error, cure) from error


def _add(folder: Path, to: str, data: bytes, kinds: tuple[str, ...]) -> None:
    kind = from_bytes(data).kind
    if kind not in kinds:
        raise FederatedError("message", f"must be one of {', '.join(kinds)}", kind, "It was not sent.")
    row = LeftMessage(datetime.now(UTC).isoformat(timespec="milliseconds"), to, kind, len(data), digest_bytes(data))
    path = folder / LEFT
    with _WRITING, os_errors(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:  # a crash may have cut the last line off: what was not whole had not left
                file.seek(0)
                end = file.read().rfind(b"\n") + 1
            file.seek(end)
            file.truncate()
            file.write(canonical_json(asdict(row)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
