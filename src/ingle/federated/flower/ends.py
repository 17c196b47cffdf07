"""Both ends of Flower as Ingle's own processes have them, each with a child that speaks Flower: a coordinator's link, a home's node.

The link is a transport to homes that reach this machine over the network. It holds what was asked until it is answered. The node answers
what a link asks, as long as the block lasts. Only the home's own process reads letters and signs.
"""

import errno
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ingle.core.clock import REAL, Clock
from ingle.core.errors import ConfigError, FederatedError, IngleError, fault_of, raised
from ingle.core.files import how_to_install, installed, os_errors
from ingle.federated.flower.frames import CERTIFICATE, KEY, make_certificate, read_frame, write_frame
from ingle.federated.invitation import Invitation
from ingle.federated.statement import Statement, believe, state
from ingle.federated.transport import Ask
from ingle.ledger.keys import Signer

# Head, bytes → says it to the child. What is said while none is up is lost: who hears `died` says it again.
Tell = Callable[..., None]
# Hears what a child says, and two heads more: `died`, and `failed` with a fault when it won't be started again.
Hear = Callable[[Mapping[str, Any], bytes], object]
FLOWER = "1.42."  # the children use what Flower doesn't promise to keep from one minor version to the next
LOG = "log.txt"
# How often a child may end by itself without a word, before no other is tried. Who is killed doesn't count.
MOST_ENDS = 5
STARTS_WITH = [sys.executable, "-m"]


@contextmanager
def child(module: str, folder: Path, config: Mapping[str, Any], hear: Hear) -> Iterator[Tell]:
    """Run a module as a child, which is told `config` first, until the block ends. `hear` is called from a thread of its own.

    Raises ConfigError without Flower, HomeError if its folder can't be made.
    """
    if not (version := installed("flwr")).startswith(FLOWER):
        rule = f"Homes meet over Flower {FLOWER}x, which is not installed"
        raise ConfigError("flower", rule, version, how_to_install("federate"))
    with os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = _Keeper(module, folder, config, hear)
    thread = threading.Thread(target=keeper.keep, daemon=True, name=module)
    thread.start()
    try:
        yield keeper.tell
    finally:
        keeper.end()
        thread.join(10)


class _Keeper:
    def __init__(self, module: str, folder: Path, config: Mapping[str, Any], hear: Hear) -> None:
        self.command, self.folder, self.config, self.hear = [*STARTS_WITH, module], folder, config, hear
        self.process: subprocess.Popen[bytes] | None = None
        self.lock, self.ending = threading.Lock(), threading.Event()

    def keep(self) -> None:
        ends = 0
        while not self.ending.is_set() and ends < MOST_ENDS:
            said, code = self._one()
            if said == "failed":
                return
            ends = 0 if said or code < 0 else ends + 1
            self.hear({"kind": "died"}, b"")
            self.ending.wait(0.2 * 2**ends)
        if not self.ending.is_set():
            fault = FederatedError("flower", f"{self.command[-1]} ended {ends} times", _last_line(self.folder), "Its log says more.")
            self.hear({"kind": "failed", "fault": fault_of(fault)}, b"")

    def _one(self) -> tuple[str, int]:
        """Run one child to its end. Returns the kind of the last thing that it said, and its exit code."""
        with (self.folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(self.folder),
                start_new_session=True,  # Ctrl-C is for us: we end it
            )  # fmt: skip
        said = ""
        with process, self._told(process):
            assert process.stdout is not None
            self.tell(self.config)
            while (frame := read_frame(process.stdout)) is not None:
                said = frame[0]["kind"]
                self.hear(*frame)
        return said, process.returncode

    @contextmanager
    def _told(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """While the block lasts, this is whom `tell` tells."""
        with self.lock:
            self.process = process
            if self.ending.is_set():
                process.kill()
        try:
            yield
        finally:
            with self.lock:
                self.process = None
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]

    def tell(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        with self.lock:
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError, ValueError):  # it died: the thread that reads finds out
                    write_frame(self.process.stdin, head, body)

    def end(self) -> None:
        self.ending.set()
        with self.lock:
            process, self.process = self.process, None
            if process is None or process.stdin is None:
                return
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()


_KEPT = {"PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "TEMP", "TMP"}


def _environment(folder: Path) -> dict[str, str]:
    """Return what a child sees of ours: no proxies, and Flower reports to nobody, asks for no update and writes into its own folder."""
    ours = {name: value for name, value in os.environ.items() if name in _KEPT}
    return ours | {
        "HOME": str(folder), "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "MALLOC_ARENA_MAX": "2",  # large letters go through many threads, each of which would keep its own memory
    }  # fmt: skip


def _last_line(folder: Path) -> str:
    lines = (folder / LOG).read_text("utf-8", "replace").splitlines() if (folder / LOG).exists() else []
    return lines[-1][:300] if lines else f"{folder / LOG} is empty"


LINK = "ingle.federated.flower.superlink"
START_S = 60.0


@dataclass(frozen=True)
class FlowerLink:
    ask: Ask
    address: str  # host and port that homes connect to
    here: Callable[[], tuple[int, ...]]  # returns the seats that are taken now


@contextmanager
def flower_link(
    folder: Path, signer: Signer, invitation: Invitation, listen: str = "127.0.0.1:0", clock: Clock = REAL
) -> Iterator[FlowerLink]:
    """Be reached by the homes of a federation, until the block ends. `folder` is for the link's own files; port 0 is any that is free.
    `clock`: by which homes are late.

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
    desk = _Desk(invitation, digest, clock)
    config = {"host": host, "port": port, "certificate": str(folder / CERTIFICATE), "key": str(folder / KEY)}
    with child(LINK, folder, config, desk.hear) as desk.tell:
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


# A seat's answer, or that it has none, or that the time is over.
Replies = queue.SimpleQueue[tuple[int, bytes] | Literal["late"] | None]


@dataclass(frozen=True)
class _Asked:
    seat: int
    data: bytes
    end: float
    replies: Replies


class _Desk:
    """The requests that are not answered yet, whatever happens to the link in between."""

    def __init__(self, invitation: Invitation, link: str, clock: Clock) -> None:
        self.clock, self.members, self.expected = clock, invitation.members, {"federation": invitation.digest, "link": link}
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
        replies: Replies = queue.SimpleQueue()
        end = self.clock.now() + deadline_s
        ours = {secrets.token_hex(16): _Asked(seat, data, end, replies) for seat, data in requests.items()}
        with self.lock:
            self.asked |= ours
        alarm = self.clock.after(deadline_s, lambda: replies.put("late"))
        try:
            for name, asked in ours.items():
                self._send(name, asked)
            for _ in ours:
                reply = replies.get()
                if reply == "late":
                    return
                if self.failure is not None:
                    raise self.failure
                if reply is not None:
                    yield reply
        finally:
            alarm.cancel()
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
        self.tell({"kind": "ask", "ask": name, "seat": asked.seat, "wait_s": max(0.0, asked.end - self.clock.now())}, asked.data)

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


NODE = "ingle.federated.flower.supernode"
# Seconds → what keeps this home from its seat, waiting so long for it; empty when it has it. Raises FederatedError if it won't get it.
Hindrance = Callable[[float], str]


@contextmanager
def flower_node(
    folder: Path, signer: Signer, invitation: Invitation, address: str, respond: Callable[[bytes], bytes | None]
) -> Iterator[Hindrance]:
    """Take this home's seat at a link, and answer its letters one after the other, until the block ends.

    A link that is away is tried again and again, and an answer that was lost with it is given again, not made again.
    Raises FederatedError for a home without a seat, ConfigError without Flower or for no address.
    """
    public = signer.verifier.public
    if public not in invitation.members:
        raise FederatedError("member", "This home is not in the invitation", public[:12], "Ask for one that names its key.")
    host, port = split_address(address)
    post = _Post(invitation, signer, respond)
    config = {"host": host, "port": port, "members": [invitation.coordinator, *invitation.members], "federation": invitation.digest}
    with child(NODE, folder, config, post.hear) as post.tell:
        threading.Thread(target=post.work, daemon=True, name="answers").start()
        try:
            yield post.hindrance
        finally:
            post.letters.put(None)


class _Post:
    def __init__(self, invitation: Invitation, signer: Signer, respond: Callable[[bytes], bytes | None]) -> None:
        self.invitation, self.signer, self.respond = invitation, signer, respond
        self.tell: Tell = lambda *_: None
        self.letters: queue.SimpleQueue[tuple[str, bytes, float] | None] = queue.SimpleQueue()
        self.changed, self.trouble = threading.Condition(), "It is being started"
        self.failure: IngleError | None = None

    def hindrance(self, timeout_s: float) -> str:
        with self.changed:
            self.changed.wait_for(lambda: not self.trouble or self.failure, timeout_s)
            if self.failure is not None:
                raise self.failure
            return self.trouble

    def hear(self, head: Mapping[str, Any], body: bytes) -> None:
        match head["kind"]:
            case "sign":
                facts = {"federation": self.invitation.digest, "link": head["link"], "key": head["key"]}
                said = state(self.signer, self.invitation.members.index(self.signer.verifier.public), "node", facts)
                self.tell({"kind": "signed", "statement": said.plain()})
            case "asked":
                self.letters.put((head["ask"], body, time.monotonic() + head["wait_s"]))
            case kind:
                with self.changed:
                    self.trouble = "" if kind == "connected" else str(head.get("text", "It is being started again"))
                    self.failure = raised(head["fault"]) if kind == "failed" else None
                    self.changed.notify_all()

    def work(self) -> None:
        """Answer letters; the last one again if it is asked again: a round's words are said once."""
        last, reply = "", None
        while (letter := self.letters.get()) is not None:
            name, data, end = letter
            if name != last:
                if time.monotonic() > end:
                    continue  # this home was busy until nobody waited any more
                last = name
                try:
                    reply = self.respond(data)
                except Exception:  # a home that breaks is one that doesn't answer
                    traceback.print_exc()
                    reply = None
            self.tell({"kind": "answer", "ask": name, "none": reply is None}, reply or b"")
