"""A home's child: a node of Flower that fetches letters from a link, has this home answer them, and brings the answers.

    python -m ingle.federated.flower.supernode      (started by ends.py, which it talks to in frames)

It speaks Flower's Fleet API and executes nothing that comes from there: Flower's own SuperNode would run whatever bundle the link names.
It listens on no port. After any trouble it begins anew, with a new key.
"""

import json
import os
import queue
import ssl
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects, push_objects
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from ingle.core.errors import FederatedError, IngleError, fault_of, raised
from ingle.federated.flower.frames import read_frame, trust, write_frame
from ingle.federated.flower.letters import BUNDLE, LATE_S, SEAT, letter_of, record_of

LONGEST_PAUSE_S = 2.0


class SuperNode:
    """A home's connection to a link, over all its sessions."""

    def __init__(self, config: dict[str, Any], pipe: BinaryIO) -> None:
        self.host, self.port = config["host"], config["port"]
        self.members, self.federation = config["members"], config["federation"]
        self.pipe, self.writing = pipe, threading.Lock()
        self.signed: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.session: _Session | None = None

    def say(self, head: dict[str, Any], body: bytes = b"") -> None:
        with self.writing:
            write_frame(self.pipe, head, body)

    def listen(self, pipe: BinaryIO) -> None:
        """Do what the home's process says, to its end; then this process ends too."""
        while (frame := read_frame(pipe)) is not None:
            head, body = frame
            if head["kind"] == "signed":
                self.signed.put(head["statement"])
            elif head["kind"] == "answer" and self.session is not None:
                self.session.answer(head, body)
        os._exit(0)

    def stay(self) -> None:
        """Take the seat, again and again. Returns with what can't be helped by trying again."""
        pause_s = 0.1
        while True:
            try:
                with self._begin() as self.session:
                    self.say({"kind": "connected"})
                    pause_s = 0.1
                    while True:
                        self._fetch(self.session)
            except IngleError as error:
                self.say({"kind": "failed", "fault": fault_of(error)})
                return
            except Exception as error:
                # Whatever it is, and whoever's fault: the letters that were not answered come again to a new session.
                traceback.print_exc()
                away = isinstance(error, OSError | httpx.TransportError)
                what = "No link answers" if away else "There was trouble with the link"
                self.say({"kind": "lost", "text": f"{what} at {self.host}:{self.port} ({error})"[:300]})
            time.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)

    def _begin(self) -> "_Session":
        context, digest = trust(self.host, self.port, self.members, self.federation)
        keys = generate_key_pairs()
        self.say({"kind": "sign", "key": public_key_to_bytes(keys[1]).decode(), "link": digest})
        statement = self.signed.get(timeout=30)
        url = f"https://[{self.host}]:{self.port}" if ":" in self.host else f"https://{self.host}:{self.port}"
        with httpx.Client(verify=context, trust_env=False) as client:
            reply = client.post(url + SEAT, content=json.dumps(statement))
        if reply.status_code == 403:
            raise raised(reply.json())
        reply.raise_for_status()
        told = reply.json()
        check_clock(time.time() - told["now"])
        return _Session(url, context, keys, told["node"])

    def _fetch(self, session: "_Session") -> None:
        got = session.pull()
        if got is None:
            return
        message, data = got
        session.asked[message.metadata.group_id] = message
        self.say({"kind": "asked", "ask": message.metadata.group_id, "wait_s": message.metadata.ttl - LATE_S}, data)


class _Session:
    def __init__(
        self, url: str, context: ssl.SSLContext, keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey], node: int
    ) -> None:
        self.client = FleetHttpClient(url, interceptors=[NodeAuthHttpInterceptor(*keys)], verify=context)
        self.node = Node(node_id=node)
        self.asked: dict[str, Message] = {}
        self.runs: set[int] = set()

    def __enter__(self) -> "_Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def pull(self) -> tuple[Message, bytes] | None:
        """Wait a while for a letter. Raises FederatedError for one of a run that brings code."""
        response = self.client.PullMessages(PullMessagesRequest(node=self.node))
        if not response.messages_list:
            return None
        head, tree = message_from_proto(response.messages_list[0]), response.message_object_trees[0]
        run = head.metadata.run_id
        if run not in self.runs:
            check_bundle(self.client.GetRun(GetRunRequest(node=self.node, run_id=run)).run.fab_hash)
            self.runs.add(run)
        names = [part.object_id for part in iterate_object_tree(tree)]
        parts = pull_objects(names, make_pull_object_fn_protobuf(self.client.PullObject, self.node, run))
        make_confirm_message_received_fn_protobuf(self.client.ConfirmMessageReceived, self.node, run)(tree.object_id)
        message = inflate_object_from_contents(tree.object_id, parts)
        assert isinstance(message, Message)
        data = letter_of(message)
        message = remove_content_from_message(message)
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message, data

    def answer(self, head: dict[str, Any], data: bytes) -> None:
        """Bring an answer. If that fails, the session ends."""
        asked = self.asked.pop(head["ask"], None)
        if asked is None:
            return  # it was asked in another session, and will be again
        try:
            content = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no answer") if head["none"] else record_of(data)
            reply = Message(content, reply_to=asked)
            reply.metadata.__dict__["_message_id"] = reply.object_id
            plain = message_to_proto(remove_content_from_message(reply))
            request = PushMessagesRequest(node=self.node, messages_list=[plain], message_object_trees=[get_object_tree(reply)])
            response = self.client.PushMessages(request)
            push = make_push_object_fn_protobuf(self.client.PushObject, self.node, asked.metadata.run_id, response.session_id)
            push_objects(get_all_nested_objects(reply), push, object_ids_to_push=set(response.objects_to_push))
        except Exception:
            traceback.print_exc()
            self.client.close()


def check_bundle(found: str) -> None:
    """Raise FederatedError for a run whose bundle isn't ours, which is empty."""
    if found != BUNDLE:
        cure = "Nothing of it was fetched or run. Do not go on with this coordinator."
        raise FederatedError("bundle", "The link asks this home to run a program that is not Ingle's", found[:12], cure)


def check_clock(ahead_s: float) -> None:
    """Raise FederatedError if this machine's clock differs from the link's by more than Flower's signatures allow."""
    if not -TIMESTAMP_TOLERANCE < ahead_s < SYSTEM_TIME_TOLERANCE:
        which = "ahead of" if ahead_s > 0 else "behind"
        raise FederatedError(
            "clock", f"This machine's clock is {abs(ahead_s):.0f} s {which} the link's", "", "Set both by the network's time."
        )


def main() -> None:
    """Run until the home's process ends the pipe, or there is nothing more to try."""
    writes = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log
    first = read_frame(sys.stdin.buffer)
    if first is not None:
        node = SuperNode(first[0], writes)
        threading.Thread(target=node.listen, args=(sys.stdin.buffer,), daemon=True).start()
        node.stay()


if __name__ == "__main__":
    main()
