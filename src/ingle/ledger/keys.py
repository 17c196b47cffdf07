"""The keys of the ledger: one signs, it is made in the home, and only its owner can read it. A rotation puts a new one in its place.

ledger.key    the Ed25519 private key, 64 hex digits; mode 600. While a rotation is under way: the old one and the new one, a line each
ledger.pub    every public key that this home had, 64 hex digits a line, the oldest first; enough to verify
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.core.digest import digest_bytes
from ingle.core.errors import LedgerError
from ingle.core.files import os_errors, sweep_unfinished, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY, PUBLIC = "ledger.key", "ledger.pub"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key."""

    key: "Ed25519PublicKey"
    fingerprint: str  # SHA-256 of the raw public key

    @property
    def public(self) -> str:
        """The raw public key as 64 hex digits."""
        return self.key.public_bytes_raw().hex()

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


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one home."""

    verifiers: tuple[Verifier, ...]  # every public key, the oldest first
    # The private key; two while a rotation is under way, the newer last; none where it was lost or not made yet.
    signers: tuple[Signer, ...]

    def signer(self, fingerprint: str) -> Signer | None:
        """Return the private key with this fingerprint, if it is here."""
        return next((signer for signer in self.signers if signer.verifier.fingerprint == fingerprint), None)


def new_signer() -> Signer:
    """Return a new key, which is not written anywhere yet."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _signer(Ed25519PrivateKey.generate())


def read_verifier(public: str) -> Verifier:
    """Return the public key in 64 hex digits. Raises ValueError if they are none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = bytes.fromhex(public)
    return Verifier(Ed25519PublicKey.from_public_bytes(raw), digest_bytes(raw))


def save_ring(folder: Path, ring: KeyRing) -> None:
    """Write the public keys, then the private ones, so that there is never a key without its public half."""
    write_atomic(folder / PUBLIC, _lines(verifier.public for verifier in ring.verifiers))
    write_atomic(folder / KEY, _lines(signer.key.private_bytes_raw().hex() for signer in ring.signers), mode=0o600)


def sweep_keys(folder: Path) -> None:
    """Remove what killed writers of the key files left. The caller holds the ledger's lock."""
    for name in (KEY, PUBLIC):
        sweep_unfinished(folder / name)


def load_ring(folder: Path) -> KeyRing:
    """Return the keys of this home, as `read_ring` does. Missing public keys are made again."""
    ring = read_ring(folder)
    if ring.signers and not (folder / PUBLIC).exists():
        write_atomic(folder / PUBLIC, _lines(verifier.public for verifier in ring.verifiers))
    return ring


def read_ring(folder: Path) -> KeyRing:
    """Return the keys of this home; without ledger.pub, the public keys are the private ones' own halves.

    Raises LedgerError if others can read the private one, it is damaged, or it does not belong to the public keys beside it.
    """
    # The private keys first: a rotation names its key in ledger.pub before it writes it.
    signers = read_signers(folder)
    verifiers = load_verifiers(folder) or tuple(signer.verifier for signer in signers)
    names = [verifier.fingerprint for verifier in verifiers]
    for signer in signers:
        if signer.verifier.fingerprint not in names:
            got = f"keys {signer.verifier.fingerprint[:12]} and {names[-1][:12]}"
            cure = "One of the two was swapped; restore both from a backup."
            raise LedgerError(str(folder / KEY), f"must belong to {PUBLIC} beside it", got, cure)
    return KeyRing(verifiers, signers)


def load_verifiers(folder: Path) -> tuple[Verifier, ...]:
    """Return the public keys of this home, the oldest first; empty if there are none.

    Raises LedgerError if they are damaged.
    """
    path = folder / PUBLIC
    if not path.exists():
        return ()
    with os_errors(path):
        lines = path.read_text("ascii", "replace").splitlines()
    try:
        return tuple(read_verifier(line) for line in lines or [""])
    except ValueError as error:
        cure = f"Restore it from a backup, or delete it: {KEY} makes it again."
        raise LedgerError(str(path), "must hold an Ed25519 public key as 64 hex digits", error, cure) from error


def lost_key(folder: Path) -> LedgerError:
    """Return the error for a chain whose private key is gone."""
    cure = (
        f"Restore it from a backup. Without it nothing can be added; with {PUBLIC} all that was added can still be verified. "
        f"To begin a new chain, move the database and {folder} away together, and keep them: they are the old chain and its proof."
    )
    got = "another key" if (folder / KEY).exists() else "no such file"
    return LedgerError(str(folder / KEY), "must be there to sign, and facts signed with it exist", got, cure)


def read_signers(folder: Path) -> tuple[Signer, ...]:
    """Return the private keys of this home with the public halves that they give, whatever lies beside them.

    Raises LedgerError if others can read them, or they are damaged.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / KEY
    if not path.exists():
        return ()
    with os_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text("ascii", "replace").splitlines()
    if os.name != "nt" and mode & 0o077:
        raise LedgerError(str(path), "must be readable by its owner alone", f"mode {mode:o}", f"Run: chmod 600 '{path}'")
    try:
        return tuple(_signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(line))) for line in lines or [""])
    except ValueError as error:
        raise LedgerError(str(path), "must hold an Ed25519 key as 64 hex digits", error, "Restore it from a backup.") from error


def _signer(key: "Ed25519PrivateKey") -> Signer:
    public = key.public_key()
    return Signer(key, Verifier(public, digest_bytes(public.public_bytes_raw())))


def _lines(keys: Iterable[str]) -> bytes:
    return "".join(f"{key}\n" for key in keys).encode()
