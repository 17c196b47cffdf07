"""`/v1/guards`: teaching the judges that they were wrong, and taking it back.

The judges act for everybody whom this server answers, so a key needs the right to it (`ingle key add NAME --guards`): a guest must not be
able to have them let attacks on others pass. An answer is taken as an example only by whoever asked for it.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends

from ingle.adapt.guards import GuardsTaught, guards_taught, plain_texts, take_back, teach_guards, texts_of_answer
from ingle.core.errors import RequestError
from ingle.safety.taught import Teaching
from ingle.serve.auth import Keyed, may_teach_guards, service_of
from ingle.serve.schema import GuardTeaching
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)


@router.post("/v1/guards/teach", tags=["safety"])
async def teach(
    body: GuardTeaching, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Teach the judges that a text, or what was judged before a stored answer, is harmless, or harmful. It acts on the next request."""
    if bool(body.text) == bool(body.completion_id):
        raise RequestError("text", "Give either a text or a completion_id", "both" if body.text else "neither")

    def take() -> GuardsTaught:
        texts = plain_texts([body.text]) if body.text else texts_of_answer(service.engine, who, body.completion_id)
        return teach_guards(service.home, texts, body.harmful, service.record, who)

    taught = await asyncio.to_thread(take)
    about = {"harmful": body.harmful, "changed": taught.changed, "judge": taught.judge}
    return {"id": taught.id or None, "object": "guards.taught", **about}


@router.get("/v1/guards/taught", tags=["safety"])
async def taught(service: Service = Depends(service_of), _who: str = Depends(may_teach_guards)) -> dict[str, Any]:  # noqa: B008
    """List what the judges were taught, the newest first: ids and sides, no words."""
    found = await asyncio.to_thread(guards_taught, service.home)
    return {"object": "list", "data": [_table(one) for one in reversed(found)]}


@router.delete("/v1/guards/taught/{id_}", tags=["safety"])
async def untaught(
    id_: str, service: Service = Depends(service_of), who: str = Depends(may_teach_guards)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Take back one correction. The judges are then, to the bit, what they were without it."""
    gone = await asyncio.to_thread(take_back, service.home, id_, service.record, who)
    return {**_table(gone), "deleted": True}


def _table(one: Teaching) -> dict[str, Any]:
    return {"id": one.id, "object": "guards.taught", "at": one.at, "harmful": one.harmful, "changed": len(one.pulls)}
