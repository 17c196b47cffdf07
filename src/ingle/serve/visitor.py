"""`/v1/visitor`: who asks, what they may do here, and what holds for conversations that choose nothing else."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends, Request

from ingle import __version__
from ingle.app.choices import BOUNDS
from ingle.home.api_keys import ApiKey
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.refusals import KEY
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)


@router.get("/v1/visitor", tags=["operation"])
async def visitor(
    request: Request, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Return who asks, their rights, the models that they may ask, and the home's defaults with their bounds."""
    key: ApiKey | None = request.scope[KEY]
    names = list(await asyncio.to_thread(service.models.names))
    return {
        "object": "visitor", "id": who, "name": "" if key is None else key.name,
        "may": {"guards": key is None or key.guards, "pull": key is None and not service.models.only},
        "models": names, "defaults": home_choices(service), "bounds": BOUNDS,
        "version": __version__, "boot": service.updates.boot,
    }  # fmt: skip


def home_choices(service: Service) -> dict[str, Any]:
    """Return the home's defaults."""
    sampling = service.sampling
    return {
        "model": service.models.default, "system": "", "temperature": sampling.temperature, "top_p": sampling.top_p,
        "max_tokens": service.settings.max_tokens, "seed": sampling.seed,
    }  # fmt: skip
