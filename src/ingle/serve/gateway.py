"""The outermost layer of the server: checks Host and Origin, limits size and time of bodies, adds security headers.

A page of any website can make a browser call a server on the same machine. So the Host header must be a name of this server (a
foreign name that resolves to 127.0.0.1 is DNS rebinding), and the Origin header, where there is one, must be this server itself.
"""

import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingle.app.settings import LOOPBACK, ServeSettings
from ingle.core.clock import REAL, Clock
from ingle.serve.http_errors import error_body
from ingle.serve.logs import log
from ingle.serve.refusals import Refusals, asker_in, explain
from ingle.serve.shares import Bodies

BODY_S = 30.0  # longest pause while a body comes
WHOLE_BODY_S = 300.0  # longest time for a whole body, so that a slow client can't hold a connection for ever
_CLOSE = {"Connection": "close"}
_SECURE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    # Nothing may be loaded from, or sent, elsewhere: an image in an answer can't tell on anybody. Views without scripts hold their styles.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
}


class TooBig(HTTPException):
    """A body is too large. It is an HTTPException because FastAPI reports any other exception of its reader as bad JSON."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"body: must have at most {most} bytes. Send less, or raise serve.body_bytes.", _CLOSE)


class TooSlow(HTTPException):
    """A body came too slowly."""

    def __init__(self) -> None:
        super().__init__(408, f"body: must come without pauses of more than {BODY_S:.0f} s, and within {WHOLE_BODY_S:.0f} s.", _CLOSE)


class NoPlace(HTTPException):
    """There is no room for a body among those of others, or of the same key."""

    def __init__(self) -> None:
        super().__init__(429, "body: there is no room for it beside others in work. Ask again later.", {"Retry-After": "5", **_CLOSE})


class Gateway:
    """ASGI middleware around everything else."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, count: Callable[[str, int], None], refusals: Refusals, clock: Clock = REAL
    ) -> None:  # fmt: skip
        self._app, self._settings, self._count, self._refusals, self._clock = app, settings, count, refusals, clock
        self._bodies = Bodies(settings.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        if scope["type"] == "websocket":
            if refusal:
                self._refusals.tell("websocket", refusal[0], "", refusal[1].partition(":")[0], "")
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1][:100]})
            else:
                await self._app(scope, receive, send)
            return
        if refusal:
            explain(scope, "", refusal[1].partition(":")[0])
        exchange = _Exchange(self._app, self._settings.body_bytes, self._bodies, self._clock)
        try:
            await exchange.run(scope, receive, send, refusal)
        finally:
            self._tell(scope, exchange)

    def _tell(self, scope: Scope, exchange: "_Exchange") -> None:
        path = getattr(scope.get("route"), "path", "")  # not the path itself: it may hold an id, and anybody can invent one
        status = exchange.status or 499
        self._count(path or "other", status)
        self._refusals.answered(scope, path, status, asker_in(scope))
        took_ms = round((self._clock.now() - exchange.began) * 1000, 1)
        log("request", {"method": scope["method"], "route": path or "other", "status": status, "ms": took_ms, "bytes_in": exchange.seen})

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        if len(headers.getlist("host")) > 1:  # a proxy before us may have read the other one
            return 400, "Host: must be given once."
        host = headers.get("host", "")
        name = _host_name(host).lower()
        names = {*LOOPBACK, self._settings.host, *map(str.lower, self._settings.hosts)}
        # Behind 0.0.0.0 we can't know our names; there a key is needed, which no foreign page has.
        if name not in names and not (self._settings.exposed and not self._settings.hosts):
            return 403, f"Host: must be a name of this server (got {name[:80]}). Add it to serve.hosts if it is one."
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, f"Origin: must be this server itself (got {origin[:80]}). Other sites' pages may not call it."
        return None


class _Exchange:
    """One request and its response."""

    def __init__(self, app: ASGIApp, most: int, bodies: Bodies, clock: Clock) -> None:
        self._app, self._most, self._bodies, self._clock = app, most, bodies, clock
        self.status, self.seen, self.began, self._complete = 0, 0, clock.now(), False
        self._held: list[tuple[str, int]] = []

    async def run(self, scope: Scope, receive: Receive, send: Send, refusal: tuple[int, str] | None) -> None:
        length = Headers(scope=scope).get("content-length", "")
        if refusal is None and length.isdecimal() and int(length) > self._most:
            refusal = 413, TooBig(self._most).detail

        async def limited() -> Message:
            return await self._receive(receive, asker_in(scope))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _SECURE.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if refusal is not None:
                await _refuse(sending, *refusal)
            else:
                await self._app(scope, limited, sending)
        except HTTPException as error:  # where nothing that reads the body renders it
            if self.status:
                raise
            await _refuse(sending, error.status_code, error.detail)
        except Exception as error:
            if self.status:
                raise
            if isinstance(error, MemoryError):
                await _refuse(sending, 503, "There is no memory left for this request. Ask again later.", type(error).__name__)
                return
            logging.getLogger("ingle").exception("request")
            await _refuse(sending, 500, "This is a bug in Ingle. The server's log says more.", type(error).__name__)
        finally:
            for asker, size in self._held:
                self._bodies.give(asker, size)

    async def _receive(self, receive: Receive, asker: str) -> Message:
        if self._complete:  # from here on we only wait for the client to hang up
            return await receive()
        patience = min(BODY_S, self.began + WHOLE_BODY_S - self._clock.now())
        try:
            async with self._clock.within(patience):  # not wait_for: of a message that is there, it forgets that we were cancelled
                message = await receive()
        except TimeoutError as error:
            raise TooSlow from error
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.seen += size
        if self.seen > self._most:
            raise TooBig(self._most)
        if not self._bodies.take(asker, size):
            raise NoPlace
        self._held.append((asker, size))
        return message


def _host_name(host: str) -> str:
    """Return the host without its port: `[::1]:80` → `::1`."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


async def _refuse(send: Send, status: int, message: str, code: str | None = None) -> None:
    import json

    body = json.dumps(error_body(message, status, code=code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
