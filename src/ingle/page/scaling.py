"""The view *Scaling*: sweeps of this home, with plots, law, prediction and every run. It has no script; while one runs, it loads anew."""

import asyncio
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from ingle.core.errors import IngleError
from ingle.page.account import STYLE_OF_VIEWS
from ingle.page.sign_in import sign_in_url
from ingle.scaling.sheet import PARTS_STYLE, Sheet, read_sheet, sheet_body, sweeps_of
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE, Sessions
from ingle.serve.troubles import said

PATH = "/scaling"
_NONE = (
    "<p>No sweep was planned in this home yet.</p><p class=said>A sweep trains small models from scratch and says how loss falls with size "
    "and text. A first one takes about twenty minutes: <code>ingle scale plan --minutes 20</code></p>"
)
RELOAD_S = 20  # how often the view loads anew while a sweep runs


def scaling_routes(service: Service, sessions: Sessions) -> APIRouter:
    """Return the route of the view, for the owner."""
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def scaling(request: Request) -> Response:
        visitor = await sessions.visitor(request.cookies.get(COOKIE, ""))
        if visitor is None:
            return RedirectResponse(sign_in_url(PATH), 303)
        if visitor.owner:  # the id of a key: somebody else
            return HTMLResponse(_page("<p>Only the owner of this machine sees its sweeps.</p>"), 403)
        body, status, running = await asyncio.to_thread(_body, service, request.query_params.get("sweep", ""))
        return HTMLResponse(_page(body, running), status, headers={"Cache-Control": "no-store"})

    return router


def _body(service: Service, name: str) -> tuple[str, int, bool]:
    """Return the view's parts, its status, and whether what it shows still changes. `name`: of the sweep that is shown; "" = the first."""
    found = sweeps_of(service.home)
    if not found and not name:
        return _NONE, 200, False
    try:
        sheet = read_sheet(service.home, name or _first(found))
    except IngleError as error:
        return f"{listing(found, '')}<p>{escape(said(error))}</p>", error.http_status, False
    return listing(found, sheet.name) + shown(sheet), 200, bool(sheet.progress)


def _first(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the sweep to show unasked: the one that runs, or the first."""
    return str(next((one for one in found if one["running"]), found[0])["name"])


def listing(found: Sequence[Mapping[str, Any]], chosen: str) -> str:
    """Return the sweeps as a table; the chosen one is no link."""
    rows = []
    for one in found:
        name = escape(one["name"])
        link = f"<b>{name}</b>" if one["name"] == chosen else f'<a href="{PATH}?{escape(urlencode({"sweep": one["name"]}))}">{name}</a>'
        done = f"{one['done']} of {one['of']}{', training now' if one['running'] else ''}"
        rows.append(f"<tr><td>{link}<td>{done}<td>{escape(one['foretold']) or '–'}<td>{escape(one['came']) or '–'}")
    return f"<div class=wide><table><tr><th>sweep<th>runs<th>foretold<th>came{''.join(rows)}</table></div>"


def shown(sheet: Sheet) -> str:
    """Return a sweep as HTML."""
    return f"<h2>The sweep {escape(sheet.name)}</h2>{sheet_body(sheet, 'h3')}"


def _page(body: str, running: bool = False) -> str:
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    head += f"<meta http-equiv=refresh content={RELOAD_S}>" if running else ""
    links = "<p><a href='/'>← Conversations</a> · <a href='/account'>Account</a> · <a href='/federated'>Learned together</a></p>"
    style = f"<style>{STYLE_OF_VIEWS}:root {{ color-scheme: light dark }}{PARTS_STYLE}</style>"
    return f"{head}<title>Scaling</title>{style}{links}<h1>Scaling</h1>{body}</html>"
