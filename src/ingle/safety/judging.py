"""The common part of guards that judge a request's meaning: they look at all that was sent, and act on the worst of it.

All means every message of every role, parts of every origin, calls and descriptions of tools, the beginning of an answer, and short turns
together with those before them. A text is judged once and remembered, so a conversation costs what is new in it.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.judge import Judge, load_judge
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import ACTIONS, GuardRule
from ingle.safety.texts import Speaker, request_texts

# Texts of a request whose meaning is read: of more, half the latest and half those that n-grams find worst, which judge the rest.
MOST_BY_MEANING = 16
MOST_CHARACTERS = 400_000  # characters of a request that are judged, the latest first
MOST_AT_ONCE, _OVERLAP = 60_000, 400  # characters that are read at once, and how many of them again with the next ones
# Characters of a turn that is read together with those before it, and how many turns of a speaker that may be.
_SHORT_TURN, _MOST_TURNS = 160, 4
MOST_ALONE = 256  # texts of a request that are judged by themselves, the latest first; earlier ones are read as one, a line each
UNREAD = "too long"  # the rule of a verdict on a request that no judge read to its end


class Alarm(NamedTuple):
    """The worst text of a request."""

    place: str
    score: float
    threshold: float


class SentText(NamedTuple):
    """A text that was sent."""

    place: str
    speaker: Speaker
    text: str


class JudgedText(NamedTuple):
    """A text, and how far it is above the thresholds."""

    above: tuple[float, ...]  # by rate of false alarms; below 0 it doesn't alarm
    alarm: Alarm  # at the first of the rates


class Looked(NamedTuple):
    """The outcome of looking at a request."""

    alarm: Alarm | None
    unread: int  # characters that were too many to be judged


# By guard: the answer to a request that it refuses, where the policy has no words of its own.
SAYS: Mapping[str, str] = MappingProxyType({
    "harm": "I can't help with that: it reads like a request for harm. If I got you wrong, please say it in other words, or tell whoever "
            "keeps this house.",
    "attack": "I'd rather be asked plainly: what would you like to know? If I got you wrong, please say it in other words, or tell whoever "
              "keeps this house.",
})  # fmt: skip


def judging(name: str, rule: GuardRule, silent: Collection[Speaker], asks: str) -> Guard:
    """Return a guard that lets the judge of its name look at all that was sent.

    `silent`: speakers whose words it does not look at. `asks`: what is said of a request that alarms.
    """
    say = says_of(name, rule)

    async def act(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        kept = without_refused(request, (say, *SAYS.values())) if rule.mode == "block" else request
        found, unread = look(load_judge(rule.judge), name, rule.alarms, kept, silent)
        verdicts: tuple[Verdict, ...] = ()
        if found is not None:
            verdicts = (alarmed(name, rule, found, asks),)
        elif unread:
            verdicts = (unread_verdict(name, rule, unread),)
        if verdicts and verdicts[0].action == "block":
            yield Chunk(say, finish="blocked", verdicts=verdicts)
            return
        async for chunk in answer(kept):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return act


def says_of(name: str, rule: GuardRule) -> str:
    """Return the answer to a request that the guard refuses."""
    return rule.say or SAYS[name]


def alarmed(name: str, rule: GuardRule, found: Alarm, asks: str) -> Verdict:
    """Return the verdict of a judge that alarms. `asks`: what is said of such a text."""
    return Verdict(ACTIONS[rule.mode], f"{found.place} {asks}", name, name, round(found.score, 3), round(found.threshold, 3))


def unread_verdict(name: str, rule: GuardRule, unread: int) -> Verdict:
    """Return the verdict on a text of which so many characters were not judged."""
    reason = f"{unread:,} characters at the beginning were too many to be judged"
    return Verdict("block" if rule.fails == "closed" else "allow", reason, name, UNREAD)


def look(judge: Judge, name: str, rate: float, request: Request, silent: Collection[Speaker] = ()) -> Looked:
    """Return the text that is furthest above its threshold at this rate of false alarms, if one is. The latest texts are read first."""
    found, unread = margins(judge, name, (rate,), request, silent)
    worst = max(found, key=lambda one: one.above[0], default=None)
    return Looked(worst.alarm if worst is not None and worst.above[0] > 0 else None, unread)


def margins(
    judge: Judge, name: str, rates: Sequence[float], request: Request, silent: Collection[Speaker] = ()
) -> tuple[list[JudgedText], int]:  # fmt: skip
    """Return how far each text is above its thresholds at these rates of false alarms, the latest text first; and the characters that were
    too many to be judged."""
    left, unread, texts = MOST_CHARACTERS, 0, list[tuple[str, str]]()
    for one in _latest_first([one for one in sent_texts(request) if one.speaker not in silent]):
        unread += max(0, len(one.text) - left)
        text, left = one.text[len(one.text) - min(left, len(one.text)) :], max(0, left - len(one.text))
        texts += [(one.place, text[max(0, at - _OVERLAP) : at + MOST_AT_ONCE]) for at in range(0, len(text), MOST_AT_ONCE)]
    few = len(texts) <= MOST_BY_MEANING
    scores = [judge.scores(text, few) for _, text in texts]
    if name == "harm" and not few:
        worst = sorted(range(len(texts)), key=lambda number: -scores[number].margin(judge, name, rates[0])[0])
        for number in {*range(min(len(texts), MOST_BY_MEANING // 2)), *worst[: MOST_BY_MEANING // 2]}:
            scores[number] = judge.scores(texts[number][1], True)
    found = []
    for (place, _), read in zip(texts, scores, strict=True):
        (margin, score, threshold), *others = (read.margin(judge, name, rate) for rate in rates)
        found.append(JudgedText((margin, *(other for other, _, _ in others)), Alarm(place, score, threshold)))
    return found, unread


def _latest_first(sent: Sequence[SentText]) -> Iterator[SentText]:
    """Yield texts, the latest first; those before the `MOST_ALONE` latest as one, so that many short ones cost what a long one does."""
    yield from reversed(sent[-MOST_ALONE:])
    if early := sent[:-MOST_ALONE]:
        yield SentText("earlier texts", early[0].speaker, "\n".join(one.text for one in early))


def sent_texts(request: Request) -> Iterator[SentText]:
    """Yield all that was sent and says something, in order: descriptions of tools as one, texts by origin, whole messages of several
    origins, and the last turns of the user together, if they are short."""
    sent = [SentText(*one) for one in request_texts(request) if one[2].strip()]
    said = [one.text for one in sent if one.speaker == "tools" and len(one.text.split()) > 1]  # names and ids are nobody's words
    if said:
        yield SentText("tools", "tools", "\n".join(said))
    yield from (one for one in sent if one.speaker != "tools")
    for number, message in enumerate(request.messages):
        if len({part.origin for part in message.sourced}) > 1:
            yield SentText(f"messages[{number}].content", message.role, message.text)
    turns = [message.text for message in request.messages if message.role == "user"][-_MOST_TURNS:]
    if len(turns) > 1 and len(turns[-1]) <= _SHORT_TURN:
        yield SentText("the last turns", "user", "\n".join(turn for turn in turns if len(turn) <= 4 * _SHORT_TURN))


def without_refused(request: Request, says: Collection[str]) -> Request:
    """Return the request without the turns that a guard refused, and its words to them: the model never sees what was refused, and the
    conversation can go on."""
    messages = request.messages
    refused = {number for number, message in enumerate(messages) if message.role == "assistant" and message.text in says and number}
    gone = refused | {number - 1 for number in refused if messages[number - 1].role == "user"}
    kept = tuple(message for number, message in enumerate(messages) if number not in gone)
    return replace(request, messages=kept) if gone and kept else request
