"""A secret in shares (Shamir 1979): any `threshold` of them give it back, fewer tell nothing about it.

A secret of 32 bytes is the value at 0 of a polynomial of degree threshold − 1 with random coefficients, modulo a prime above 2 ** 256.
Share x is its value at x.
"""

import secrets
from collections.abc import Mapping

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
