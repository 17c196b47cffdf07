"""`/v1/scaling`: sweeps of trainings in this home, their runs and laws, and what was foretold and came. For who sees the whole server."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends

from ingle.scaling.sheet import read_sheet, sheet_table, sweeps_of
from ingle.serve.auth import Keyed, may_see_metrics, service_of
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed, dependencies=[Depends(may_see_metrics)])


@router.get("/v1/scaling", tags=["scaling"])
async def list_scaling(service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    """List the sweeps of this home: how many of their runs are done, what was foretold, and what came."""
    found = await asyncio.to_thread(sweeps_of, service.home)
    return {"object": "list", "data": [{"object": "sweep", **one} for one in found]}


@router.get("/v1/scaling/{name}", tags=["scaling"])
async def get_scaling(name: str, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Return a sweep: its plan, its runs, the law with its lines, the prediction and its check, and how far it is if it runs."""
    return {"object": "sweep", **await asyncio.to_thread(lambda: sheet_table(read_sheet(service.home, name)))}
