"""Guard: orders inside data. A memory, a tool's result or a document is there to be read, not to be obeyed.

It knows data by their origin (`Message.sourced`), and judges them sentence by sentence: one order in a long document is found in its own
sentence, or in none. `edit` takes the sentence out and says so in its place; `block` leaves the request unanswered.
"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from ingle.core.message import Chunk, Message, Part, Request, TextPart, Verdict
from ingle.safety.features import order_vector
from ingle.safety.guard import RequestLimits
from ingle.safety.judge import Judge, load_judge
from ingle.safety.middleware import Guard, Next, with_verdicts
from ingle.safety.policy import ACTIONS, GuardRule, LooksAt, Mode
from ingle.safety.views import views

NAME = "injection"
TITLE = "Orders hidden in what it reads"
ABOUT = "Orders to the model in documents, memories and tools' results, which it should read and not obey."
LOOKS_AT: tuple[LooksAt, ...] = ("document",)
ORDER = 52
MODES: tuple[Mode, ...] = ("tell", "off", "edit", "block")
EDITS = True
HOLDS_BACK = 0
TAKES = ("alarms", "say")
SAY = "Something that I was given to read holds orders to me. I left this unanswered; ask again without it."
INSTEAD = "[a sentence with orders to the assistant was left out here]"
DATA = frozenset({"memory", "tool", "document"})
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+[\"')\]]*|\n+|$)\s*")
_MOST_SENTENCES = 2000
_LONGEST = 400
_FEWEST_LETTERS = 8
_NOTHING = -30.0  # log-odds of a sentence that is too short to be judged


def make(_limits: RequestLimits, rule: GuardRule) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        judge = load_judge(rule.judge)
        threshold = judge.alarm("order", rule.alarms)
        found, cleaned = look(request, judge, threshold)
        if not found:
            async for chunk in answer(request):
                yield chunk
            return
        worst = max(found)
        reason = f"{len(found)} sentences of {', '.join(sorted(set(_origins(request))))} parts read like orders to the assistant"
        verdict = Verdict(ACTIONS[rule.mode], reason, NAME, "order", round(worst, 3), round(threshold, 3))
        if rule.mode == "block":
            yield Chunk(rule.say or SAY, finish="blocked", verdicts=(verdict,))
            return
        verdicts: tuple[Verdict, ...] = (verdict,)
        async for chunk in answer(cleaned if rule.mode == "edit" else request):
            yield with_verdicts(chunk, *verdicts)
            verdicts = ()

    return guard


def look(request: Request, judge: Judge, threshold: float) -> tuple[list[float], Request]:
    """Return the scores of the sentences that alarm, and the request without them."""
    found: list[float] = []

    def part(message: Message, old: Part) -> Part:
        origin = old.origin or ("tool" if message.role == "tool" else None)
        if not isinstance(old, TextPart) or origin not in DATA:
            return old
        kept = []
        for sentence in sentences(old.text):
            value = score(judge, sentence)
            if value > threshold:
                found.append(value)
                kept.append(f"{INSTEAD} ")
            else:
                kept.append(sentence)
        return replace(old, text="".join(kept))

    messages = tuple(replace(message, parts=tuple(part(message, one) for one in message.parts)) for message in request.messages)
    return found, replace(request, messages=messages) if found else request


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, which together are the text; a very long one in pieces, and the rest beyond a bound as one."""
    place = count = 0
    for match in _SENTENCE.finditer(text):
        if match.start() > place:
            yield text[place : match.start()]
        for at in range(match.start(), match.end(), _LONGEST):
            yield text[at : min(at + _LONGEST, match.end())]
        place, count = match.end(), count + 1
        if count == _MOST_SENTENCES:
            break
    if place < len(text):
        yield text[place:]


def score(judge: Judge, sentence: str) -> float:
    """Return the log-odds that a sentence gives orders to an assistant: of its worst view. A few letters order nothing."""
    if sum(map(str.isalpha, sentence)) < _FEWEST_LETTERS:
        return _NOTHING
    return max(judge.log_odds("order", one) + judge.taught("order", one) for one in map(order_vector, views(sentence)))


def _origins(request: Request) -> Iterator[str]:
    for message in request.messages:
        for one in message.parts:
            origin = one.origin or message.role
            if origin in DATA:
                yield origin
