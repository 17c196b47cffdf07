"""The coordinator's child: Flower's SuperLink, of which homes reach the Fleet API alone.

    python -m ingle.federated.flower.superlink      (started by ends.py, which it talks to in frames)

The rest of a SuperLink stays shut. Its Control API lets whoever reaches the port start a run, whose code it would execute here; so runs are
made in this process, there is one, and it has no bundle. A home gets in with a statement that its ledger's key signed, and from then on
by Flower's own node authentication. All state is in memory: what has to outlast it is in the homes.
"""

import asyncio
import json
import os
import socket
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import uvicorn
from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_INTERVAL_INF, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.main import create_app

from ingle.federated.flower.frames import read_frame, write_frame
from ingle.federated.flower.letters import BUNDLE, FLEET, LATE_S, PULL, PUSHES, SEAT, letter_of, record_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
WAIT_S = 10.0  # a node that asks for letters is kept waiting so long, rather than asking again and again
MOST_STATEMENT_BYTES = 65_536
STATEMENT_S = 10.0  # longest time for a whole statement, so that a slow client can't hold a connection for ever
MOST_AT_THE_DOOR = 32  # homes that may show a statement at the same time


@dataclass
class _Seated:
    node: int
    seat: int
    letters: asyncio.Semaphore  # letters that wait for it


@dataclass
class _Sent:
    ask: str
    until: float
    reply: Message | None = None  # the reply's head, once it is there
    tree: list[str] = field(default_factory=list)


class SuperLink:
    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: BinaryIO) -> None:
        self.app: Any = create_app()
        self.app.state.enable_supernode_auth = True  # nobody registers by the Fleet API
        self.state = self.app.state.linkstate_factory.state()
        self.loop, self.pipe, self.writing = loop, pipe, threading.Lock()
        self.seats: dict[int, _Seated] = {}
        self.by_key: dict[str, _Seated] = {}
        self.at_door: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.sent: dict[str, _Sent] = {}
        self.arrived = threading.Event()
        self.run = self.state.create_run("ingle/federated", "1", BUNDLE, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
        self.task = self.state.get_run_info(run_ids=[self.run])[0].primary_task_id
        done = self.state.claim_task(self.task) and self.state.activate_task(self.task)
        assert done
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self.run, SUPERLINK_NODE_ID, self.task

    def say(self, head: dict[str, Any], body: bytes = b"") -> None:
        with self.writing:
            write_frame(self.pipe, head, body)

    # What the coordinator's process says

    def listen(self, pipe: BinaryIO) -> None:
        """Do what it says, to its end; then this process ends too."""
        while (frame := read_frame(pipe)) is not None:
            head, body = frame
            if head["kind"] == "ask":
                self._ask(head, body)
            elif head["kind"] == "seated":
                self.loop.call_soon_threadsafe(self._answer_door, head)
        os._exit(0)

    def _ask(self, head: dict[str, Any], body: bytes) -> None:
        seated = self.seats.get(head["seat"])
        if seated is None:
            return  # it is told again when that home takes its seat
        ttl, now = head["wait_s"] + LATE_S, time.monotonic()
        message = Message(record_of(body), seated.node, "query", ttl=ttl, group_id=head["ask"])
        message.metadata.__dict__["_message_id"] = name = message.object_id
        plain = message_from_proto(message_to_proto(remove_content_from_message(message)))
        session = self.state.start_session(self.run)
        stored, missing = self.state.store_message_and_object_tree(plain, get_object_tree(message), session)
        if not stored:
            return
        for at, part in get_all_nested_objects(message).items():
            if at in missing:
                self.state.store_object(self.run, session, at, part.deflate())
        self.sent[name] = _Sent(head["ask"], now + ttl - 1)
        self.loop.call_soon_threadsafe(seated.letters.release)

    # What homes send

    async def door(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in who has a seat, to what nodes need; show others the way to one."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path == SEAT:
            await _respond(send, *await self._take_seat(receive))
            return
        key = dict(scope["headers"]).get(FLEET_HTTP_PUBLIC_KEY_HEADER.encode(), b"").decode("latin-1")
        seated = self.by_key.get(key)
        if seated is None or path not in FLEET:
            await _respond(send, 401 if path in FLEET else 404, {})
            return
        if path == PULL:
            with suppress(TimeoutError):
                await asyncio.wait_for(seated.letters.acquire(), WAIT_S)
        await self.app(scope, receive, send)
        if path in PUSHES:
            self.arrived.set()

    async def _take_seat(self, receive: Receive) -> tuple[int, dict[str, Any]]:
        data, more = b"", True
        try:
            async with asyncio.timeout(STATEMENT_S):
                while more and len(data) <= MOST_STATEMENT_BYTES:
                    event = await receive()
                    data, more = data + event.get("body", b""), event.get("more_body", False)
        except TimeoutError:
            return 408, {}
        if len(data) > MOST_STATEMENT_BYTES or len(self.at_door) >= MOST_AT_THE_DOOR:
            return 413 if len(data) > MOST_STATEMENT_BYTES else 503, {}
        try:
            statement = json.loads(data)
            key = statement["facts"]["key"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return 400, {}
        name = os.urandom(16).hex()
        self.at_door[name] = self.loop.create_future()
        try:
            await asyncio.to_thread(self.say, {"kind": "seat", "id": name, "statement": statement})
            told = await asyncio.wait_for(self.at_door[name], WAIT_S)
        except TimeoutError:
            return 503, {}
        finally:
            del self.at_door[name]
        if "refused" in told:
            return 403, told["refused"]
        seated = self._seat(told["seat"], key)
        await asyncio.to_thread(self.say, {"kind": "here", "seat": told["seat"]})
        return 200, {"node": seated.node, "now": time.time()}

    def _answer_door(self, head: dict[str, Any]) -> None:
        waiting = self.at_door.get(head["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result(head)

    def _seat(self, seat: int, key: str) -> _Seated:
        """Register a node of Flower for a seat; a node that had it before has none any more."""
        raw = key.encode()
        node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, raw, HEARTBEAT_INTERVAL_INF)
        self.state.activate_node(node, HEARTBEAT_INTERVAL_INF)
        seated = _Seated(node, seat, asyncio.Semaphore(0))
        self.by_key = {name: other for name, other in self.by_key.items() if other.seat != seat}
        self.by_key[b64encode(raw).decode()] = self.seats[seat] = seated
        return seated

    # Replies

    def watch(self) -> None:
        """Hand each reply on when all of it is there."""
        beat = 0.0
        while True:
            self.arrived.wait(1.0)
            self.arrived.clear()
            now, sent = time.monotonic(), dict(self.sent)  # a copy: letters are added meanwhile
            if now > beat:
                self.state.acknowledge_task_heartbeat(self.task)
                beat = now + 10
            for name in [name for name, one in sent.items() if one.until <= now]:
                self._forget(name)
                del sent[name]
            if waiting := {name for name, one in sent.items() if one.reply is None}:
                for reply in self.state.get_message_res(waiting, self.run):
                    self._replied(reply)
            for name in [name for name, one in sent.items() if one.reply is not None]:
                self._hand_on(name)

    def _replied(self, reply: Message) -> None:
        sent = self.sent[reply.metadata.reply_to_message_id]
        sent.reply = reply
        if not reply.has_error():
            tree = self.state.object_store.get_object_tree(reply.metadata.message_id)
            sent.tree = [part.object_id for part in iterate_object_tree(tree)]

    def _hand_on(self, name: str) -> None:
        sent = self.sent[name]
        assert sent.reply is not None
        if sent.reply.has_error():
            self.say({"kind": "reply", "ask": sent.ask, "none": True})
        else:
            parts = {at: self.state.get_object(self.run, at) for at in sent.tree}
            if not all(parts.values()):
                return
            whole = inflate_object_from_contents(sent.reply.metadata.message_id, parts)
            self.say({"kind": "reply", "ask": sent.ask, "none": False}, letter_of(whole))
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Keep nothing of a letter, nor of its reply, whether it was fetched or not."""
        reply = self.sent.pop(name).reply
        for one in (name, reply.metadata.message_id if reply is not None and not reply.has_error() else ""):
            self.state.object_store.delete(one)
        self.state.delete_messages({name})


async def _respond(send: Send, status: int, plain: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    if status in (408, 413):  # the rest of the body is not waited for
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(plain).encode()})


def _to_the_end(work: Callable[[], None]) -> None:
    """Do a work without which this process is of no use."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


async def _serve(config: dict[str, Any], reads: BinaryIO, writes: BinaryIO) -> None:
    link = SuperLink(asyncio.get_running_loop(), writes)
    try:
        listening = socket.create_server(
            (config["host"], config["port"]), family=socket.AF_INET6 if ":" in config["host"] else socket.AF_INET
        )
    except OSError as error:
        link.say({"kind": "failed", "errno": error.errno, "text": str(error)})
        return
    for work in (lambda: link.listen(reads), link.watch):
        threading.Thread(target=_to_the_end, args=(work,), daemon=True).start()
    options = uvicorn.Config(
        link.door, interface="asgi3", proxy_headers=False, server_header=False, log_level="warning", access_log=False,
        ssl_certfile=config["certificate"], ssl_keyfile=config["key"], timeout_keep_alive=int(6 * WAIT_S),
    )  # fmt: skip
    link.say({"kind": "up", "port": listening.getsockname()[1]})
    await uvicorn.Server(options).serve(sockets=[listening])


def main() -> None:
    """Run until the coordinator's process ends the pipe, or itself."""
    writes = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    first = read_frame(sys.stdin.buffer)
    if first is not None:
        asyncio.run(_serve(first[0], sys.stdin.buffer, writes))


if __name__ == "__main__":
    main()
