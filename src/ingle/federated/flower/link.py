"""The coordinator's end: a transport to homes that reach this machine over the network. It holds what was asked until it is answered."""

import errno
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError, FederatedError, fault_of, raised
from ingle.core.files import os_errors
from ingle.federated.flower.certificate import CERTIFICATE, KEY, make_certificate
from ingle.federated.flower.child import Tell, child
from ingle.federated.invitation import Invitation
from ingle.federated.statement import Statement, believe
from ingle.federated.transport import Ask
from ingle.ledger.keys import Signer

MODULE = "ingle.federated.flower.superlink"
START_S = 60.0


@dataclass(frozen=True)
class FlowerLink:
    """A link that is up."""

    ask: Ask
    address: str  # host and port that homes connect to
    here: Callable[[], tuple[int, ...]]  # returns the seats that are taken now


@contextmanager
def flower_link(folder: Path, signer: Signer, invitation: Invitation, listen: str = "127.0.0.1:0") -> Iterator[FlowerLink]:
    """Be reached by the homes of a federation, until the block ends. `folder` is for the link's own files; port 0 is any that is free.

    Raises FederatedError if `signer` isn't a member's or the port is taken, ConfigError without Flower or for no address.
    """
    if signer.verifier.public not in (invitation.coordinator, *invitation.members):
        raise FederatedError(
            "coordinator", "This home is not in the invitation", "", "Run this in the home that invited, or in another of it."
        )
    host, port = split_address(listen)
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = make_certificate(folder, signer, invitation.digest)
    desk = _Desk(invitation, digest)
    config = {"host": host, "port": port, "certificate": str(folder / CERTIFICATE), "key": str(folder / KEY)}
    with child(MODULE, folder, config, desk.hear) as desk.tell:
        desk.ready.wait(START_S)
        if not desk.port:
            raise desk.failure or FederatedError("link", f"must be up within {START_S:.0f} s", "", f"Look into {folder}.")
        config["port"] = desk.port  # one that is started again is where homes look for it
        yield FlowerLink(desk.ask, f"[{host}]:{desk.port}" if ":" in host else f"{host}:{desk.port}", desk.seats)


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[host]:port". Raises ConfigError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError("address", "must be a host and a port, like 192.168.1.5:5791", text)
    return host, int(port)


@dataclass(frozen=True)
class _Asked:
    seat: int
    data: bytes
    end: float
    replies: "queue.SimpleQueue[tuple[int, bytes] | None]"


class _Desk:
    """The requests that are not answered yet, whatever happens to the link in between."""

    def __init__(self, invitation: Invitation, link: str) -> None:
        self.members, self.expected = invitation.members, {"federation": invitation.digest, "link": link}
        self.tell: Tell = lambda *_: None
        self.lock, self.ready = threading.Lock(), threading.Event()
        self.asked: dict[str, _Asked] = {}
        self.taken: set[int] = set()
        self.port = 0
        self.failure: FederatedError | None = None

    def seats(self) -> tuple[int, ...]:
        with self.lock:
            return tuple(sorted(self.taken))

    def ask(self, requests: Mapping[int, bytes], deadline_s: float) -> Iterator[tuple[int, bytes]]:
        replies: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        end = time.monotonic() + deadline_s
        ours = {secrets.token_hex(16): _Asked(seat, data, end, replies) for seat, data in requests.items()}
        with self.lock:
            self.asked |= ours
        try:
            for name, asked in ours.items():
                self._send(name, asked)
            for _ in ours:
                try:
                    reply = replies.get(timeout=max(0.0, end - time.monotonic()))
                except queue.Empty:
                    return
                if self.failure is not None:
                    raise self.failure
                if reply is not None:
                    yield reply
        finally:
            with self.lock:
                for name in ours:
                    self.asked.pop(name, None)

    def hear(self, head: Mapping[str, Any], body: bytes) -> None:
        match head["kind"]:
            case "up":
                self.port = head["port"]
                self.ready.set()
            case "seat":
                self.tell({"kind": "seated", "id": head["id"], **self._seat(head["statement"])})
            case "here":
                with self.lock:
                    self.taken.add(head["seat"])
                    again = {name: asked for name, asked in self.asked.items() if asked.seat == head["seat"]}
                for name, asked in again.items():
                    self._send(name, asked)
            case "reply":
                with self.lock:
                    answered = self.asked.pop(head["ask"], None)
                if answered is not None:
                    answered.replies.put(None if head["none"] else (answered.seat, body))
            case "died":
                with self.lock:
                    self.taken.clear()
            case "failed":
                self._fail(head)

    def _send(self, name: str, asked: _Asked) -> None:
        # To a home without a seat it goes when it takes one.
        self.tell({"kind": "ask", "ask": name, "seat": asked.seat, "wait_s": max(0.0, asked.end - time.monotonic())}, asked.data)

    def _seat(self, plain: object) -> dict[str, Any]:
        try:
            statement = Statement.read(plain)
            believe(statement, "node", self.members, self.expected)
        except FederatedError as error:
            return {"refused": fault_of(error)}
        return {"seat": statement.seat}

    def _fail(self, head: Mapping[str, Any]) -> None:
        if "fault" in head:
            failure = raised(head["fault"])
        elif head["errno"] == errno.EADDRINUSE:
            failure = FederatedError("port", "The link's port is in use", head["text"], "Name another with --listen, and tell the homes.")
        else:
            failure = FederatedError("address", "The link can't listen there", head["text"], "Name an address of this machine.")
        assert isinstance(failure, FederatedError)
        self.failure = failure
        self.ready.set()
        with self.lock:
            waiting = list(self.asked.values())
        for asked in waiting:
            asked.replies.put(None)
