"""Takes in what users teach: checks it, stores it as an example, and writes one fact without a word of it to the ledger.

The latest answer to a question counts. An earlier one of the same owner and model becomes `superseded` and stays on record. Order is
that of `seq`, so a clock that goes backwards harms nothing. When a call returns, row and fact would survive a power cut.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ingle.adapt.account import digests, feedback_event
from ingle.adapt.memory import asked_in
from ingle.core.errors import Busy, NotKept, RequestError
from ingle.core.example import Example, State
from ingle.core.report import Event, Fact, Sink
from ingle.home.database import writing_for
from ingle.home.example_states import restore
from ingle.home.examples import (
    count_examples,
    count_since,
    drop_example,
    get_example,
    insert_example,
    list_examples,
    may_learn,
    new_secret,
    rewrite_example,
    same_asked,
    set_consent,
)
from ingle.home.lessons import Lesson, dissolve_lesson, list_lessons
from ingle.home.place import Home
from ingle.home.quoting import UNSEEN, cleaned, with_line_feeds
from ingle.home.staging import discard
from ingle.home.turns import Turn, find_completion, path

if TYPE_CHECKING:
    from sqlalchemy import Engine

QUESTION_LENGTH = 8_000
# Most characters of a correction or a fact. Anything longer is a document, which can't be learned in seconds.
ANSWER_LENGTH = 8_000
RATED_LENGTH = 100_000  # most characters of a question or an answer that is only rated
COMMENT_LENGTH = 2_000
_BEFORE = 16  # turns before the question that are stored with it
_FLAGS = re.compile(
    "\U0001f3f4(?:" + "|".join("".join(chr(0xE0000 + ord(c)) for c in name) for name in ("gbeng", "gbsct", "gbwls")) + ")\U000e007f"
)
_ID = re.compile(r"[\w.:-]{0,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TeachingLimits:
    """How much one owner may teach. Beyond it, the refusal says when or how to go on."""

    per_hour: int = 600  # examples an hour; 0 = no limit
    kept: int = 5_000  # stored examples; every answer searches them


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback on an answer: on a stored one by its id, or on one whose words come with it."""

    completion: str = ""  # id of a stored answer; "" = none
    rating: int = 0  # −1, 1, or 0 for none
    correction: str | None = None  # the answer that is right instead
    comment: str = ""
    question: str = ""  # the question, if the answer is not stored
    answer: str = ""  # the answer; of several answers to one request, the one that is meant
    before: tuple[tuple[str, str], ...] = ()  # (role, text) of the turns before the question, if the answer is not stored
    model: str = ""  # name of the model that answered, if the answer is not stored
    picture: str = ""  # the look of the picture that the question was about, if the answer is not stored; see `Example.picture`
    # Whether the weights may learn from it; None = as the answer's request says, else as its owner says (`may_learn`).
    learn: bool | None = None


@dataclass(frozen=True, slots=True)
class LearningView:
    """One owner's examples, and their states."""

    learn: bool  # whether the weights may learn from what is taught from now on
    counts: Mapping[str, int]  # number of examples by state
    items: tuple[Example, ...]  # examples, newest first
    lessons: tuple[Lesson, ...] = field(default=())  # lessons, newest first: those that act, and those that were undone


def take_feedback(
    engine: "Engine", owner: str, feedback: Feedback, limits: TeachingLimits = TeachingLimits(), sink: Sink = lambda _: None
) -> Example:  # fmt: skip
    """Store a rating or a correction.

    Raises NotKept for an id that is no stored answer of this owner, unless its words are given; RequestError for empty or too long
    text and for invisible characters; Busy above the hourly limit; HomeError and LedgerError if nothing can be written: then nothing
    is stored.
    """
    if not _ID.fullmatch(feedback.completion):
        raise RequestError("completion_id", "must be an id: up to 80 letters, digits and . : _ -", feedback.completion[:80])
    turn = find_completion(engine, owner, feedback.completion) if feedback.completion else None
    if turn is None and feedback.completion and not feedback.question:
        cure = "Ask with `store: true`, or give `question` and `answer` too."
        raise NotKept("completion_id", "must name a stored answer of yours", feedback.completion[:80], cure)
    if feedback.rating not in (-1, 0, 1):
        raise RequestError("rating", "must be -1 or 1", feedback.rating)
    if feedback.correction is None and not feedback.rating:
        raise RequestError("rating", "Give a rating or a correction")
    rated = _from_feedback(feedback) if turn is None else _from_turn(engine, owner, turn, feedback)
    comment = _checked("comment", feedback.comment, COMMENT_LENGTH) if feedback.comment.strip() else ""
    learn = not rated.picture and _may(engine, owner, turn, feedback)  # weights would learn the words, and answer so to every picture
    example = Example(
        "", owner, rated.model, "rating", rated.question, rated.answer, before=rated.before, rating=feedback.rating, comment=comment,
        completion=feedback.completion, picture=rated.picture, learn=learn, state="pending" if learn else "kept",
    )  # fmt: skip
    if feedback.correction is None:
        _bounded("answer", rated.answer, RATED_LENGTH)
        _bounded("question", rated.question, RATED_LENGTH)
        return _store(engine, example, limits, sink)
    correction = _checked("correction", feedback.correction, ANSWER_LENGTH)
    if correction == rated.answer:
        raise RequestError("correction", "The correction is what the answer said already", "To approve of it, rate it 1.")
    _bounded("question", rated.question, QUESTION_LENGTH)
    return _store(engine, replace(example, kind="correction", answer=correction, refused=rated.answer[:RATED_LENGTH]), limits, sink)


def teach(
    engine: "Engine", owner: str, model: str, question: str, answer: str, learn: bool | None = None,
    limits: TeachingLimits = TeachingLimits(), sink: Sink = lambda _: None,
) -> Example:  # fmt: skip
    """Store the right answer to a question. Raises the errors of `take_feedback`."""
    question, answer = _checked("question", question, QUESTION_LENGTH), _checked("answer", answer, ANSWER_LENGTH)
    learns = may_learn(engine, owner) if learn is None else learn
    example = Example("", owner, model, "correction", question, answer, learn=learns, state="pending" if learns else "kept")
    return _store(engine, example, limits, sink)


def remember(
    engine: "Engine", owner: str, model: str, text: str, limits: TeachingLimits = TeachingLimits(), sink: Sink = lambda _: None
) -> Example:  # fmt: skip
    """Store a fact to remember. The weights don't learn from it. Raises the errors of `take_feedback`."""
    fact = Example("", owner, model, "fact", "", _checked("text", text, ANSWER_LENGTH), learn=False, state="kept")
    return _store(engine, fact, limits, sink)


def edit(home: Home, engine: "Engine", owner: str, id_: str, answer: str, sink: Sink = lambda _: None) -> Example:
    """Change the answer of an example. A lesson with the old one is dropped, and all its examples are learned again.

    Raises NotKept if the owner has no such example, RequestError as `take_feedback` does, and for a rating, which can't be changed.
    """
    before = get_example(engine, owner, id_)
    if before.kind == "rating":
        raise RequestError("id", "must name a correction or a fact, not a rating", "Rate the answer again.")
    if before.state in ("superseded", "undone"):
        cure = "Let it count again first (`ingle redo ID`), or teach the answer again."
        raise RequestError("id", "must name something that counts now", f"{before.state}: {id_}", cure)
    answer = _checked("answer", answer, ANSWER_LENGTH)
    if answer == before.answer:
        return before
    held = [lesson for lesson in list_lessons(engine, owner) if id_ in lesson.examples]
    secret, edited = new_secret(), replace(before, answer=answer)
    facts: dict[str, Fact] = {"example": id_, "kind": before.kind, "lessons": len(held), **digests(bytes.fromhex(secret), edited)}
    sink(Event("memory.edit", before.model, facts))
    example = rewrite_example(engine, owner, id_, answer, secret)
    for lesson in held:
        dissolve_lesson(engine, owner, lesson.digest)
        discard(home, home.delta_folder(lesson.digest))
    return example


def consent(engine: "Engine", owner: str, learn: bool, sink: Sink = lambda _: None) -> None:
    """Set whether the weights may learn from what this owner teaches from now on. What they learned stays until it is undone."""
    facts: dict[str, Fact] = {"learn": learn}
    sink(Event("consent", "", facts | ({"key": owner} if owner else {})))
    set_consent(engine, owner, learn)


def learning_view(engine: "Engine", owner: str, limit: int = 100, states: Sequence[State] = ()) -> LearningView:
    """Return counts of all that the owner taught, and the newest examples."""
    items = list_examples(engine, owner, states, limit=limit, newest=True)
    return LearningView(may_learn(engine, owner), count_examples(engine, owner), items, list_lessons(engine, owner)[::-1])


@dataclass(frozen=True, slots=True)
class _Rated:
    """The answer that feedback is about, with its question."""

    model: str
    question: str
    answer: str
    before: tuple[tuple[str, str], ...] = ()
    picture: str = ""


def _from_feedback(feedback: Feedback) -> _Rated:
    """Return the answer whose words come with the feedback."""
    question = _checked("question", feedback.question, RATED_LENGTH)
    if feedback.correction is None or feedback.answer.strip():
        answer = cleaned(feedback.answer)
        if not answer:
            raise RequestError("answer", "Give the answer that is rated")
    else:
        answer = ""
    before = tuple((role, cleaned(text)) for role, text in feedback.before[-_BEFORE:])
    return _Rated(feedback.model, question, answer, before, feedback.picture)


def _from_turn(engine: "Engine", owner: str, turn: Turn, feedback: Feedback) -> _Rated:
    """Return the stored answer."""
    facts = turn.facts or {}
    turns = [(one.message.role, cleaned(asked_in(one.message))) for one in path(engine, owner, turn.id)[:-1]]
    asked_at = max((i for i, (role, text) in enumerate(turns) if role == "user" and text), default=None)
    if asked_at is None:
        raise RequestError("completion_id", "must name an answer to a question", "one without")
    system = [("system", cleaned(str(text))) for text in facts.get("request", {}).get("system", [])]
    before = (*system, *turns[max(0, asked_at - _BEFORE) : asked_at])
    answer = cleaned(feedback.answer) or cleaned(turn.message.text)
    return _Rated(str(facts.get("model_name", "")) or feedback.model, turns[asked_at][1], answer, before, str(facts.get("look", "")))


def _may(engine: "Engine", owner: str, turn: Turn | None, feedback: Feedback) -> bool:
    if feedback.learn is not None:
        return feedback.learn
    return (turn is None or bool((turn.facts or {}).get("learn", True))) and may_learn(engine, owner)


def _store(engine: "Engine", example: Example, limits: TeachingLimits, sink: Sink) -> Example:
    """Write the row, then the fact. If the fact can't be written, delete the row again."""
    with writing_for(engine, example.owner) as connection:
        now = datetime.now(UTC)
        since, until = (moment.isoformat(timespec="microseconds") for moment in (now - timedelta(hours=1), now))
        every, recent = count_since(connection, example.owner, since, until)
        if limits.per_hour and recent >= limits.per_hour:
            raise Busy("feedback", f"Only {limits.per_hour} corrections and ratings an hour are taken", "", "Go on later.", 600.0)
        if every >= limits.kept:
            cure = "Delete some first: `ingle forget ID`, or DELETE /v1/memory/ID."
            raise RequestError("feedback", f"must be at most {limits.kept:,} examples in all", f"{every + 1:,}", cure)
        before = same_asked(connection, example)
        stored = insert_example(connection, example, [one.id for one in before])
    try:
        sink(feedback_event(engine, stored, len(before)))
    except BaseException:
        drop_example(engine, stored.owner, stored.id)
        restore(engine, example.owner, before)
        raise
    return stored


def _checked(name: str, text: str, most: int) -> str:
    """Return a user's text, stripped and with line feeds. Raises RequestError."""
    text = with_line_feeds(text).strip()
    if not text:
        raise RequestError(name, "must say something", "nothing")
    _bounded(name, text, most)
    if unseen := UNSEEN.search(_FLAGS.sub("", text)):
        raise RequestError(name, "must hold no control characters or invisible ones", f"U+{ord(unseen[0]):04X}", "Remove them.")
    return text


def _bounded(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise RequestError(name, f"must be at most {most:,} characters", f"{len(text):,}")
