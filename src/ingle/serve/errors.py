"""Every error, in the shape that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}."""

import sys
import traceback
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ingle.core.errors import Busy, HomeError, IngleError, NotKept

_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error",
    503: "unavailable_error",
}  # fmt: skip
_PARTS = {"body", "query", "path", "header"}


def error_body(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The error as a table."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(error: IngleError) -> int:
    """HTTP status; a home that can't be written now may be writable later."""
    return 503 if isinstance(error, HomeError) else error.http_status


def body_of(error: IngleError) -> dict[str, Any]:
    """What a client is told of one of our errors."""
    code = "model_not_found" if isinstance(error, NotKept) and error.field == "model" else type(error).__name__
    return error_body(str(error), status_of(error), error.field, code)


def response_of(error: IngleError) -> JSONResponse:
    """The whole response."""
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Busy) else {}
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error), status_of(error), headers)


def add_handlers(app: FastAPI) -> None:
    """Renders whatever is raised in a route."""
    app.add_exception_handler(IngleError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IngleError)
    return response_of(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [part for i, part in enumerate(first["loc"]) if not (i == 0 and part in _PARTS)]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".") or "body"
    message = f"{param}: {first['msg']}"
    return JSONResponse(error_body(message[:1000], 400, param[:200], "invalid_value"), 400)


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail) if error.detail else HTTPStatus(error.status_code).phrase
    return JSONResponse(error_body(message, error.status_code), error.status_code, error.headers)


async def _bug(_request: Request, error: Exception) -> JSONResponse:
    traceback.print_exception(error, file=sys.stderr)
    return JSONResponse(error_body("This is a bug of Ingle; see the server's log.", 500, code=type(error).__name__), 500)
