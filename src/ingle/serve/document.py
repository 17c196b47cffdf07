"""`/openapi.json`: the API's description, errors included."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ingle.serve.schema import ErrorTable

ANSWERING = (400, 401, 403, 404, 408, 409, 413, 429, 500, 503)  # error statuses of a route that reads a body
LOOKING = (400, 401, 403, 404, 429, 500, 503)  # error statuses of a route that doesn't
# Responses of a route that answers whole or in events.
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these error statuses, as `include_router` takes them."""
    return {code: {"model": ErrorTable, "description": HTTPStatus(code).phrase} for code in codes}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, without FastAPI's 422, which never comes: bad bodies get 400."""
    if app.openapi_schema is None:
        table = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for methods in table["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            table["components"]["schemas"].pop(unused, None)
        app.openapi_schema = table
    return app.openapi_schema
