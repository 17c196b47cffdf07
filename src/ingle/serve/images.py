"""`POST /v1/images/generations`: pictures from words, in OpenAI's shape. They come as base64; nothing is kept to be fetched by a URL."""

import base64
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest

from ingle.app.answering import Ask
from ingle.core.apart import StopFlag
from ingle.core.errors import DeltaError, RequestError
from ingle.core.message import Chunk
from ingle.engine.language_model import USUAL, LanguageModel, painted, painting_request
from ingle.media.painter import STYLES, wish_of
from ingle.media.picture import SIDE, enlarged, png_of
from ingle.serve.auth import Keyed, asker, service_of
from ingle.serve.reply import account_of, usage_of
from ingle.serve.schema import ImagesBody
from ingle.serve.service import Service
from ingle.serve.stream import answers, while_connected

router = APIRouter(route_class=Keyed)
_MOST_SIDE = 1024
_USUAL_SIZE = 256


@router.post("/v1/images/generations", tags=["answers"])
async def generations(
    body: ImagesBody, http: HttpRequest, service: Service = Depends(service_of), who: str = Depends(asker)  # noqa: B008 - FastAPI's way
) -> dict[str, Any]:  # fmt: skip
    """Draw pictures from words."""
    if body.response_format == "url":
        rule = "must be b64_json: no picture is kept to be fetched by a URL"
        raise RequestError("response_format", rule, "url", "Leave it out.")
    side = side_of(body.size)
    _, model = await service.models.able(body.model, lambda one: () if one.painter else ("painter",))
    what, style = wish_of(body.prompt)
    style = body.style if body.style in STYLES else style
    asks = []
    for i in range(body.n or 1):
        sampling = replace(USUAL, seed=None if body.seed is None else body.seed + i)
        ask = Ask(painting_request(model, what, style, sampling), model.name, who, memory=False)
        asks.append(replace(ask, id=f"img-{ask.id.removeprefix('chatcmpl-')}"))
    texts, lasts = await while_connected(http, _written(service, asks))
    head = {"created": int(time.time()), "background": "opaque", "output_format": "png", "size": f"{side}x{side}", "quality": "low"}
    made = [await service.slow.prompts.do(who, partial(_picture, model, text, side)) for text in texts]
    data = [{"b64_json": base64.b64encode(one).decode()} for one in made]
    return head | {"data": data, "usage": _usage(lasts), "ingle": account_of(lasts)}


@router.post("/v1/images/edits", tags=["answers"])
async def edits(_who: str = Depends(asker)) -> dict[str, Any]:
    """Refuse to change a picture, and say why."""
    rule = "A painter here draws from words alone and can't change a picture"
    raise RequestError("image", rule, "", "Describe the whole picture to /v1/images/generations.")


def side_of(size: str | None) -> int:
    """Return the pixels of a side. Raises RequestError for a size that is no square, or out of bounds."""
    if size in (None, "auto"):
        return _USUAL_SIZE
    width, _, height = (size or "").partition("x")
    if not (width.isdecimal() and width.isascii() and width == height and len(width) <= 4 and SIDE <= int(width) <= _MOST_SIDE):
        rule = f"must be a square of {SIDE} to {_MOST_SIDE} pixels: what is painted has {SIDE}, more is only smoother"
        raise RequestError("size", rule, size, "For example 256x256.")
    return int(width)


def picture_of(model: LanguageModel, text: str, side: int) -> bytes:
    """Return the picture that an answer is, as a PNG of so many pixels a side. Raises RequestError for words that a guard has changed."""
    try:
        picture = painted(model, text)
    except DeltaError as error:
        rule = "A guard changed the words of this picture, so there is none"
        raise RequestError("prompt", rule, "", "Ask for something else.") from error
    return png_of(enlarged(picture, side / SIDE))


def _picture(model: LanguageModel, text: str, side: int, _stop: StopFlag) -> bytes:
    return picture_of(model, text, side)


async def _written(service: Service, asks: Sequence[Ask]) -> tuple[list[str], list[Chunk]]:
    """Return the words of every picture, and the last chunks. Raises RequestError if a guard ends one."""
    words: list[list[str]] = [[] for _ in asks]
    lasts: dict[int, Chunk] = {}
    async for number, chunk in answers(service, asks):
        words[number].append(chunk.text)
        if chunk.finish == "blocked":
            raise RequestError("prompt", "A guard ended this picture", "", "Ask for something else.")
        if chunk.finish is not None:
            lasts[number] = chunk
    return ["".join(one) for one in words], [lasts[number] for number in range(len(asks))]


def _usage(lasts: Sequence[Chunk]) -> dict[str, Any]:
    """Return the tokens in the shape of OpenAI's picture API."""
    usage = usage_of(lasts)
    read, written = usage["prompt_tokens"], usage["completion_tokens"]
    details = {"text_tokens": read, "image_tokens": 0}
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written, "input_tokens_details": details}
