"""The page beside the API in one application: its files, the sign-in, and three views of their own."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from ingle.core.errors import NotKept
from ingle.page.account import account_routes
from ingle.page.federated import federated_routes
from ingle.page.scaling import scaling_routes
from ingle.page.sign_in import sign_in_routes, sign_in_url
from ingle.page.site import YEAR_S, index, site_files, site_root
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE, Sessions

# Nothing inline, nothing from elsewhere, no eval: an answer that got through the renderer could still run nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page to an application."""
    sessions = app.state.auth.sessions
    for routes in (account_routes, federated_routes, scaling_routes):
        app.include_router(routes(service, sessions))
    app.include_router(sign_in_routes(sessions))
    app.include_router(site_routes(sessions))


def site_routes(sessions: Sessions) -> APIRouter:
    """Return the routes of the page and of its files."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    @router.get("/c/{conversation}")
    async def page(request: Request) -> Response:
        if await sessions.visitor(request.cookies.get(COOKIE, "")) is None:
            return RedirectResponse(sign_in_url(request.url.path), 303)
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
        return HTMLResponse(index(), headers=headers)

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return FileResponse(site_files()["icon.svg"])

    @router.get(site_root() + "/{name:path}")
    async def file(name: str) -> Response:
        found = site_files().get(name)
        if found is None:
            raise NotKept("file", "The page has no such file")
        # A worker goes by the policy of its own file.
        return FileResponse(found, headers={"Cache-Control": f"public, max-age={YEAR_S}, immutable", "Content-Security-Policy": POLICY})

    return router
