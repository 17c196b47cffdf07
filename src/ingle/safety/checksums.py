"""Checksums of numbers that name people, accounts and wallets. Each takes the number without spaces and hyphens."""

import hashlib
from collections.abc import Sequence

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_STEPS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_SUMS = (1, 0x2BC830A3)  # of bech32 (BIP 173) and bech32m (BIP 350)
_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043", "8765932104",
    "9876543210",
)  # fmt: skip
_TURNS = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")
_ITALIAN_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23,
), strict=True))  # fmt: skip


def luhn(digits: str) -> bool:
    """Whether the last digit fits the others (ISO/IEC 7812): cards, Swedish persons."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban(text: str) -> bool:
    """Whether the rest by 97 is 1 (ISO 13616)."""
    return 15 <= len(text) <= 34 and int("".join(str(int(one, 36)) for one in text[4:] + text[:4])) % 97 == 1


def verhoeff(digits: str) -> bool:
    """Whether the last digit fits the others (J. Verhoeff, 1969): Indian Aadhaar."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_DIHEDRAL[check][int(_TURNS[place % 8][int(digit)])])
    return check == 0


def mod11_10(digits: str) -> bool:
    """Whether the last digit fits the others (ISO 7064, mod 11, 10): German tax numbers."""
    product = 10
    for digit in digits[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def weighted(digits: str, weights: Sequence[int], modulus: int) -> int:
    """Return the weighted sum of digits by a modulus."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % modulus


def brazilian(digits: str) -> bool:
    """Whether both check digits of a CPF fit."""
    if len(set(digits)) == 1:
        return False
    return (
        all(weighted(digits, range(length + 1, 1, -1), 11) * 10 % 11 % 10 == int(digits[length]) for length in (9, 10)) if digits else False
    )


def italian(text: str) -> bool:
    """Whether the last letter of a codice fiscale fits."""
    values = (_ITALIAN_ODD[one] if place % 2 == 0 else int(one) if one.isdigit() else ord(one) - 65 for place, one in enumerate(text[:15]))
    return chr(65 + sum(values) % 26) == text[15]


def base58check(text: str) -> bool:
    """Whether the last four bytes are those of the double SHA-256 of the rest: Bitcoin addresses that begin with 1 or 3."""
    number = 0
    for one in text:
        number = number * 58 + _BASE58.index(one)
    if number >= 1 << 200:
        return False
    data = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def bech32(text: str) -> bool:
    """Whether the checksum of a segwit address fits (BIP 173 and 350)."""
    text = text.lower()
    head, _, data = text.rpartition("1")
    if not head or any(one not in _BECH32 for one in data):
        return False
    values = [*(ord(one) >> 5 for one in head), 0, *(ord(one) & 31 for one in head), *map(_BECH32.index, data)]
    check = 1
    for value in values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for place, step in enumerate(_BECH32_STEPS):
            check ^= step if top >> place & 1 else 0
    return check in _BECH32_SUMS
