"""The guard with a kept guard model: it judges requests in the judge's place, or where the judge is unsure, and answers on their way.

With `by = "both"` the judge stays the fast first stage. The model is asked about a text that would alarm if one ordinary text in ten
might (`GREY`): so about one ordinary request in ten costs its time. It then has the last word, except on what it does not read. Of
answers, the judge of answers is the first stage (`ANSWER_GREY`).
"""

import re
from collections.abc import AsyncIterator, Collection, Sequence

from ingle.core.errors import GuardError, IngleError
from ingle.core.message import Chunk, Message, Request, Verdict
from ingle.safety.answers import harm
from ingle.safety.holding import Acts, Passage
from ingle.safety.judge import load_judge
from ingle.safety.judging import SAYS, Alarm, JudgedText, alarmed, margins, says_of, unread_verdict, without_refused
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.opinion import AskGuard, GuardOpinion, in_turns, question_of, turns_of
from ingle.safety.policy import ACTIONS, GuardRule
from ingle.safety.score_rules import last_question
from ingle.safety.texts import Speaker
from ingle.safety.watching import Judged, watched_answer

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
        """Return whether an opinion counts."""
        return found is not None and found.risk >= self.rule.risk

    def of_request(self, found: GuardOpinion, place: str, asks: str) -> Verdict:
        """Return the verdict on a request."""
        said = f"{place} {asks} to {self.rule.model}, which says {found.label.strip()} ({found.cost})"
        return Verdict(ACTIONS[self.rule.mode], said, self.name, MODEL, round(found.risk, 3), self.rule.risk)

    def of_answer(self, passage: Passage) -> Verdict:
        """Return the verdict on an answer."""
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
    """Return the verdicts on a request."""
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
