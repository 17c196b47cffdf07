"""Guard: an answer that repeats the system prompt, or says a secret that it marks.

Letters and digits are compared, case-folded, without anything between them: other separators, line breaks, capitals, and letters that are
spaced out change nothing. They may also be written backwards or in base64. A repetition counts from `_MOST` characters in a row (`_SHARE`
of a short prompt), or half as many again in pieces of `_PIECE`; a marked secret counts by itself. Whoever asks may hear his own
words again.

What can't leak this way needs no guard: an answer is given the asker's own memories only (adapt/choosing.py), never another's, so its
parts of origin "memory" are the asker's to read. A system prompt that is translated or told in other words is not found.
"""

import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

from ingle.core.message import Chunk, Request, TextPart, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.holding import Acts, Look, Passage, Undecided, held_back, watched
from ingle.safety.middleware import Guard, Next
from ingle.safety.policy import ACTIONS, GuardRule, LooksAt, Mode
from ingle.safety.word_search import FoldedText, view

# Secrets that a system prompt marks: what it says behind a word like *password*, where that is spelled like no word.
# An ordinary word counts only in quotation marks: "the key is simple" names no key. Where the marking word has other uses (*code*, *key*),
# the prompt must also say that something is not to be told, and what customers are given (a discount code, a postcode) is none.


MOST = 16  # secrets of one prompt
LEAST, LEAST_DIGITS = 6, 4  # letters and digits of a secret; fewer suffice where all are digits
_SURE = (
    r"pass[ -]?(?:word|code|phrase)|pwd|pin(?: (?:code|number))?|secret(?: (?:code|word|key|phrase|number))?|(?:code|safe|magic)[ -]?word|"
    r"(?:api|secret|private|access|encryption|master)[ _-]?key|(?:access|auth|api|bearer)[ _-]?token|"
    r"passwort|kennwort|mot de passe|contraseña|senha"
)
_IS = r"(?:\s*[:=]\s*|\s+(?:is|was|reads|lautet|ist|est|es|é)\s+(?:now\s+)?)"
_WORDS = r"[^.:\n\"“”]{1,60}?"
# Digits, capitals inside or throughout, signs other than a hyphen's, or four parts.
_NO_WORD = r"(?=\S*\d|(?-i:\S*[a-z][A-Z]|[A-Z][A-Z-]{5})|\w+[^\w\s.,:;/’-]\w|(?:\w+-){3})"
_VALUE = rf"(?:[\"“„«`](?P<quoted>[^\"”“»`\n]{{1,128}})[\"”“»`]|(?P<bare>(?!\S*://){_NO_WORD}[^\s\"“”`<>]{{4,128}}))"
_SAID = re.compile(
    rf"\b(?:(?:{_SURE})(?:(?:\s+{_WORDS})??{_IS}|\s+)|"
    rf"(?P<unsure>(?:(?P<what>\w+)[ -])?(?:code|key|token))(?:(?:\s+(?:for|to|of)\s+{_WORDS})??{_IS}|\s+))"
    rf"{_VALUE}",
    re.I,
)
_KEPT = re.compile(r"\b(?:never|not|secret|confidential|private|reveal|disclose|niemals|nicht|jamais|nunca)\b|n['’]t\b", re.I)
_GIVEN = re.compile(
    r"area|bar|booking|country|coupon|currency|dial\w*|discount|dress|error|exit|gift|html|http|invite|language|offer|order|post|postal|"
    r"product|promo\w*|qr|referral|return|sample|sort|source|status|tracking|voucher|zip",
    re.I,
)


@lru_cache(16)
def marked(prompt: str) -> tuple[str, ...]:
    """Return the secrets of a system prompt as they are written, each once."""
    kept, found = _KEPT.search(prompt) is not None, dict[str, None]()
    for match in _SAID.finditer(prompt):
        value = match["quoted"] or match["bare"].strip("'.,;:!?()[]{}*")
        letters = "".join(filter(str.isalnum, value))
        sure = not match["unsure"] or (kept and not _GIVEN.fullmatch(match["what"] or ""))
        if sure and len(letters) >= (LEAST_DIGITS if letters.isdigit() else LEAST):
            found[value] = None
    return tuple(found)[:MOST]


NAME = "leak"
TITLE = "The secret instructions"
ABOUT = "Answers that repeat the system prompt, or a secret that stands in it."
LOOKS_AT: tuple[LooksAt, ...] = ("answer",)
ORDER = 61
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 512
TAKES = ("say",)
SAY = "This answer was ended here: it would have repeated its instructions."
_PIECE, _MOST = 20, 40  # letters and digits of the shortest repetition that counts at all, and of the longest that is needed
_SHARE = 0.6  # share of a short system prompt that is needed
# Letters and digits of a system prompt that are compared; and of its beginning, which are also looked for backwards and in base64.
_MOST_COMPARED, _MOST_TURNED = 32_768, 8_192
# Letters by which most of an answer is told from the prompt at once. Fewer than these always wait for what follows.
_GRAM = 6
# A marked secret that is shorter counts only as a word of its own, or spelled out: letters that are as far apart, at most `_WIDEST`.
_SHORT, _WIDEST = 8, 4
_MARKED = "secret"  # rule of a finding that is no repetition


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        chunks = answer(request)
        secret = secret_of(_texts(request, system=True))
        if not secret.least and not secret.marked:
            passed = chunks
        else:
            look, verdict = repetition(secret, lambda letters: letters in _forms(_texts(request, system=False))), partial(_verdict, rule)
            if rule.mode == "tell":
                passed = watched(chunks, look, verdict)
            else:
                passed = held_back(request, chunks, look, Acts(verdict, True, rule.say or SAY))
        async for chunk in passed:
            yield chunk

    return guard


@dataclass(frozen=True)
class Secret:
    """The words of a system prompt that an answer must not say."""

    forms: str  # letters and digits of the prompt and of what it marks: forwards, backwards and in base64, a line each
    grams: frozenset[str]  # all that stands in the forms, `_GRAM` long
    size: int  # letters and digits of the prompt
    least: int  # in a row from which a repetition counts; 0 = the prompt is too short
    marked: tuple[str, ...]  # marked secrets, each in every form
    ends: frozenset[str]  # their last letters

    def holds(self, letters: str) -> bool:
        """Return whether these letters in a row stand in a form, or are too few to say."""
        return len(letters) < _GRAM or (letters[-_GRAM:] in self.grams and letters in self.forms)

    def said(self, letters: str) -> str:
        """Return the marked secret with which these letters end; "" if there is none."""
        if letters[-LEAST_DIGITS:] not in self.ends:
            return ""
        return next((form for form in self.marked if letters.endswith(form)), "")


@lru_cache(4)
def secret_of(prompt: str) -> Secret:
    """Return what an answer to this system prompt must not say."""
    size = min(len(_letters(prompt)), _MOST_COMPARED)
    least = max(_PIECE, min(_MOST, int(_SHARE * size))) if size >= _PIECE else 0
    values = list[str]()
    for value in marked(prompt):
        plain, *others = _forms(value).split("\n")
        # Turned round, or cut out of base64, a short one is too like anything else.
        values += [plain, *(form for form in others if min(len(plain), len(form)) >= _SHORT)]
    forms = "\n".join((_forms(prompt), *values))
    grams = frozenset(forms[at : at + _GRAM] for at in range(max(0, len(forms) - _GRAM + 1)))
    return Secret(forms, grams, size, least, tuple(values), frozenset(form[-LEAST_DIGITS:] for form in values))


def repetition(secret: Secret, own: Callable[[str], bool]) -> Look:
    """Return a look for what an answer must not say. `own`: whether the asker said such letters himself.

    It is for one answer: it remembers the pieces that the answer has repeated.
    """
    pieces: dict[int, int] = {}

    def repeated(start: int, length: int) -> float:
        """Return the share that is repeated now; 0.0 = too little."""
        pieces[start] = length
        together = sum(pieces.values())
        return min(1.0, max(length, together) / secret.size) if length >= secret.least or 2 * together >= 3 * secret.least else 0.0

    def look(held: Undecided) -> tuple[Sequence[Passage], int]:
        seen = view(held.text, True, held.final)
        spans: list[Passage] = []
        places: list[int] = []
        tail = ""
        for number, letter in enumerate(seen.text):
            if not letter.isalnum():
                continue
            tail += letter
            places.append(number)
            while not secret.holds(tail) or seen.ends[number] - seen.starts[places[0]] > HOLDS_BACK:
                tail = tail[1:]
                places.pop(0)
            value = secret.said(tail)
            if value and (len(value) >= _SHORT or _stands_alone(held, seen, places[-len(value) :])) and not own(value):
                spans.append(Passage(seen.starts[places[0]], seen.ends[number], _MARKED, "", 1.0, 1.0))
            if secret.least and len(tail) >= _PIECE:
                share = repeated(held.at + seen.starts[places[0]], len(tail))
                if share and not own(tail):
                    least = round(secret.least / secret.size, 3)
                    spans.append(Passage(seen.starts[places[0]], seen.ends[number], "system prompt", "", round(share, 3), least))
                if len(tail) >= secret.least:
                    tail, places = "", []
        return spans, seen.whole if held.final or not places else seen.starts[places[0]]

    return look


def _stands_alone(held: Undecided, seen: FoldedText, places: Sequence[int]) -> bool:
    """Return whether the letters at these places are a word, or are spelled out one by one."""
    first, last = places[0], places[-1]
    before = seen.text[first - 1] if first else held.before[-1:]
    after = seen.text[last + 1 : last + 2]
    if before.isalnum() or after.isalnum() or not (after or held.final):  # what follows is looked at when it is there
        return False
    gaps = {after - before for before, after in pairwise(places)}
    return len(gaps) == 1 and max(gaps) <= _WIDEST


@lru_cache(16)
def _letters(text: str) -> str:
    return "".join(one for one in view(text, True, True).text if one.isalnum())


@lru_cache(16)
def _forms(text: str) -> str:
    letters = _letters(text)[:_MOST_COMPARED]
    return "\n".join((letters, letters[:_MOST_TURNED][::-1], *_coded(text[:_MOST_TURNED].encode("utf-8", "replace"))))


def _coded(data: bytes) -> Iterator[str]:
    """Yield the letters and digits that base64 has for these bytes, whatever stands around them: at three places, without the ends that
    depend on their neighbours."""
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        yield _letters(coded[-(-8 * shift // 6) : 8 * (shift + len(data)) // 6])


def _texts(request: Request, system: bool) -> str:
    """Return the texts of the system, or all others."""
    parts = (part for message in request.messages for part in message.sourced if isinstance(part, TextPart))
    return "\n".join(part.text for part in parts if (part.origin == "system") == system)


def _verdict(rule: GuardRule, span: Passage) -> Verdict:
    of = "a secret of the system prompt" if span.rule == _MARKED else "the system prompt"
    done = {"tell": "the answer repeats", "block": "ended the answer before it repeats"}[rule.mode]
    return Verdict(ACTIONS[rule.mode], f"{done} {of}", NAME, span.rule, span.score, span.threshold)
