"""Guard: an answer that repeats the system prompt.

Letters and digits are compared, case-folded, without anything between them: other separators, line breaks and capitals change nothing. A
repetition counts from `_least` characters in a row, or half as many again in pieces of `_PIECE`. Whoever asks may hear his own words again.

What can't leak this way needs no guard: an answer is given the asker's own memories only (adapt/choosing.py), never another's, so its
parts of origin "memory" are the asker's to read. A system prompt that is translated, encoded or told in other words is not found.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache, partial

from ingle.core.message import Chunk, Request, TextPart, Verdict
from ingle.safety.folding import view
from ingle.safety.holding import Acts, Look, Passage, Undecided, held_back, watched
from ingle.safety.limits import RequestLimits
from ingle.safety.middleware import Guard, Next
from ingle.safety.policy import ACTIONS, GuardRule, Mode

NAME = "leak"
ORDER = 61
MODES: tuple[Mode, ...] = ("tell", "off", "block")
EDITS = False
HOLDS_BACK = 512
TAKES = ("say",)
SAY = "This answer was ended here: it would have repeated its instructions."
_PIECE, _MOST = 20, 40
"""Letters and digits of the shortest repetition that counts at all, and of the longest that is needed."""
_SHARE = 0.6
"""Share of a short system prompt that is needed."""
_MOST_COMPARED = 32_768
"""Letters and digits of a system prompt that are compared."""


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    """Return the guard; it needs no limits."""

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        chunks = answer(request)
        secret = _letters(_texts(request, system=True))[:_MOST_COMPARED]
        if len(secret) < _PIECE:
            passed = chunks
        else:
            look, verdict = repetition(secret, lambda letters: letters in _letters(_texts(request, system=False))), partial(_verdict, rule)
            if rule.mode == "tell":
                passed = watched(chunks, look, verdict)
            else:
                passed = held_back(request, chunks, look, Acts(verdict, True, rule.say or SAY))
        async for chunk in passed:
            yield chunk

    return guard


def _least(secret: str) -> int:
    """Return the letters and digits in a row from which a repetition counts."""
    return max(_PIECE, min(_MOST, int(_SHARE * len(secret))))


def repetition(secret: str, own: Callable[[str], bool]) -> Look:
    """Return a look for repetitions of these letters. `own`: whether the asker said such letters himself.

    It is for one answer: it remembers the pieces that the answer has repeated.
    """
    least = _least(secret)
    pieces: dict[int, int] = {}

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
            while tail and (tail not in secret or seen.ends[number] - seen.starts[places[0]] > HOLDS_BACK):
                tail = tail[1:]
                places.pop(0)
            if len(tail) >= _PIECE:
                pieces[held.at + seen.starts[places[0]]] = len(tail)
                together = sum(pieces.values())
                if (len(tail) >= least or 2 * together >= 3 * least) and not own(tail):
                    score = round(min(1.0, max(len(tail), together) / len(secret)), 3)
                    spans.append(
                        Passage(seen.starts[places[0]], seen.ends[number], "system prompt", "", score, round(least / len(secret), 3))
                    )
                if len(tail) >= least:
                    tail, places = "", []
        return spans, seen.whole if held.final or not places else seen.starts[places[0]]

    return look


@lru_cache(16)
def _letters(text: str) -> str:
    return "".join(one for one in view(text, True, True).text if one.isalnum())


def _texts(request: Request, system: bool) -> str:
    """Return the texts of the system, or all others."""
    parts = (part for message in request.messages for part in message.sourced if isinstance(part, TextPart))
    return "\n".join(part.text for part in parts if (part.origin == "system") == system)


def _verdict(rule: GuardRule, span: Passage) -> Verdict:
    done = {"tell": "the answer repeats", "block": "ended the answer before it repeats"}[rule.mode]
    return Verdict(ACTIONS[rule.mode], f"{done} the system prompt", NAME, span.rule, span.score, span.threshold)
