"""The feedback on a conversation's turns, and the memories and lessons that acted on its answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingle.core.example import Example, State
from ingle.home.lessons import list_lessons
from ingle.home.recall_index import sameness
from ingle.home.teachings import examples_about, examples_called, remembered_facts
from ingle.home.turns import Turn

if TYPE_CHECKING:
    from sqlalchemy import Engine

_STATES: Mapping[State, str] = {
    "pending": "used from the next answer on; the weights have not learned it yet",
    "learning": "the weights are learning it now",
    "learned": "learned into the weights",
    "refused": "remembered, but refused for the weights",
    "kept": "remembered",
    "undone": "undone",
}


@dataclass(frozen=True, slots=True)
class TaughtNotes:
    """Feedback, memories and lessons of some turns, as they are now."""

    ratings: Mapping[str, Example] = field(default_factory=dict)  # by the id of the answer
    corrections: Mapping[str, Example] = field(default_factory=dict)  # by the id of the answer
    facts: Mapping[str, Example] = field(default_factory=dict)  # by `sameness` of their words
    acted: Mapping[str, Example] = field(default_factory=dict)  # by id: examples that acted on these answers and still exist
    lessons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by a lesson's digest: the ids of its examples
    # By the id of the answer: whether the guards were taught that its question is harmful. None = the visitor may not teach them.
    guards: Mapping[str, bool] | None = None

    def rating(self, turn: Turn) -> int:
        """Return an answer's rating: −1, 1, or 0 for none."""
        example = self.ratings.get(turn.completion)
        return 0 if example is None else example.rating

    def fact(self, turn: Turn) -> Example | None:
        """Return the remembered fact with a turn's words."""
        return self.facts.get(sameness(turn.message.text)) if self.facts else None

    def correction(self, turn: Turn) -> dict[str, Any] | None:
        """Return an answer's correction, as the page shows it."""
        example = self.corrections.get(turn.completion)
        if example is None:
            return None
        return {"text": example.answer, "state": example.state, "said": _STATES.get(example.state, ""), "reasons": list(example.reasons)}

    def taught_guards(self, turn: Turn) -> bool | None:
        """Return whether the guards were taught that an answer's question is harmful (True) or harmless (False); None = neither."""
        return (self.guards or {}).get(turn.completion)

    def memories(self, facts: Mapping[str, Any]) -> list[str]:
        """Return the memories in an answer's prompt, shortened."""
        return [self._named(id_) for id_ in str(facts.get("memories") or "").split()]

    def learned(self, facts: Mapping[str, Any]) -> list[str]:
        """Return the lessons that acted on an answer, shortened."""
        return [self._lesson(digest) for digest in str(facts.get("lessons") or "").split()]

    def nearly(self, turn: Turn) -> Example | None:
        """Return what the question of an answer came near, if it still counts and the answer was not corrected since."""
        example = self.acted.get(str((turn.facts or {}).get("nearly") or ""))
        return example if example is not None and example.counts and turn.completion not in self.corrections else None

    def _lesson(self, digest: str) -> str:
        held = self.lessons.get(digest)
        what = "undone or forgotten since" if held is None else "; ".join(map(self._named, held[:3]))
        return f"{digest[:12]}: {what}{f'; and {len(held) - 3} more' if held and len(held) > 3 else ''}"

    def _named(self, id_: str) -> str:
        example = self.acted.get(id_)
        return f"{id_}: forgotten since" if example is None else example.in_short


def look_up(engine: "Engine", owner: str, turns: Sequence[Turn], guards: Mapping[str, bool] | None = None) -> TaughtNotes:
    """Return what was taught about these turns and acted on them. Reads the database. `guards`: see `TaughtNotes`."""
    answers = [turn for turn in turns if turn.message.role == "assistant"]
    named = [turn.facts for turn in answers if turn.facts]
    about = examples_about(engine, owner, (turn.completion for turn in answers))
    digests = {digest for facts in named for digest in str(facts.get("lessons") or "").split()}
    lessons = {one.digest: one.examples for one in list_lessons(engine, owner) if one.digest in digests} if digests else {}
    ids = {id_ for facts in named for name in ("memories", "nearly") for id_ in str(facts.get(name) or "").split()}
    acted = examples_called(engine, owner, ids.union(*lessons.values()))
    return TaughtNotes(
        {one.completion: one for one in about if one.kind == "rating" and one.state != "undone"},
        {one.completion: one for one in about if one.kind == "correction"},
        {sameness(one.answer): one for one in remembered_facts(engine, owner, (turn.message.text for turn in turns if turn.conversation))},
        {one.id: one for one in acted},
        lessons,
        guards,
    )
