"""`/v1/catalogue`: models that can be pulled, what they need and how fast they would be here; and the pull of one. For the owner."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends

from ingle.engine.bandwidth import read_bandwidth
from ingle.serve.auth import Keyed, may_pull, may_see_metrics, service_of
from ingle.serve.schema import PullRequest
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)


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
    }


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
