"""Errors as HTTP responses, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ingle.core.errors import Busy, ContextError, HomeError, IngleError, NotKept, Stale
from ingle.serve.refusals import explain

_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error",
    503: "unavailable_error",
}  # fmt: skip
_CODES: dict[type[IngleError], str] = {ContextError: "context_length_exceeded"}  # OpenAI's codes, for errors that OpenAI has too


def error_body(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return an error's body. Lone surrogates of the request are replaced, for no response can hold them."""
    message, param = _whole(message), None if param is None else _whole(param)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def status_of(error: IngleError) -> int:
    """Return the HTTP status; 503 for a home that can't be written now."""
    return 503 if isinstance(error, HomeError) else error.http_status


def body_of(error: IngleError) -> dict[str, Any]:
    """Return the body for one of Ingle's errors."""
    openai_code = "model_not_found" if isinstance(error, NotKept) and error.field == "model" else _CODES.get(type(error))
    code = openai_code or type(error).__name__
    body = error_body(str(error), status_of(error), error.field, code)
    if isinstance(error, Stale):
        body["error"]["newer"] = error.newer
    return body


def response_of(error: IngleError) -> JSONResponse:
    """Return the response for one of Ingle's errors."""
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Busy) else {}
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error), status_of(error), headers)


def add_handlers(app: FastAPI) -> None:
    """Render every error that a route raises."""
    app.add_exception_handler(IngleError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IngleError)
    told = error.told or isinstance(error, HomeError)  # a home that can't be written can't be told either
    explain(request.scope, type(error).__name__, error.field, told)
    return response_of(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    explain(request.scope, "invalid_value")
    if isinstance(error.body, bytes):
        return JSONResponse(error_body("Content-Type must be application/json.", 400, "Content-Type", "invalid_value"), 400)
    if any(one["type"] == "json_invalid" for one in error.errors()):
        param, text = "body", f"it is no JSON ({error.errors()[0]['ctx']['error']}, at character {error.errors()[0]['loc'][-1]})"
    else:
        # For a union, pydantic lists the errors of every member. The deepest, or one about length, is of the member that was meant.
        candidates = [(one["type"] == "too_long", _where(one, error.body), str(one["msg"])) for one in error.errors()]
        _, where, text = max(candidates, key=lambda one: (one[0], len(one[1])))
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".") or "body"
        explain(request.scope, "invalid_value", re.split(r"[.\[]", param)[0])  # what is deeper may be a client's own word
    return JSONResponse(error_body(f"{param}: {text}"[:1000], 400, param[:200], "invalid_value"), 400)


def _where(error: Mapping[str, Any], body: Any) -> list[int | str]:
    """Return the path to the wrong value, without the names of types that the library puts in between."""
    if error["loc"][0] in ("query", "path"):
        return [error["loc"][-1]]
    path: list[int | str] = []
    loc = error["loc"][1:] if error["loc"][:1] == ("body",) else error["loc"]
    for i, part in enumerate(loc):
        if (isinstance(body, Mapping) and part in body) or (isinstance(body, list) and isinstance(part, int) and part < len(body)):
            body = body[part]
            path.append(part)
        elif i == len(loc) - 1 and error["type"] == "missing":
            path.append(part)
    return path


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    message = str(error.detail) if error.detail else phrase
    if error.status_code in (404, 405) and message == phrase:
        message = f"Unknown endpoint {request.method} {request.url.path[:80]}. /openapi.json lists what there is."
    if message == "There was an error parsing the body":  # FastAPI's words for whatever its JSON reader gives up on
        message = "The body must be JSON in UTF-8, nested less than some hundred deep, with numbers of less than 4,300 digits."
    return JSONResponse(error_body(message, error.status_code), error.status_code, error.headers)
