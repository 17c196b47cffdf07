"""The guards around a request of a server. Judges read it before, in a thread and in its asker's turn, so that none holds up others."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingle.core.message import Request
from ingle.safety.guard import RequestLimits, judge_ahead, make_guards
from ingle.safety.middleware import GuardLayer
from ingle.safety.opinion import GuardCost
from ingle.safety.policy import GuardPolicy

if TYPE_CHECKING:
    from ingle.serve.service import Service


async def guards_around(
    service: "Service", request: Request, limits: RequestLimits, policy: GuardPolicy, model: str, asker: str,
    told: Callable[[GuardCost], object] = lambda _: None,
) -> tuple[GuardLayer, ...]:  # fmt: skip
    """Return the guards for a request to a model. `told` hears what guard models cost."""
    key = await asyncio.to_thread(service.key_name, asker)
    await service.slow.guards.do(asker, lambda _stop: judge_ahead(request, policy, model, key))
    return make_guards(limits, policy, model, key, service.guard_models.ask_for(asker, told))
