"""Guard: the owner's rules for answers: words, patterns, and the judge of answers, while an answer is being written.

It holds text back as far as that may still become what a rule is about, so that nothing of it ever leaves: no text, no token, no
log-probability, no argument of a tool call. Where the judge of answers is asked, it waits for whole sentences.
"""

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache, partial

from ingle.core.message import Chunk, Request, Verdict
from ingle.safety.guard import RequestLimits
from ingle.safety.holding import Acts, Look, Passage, both, held_back, watched
from ingle.safety.middleware import Guard, Next
from ingle.safety.policy import ACTIONS, GuardRule, LooksAt, Mode
from ingle.safety.score_rules import ScoreRule, by_sentence, last_question, score_rules
from ingle.safety.word_search import LONGEST, find_patterns, find_words

NAME = "output"
TITLE = "Your own rules for answers"
ABOUT = "Answers with what policy.toml lists under [guards.output]: words, patterns, topics."
LOOKS_AT: tuple[LooksAt, ...] = ("answer",)
ORDER = 60
MODES: tuple[Mode, ...] = ("off", "tell", "edit", "block")
EDITS = True
HOLDS_BACK = LONGEST + 12  # a match, and an escape that a piece has cut
TAKES = ("words", "patterns", "topics", "harm", "alarms", "say")
SAY = "This answer was ended here by a rule of this house."
INSTEAD = "[removed]"


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    plain, scores = check(rule)

    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        chunks = answer(request)
        looks = [*plain, *([by_sentence(scores, last_question(request), INSTEAD)] if scores else [])]
        if not looks:
            passed = chunks
        elif rule.mode == "tell":
            passed = watched(chunks, both(looks), partial(_verdict, rule))
        else:
            acts = Acts(partial(_verdict, rule), rule.mode == "block", rule.say or SAY)
            passed = held_back(request, chunks, both(looks), acts)
        async for chunk in passed:
            yield chunk

    return guard


@lru_cache(64)
def check(rule: GuardRule) -> tuple[Sequence[Look], Sequence[ScoreRule]]:
    """Return what a rule looks for. Raises ConfigError for words, patterns or topics that can't be looked for."""
    looks = [find_words(rule.words, INSTEAD)] if rule.words else []
    return (*looks, *find_patterns(rule.patterns, INSTEAD)), score_rules(rule)


def _verdict(rule: GuardRule, span: Passage) -> Verdict:
    said = {"tell": "the answer says", "edit": "removed from the answer", "block": "ended the answer before"}[rule.mode]
    reason = f"{said} what {span.rule} of the policy is about"
    return Verdict(ACTIONS[rule.mode], reason, NAME, span.rule, span.score, span.threshold)
