"""The page: NiceGUI in the same application, on the same service as the API. It never calls its own HTTP API.

Its library is imported here and nowhere else, when an application wants the page. It keeps nothing on disk: what is stored of a
conversation lies in the home's database alone.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ingle.page.account import account_routes
from ingle.page.federated import federated_routes
from ingle.page.scaling import scaling_routes
from ingle.page.session import COOKIE, sign_in_routes, sign_in_url
from ingle.page.static_files import FOLDER, YEAR_S, static_root, static_text, static_url
from ingle.serve.http_errors import error_body
from ingle.serve.service import Service

if TYPE_CHECKING:
    from nicegui.client import Client

    from ingle.page.room import Room

_ROOM = "ingle.room"  # key of the room in the scope of the page's requests
_LIVE = "/_nicegui_ws/"  # where the connections of open tabs begin
_PATHS = ("/c/", "/_nicegui/", _LIVE, "/page/")
RECONNECT_S = 30.0  # how long a tab may be out of reach (a sleeping phone) without having to be loaded again


class PageMount(Mount):
    """Serves the page's own paths only. The API answers for unknown paths."""

    def __init__(self, app: Any, room: "Room") -> None:
        super().__init__("", app)
        self._room = room

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the page's paths."""
        path = scope.get("path", "")
        own = path in ("/", "/favicon.ico") or path.startswith((*_PATHS, static_root()))
        return super().matches(scope) if own else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on with its room. NiceGUI has one application per process; Ingle may have several."""
        scope[_ROOM] = self._room
        if scope.get("path", "").startswith(_LIVE) and not await self._let_in(scope):
            if scope["type"] == "websocket":
                await WebSocketClose(1008, "Sign in first.")(scope, receive, send)
            else:
                await JSONResponse(error_body("Sign in first.", 401), 401)(scope, receive, send)
            return
        await super().handle(scope, receive, send)

    async def _let_in(self, scope: Scope) -> bool:
        """Return whether whoever asks for a tab's connection has signed in, before it is opened."""
        cookies = HTTPConnection(scope).cookies
        return await self._room.sessions.visitor(cookies.get(COOKIE, "")) is not None


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page to an application, behind all other routes."""
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(service.home.root / "cache" / "page"))  # else `.nicegui` in the working directory
    from nicegui import core, ui

    from ingle.page.room import Room
    from ingle.page.view import View  # noqa: F401 - now, and not while the first visitor waits
    from ingle.page.voice import voice_routes

    room = Room(service)
    app.include_router(sign_in_routes(room.sessions, room.ended))
    app.include_router(account_routes(service, room.sessions))
    app.include_router(federated_routes(service, room.sessions))
    app.include_router(scaling_routes(service, room.sessions))
    app.include_router(voice_routes(room))
    _add_pages()
    core.app.user_middleware.clear()
    core.app.middleware_stack = None  # or a second application of this process could not be made
    ui.run_with(
        app, title="Ingle", favicon=FOLDER / "icon.svg", dark=None, language="en-GB", binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S, gzip_middleware_factory=None, tailwind=False, show_welcome_message=False,
    )  # fmt: skip
    app.router.routes[-1] = PageMount(core.app, room)
    started = app.router.lifespan_context

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[Any]:
        async with started(app) as state:
            await asyncio.to_thread(_warm)
            gc.freeze()  # what lives as long as the server is not worth looking through: that takes 150 ms each time, and all wait
            try:
                yield state
            finally:
                await room.close()

    app.router.lifespan_context = life


@cache
def _add_pages() -> None:
    """Register the page's routes, once per process."""
    from nicegui import core, ui

    core.app.add_static_files(static_root(), FOLDER, max_cache_age=YEAR_S)
    core.app.config.quasar_config["brand"] = {"primary": "#b4481f"}

    @ui.page("/")
    async def new(client: "Client", request: Request) -> Response | None:
        return await _build(client, request, "")

    @ui.page("/c/{conversation}")
    async def kept(client: "Client", request: Request, conversation: str) -> Response | None:
        return await _build(client, request, conversation)


def _warm() -> None:
    """Load the template and the highlighter, so that the first visitor need not wait."""
    from nicegui.client import templates

    from ingle.page.markdown import render

    templates.get_template("index.html")
    render("```python\npass\n```")


async def _build(client: "Client", request: Request, conversation: str) -> Response | None:
    from nicegui import ui

    from ingle.core.errors import NotKept
    from ingle.page.page_layout import lay_out
    from ingle.page.view import View

    room: Room = request.scope[_ROOM]
    visitor = await room.sessions.visitor(request.cookies.get(COOKIE, ""))
    if visitor is None:
        return RedirectResponse(sign_in_url(request.url.path), 303)
    sound = f'<script src="{static_url("voice.js")}"></script>'
    ui.add_head_html(f'<link rel="stylesheet" href="{static_url("page.css")}">{sound}{static_text("head.html")}')
    ui.add_body_html(static_text("icons.svg"))
    view = View(room, visitor, client, lay_out())
    try:
        if conversation:
            await view.open(conversation)
    except NotKept:
        view.say("There is no such conversation here.")
    await view.draw()
    room.views.add(view)
    view.stale()  # an answer that ended while it was drawn told those that were there
    client.on_disconnect(view.why.left)
    client.on_delete(view.close)
    return None
