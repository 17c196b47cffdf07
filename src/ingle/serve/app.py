"""The application: all endpoints around one service."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response

from ingle import __version__
from ingle.serve import (
    audio,
    catalogue,
    chat,
    completions,
    conversations,
    events,
    explain,
    federations,
    guards,
    images,
    models,
    moderations,
    realtime,
    responses,
    scaling,
    visitor,
    voice,
)
from ingle.serve.auth import KeyAuth
from ingle.serve.document import ANSWERING, LOOKING, document, errors
from ingle.serve.gateway import Gateway
from ingle.serve.health import Health
from ingle.serve.housekeeping import keep_house
from ingle.serve.http_errors import add_handlers
from ingle.serve.operation_routes import operation_routes
from ingle.serve.service import Service
from ingle.serve.shares import Places
from ingle.serve.stream import ClientGone
from ingle.serve.talks import Talks

_THREADS = 16  # for short work beside the event loop, mostly reads of the database; slow work has threads of its own (serve/slow.py)
Mount = Callable[[FastAPI, Service], None]  # adds routes behind the API's, such as the page


def make_app(service: Service, mount: Mount | None = None) -> FastAPI:
    """Return the API with the routes of `mount`. The service starts and closes with the application."""
    talks = Talks(service)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "ingle"))
        await service.start()
        talks.start()
        gc.collect()
        gc.freeze()  # what lives as long as the server is not worth looking through: that takes 150 ms each time, and all wait
        house = asyncio.create_task(keep_house(service))
        try:
            yield
        finally:
            house.cancel()
            await service.drain()
            await talks.close()
            await service.close()

    # The documentation pages that come with the library load scripts from elsewhere; /openapi.json is all there is.
    app = FastAPI(title="Ingle", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.service, app.state.auth, app.state.health, app.state.conversations = service, KeyAuth(service), Health(service), talks
    for endpoints in (audio, chat, conversations, completions, responses, explain, moderations, guards, images):
        app.include_router(endpoints.router, responses=errors(*ANSWERING))
    app.include_router(operation_routes(), responses=errors(*ANSWERING))
    app.state.talks = Places("talks", realtime.MOST_TALKS, realtime.MOST_TALKS_EACH)
    app.include_router(realtime.router)
    app.include_router(voice.router)
    for endpoints in (catalogue, models, events, federations, scaling, visitor):
        app.include_router(endpoints.router, responses=errors(*LOOKING))
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    add_handlers(app)
    app.add_exception_handler(ClientGone, _gone)
    if mount is None:
        app.add_api_route("/", _no_page, include_in_schema=False)
    else:
        mount(app, service)
    app.add_middleware(Gateway, settings=service.settings, count=service.metrics.request, refusals=service.refusals, clock=service.clock)
    return app


async def _no_page() -> Response:
    """Say that there is no page, to whoever opens the address in a browser."""
    raise HTTPException(404, "This server has no page. Its API is below /v1; `ingle serve --page` serves the page, too.")


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it
