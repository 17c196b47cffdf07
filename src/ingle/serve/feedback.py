"""Feedback, learning and memory: `/v1/feedback`, `/v1/learning`, `/v1/memory`.

Everything belongs to one owner: the key of the request, or the user of this machine, who needs none.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from ingle.adapt.admit import Feedback, consent, edit, learning_view, remember, take_feedback
from ingle.adapt.forget import forget
from ingle.adapt.undo import redo, undo
from ingle.core.example import Example
from ingle.home.examples import MEMORY, get_example, list_examples, search_examples
from ingle.home.lessons import Lesson
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.feedback_table import example_table, forgotten_table
from ingle.serve.learner import next_room
from ingle.serve.schema import FeedbackBody, LearningChange, MemoryBody, MemoryChange, RedoBody, UndoBody
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)
Most = Annotated[int, Query(ge=1, le=1000)]
_SHOWN = 100


@router.post("/v1/feedback", tags=["learning"])
async def feedback(body: FeedbackBody, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Rate or correct an answer. It acts on the next answer, and the weights learn from it if they may."""

    def take() -> Example:
        model = "" if body.completion_id and not body.question else service.models.kept(body.model).name
        opinion = Feedback(
            body.completion_id, body.rating or 0, body.correction, body.comment, body.question, body.answer, model=model, learn=body.learn
        )
        return take_feedback(service.engine, who, opinion, sink=service.record)

    return example_table(await asyncio.to_thread(take))


@router.get("/v1/learning", tags=["learning"])
async def learning(
    limit: Most = _SHOWN, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Return what was taught and its state: counts, the newest examples, the lessons, and what the next lesson will take."""
    view = await asyncio.to_thread(learning_view, service.engine, who, limit)
    lessons = [_lesson(lesson) for lesson in view.lessons[:limit]]
    room = await asyncio.to_thread(next_room, service, view.items)
    table = {"object": "learning", "learn": view.learn, "counts": dict(view.counts), "data": _tables(view.items), "lessons": lessons}
    return table | {"predicted": None if room is None else room.table()}


@router.patch("/v1/learning", tags=["learning"])
async def change_learning(
    body: LearningChange, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Set whether the weights may learn from what is taught from now on. Memory works either way."""
    await asyncio.to_thread(consent, service.engine, who, body.learn, service.record)
    return {"object": "learning", "learn": body.learn}


@router.post("/v1/learning/undo", tags=["learning"])
async def rollback(body: UndoBody, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Undo what was learned. From the next answer on, the model is what it was before, to the bit."""
    undone = await asyncio.to_thread(undo, service.home, service.engine, who, body.which, service.record)
    service.chooser.forget()
    return {"object": "learning.undone", "data": _tables(undone.examples), "learned_again": undone.again, "back": list(undone.back)}


@router.post("/v1/learning/redo", tags=["learning"])
async def let_count_again(body: RedoBody, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Let an undone example count again."""
    return example_table(await asyncio.to_thread(redo, service.home, service.engine, who, body.which, service.record))


@router.get("/v1/memory", tags=["learning"])
async def memories(
    query: Annotated[str, Query(max_length=10_000)] = "", limit: Most = _SHOWN,
    service: Service = Depends(service_of), who: str = Depends(asker),  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """List memories: the newest first, or those that share words with `query`, the best match first."""

    def find() -> Sequence[Example]:
        if query:
            return search_examples(service.engine, who, query, limit)
        examples = list_examples(service.engine, who, MEMORY, newest=True)
        return [one for one in examples if one.kind != "rating"][:limit]

    return {"object": "list", "data": _tables(await asyncio.to_thread(find))}


@router.post("/v1/memory", tags=["learning"])
async def add_memory(body: MemoryBody, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Remember a fact. It is placed beside questions about it; the weights don't learn from it."""

    def keep() -> Example:
        return remember(service.engine, who, service.models.kept(body.model).name, body.text, sink=service.record)

    return example_table(await asyncio.to_thread(keep))


@router.get("/v1/memory/{id_}", tags=["learning"])
async def memory(id_: str, service: Service = Depends(service_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return one example in any state; ratings too."""
    return example_table(await asyncio.to_thread(get_example, service.engine, who, id_))


@router.patch("/v1/memory/{id_}", tags=["learning"])
async def change_memory(
    id_: str, body: MemoryChange, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Change the words of an example. Lessons with the old words are dropped and learned again."""
    example = await asyncio.to_thread(edit, service.home, service.engine, who, id_, body.answer, service.record)
    service.chooser.forget()
    return example_table(example)


@router.delete("/v1/memory/{id_}", tags=["learning"])
async def delete_memory(
    id_: str, turns: bool = False, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Forget an example: its words and every lesson that learned from it. `turns`: also delete stored messages with these words."""
    gone = await asyncio.to_thread(forget, service.home, service.engine, who, id_, service.record, turns, service.forget)
    service.chooser.forget()
    return {"id": id_, "object": "example", "deleted": True, "ingle": forgotten_table(gone)}


def _tables(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [example_table(one) for one in examples]


def _lesson(lesson: Lesson) -> dict[str, Any]:
    at = int(datetime.fromisoformat(lesson.at).timestamp())
    about = {"model": lesson.model, "kind": lesson.kind, "examples": list(lesson.examples), "acting": lesson.acting}
    return {"digest": lesson.digest, "object": "lesson", "created_at": at, "seq": lesson.seq, **about}
