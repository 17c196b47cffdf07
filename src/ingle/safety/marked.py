"""Secrets that a system prompt marks as such: what it says behind a word like *password*, where that is spelled like no word.

An ordinary word counts only in quotation marks: "the key is simple" names no key. Where the marking word has other uses (*code*, *key*),
the prompt must also say that something is not to be told, and what customers are given (a discount code, a postcode) is none.
"""

import re
from functools import lru_cache

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
_MARKED = re.compile(
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
    for match in _MARKED.finditer(prompt):
        value = match["quoted"] or match["bare"].strip("'.,;:!?()[]{}*")
        letters = "".join(filter(str.isalnum, value))
        sure = not match["unsure"] or (kept and not _GIVEN.fullmatch(match["what"] or ""))
        if sure and len(letters) >= (LEAST_DIGITS if letters.isdigit() else LEAST):
            found[value] = None
    return tuple(found)[:MOST]
