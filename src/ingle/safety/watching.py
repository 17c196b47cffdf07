"""Watching an answer while it is written: at the ends of sentences, and not more often than every so many characters, somebody is asked.

Where the guard blocks, nothing leaves that was not judged; where it tells, nothing waits.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.holding import Acts, Passage, Undecided, held_back
from ingle.safety.middleware import with_verdicts
from ingle.safety.score_rules import sentence_end

EVERY = 200  # characters that come between two questions at least; the end of an answer is asked about in any case
# A finding in the answer so far, if there is one (its place is filled in here), and what else is to be told.
Judged = tuple[Passage | None, Sequence[Verdict]]
JudgeAnswer = Callable[[str], Awaitable[Judged]]  # (the answer so far) → what is to be said of it


class Watch:
    """The text of one answer, and how far it was judged."""

    def __init__(self, judge: JudgeAnswer) -> None:
        self._judge = judge
        self.text = ""
        self.judged = 0  # characters that were judged, or let pass because nobody could
        self.found: list[Passage] = []
        self._ended = 0

    async def take(self, chunk: Chunk) -> Sequence[Verdict]:
        """Take a piece of the answer, ask if it is time, and return what is to be told beside what was found."""
        self.text += chunk.text
        final = chunk.finish is not None
        while (end := sentence_end(self.text, self._ended, final)) > self._ended:
            self._ended = end
        if self._ended - self.judged < (1 if final else EVERY):
            return ()
        passage, told = await self._judge(self.text[: self._ended])
        if passage is not None:
            self.found.append(replace(passage, start=self.judged, end=self._ended))
        self.judged = self._ended
        return told

    def look(self, held: Undecided) -> tuple[Sequence[Passage], int]:
        """Say how much of the held text is decided (`holding.Look`); of any other text than this answer's end, all."""
        if held.text != self.text[held.at :]:
            return (), len(held.text)
        here = [one for one in self.found if one.start >= held.at]
        return [replace(one, start=one.start - held.at, end=one.end - held.at) for one in here], self.judged - held.at


async def watched_answer(request: Request, chunks: AsyncIterator[Chunk], judge: JudgeAnswer, acts: Acts) -> AsyncIterator[Chunk]:
    """Pass an answer on, watched. Where `acts.blocks`, only as far as it was judged, and it ends before what was found."""
    watch = Watch(judge)
    if not acts.blocks:
        async for chunk in _told(chunks, watch, acts):
            yield chunk
        return

    async def asked() -> AsyncIterator[Chunk]:
        async for chunk in chunks:
            yield with_verdicts(chunk, *(await watch.take(chunk)))

    async with aclosing(asked()) as passed:  # type: ignore[type-var] # it is a generator
        async for chunk in held_back(request, passed, watch.look, acts):
            yield chunk


async def _told(chunks: AsyncIterator[Chunk], watch: Watch, acts: Acts) -> AsyncIterator[Chunk]:
    """Pass an answer on as it comes; what is said of a piece comes with the next, or with the last. A verdict that blocks ends it here."""
    waiting: list[Verdict] = []
    async for chunk in chunks:
        final = chunk.finish is not None
        if not final:
            yield with_verdicts(chunk, *waiting)
            waiting = []
        seen = len(watch.found)
        waiting += await watch.take(chunk)
        new = [acts.verdict(one) for one in watch.found[seen:] if one.rule not in {before.rule for before in watch.found[:seen]}]
        waiting += new
        if any(verdict.action == "block" for verdict in new):
            last = chunk if final else Chunk("")
            yield with_verdicts(replace(last, text=f"{last.text}\n\n{acts.say}", finish="blocked"), *waiting)
            return
        if final:
            yield with_verdicts(chunk, *waiting)
