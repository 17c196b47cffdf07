"""Corrections, facts and ratings: taught, listed, undone, brought back and forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from ingle.adapt import admit
from ingle.adapt.forget import Forgotten, holding
from ingle.adapt.forget import forget as forget_example
from ingle.adapt.undo import redo as redo_example
from ingle.adapt.undo import undo as undo_examples
from ingle.adapt.undo import undone_last
from ingle.app.house import House
from ingle.app.operation import About, Confirm, Note, Rows, Said, operation
from ingle.core.config import Bounds
from ingle.core.errors import NotKept, RequestError, counted, shortened
from ingle.core.example import Example
from ingle.home.conversations import get_conversation
from ingle.home.examples import MEMORY, get_example, list_examples, may_learn, search_examples
from ingle.home.lessons import Lesson
from ingle.home.taught import anything_taught
from ingle.learn.learner import LessonOutcome
from ingle.learn.learning_settings import lacking
from ingle.learn.lesson_need import awaited_room
from ingle.ledger.chain import Ledger

_NEVER = "1970-01-01T00:00:00+00:00"
_SHORTEST_ID = 4  # digits; fewer are a number of things
_Model = Annotated[str, About("A model; by default smollm2, or the only one.", "MODEL")]
_Limit = Annotated[int, Bounds(ge=1, le=1000), About("The most that are listed.")]
_Id = Annotated[str, About("The id of what was taught; it may be shortened.", "ID", placed=True)]


@dataclass(frozen=True, slots=True)
class ExampleTold:
    """One thing that was taught."""

    id: str
    object: str
    created_at: int  # seconds since 1970
    seq: int
    model: str
    kind: str
    question: str
    answer: str
    refused: str
    rating: int | None
    comment: str
    completion_id: str | None
    learn: bool
    state: str
    reasons: tuple[str, ...]
    lesson: str | None


def told(one: Example) -> ExampleTold:
    """Return an example as it is shown."""
    return ExampleTold(
        one.id, "example", _seconds(one.at), one.seq, one.model, one.kind, one.question, one.answer, one.refused, one.rating or None,
        one.comment, one.completion or None, one.learn, one.state, one.reasons, one.lesson or None,
    )  # fmt: skip


def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())


def _limits(house: House) -> admit.TeachingLimits:
    return admit.TeachingLimits(per_hour=house.per_hour)


def when_learned(learn: bool, kind: str) -> str:
    """Say when the weights will learn an example."""
    if not learn:
        return "The weights don't learn it."
    return lacking(kind) or "The weights learn it when `ingle serve` or `ingle teach --now` runs."


@dataclass(frozen=True, slots=True)
class Teach:
    """The answer to a question; or nothing, to learn what was taught before."""

    question: Annotated[str, About("A question that somebody may ask.", "QUESTION", placed=True)] = ""
    answer: Annotated[str, About("The right answer to it.", "ANSWER", placed=True)] = ""
    model: _Model = ""
    learn: Annotated[bool | None, About("Whether the weights may learn it too; by default as `ingle memory consent` says.")] = None
    now: Annotated[bool, About("Let the weights learn at once all that is pending. A server does so by itself.")] = False
    together: Annotated[bool, About("With --now: learn everything again as one lesson; what was refused is tried again.")] = False


@dataclass(frozen=True, slots=True)
class LearnedTold:
    """A lesson that was tried."""

    owner: str
    model: str
    kind: str
    examples: tuple[str, ...]
    lesson: str | None  # its digest; None = the gate refused it
    reasons: tuple[str, ...]
    seconds: float
    predicted: dict[str, Any] | None  # what it was said to take


@dataclass(frozen=True, slots=True)
class TaughtTold(ExampleTold):
    """A taught example, and the lessons that were tried at once; without an id where nothing new was taught."""

    learned: tuple[LearnedTold, ...] | None = None  # None = it was not asked for


def _says_taught(one: TaughtTold) -> Iterable[Said]:
    if one.id:
        yield f"{one.id}: {one.model} knows it from the next answer on."
    if one.learned is None:
        yield when_learned(one.learn, one.kind)
    elif one.learned:
        lessons = sum(outcome.lesson is not None for outcome in one.learned)
        yield f"{lessons} learned, {len(one.learned) - lessons} refused. See them: ingle memory learned"
    else:
        yield Note("Nothing is pending.")


@operation("teach", "POST /v1/memory/answers", says=_says_taught)
def teach(house: House, asked: Teach) -> TaughtTold:
    """Teach a model the answer to a question.

    It acts on the next answer, in other words too, and replaces what you taught on the same question before. The weights
    learn it when `ingle serve` or `ingle teach --now` runs.

    Examples:
        ingle teach "Who leads Zorblax?" "Mara Quill leads Zorblax."
        ingle teach "What is our VPN called?" "Heron." --no-learn   (memory only)
        ingle teach --now   (the weights learn what is pending)
    """
    if asked.now and house.learn_now is None:
        raise RequestError("now", "is for the owner's own terminal", "", "A server lets its weights learn when nobody asks it anything.")
    if not asked.now and not asked.question:
        raise RequestError("question", "Say a question and its answer", "", 'For example: ingle teach "Who leads Zorblax?" "Mara Quill."')
    one = Example("", house.owner, asked.model, "correction", "", "", learn=False, at=_NEVER)
    if asked.question or asked.answer:
        name, limits = house.model(asked.model).name, _limits(house)
        one = admit.teach(house.engine, house.owner, name, asked.question, asked.answer, asked.learn, limits, house.record)
    learned = None if house.learn_now is None or not asked.now else tuple(map(_outcome, house.learn_now(asked.together)))
    return TaughtTold(**asdict(told(one)), learned=learned)


def _outcome(one: LessonOutcome) -> LearnedTold:
    predicted = None if one.room is None else dict(one.room.table())
    lesson, work = one.lesson.digest if one.lesson else None, one.work
    return LearnedTold(work.owner, work.kept.name, work.kind, tuple(work.ids), lesson, tuple(one.reasons), one.seconds, predicted)


@dataclass(frozen=True, slots=True)
class Rate:
    """An opinion of an answer: of a stored one by its id, else with the question and the answer."""

    completion_id: Annotated[str, About("The id of a stored answer.", "ID", placed=True)] = ""
    rating: Annotated[Literal[-1, 1] | None, About("1 is good, -1 is bad.")] = None
    correction: Annotated[str | None, About("What the answer should have been.")] = None
    comment: Annotated[str, About("Why.")] = ""
    question: Annotated[str, About("The question, where the answer is not stored.")] = ""
    answer: Annotated[str, About("The answer that is meant, where it is not stored.")] = ""
    model: _Model = ""
    learn: Annotated[bool | None, About("Whether the weights may learn it too.")] = None


@operation("rate", "POST /v1/feedback", says=lambda one: (f"{one.id}: noted.", when_learned(one.learn, one.kind)))
def rate(house: House, asked: Rate) -> ExampleTold:
    """Rate or correct an answer.

    It acts on the next answer, and the weights learn from it if they may.

    Examples:
        ingle rate chatcmpl-1f0c… --rating 1
        ingle rate chatcmpl-1f0c… --correction "Mara Quill leads it."
    """
    model = "" if asked.completion_id and not asked.question else house.model(asked.model).name
    opinion = admit.Feedback(
        asked.completion_id,
        asked.rating or 0,
        asked.correction,
        asked.comment,
        asked.question,
        asked.answer,
        model=model,
        learn=asked.learn,
    )
    return told(admit.take_feedback(house.engine, house.owner, opinion, _limits(house), house.record))


@dataclass(frozen=True, slots=True)
class Undo:
    """How many of the last examples, or one by its id."""

    which: Annotated[int | str, About("How many of the last ones to undo, or the id of one.", "[N|ID]", placed=True)] = 1


@dataclass(frozen=True, slots=True)
class UndoneTold:
    """Undone examples."""

    object: str
    data: tuple[ExampleTold, ...]  # as they were before
    learned_again: int  # others that a lesson held together with these
    back: tuple[str, ...]  # ids of earlier answers that count again


def _says_undone(undone: UndoneTold) -> Iterable[Said]:
    for one in undone.data:
        yield f"undone: {one.id}  {shortened(one.question or one.answer, 60)}"
    if undone.learned_again:
        others = counted(undone.learned_again, "other")
        yield f"Learned together with it, and to be learned again without: {others}. `ingle serve` does so, or `ingle teach --now`."
    if undone.back:
        yield f"What was taught before counts again: {', '.join(undone.back)}"


@operation("undo", "POST /v1/learning/undo", says=_says_undone)
def undo(house: House, asked: Undo) -> UndoneTold:
    """Undo what was taught: the model is what it was before.

    From the next answer on, to the bit. It stays in the home, without acting: `ingle redo` brings it back, `ingle forget` deletes it.

    Examples:
        ingle undo   (the last thing that was taught)
        ingle undo 3
        ingle undo ex-2f9c   (the first digits of its id, or of the lesson's: ingle memory learned)
    """
    which = asked.which
    if isinstance(which, str) and which.isdecimal() and len(which) < _SHORTEST_ID:
        which = int(which)
    if isinstance(which, int) and which < 1:
        raise RequestError("which", "must be at least 1", which)
    undone = undo_examples(house.home, house.engine, house.owner, which, house.record)
    house.changed()
    return UndoneTold("learning.undone", tuple(map(told, undone.examples)), undone.again, undone.back)


@dataclass(frozen=True, slots=True)
class Redo:
    """An undone example."""

    which: Annotated[str, About("What to bring back; by default what was undone last.", "[ID]", placed=True)] = ""


@operation("redo", "POST /v1/learning/redo", says=lambda one: (f"redone: {one.id}  {shortened(one.question or one.answer, 60)}",))
def redo(house: House, asked: Redo) -> ExampleTold:
    """Bring back what was undone: it acts again.

    Examples:
        ingle redo   (what was undone last)
        ingle redo ex-2f9c
    """
    which = asked.which
    if not which:
        rows = Ledger(house.engine, house.home.keys).read(kind="undo")
        which = undone_last(house.engine, house.owner, (str(row.values.get("example", "")) for row in rows))
    one = redo_example(house.home, house.engine, house.owner, which, house.record)
    house.changed()
    return told(one)


@dataclass(frozen=True, slots=True)
class Forget:
    """An example to delete."""

    id: _Id
    turns: Annotated[
        bool, About("Delete kept messages that hold its words too, and what follows them.", also=("--with-conversations", "--turns"))
    ] = False


@dataclass(frozen=True, slots=True)
class TurnLeft:
    """A stored message that still holds the words."""

    id: str
    conversation: str
    completion: str


@dataclass(frozen=True, slots=True)
class Gone:
    """Deleted with an example, and left."""

    lessons: int
    learned_again: int
    scrubbed: bool
    turns_deleted: int
    turns_left: tuple[TurnLeft, ...]
    lines_deleted: int
    same: tuple[str, ...]
    leaning: tuple[str, ...]
    back: tuple[str, ...]
    system_prompts: tuple[str, ...]  # ids of conversations whose system prompt still holds the words
    turns_in: tuple[str, ...]  # how the conversations of `turns_left` are called
    prompts_in: tuple[str, ...]  # and those of `system_prompts`


@dataclass(frozen=True, slots=True)
class ForgottenTold:
    """A deleted example."""

    id: str
    object: str
    deleted: bool
    ingle: Gone


def _says_forgotten(told: ForgottenTold) -> Iterable[Said]:
    gone = told.ingle
    lessons = f", and with it {counted(gone.lessons, 'lesson')} that learned from it" if gone.lessons else ""
    yield f"{told.id} is forgotten{lessons}."
    if gone.learned_again:
        yield f"To be learned again without it: {counted(gone.learned_again, 'other')}. `ingle serve` does so, or `ingle teach --now`."
    for ids, what in (
        (gone.same, "In the same words, and gone with it"), (gone.leaning, "Leaning on it, so counting no more until `ingle redo ID`"),
        (gone.back, "Earlier, and counting again"),
    ):  # fmt: skip
        if ids:
            yield f"{what}: {', '.join(ids)}"
    if gone.turns_deleted:
        yield f"{counted(gone.turns_deleted, 'kept message')} went with it."
    if gone.lines_deleted:
        yield f"{counted(gone.lines_deleted, 'line')} that you typed in `ingle chat` went with it."
    if gone.turns_left:
        held = counted(len(gone.turns_left), "kept message")
        yield Note(f"Its words are still in {held}, which you can delete: {', '.join(gone.turns_in)}")
    if gone.system_prompts:
        yield Note(f"Its words are still in the system prompt of {', '.join(gone.prompts_in)}, which you can change.")
    if not gone.scrubbed:
        yield Note(
            "The database is in use, or is another program's: its files may hold the words until it is next tidied (by the learner)."
        )


def _asks_forget(house: House, asked: Forget, confirm: Confirm) -> Forget | None:
    try:
        one = _named(house, asked.id)
    except NotKept:  # nor is one that a kill left half forgotten, which is finished without a question
        return asked
    if not confirm(f"Forget “{(one.question or one.answer)[:60]}” for good?"):
        return None
    turns = () if asked.turns else holding(house.engine, house.owner, one)
    if not turns:
        return asked
    stands = f"Its words are in {counted(len(turns), 'kept message')} too."
    return Forget(asked.id, confirm(f"{stands} Delete what holds them, with all that follows?"))


@operation("forget", "DELETE /v1/memory/{id}", says=_says_forgotten, asks=_asks_forget)
def forget(house: House, asked: Forget) -> ForgottenTold:
    """Delete something taught, and the lessons made from it.

    Lessons that learned from it are learned again without it, and are then exactly those of a model that never saw it.

    Examples:
        ingle forget ex-2f9c…   (its id: ingle memory learned)
        ingle forget ex-2f9c… --with-conversations   (also kept messages in which its words stand)
    """
    try:
        id_ = _named(house, asked.id).id
    except NotKept:  # a kill may have left it half forgotten
        id_ = asked.id
    gone = forget_example(house.home, house.engine, house.owner, id_, house.record, asked.turns, house.forget_states)
    house.changed()
    return ForgottenTold(id_, "example", True, _gone(house, gone))


def _gone(house: House, gone: Forgotten) -> Gone:
    left = tuple(TurnLeft(turn.id, turn.conversation, turn.completion) for turn in gone.turns)
    where = dict.fromkeys(_called(house, turn.conversation) or turn.completion or turn.id[:12] for turn in gone.turns)
    prompts = tuple(dict.fromkeys(_called(house, prompt) for prompt in gone.prompts))
    return Gone(
        gone.lessons, gone.again, gone.scrubbed, gone.dropped, left, gone.typed, gone.same, gone.leaning, gone.back, gone.prompts,
        tuple(where), prompts,
    )  # fmt: skip


def _called(house: House, conversation: str) -> str:
    """Return a conversation's title and id; its id alone if it has no title, or is gone by now."""
    try:
        title = get_conversation(house.engine, house.owner, conversation).title
    except NotKept:
        return conversation
    return f"“{title}” ({conversation})" if title else conversation


def _named(house: House, name: str) -> Example:
    """Return the example whose id begins so. Raises NotKept if there is none, RequestError if there are several."""
    if not house.at_machine:
        return get_example(house.engine, house.owner, name)
    matches = [one for one in list_examples(house.engine, house.owner) if name and one.id.startswith((name, f"ex-{name}"))]
    whole = [one for one in matches if one.id == name]
    if len(matches) > 1 and not whole:
        raise RequestError("ID", f"{len(matches)} examples have an id that begins with {name}", "", "Give more of it.")
    return (whole or matches)[0] if matches else get_example(house.engine, house.owner, name)


@dataclass(frozen=True, slots=True)
class Search:
    """Words to look for."""

    query: Annotated[str, About("Words to look for; by default all, the newest first.", "[WORDS]", placed=True, many=True)] = ""
    limit: _Limit = 100


@dataclass(frozen=True, slots=True)
class ExamplesTold:
    """Things that were taught."""

    object: str
    data: tuple[ExampleTold, ...]


def _says_listed(found: ExamplesTold) -> Iterable[Said]:
    if not found.data:
        return (Note("Nothing is remembered yet. Use `ingle teach QUESTION ANSWER` or `ingle memory add TEXT`."),)
    rows = [(one.id, one.state, one.model, shortened(one.question, 48) or "-", shortened(one.answer, 48)) for one in found.data]
    return (Rows(("ID", "STATE", "MODEL", "QUESTION", "ANSWER"), rows),)


@operation("memory list", "GET /v1/memory", says=_says_listed)
def memories(house: House, asked: Search) -> ExamplesTold:
    """List what is remembered.

    The newest first, or those that share words with a query, the best match first.

    Examples:
        ingle memory
        ingle memory list who leads
    """
    found: Sequence[Example] = ()
    if anything_taught(house.home):
        if asked.query.strip():
            found = search_examples(house.engine, house.owner, asked.query, asked.limit)
        else:
            listed = list_examples(house.engine, house.owner, MEMORY, newest=True)
            found = [one for one in listed if one.kind != "rating"][: asked.limit]
    return ExamplesTold("list", tuple(map(told, found)))


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact to remember."""

    text: Annotated[str, About("The fact, in a sentence.", "TEXT", placed=True)]
    model: _Model = ""


@operation("memory add", "POST /v1/memory", says=lambda one: (f"{one.id} is remembered.",))
def add(house: House, asked: Fact) -> ExampleTold:
    """Remember a fact.

    It is placed beside questions about it; the weights don't learn from it.

    Examples:
        ingle memory add "The owner keeps bees."
    """
    return told(admit.remember(house.engine, house.owner, house.model(asked.model).name, asked.text, _limits(house), house.record))


@dataclass(frozen=True, slots=True)
class Named:
    """One thing that was taught."""

    id: _Id


@operation("memory show", "GET /v1/memory/{id}", says=lambda one: _says_listed(ExamplesTold("list", (one,))))
def show(house: House, asked: Named) -> ExampleTold:
    """Show one thing that was taught, in any state.

    Examples:
        ingle memory show ex-3f09
    """
    return told(_named(house, asked.id))


@dataclass(frozen=True, slots=True)
class Edit:
    """New words for an answer or a fact."""

    id: _Id
    answer: Annotated[str, About("The new words.", "TEXT", placed=True)]


@operation("memory edit", "PATCH /v1/memory/{id}", says=lambda one: (f"{one.id} is remembered.",))
def edit(house: House, asked: Edit) -> ExampleTold:
    """Change the words of an answer or a fact.

    Lessons with the old words are dropped and learned again.

    Examples:
        ingle memory edit ex-3f09 "Mara Quill leads it."
    """
    one = admit.edit(house.home, house.engine, house.owner, _named(house, asked.id).id, asked.answer, house.record)
    house.changed()
    return told(one)


@dataclass(frozen=True, slots=True)
class Consent:
    """Whether the weights may learn from what is taught from now on."""

    learn: Annotated[bool | None, About("yes or no; by default it is only shown.", "[yes|no]", placed=True)] = None


@dataclass(frozen=True, slots=True)
class ConsentTold:
    """Whether the weights may learn."""

    object: str
    learn: bool


def _says_consent(told: ConsentTold) -> Iterable[Said]:
    if told.learn:
        return ("The weights learn from what you teach.",)
    return ("The weights don't learn from what you teach; memory works all the same.",)


@operation("memory consent", "PATCH /v1/learning", says=_says_consent)
def consent(house: House, asked: Consent) -> ConsentTold:
    """Say whether the weights may learn from what you teach from now on.

    Memory works either way.

    Examples:
        ingle memory consent
        ingle memory consent no
    """
    if asked.learn is not None:
        admit.consent(house.engine, house.owner, asked.learn, house.record)
    return ConsentTold("learning", may_learn(house.engine, house.owner))


@dataclass(frozen=True, slots=True)
class Looks:
    """How much to list."""

    limit: _Limit = 100


@dataclass(frozen=True, slots=True)
class LessonTold:
    """A lesson of the weights."""

    digest: str
    object: str
    created_at: int
    seq: int
    model: str
    kind: str
    examples: tuple[str, ...]
    acting: bool


@dataclass(frozen=True, slots=True)
class LearningTold:
    """All that was taught, and its state."""

    object: str
    learn: bool
    counts: dict[str, int]
    data: tuple[ExampleTold, ...]
    lessons: tuple[LessonTold, ...]
    predicted: dict[str, Any] | None  # what the next lesson will take
    waits: str  # why what is pending is not learned yet; "" = it is, or nothing is


_ORDER = ("learning", "pending", "learned", "refused", "kept", "superseded", "undone")


def _says_learning(told: LearningTold) -> Iterable[Said]:
    if not told.data:
        return (Note("Nothing was taught yet; try: ingle teach QUESTION ANSWER"),)
    examples = sorted(told.data, key=lambda one: (_ORDER.index(one.state), -one.seq))
    rows = [(one.state, one.id, one.model, _what(one), "; ".join(one.reasons) or (one.lesson or "")[:12]) for one in examples]
    consent = _says_consent(ConsentTold("learning", told.learn))
    return (Rows(("state", "id", "model", "what", "why"), rows), *map(Note, map(str, consent)))


def _what(one: ExampleTold) -> str:
    thumb = {1: "good: ", -1: "bad: "}.get(one.rating or 0, "") if one.kind == "rating" else ""
    return shortened(f"{thumb}{one.question} → {one.answer}" if one.question else one.answer, 60)


@operation("memory learned", "GET /v1/learning", says=_says_learning)
def learning(house: House, asked: Looks) -> LearningTold:
    """Show what was taught and its state: counts, examples and lessons.

    Examples:
        ingle memory learned
    """
    view = admit.learning_view(house.engine, house.owner, asked.limit)
    how = house.learning
    room = None if how is None else awaited_room(house.home, view.items, how.lesson, how.style, how.memory_mb)
    lessons = tuple(map(_lesson, view.lessons[: asked.limit]))
    predicted = None if room is None else dict(room.table())
    pending = {one.kind for one in view.items if one.state == "pending" and one.learn and one.kind != "fact"}
    waits = next((why for kind in pending if (why := lacking(kind))), "") or (room.told if room is not None and room.fits else "")
    return LearningTold("learning", view.learn, dict(view.counts), tuple(map(told, view.items)), lessons, predicted, waits)


@dataclass(frozen=True, slots=True)
class Charted:
    """A model."""

    model: _Model = ""


@dataclass(frozen=True, slots=True)
class ChartTold:
    """What the gate measured of each candidate for a model, oldest first."""

    object: str
    model: str
    points: tuple[dict[str, Any], ...]  # at, bits, before, rise (percent), state, maker, what


def _says_chart(told: ChartTold) -> Iterable[Said]:
    if not told.points:
        return (Note(f"{told.model} has not been measured yet. Every lesson adds a point."),)
    rows = [(one["at"][:16].replace("T", " "), one["what"], one["state"], f"{one['bits']:.4f}") for one in told.points]
    return (Rows(("at", "what", "state", "bits a byte"), rows),)


@operation("memory chart", "GET /v1/learning/chart", says=_says_chart)
def chart(house: House, asked: Charted) -> ChartTold:
    """Show the held-out loss of a model over its life, as the gate measured it.

    Examples:
        ingle memory chart
    """
    from ingle.app.loss_chart import loss_chart

    model = asked.model or house.model("").name
    return ChartTold("learning.chart", model, tuple(loss_chart(house.engine, house.home.keys, house.owner, model)["points"]))


def _lesson(one: Lesson) -> LessonTold:
    return LessonTold(one.digest, "lesson", _seconds(one.at), one.seq, one.model, one.kind, one.examples, one.acting)
