"""How sure an answer is: what it might have said instead, token by token, and how often it is right about questions like this.

A model's confidence is not knowledge. So its probabilities are never shown as odds by themselves: odds come from questions with known
answers that were asked of this very model (explain/calibrate.py), or there are none.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ingle.core.message import Request, Sampling
from ingle.engine.places import AnswerPlace
from ingle.explain.cause import AnswerSpan, OtherToken, OutOfTime, Reader, Said, Sure, SureSignals, SureToken, Why
from ingle.explain.effects import Falls
from ingle.explain.names import names_of
from ingle.explain.odds import Calibration, QuestionKind
from ingle.explain.sentences import sentences_of
from ingle.explain.words import say_sure, unlooked

TAUGHT = ("memory", "lesson")
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_SHOWN = 0.01
"""Other tokens that are less likely are not shown."""
_DIGITS = 4
_SAME = 0.5
"""Two answers say the same if they share more than this of their telling words."""


def with_sure(reader: Reader, said: Said, why: Why, calibration: Calibration | None, samples: int = 0) -> Why:
    """Return the explanation with how sure the answer is; without it, and not complete, if the time is over before.

    `why`: with the sentences looked at. `calibration`: of this model, None = not measured. `samples`: answers that are drawn beside it and
    compared.
    """
    try:
        places = reader.places(said.model, said.model.encode(said.request), said.tokens)
        signals = signals_of(places, _explained(reader, said, why, sum(place.nats for place in places)))
        if samples:
            signals = replace(signals, agreement=agreement(reader, said, samples))
    except OutOfTime:
        late = (*why.not_looked_at, "how sure it is")
        says = tuple(one for one in why.says if why.complete or one != unlooked(why.not_looked_at))
        return replace(why, complete=False, not_looked_at=late, says=(*says, unlooked(late)))
    kind = kind_of(said.request, why)
    missing = _missing(said, kind, signals, calibration)
    odds = None if missing or kind is None or calibration is None else calibration.odds(kind, signals)
    tokens = _tokens(said, places)
    says = say_sure(tokens, signals, kind or "", odds, missing, said.model.name, samples)
    return replace(why, sure=Sure(tokens, signals, kind or "", odds, says), says=(*why.says, *says))


def signals_of(places: Sequence[AnswerPlace], explained: float) -> SureSignals:
    """Return what the places of an answer say about how sure it is."""
    nats = np.array([place.nats for place in places])
    return SureSignals(float(nats.mean()), float(nats.min()), max(map(_entropy, places)), explained, len(places))


def kind_of(request: Request, why: Why) -> QuestionKind | None:
    """Return the kind of question, as far as it can be told without knowing the right answer; None if nothing is asked."""
    sentences = sentences_of(request)
    if not any("?" in one.text for one in sentences if one.asks):
        return None
    if any(one.cause.kind in TAUGHT for one in why.causes):
        return "taught"
    if why.elsewhere is not None:
        return "elsewhere"
    if all(one.asks for one in sentences):
        return "bare"
    return "yes_no" if _YES_NO.match(why.answer) else "text"


def agreement(reader: Reader, said: Said, count: int) -> float:
    """Return the share of drawn answers that say the same as this one. Raises OutOfTime."""
    drawn = [replace(said.request, sampling=Sampling(temperature=1.0, seed=seed)) for seed in range(count)]
    answers = reader.write([(said.model, request) for request in drawn])
    return sum(says_the_same(said.text, answer) for answer in answers) / count


def says_the_same(one: str, other: str) -> bool:
    """Return whether two answers share most of their telling words: names and numbers, or all words where there are none."""
    first, second = _telling(one), _telling(other)
    return len(first & second) > _SAME * len(first | second) if first or second else one.strip() == other.strip()


def _telling(text: str) -> set[str]:
    names = " ".join(names_of(text))
    return set(_WORD.findall((names or text).casefold()))


def _explained(reader: Reader, said: Said, why: Why, nats: float) -> float:
    """Return the share of the answer's nats that goes away with what it was given: what was taught, or else the prompt's sentences."""
    taught = [sum(one.nats_by_token) for one in why.causes if one.cause.kind in TAUGHT]
    if taught:
        fall = max(taught)
    else:
        falls = Falls(reader, said, AnswerSpan(0, len(said.text)))
        fall = falls.of([falls.every])[0] if falls.causes else 0.0
    return max(0.0, fall) / (max(0.0, fall) - nats) if fall > 0 else 0.0


def _missing(said: Said, kind: QuestionKind | None, signals: SureSignals, calibration: Calibration | None) -> str:
    """Return why there are no odds, as a row of words.UNMEASURED; "" if there are."""
    if kind is None:
        return "no_question"
    if calibration is None or calibration.model != said.model.digest:
        return "no_model"
    fit = calibration.fit(kind)
    if fit is None:
        return "no_kind"
    return "too_long" if signals.tokens > fit.longest else ""


def _entropy(place: AnswerPlace) -> float:
    """Return the entropy of the likeliest tokens, as if there were no others, in nats."""
    shares = np.exp([nats for _, nats in place.likeliest])
    shares /= shares.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum())


def _tokens(said: Said, places: Sequence[AnswerPlace]) -> tuple[SureToken, ...]:
    name = said.model.tokenizer.token_bytes
    found = []
    for piece, place in zip(said.pieces, places, strict=True):
        others = [(token, float(np.exp(nats))) for token, nats in place.likeliest if token != place.token]
        shown = [OtherToken(name(token).decode("utf-8", "replace"), round(share, _DIGITS)) for token, share in others if share >= _SHOWN]
        found.append(SureToken(piece, round(float(np.exp(place.nats)), _DIGITS), tuple(shown)))
    return tuple(found)
