"""`POST /v1/moderations`: the judges of requests, in OpenAI's shape. Nothing leaves this machine, and nothing is kept."""

import asyncio
import math
import secrets
from typing import Any

from fastapi import APIRouter, Depends

from ingle.core.errors import RequestError
from ingle.safety.guard import judge_file
from ingle.safety.guards.injection import score, sentences
from ingle.safety.judge import Judge, load_judge
from ingle.safety.reading import REQUESTS
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.schema import ModerationBody
from ingle.serve.service import Service

router = APIRouter(route_class=Keyed)
_MOST_TEXTS, _MOST_CHARACTERS = 64, 100_000
_RATE = 0.01  # share of harmless texts that may be flagged in each category


@router.post("/v1/moderations", tags=["safety"])
async def moderations(
    body: ModerationBody, service: Service = Depends(service_of), _who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> dict[str, Any]:  # fmt: skip
    """Judge texts: does one ask for harm, attack a model's rules, or give orders to an assistant?"""
    texts = _texts(body)
    judge = await asyncio.to_thread(load_judge, judge_file(service.home.root))
    results = [await asyncio.to_thread(moderated, judge, text) for text in texts]
    return {"id": f"modr-{secrets.token_hex(12)}", "model": f"ingle-judge-{judge.digest[:12]}", "results": results}


def moderated(judge: Judge, text: str) -> dict[str, Any]:
    """Return a text's result. A score of a half is the threshold at which one harmless text in a hundred is flagged."""
    scores = judge.scores(text)
    margins = {name: scores.margin(judge, name, _RATE)[0] for name in REQUESTS}
    margins["order"] = max(score(judge, sentence) for sentence in sentences(text)) - judge.alarm("order", _RATE)
    scored = {name: 1 / (1 + math.exp(-max(-30.0, min(30.0, margin)))) for name, margin in margins.items()}
    categories = {name: value > 0.5 for name, value in scored.items()}
    return {"flagged": any(categories.values()), "categories": categories, "category_scores": scored}


def _texts(body: ModerationBody) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [one if isinstance(one, str) else one.text for one in given]
    if not texts or len(texts) > _MOST_TEXTS:
        raise RequestError("input", f"must hold 1 to {_MOST_TEXTS} texts", len(texts))
    if longest := max((len(text) for text in texts if len(text) > _MOST_CHARACTERS), default=0):
        raise RequestError("input", f"must hold texts of at most {_MOST_CHARACTERS:,} characters", f"{longest:,}")
    if not all(text.strip() for text in texts):
        raise RequestError("input", "must hold texts", "an empty one")
    return texts
