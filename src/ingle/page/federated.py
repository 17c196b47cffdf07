"""The view *Learned together*: federations of this home, and every message that left this machine for them. It has no script."""

import asyncio
from collections.abc import Sequence
from html import escape

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from ingle.federated.consent import FederationStatus, federation_status, federations
from ingle.federated.standing import folder_of
from ingle.federated.transport import LeftMessage, what_left
from ingle.page.account import STYLE_OF_VIEWS
from ingle.page.sign_in import sign_in_url
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE, Sessions

PATH = "/federated"
_MOST_SHOWN = 500
Shown = tuple[FederationStatus, Sequence[LeftMessage]]


def federated_routes(service: Service, sessions: Sessions) -> APIRouter:
    """Return the route of the view, for the owner."""
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def federated(request: Request) -> Response:
        visitor = await sessions.visitor(request.cookies.get(COOKIE, ""))
        if visitor is None:
            return RedirectResponse(sign_in_url(PATH), 303)
        if visitor.owner:  # the id of a key: somebody else
            return HTMLResponse(_page("<p>Only the owner of this machine sees what left it.</p>"), 403)
        return HTMLResponse(_page(listing(await asyncio.to_thread(_read, service))), headers={"Cache-Control": "no-store"})

    return router


def listing(found: Sequence[Shown]) -> str:
    """Return federations as HTML: a table of each, and its messages, the newest first."""
    if not found:
        return (
            "<p>This home learns together with nobody, and nothing left it.</p>"
            "<p>An invitation changes that: <code>ingle federate join FILE --data FILE</code></p>"
        )
    return "".join(_federation(status, messages) for status, messages in found)


def _federation(status: FederationStatus, messages: Sequence[LeftMessage]) -> str:
    facts = (
        ("model", status.model or "not kept"), ("homes", str(status.homes)),
        ("rounds", f"{status.accepted} of {status.rounds} taken over, {status.dropped} dropped"),
        ("lent", "nothing any more" if status.lent is None else f"{status.lent:,} examples, which stay here"),
        ("left this machine", f"{status.messages:,} messages, {status.bytes_left:,} bytes"), ("good until", status.expires),
    )  # fmt: skip
    about = "".join(f"<tr><th>{name}<td>{escape(value)}" for name, value in facts)
    newest = list(reversed(messages))[:_MOST_SHOWN]
    rows = "".join(
        f"<tr><td>{escape(one.at[:19])}<td>{escape(one.to)}<td>{escape(one.kind)}<td>{one.bytes:,}<td><code>{escape(one.sha256[:16])}</code>"
        for one in newest
    )
    more = (
        f"<p>The newest {_MOST_SHOWN} of {len(messages):,}; all: <code>ingle federate left</code></p>"
        if len(messages) > len(newest)
        else ""
    )
    head = "<tr><th>when<th>to<th>what<th>bytes<th>SHA-256"
    return (
        f"<h2>{escape(status.name)}</h2><table>{about}</table><h3>What left this machine</h3>"
        f"<div style='overflow-x:auto'><table>{head}{rows}</table></div>{more}"
    )


def _read(service: Service) -> list[Shown]:
    home = service.home
    return [(federation_status(home, one), what_left(folder_of(home, one))) for one in federations(home)]


def _page(body: str) -> str:
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    links = "<p><a href='/'>← Conversations</a> · <a href='/account'>Account</a> · <a href='/scaling'>Scaling</a></p>"
    return f"{head}<title>Learned together</title><style>{STYLE_OF_VIEWS}</style>{links}<h1>Learned together</h1>{body}</html>"
