"""A home's end: it answers what a link asks, as long as the block lasts. Only the home's own process reads letters and signs."""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingle.core.errors import FederatedError, IngleError, raised
from ingle.federated.flower.child import Tell, child
from ingle.federated.flower.link import split_address
from ingle.federated.invitation import Invitation
from ingle.federated.statement import state
from ingle.ledger.keys import Signer

MODULE = "ingle.federated.flower.supernode"
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
    with child(MODULE, folder, config, post.hear) as post.tell:
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
