"""Messages between a coordinator and its homes, as bytes: what a transport carries. Nothing is ever unpickled."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingle.core.digest import canonical_json
from ingle.core.errors import FederatedError

MARK = b"ingle-federated-1\n"
_SIZES = struct.Struct("<QQ")
MOST_HEAD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Letter:
    """A request to a home or its reply: plain values, and bytes beside them."""

    kind: str
    head: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


def to_bytes(letter: Letter) -> bytes:
    """Return a letter as bytes; equal letters give equal bytes."""
    head = canonical_json({"kind": letter.kind, "head": dict(letter.head)})
    return MARK + _SIZES.pack(len(head), len(letter.body)) + head + letter.body


def from_bytes(data: bytes) -> Letter:
    """Return the letter that `to_bytes` wrote. Raises FederatedError if it was cut, has more than one letter, or is something else."""
    start = len(MARK) + _SIZES.size
    if not data.startswith(MARK) or len(data) < start:
        raise FederatedError("message", "must be one of this version of Ingle", f"{len(data)} bytes of something else", "Use one version.")
    head_bytes, body_bytes = _SIZES.unpack_from(data, len(MARK))
    if head_bytes > MOST_HEAD_BYTES or len(data) != start + head_bytes + body_bytes:
        raise FederatedError(
            "message", f"must have {start + head_bytes + body_bytes} bytes", len(data), "It was cut on the way; send it anew."
        )
    try:
        plain = json.loads(data[start : start + head_bytes].decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise FederatedError("message", "must begin with JSON", error, "It was damaged on the way.") from error
    if not isinstance(plain, dict) or plain.keys() != {"kind", "head"}:
        raise FederatedError("message", "must have a kind and a head", "others", "It was damaged on the way.")
    kind, head = plain["kind"], plain["head"]
    if not isinstance(kind, str) or not isinstance(head, dict):
        raise FederatedError("message", "must have a kind and a head", "others", "It was damaged on the way.")
    return Letter(kind, head, data[start + head_bytes :])


def number_of(head: Mapping[str, Any]) -> int:
    """Return the number of the round that a letter is about. Raises FederatedError if it has none."""
    number: Any = head.get("round")
    if type(number) is not int or not 1 <= number < 1 << 31:
        raise FederatedError("round", "must be a number from 1", str(number)[:20], "Use one version of Ingle everywhere.")
    return number


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
