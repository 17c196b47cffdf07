"""Authentication by API key or by a browser's sign-in, and rate limits. On this machine no key is needed."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ingle.core.errors import Busy, NoRight, NotAllowed
from ingle.home.api_keys import PREFIX, ApiKey, check_key
from ingle.serve.refusals import KEY
from ingle.serve.service import Service
from ingle.serve.sign_in import COOKIE, Sessions


@dataclass
class Bucket:
    """A token bucket. It holds a minute's requests and refills steadily."""

    per_minute: float
    level: float
    at: float  # the time by a clock

    def wait_s(self, now: float) -> float:
        """Take one token and return 0; if there is none, return the seconds until there is."""
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) * 60 / self.per_minute


class KeyAuth:
    """Checks keys and counts their requests."""

    def __init__(self, service: Service) -> None:
        self._service, self.sessions = service, Sessions(service)
        self._buckets: dict[str, Bucket] = {}

    @property
    def needs_key(self) -> bool:
        """Whether nobody is answered without a key."""
        return self._service.settings.needs_key

    async def key_of(self, authorization: str, address: str) -> ApiKey | None:
        """Return a request's key; None on this machine, where none is needed. `address`: the client's; wrong keys from it are slowed.

        Raises NotAllowed for a missing, unknown or revoked key, Busy if the key is used too often, or too many were wrong.
        """
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
        # Clients that insist on a key send any word to a server on the same machine. What looks like ours must be right.
        if not secret.startswith(PREFIX):
            if not self.needs_key:
                return None
            got = "another kind of key" if secret else "none"
            raise NotAllowed(
                "Authorization", "must be 'Bearer' and a key of this home", got, "The owner makes one: ingle home keys add NAME"
            )
        key = await self._service.slow.doors.do("", lambda _stop: check_key(self._service.engine, secret))
        if key is None:
            await self._service.wrong_keys.slow(address)
            raise NotAllowed("Authorization", "This key is unknown or revoked")
        self.count(key)
        return key

    async def key_of_visitor(self, request: Request) -> ApiKey:
        """Return the key that a browser signed in with (serve/sign_in.py).

        Raises NotAllowed if it must sign in first, or another site may have sent it; Busy if the key is used too often.
        """
        # What changes something must come from our own page. The gateway has compared the origin, where a browser says it.
        ours = request.method == "GET" or "origin" in request.headers or request.headers.get("sec-fetch-site") == "same-origin"
        key = await self.sessions.key(request.cookies[COOKIE]) if ours else None
        if key is None:
            raise NotAllowed("Cookie", "Sign in first" if ours else "A signed-in browser must say its origin")
        self.count(key)
        return key

    def count(self, key: ApiKey | None) -> None:
        """Count one more request of a key. Raises Busy if it has had its share."""
        if key is None:
            return
        most = key.requests_per_minute or self._service.settings.requests_per_minute
        if not most:
            return
        now = self._service.clock.now()
        bucket = self._buckets.setdefault(key.id, Bucket(most, most, now))
        wait = bucket.wait_s(now)
        if wait:
            raise Busy("requests", f"This key may ask {most} times a minute", "", "Ask again later.", wait)


async def asker(request: Request) -> str:
    """Return the id of a request's key; "" for the user of this machine, where none is needed. Raises as `KeyAuth.key_of` does."""
    key = await _key_of(request)
    return "" if key is None else key.id


async def sees_everybody(request: Request) -> bool:
    """Return whether figures about everybody's requests are for whoever asks: the user of this machine, and keys with that right."""
    key = await _key_of(request)
    return key is None or key.metrics


async def may_see_metrics(request: Request) -> str:
    """Return `asker`, if it may see the figures of the whole server. Raises NoRight for a key without that right."""
    key = await _key_of(request)
    if not await sees_everybody(request):
        raise _no_right("read the figures of the whole server", "--metrics")
    return "" if key is None else key.id


async def may_teach_guards(request: Request) -> str:
    """Return `asker`, if it may teach and set the guards, which act for everybody. Raises NoRight for a key without that right."""
    key = await _key_of(request)
    if not await teaches_guards(request):
        raise may_not_teach()
    return "" if key is None else key.id


async def teaches_guards(request: Request) -> bool:
    """Return whether whoever asks may teach and set the guards: the user of this machine, and keys with that right."""
    key = await _key_of(request)
    return key is None or key.guards


async def may_pull(request: Request) -> None:
    """Raise NoRight for anybody with a key: models take the owner's disk, so the owner alone pulls them."""
    if await _key_of(request) is not None:
        raise NoRight("Authorization", "A key may not pull models", "", "The owner does, at the machine itself: ingle pull NAME")


def may_not_teach() -> NoRight:
    """Return the error of a key that may not teach and set the guards."""
    return _no_right("teach or set the guards of this home", "--guards")


def _no_right(act: str, option: str) -> NoRight:
    return NoRight("Authorization", f"This key may not {act}", "", f"The owner makes one that may: ingle home keys add NAME {option}")


async def _key_of(request: Request) -> ApiKey | None:
    """Return a request's key. Each request is checked and counted once."""
    if KEY not in request.scope:
        auth: KeyAuth = request.app.state.auth
        authorization = request.headers.get("Authorization", "")
        signed_in = not authorization and COOKIE in request.cookies and auth.needs_key
        request.scope[KEY] = await (auth.key_of_visitor(request) if signed_in else auth.key_of(authorization, address_of(request)))
    key: ApiKey | None = request.scope[KEY]
    return key


def address_of(request: Request) -> str:
    """Return the client's address. What a proxy says of it is not believed: anybody can say it."""
    return request.client.host if request.client else ""


class Keyed(APIRoute):
    """A route that checks the key before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the library's handler behind the check of the key."""
        handler = super().get_route_handler()

        async def keyed(request: Request) -> Response:
            await asker(request)
            return await handler(request)

        return keyed


def service_of(request: Request) -> Service:
    """Return the server's service."""
    service: Service = request.app.state.service
    return service
