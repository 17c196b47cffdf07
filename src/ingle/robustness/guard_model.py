"""A kept model as guard: its family, its prompts, and its opinions. Who opens it, and on whose thread it reads, says whoever has it.

Nothing of what was judged is kept beyond the answer that it was judged for: only the beginning of the template is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ingle.core.energy import Energy
from ingle.core.errors import ConfigError, DeltaError, GuardError, HomeError, NotKept
from ingle.core.message import Message
from ingle.energy.meter import Span, open_meter
from ingle.engine.answer import LabelPrompt, LabelReader, LabelReading, Session, chances, label_prompt
from ingle.engine.language_model import LanguageModel
from ingle.engine.prefix_cache import common_length
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.model.template import render, template_of
from ingle.safety.opinion import AskGuard, GuardCost, GuardOpinion, GuardQuestion
from ingle.safety.policy import GuardPolicy

# A family says how its guard models are asked, and which of their words say what; its template comes with its weights. Facts are those
# of the model cards: Qwen/Qwen3Guard-Gen-0.6B, meta-llama/Llama-Guard-3-1B, ibm-granite/granite-guardian-3.1-2b. DuoGuard is left out: it
# speaks by a head of twelve classes in the place of the words' matrix, which no model here has.


@dataclass(frozen=True, slots=True)
class GuardLabel:
    """A word that a guard model may say."""

    word: str
    weight: float  # its share in the risk


@dataclass(frozen=True, slots=True)
class GuardFamily:
    name: str
    marks: tuple[str, ...]  # texts that all stand in its chat template, by which the family is known
    lead: str  # the beginning of its answer, behind which a label comes; it is not repeated where the template ends with it
    labels: tuple[GuardLabel, ...]
    variables: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # switches of its template


FAMILIES = (
    GuardFamily(
        "Qwen3Guard", ("Safety: Safe", "Safety: Controversial"), "Safety:",
        (GuardLabel(" Safe", 0.0), GuardLabel(" Controversial", 0.5), GuardLabel(" Unsafe", 1.0)),
    ),
    GuardFamily("Granite Guardian", ("guardian_config",), "", (GuardLabel("No", 0.0), GuardLabel("Yes", 1.0)),
                MappingProxyType({"guardian_config": {"risk_name": "harm"}})),
    GuardFamily("Llama Guard", ("UNSAFE CONTENT CATEGORIES", "S1", "S13"), "\n\n", (GuardLabel("safe", 0.0), GuardLabel("unsafe", 1.0))),
)  # fmt: skip


def family_of(template: str, model: str, families: Sequence[GuardFamily] = FAMILIES) -> GuardFamily:
    """Return the family of a chat template. Raises GuardError for one of none."""
    found = next((family for family in families if all(mark in template for mark in family.marks)), None)
    if found is None:
        known = ", ".join(family.name for family in families)
        cure = f"Known families: {known}. For example: ingle pull guard"
        raise GuardError(f"guard model {model}", f"The chat template of {model} is none of a guard that Ingle knows how to ask", "", cure)
    return found


# Tokens of a prompt for a guard, where its context has room for so many: the latest text; more would take minutes on a CPU.
MOST_TOKENS = 4096
_PROBE = "0"  # a text to find out what all prompts of a kind have in common
_ROUNDS = 12
_LONGEST_TOKEN = 12  # characters of text for a token, at most: more can't be meant to fit


class _Cut(NamedTuple):
    prompt: LabelPrompt
    unread: int  # characters that were left out


class GuardModel:
    """An opened guard model. Raises GuardError for a model of no family. Thread-safe."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.family = model, family_of(template_of(model.tokenizer), model.name)
        self.reader = LabelReader(model)
        self._probes: dict[str, LabelPrompt] = {}

    @property
    def most_tokens(self) -> int:
        return min(self.model.backend.config.context_length, MOST_TOKENS)

    def prompt(self, turns: Sequence[Message]) -> LabelPrompt:
        """Return the prompt that asks about the last of these turns. Raises GuardError, TemplateError."""
        tables = [{"role": turn.role, "content": turn.text} for turn in turns]
        pieces = render(self.model.tokenizer, tables, variables=dict(self.family.variables))
        if turns[-1].text.strip() not in "".join(piece for piece in pieces if isinstance(piece, str)):
            raise GuardError(f"guard model {self.model.name}", "leaves out by its template what it is asked about")
        return label_prompt(self.model.tokenizer, pieces, self.family.lead, [label.word for label in self.family.labels])

    def cut(self, turns: Sequence[Message]) -> _Cut:
        """Return the prompt with as much of the latest text as fits. Raises GuardError if none does."""
        whole = sum(len(turn.text) for turn in turns)
        kept = _latest(turns, self.most_tokens * _LONGEST_TOKEN)
        for _ in range(_ROUNDS):
            prompt, left = self.prompt(kept), sum(len(turn.text) for turn in kept)
            if len(prompt.ids) <= self.most_tokens:
                return _Cut(prompt, max(0, whole - left))
            beside = len(self.probe(kept[-1].role).ids)
            share = (self.most_tokens - beside) / max(1, len(prompt.ids) - beside)
            if share <= 0 or left <= 1:
                break
            kept = _latest(kept, max(1, int(left * min(0.95 * share, 0.95))))
        raise GuardError(f"guard model {self.model.name}", f"has a context of {self.most_tokens} tokens, too few for its own template")

    def probe(self, role: str) -> LabelPrompt:
        """Return a prompt about next to nothing, of the kind that asks about this role."""
        if role not in self._probes:
            turns = [Message.of("user", _PROBE), *([Message.of("assistant", _PROBE)] if role == "assistant" else [])]
            self._probes[role] = self.prompt(turns)
        return self._probes[role]


def _latest(turns: Sequence[Message], characters: int) -> list[Message]:
    """Return the end of a conversation, of so many characters at most. It begins with the user, and its last turn stays."""
    kept, left = list[Message](), characters
    for turn in reversed(turns):
        text = turn.text[max(0, len(turn.text) - left) :]
        left -= len(text)
        if not text.strip():
            break
        kept.insert(0, Message.of(turn.role, text))
    return kept if not kept or kept[0].role == "user" else [Message.of("user", "…"), *kept]


@dataclass(eq=False)
class GuardReading:
    """A question on its way through a guard model."""

    guard: GuardModel
    reading: LabelReading
    unread: int
    began: float = field(default_factory=time.perf_counter)

    def opinion(self, energy: Energy) -> GuardOpinion:
        """Return the opinion, once all is read. Raises GuardError for numbers that are none."""
        assert self.reading.logits is not None, "all is read"
        labels = self.guard.family.labels
        found = chances(self.reading.logits)
        risk = float(sum(chance * label.weight for chance, label in zip(found, labels, strict=True)))
        seconds = time.perf_counter() - self.began
        cost = GuardCost(1, self.reading.tokens, self.reading.cached, seconds, energy)
        return GuardOpinion(min(1.0, risk), labels[int(np.argmax(found))].word.strip(), self.unread, cost)


class GuardSession:
    """The questions of one answer to one guard model: each reads only what is new since the last of its kind."""

    def __init__(self, guard: GuardModel) -> None:
        self.guard = guard
        self._kind = ""
        self._session: Session | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its state, which it shares in part."""
        return 0 if self._session is None else self._session.state.nbytes

    def forget(self) -> None:
        """Let the state go: the next question is read from its beginning."""
        self._kind, self._session = "", None

    def begin(self, question: GuardQuestion) -> GuardReading:
        """Begin to read a question. Raises GuardError, TemplateError."""
        kind, guard = question.messages[-1].role, self.guard
        began = time.perf_counter()
        prompt, unread = guard.cut(question.messages)
        shared = common_length(prompt.ids, guard.probe(kind).ids)
        if self._session is None or kind != self._kind:
            self._kind, self._session = kind, guard.reader.session(kind)
        return GuardReading(guard, LabelReading(guard.reader, self._session, prompt, kind, shared), unread, began)


# Opens a guard model by its name, once. Raises NotKept, GuardError and the errors of opening.
OpenGuard = Callable[[str], GuardModel]


def guard_opener(home: Home, policy: GuardPolicy, open_: Callable[[Kept], LanguageModel]) -> OpenGuard:
    """Return what opens the guard models of a policy when they are first asked. Raises ConfigError for one that is not kept."""
    check_guard_models(home, policy)
    return cache(lambda name: GuardModel(open_(get_kept(home, name))))


def asks_here(open_: OpenGuard, told: Callable[[GuardCost], object] = lambda _: None) -> AskGuard:
    """Return what asks guard models on the caller's own thread, for one answer; `told` hears of costs."""
    sessions: dict[str, GuardSession] = {}

    async def ask(question: GuardQuestion) -> GuardOpinion:
        if question.model not in sessions:
            sessions[question.model] = GuardSession(open_(question.model))
        span = Span(open_meter())
        reading = sessions[question.model].begin(question)
        while reading.reading.step() is not None:
            span.tick()
        found = reading.opinion(span.end())
        told(found.cost)
        return found

    return ask


def check_guard_models(home: Home, policy: GuardPolicy) -> None:
    """Raise ConfigError for a guard model that a policy names and the home does not keep."""
    for name, guard in policy.guard_models.items():
        try:
            get_kept(home, name)
        except (NotKept, DeltaError, HomeError) as error:
            cure = "Bring it: ingle pull guard" if name == "guard" else f"Bring it (`ingle pull guard`, or another by --name {name})"
            field_ = f"guards.{guard}.model"
            raise ConfigError(field_, f"names the guard model {name}, which this home can't use", error.sentence, f"{cure}.") from error
