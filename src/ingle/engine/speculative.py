"""Drafts: what the next tokens could be, read in one step with the last one, and dropped from the first that does not come true.

A step reads the weights once, however many rows it has, so a few rows more cost little. A draft is what followed the last time that the
same words stood there, in the prompt or in the answer so far (prompt lookup; speculative decoding without a second model, arXiv
2211.17192). It changes speed and nothing else: each position is drawn from its own logits with its own random number, as without drafts,
since this engine's logits are the same to the last bit however a sequence is cut. The draft only says how far that can be done at once.

Whether it pays is measured, not assumed: what rows cost (`StepTimer`), and how often such guesses come true (`AcceptanceRate`). That is
known of every token that is written, drafted or not, as a guess can be compared with it for nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

MOST_TOKENS = 16
"""Of one draft: rings have room for so many beyond what they promise to go back; see core/state.py."""
_CANDIDATES = 16
"""Earlier places that are looked at for one draft."""
_SHORTEST, _LONGEST = 2, 16
"""Tokens that must match, and as many as are counted."""
_APART = (2, 3, 4, 5, 7, 10, 15)
"""Matched tokens from which the odds are kept apart."""
_FIRST_ODDS = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.8)
"""What they are taken for before anything was seen."""
_FIRST_COST = 0.2
"""What a row more costs before it is measured, as a share of a step."""
_KNOWN = 2
"""Steps without a draft from which one knows what such a step takes."""
_STALE = 32
"""Steps with drafts after which one without is taken again, to measure it."""
_HEED, _MOST_OFF = 0.1, 0.7
"""How much one measurement counts, and the logarithm of the most that it may be off."""
_LEAST_COST = 0.02
"""What a row more costs at the least, as a share of a step."""
_MARGIN = 1.03
"""By how much a draft must promise to be faster: estimates err."""


class Lookup:
    """Where the last words of a text stood before: chains of equal pairs of tokens, as LZ77 compressors keep them."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}
        """Where a pair ended the last time."""
        self._before: list[int] = [-1]
        """By place: where the pair that ends there ended the time before; −1 = nowhere."""

    def find(self, ids: Sequence[int]) -> tuple[int, int]:
        """Where what followed begins, and how many tokens before it match; (0, 0) if too few do.

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
    """How many tokens that end at `place` are those at the end; a pair is known to be."""
    most, length = min(place + 1, _LONGEST), _SHORTEST
    while length < most and ids[place - length] == ids[-1 - length]:
        length += 1
    return length


def copied(ids: Sequence[int], start: int, tokens: int) -> list[int]:
    """What followed, from `start` on; where that comes to the end, it goes round, as what repeats itself does."""
    period = len(ids) - start
    return [ids[start + at % period] for at in range(tokens)]


class AcceptanceRate:
    """How often a guess came true, by how many tokens before it matched; lately more than long ago."""

    def __init__(self, keep: float, general: "AcceptanceRate | None" = None, weight: float = 4.0) -> None:
        """keep: what one more observation leaves of those before. `general`: what is believed as much as `weight` observations."""
        self._keep, self._general, self._weight = keep, general, weight
        self._seen = [[0.0, 0.0] for _ in _APART]

    def chance(self, matched: int) -> float:
        """That the next token is the guessed one."""
        at = _place(matched)
        true, seen = self._seen[at]
        first = _FIRST_ODDS[at] if self._general is None else self._general.chance(matched)
        return (true + self._weight * first) / (seen + self._weight)

    def saw(self, matched: int, came_true: bool) -> None:
        """One more."""
        of = self._seen[_place(matched)]
        of[0], of[1] = self._keep * of[0] + came_true, self._keep * of[1] + 1
        if self._general is not None:
            self._general.saw(matched, came_true)


def _place(matched: int) -> int:
    return next((at for at in range(len(_APART) - 1, 0, -1) if matched >= _APART[at]), 0)


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """Who is in a step beside a draft."""

    writers: int = 1
    """Answers that are being written."""
    reading: int = 0
    """Tokens of prompts that are read."""


ALONE = BatchLoad()


@dataclass
class _Plain:
    """A step without drafts."""

    seconds: float = 0.0
    seen: int = 0
    since: int = 0
    """Steps with drafts since the last one."""


@dataclass
class StepTimer:
    """What the steps of one backend take, as measured, and how often guesses come true there. Not for several threads at once."""

    odds: AcceptanceRate = field(default_factory=lambda: AcceptanceRate(0.995, weight=20.0))
    _plain: dict[int, _Plain] = field(default_factory=dict)
    """By the number of answers."""
    _row_s: float | None = None
    """What a row more takes."""

    def saw(self, company: BatchLoad, rows: int, seconds: float) -> None:
        """One more step: `rows` more than one for each writer."""
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
        """How many of the guessed tokens to draft, for the most tokens per second. `chances`: of each, if those before it came true.

        `again`: tokens that came true are read again if one after them does not.
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
    """What the steps of each runner take; of none, where nobody is to draft."""

    def __init__(self, drafts: bool) -> None:
        self._drafts = drafts
        self._known: WeakKeyDictionary[object, StepTimer] = WeakKeyDictionary()

    def of(self, runner: object) -> StepTimer | None:
        """The pace of a runner, as long as that lives."""
        return self._known.setdefault(runner, StepTimer()) if self._drafts else None


def _nudge(seconds: float, expected: float) -> float:
    """By what to multiply what was expected, now that it took so long.

    In logarithms: what else a machine does makes all steps longer by a factor, and that must not look like a cost of rows. A step that was
    held up for long counts no more than one that took twice as long.
    """
    return math.exp(_HEED * max(-_MOST_OFF, min(_MOST_OFF, math.log(max(seconds, 1e-9) / expected))))


class Drafter:
    """The drafts of one answer."""

    def __init__(self, pace: StepTimer, again: bool) -> None:
        """again: whether the state can't go back within a draft; see `StepTimer.worth`."""
        self._pace, self._again = pace, again
        self._lookup, self._odds = Lookup(), AcceptanceRate(0.9, pace.odds)
        self._guess: list[int] = []
        self._matched = self._tokens = 0
        self.drafted = self.accepted = 0
        """Tokens so far."""

    def draft(self, ids: Sequence[int], most: int, company: BatchLoad) -> list[int]:
        """Up to `most` tokens that may follow `ids`."""
        start, self._matched = self._lookup.find(ids)
        self._guess = copied(ids, start, min(most, MOST_TOKENS)) if self._matched else []
        chances = [self._odds.chance(self._matched + at) for at in range(len(self._guess))]
        tokens = self._pace.worth(company, chances, self._again)
        self.drafted, self._tokens = self.drafted + tokens, tokens
        return self._guess[:tokens]

    def took(self, tokens: Sequence[int]) -> None:
        """What was written in the step of the last draft: what came true of it, and mostly one more."""
        for at, (guess, token) in enumerate(zip(self._guess, tokens, strict=False)):
            self._odds.saw(self._matched + at, guess == token)
            self.accepted += at < self._tokens and guess == token
