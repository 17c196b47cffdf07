"""Chooses what acts on an answer of all that a user taught: memories for the prompt, and a lesson beside the weights.

The server, `ingle chat`, `ingle "…"` and replay (which names what acted then) share it. Everything is of one owner; nothing that
another one taught is ever read.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ingle.adapt.admit import QUESTION_LENGTH
from ingle.adapt.asking import parse
from ingle.adapt.memory import RecalledExample, placed, question_of, within_budget
from ingle.adapt.scope import ACTS, ASKS, relevance, score
from ingle.core.errors import ContextError, DeltaError, HomeError, NotKept
from ingle.core.example import Example
from ingle.core.media import PictureLook
from ingle.core.message import Request
from ingle.core.report import Fact
from ingle.engine.backend import Backend
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import beside
from ingle.engine.prefix_cache import common_length
from ingle.home.deltas import LESSON, get_delta
from ingle.home.examples import get_example, search_examples
from ingle.home.kept import Kept
from ingle.home.lessons import Lesson, list_lessons
from ingle.home.place import Home

if TYPE_CHECKING:
    from sqlalchemy import Engine

MOST_LOOKED_AT = 64  # most examples that are compared with a question, of those that share words with it, best matches first
MOST_ADAPTERS = 32  # most lessons of one model in memory; each takes 1 to 2 MB


# How an answer of a lesson is drawn, by the names of `Sampling`.
_CERTAIN: Mapping[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


@dataclass(frozen=True, slots=True)
class Choice:
    """The model and the request of an answer, with the memories and lessons that act on it."""

    model: LanguageModel
    request: Request
    memories: tuple[str, ...] = ()  # ids of the examples in the prompt, nearest first
    lessons: tuple[str, ...] = ()  # digests of the lessons beside the model
    # Tokens of the prompt before the first memory. States of more tokens hold its words. None = no memory.
    lasting: int | None = None
    faults: tuple[str, ...] = ()  # reasons why a chosen lesson does not act
    nearly: Example | None = None  # the correction that comes nearest and does not act, but may be meant: whoever asked is asked back

    certain: bool = False  # whether a lesson says it, which is not drawn by lot

    @property
    def facts(self) -> dict[str, Fact]:
        """Ids and digests for the ledger, without a word of what was taught; and how it is drawn, where not as was asked."""
        named = {
            "memories": " ".join(self.memories), "lessons": " ".join(self.lessons), "nearly": self.nearly.id if self.nearly else "",
        }  # fmt: skip
        facts: dict[str, Fact] = {name: ids for name, ids in named.items() if ids}
        return {**facts, **_CERTAIN} if self.certain else facts


@dataclass
class Chooser:
    """Chooses for one home. Thread-safe."""

    home: Home
    engine: "Engine"
    _adapters: "WeakKeyDictionary[Backend, OrderedDict[tuple[str, str], tuple[Any, str]]]" = field(default_factory=WeakKeyDictionary)
    _lock: Lock = field(default_factory=Lock)
    _made: dict[str, set[str]] = field(default_factory=dict)  # by a lesson's digest: digests of the models that were made with it

    def choose(self, owner: str, model: LanguageModel, kept: Kept, request: Request, memory: bool = True) -> Choice:
        """Return what acts on a request of this owner; `memory`: whether memories may. Raises HomeError."""
        if not question_of(request):
            return Choice(model, request)
        lessons = list_lessons(self.engine, owner, kept.digest, acting=True)
        near = self._near(owner, request, kept.name, model)
        held = next((lesson for lesson in lessons if lesson.kind == "answers" and near and near[0].example.lesson == lesson.digest), None)
        acts = held if held is not None and near[0].score >= ACTS and near[0].example.state == "learned" else None
        acts = acts or next((lesson for lesson in reversed(lessons) if lesson.kind == "style"), None)
        choice = self._with_lesson(Choice(model, request), kept, acts)
        recalled = [one for one in near if one.score >= ACTS] if memory else []
        fitting = within_budget(recalled, lambda text: len(model.tokenizer.encode_prompt(text)))
        nearest = next((one for one in near if one.example.kind == "correction"), None) if memory else None
        nearly = nearest.example if nearest is not None and ASKS <= nearest.score < ACTS else None
        return replace(_with_memories(choice, [one.example for one in fitting]), nearly=nearly)

    def again(
        self, owner: str, model: LanguageModel, kept: Kept, request: Request, memories: Sequence[str], lessons: Sequence[str]
    ) -> Choice:
        """Return the choice that a fact names, for a replay. Raises NotKept if something is gone, DeltaError for another model's lesson."""
        examples = [get_example(self.engine, owner, id_) for id_ in memories]
        choice = Choice(model, request)
        for digest in lessons:
            delta = get_delta(self.home, digest)
            choice = _acting(replace(choice, model=beside(self.home, kept, choice.model, delta)), digest, delta.origin.get(LESSON, ""))
        return _with_memories(choice, examples)

    def forget(self) -> None:
        """Drops every lesson from memory."""
        with self._lock:
            self._adapters.clear()

    def lapsed(self) -> set[str]:
        """Drops lessons that no longer act, also those that another process ended. Returns once the digests of the models that were made
        with them, whose states must go too. Raises HomeError."""
        if not self._made:
            return set()
        acting = {lesson.digest for lesson in list_lessons(self.engine, None, acting=True)}
        with self._lock:
            gone = self._made.keys() - acting
            for held in self._adapters.values():
                for key in [key for key in held if key[1] in gone]:
                    del held[key]
            return {model for digest in gone for model in self._made.pop(digest)}

    def _near(self, owner: str, request: Request, name: str, model: LanguageModel) -> list[RecalledExample]:
        """Return the owner's examples by nearness; among equals, those taught to the model of this name first, then the newer. What was
        taught about a picture is near only where that picture, or its like, was shown last.

        Nothing is near to a question that is longer than any that can be taught.
        """
        question = question_of(request)
        if len(question) > QUESTION_LENGTH:
            return []
        examples = search_examples(self.engine, owner, question, MOST_LOOKED_AT)
        facts = [one for one in examples if one.kind == "fact"]
        others = [one for one in examples if one.kind == "correction"]
        scores = [
            *score(question, [one.question for one in others]),
            *relevance(question, [one.answer for one in facts]),
        ]
        memories = [RecalledExample(one, float(score)) for one, score in zip([*others, *facts], scores, strict=True)]
        memories = [one for one in memories if one.score > 0 and (not one.example.picture or _shows(model, request, one.example.picture))]
        memories = [replace(one, score=min(one.score, self._before(request, one.example))) for one in memories]
        return sorted(memories, key=lambda one: (-one.score, one.example.model != name, -one.example.seq))

    def _before(self, request: Request, example: Example) -> float:
        """Return 1; if the example's question leans on the user turn before it, return how near that is to this request's."""
        last = next((text for role, text in reversed(example.before) if role == "user"), "")
        if not last or example.picture or not parse(example.question).leans:
            return 1.0
        previous = next((message.text for message in reversed(request.messages[:-1]) if message.role == "user"), "")
        return float(score(previous, [last])[0]) if previous and len(previous) <= QUESTION_LENGTH else 0.0

    def _with_lesson(self, choice: Choice, kept: Kept, lesson: Lesson | None) -> Choice:
        if lesson is None:
            return choice
        try:
            return _acting(replace(choice, model=self._taught(choice.model, kept, lesson.digest)), lesson.digest, lesson.kind)
        except (DeltaError, HomeError, NotKept) as error:  # the answer goes on without it, and the log says so
            return replace(choice, faults=(str(error),))

    def _taught(self, model: LanguageModel, kept: Kept, digest: str) -> LanguageModel:
        """Return the model with a lesson beside it, from memory if it is there."""
        key = model.adapter_digest, digest
        with self._lock:
            held = self._adapters.setdefault(model.backend, OrderedDict())
            if key in held:
                held.move_to_end(key)
                return _with_adapter(model, held[key])
        taught = beside(self.home, kept, model, get_delta(self.home, digest))
        with self._lock:
            self._made.setdefault(digest, set()).add(taught.digest)
            held[key] = taught.adapter, taught.adapter_digest
            while len(held) > MOST_ADAPTERS:
                held.popitem(last=False)
        return taught


def _shows(model: LanguageModel, request: Request, picture: str) -> bool:
    """Return whether the picture that was shown last is the one of this look, or its like."""
    shown = model.look(request)
    return shown is not None and model.seer is not None and shown.is_like(PictureLook.of(picture), model.seer.sight.likeness)


def _acting(choice: Choice, digest: str, kind: str) -> Choice:
    """Return the choice with the lesson that acts. What it taught as an answer is not drawn by lot."""
    if kind != "answers":
        return replace(choice, lessons=(digest,))
    request = replace(choice.request, sampling=replace(choice.request.sampling, **_CERTAIN))
    return replace(choice, lessons=(digest,), request=request, certain=True)


def _with_adapter(model: LanguageModel, held: tuple[Any, str]) -> LanguageModel:
    return replace(model, adapter=held[0], adapter_digest=held[1])


def _with_memories(choice: Choice, examples: Sequence[Example]) -> Choice:
    """Place examples in the request, nearest first, as many as the context has room for."""
    for count in range(len(examples), 0, -1):
        request = placed(choice.request, examples[:count])
        try:
            with_them = choice.model.encode(request)
        except ContextError:
            continue
        lasting = common_length(choice.model.encode(choice.request), with_them)
        return replace(choice, request=request, memories=tuple(one.id for one in examples[:count]), lasting=lasting)
    return choice
