"""`/v1/conversations/ID/answers` asks in a conversation, and `/v1/updates` tells how its answers and all else go on.

The rest of conversations are operations: app/operations/conversations.py.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from ingle.app.operation import table_of
from ingle.app.operations.conversations import Read, show
from ingle.core.errors import RequestError, Stale
from ingle.media.painter import asks_to_paint
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.operation_routes import house_of
from ingle.serve.schema import Whole
from ingle.serve.sent import MOST_PICTURES, message_of
from ingle.serve.service import Service
from ingle.serve.stream import byte_stream
from ingle.serve.talks import Talks

router = APIRouter(route_class=Keyed)


class AskBody(Whole):
    """`POST /v1/conversations/ID/answers`: a new question, an edited one, or another answer to one."""

    text: str = ""
    pictures: Annotated[list[str], Field(fail_fast=True, max_length=MOST_PICTURES, default_factory=list)]  # `data:` URLs
    edits: str = ""  # id of a question, beside which this one stands; its pictures stay
    again: str = ""  # id of a question that gets another answer
    version: int | None = None  # the version of the conversation that was seen
    key: Annotated[str, Field(max_length=64)] = ""  # of the client's own making: the same one a second time asks nothing
    aloud: Annotated[str, Field(max_length=64)] = ""  # the tab at `/v1/voice` that reads the answer aloud


def talks_of(request: Request) -> Talks:
    """Return the server's conversations."""
    talks: Talks = request.app.state.conversations
    return talks


@router.post("/v1/conversations/{id_}/answers", tags=["conversations"], status_code=202)
async def ask(
    id_: str, body: AskBody, service: Service = Depends(service_of), talks: Talks = Depends(talks_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Ask in a conversation. The question is stored, and its answer goes on if you hang up; `/v1/updates` tells it as it is written."""
    message = message_of({"text": body.text, "pictures": body.pictures})
    if bool(message.parts) == bool(body.again):
        raise RequestError("text", "Say a question, or which one gets another answer (again)", "both" if body.again else "neither")
    try:
        answer, question = await talks.ask(who, id_, message, body.edits, body.again, body.version, body.key, body.aloud)
    except Stale as error:
        error.newer = table_of(show(house_of(service, who, held=talks), Read(id_, last=1)))
        raise
    paints = asks_to_paint(body.text)
    return {"id": answer, "object": "conversation.answer", "conversation": id_, "question": question, "paints": paints}


@router.delete("/v1/conversations/{id_}/answers/{answer}", tags=["conversations"])
async def stop(id_: str, answer: str, talks: Talks = Depends(talks_of), who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Stop an answer that is being written. The text so far stays."""
    talks.pending.stop(talks.answer(who, id_, answer))
    return {"id": answer, "object": "conversation.answer", "stopped": True}


@router.get("/v1/updates", tags=["conversations"], responses={200: {"content": {"text/event-stream": {}}}})
async def updates(
    request: Request,
    strokes: Annotated[bool, Query(description="Tell answers as changes of HTML, too.")] = False,
    service: Service = Depends(service_of),  # noqa: B008
    who: str = Depends(asker),
) -> Response:
    """Tell what changes, as server-sent events: answers as they are written, conversations, what was taught, guards, models.

    `Last-Event-ID` goes on where a stream was cut; where that can't be, the event `reset` says to read anew.
    """
    events = service.updates.listen(who, request.headers.get("Last-Event-ID", "")[:100], strokes)
    return await byte_stream(request, events, "text/event-stream")
