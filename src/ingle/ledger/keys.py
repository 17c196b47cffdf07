"""The key that signs the ledger: it is made in the home, and only its owner can read it.

ledger.key    the Ed25519 private key, 64 hex digits; mode 600
ledger.pub    its public key, 64 hex digits; enough to verify
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.digest import digest_bytes
from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY, PUBLIC = "ledger.key", "ledger.pub"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key."""

    key: "Ed25519PublicKey"
    fingerprint: str
    """SHA-256 of the raw public key."""

    def accepts(self, signature: str, message: bytes) -> bool:
        """Return whether `signature` (hex) over `message` was made with this key's private half."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(bytes.fromhex(signature), message)
        except (InvalidSignature, ValueError):
            return False
        # Hex in upper case reads as the same bytes; we write lower case, anything else was edited.
        return signature == signature.lower()


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its public half."""

    key: "Ed25519PrivateKey"
    verifier: Verifier

    def sign(self, message: bytes) -> str:
        """Return the signature over `message`, in hex."""
        return self.key.sign(message).hex()


def new_signer() -> Signer:
    """Return a new key, which is not written anywhere yet."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _signer(Ed25519PrivateKey.generate())


def save_signer(folder: Path, signer: Signer) -> None:
    """Write the public half, then the private key, so that there is never a key without its public half."""
    write_atomic(folder / PUBLIC, signer.verifier.key.public_bytes_raw().hex().encode() + b"\n")
    write_atomic(folder / KEY, signer.key.private_bytes_raw().hex().encode() + b"\n", mode=0o600)


def load_signer(folder: Path) -> Signer | None:
    """Return the key of this home; None if there is none. A missing public key is made again.

    Raises LedgerError if others can read it, it is damaged, or it does not belong to the public key beside it.
    """
    signer = read_signer(folder)
    if signer is None:
        return None
    public = load_verifier(folder)
    if public is None:
        write_atomic(folder / PUBLIC, signer.verifier.key.public_bytes_raw().hex().encode() + b"\n")
    elif public.fingerprint != signer.verifier.fingerprint:
        got = f"keys {signer.verifier.fingerprint[:12]} and {public.fingerprint[:12]}"
        cure = "One of the two was swapped; restore both from a backup."
        raise LedgerError(str(folder / KEY), f"must belong to {PUBLIC} beside it", got, cure)
    return signer


def read_signer(folder: Path) -> Signer | None:
    """Return the private key of this home with the public half that it gives, whatever lies beside it; None if there is none.

    Raises LedgerError if others can read it, or it is damaged.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / KEY
    if not path.exists():
        return None
    with os_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii", "replace").strip()
    if os.name != "nt" and mode & 0o077:
        raise LedgerError(str(path), "must be readable by its owner alone", f"mode {mode:o}", f"Run: chmod 600 '{path}'")
    try:
        return _signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text)))
    except ValueError as error:
        raise LedgerError(str(path), "must hold an Ed25519 key as 64 hex digits", error, "Restore it from a backup.") from error


def load_verifier(folder: Path) -> Verifier | None:
    """Return the public key of this home; None if there is none.

    Raises LedgerError if it is damaged.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    path = folder / PUBLIC
    if not path.exists():
        return None
    with os_errors(path):
        text = path.read_text("ascii", "replace").strip()
    try:
        raw = bytes.fromhex(text)
        return Verifier(Ed25519PublicKey.from_public_bytes(raw), digest_bytes(raw))
    except ValueError as error:
        cure = f"Restore it from a backup, or delete it: {KEY} makes it again."
        raise LedgerError(str(path), "must hold an Ed25519 public key as 64 hex digits", error, cure) from error


def lost_key(folder: Path) -> LedgerError:
    """Return the error for a chain whose private key is gone."""
    cure = (
        f"Restore it from a backup. Without it nothing can be added; with {PUBLIC} all that was added can still be verified. "
        f"To begin a new chain, move the database and {folder} away together, and keep them: they are the old chain and its proof."
    )
    return LedgerError(str(folder / KEY), "must be there to sign, and facts signed with it exist", "no such file", cure)


def _signer(key: "Ed25519PrivateKey") -> Signer:
    public = key.public_key()
    return Signer(key, Verifier(public, digest_bytes(public.public_bytes_raw())))
