"""Guard: personal data and secrets. Tells of them, masks them, or refuses the request.

To mask is to put `[E-MAIL 1]` in the place of a value, the same one wherever the value stands in a request, so that the model never reads
it. Where the answer speaks of `[E-MAIL 1]`, its reader gets the value back: also when a placeholder comes in pieces, and within the
arguments of a tool call. What the model says by itself becomes `[E-MAIL]`. Prompts of token ids are not read.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ingle.core.errors import ConfigError
from ingle.core.message import Chunk, Message, Part, Request, TextPart, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.holding import Acts, Look, Passage, Undecided, held_back, watched
from ingle.safety.middleware import Blocked, Guard, Next
from ingle.safety.pii_kinds import KINDS, LONGEST, Found, Kind, closed, find_pii
from ingle.safety.policy import ACTIONS, GuardRule, LooksAt, Mode
from ingle.safety.texts import message_texts

NAME = "pii"
TITLE = "Personal data"
ABOUT = "Addresses, phone numbers, card numbers, keys and the like, in questions and answers."
LOOKS_AT: tuple[LooksAt, ...] = ("question", "document", "answer")
ORDER = 45
MODES: tuple[Mode, ...] = ("off", "tell", "edit", "block")
EDITS = True
HOLDS_BACK = LONGEST + 2
TAKES = ("kinds", "say")
SAY = "This answer was ended here: it would have gone on with somebody's personal data."
_GAPS = re.compile(r"[ .\-/()]")
_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(kind.mask for kind in KINDS)}) ([0-9]{{1,6}})\]")


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    kinds = check(rule)

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        masking = Masking(request, kinds)
        verdict = masking.verdict(rule.mode)
        if verdict and rule.mode == "block":
            cure = "Take it out, or write a stand-in for it."
            raise Blocked(masking.place, "This house sends no personal data to its models", _counts(masking.counts), cure, verdict)
        asked = masking.masked(request) if rule.mode == "edit" else request
        chunks, look = answer(asked), masking.look(rule.mode == "edit")
        if rule.mode == "tell":
            passed = watched(chunks, look, partial(_said, rule.mode))
        else:
            acts = Acts(partial(_said, rule.mode), rule.mode == "block", rule.say or SAY)
            passed = held_back(asked, chunks, look, acts)
        async for chunk in passed:
            if verdict:
                chunk, verdict = replace(chunk, verdicts=(verdict, *chunk.verdicts)), None
            yield chunk

    return guard


def check(rule: GuardRule) -> tuple[Kind, ...]:
    """Return the kinds that a rule looks for. Raises ConfigError for kinds that there are not."""
    for name in rule.kinds:
        if name not in {kind.name for kind in KINDS}:
            raise ConfigError("kinds", "must be kinds of personal data", repr(name), f"Known: {', '.join(kind.name for kind in KINDS)}.")
    return tuple(kind for kind in KINDS if not rule.kinds or kind.name in rule.kinds)


@dataclass
class Masking:
    """The values of one request, and the placeholders that stand for them."""

    request: Request
    kinds: tuple[Kind, ...]
    place: str = ""  # where the first value stands
    counts: Counter[str] = field(default_factory=Counter)  # values by kind; one that comes twice counts once
    names: dict[str, str] = field(default_factory=dict)  # placeholders by value

    def __post_init__(self) -> None:
        texts = [(place, text) for place, speaker, text in message_texts(self.request) if speaker != "tools"]
        taken = {match.group() for _, text in texts for match in _PLACEHOLDER.finditer(text)}
        numbers: Counter[str] = Counter()
        for place, text in texts:
            for found in find_pii(text, self.kinds):
                value, mask = text[found.start : found.end], found.kind.mask
                self.place = self.place or place
                if value not in self.names:
                    self.counts[found.kind.name] += 1
                    numbers[mask] += 1
                    while f"[{mask} {numbers[mask]}]" in taken:
                        numbers[mask] += 1
                    self.names[value] = f"[{mask} {numbers[mask]}]"

    def verdict(self, mode: Mode) -> Verdict | None:
        """Return what there is to say of the request; None if it holds no value."""
        if not self.counts:
            return None
        done = {"tell": "the request holds", "edit": "masked in the request:", "block": "the request holds"}[mode]
        return Verdict(ACTIONS[mode], f"{done} {_counts(self.counts)}", NAME, ", ".join(self.counts))

    def masked(self, request: Request) -> Request:
        """Return the request with placeholders for its values; itself if it has none."""
        if not self.names:
            return request
        prompt = self._masked(request.prompt) if isinstance(request.prompt, str) else request.prompt
        return replace(request, prompt=prompt, messages=tuple(map(self._message, request.messages)))

    def look(self, unmask: bool) -> Look:
        """Return a look for values that are not of this request, and with `unmask` for its placeholders."""
        own = {_bare(value) for value in self.names}
        values = {name: value for value, name in self.names.items()} if unmask else {}

        def look(held: Undecided) -> tuple[Sequence[Passage], int]:
            upto = closed(held.text, held.final)
            if not upto:
                return (), 0
            skipped, text = len(held.before), held.before + held.text[:upto]
            spans = [
                Passage(found.start - skipped, found.end - skipped, found.kind.name, f"[{found.kind.mask}]")
                for found in find_pii(text, self.kinds, skipped)
                if _bare(text[found.start : found.end]) not in own
            ]
            spans += [
                Passage(match.start() - skipped, match.end() - skipped, "", values[match.group()], told=False)
                for match in (_PLACEHOLDER.finditer(text, skipped) if values else ())
                if match.group() in values
            ]
            return sorted(spans, key=lambda span: span.start), upto

        return look

    def _message(self, message: Message) -> Message:
        """Mask a message. A value may begin in one part and end in another: its placeholder then stands in the first."""
        calls = tuple(replace(call, arguments=self._masked(call.arguments)) for call in message.tool_calls)
        found = find_pii(message.text, self.kinds)
        if not found:
            return replace(message, tool_calls=calls)
        parts: list[Part] = []
        at = 0
        for part in message.parts:
            if isinstance(part, TextPart):
                begin, at = at, at + len(part.text)
                parts.append(replace(part, text=self._piece(message.text, found, begin, at)))
            else:
                parts.append(part)
        return replace(message, parts=tuple(parts), tool_calls=calls)

    def _masked(self, text: str) -> str:
        return self._piece(text, find_pii(text, self.kinds), 0, len(text))

    def _piece(self, text: str, found: Sequence[Found], begin: int, end: int) -> str:
        pieces, at = [], begin
        for one in found:
            if one.end > begin and one.start < end:
                pieces.append(text[at : max(at, one.start)])
                pieces.append(self.names.get(text[one.start : one.end], f"[{one.kind.mask}]") if one.start >= begin else "")
                at = min(one.end, end)
        return "".join([*pieces, text[at:end]])


def _said(mode: Mode, span: Passage) -> Verdict:
    done = {"tell": "the model says", "edit": "masked in the answer:", "block": "ended the answer before"}[mode]
    return Verdict(ACTIONS[mode], f"{done} personal data that the request does not hold, of the kind {span.rule}", NAME, span.rule)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of the kind {name}" for name, count in counts.items())


def _bare(value: str) -> str:
    return _GAPS.sub("", value).casefold()
