"""Forget: deletes an example from the database, its index, all states that have read it, and every lesson that learned from it.

The other examples of such a lesson are learned again without it, with the same settings and seeds: the tensors are then those of a
model that never saw it. The ledger still says that there was an example, but its digests were made with a key that is deleted too.

Turns with its words before other examples' questions are deleted, and so are lines typed in `ingle chat`. Conversations and system
prompts stay, for they are the user's to change; `Forgotten` names those that hold the words.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingle.adapt.asking import parse
from ingle.adapt.undo import bring_back
from ingle.core.errors import NotKept
from ingle.core.example import Example
from ingle.core.files import write_atomic
from ingle.core.report import Event, Fact, Sink
from ingle.engine.prefix_cache import drop_saved
from ingle.home.conversations import ConversationChange, change_conversation, list_conversations
from ingle.home.database import scrub
from ingle.home.example_states import move_all
from ingle.home.examples import drop_example, drop_turns_before, get_example, list_examples
from ingle.home.explanations import drop_explanations
from ingle.home.lessons import dissolve_lesson, list_lessons
from ingle.home.place import Home
from ingle.home.quoting import seeker
from ingle.home.recall_index import sameness
from ingle.home.staging import discard, sweep_staging
from ingle.home.turns import Turn, drop, find_text, last_kept
from ingle.home.typed import forget_typed
from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Name of a file in the home during a forget, and of its lock. After a kill, the next process finishes what it lists.
OWED = "forgetting"
_ALL = 1_000_000  # more conversations than anybody has
_SHORTEST = 4  # fewest characters of an answer that is searched for in conversations: "yes" is in all of them


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Counts of deleted and remaining texts."""

    id: str
    model: str
    lessons: int  # number of lessons that had learned from it
    again: int  # number of other examples that are learned again without it
    scrubbed: bool  # whether no file of the database holds its words any more; see `home.database.scrub`
    turns: tuple[Turn, ...] = ()  # stored messages that still hold its words
    dropped: int = 0  # number of messages that were deleted with it
    typed: int = 0  # number of lines typed in `ingle chat` that were deleted with it
    same: tuple[str, ...] = ()  # ids of earlier examples in the same words, which were deleted with it
    # Ids of corrections whose questions leaned on it, as "How old is it?" does. They no longer count, until `redo`.
    leaning: tuple[str, ...] = ()
    back: tuple[str, ...] = ()  # ids of earlier answers to the same question that count again
    prompts: tuple[str, ...] = ()  # ids of conversations whose system prompt still holds its words


def forget(
    home: Home, engine: "Engine", owner: str, id_: str, sink: Sink = lambda _: None, turns_too: bool = False,
    forget_states: Callable[[str], None] = lambda _owner: None,
) -> Forgotten:  # fmt: skip
    """Forget one example of this owner. `turns_too`: also delete stored messages with its words, all that follows them, and titles.

    `forget_states` is called with the owner if messages were deleted, to drop states in memory. Other processes drop theirs by
    themselves. After a kill, the next call or the learner finishes the work, and so does the same call again. Raises NotKept if there is no
    such example, HomeError.
    """
    with home.lock(OWED):
        owed = next((one for one in _owed(home) if (one["owner"], one["example"]) == (owner, id_)), None)
        paid = pay(home, engine, sink)
        if owed is not None and not _is_kept(engine, owed):
            return Forgotten(id_, owed["model"], 0, 0, paid)
        one = get_example(engine, owner, id_)
        turns, dropped = holding(engine, owner, one), 0
        passing = last_kept(engine, owner)
        going = turns if turns_too else tuple(turn for turn in turns if turn.id in passing)
        gone = [*_same(engine, owner, one), one.id]  # the named one goes last, so that it can be named again after a kill
        for each in gone:
            _owe(home, replace(one, id=each), going)
        typed = 0 if owner else forget_typed(home, _words(one))
        lessons = {lesson.digest: lesson for lesson in list_lessons(engine, owner)}
        beside, leaning = _told_before(engine, owner, one, gone)
        learned = [lesson for lesson in lessons.values() if set(gone) & set(lesson.examples)]
        reading = [lesson for lesson in lessons.values() if lesson not in learned and beside & set(lesson.examples)]
        move_all(engine, owner, leaning, "undo")  # first: without what they lean on they must not act for a moment, nor after a kill
        again = sum(dissolve_lesson(engine, owner, lesson.digest) for lesson in reading)
        drop_turns_before(engine, owner, beside)
        # The first lesson takes the example with it, in one step; should a kill leave others, the learner lets them go (`put_right`).
        again += sum(dissolve_lesson(engine, owner, lesson.digest, forgotten=gone) for lesson in learned)
        for each in gone:
            with suppress(NotKept):  # a lesson took it along
                drop_example(engine, owner, each)
        for lesson in (*reading, *learned):
            discard(home, home.delta_folder(lesson.digest))
        back = () if one.state in ("superseded", "undone") else bring_back(home, engine, owner, [one], lessons)
        if turns_too:
            _clear_titles(engine, owner, _words(one))
        for turn in going:
            with suppress(NotKept):  # it went with one before it
                dropped += drop(engine, owner, turn.id)
        if dropped:
            forget_states(owner)
        words = seeker(_words(one))
        drop_explanations(engine, owner, lambda text: text in gone or words(text))
        left = tuple(turn for turn in turns if turn not in going)
        facts: dict[str, Fact] = {"example": one.id, "kind": one.kind, "lessons": len(reading) + len(learned), "again": again}
        sink(Event("forget", one.model, facts | {"turns": dropped, "turns_left": len(left), "lines": typed}))
        scrubbed = pay(home, engine, sink)
        account = len(reading) + len(learned), again, scrubbed, left, dropped, typed
        return Forgotten(one.id, one.model, *account, tuple(gone[:-1]), tuple(sorted(leaning)), back, _prompts(engine, owner, _words(one)))


def _words(one: Example) -> list[str]:
    """Return the texts of an example that are long enough to search for."""
    return [text.strip() for text in (one.answer, one.refused, one.question) if len(text.strip()) >= _SHORTEST]


def _same(engine: "Engine", owner: str, one: Example) -> list[str]:
    """Return the ids of the owner's other examples with the same content, which are forgotten too."""
    says = one.kind, one.model, sameness(one.question), sameness(one.answer), one.rating
    others = [other for other in list_examples(engine, owner) if other.id != one.id]
    return [
        other.id for other in others
        if (other.kind, other.model, sameness(other.question), sameness(other.answer), other.rating) == says
    ]  # fmt: skip


def _told_before(engine: "Engine", owner: str, one: Example, gone: Collection[str]) -> tuple[set[str], set[str]]:
    """Return the ids of the owner's other examples with this one's words before their question, and of those that lean on them."""
    others, is_there = [other for other in list_examples(engine, owner) if other.id not in gone], seeker(_words(one))
    beside = [other for other in others if any(is_there(said) for _, said in other.before)]
    counting = [other for other in beside if other.kind == "correction" and other.state not in ("superseded", "undone")]
    return {other.id for other in beside}, {other.id for other in counting if parse(other.question).leans}


def _clear_titles(engine: "Engine", owner: str, texts: Sequence[str]) -> None:
    """Clear the titles of conversations that hold these words or begin one of the texts: the page makes titles of questions."""
    is_there = seeker(texts)
    for conversation in list_conversations(engine, owner, limit=_ALL):
        title = conversation.title
        begins = len(title) >= _SHORTEST and any(text.lower().startswith(title.lower()) for text in texts)
        if begins or is_there(title):
            change_conversation(engine, owner, conversation.id, ConversationChange(title=""))


def _prompts(engine: "Engine", owner: str, texts: Sequence[str]) -> tuple[str, ...]:
    conversations, is_there = list_conversations(engine, owner, limit=_ALL), seeker(texts)
    return tuple(one.id for one in conversations if is_there(str(one.settings.get("system", ""))))


def holding(engine: "Engine", owner: str, one: Example) -> tuple[Turn, ...]:
    """Return the owner's stored messages that hold words of an example: its answer, the refused one, or its question."""
    return find_text(engine, owner, words) if (words := _words(one)) else ()


def pay(home: Home, engine: "Engine", sink: Sink) -> bool:
    """Finish what was begun: delete the owner's saved states, any of which may have read the example, overwrite its words in the
    database's files, and write its fact if a kill prevented that.

    Returns whether the files hold nothing of it. If not, because others kept the database busy, the next call tries again.
    """
    owed = _owed(home)
    gone = [one for one in owed if not _is_kept(engine, one)]
    if not gone:
        (home.root / OWED).unlink(missing_ok=True)
        return True
    for one in gone:
        for turn in one["turns"]:
            with suppress(NotKept):
                drop(engine, one["owner"], turn)
    sweep_staging(home)  # lessons whose deletion was cut by a kill
    drop_saved(home.states, [one["owner"] for one in gone])
    recorded = {row.values.get("example") for row in Ledger(engine, home.keys).read("forget")}
    for one in gone:
        if one["example"] not in recorded:
            sink(Event("forget", one["model"], {"example": one["example"]}))
    scrubbed = scrub(engine)
    if scrubbed or engine.dialect.name != "sqlite":
        (home.root / OWED).unlink(missing_ok=True)
    return scrubbed


def _owe(home: Home, one: Example, turns: Sequence[Turn]) -> None:
    entry = {"owner": one.owner, "example": one.id, "model": one.model, "turns": [turn.id for turn in turns]}
    write_atomic(home.root / OWED, json.dumps([*_owed(home), entry]).encode(), mode=0o600)


def _owed(home: Home) -> list[dict[str, Any]]:
    try:
        entries = json.loads((home.root / OWED).read_bytes())
        return [{name: str(one[name]) for name in ("owner", "example", "model")} | {"turns": one.get("turns", [])} for one in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _is_kept(engine: "Engine", one: Mapping[str, Any]) -> bool:
    try:
        get_example(engine, one["owner"], one["example"])
    except NotKept:
        return False
    return True
