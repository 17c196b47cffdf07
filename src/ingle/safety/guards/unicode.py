"""Guard: removes invisible characters that change how text is read, with a verdict that says which and where.

| characters | typed (users, tools, system, prompts) | said by the model (earlier turns, the answer) |
|---|---|---|
| lone surrogates: no valid Unicode | refused | refused in earlier turns; no tokenizer makes one |
| C0 and C1 controls but tab and line ends; DEL | removed; what ends a line or page becomes a newline | kept |
| tags U+E0000–E007F: whole instructions, invisible | removed | removed |
| overrides, embeddings, isolates U+202A–202E, U+2066–2069 | removed: such text reads otherwise than it is | removed |
| the byte-order mark U+FEFF; noncharacters | removed | kept |

The model's text is filtered alike in the answer and in later requests, as an earlier turn, so that both are equal. The terminal has its own
filter for controls.

Joiners, direction marks and variation selectors stay: Persian, Arabic and emoji are spelled with them. So do the tags of the three flags
(England, Scotland, Wales) that are written with tags.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import GuardRule, LooksAt, Mode
from ingle.safety.texts import Speaker, request_texts, with_texts

NAME = "unicode"
ABOUT = "Invisible characters that change how a text reads."
LOOKS_AT: tuple[LooksAt, ...] = ("question", "document", "answer")
ORDER = 20
MODES: tuple[Mode, ...] = ("edit", "block")
EDITS = True
HOLDS_BACK = 0

_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_OVERRIDES = "\u202a-\u202e\u2066-\u2069"
_TAGS = "\U000e0000-\U000e007f"
_HIGH_NONCHARACTERS = "".join(f"{chr(plane << 16 | 0xFFFE)}-{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
_SURROGATES = "\ud800-\udfff"
_TYPED_LOW = f"{_CONTROLS}{_OVERRIDES}\ufeff\ufdd0-\ufdef\ufffe\uffff"
_HIGH = "\U0001fffe-\U0010ffff"  # where tags and noncharacters are, and much else
_BLACK_FLAG = "\U0001f3f4"
_FLAGS = [_BLACK_FLAG + "".join(chr(0xE0000 + ord(c)) for c in region) + "\U000e007f" for region in ("gbeng", "gbsct", "gbwls")]
# Beginnings of these flags by length. They count as flags, because an answer comes in pieces.
_FLAG_STARTS = [sorted({flag[:length] for flag in _FLAGS}) for length in range(2, len(_FLAGS[0]) + 1)]
_NOT_OF_A_FLAG = "".join(f"(?<!{'|'.join(starts)})" for starts in _FLAG_STARTS)  # said behind a tag: no such beginning ends here
_MOST_NAMED = 6  # most code points, and places, in a verdict


@dataclass(frozen=True, slots=True)
class _Unseen:
    # Those below U+10000. They are apart from `high` because Python looks them up in one table, but walks through higher ranges one by one.
    low: re.Pattern[str]
    high: re.Pattern[str]
    ends: re.Pattern[str]  # those that become a newline, so that the last word of a page and the first of the next stay apart


_TYPED = _Unseen(
    re.compile(f"([{_TYPED_LOW}])"), re.compile(f"([{_TAGS}{_HIGH_NONCHARACTERS}]{_NOT_OF_A_FLAG})"), re.compile("[\v\f\x1c-\x1e\x85]")
)
_FROM_MODEL = _Unseen(re.compile(f"([{_OVERRIDES}])"), re.compile(f"([{_TAGS}]{_NOT_OF_A_FLAG})"), re.compile("(?!)"))
_ODD = re.compile(f"[{_TYPED_LOW}{_SURROGATES}{_HIGH}]")
_INVALID = re.compile(f"[{_SURROGATES}]")
_ANY_HIGH = re.compile(f"[{_HIGH}]")


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        request, verdicts = visible_request(request)
        if verdicts and rule.mode == "block":
            raise RequestError("messages", "must not contain invisible characters", _reason(verdicts[0]), "Take them out.")
        answer_filter = AnswerFilter()
        async for chunk in answer(request):
            text, removed = answer_filter.feed(chunk.text)
            if removed and rule.mode == "block":
                reason = _reason(_verdict([("answer", removed)]))
                yield Chunk("", finish="blocked", usage=chunk.usage, verdicts=(Verdict("block", reason, NAME),))
                return
            if removed:
                chunk, verdicts = replace(chunk, text=text), (*verdicts, _verdict([("answer", removed)]))
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return guard


def visible_request(request: Request) -> tuple[Request, tuple[Verdict, ...]]:
    """Return the request without such characters, and a verdict if it had any. Raises RequestError for invalid Unicode."""
    odd = [(place, text) for place, _speaker, text in request_texts(request) if _ODD.search(text)]
    unread = [(f"stop[{i}]", stop) for i, stop in enumerate(request.stop)]
    unread += [("response_format", request.constraint.source)] if request.constraint else []
    for place, text in odd + unread:
        _check_valid(text, place)
    if not odd:
        return request, ()
    removals: list[tuple[str, str]] = []

    def edit(text: str, speaker: Speaker, place: str) -> str:
        text, removed = _without(text, _FROM_MODEL if speaker == "assistant" else _TYPED)
        if removed:
            removals.append((place, removed))
        return text

    edited = with_texts(request, edit)
    return (edited, (_verdict(removals),)) if removals else (request, ())


class AnswerFilter:
    """Filters a model's answer piece by piece. Nothing is held back."""

    def __init__(self) -> None:
        self._flag = ""  # the flag at the end of the answer so far, which the next piece may continue

    def feed(self, text: str) -> tuple[str, str]:
        """Return the piece as it may be shown, and the characters that were removed from it."""
        begun = len(self._flag)
        whole = self._flag + text
        shown, removed = _without(whole, _FROM_MODEL)
        self._flag = _flag_at_end(whole) if begun or _BLACK_FLAG in text else ""
        return shown[begun:], removed


def _flag_at_end(text: str) -> str:
    start = text.rfind(_BLACK_FLAG)
    return text[start:] if start >= 0 and any(flag.startswith(text[start:]) for flag in _FLAGS) else ""


def _without(text: str, unseen: _Unseen) -> tuple[str, str]:
    high = ends = ""
    if _ANY_HIGH.search(text):
        text, high = _cut(text, unseen.high)  # the first, so that no tag moves up to a flag that it was not part of
    if unseen.ends.search(text):
        ends = "".join(unseen.ends.findall(text))
        text = unseen.ends.sub("\n", text)
    text, low = _cut(text, unseen.low)
    return text, high + ends + low


def _cut(text: str, unseen: re.Pattern[str]) -> tuple[str, str]:
    pieces = unseen.split(text)  # kept, removed, kept, removed, …, kept
    return "".join(pieces[::2]), "".join(pieces[1::2])


def _check_valid(text: str, place: str) -> None:
    invalid = _INVALID.search(text)
    if invalid:
        got = f"a lone surrogate, U+{ord(invalid[0]):04X}, at character {invalid.start()}"
        raise RequestError(place, "must be valid Unicode", got, "Decode your input as UTF-8.")


def _verdict(removals: list[tuple[str, str]]) -> Verdict:
    """Report removed characters and their places. Hidden tags are not spelled out: they are words, and a verdict goes into the ledger."""
    count = sum(len(removed) for _place, removed in removals)
    codes = map(ord, sorted(set("".join(removed for _place, removed in removals))))
    names = ["U+E0000–E007F" if 0xE0000 <= code <= 0xE007F else f"U+{code:04X}" for code in codes]
    places = _listed([place for place, _removed in removals])
    return Verdict("edit", f"removed {count} unseen character{'s' * (count > 1)} ({_listed(names)}) from {places}", NAME)


def _reason(removed: Verdict) -> str:
    """Return such a verdict's reason for a case in which nothing was removed."""
    return removed.reason.removeprefix("removed ")


def _listed(names: list[str]) -> str:
    distinct = list(dict.fromkeys(names))
    rest = len(distinct) - _MOST_NAMED
    return ", ".join(distinct[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
