"""The form where a visitor signs in with a key."""

import asyncio
from html import escape
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from ingle.core.errors import Busy
from ingle.page.site import filled
from ingle.serve.auth import address_of
from ingle.serve.sign_in import COOKIE, LIFE_S, Sessions
from ingle.serve.troubles import said


def sign_in_routes(sessions: Sessions) -> APIRouter:
    """Return the routes of the sign-in, a plain form."""
    router = APIRouter(include_in_schema=False)

    @router.get("/sign-in")
    async def show(request: Request) -> Response:
        if await sessions.visitor(request.cookies.get(COOKIE, "")):
            return RedirectResponse(_local(request.query_params.get("next", "")), 303)
        return _form(request.query_params.get("next", ""))

    @router.post("/sign-in")
    async def enter(request: Request) -> Response:
        sent = parse_qs((await request.body()).decode("utf-8", "replace"))
        goal = sent.get("next", [""])[0]
        try:
            cookie = await sessions.sign_in(sent.get("key", [""])[0], address_of(request))
        except Busy as error:
            return _form(goal, said(error), error.http_status)
        if cookie is None:
            return _form(goal, "This key is unknown or was revoked.", 401)
        response = RedirectResponse(_local(goal), 303)
        response.set_cookie(COOKIE, cookie, max_age=LIFE_S, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    @router.post("/sign-out")
    async def leave(request: Request) -> Response:
        cookie = request.cookies.get(COOKIE, "")
        visitor = await sessions.visitor(cookie)
        await asyncio.to_thread(sessions.sign_out, cookie)
        if visitor is not None:
            sessions.updates.tell(visitor.owner, "visitor.changed", {})
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def sign_in_url(path: str) -> str:
    """Return the address of the sign-in form, which leads back to `path`."""
    return f"/sign-in?next={quote(path)}"


def _form(goal: str, trouble: str = "", status: int = 200) -> Response:
    page = filled("sign_in.html", {"next": escape(_local(goal)), "trouble": escape(trouble)})
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})


def _local(goal: str) -> str:
    """Return `goal` if it is a path of this page, else "/"."""
    return goal if goal.startswith("/c/") and "\\" not in goal and goal.isprintable() else "/"
