"""Sign-ins by a browser: a visitor on this machine, or one who signed in with a key.

A sign-in is a cookie that this home signed. It holds the key's id, a random number and its end, never the key itself. Each page and
each action checks that the key is still good, so a revoked key is out at once.
"""

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass

from ingle.app.answer_key import answer_key
from ingle.home.api_keys import ApiKey, check_key, list_keys
from ingle.home.sign_outs import sign_out, signed_out
from ingle.serve.service import Service
from ingle.serve.updates import Updates

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

    @property
    def updates(self) -> Updates:
        """The streams of those who signed in."""
        return self._service.updates

    async def visitor(self, cookie: str) -> Visitor | None:
        """Return the visitor with this cookie; None if they must sign in first."""
        if not self._service.settings.needs_key:
            return Visitor("", guards=True)
        key = await self.key(cookie)
        return None if key is None else Visitor(key.id, key.name, key.guards, cookie)

    async def key(self, cookie: str) -> ApiKey | None:
        """Return the key that somebody signed in with; None if the cookie is not good, or no more."""
        return await asyncio.to_thread(self._check, cookie)

    async def sign_in(self, secret: str, address: str) -> str | None:
        """Return a cookie for the user of a key; None if the key is not good. Raises Busy if too many from this address were not."""
        key = await self._service.slow.doors.do("", lambda _stop: check_key(self._service.engine, secret.strip()))
        if key is None:
            await self._service.wrong_keys.slow(address)
            return None
        payload = f"{key.id}.{secrets.token_hex(12)}.{int(self._service.clock.wall()) + LIFE_S}"
        return f"{payload}.{await asyncio.to_thread(self._mac, payload)}"

    def sign_out(self, cookie: str) -> None:
        """Ends a sign-in in every tab, and on every server of this home. Writes to the database."""
        if self._check(cookie):
            payload = cookie.rpartition(".")[0]
            sign_out(self._service.engine, payload, int(payload.rpartition(".")[2]))

    def _check(self, cookie: str) -> ApiKey | None:
        payload, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(payload).encode()):
            return None
        owner, _, until = payload.split(".")
        # Asked each time: somebody may have copied the cookie, and another server of this home may have ended the sign-in.
        if int(until) <= self._service.clock.wall() or signed_out(self._service.engine, payload):
            return None
        return next((key for key in list_keys(self._service.engine) if key.id == owner and key.revoked is None), None)

    def _mac(self, payload: str) -> str:
        if not self._secret:
            # The 2: sign-ins of before, among them those that only a file knew to have ended, are none any more.
            self._secret = hmac.digest(answer_key(self._service.home, self._service.engine), b"ingle.page sign-in 2", hashlib.sha256)
        return hmac.digest(self._secret, payload.encode(), hashlib.sha256).hex()
