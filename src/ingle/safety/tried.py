"""Every guard's act on a text, tried on the guards themselves: as a question, as something to be read, and as an answer.

Nothing is recorded, and no model is asked: the text takes the place of its answer.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Message, Request, TextPart, Verdict
from ingle.safety.guard import GuardFile, RequestLimits, guard_files, is_idle
from ingle.safety.guards.injection import score, sentences
from ingle.safety.judge import load_judge
from ingle.safety.middleware import Blocked, GuardLayer, Next, drive, wrap
from ingle.safety.policy import ACTIONS, GuardPolicy, GuardRule, LooksAt, Mode, rule_of
from ingle.safety.reading import REQUESTS

# No model is meant, so usual names of control tokens count.
_LIMITS = RequestLimits(1 << 20, 64, ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<s>", "</s>"))
_ORDER: Sequence[Mode] = ("block", "edit", "tell")
_MODES: Mapping[str, Mode] = MappingProxyType({action: mode for mode, action in ACTIONS.items()})  # by a verdict's action
_PLACES = ("messages[0].content ", "the last turns ")
# Guards that find nothing in a text by itself, and why.
_NEEDS: Mapping[str, str] = MappingProxyType({"leak": "there is no system prompt before this text"})
_IDLE = "policy.toml gives it nothing to look for"


class GuardTry(NamedTuple):
    does: Mode  # `off` = nothing
    why: str
    score: float | None = None
    threshold: float | None = None


class TriedGuard(NamedTuple):
    """One guard's acts on a text, by the places that it looks at; none, where it is off."""

    file: GuardFile
    mode: Mode
    tries: Mapping[LooksAt, GuardTry]


def try_guards(text: str, policy: GuardPolicy, rate: float | None = None) -> list[TriedGuard]:
    """Return what every guard of a policy would do with a text, the outermost first. `rate`: of false alarms; None = what the policy says.

    Raises ConfigError for a damaged judge.
    """
    found = []
    for file in guard_files():
        rule = replace(rule_of(policy.rules(), file.name, file.modes), judge=policy.judge)
        rule = rule if rate is None else replace(rule, alarms=rate)
        tries = {} if rule.mode == "off" else {place: _tried(file, rule, place, text) for place in file.looks_at}
        found.append(TriedGuard(file, rule.mode, tries))
    return found


def _tried(file: GuardFile, rule: GuardRule, place: LooksAt, text: str) -> GuardTry:
    request, answer = _request(place, text), text if place == "answer" else ""
    verdicts = list[Verdict]()
    try:
        guarded = wrap([GuardLayer(file.name, file.make(_LIMITS, rule), rule.mode)], _said(answer))(request)
        verdicts += [verdict for chunk in drive(guarded) for verdict in chunk.verdicts]
    except Blocked as error:
        verdicts.append(error.verdict)
    except RequestError as error:
        return GuardTry("block", error.sentence)
    does = next((mode for mode in _ORDER if any(_MODES[one.action] == mode for one in verdicts)), None)
    if does is not None:
        worst = next(one for one in verdicts if _MODES[one.action] == does)
        return GuardTry(does, _plain(worst.reason), worst.score, worst.threshold)
    return GuardTry("off", _IDLE if is_idle(file, rule) else _NEEDS.get(file.name, ""), *_scored(file.name, rule, text))


def _request(place: LooksAt, text: str) -> Request:
    if place == "answer":
        return Request((Message.of("user", "Hello."),), max_tokens=1)
    if place == "document":
        return Request((Message("user", (TextPart("Read this: "), TextPart(text, "document"))),), max_tokens=1)
    return Request((Message.of("user", text),), max_tokens=1)


def _said(answer: str) -> Next:
    async def says(_request: Request) -> AsyncIterator[Chunk]:
        if answer:
            yield Chunk(answer)
        yield Chunk("", finish="stop")

    return says


def _plain(reason: str) -> str:
    """Return a verdict's reason without the place, which there is but one of."""
    return next((reason.removeprefix(place) for place in _PLACES if reason.startswith(place)), reason)


def _scored(guard: str, rule: GuardRule, text: str) -> tuple[float | None, float | None]:
    """Return score and threshold of a text that a judge of meaning let pass; nothing for other guards."""
    if guard in REQUESTS:
        judge = load_judge(rule.judge)
        _, value, threshold = judge.scores(text).margin(judge, guard, rule.alarms)
    elif guard == "injection":
        judge = load_judge(rule.judge)
        value, threshold = max(score(judge, one) for one in sentences(text)), judge.alarm("order", rule.alarms)
    else:
        return None, None
    return round(value, 3), round(threshold, 3)
