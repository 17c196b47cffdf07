"""Holding back an answer as far as it may still turn into what must not leave, and no further.

A guard says what of a growing text is decided (`Look`). Undecided text waits here, together with the tokens and log-probabilities that
belong to it. What comes out does not depend on how the answer was cut into pieces.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from ingle.core.message import Chunk, MediaPart, Request, TokenLogprob, Verdict

_BEFORE = 64  # characters before the undecided ones that a look is shown


class Undecided(NamedTuple):
    before: str  # the characters right before it
    text: str
    at: int  # where it begins in the answer
    final: bool  # whether the answer ends with it


@dataclass(frozen=True, slots=True)
class Passage:
    start: int
    end: int
    rule: str
    instead: str = ""  # text to put in its place
    score: float | None = None
    threshold: float | None = None
    told: bool = True  # whether it is a finding, not only a replacement


# Returns the spans that are decided, in order and apart, and the number of characters that are decided; all spans end within these.
Look = Callable[[Undecided], tuple[Sequence[Passage], int]]


def both(looks: Sequence[Look]) -> Look:
    """Return the look that finds what any of these finds. Spans that overlap become one."""

    def look(held: Undecided) -> tuple[Sequence[Passage], int]:
        found: list[Passage] = []
        decided = len(held.text)
        for one in looks:
            spans, upto = one(held)
            found, decided = [*found, *spans], min(decided, upto)
        merged: list[Passage] = []
        for span in sorted(found, key=lambda span: span.start):
            if merged and span.start < merged[-1].end:
                merged[-1] = replace(merged[-1], end=max(merged[-1].end, span.end))
            else:
                merged.append(span)
        while merged and merged[-1].end > decided:
            decided = min(decided, merged.pop().start)
        return merged, decided

    return look if len(looks) > 1 else looks[0]


class Scan:
    """The text of one answer on its way past a look."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._before = self._held = ""
        self.at = 0  # characters that are decided

    def feed(self, text: str, final: bool) -> list[tuple[str, Passage | None]]:
        """Take more of the text. Returns the pieces that are decided by now, each with the span that it is, if it is one."""
        self._held += text
        spans, decided = self._look(Undecided(self._before, self._held, self.at, final))
        assert decided == len(self._held) or not final, "an answer that has ended is decided"
        pieces: list[tuple[str, Passage | None]] = []
        at = 0
        for span in spans:
            pieces += [(self._held[at : span.start], None)] if span.start > at else []
            pieces.append((self._held[span.start : span.end], span))
            at = span.end
        pieces += [(self._held[at:decided], None)] if decided > at else []
        self._before = (self._before + self._held[:decided])[-_BEFORE:]
        self._held, self.at = self._held[decided:], self.at + decided
        return pieces


class _Extras(NamedTuple):
    """All that comes with a piece of text, and where in the answer it may belong to."""

    start: int
    end: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    media: tuple[MediaPart, ...]


class Belongings:
    """Tokens, log-probabilities and media that wait for their text to be decided.

    A token's text comes with it or later: stop strings hold it back, and a character may take several tokens. Whatever may belong to a
    span goes with the span, and so do alternatives that spell one by themselves.
    """

    def __init__(self, request: Request, find: Callable[[str], bool]) -> None:
        """`find`: whether a text by itself holds a span."""
        self._late = max(map(len, request.stop), default=0) + 2
        self._find = cache(find)
        self._waiting: deque[_Extras] = deque()
        self._gone: deque[tuple[int, int]] = deque()
        self._read = 0
        self._tail = ""

    def take(self, chunk: Chunk) -> None:
        start, self._read = self._read, self._read + len(chunk.text)
        if chunk.tokens or chunk.logprobs or chunk.media:
            self._waiting.append(_Extras(start, self._read + self._late, chunk.tokens, chunk.logprobs, chunk.media))

    def remove(self, start: int, end: int) -> None:
        """Remove what may belong to these characters."""
        self._gone.append((start, end))

    def unsaid(self) -> bool:
        """Whether the log-probabilities that still wait spell a span, as behind a stop string that ended the answer: they then go."""
        spelled = self._tail + "".join(entry.text for extras in self._waiting for entry in extras.logprobs)
        if not self._waiting or not self._waiting[-1].logprobs or not self._find(spelled):
            return False
        self._waiting.clear()
        return True

    def release(self, decided: int, final: bool) -> tuple[tuple[int, ...], tuple[TokenLogprob, ...], tuple[MediaPart, ...]]:
        """Return what belongs to the first characters of the answer and has not been returned yet."""
        tokens: list[int] = []
        logprobs: list[TokenLogprob] = []
        media: list[MediaPart] = []
        while self._waiting and (final or self._waiting[0].end <= decided):
            extras = self._waiting.popleft()
            self._tail = (self._tail + "".join(entry.text for entry in extras.logprobs))[-_BEFORE:]
            if any(start < extras.end and extras.start < end for start, end in self._gone):
                continue
            tokens += extras.tokens
            logprobs += [self._harmless(entry) for entry in extras.logprobs]
            media += extras.media
        while self._gone and (not self._waiting or self._gone[0][1] <= self._waiting[0].start) and self._gone[0][1] + self._late < decided:
            self._gone.popleft()
        return tuple(tokens), tuple(logprobs), tuple(media)

    def _harmless(self, entry: TokenLogprob) -> TokenLogprob:
        if not entry.top:
            return entry
        top = tuple(one for one in entry.top if one[0] == entry.token or not self._find(one[1]))
        return entry if len(top) == len(entry.top) else replace(entry, top=top)


class Acts(NamedTuple):
    verdict: Callable[[Passage], Verdict]
    blocks: bool
    say: str  # words at the end of an answer that was ended


async def watched(chunks: AsyncIterator[Chunk], look: Look, verdict: Callable[[Passage], Verdict]) -> AsyncIterator[Chunk]:
    """Pass an answer on as it comes. Verdicts follow as soon as a finding is decided, one for each rule."""
    scan, said = Scan(look), set[str]()
    async for chunk in chunks:
        new = [verdict(span) for _, span in scan.feed(chunk.text, chunk.finish is not None) if span and _first(span, said)]
        yield replace(chunk, verdicts=chunk.verdicts + tuple(new)) if new else chunk


async def held_back(request: Request, chunks: AsyncIterator[Chunk], look: Look, acts: Acts) -> AsyncIterator[Chunk]:
    """Pass an answer on as far as it is decided, without its spans; or only up to the first of them, where the guard blocks."""
    scan, said = Scan(look), set[str]()
    belongings = Belongings(request, lambda text: any(span.told for span in look(Undecided("", text, 0, True))[0]))
    spoken = False
    async for chunk in chunks:
        final, at = chunk.finish is not None, scan.at
        belongings.take(chunk)
        text: list[str] = []
        verdicts = [*chunk.verdicts]
        for piece, span in scan.feed(chunk.text, final):
            if span is None:
                text.append(piece)
            else:
                belongings.remove(at, at + len(piece))
                verdicts += [acts.verdict(span)] if _first(span, said) else []
                if span.told and acts.blocks:
                    yield _ended(chunk, "".join(text), belongings, at, spoken, verdicts, acts)
                    return
                text.append(span.instead)
            at += len(piece)
        if final and belongings.unsaid() and acts.blocks:
            yield _ended(chunk, "".join(text), belongings, at, spoken, [*verdicts, acts.verdict(Passage(at, at, "unsaid"))], acts)
            return
        spoken = spoken or any(text)
        tokens, logprobs, media = belongings.release(at, final)
        passed = replace(chunk, text="".join(text), tokens=tokens, logprobs=logprobs, media=media, verdicts=tuple(verdicts))
        if final or passed != Chunk("") or chunk == Chunk(""):
            yield passed


def _first(span: Passage, said: set[str]) -> bool:
    """Return whether this is the first finding by its rule in an answer; from then on it isn't."""
    first = span.told and span.rule not in said
    said.add(span.rule)
    return first


def _ended(
    chunk: Chunk, text: str, belongings: Belongings, at: int, spoken: bool, verdicts: Sequence[Verdict], acts: Acts
) -> Chunk:  # fmt: skip
    """Return the last chunk of an answer that the guard ends: what is harmless before its finding, and the policy's words."""
    tokens, logprobs, media = belongings.release(at, False)
    say = acts.say and ("\n\n" if spoken or text else "") + acts.say
    return Chunk(text + say, tokens, logprobs, "blocked", chunk.usage, tuple(verdicts), media=media)
