"""Whether this server can answer anybody: what `/health` says of it."""

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from ingle.ledger.chain import Ledger

if TYPE_CHECKING:
    from ingle.serve.service import Service

SCARCE_BYTES = 8 << 20  # with less free space on the home's disk, it is tried out whether a fact can be written
# Longest that an answer of `/health` waits for such a trial. A trial's result is good for as long.
PATIENCE_S = 1.0


class Health:
    """The health of one server. Asking costs nothing while all is well."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._trial: asyncio.Future[bool] | None = None
        self._tried = 0.0

    async def status(self) -> str:
        """Return "ok", or why every answer fails: "stopped", "no home", "can't record" (a full disk, a broken ledger), "no memory"."""
        service = self._service
        if not service.scheduler.alive:
            return "stopped"
        if not service.models.there:
            return "no home"
        if (service.recorder.failing or await service.slow.doors.do("", lambda _stop: self._scarce())) and not await self._can_record():
            return "can't record"
        return "no memory" if service.scheduler.failures.starved() else "ok"

    def _scarce(self) -> bool:
        try:
            return shutil.disk_usage(self._service.home.root).free < SCARCE_BYTES
        except OSError:
            return True

    async def _can_record(self) -> bool:
        """Return whether a fact could be written, by a trial. One that takes too long has failed, and goes on for those who ask next."""
        clock = self._service.clock
        if self._trial is None or (self._trial.done() and clock.now() - self._tried > PATIENCE_S):
            self._trial = asyncio.ensure_future(self._service.slow.doors.do("", lambda _stop: self._try()))
            self._tried = clock.now()
        with suppress(TimeoutError):
            async with clock.within(PATIENCE_S):
                await asyncio.wait({self._trial})
        return self._trial.done() and self._trial.result()

    def _try(self) -> bool:
        try:
            Ledger(self._service.engine, self._service.home.keys).ready()
        except Exception:  # whatever it is, an answer would meet it too, and say it
            return False
        self._service.recorder.failing = False
        return True
