"""Hears a stream of sound turn by turn. As far as the words are certain, they are known while somebody still speaks.

Every second the turn so far is heard. Words on which two hearings in a row agree are certain. A pause that may be the end is heard at
once: if it was the end, the words are there before the pause is long enough to say so.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import IngleError, RequestError
from ingle.core.media import Sound
from ingle.media.sound import TurnDetector, TurnSettings
from ingle.media.speech import Heard
from ingle.serve.hearing import HearingWish, listen
from ingle.serve.service import Service
from ingle.serve.speaking import RATE, sound_of

PARTIAL_S = 1.0  # seconds of new sound after which a turn is heard again
PARTIAL_MOST_S = 25.0  # length from which a turn is heard only when it pauses or ends
MOST_S = 300.0  # longest turn
_MOST_UNHEARD = 8  # hearings that may wait; each holds its turn's sound
_MARKS = ".,;:!?…"
_BEFORE_S = 6.0  # sound that is kept while nobody speaks: longer than any prefix


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Somebody begins to speak."""

    turn: str  # id of the turn
    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Somebody has ended."""

    turn: str
    at_s: float


@dataclass(frozen=True, slots=True)
class SaidSoFar:
    """Words that are certain, of a turn that goes on."""

    turn: str
    text: str


@dataclass(frozen=True, slots=True)
class HeardTurn:
    """A whole turn."""

    turn: str
    sound: Sound
    heard: Heard
    energy: Energy  # of all its hearings


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """A turn that could not be heard."""

    turn: str
    error: IngleError


TurnNews = SpeechBegan | SpeechEnded | SaidSoFar | HeardTurn | TurnFailed
Tell = Callable[[TurnNews], Awaitable[None]]


class Listener:
    """Hears one stream: 16-bit samples, RATE a second. With a detector, turns end by themselves; without one, by `commit`."""

    def __init__(
        self, service: Service, tell: Tell, settings: TurnSettings | None, asker: str, wish: HearingWish = HearingWish()  # noqa: B008
    ) -> None:  # fmt: skip
        self._service, self._tell, self._asker, self.wish = service, tell, asker, wish
        self._pieces: list[npt.NDArray[np.float32]] = []
        self._begins, self._length = 0, 0  # samples of the stream that were dropped, and that are here
        self._detector: TurnDetector | None = None
        self._turn: _Turn | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # hearings
        self.detect(settings)

    def detect(self, settings: TurnSettings | None) -> None:
        """Let turns end by themselves, or (None) no more."""
        self._detector = TurnDetector(RATE, settings) if settings else None
        self._heard_from = self._begins + self._length

    async def feed(self, data: bytes) -> None:
        """Take more of the stream; waits while too much of it is not heard yet. Raises RequestError if a turn gets too long."""
        while len(self._tasks) > _MOST_UNHEARD:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        samples = sound_of(data).samples
        self._pieces.append(samples)
        self._length += len(samples)
        if self._length > MOST_S * RATE:
            self.clear()
            raise RequestError("audio", f"must be committed after {MOST_S:.0f} s at the latest", "more")
        if self._detector is None:
            return
        for change in self._detector.feed(samples):
            at = self._heard_from + round(change.at_s * RATE)
            if change.kind == "began":
                self._drop_before(at)
                self._turn = _Turn(self._service, self._asker, self.wish, self._tell, self._tasks)
                await self._tell(SpeechBegan(self._turn.id, self._begins / RATE))
            elif self._turn is not None:
                self._turn.hear(self.sound(), at)
            if change.kind == "ended" and self._turn is not None:
                await self._tell(SpeechEnded(self._turn.id, at / RATE))
                self._turn.end(self.sound(), at)
                self._turn = None
                self._drop_before(self._begins + self._length)
        if self._turn is not None:
            self._turn.grow(self._length)
            if self._turn.due:
                self._turn.hear(self.sound(), None)
        elif not self._detector.speaking:
            self._drop_before(self._begins + self._length - round(_BEFORE_S * RATE))

    def sound(self) -> Sound:
        """Return what is here of the stream."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return Sound(self._pieces[0] if self._pieces else np.empty(0, np.float32), RATE)

    @property
    def speaking(self) -> bool:
        """Whether somebody speaks now."""
        return self._turn is not None

    def commit(self) -> str:
        """End the turn here; returns its id. Raises RequestError for less than a tenth of a second."""
        seconds = self._length / RATE
        if seconds < 0.1:
            raise RequestError("input_audio_buffer", "must hold 100 ms of sound at least", f"{seconds * 1000:.0f} ms")
        turn = self._turn or _Turn(self._service, self._asker, self.wish, self._tell, self._tasks)
        turn.end(self.sound(), None)
        self.clear()
        return turn.id

    def clear(self) -> None:
        """Forget what is here."""
        self._pieces, self._begins, self._length, self._turn = [], self._begins + self._length, 0, None
        self.detect(self._detector.settings if self._detector else None)

    def close(self) -> None:
        """Hear no more: nobody waits for it."""
        for task in self._tasks:
            task.cancel()

    def _drop_before(self, place: int) -> None:
        drop = min(self._length, max(0, place - self._begins))
        if drop:
            self._pieces = [self.sound().samples[drop:].copy()]
            self._begins, self._length = self._begins + drop, self._length - drop


class _Turn:
    """One turn: hears it again and again while it grows, one hearing at a time."""

    def __init__(self, service: Service, asker: str, wish: HearingWish, tell: Tell, tasks: "set[asyncio.Task[None]]") -> None:
        self._service, self._asker, self._wish, self._tell, self._tasks = service, asker, wish, tell, tasks
        self.id = f"item_{uuid.uuid4().hex[:24]}"
        self._length, self._heard_length = 0, 0
        self._task: asyncio.Task[None] | None = None
        self._last: tuple[int | None, Heard] | None = None  # the last hearing, and where the voice had ended by then; None = it had not
        self._words: list[str] = []
        self._certain = ""
        self._energy = NOTHING

    def grow(self, length: int) -> None:
        self._length = length

    @property
    def due(self) -> bool:
        """Whether it is worth hearing it again. A long turn is heard at its end: each hearing takes all of it."""
        new = self._length - self._heard_length >= PARTIAL_S * RATE
        return new and self._length <= PARTIAL_MOST_S * RATE and (self._task is None or self._task.done())

    def hear(self, sound: Sound, voice_end: int | None) -> None:
        """Hear it so far, behind what is being heard."""
        self._heard_length = len(sound.samples)
        self._begin(self._hear(self._task, sound, voice_end))

    def end(self, sound: Sound, voice_end: int | None) -> None:
        """Hear it whole, unless the last hearing had all of its voice."""
        self._begin(self._end(self._task, sound, voice_end))

    def _begin(self, hearing: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(hearing)
        self._tasks.add(self._task)
        self._task.add_done_callback(self._tasks.discard)

    async def _hear(self, before: "asyncio.Task[None] | None", sound: Sound, voice_end: int | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        if voice_end is not None and self._last is not None and self._last[0] == voice_end:
            return
        try:
            heard, energy = await listen(self._service, sound, self._wish, self._asker)
        except IngleError:
            return  # the whole turn will say it
        self._last, self._energy = (voice_end, heard), self._energy + energy
        words = heard.text.split()
        pairs = zip(self._words, words[:-1], strict=False)  # the last word may be half a word
        agreed = " ".join(one for one, other in takewhile(lambda pair: pair[0] == pair[1], pairs))
        agreed = agreed.rstrip(_MARKS)  # ears end whatever they hear with a full stop
        self._words = words
        if len(agreed) > len(self._certain):
            self._certain = agreed
            await self._tell(SaidSoFar(self.id, agreed))

    async def _end(self, before: "asyncio.Task[None] | None", sound: Sound, voice_end: int | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            if self._last is None or voice_end is None or self._last[0] != voice_end:
                heard, energy = await listen(self._service, sound, self._wish, self._asker)
                self._last, self._energy = (voice_end, heard), self._energy + energy
            await self._tell(HeardTurn(self.id, sound, self._last[1], self._energy))
        except IngleError as error:
            await self._tell(TurnFailed(self.id, error))
