"""How sure an answer is: what it might have said instead, token by token, and how often it is right about questions like this.

A model's confidence is not knowledge. So its probabilities are never shown as odds by themselves: odds come from questions with known
answers that were asked of this very model (explain/calibrate.py), or there are none.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ingle.core.message import Sampling
from ingle.engine.language_model import AnswerPlace
from ingle.explain.cause import AnswerSpan, Nats, OtherToken, OutOfTime, Reader, Said, Sure, SureSignals, SureToken, Why, within
from ingle.explain.falls import Falls
from ingle.explain.odds import Calibration, QuestionKind
from ingle.explain.prompt_sentences import sentences_of
from ingle.explain.words import say_sure, unlooked

TAUGHT = ("memory", "lesson")
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_SHOWN = 0.01  # other tokens that are less likely are not shown
_DIGITS = 4
_SAME = 0.8  # another answer says the same if it holds at least this share of the telling words
_EVERYWHERE_WORDS = """
a an and answer are as at be but by can could do does for from has have he her his i in is it its my no not of on or question she so that
the their there they this to was we were what when where which who whose will with would you your
"""
EVERYWHERE = frozenset(_EVERYWHERE_WORDS.split())  # words that tell nothing, whatever was asked


def with_sure(reader: Reader, said: Said, why: Why, calibration: Calibration | None, samples: int = 0, alternatives: bool = True) -> Why:
    """Return the explanation with how sure the answer is; without it, and not complete, if the time is over before.

    `why`: with the sentences looked at. `calibration`: of this model, None = not measured. `samples`: answers that are drawn beside it and
    compared. `alternatives`: whether other tokens may be named; not where a guard keeps words back.
    """
    taught = [np.array(one.nats_by_token) for one in why.causes if one.cause.kind in TAUGHT]
    try:
        places, signals = looked_at(reader, said, max(taught, key=lambda nats: float(nats.sum())) if taught else None)
        if samples:
            signals = replace(signals, agreement=agreement(reader, said, samples))
    except OutOfTime:
        late = (*why.not_looked_at, "how sure it is")
        says = tuple(one for one in why.says if why.complete or one != unlooked(why.not_looked_at))
        return replace(why, complete=False, not_looked_at=late, says=(*says, unlooked(late)))
    kind = kind_of(said, bool(taught), why.elsewhere is not None)
    missing = _missing(said, kind, signals, calibration)
    if missing == "no_model" and any(one.cause.kind == "lesson" for one in why.causes):
        missing = "lesson"
    odds = None if missing or kind is None or calibration is None else calibration.odds(kind, signals)
    tokens = _tokens(said, places)
    if not alternatives:
        tokens = tuple(replace(token, others=()) for token in tokens)
    says = say_sure(tokens, signals, kind or "", odds, missing, said.model.name, samples)
    return replace(why, sure=Sure(tokens, signals, kind or "", odds, says), says=(*why.says, *says))


def looked_at(reader: Reader, said: Said, taught: Nats | None) -> tuple[Sequence[AnswerPlace], SureSignals]:
    """Return the places of an answer and what they say about how sure it is. Raises OutOfTime.

    `taught`: how much each token loses without what was taught; None = nothing acted, so the prompt's sentences are left out.
    """
    places = reader.places(said.model, said.model.prompt(said.request), said.tokens)
    falls = Falls(reader, said, AnswerSpan(0, len(said.text)))
    lost = taught if taught is not None else falls.by_token([falls.every])[0] if falls.causes else np.zeros(len(places))
    told = telling(said)
    nats, entropies = np.array([place.nats for place in places]), np.array([_entropy(place) for place in places])
    fall = max(0.0, float(lost[told].sum()))
    explained = fall / (fall - float(nats[told].sum())) if fall > 0 else 0.0
    few = (float(nats[told].mean()), float(nats[told].min()), float(entropies[told].max()))
    return places, SureSignals(float(nats.mean()), float(nats.min()), float(entropies.max()), *few, explained, len(places))


def telling(said: Said) -> npt.NDArray[np.bool_]:
    """Return which tokens belong to telling words: a yes or no at the beginning, else the words that are neither in the question nor
    everywhere. All, where there are none."""
    if decided := _YES_NO.match(said.text):
        return within(said, AnswerSpan(*decided.span(1)))
    asked = {word.casefold() for one in sentences_of(said.request) if one.asks for word in _WORD.findall(one.text)}
    inside = np.zeros(len(said.pieces), bool)
    for match in _WORD.finditer(said.text):
        if match.group().casefold() not in asked | EVERYWHERE:
            inside |= within(said, AnswerSpan(*match.span()))
    return inside if inside.any() else ~inside


def kind_of(said: Said, taught: bool, elsewhere: bool) -> QuestionKind | None:
    """Return the kind of question, as far as it can be told without knowing the right answer; None if nothing is asked."""
    sentences = sentences_of(said.request)
    if not any("?" in one.text for one in sentences if one.asks):
        return None
    if taught:
        return "taught"
    if elsewhere:
        return "elsewhere"
    if all(one.asks for one in sentences):
        return "bare"
    return "yes_no" if _YES_NO.match(said.text) else "text"


def agreement(reader: Reader, said: Said, count: int) -> float:
    """Return the share of drawn answers that say the same as this one. Raises OutOfTime."""
    drawn = [replace(said.request, sampling=Sampling(temperature=1.0, seed=seed)) for seed in range(count)]
    answers = reader.write([(said.model, request) for request in drawn])
    question = " ".join(one.text for one in sentences_of(said.request) if one.asks)
    return sum(says_the_same(question, said.text, answer) for answer in answers) / count


def says_the_same(question: str, answer: str, other: str) -> bool:
    """Return whether another answer holds most telling words of an answer."""
    asked, words, others = ([word.casefold() for word in _WORD.findall(text)] for text in (question, answer, other))
    wanted = {word for word in words if word not in EVERYWHERE and word not in asked} or set(words)
    if not wanted:
        return answer.strip() == other.strip()
    return len(wanted.intersection(others)) >= _SAME * len(wanted)


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
