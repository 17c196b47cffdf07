"""Signed statements about files: an in-toto Statement v1 in a DSSE envelope, with a predicate that says what is stated."""

import base64
from collections.abc import Mapping
from typing import Any

from ingle.core.digest import canonical_json
from ingle.ethics.notary import Notary
from ingle.ledger.proof import Extract, extract_table

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
CARD = "https://ingle/card/v1"  # type of the predicate about a card: the ledger's head when the card was signed
# Type of the predicate that holds facts of a ledger, their inclusion proofs, and the signed head.
LEDGER_EXTRACT = "https://ingle/ledger-extract/v1"


def statement(predicate_type: str, digests: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement about files, named with their SHA-256."""
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())]
    return {"_type": STATEMENT, "subject": subject, "predicateType": predicate_type, "predicate": dict(predicate)}


def card_statement(name: str, digest: str, at: Extract) -> dict[str, Any]:
    """Return the statement about a card: it was this file when the ledger stood at this head."""
    return statement(CARD, {name: digest}, {"head": extract_table(at)["head"]})


def extract_statement(digests: Mapping[str, str], found: Extract) -> dict[str, Any]:
    """Return the statement of an extract of the ledger, about the files that lie beside it."""
    return statement(LEDGER_EXTRACT, digests, extract_table(found))


def signed(notary: Notary, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the DSSE envelope of a statement."""
    payload = canonical_json(stated)
    signature = notary.sign(encoded(payload))
    return {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }


def encoded(payload: bytes) -> bytes:
    """Return what is signed of a payload: DSSE's encoding, by which a payload of one type can't stand in for another's."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
