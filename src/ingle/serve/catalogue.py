"""`/v1/catalogue`: models that can be pulled, what they need and how fast they would be here; and the pull of one. For the owner."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends

from ingle.core.errors import NotKept
from ingle.engine.bandwidth import larger_offer, read_bandwidth
from ingle.serve.abilities import lacks
from ingle.serve.auth import Keyed, asker, may_pull, may_see_metrics, service_of
from ingle.serve.schema import DefaultModel, MeasureRequest, PullRequest
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)
SOON_S = 3.0  # seconds before the machine is measured for the offer of a larger model, once in a home's life
SMALL = "smollm2"  # the model beside which a larger one is offered


@router.get("/v1/catalogue", tags=["catalogue"], dependencies=[Depends(may_see_metrics)])
async def list_catalogue(service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    """List known models, smallest first. `tokens_per_s` is null until this machine was measured (`ingle pull` does)."""
    found = [{"object": "catalogue.model", **asdict(one)} for one in await service.puller.offers()]
    measured = read_bandwidth(service.home)
    return {
        "object": "list",
        "data": found,
        "measured": None if measured is None else asdict(measured),
        "pull": service.puller.state.table(),
        "measuring": service.puller.measuring,
    }


@router.post("/v1/catalogue/measure", tags=["catalogue"], dependencies=[Depends(may_pull)])
async def measure(body: MeasureRequest, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Have this machine's speed measured, unless it was: at once, or some seconds from now. Return the larger model to offer then."""
    service.puller.measure(SOON_S if body.soon else 0.0)
    return {"object": "catalogue.measure", "measuring": service.puller.measuring, "offer": await _offer(service)}


async def _offer(service: Service) -> dict[str, Any] | None:
    """Return the model to offer where only the small one is here; None = none. Its name is "" while the machine is being measured; `guess`:
    whether its speed is one, since other programs were at work meanwhile."""
    offered = await asyncio.to_thread(service.models.offered)
    if service.models.default != SMALL or len({kept.base for kept in offered}) > 1:  # whoever has another model is left alone
        return None
    measured = await asyncio.to_thread(read_bandwidth, service.home)
    if measured is None:
        return {"name": ""} if service.puller.will_measure else None
    found = larger_offer(await service.puller.offers(), SMALL)
    return None if found is None else asdict(found) | {"guess": measured.provisional}


@router.put("/v1/models/default", tags=["models"], dependencies=[Depends(may_pull)])
async def set_default(body: DefaultModel, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Let a model answer those who name none, from now on."""
    await asyncio.to_thread(service.models.make_default, body.model)
    return {"object": "models.default", "model": service.models.default}


@router.get("/v1/abilities", tags=["models"])
async def missing_abilities(model: str = "", service: Service = Depends(service_of), _who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """List what this home can't do in conversations with a model (see, draw, hear, speak), why, and what brings it."""
    try:
        found = await asyncio.to_thread(lambda: lacks(service.home, service.models.kept(model or service.models.default)))
    except NotKept:  # a model that is gone: whoever asks it hears of that
        found = {}
    return {"object": "list", "data": [{"object": "ability", **lack.table()} for lack in found.values()]}


@router.get("/v1/catalogue/pull", tags=["catalogue"], dependencies=[Depends(may_see_metrics)])
async def pull_state(service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Return how far the pull is, or how the last one ended."""
    return {"object": "pull", **service.puller.state.table()}


@router.post("/v1/catalogue/pull", tags=["catalogue"], status_code=202, dependencies=[Depends(may_pull)])
async def start_pull(body: PullRequest, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Begin to pull a model of the catalogue; one at a time. It is offered by `/v1/models` as soon as it is kept."""
    return {"object": "pull", **(await service.puller.start(body.name, body.force, body.lean)).table()}


@router.delete("/v1/catalogue/pull", tags=["catalogue"], dependencies=[Depends(may_pull)])
async def stop_pull(service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Stop the pull. What has arrived is kept for the next attempt."""
    return {"object": "pull", **(await service.puller.stop()).table()}
