"""The common part of guards that judge a request's meaning: which texts they look at, and what they do with one that alarms."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import NamedTuple

from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.judge import Judge, load_judge
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import ACTIONS, GuardRule
from ingle.safety.texts import Speaker, request_texts

_KNOWN = 512
"""Texts whose scores are remembered: a conversation comes again with every turn."""


class Alarm(NamedTuple):
    """The worst text of a request."""

    place: str
    score: float
    threshold: float


def judging(name: str, guard: str, rule: GuardRule, speakers: Iterable[Speaker], asks: str, say: str) -> Guard:
    """Return a guard that lets the judge `name` look at what these speakers say.

    `asks`: what is said of a request that alarms. A request that is blocked is answered with the policy's words, or `say`.
    """
    heard = frozenset(speakers)

    async def act(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        alarm = alarmed(load_judge(rule.judge), name, rule.alarms, request, heard)
        if alarm is None:
            async for chunk in answer(request):
                yield chunk
            return
        verdict = Verdict(ACTIONS[rule.mode], f"{alarm.place} {asks}", guard, name, round(alarm.score, 3), round(alarm.threshold, 3))
        if rule.mode == "block":
            yield Chunk(rule.say or say, finish="blocked", verdicts=(verdict,))
            return
        verdicts: tuple[Verdict, ...] = (verdict,)
        async for chunk in answer(request):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return act


def alarmed(judge: Judge, name: str, rate: float, request: Request, heard: frozenset[Speaker]) -> Alarm | None:
    """Return the worst text that alarms at this rate of false alarms."""
    threshold = judge.alarm(name, rate)
    scores = [Alarm(place, _score(judge, name, text), threshold) for place, text in asked_texts(request, heard)]
    worst = max(scores, key=lambda alarm: alarm.score, default=None)
    return worst if worst is not None and worst.score > threshold else None


def asked_texts(request: Request, heard: frozenset[Speaker]) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of what is asked now: the prompt, or the last turn. A conversation goes on after a turn that was blocked."""
    last = max((number for number, message in enumerate(request.messages) if message.role == "user"), default=-1)
    for place, speaker, text in request_texts(request):
        if speaker in heard and text.strip() and (speaker == "prompt" or place.startswith(f"messages[{last}].")):
            yield place, text


def _score(judge: Judge, name: str, text: str) -> float:
    """Return a judge's score of a text."""
    key = judge.digest, text
    if key not in _scores:
        if len(_scores) >= _KNOWN:
            _scores.clear()
        _scores[key] = judge.scores(text)
    return _scores[key][name]


_scores: dict[tuple[str, str], dict[str, float]] = {}
