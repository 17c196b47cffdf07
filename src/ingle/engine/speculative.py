"""Speculative decoding by prompt lookup: guess the next tokens, read them in one step, and drop them from the first wrong one.

A step reads the weights once, however many rows it has, so a few more rows cost little. A draft copies what followed the same words earlier
in the prompt or answer (speculative decoding without a second model, arXiv 2211.17192). It changes only the speed. Each position is drawn
from its own logits with its own random number, and these logits are equal to the last bit however a sequence is cut.

The gain is measured, not assumed: the cost of rows (`StepTimer`), and how often guesses are right (`AcceptanceRate`). Every written token
is compared with the guess, drafted or not, which costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

MOST_TOKENS = 16  # most tokens of a draft: the spare room in rings; see core/state.py
_CANDIDATES = 16  # earlier places compared for one draft
_SHORTEST, _LONGEST = 2, 16  # tokens that must match, and the most that are counted
_APART = (2, 3, 4, 5, 7, 10, 15)  # match lengths from which acceptance is counted separately
_FIRST_ODDS = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.8)  # acceptance rates assumed at the beginning, by match length
_FIRST_COST = 0.2  # cost of one more row before it is measured, as a share of a step
_KNOWN = 2  # steps without a draft after which their time is known
_STALE = 32  # steps with drafts after which one without is measured again
_HEED, _MOST_OFF = 0.1, 0.7  # weight of one measurement, and the most that its logarithm may be off
_LEAST_COST = 0.02  # least cost of one more row, as a share of a step
_MARGIN = 1.03  # factor by which a draft must promise to be faster, because estimates err


class Lookup:
    """Finds earlier occurrences of the last tokens: chains of equal token pairs, as in LZ77 compressors."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}  # last place at which a pair ended
        self._before: list[int] = [-1]  # by place: the previous place of the pair that ends there; −1 = none

    def find(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return the place after the best match, and the match's length; (0, 0) if it is too short.

        `ids` begin with those of the call before.
        """
        for end in range(len(self._before), len(ids) - 1):
            pair = ids[end - 1], ids[end]
            self._before.append(self._last.get(pair, -1))
            self._last[pair] = end
        if len(ids) < _SHORTEST:
            return 0, 0
        place, best, longest = self._last.get((ids[-2], ids[-1]), -1), 0, 0
        for _ in range(_CANDIDATES):
            if place < 0 or longest == _LONGEST:
                break
            length = _matched(ids, place)
            if length > longest:
                best, longest = place + 1, length
            place = self._before[place]
        return best, longest


def _matched(ids: Sequence[int], place: int) -> int:
    """Return how many tokens that end at `place` equal the last ones; a pair is known to match."""
    most, length = min(place + 1, _LONGEST), _SHORTEST
    while length < most and ids[place - length] == ids[-1 - length]:
        length += 1
    return length


def copied(ids: Sequence[int], start: int, tokens: int) -> list[int]:
    """Return `tokens` tokens from `start` on, repeating from there at the end."""
    period = len(ids) - start
    return [ids[start + at % period] for at in range(tokens)]


class AcceptanceRate:
    """How often a guess was right, by match length; recent guesses count more."""

    def __init__(self, keep: float, general: "AcceptanceRate | None" = None, weight: float = 4.0) -> None:
        """keep: factor by which older observations fade with each new one. `general`: a prior worth `weight` observations."""
        self._keep, self._general, self._weight = keep, general, weight
        self._seen = [[0.0, 0.0] for _ in _APART]

    def chance(self, matched: int) -> float:
        """Return the probability that the guess after such a match is right."""
        bucket = _place(matched)
        true, seen = self._seen[bucket]
        first = _FIRST_ODDS[bucket] if self._general is None else self._general.chance(matched)
        return (true + self._weight * first) / (seen + self._weight)

    def saw(self, matched: int, came_true: bool) -> None:
        """Record one guess."""
        of = self._seen[_place(matched)]
        of[0], of[1] = self._keep * of[0] + came_true, self._keep * of[1] + 1
        if self._general is not None:
            self._general.saw(matched, came_true)


def _place(matched: int) -> int:
    return next((at for at in range(len(_APART) - 1, 0, -1) if matched >= _APART[at]), 0)


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """The other work in a step beside a draft."""

    writers: int = 1  # answers in progress
    reading: int = 0  # prompt tokens read in the step


ALONE = BatchLoad()


@dataclass
class _Plain:
    """Measurements of steps without drafts."""

    seconds: float = 0.0
    seen: int = 0
    since: int = 0  # steps with drafts since the last one


@dataclass
class StepTimer:
    """Measured step times of one backend, and its acceptance rates. Not thread-safe."""

    odds: AcceptanceRate = field(default_factory=lambda: AcceptanceRate(0.995, weight=20.0))
    _plain: dict[int, _Plain] = field(default_factory=dict)  # by the number of writers
    _row_s: float | None = None  # seconds for one more row

    def saw(self, company: BatchLoad, rows: int, seconds: float) -> None:
        """Record a step with `rows` more rows than one for each writer."""
        if company.reading:
            return
        plain = self._plain.setdefault(company.writers, _Plain())
        if rows == 0:
            first = plain.seen < _KNOWN
            plain.seconds = min(seconds, plain.seconds or seconds) if first else plain.seconds * _nudge(seconds, plain.seconds)
            plain.seen, plain.since = plain.seen + 1, 0
            if self._row_s is not None:  # what was measured badly may be forgotten, or nobody would measure again
                self._row_s += 0.01 * min(0.0, _FIRST_COST * plain.seconds - self._row_s)
        elif plain.seen >= _KNOWN:
            plain.since += 1
            row = self._row(plain)
            expected = plain.seconds + row * rows
            self._row_s = max(row + expected * (_nudge(seconds, expected) - 1) / rows, _LEAST_COST * plain.seconds)

    def worth(self, company: BatchLoad, chances: Sequence[float], again: bool = False) -> int:
        """Return how many guessed tokens to draft for the most tokens per second. `chances`: of each, if those before it were right.

        `again`: right tokens are read again if a later one is wrong.
        """
        plain = self._plain.get(company.writers)
        if not chances or plain is None or plain.seen < _KNOWN or plain.since >= _STALE:
            return 0
        row = self._row(plain)
        alone = plain.seconds + row * company.reading
        best, most = 0, _MARGIN * company.writers / alone
        chance, gained, repeated = 1.0, 0.0, 0.0
        for tokens, one in enumerate(chances, 1):
            repeated += chance
            chance *= one
            gained += chance
            rows = tokens + (repeated - tokens * chance if again else 0.0)
            rate = (company.writers + gained) / (alone + row * rows)
            if rate > most:
                best, most = tokens, rate
        return best

    def _row(self, plain: _Plain) -> float:
        return self._row_s or _FIRST_COST * plain.seconds


class StepTimers:
    """The step timer of each runner; none where drafts are off."""

    def __init__(self, drafts: bool) -> None:
        self._drafts = drafts
        self._known: WeakKeyDictionary[object, StepTimer] = WeakKeyDictionary()

    def of(self, runner: object) -> StepTimer | None:
        """Return the timer of a runner, for as long as the runner lives."""
        return self._known.setdefault(runner, StepTimer()) if self._drafts else None


def _nudge(seconds: float, expected: float) -> float:
    """Return the factor by which to correct `expected` after a step took `seconds`.

    It works in logarithms: other programs make all steps longer by a factor, which must not look like a cost of rows. A step that was held
    up counts at most as one that took twice as long.
    """
    return math.exp(_HEED * max(-_MOST_OFF, min(_MOST_OFF, math.log(max(seconds, 1e-9) / expected))))


class Drafter:
    """Makes the drafts of one answer."""

    def __init__(self, pace: StepTimer, again: bool) -> None:
        """again: whether the state can't go back within a draft; see `StepTimer.worth`."""
        self._pace, self._again = pace, again
        self._lookup, self._odds = Lookup(), AcceptanceRate(0.9, pace.odds)
        self._guess: list[int] = []
        self._matched = self._tokens = 0
        self.drafted = self.accepted = 0  # tokens so far

    def draft(self, ids: Sequence[int], most: int, company: BatchLoad) -> list[int]:
        """Return up to `most` tokens that may follow `ids`."""
        start, self._matched = self._lookup.find(ids)
        self._guess = copied(ids, start, min(most, MOST_TOKENS)) if self._matched else []
        chances = [self._odds.chance(self._matched + at) for at in range(len(self._guess))]
        tokens = self._pace.worth(company, chances, self._again)
        self.drafted, self._tokens = self.drafted + tokens, tokens
        return self._guess[:tokens]

    def took(self, tokens: Sequence[int]) -> None:
        """Record the tokens written in the step of the last draft: its right ones, and mostly one more."""
        for at, (guess, token) in enumerate(zip(self._guess, tokens, strict=False)):
            self._odds.saw(self._matched + at, guess == token)
            self.accepted += at < self._tokens and guess == token
