"""Guard: topics of the owner's own, in what is asked. Of each topic the policy gives at least eight examples.

The last thing that the user says is judged, whole and sentence by sentence, so that a conversation may go on to another topic.
"""

from collections.abc import AsyncIterator
from functools import lru_cache

from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import ACTIONS, GuardRule, LooksAt, Mode
from ingle.safety.score_rules import ScoreRule, last_question, sentences, topic_rules

NAME = "topics"
TITLE = "Your own topics"
ABOUT = "Questions about the topics that policy.toml lists under [guards.topics]."
LOOKS_AT: tuple[LooksAt, ...] = ("question",)
ORDER = 53
MODES: tuple[Mode, ...] = ("off", "tell", "block")
EDITS = False
HOLDS_BACK = 0
TAKES = ("topics", "alarms", "say")
SAY = "That is not a topic for this house."
_MOST_CHARACTERS, _MOST_SENTENCES = 8000, 100


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    topics = check(rule)

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        verdicts = tuple(_found(topics, last_question(request), rule.mode))
        if verdicts and rule.mode == "block":
            yield Chunk(rule.say or SAY, finish="blocked", verdicts=verdicts)
            return
        async for chunk in answer(request):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return guard


@lru_cache(64)
def check(rule: GuardRule) -> tuple[ScoreRule, ...]:
    """Return the topics of a rule, fitted. Raises ConfigError for examples that teach none."""
    return topic_rules(rule)


def _found(topics: tuple[ScoreRule, ...], question: str, mode: Mode) -> list[Verdict]:
    text = question[:_MOST_CHARACTERS]
    parts = [text, *sentences(text)][:_MOST_SENTENCES] if topics and text.strip() else []
    found = []
    for topic in topics:
        score = max((topic.score("", part) for part in parts), default=0.0)
        if score >= topic.threshold:
            reason = f"the request is about the {topic.name} of the policy"
            found.append(Verdict(ACTIONS[mode], reason, NAME, topic.name, round(score, 3), round(topic.threshold, 3)))
    return found
