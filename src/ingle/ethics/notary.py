"""The home's notary: a key for signatures that strangers check, and the statements that it signs.

The key signs what leaves the home: exported models, cards, extracts of the ledger. It is ECDSA on P-256, which others' tools take,
unlike the ledger's Ed25519. Its birth is a fact, so the ledger's key vouches for it. A statement is an in-toto Statement v1 in a DSSE
envelope, with a predicate that says what is stated.

signer.key    the private key as PEM (PKCS 8), in the folder of keys; mode 600. It is made at the first signature
"""

import base64
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.core.digest import canonical_json, digest_bytes
from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, write_atomic
from ingle.core.report import Event, Fact
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.proof import Extract, extract_table

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from ingle.ledger.row import Row


KEY = "signer.key"  # name of the file, kind of the fact that the home signs with this key from now on, and subject of that fact
_LOCK = "signer-key"
_CURE = (
    "Restore it from a backup; or go on with a new one (`ingle verify --accept-loss`), which is itself recorded: "
    "what was signed so far stays good."
)


@dataclass(frozen=True, slots=True)
class Notary:
    """The key, with its public half."""

    key: "EllipticCurvePrivateKey"
    public: bytes  # PEM

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public half, as it lies beside what was signed."""
        return digest_bytes(self.public)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over the message's SHA-256, as DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self.key.sign(message, ECDSA(SHA256()))


def notary(home: Home, ledger: Ledger) -> Notary:
    """Return the home's key, made at the first call; its birth becomes a fact.

    Raises LedgerError if it is lost, is not the one that the ledger names, can be read by others or is damaged, and if the fact can't be
    written.
    """
    with home.lock(_LOCK):
        found, said = read_notary(home), named(ledger)
        if fault := _fault(found, said):
            raise LedgerError(str(home.keys / KEY), "must be the key that this home signs with", fault, _CURE)
        if found is None:
            found = _make(home)
        if said is None:
            ledger.append(_born(found))
    return found


def read_notary(home: Home) -> Notary | None:
    """Return the key that lies in this home; None if there is none. Raises LedgerError if others can read it or it is damaged."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = home.keys / KEY
    if not path.exists():
        return None
    with os_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    if os.name != "nt" and mode & 0o077:
        raise LedgerError(str(path), "must be readable by its owner alone", f"mode {mode:o}", f"Run: chmod 600 '{path}'")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise LedgerError(str(path), "must hold a private key as PEM", f"{len(data)} bytes of something else", _CURE) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise LedgerError(str(path), "must hold a key on the curve P-256", "another kind", _CURE)
    return _notary(key)


def named(ledger: Ledger) -> "Row | None":
    """Return the fact that names the home's present key; None if it has signed nothing yet."""
    return next(iter(ledger.read(subject=KEY, last=1)), None)


def notary_fault(home: Home, ledger: Ledger) -> str:
    """Return what is wrong with the key; "" = nothing."""
    try:
        return _fault(read_notary(home), named(ledger))
    except LedgerError as error:
        return error.sentence


def accept_lost_notary(home: Home, ledger: Ledger) -> "Row":
    """Go on with a new key after the old one was lost, or with another one that lies in its place; that is a fact.

    Raises LedgerError if nothing is wrong with the key, or if others can read it.
    """
    with home.lock(_LOCK):
        said = named(ledger)
        if not notary_fault(home, ledger):
            raise LedgerError(KEY, "is not lost")
        try:
            found = read_notary(home)
        except LedgerError as error:
            if "owner alone" in error.rule:
                raise
            found = None
        return ledger.append(_born(found or _make(home), said))


def _born(found: Notary, before: "Row | None" = None) -> Event:
    facts: dict[str, Fact] = {"fingerprint": found.fingerprint}
    return Event(KEY, KEY, facts | ({"lost": before.values.get("fingerprint")} if before else {}))


def _fault(found: Notary | None, said: "Row | None") -> str:
    if said is None:
        return ""
    if found is None:
        return f"no such file, and fact {said.seq} says that there is one"
    expected = str(said.values.get("fingerprint"))
    return "" if found.fingerprint == expected else f"{found.fingerprint[:12]}, where fact {said.seq} says {expected[:12]}"


def _make(home: Home) -> Notary:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = generate_private_key(SECP256R1())
    write_atomic(home.keys / KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    return _notary(key)


def _notary(key: "EllipticCurvePrivateKey") -> Notary:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Notary(key, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


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
