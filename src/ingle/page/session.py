"""Sessions of the page: a visitor on this machine, or one who signed in with a key.

A sign-in is a cookie that this home signed. It holds the key's id, a random number and its end, never the key itself. Each page and
each action checks that the key is still good, so a revoked key is out at once.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from ingle.app.answer_key import answer_key
from ingle.core.errors import Busy
from ingle.home.api_keys import ApiKey, check_key, list_keys
from ingle.home.sign_outs import sign_out, signed_out
from ingle.page.static_files import static_text, static_url
from ingle.page.troubles import said
from ingle.serve.auth import address_of
from ingle.serve.service import Service

if TYPE_CHECKING:
    from sqlalchemy import Engine

COOKIE = "ingle_sign_in"
LIFE_S = 30 * 86400  # longest life of a sign-in


@dataclass(frozen=True, slots=True)
class Visitor:
    """The user of one tab."""

    owner: str  # id of the key; "" on this machine, where none is needed
    name: str = ""  # the key's name
    guards: bool = False  # whether the visitor may teach the guards of the home
    sign_in: str = ""  # the cookie


class Sessions:
    """Makes, checks and ends sign-ins."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._secret = b""

    async def visitor(self, cookie: str) -> Visitor | None:
        """Return the visitor with this cookie; None if they must sign in first."""
        if not self._service.settings.needs_key:
            return Visitor("", guards=True)
        return await asyncio.to_thread(self._check, cookie)

    async def sign_in(self, secret: str, address: str) -> str | None:
        """Return a cookie for the user of a key; None if the key is not good. Raises Busy if too many from this address were not."""
        key = await self._service.slow.doors.do("", lambda _stop: check_key(self._service.engine, secret.strip()))
        if key is None:
            await self._service.wrong_keys.slow(address)
            return None
        payload = f"{key.id}.{secrets.token_hex(12)}.{int(time.time()) + LIFE_S}"
        return f"{payload}.{await asyncio.to_thread(self._mac, payload)}"

    def sign_out(self, cookie: str) -> None:
        """Ends a sign-in in every tab, and on every server of this home. Writes to the database."""
        if self._check(cookie):
            payload = cookie.rpartition(".")[0]
            sign_out(self._service.engine, payload, int(payload.rpartition(".")[2]))

    def _check(self, cookie: str) -> Visitor | None:
        payload, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(payload).encode()):
            return None
        owner, _, until = payload.split(".")
        # Asked each time: somebody may have copied the cookie, and another server of this home may have ended the sign-in.
        if int(until) <= time.time() or signed_out(self._service.engine, payload):
            return None
        key = _good_key(self._service.engine, owner)
        return None if key is None else Visitor(owner, key.name, key.guards, cookie)

    def _mac(self, payload: str) -> str:
        if not self._secret:
            # The 2: sign-ins of before, among them those that only a file knew to have ended, are none any more.
            self._secret = hmac.digest(answer_key(self._service.home, self._service.engine), b"ingle.page sign-in 2", hashlib.sha256)
        return hmac.digest(self._secret, payload.encode(), hashlib.sha256).hex()


def sign_in_routes(sessions: Sessions, ended: Callable[[str], None]) -> APIRouter:
    """Return the routes of the sign-in, a plain form without scripts. `ended` is called for each sign-in that ends."""
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
        await asyncio.to_thread(sessions.sign_out, cookie)
        ended(cookie)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def sign_in_url(path: str) -> str:
    """Return the address of the sign-in form, which leads back to `path`."""
    return f"/sign-in?next={quote(path)}"


def _form(goal: str, trouble: str = "", status: int = 200) -> Response:
    page = static_text("sign_in.html")
    values = {"css": static_url("page.css"), "icon": static_url("icon.svg"), "next": _local(goal), "trouble": trouble}
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", escape(value))
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})


def _local(goal: str) -> str:
    """Return `goal` if it is a path of this page, else "/"."""
    return goal if goal.startswith("/c/") and "\\" not in goal and goal.isprintable() else "/"


def _good_key(engine: "Engine", owner: str) -> ApiKey | None:
    return next((key for key in list_keys(engine) if key.id == owner and key.revoked is None), None)
