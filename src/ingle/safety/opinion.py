"""Questions to a kept guard model, and its opinions. Whoever has an engine answers (`AskGuard`); this room has none."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ingle.core.energy import NOTHING, Energy
from ingle.core.errors import GuardError
from ingle.core.message import Message, Request
from ingle.core.report import Fact
from ingle.safety.policy import GuardRule
from ingle.safety.texts import Speaker

_NOBODY = "…"  # stands for a user before an assistant who speaks first: templates want them in turns


class GuardCost(NamedTuple):
    asked: int = 0  # questions
    tokens: int = 0  # tokens that were read
    cached: int = 0  # tokens that were known, beside these
    seconds: float = 0.0
    energy: Energy = NOTHING

    def plus(self, other: "GuardCost") -> "GuardCost":
        asked, tokens, cached = self.asked + other.asked, self.tokens + other.tokens, self.cached + other.cached
        return GuardCost(asked, tokens, cached, self.seconds + other.seconds, self.energy + other.energy)

    def facts(self) -> dict[str, Fact]:
        """Return it for a fact of the ledger; nothing if nobody was asked."""
        numbers: dict[str, Fact] = {"guard_asked": self.asked, "guard_tokens": self.tokens, "guard_cached_tokens": self.cached}
        more: dict[str, Fact] = {"guard_ms": round(1000 * self.seconds, 1), "guard_joules": self.energy.table()["joules"]}
        return numbers | more if self.asked else {}

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens, {1000 * self.seconds:,.0f} ms, {self.energy.joules:.2g} J"


NO_COST = GuardCost()


class GuardQuestion(NamedTuple):
    """The conversation up to the message that is judged: a user's request, or an assistant's answer."""

    model: str  # name of the kept guard model
    messages: tuple[Message, ...]  # the user and the assistant in turns, the user first, words alone


class GuardOpinion(NamedTuple):
    risk: float  # 0 to 1: the probability of each label, times its weight
    label: str  # the likeliest
    unread: int = 0  # characters at the beginning that did not fit
    cost: GuardCost = NO_COST


# Asks a kept guard model. In a server it waits for its turn; in a terminal it never waits for an event loop.
#
# Raises NotKept, GuardError and whatever reading raises.
AskGuard = Callable[[GuardQuestion], Awaitable[GuardOpinion]]


async def nobody(question: GuardQuestion) -> GuardOpinion:
    """Answer for a guard model that nobody opened. Raises GuardError."""
    raise GuardError(f"guard model {question.model}", "is not open here")


def turns_of(request: Request) -> tuple[Message, ...]:
    """Return a request as guard models read it: all words in turns of user and assistant. Nothing of a prompt of token ids.

    System messages and tools' results count as the user's side, so that nothing is hidden in them.
    """
    if request.prompt is not None:
        return (Message.of("user", request.prompt),) if isinstance(request.prompt, str) and request.prompt.strip() else ()
    return in_turns(request.messages)


def in_turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return messages with neighbours of one side as one, the user's first; those without words are left out."""
    turns: list[tuple[Speaker, str]] = []
    for message in messages:
        side: Speaker = "assistant" if message.role == "assistant" else "user"
        if not (text := message.text.strip()):  # padding would push out what is meant
            continue
        if turns and turns[-1][0] == side:
            turns[-1] = side, f"{turns[-1][1]}\n\n{text}"
        else:
            turns.append((side, text))
    if turns and turns[0][0] == "assistant":
        turns.insert(0, ("user", _NOBODY))
    return tuple(Message.of("assistant" if side == "assistant" else "user", text) for side, text in turns)


def question_of(rule: GuardRule, turns: tuple[Message, ...], answer: str = "") -> GuardQuestion:
    more = (Message.of("assistant", answer),) if answer else ()
    return GuardQuestion(rule.model, in_turns((*turns, *more)))
