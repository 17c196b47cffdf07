"""Kinds of personal data: one row each, with the pattern that finds candidates and the check that most candidates fail.

Checksums keep false alarms down: a number of 16 digits is a card's only where Luhn's sum says so, an IBAN where its rest by 97 is 1. Where
a number has no checksum, or one that every tenth number passes, a word before it must say what it is.

A value is of ASCII alone and no longer than `LONGEST`. It has spaces only between digits, capitals and brackets, and the word that says
what it is stands near it: so a growing text can be judged piece by piece (`closed`).
"""

import hashlib
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Checksums. Each takes the number without spaces and hyphens.


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


LONGEST = 240
_SAID_BEFORE = 48
_GAPS = re.compile(r"[ .\-/()]")
_DATE = re.compile(r"(?:\d{1,2}([./-])\d{1,2}\1(?:\d{2}|\d{4})|(?:19|20)\d\d([./-])\d{1,2}\2\d{1,2})(?:[ T].*)?")
_GAP, _DIGIT = re.compile("[^!-~]+"), re.compile("[0-9]")
_LEAST_PART = 32  # of an address's largest part: four smaller numbers are a version of something
_LEAST_BITS = 3.2  # entropy of a secret, per character; words have 2 to 3, keys of 20 random characters about 4


class Kind(NamedTuple):
    name: str  # as a policy and a verdict name it
    mask: str  # as a placeholder names it
    pattern: re.Pattern[str]  # its group "it", or all of it, is the value
    holds: Callable[[str], bool]  # whether a candidate is one
    needs: str = ""  # characters of which a text must have one; empty = a digit
    said: re.Pattern[str] | None = None  # text that must stand right before it, within `_SAID_BEFORE` characters


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def _bare(text: str) -> str:
    return _GAPS.sub("", text)


def _phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATE.fullmatch(text.strip()) and not _book(digits)


def _book(digits: str) -> bool:
    """Whether these are the digits of an ISBN."""
    return len(digits) == 13 and digits.startswith(("978", "979")) and weighted(digits, (1, 3) * 7, 10) == 0


def _card(text: str) -> bool:
    digits = _bare(text)
    known = re.fullmatch(
        r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
        r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}", digits,
    )  # fmt: skip
    return known is not None and luhn(digits) and len(set(digits)) > 1


def _ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 6:
        return address.is_global and text[0] in "23"
    return address.is_global and not address.is_multicast and max(address.packed) >= _LEAST_PART


def _mac(text: str) -> bool:
    return len(set(text.replace("-", ":").lower().split(":"))) > 2


def _wallet(text: str) -> bool:
    return bech32(text) if text[:3].lower() == "bc1" else text.startswith("0x") or base58check(text)


def _secret(text: str) -> bool:
    counts = Counter(text)
    bits = -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
    return bits >= _LEAST_BITS and any(one.isdigit() for one in text) and any(one.isalpha() for one in text)


def _us(text: str) -> bool:
    area, group, serial = re.split(r"[- ]", text)
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _spanish(text: str) -> bool:
    text = _bare(text).upper()
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


def _french(text: str) -> bool:
    digits = _bare(text)
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def _dated(digits: str) -> bool:
    """Whether six digits can be a birthday, year first (a Polish month has its century in it)."""
    return 1 <= int(digits[2:4]) % 20 <= 12 and 1 <= int(digits[4:6]) <= 31


def _polish(digits: str) -> bool:
    return _dated(digits) and weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10) == 0


def _swedish(text: str) -> bool:
    digits = re.sub(r"\D", "", text)[-10:]
    return _dated(digits) and luhn(digits)


# Numbers by which states name people: (country, pattern, check). A row more is a country more.
_NATIONAL: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("US", r"\d{3}-\d{2}-\d{4}", _us),
    ("GB", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", lambda text: text[:2] not in ("BG", "GB")),
    ("FR", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d{2} ?\d{3} ?\d{3} ?\d{2}", _french),
    ("ES", r"(?:\d{8}|[XYZ]\d{7})[- ]?[A-HJ-NP-TV-Z]", _spanish),
    ("IT", r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", italian),
    ("SE", r"(?:19|20)?\d{6}[-+]\d{4}", _swedish),
    ("BR", r"\d{3}\.\d{3}\.\d{3}-\d{2}", lambda text: brazilian(_bare(text))),
    ("IN", r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}(?![ -]\d)", lambda text: verhoeff(_bare(text))),
)
# Those of eleven digits without a form of their own: (country, word before it, check).
_BARE: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("PL", r"pesel", _polish),
    ("DE", r"steuer-?id|idnr|steueridentifikationsnummer|tax id", mod11_10),
)
_KEYS = (
    r"sk-(?:ant-|proj-)?[\w-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,200}|github_pat_\w{22,200}|glpat-[\w-]{20,64}|A(?:KIA|SIA)[0-9A-Z]{16}"
    r"|xox[abeprs]-[\w-]{10,200}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,200}|ingle-[\w-]{43}"
    r"|SG\.[\w-]{16,40}\.[\w-]{16,64}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,120}|eyJ[\w-]{8,80}\.eyJ[\w-]{8,80}\.[\w-]{8,64}"
)
_SAID = r"(?i:\b(?:api[ _-]?key|access[ _-]?token|auth[ _-]?token|secret(?:[ _-]?key)?|token|passw(?:or)?d|passphrase|pwd)\b)"


def _national(text: str) -> bool:
    return any(re.fullmatch(pattern, text, re.ASCII) and check(text) for _, pattern, check in _NATIONAL)


def _bare_national(text: str) -> bool:
    return any(check(_bare(text)) for _, _, check in _BARE)


# All kinds; of several at one place the longest counts, then the first.
KINDS = (
    Kind("e-mail", "E-MAIL", _compiled(
        r"(?<![\w.+%-])[\w.+%-]{1,64}+@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,6}[A-Za-z]{2,24}(?![\w-])"), lambda _: True, "@"),
    Kind("key", "KEY", _compiled(
        rf"(?<![\w-])(?:{_KEYS})(?![\w-])|{_SAID}[\"' ]{{0,2}}(?:[:=]|is )[\"' ]{{0,3}}(?P<it>(?:(?![\"'<>,;()])[!-~]){{12,128}})"),
        lambda text: re.fullmatch(_KEYS, text) is not None or _secret(text), " -_:=0123456789"),
    Kind("iban", "IBAN", _compiled(
        r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), lambda text: iban(_bare(text))),
    Kind("card", "CARD", _compiled(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)"), _card),
    Kind("wallet", "WALLET", _compiled(
        r"(?<!\w)(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|(?:bc1|BC1)[0-9A-Za-z]{11,71}|0x[0-9a-fA-F]{40})(?!\w)"), _wallet),
    Kind("mac", "MAC", _compiled(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:(?:-[0-9A-Fa-f]{2}){5}|(?::[0-9A-Fa-f]{2}){5})(?![\w:-])"), _mac),
    Kind("ip", "IP", _compiled(
        r"(?<![\w.:-])(?<!\b[vV])(?<![Vv]ersion )(?<![Rr]elease )(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"
        r"|[23][0-9A-Fa-f]{0,3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:.]))"), _ip),
    Kind("id", "ID", _compiled(rf"(?<![\w.-])(?:{'|'.join(pattern for _, pattern, _ in _NATIONAL)})(?![\w-])"), _national),
    Kind("id", "ID", _compiled(r"(?<![\w.-])(?:\d{11}|\d{2} \d{3} \d{3} \d{3})(?![\w-])"), _bare_national,
         said=_compiled(rf"(?i:\b(?:{'|'.join(word for _, word, _ in _BARE)})\b\W{{0,4}}\Z)")),
    Kind("phone", "PHONE", _compiled(
        r"(?<![\w.+/-])(?:(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(0?\d{1,4}\)[ ./-]?)?\d{1,12}(?:[ ./-]?\d{2,6}){0,5}"
        r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"
        r"|(?<!\d[ ])(?:\(0[1-9]\d{0,4}\)|0[1-9]\d{0,4})[ /-]\d{2,8}(?:[ -]\d{2,5}){0,4})(?![\w-]|[.:/]\d)"), _phone),
)  # fmt: skip


class Found(NamedTuple):
    start: int
    end: int
    kind: Kind


def find_pii(text: str, kinds: tuple[Kind, ...] = KINDS, start: int = 0) -> list[Found]:
    """Return the values in a text, in order and apart, from a place on."""
    digits = any(one in text for one in "0123456789")
    found: list[Found] = []
    for kind in kinds:
        if any(one in text for one in kind.needs) if kind.needs else digits:
            for match in kind.pattern.finditer(text):
                group = next((name for name, value in match.groupdict().items() if value is not None), 0)
                begin, end = match.span(group)
                said = kind.said is None or kind.said.search(text, max(0, begin - _SAID_BEFORE), begin)
                if begin >= start and end - begin <= LONGEST and said and kind.holds(text[begin:end]):
                    found.append(Found(begin, end, kind))
    found.sort(key=lambda one: (one.start, -one.end))
    apart: list[Found] = []
    for one in found:
        if not apart or one.start >= apart[-1].end:
            apart.append(one)
    return apart


def closed(text: str, final: bool) -> int:
    """Return how much of a text no value can reach across, whatever comes after it."""
    start = at = 0
    while gap := _GAP.search(text, at):
        begin, at = gap.span()
        while begin - start > LONGEST:
            start += LONGEST
        before, after = text[begin - 1 : begin] if begin > start else "", text[at : at + 1]
        if gap.group() == " " and (before.isdigit() or before.isupper() or before == ")"):
            if not after and not final:
                return start
            if after.isdigit() or after in ("(", "+") or (after.isupper() and _DIGIT.search(text, start, begin)):
                continue
        start = at
    while len(text) - start > LONGEST:
        start += LONGEST
    return len(text) if final else start
