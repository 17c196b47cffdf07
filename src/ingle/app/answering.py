"""One answer that is asked for, where its text is stored, and how far it is."""

import asyncio
import uuid
from dataclasses import dataclass, field

from ingle.adapt.choosing import Choice
from ingle.core.energy import NOTHING, Energy
from ingle.core.message import Request, Usage, Verdict
from ingle.engine.language_model import LanguageModel
from ingle.safety.limits import RequestLimits
from ingle.safety.opinion import NO_COST, GuardCost
from ingle.safety.policy import GuardPolicy

# An answer that is asked for, where its text is stored, and how far it is.


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the text of an answer is stored in the home."""

    conversation: str = ""  # id of a conversation of the page; empty = the answer is stored by itself, with all messages before it
    parent: str = ""  # turn of the conversation that the answer follows
    learn: bool = True  # whether the weights may learn from later feedback on it, unless the feedback says so itself


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that a client asks for."""

    request: Request
    model: str = ""  # name of a kept model; empty = the default
    asker: str = ""  # id of the API key; empty = somebody on this machine without one
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    keep: Keep | None = None
    # Whether the asker's memories may be placed in the prompt. Lessons in the weights act in any case.
    memory: bool = True

    @property
    def label(self) -> str:
        """Id under which the text is stored; saved states are deleted with it. Empty = not stored."""
        return "" if self.keep is None else self.keep.conversation or self.id


@dataclass
class AnswerRun:
    """An answer that is being written."""

    ask: Ask  # the request as it came, and its seed
    choice: Choice  # the request after memories were added, and the model with its lessons
    policy: GuardPolicy  # the guards' policy that holds for it from its beginning to its end
    seeing: Energy = NOTHING  # the energy that its pictures took
    guarding: GuardCost = NO_COST  # the cost of guard models that were asked about it
    words: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    writing: bool = False  # whether the engine is at it
    blocked: "asyncio.Future[Usage] | None" = None  # where the engine tells what the answer took, when a guard has ended it

    def guarded(self, cost: GuardCost) -> None:
        """Adds what one question to a guard model took."""
        self.guarding = self.guarding.plus(cost)

    @property
    def model(self) -> LanguageModel:
        """The model that answers."""
        return self.choice.model


# The limits of a model that guards check.


def limits_of(model: LanguageModel) -> RequestLimits:
    """Return the limits of this model. Takes some milliseconds the first time."""
    tokenizer = model.tokenizer
    return RequestLimits(model.backend.config.context_length, tokenizer.longest_token, tuple(tokenizer.control))
