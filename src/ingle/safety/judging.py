"""The common part of guards that judge meaning, by a judge or by a guard model: they look at all that was sent, and act on the worst of it.

All means every message of every role, parts of every origin, calls and descriptions of tools, the beginning of an answer, and short turns
together with those before them. A text is judged once and remembered, so a conversation costs what is new in it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from ingle.core.errors import GuardError, IngleError
from ingle.core.message import Chunk, Message, Request, Verdict
from ingle.safety.answers import harm
from ingle.safety.holding import Acts, Passage, Undecided, held_back
from ingle.safety.judge import Judge, load_judge
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.opinion import AskGuard, GuardOpinion, in_turns, question_of, turns_of
from ingle.safety.policy import ACTIONS, GuardRule
from ingle.safety.score_rules import last_question, sentence_end
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
    place: str
    score: float
    threshold: float


class SentText(NamedTuple):
    place: str
    speaker: Speaker
    text: str


class JudgedText(NamedTuple):
    """A text, and how far it is above the thresholds."""

    above: tuple[float, ...]  # by rate of false alarms; below 0 it doesn't alarm
    alarm: Alarm  # at the first of the rates


class Looked(NamedTuple):
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


# Watching an answer while it is written: at the ends of sentences, and not more often than every so many characters, somebody is asked.
# Where the guard blocks, nothing leaves that was not judged; where it tells, nothing waits.


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


# A kept guard model judges requests in the judge's place, or where the judge is unsure, and answers on their way. With `by = "both"` the
# judge stays the fast first stage. The model is asked about a text that would alarm if one ordinary text in ten might (`GREY`): so about
# one ordinary request in ten costs its time. It then has the last word, except on what it does not read. Of answers, the judge of answers
# is the first stage (`ANSWER_GREY`).


GREY = 0.1  # share of ordinary texts that the model is asked about where the judge is first
ANSWER_GREY = 0.25  # score of the judge of answers from which the model is asked, where a judge is first
MOST_ASKED = 3  # texts of a request that the model is asked about, the judge's worst first
MODEL, FAILED = "model", "failed"  # rules of verdicts: the guard model judged, or it could not
_MESSAGE = re.compile(r"messages\[(\d+)\]\.content")
_WHOLE = ("prompt", "the last turns")  # places that are the whole of what the model reads
_SHORT = 200


def asking(name: str, rule: GuardRule, silent: Collection[Speaker], asks: str, ask: AskGuard) -> Guard:
    """Return a guard that asks a guard model. `silent`, `asks`: as for `judging.judging`."""
    say = says_of(name, rule)

    async def act(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        kept = without_refused(request, (say, *SAYS.values())) if rule.mode == "block" else request
        asked = _Asked(name, rule, ask)
        verdicts = tuple(await _of_request(asked, kept, silent, asks))
        if any(verdict.action == "block" for verdict in verdicts):
            yield Chunk(say, finish="blocked", verdicts=verdicts)
            return
        acts, judge = Acts(asked.of_answer, rule.mode == "block", say), _JudgeOfAnswers(asked, turns_of(kept), last_question(kept))
        async for chunk in watched_answer(kept, answer(kept), judge, acts):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return act


class _Asked:
    """The questions of one answer to a guard model. Once it has failed, it is asked no more: that would be told again and again."""

    def __init__(self, name: str, rule: GuardRule, ask: AskGuard) -> None:
        self.name, self.rule, self._ask = name, rule, ask
        self.broken = False
        self._told: list[Verdict] = []
        self._cut = False

    async def opinion(self, turns: tuple[Message, ...], answer: str = "") -> GuardOpinion | None:
        """Return what the model says of a request, or of an answer to it; None if it can't judge."""
        if self.broken:
            return None
        try:
            found = _sound(self.rule.model, await self._ask(question_of(self.rule, turns, answer)))
        except Exception as error:  # whatever it is: a guard that breaks off must not break off answers
            self.broken = True
            why = " ".join(str(error).split())[:_SHORT] if isinstance(error, IngleError) else type(error).__name__
            reason = f"the guard model {self.rule.model} could not judge: {why}"
            self._told.append(Verdict("block" if self.rule.fails == "closed" else "allow", reason, self.name, FAILED))
            return None
        if found.unread and not self._cut:
            self._cut = True
            self._told.append(unread_verdict(self.name, self.rule, found.unread))
        return found

    def told(self) -> list[Verdict]:
        """Return what is to be told of the asking itself, once."""
        told, self._told = self._told, []
        return told

    def alarms(self, found: GuardOpinion | None) -> bool:
        return found is not None and found.risk >= self.rule.risk

    def of_request(self, found: GuardOpinion, place: str, asks: str) -> Verdict:
        said = f"{place} {asks} to {self.rule.model}, which says {found.label.strip()} ({found.cost})"
        return Verdict(ACTIONS[self.rule.mode], said, self.name, MODEL, round(found.risk, 3), self.rule.risk)

    def of_answer(self, passage: Passage) -> Verdict:
        if passage.rule != MODEL:
            return Verdict("block", "the answer could not be judged to its end", self.name, passage.rule)
        said = "ended the answer before" if self.rule.mode == "block" else "the answer says"
        reason = f"{said} what {self.rule.model} takes for harm"
        return Verdict(ACTIONS[self.rule.mode], reason, self.name, MODEL, passage.score, passage.threshold)


def _sound(model: str, found: GuardOpinion) -> GuardOpinion:
    """Return an opinion that is one. Raises GuardError."""
    if not 0.0 <= found.risk <= 1.0:  # NaN, too
        raise GuardError(f"guard model {model}", "must give a risk of 0 to 1", found.risk)
    return found


async def _of_request(asked: _Asked, request: Request, silent: Collection[Speaker], asks: str) -> list[Verdict]:
    turns = turns_of(request)
    if asked.rule.by == "model":
        found = await asked.opinion(turns) if turns else None
        verdicts = [asked.of_request(found, "the request", asks)] if found is not None and asked.alarms(found) else []
        return verdicts or asked.told()
    name, rule = asked.name, asked.rule
    texts, unread = margins(load_judge(rule.judge), name, (rule.alarms, max(rule.alarms, GREY)), request, silent)
    standing, questions = _sorted_out(texts, request, turns)
    for question, alarm in questions:
        found = await asked.opinion(question)
        if found is not None and asked.alarms(found):
            return [asked.of_request(found, alarm.place, asks)]
        if found is None:
            standing += [text for text in texts if text.above[0] > 0]
            break
    worst = max(standing, key=lambda text: text.above[0], default=None)
    return [
        *([alarmed(name, rule, worst.alarm, asks)] if worst is not None else []),
        *asked.told(),
        *([unread_verdict(name, rule, unread)] if unread and worst is None else []),
    ]


def _sorted_out(
    texts: Sequence[JudgedText], request: Request, turns: tuple[Message, ...]
) -> tuple[list[JudgedText], list[tuple[tuple[Message, ...], Alarm]]]:
    """Return the alarms that stand by themselves, and what the model is asked about: conversations, with the worst text of each.

    It reads no descriptions of tools and no arguments of calls, so the judge's alarms on these stand; so do those beyond MOST_ASKED.
    """
    standing, questions = list[JudgedText](), dict[tuple[Message, ...], Alarm]()
    for text in sorted(texts, key=lambda text: -text.above[1]):
        number = _MESSAGE.fullmatch(text.alarm.place)
        asks_about = in_turns(request.messages[: int(number[1]) + 1]) if number else turns if text.alarm.place in _WHOLE else ()
        known = asks_about in questions
        if text.above[1] > 0 and asks_about and (known or len(questions) < MOST_ASKED):
            questions.setdefault(asks_about, text.alarm)
        elif text.above[0] > 0:
            standing.append(text)
    return standing, list(questions.items())


class _JudgeOfAnswers:
    """Judges an answer so far (`watching.JudgeAnswer`)."""

    def __init__(self, asked: _Asked, turns: tuple[Message, ...], question: str) -> None:
        self._asked, self._turns, self._question = asked, turns, question

    async def __call__(self, answer: str) -> Judged:
        rule = self._asked.rule
        if not answer.strip() or (rule.by == "both" and harm(self._question, answer, load_judge(rule.judge)) < ANSWER_GREY):
            return None, ()
        found = await self._asked.opinion(self._turns, answer)
        told = self._asked.told()
        if refused := next((verdict for verdict in told if verdict.action == "block"), None):
            return Passage(0, 0, refused.rule), told[:-1]
        if found is not None and self._asked.alarms(found):
            return Passage(0, 0, MODEL, score=round(found.risk, 3), threshold=rule.risk), told
        return None, told
