"""The choice of an answer without each thing that was taught and acted on it: for explanations, which prove causes by leaving them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ingle.adapt.choosing import Choice, Chooser
from ingle.core.message import Request
from ingle.engine.language_model import LanguageModel
from ingle.home.examples import get_example
from ingle.home.kept import Kept
from ingle.home.lessons import get_lesson


@dataclass(frozen=True, slots=True)
class Without:
    """A choice without one memory or one lesson."""

    kind: Literal["memory", "lesson"]
    id: str  # the example's id, or the lesson's digest
    text: str  # its words
    choice: Choice


def without_each(
    chooser: Chooser, owner: str, model: LanguageModel, kept: Kept, request: Request, memories: Sequence[str], lessons: Sequence[str]
) -> list[Without]:
    """Return the choice without each memory, then without each lesson. Without the only memory it is what `--no-memory` chooses, without
    the only lesson what is chosen after `ingle undo`. Raises as `Chooser.again` does."""
    found = list[Without]()
    for id_ in memories:
        choice = chooser.again(owner, model, kept, request, [one for one in memories if one != id_], lessons)
        found.append(Without("memory", id_, get_example(chooser.engine, owner, id_).answer, choice))
    for digest in lessons:
        choice = chooser.again(owner, model, kept, request, memories, [one for one in lessons if one != digest])
        examples = get_lesson(chooser.engine, owner, digest).examples
        text = "; ".join(get_example(chooser.engine, owner, id_).answer for id_ in examples)
        found.append(Without("lesson", digest, text, choice))
    return found
