"""The view *Account*: cards of the models here, and what each change did to their figures. A page of its own, without a script."""

import asyncio
import json
from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from ingle.app.operations.cards import card_of, rows_of
from ingle.core.config import to_table
from ingle.ethics.card import STYLE, Card, as_markdown, card_file, card_table, kinds, shown
from ingle.ethics.card_facts import Drift, drift
from ingle.ledger.chain import Ledger
from ingle.page.sign_in import sign_in_url
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE, Sessions

PATH = "/account"
STYLE_OF_VIEWS = f"""{STYLE}
body {{ background: #faf5ef }} h1, h2 {{ font-family: Georgia, "DejaVu Serif", serif; font-weight: 500 }} a {{ color: #b4481f }}
select, button {{ font: inherit; padding: .2rem .5rem; max-width: 100% }}
@media (prefers-color-scheme: dark) {{ body {{ background: #1d1a17 }} a {{ color: #e58a5f }} }}
"""
_FORMS = {"json": "application/json", "md": "text/markdown; charset=utf-8"}


def account_routes(service: Service, sessions: Sessions) -> APIRouter:
    """Return the route of the view, for those who have signed in."""
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def account(request: Request) -> Response:
        visitor = await sessions.visitor(request.cookies.get(COOKIE, ""))
        if visitor is None:
            return RedirectResponse(sign_in_url(PATH), 303)
        asked = request.query_params
        kind = asked.get("as", "model")
        card, names, drifted = await asyncio.to_thread(_read, service, asked.get("model", ""), kind, not visitor.owner)
        form = asked.get("form", "")
        if form in _FORMS:
            text = as_markdown(card) if form == "md" else json.dumps({"object": "card", "digest": card.digest, **to_table(card)}, indent=1)
            name = f"{card.model}-{card.kind}.{form}".replace("+", "-")
            return PlainTextResponse(text, media_type=_FORMS[form], headers={"Content-Disposition": f'attachment; filename="{name}"'})
        return HTMLResponse(page(card, names, drifted), headers={"Cache-Control": "no-store"})

    return router


def _read(service: Service, model: str, kind: str, counted: bool) -> tuple[Card, Sequence[str], Drift]:
    """Read what the page shows. `counted`: whether counts of everybody's requests are for this visitor."""
    kept, names = service.models.kept(model), list(service.models.names())
    rows = [row for row in rows_of(Ledger(service.engine, service.home.keys)) if row.subject in names]
    return card_of(service.home, service.engine, kept, kind, counted), names, drift(rows, kept.name)


def page(card: Card, names: Sequence[str], drifted: Drift) -> str:
    """Return the page: what to show, the card, and what changes did."""
    models = _options([(name, name) for name in names], card.model)
    cards = _options([(kind, card_file(kind).TITLE) for kind in kinds()], card.kind)
    form = (
        f'<form method=get action="{PATH}"><label>Model <select name=model>{models}</select></label> '
        f"<label>Card <select name=as>{cards}</select></label> <button>Show</button></form>"
    )
    links = " · ".join(f'<a href="{PATH}?{_query(card, name)}">as {label}</a>' for name, label in (("json", "JSON"), ("md", "Markdown")))
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    title = f"<title>Account: {escape(card.model)}</title><style>{STYLE_OF_VIEWS}</style>"
    ways = "<p><a href='/'>← Conversations</a> · <a href='/federated'>Learned together</a> · <a href='/scaling'>Scaling</a></p>"
    body = f"{ways}<h1>Account</h1>{form}<h2>{escape(card.title)}</h2>{card_table(card)}<p>{links}</p>"
    return f"{head}{title}{body}{drift_table(drifted)}</html>"


def drift_table(drifted: Drift) -> str:
    """Return what changes did as a table: a line for each model that was measured."""
    if not drifted.lines:
        return (
            "<h2>What changes did</h2><p>Nothing was measured yet: <code>ingle measure</code> and <code>ingle measure bias</code> do.</p>"
        )
    head = "".join(f"<th>{escape(name)}" for name in drifted.figures)
    rows = "".join(
        f"<tr><td>{escape(line.model)}" + "".join(f"<td>{escape(shown(cell)) if cell else '–'}" for cell in line.cells) + "</tr>"
        for line in drifted.lines
    )
    return f"<h2>What changes did</h2><div style='overflow-x:auto'><table><tr><th>model{head}</tr>{rows}</table></div>"


def _options(pairs: Sequence[tuple[str, str]], chosen: str) -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(label)}</option>' for value, label in pairs
    )


def _query(card: Card, form: str) -> str:
    return escape(urlencode({"model": card.model, "as": card.kind, "form": form}))
