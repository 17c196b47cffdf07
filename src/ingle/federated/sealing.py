"""Secrets of homes: keys that two can work out (X25519, HKDF), letters under them (ChaCha20-Poly1305), masks (ChaCha20), and shares.

Shares (Shamir 1979): any `threshold` of them give a secret back, fewer tell nothing about it.
"""

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ingle.core.digest import canonical_json
from ingle.core.errors import FederatedError
from ingle.federated.terms import Whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


NONCE_BYTES = 12


def new_private() -> bytes:
    """Return a new X25519 private key, 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> str:
    """Return the public half of an X25519 key, as 64 hex digits."""
    return _private(private).public_key().public_bytes_raw().hex()


def common_key(private: bytes, public: str, context: dict[str, object]) -> bytes:
    """Return the 32 bytes that only the owners of the two keys can work out, for one context: another context gives unrelated bytes.

    Raises FederatedError if the other key is none, or one of the few that everybody can work out.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    try:
        secret = _private(private).exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    except ValueError as error:
        raise FederatedError("key", "must be an X25519 public key", error, "Do not go on with this coordinator.") from error
    return HKDF(SHA256(), 32, None, canonical_json(context)).derive(secret)


def seal(key: bytes, plain: bytes, context: dict[str, object]) -> bytes:
    """Return `plain` so that only an owner of the key reads it, and only as a letter of this context."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, canonical_json(context))


def unseal(key: bytes, sealed: bytes, context: dict[str, object]) -> bytes | None:
    """Return what `seal` hid; None if it was changed, or belongs to another key or context."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], canonical_json(context))
    except (InvalidTag, ValueError):
        return None


def mask(seed: bytes, count: int, width: int) -> Whole:
    """Return `count` numbers below 2 ** width that only an owner of the seed can tell from chance. A seed is used for one mask."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(4 * count))
    return np.frombuffer(stream, "<u4") & np.uint32((1 << width) - 1)


def _private(raw: bytes) -> "X25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(raw)


# Shares. A secret of 32 bytes is the value at 0 of a polynomial of degree threshold − 1 with random coefficients, modulo a prime above
# 2 ** 256. Share x is its value at x.


SECRET_BYTES = 32
SHARE_BYTES = 33
PRIME = 2**256 + 297


def split(secret: bytes, homes: int, threshold: int) -> dict[int, bytes]:
    """Return a secret's shares, numbered from 1."""
    assert len(secret) == SECRET_BYTES and 1 <= threshold <= homes
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: _value(coefficients, x).to_bytes(SHARE_BYTES) for x in range(1, homes + 1)}


def combine(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret that these shares give, as many as the threshold was. None if no secret gives them: one is wrong."""
    total = 0
    for x, share in shares.items():
        over, under = 1, 1
        for other in shares:
            if other != x:
                over, under = over * other % PRIME, under * (other - x) % PRIME
        total += int.from_bytes(share) * over * pow(under, -1, PRIME)
    secret = total % PRIME
    return secret.to_bytes(SECRET_BYTES) if secret < 1 << 256 else None


def _value(coefficients: list[int], x: int) -> int:
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * x + coefficient) % PRIME
    return total
