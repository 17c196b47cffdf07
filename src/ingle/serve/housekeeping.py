"""Housekeeping by the hour: the owner's policy is recorded where it has changed, and words that are older than it allows are deleted."""

import asyncio

from ingle.app.operations.cards import record_policy
from ingle.core.errors import IngleError
from ingle.home.owner import owner_policy
from ingle.home.retention import sweep_old
from ingle.ledger.chain import Ledger
from ingle.safety.guard import guard_policy
from ingle.serve.logs import log
from ingle.serve.service import Service

_EVERY_S = 3600.0


async def keep_house(service: Service) -> None:
    """Keep house until it is cancelled. A policy that can't be read is told in the log, and nothing is deleted by it."""
    while True:
        try:
            await asyncio.to_thread(house_kept, service)
        except IngleError as error:
            log("housekeeping", {"fault": str(error)})
        await service.clock.pause(_EVERY_S)


def house_kept(service: Service) -> None:
    """Keep house once. Raises ConfigError, HomeError, LedgerError."""
    owner = owner_policy(service.home.policy)
    record_policy(Ledger(service.engine, service.home.keys), owner, guard_policy(service.home.policy))
    sweep_old(service.engine, owner.retention.answers_days, service.record, service.forget)
