"""Proofs of facts: `/v1/events/SEQ/proof`."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from ingle.core.errors import NotKept
from ingle.ledger.head import head_table
from ingle.ledger.proof import consistency, extract, proven_table
from ingle.serve.auth import asker, service_of
from ingle.serve.service import Service

router = APIRouter()
_MOST = (1 << 53) - 1
Since = Annotated[int | None, Query(ge=1, le=_MOST, description="Number of facts of a head that you have: also prove that it only grew.")]


@router.get("/v1/events/{seq}/proof", tags=["operation"])
async def proof(
    seq: int, since: Since = None, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008
) -> dict[str, Any]:  # fmt: skip
    """Return a fact of the ledger, its path to the root of the tree over all facts, and the signed head with that root.

    A key proves facts about its own requests, the user of this machine all. Nothing of other facts is in it but hashes.
    """
    return await asyncio.to_thread(_proof, service, seq, since, who)


def _proof(service: Service, seq: int, since: int | None, who: str) -> dict[str, Any]:
    keys = service.home.keys
    missing = NotKept("event", f"There is no fact {seq} of yours", "", "The answer names its fact: ingle.event.")
    if not 0 < seq <= _MOST:
        raise missing
    try:
        found = extract(service.engine, keys, [seq])
    except NotKept as error:
        raise missing from error
    [one] = found.proven
    if who and one.row.values.get("key") != who:
        raise missing
    table: dict[str, Any] = {"object": "ledger.proof", "fact": proven_table(one), "head": head_table(found.head), "key": found.key}
    if since is not None:
        head, path = consistency(service.engine, keys, since)
        table["since"] = {"seq": since, "head": head_table(head), "path": list(path)}
    return table
