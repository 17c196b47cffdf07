"""List of all that left this machine for a federation: when, to whom, of which kind, how many bytes, with which digest.

HOME/federated/KEY/left.jsonl    a line a message, written before the message goes; the bytes themselves are not kept
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import FederatedError, HomeError
from ingle.core.files import os_errors
from ingle.federated.transport import Ask
from ingle.federated.wire import from_bytes

LEFT = "left.jsonl"
TO_HOMES = ("join", "meet", "keys", "update", "agree", "shares", "vote", "end")
# The kinds of messages that there are. Nothing else leaves.
TO_COORDINATOR = ("join", "met", "keys", "update", "agree", "shares", "vote", "ended", "refused")
_WRITING = threading.Lock()  # a home answers and asks from several threads; that only one process does is the federation's own lock's part


@dataclass(frozen=True, slots=True)
class LeftMessage:
    """One message that left."""

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
