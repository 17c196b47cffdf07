"""`/v1/federations`: what this home learns together with others, and all that left this machine for it. For who sees the whole server."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends

from ingle.core.config import to_table
from ingle.federated.consent import federation_status, federations, find_federation
from ingle.federated.standing import folder_of
from ingle.federated.transport import what_left
from ingle.serve.auth import Keyed, may_see_metrics, service_of
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed, dependencies=[Depends(may_see_metrics)])


@router.get("/v1/federations", tags=["federations"])
async def list_federations(service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    """List the federations that this home joined: rounds, what it lends, and how much left this machine."""

    def read() -> list[dict[str, Any]]:
        return [{"object": "federation", **federation_status(service.home, one).table()} for one in federations(service.home)]

    return {"object": "list", "data": await asyncio.to_thread(read)}


@router.get("/v1/federations/{name}/left", tags=["federations"])
async def left(name: str, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """List every message that left this machine for a federation: when, to whom, of which kind, its size and digest."""

    def read() -> list[dict[str, Any]]:
        return [to_table(one) for one in what_left(folder_of(service.home, find_federation(service.home, name)))]

    return {"object": "list", "data": await asyncio.to_thread(read)}
