"""Views of a text: what it says once disguises are taken off.

A guard that reads letters is blind to the same words in base64, in Cyrillic letters that look like Latin ones, or s p a c e d out. Each
disguise here is undone by a function that proposes texts; a proposal counts only if it reads like language more than what it came from,
so that a digest or a picture in base64 gives nothing. Undone texts are looked at once more, so two disguises on one text are found.

Bounds: `MOST_BYTES` of input are looked at, `MOST_VIEWS` views returned, `DEPTH` disguises undone.
"""

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

MOST_BYTES = 65_536
MOST_VIEWS = 16
DEPTH = 2
_MOST_HIDDEN, _MOST_HIDDEN_BYTES = 48, 4096  # proposals that are no language, and their length, which are looked at once more
_LEAST_LETTERS = 12  # letters that an undone text must have
_LEAST_COMMON = 3  # different common words that a text must have to count as language
_READS = 0.25  # share of common words from which a text counts as language; English texts have 0.3 to 0.6

_PLAINER = 0.2  # nats by which a pair of letters must be likelier in another alphabet

_FOREIGN = 0.1  # share below which a text is no language, or a disguised one

_LOOK_ALIKE = str.maketrans(
    "аеорсухіјѕԁһոցկյАВЕКМНОРСТУХІЈЅӏвнктмгαβεικνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧıɡɑƅɩʀᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯꜱᴛᴜᴠᴡʏᴢ",
    "aeopcyxijsdhngkjABEKMHOPCTYXIJSlbhktmraBeikvoptuxwABEZHIKMNOPTYXigabirabcdefghijklmnopqstuvwyz",
)
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_LEET = str.maketrans("013457@$!|+", "oieastasilt")
_MORSE_SIGNS = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MORSE = dict(zip(re.findall(r"\S+", _MORSE_SIGNS), _MORSE_LETTERS, strict=True))
_RADIO = (
    "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliett juliet kilo lima mike november oscar papa quebec romeo sierra "
    "tango uniform victor whiskey xray yankee zulu"
)
_NATO = {word: word[0] for word in re.findall(r"\w+", _RADIO)}
Undo = Callable[[str], Iterator[str]]


def views(text: str) -> tuple[str, ...]:
    """Return the text and its views, the plainest first; equal ones once."""
    found = dict.fromkeys([text[:MOST_BYTES]])
    layer = list(found)
    for depth in range(1, DEPTH + 1):
        deeper = list[str]()
        for one in layer:
            for name, undo in UNDONE.items():
                for view in undo(one):
                    if view in found or len(found) >= MOST_VIEWS:
                        continue
                    if name in _ALWAYS or reads(view) >= _READS:
                        found[view] = None
                        deeper.append(view)
                    elif depth < DEPTH and len(view) <= _MOST_HIDDEN_BYTES:
                        deeper.append(view)  # no language yet, but one more disguise may be under this one
        layer = deeper[:_MOST_HIDDEN]
    return tuple(found)


@lru_cache(maxsize=256)
def canonical(text: str) -> str:
    """Return the text with compatible characters made plain (NFKC), look-alike letters made Latin, and invisible ones removed."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_LOOK_ALIKE)


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_words.txt").read_text("ascii").split())


def reads(text: str) -> float:
    """Return the share of words that are common in English; 0 for a text with hardly any letters, or hardly any such words."""
    words = re.findall(r"[a-z]{2,}", text[:4096].lower())
    if sum(map(len, words)) < _LEAST_LETTERS:
        return 0.0
    common = [word for word in words if word in _common()]
    return len(common) / len(words) if len(set(common)) >= _LEAST_COMMON else 0.0


def _canonical(text: str) -> Iterator[str]:
    if (plain := canonical(text)) != text:
        yield plain


def _spaced(text: str) -> Iterator[str]:
    """S p a c e d, or d.o.t.t.e.d; two or more spaces, or another sign, stand between words."""
    for sign in (" ", ".", "-", "_", "*", "|", "/"):
        run = _RUNS[sign]
        marked = re.sub(r" {2,}", " \x00 ", text) if sign == " " else text
        joined = run.sub(lambda match, sign=sign: match[0].replace(sign, ""), marked)  # type: ignore[misc]
        if joined != marked:
            yield joined.replace(" \x00 ", " ").replace("\x00", " ")


_RUNS = {
    sign: re.compile(rf"(?<![^\s\x00])\w(?:{re.escape(sign)}\w)+(?![^\s\x00.,;:!?])" if sign != " " else r"(?<!\S)\w(?: \w)+(?!\S)")
    for sign in (" ", ".", "-", "_", "*", "|", "/")
}


def _leet(text: str) -> Iterator[str]:
    if re.search(r"[A-Za-z][0-9@$!|+]|[0-9@$!|+][A-Za-z]", text):
        yield text.translate(_LEET)


def _mapped(text: str) -> Iterator[str]:
    """Letters moved in the alphabet (rot13 and every other shift), or the alphabet turned round."""
    for piece in _foreign(text):
        if len(re.findall(r"[A-Za-z]", piece[:400])) >= _LEAST_LETTERS:
            if _of_words(piece):
                yield from (piece.translate(_ALPHABETS[number]) for number in _likely_alphabets(piece))
            else:
                yield from (piece.translate(table) for table in _ALPHABETS)


def _foreign(text: str) -> Iterator[str]:
    if reads(text) < _FOREIGN:
        yield text
    else:
        yield from (
            piece for piece in re.split(r"(?<=[:.!?\n])\s+|[\"“”`]+", text) if len(piece) >= _LEAST_LETTERS and reads(piece) < _FOREIGN
        )


def _of_words(text: str) -> bool:
    """Return whether a text is of words, whose letters follow each other by habit: codes have digits, or no spaces."""
    return " " in text and not re.search(r"[0-9]", text[:400])


def _likely_alphabets(text: str) -> list[int]:
    """Return the number of the alphabet in which pairs of letters are likeliest, if they are likelier than as they stand."""
    scores = np.einsum("aij,ij->a", _pairs_by_alphabet(), _pair_counts(text))
    best = int(scores.argmax())
    return [best] if scores[best] > _odds_of_pairs(text) + _PLAINER else []


def _odds_of_pairs(text: str) -> float:
    """Return how likely a text's pairs of letters are in English: the mean of log(share), in nats."""
    return float((_pair_counts(text) * _pair_odds()).sum())


def _pair_counts(text: str) -> npt.NDArray[np.float64]:
    """Return the share of every pair of letters [27, 27]; the last stands for all that is no letter."""
    letters = np.frombuffer(text[:400].lower().encode("ascii", "replace"), np.uint8).astype(np.int64) - ord("a")
    letters = np.where((letters < 0) | (letters > 25), 26, letters)
    counts = np.bincount(27 * letters[:-1] + letters[1:], minlength=27 * 27).reshape(27, 27).astype(np.float64)
    counts[26, 26] = 0
    shares: npt.NDArray[np.float64] = counts / max(1.0, counts.sum())
    return shares


@lru_cache(maxsize=1)
def _pair_odds() -> npt.NDArray[np.float64]:
    """Log of how often a letter follows another, from the ordinary texts beside this file."""
    text = Path(__file__).with_name("ordinary.txt").read_text("utf-8")
    counts = sum((400 * _pair_counts(text[at : at + 400]) for at in range(0, len(text), 400)), np.full((27, 27), 0.5))
    odds: npt.NDArray[np.float64] = np.log(counts / counts.sum(1, keepdims=True))
    return odds


@lru_cache(maxsize=1)
def _pairs_by_alphabet() -> npt.NDArray[np.float64]:
    """`_pair_odds` of what each alphabet makes of the letters [alphabets, 27, 27]."""
    orders = [[*(ord(_LETTERS.translate(table)[i]) - ord("a") for i in range(26)), 26] for table in _ALPHABETS]
    return np.stack([_pair_odds()[order][:, order] for order in orders])


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ALPHABETS = [
    str.maketrans(_LETTERS + _LETTERS.upper(), order + order.upper())
    for order in [_LETTERS[shift:] + _LETTERS[:shift] for shift in (13, *range(1, 13), *range(14, 26))] + [_LETTERS[::-1]]
]


def _turned(text: str) -> Iterator[str]:
    for piece in _foreign(text):
        for turned in (piece[::-1], " ".join(word[::-1] for word in piece.split(" "))):
            if not _of_words(piece) or _odds_of_pairs(turned) > _odds_of_pairs(piece) + _PLAINER / 4:
                yield turned


def _codes(text: str) -> Iterator[str]:
    """Runs of base64, base32, base85, hexadecimal, binary, octal or decimal numbers, read as bytes."""
    for pattern, read in _CODES:
        pieces = [piece for run in pattern.findall(text) if (piece := _read_code(run, read))]
        if pieces:
            yield " ".join(pieces)


def _read_code(run: str, read: Callable[[str], bytes]) -> str:
    try:
        view = read(run).decode("utf-8")
    except (ValueError, binascii.Error, OverflowError):
        return ""
    return view if any(map(str.isalnum, view)) and all(letter.isprintable() or letter.isspace() for letter in view) else ""


def _padded(run: str) -> str:
    run = re.sub(r"\s+", "", run).rstrip("=")
    return run + "=" * (-len(run) % 4)


def _numbers(base: int) -> Callable[[str], bytes]:
    def read(run: str) -> bytes:
        numbers = [int(number, base) for number in re.findall(r"[0-9]+", run)]
        return bytes(numbers) if max(numbers) < 256 else "".join(map(chr, numbers)).encode()

    return read


_CODES: tuple[tuple[re.Pattern[str], Callable[[str], bytes]], ...] = (
    (
        re.compile(r"\b[01]{7,8}(?:[ ,]+[01]{7,8}){3,}\b|\b(?:[01]{8}){4,}\b"),
        lambda run: bytes(int(one, 2) for one in re.findall(r"[01]{7,8}", run)),
    ),
    (re.compile(r"(?:(?:\\x|0x|\b)[0-9a-fA-F]{2}[ ,:]*){6,}(?:\b|$)"), lambda run: bytes.fromhex(re.sub(r"\\x|0x|[ ,:]", "", run))),
    (re.compile(r"\b(?:[0-9a-fA-F]{2}){6,}\b"), bytes.fromhex),
    (re.compile(r"\b[1-9][0-9]{1,2}(?:[ ,]+[1-9][0-9]{1,2}){5,}\b"), _numbers(10)),
    (re.compile(r"\b[0-7]{2,3}(?:[ ,]+[0-7]{2,3}){5,}\b"), _numbers(8)),
    (re.compile(r"\b[A-Z2-7]{16,}={0,6}"), lambda run: base64.b32decode(run.rstrip("=") + "=" * (-len(run.rstrip("=")) % 8))),
    (
        re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}"),
        lambda run: base64.b64decode(_padded(run).replace("-", "+").replace("_", "/"), validate=True),
    ),
    (re.compile(r"<~[!-u\s]{10,}~>"), lambda run: base64.a85decode(run, adobe=True)),
    (re.compile(r"(?<!\S)[!-u]{15,}(?!\S)"), base64.a85decode),
    (re.compile(r"(?<!\S)[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{15,}(?!\S)"), base64.b85decode),
)


def _escaped(text: str) -> Iterator[str]:
    """Per cent signs, HTML entities, \\u and quoted-printable."""
    if re.search(r"(?:%[0-9A-Fa-f]{2}){3,}", text):
        yield unquote(text, errors="ignore")
    if re.search(r"(?:&#x?[0-9A-Fa-f]+;\s?){3,}", text):
        yield html.unescape(text)
    if re.search(r"(?:\\u[0-9A-Fa-f]{4}){3,}", text):
        yield re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text)
    if re.search(r"(?:=[0-9A-F]{2}){3,}", text):
        yield re.sub(r"(?:=[0-9A-F]{2})+", lambda match: bytes.fromhex(match[0].replace("=", "")).decode("utf-8", "ignore"), text)


def _worded(text: str) -> Iterator[str]:
    """Morse, and the alphabet of radio operators."""
    dotted = text.replace("·", ".").replace("•", ".").replace("−", "-").replace("–", "-").replace("—", "-")
    for run in re.findall(r"(?:[.\-]{1,5}[ /|]+){8,}[.\-]{1,5}", dotted):
        words = re.split(r"\s*[/|]\s*| {2,}", run.strip())
        yield " ".join("".join(_MORSE.get(sign, "") for sign in word.split()) for word in words)
    spelled = [_NATO.get(word) for word in re.findall(r"[a-z-]+", text.lower())]
    if sum(letter is not None for letter in spelled) >= max(8, len(spelled) // 2):
        yield "".join(letter or " " for letter in spelled)


# Disguises by name, each with what undoes it.
UNDONE: dict[str, Undo] = {
    "canonical": _canonical, "escaped": _escaped, "codes": _codes, "spaced": _spaced, "leet": _leet, "mapped": _mapped, "turned": _turned,
    "worded": _worded,
}  # fmt: skip
_ALWAYS = {"canonical", "escaped", "spaced"}  # these give views whatever comes of them
