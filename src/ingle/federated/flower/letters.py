"""Agreements of both children of Flower: the paths that nodes use, the bundle, and how a letter lies in a message."""

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

SEAT = "/v1/ingle/seat"  # where a home shows its statement, and gets a node
PULL = "/v1/fleet/pull-messages"
PUSHES = ("/v1/fleet/push-messages", "/v1/fleet/push-object")
FLEET = (PULL, *PUSHES, "/v1/fleet/get-run", "/v1/fleet/pull-object", "/v1/fleet/confirm-message-received")
# SHA-256 of no bytes: our runs bring no code. A run with any other bundle is refused, unread.
BUNDLE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
LATE_S = 30.0  # a letter is kept that much longer than the coordinator waits; clocks differ
# Up to here a letter is one object; each costs a request and two signatures. Larger ones go in pieces of 5 MB, which slow lines need.
WHOLE_BYTES = 1 << 20
_NAME = "letter"


def record_of(data: bytes) -> RecordDict:
    if len(data) <= WHOLE_BYTES:
        return RecordDict({_NAME: ConfigRecord({_NAME: data})})
    return RecordDict({_NAME: ArrayRecord({_NAME: Array("uint8", (len(data),), "bytes", data)})})


def letter_of(message: Any) -> bytes:
    """Return the letter in a message. Raises KeyError or TypeError if it has none."""
    found = message.content[_NAME][_NAME]
    data = found.data if isinstance(found, Array) else found
    if not isinstance(data, bytes):
        raise TypeError(type(data).__name__)
    return data
