"""Statements: what a home says in a round, signed by its ledger's key; others believe nothing else. And the letters that carry them."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import FederatedError
from ingle.ledger.keys import Signer, Verifier, read_verifier


@dataclass(frozen=True, slots=True)
class Statement:
    """Plain facts of one home, with its signature over them."""

    seat: int  # who says it: its place among the members that the invitation names
    kind: str  # which step of a round it belongs to; a statement of one kind is never taken for another
    facts: Mapping[str, Any]
    signature: str

    @property
    def bytes(self) -> bytes:
        return canonical_json({"ingle": "federated", "kind": self.kind, "seat": self.seat, "facts": dict(self.facts)})

    @property
    def digest(self) -> str:
        return digest_bytes(self.bytes)

    def plain(self) -> dict[str, Any]:
        return {"seat": self.seat, "kind": self.kind, "facts": dict(self.facts), "signature": self.signature}

    @classmethod
    def read(cls, plain: object) -> Self:
        """Return the statement that `plain` gave. Raises FederatedError if it is none; nothing is verified."""
        kinds = {"seat": int, "kind": str, "facts": dict, "signature": str}
        if isinstance(plain, dict) and plain.keys() == kinds.keys() and all(type(plain[name]) is kind for name, kind in kinds.items()):
            return cls(**plain)
        raise FederatedError("statement", "must have a seat, a kind, facts and a signature", type(plain).__name__, "It was cut or altered.")


def read_all(head: Mapping[str, Any], name: str) -> list[Statement]:
    """Return the statements of that name in a letter. Raises FederatedError if they are none; nothing is verified."""
    plain = head.get(name)
    if not isinstance(plain, list):
        raise FederatedError(name, "must be a list of statements", type(plain).__name__, "Use one version of Ingle everywhere.")
    return [Statement.read(one) for one in plain]


def state(signer: Signer, seat: int, kind: str, facts: Mapping[str, Any]) -> Statement:
    """Say something: the statement with this home's signature."""
    unsigned = Statement(seat, kind, facts, "")
    return Statement(seat, kind, facts, signer.sign(unsigned.bytes))


def believe(statement: Statement, kind: str, members: Sequence[str], expected: Mapping[str, Any]) -> None:
    """Check that a member said this, in this step, with these facts among its own. Raises FederatedError with what differs."""
    who = f"The home in seat {statement.seat}"
    if not 0 <= statement.seat < len(members):
        raise FederatedError("seat", f"{who} is not in the invitation", "", "Do not go on with this coordinator.")
    if statement.kind != kind or not _verifier(members[statement.seat]).accepts(statement.signature, statement.bytes):
        cure = "Somebody between the homes altered it or made it up. Do not go on with this coordinator."
        raise FederatedError("signature", f"{who} did not sign this ({kind})", "", cure)
    for name, value in expected.items():
        if (got := statement.facts.get(name)) != value:
            cure = "It belongs to another round, or that home has another model."
            raise FederatedError(name, f"{who} speaks of another {name}: {_short(got)} instead of {_short(value)}", "", cure)


def text_of(statement: Statement, name: str) -> str:
    """Return a fact that must be text. Raises FederatedError if that home gave none."""
    text = statement.facts.get(name)
    if not isinstance(text, str):
        raise FederatedError(name, f"The home in seat {statement.seat} gave no {name}", "", "That home runs another program; leave it out.")
    return text


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:40]


@lru_cache(maxsize=1024)
def _verifier(public: str) -> Verifier:
    return read_verifier(public)


# Letters between a coordinator and its homes, as bytes: what a transport carries. Nothing is ever unpickled.


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
