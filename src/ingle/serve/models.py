"""The endpoints `/v1/models`, `/health` and `/metrics`."""

import asyncio
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from ingle import __version__
from ingle.core.digest import digest_json
from ingle.home.kept import Kept
from ingle.serve.auth import asker, may_see_metrics, service_of
from ingle.serve.health import Health
from ingle.serve.metrics import CONTENT_TYPE
from ingle.serve.service import Service

router = APIRouter()


@router.get("/v1/models", tags=["models"])
async def models(service: Service = Depends(service_of), _who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
    """List the models on offer, the default first."""
    return {"object": "list", "data": [_model(kept) for kept in await asyncio.to_thread(service.models.offered)]}


@router.get("/v1/models/{name:path}", tags=["models"])
async def model(name: str, service: Service = Depends(service_of), _who: str = Depends(asker)) -> dict[str, Any]:  # noqa: B008
    """Return one model."""
    return _model(await asyncio.to_thread(service.models.kept, name))


@router.get("/health", tags=["operation"])
async def health(request: Request, response: Response, service: Service = Depends(service_of)) -> dict[str, Any]:  # noqa: B008
    """Return the server's status (503 where every answer fails), its load, what it has, and how many models are damaged."""
    checks: Health = request.app.state.health
    scheduler, status = service.scheduler, await checks.status()
    response.status_code = 200 if status == "ok" else 503
    busy = {"running": scheduler.running, "queued": scheduler.queued}
    busy |= {"state_bytes": scheduler.cached_bytes, "most_state_bytes": scheduler.capacity.state_bytes}
    busy |= {"small": service.settings.small, "page": service.settings.page, "learner": service.learns}
    damaged = await service.slow.doors.do("", lambda _stop: service.models.damaged())
    return {"status": status, "version": __version__, **busy, "damaged_models": damaged}


@router.get("/metrics", tags=["operation"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Service = Depends(service_of), _who: str = Depends(may_see_metrics)) -> Response:  # noqa: B008
    """Return the metrics of the whole server for Prometheus: to its owner, and to keys with that right."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _model(kept: Kept) -> dict[str, Any]:
    created = int(datetime.fromisoformat(kept.created_at).timestamp())
    digest = digest_json([kept.base, *kept.deltas])
    about = {"kept_digest": digest, "base": kept.base, "deltas": list(kept.deltas)}
    return {"id": kept.name, "object": "model", "created": created, "owned_by": "ingle", "ingle": about}
