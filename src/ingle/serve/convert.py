"""Converts bodies of requests to Ingle's own types."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from ingle.app.settings import SamplingSettings
from ingle.core.digest import plain_json
from ingle.core.errors import RequestError
from ingle.core.message import AudioPart, Constraint, ImagePart, Message, Part, Role, Sampling, TextPart, ToolCall
from ingle.serve.schema import AudioContent, ChatMessage, Drawing, ImageContent, Origin, ResponseFormat, TextContent

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

_WISHES = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "repetition_window", "presence_penalty", "frequency_penalty",
    "repeat_limit",
)  # fmt: skip


def sampling_of(body: Drawing, defaults: SamplingSettings, choice: int = 0) -> Sampling:
    """Return the sampling of choice number `choice`: the body's values, else the server's. Raises RequestError for values out of range."""
    wishes = {name: value for name in _WISHES if (value := getattr(body, name)) is not None}
    seed = defaults.seed if body.seed is None else body.seed
    bias = tuple((_token_id(token), value) for token, value in (body.logit_bias or {}).items())
    sampling = replace(defaults.sampling(0, body.temperature), seed=None, logit_bias=bias)
    return replace(sampling, **wishes, seed=None if seed is None else _positive(seed) + choice)


def stops_of(body: Drawing) -> tuple[str, ...]:
    """Return the stop strings as a tuple."""
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def message_of(body: ChatMessage, at: str) -> Message:
    """Return one message. `at` names it in errors. Raises RequestError."""
    parts: tuple[Part, ...]
    if body.content is None:
        parts = ()
    elif isinstance(body.content, str):
        parts = (TextPart(body.content),)
    else:
        parts = tuple(part_of(part, f"{at}.content[{i}]") for i, part in enumerate(body.content))
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in body.tool_calls or ())
    return Message(_ROLES[body.role], parts, calls, body.tool_call_id or "")


def part_of(content: TextContent | ImageContent | AudioContent, at: str) -> Part:
    """Return one part of a message. Images and recordings come inside the request: Ingle fetches nothing."""
    if isinstance(content, TextContent):
        return TextPart(content.text, content.origin)
    if isinstance(content, AudioContent):
        sound = _decoded(content.input_audio.data, f"{at}.input_audio.data")
        return AudioPart(sound, f"audio/{content.input_audio.format}", content.origin)
    return image_of(content.image_url.url, f"{at}.image_url.url", content.origin)


def image_of(url: str, at: str, origin: Origin | None = None) -> ImagePart:
    """Return the picture in a data: URL. Raises RequestError for any other URL: nothing is fetched."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        cure = "Put the picture into the request; Ingle fetches nothing."
        raise RequestError(at, "must be a data: URL of an image in base64", head[:40], cure)
    return ImagePart(_decoded(data, at), head.removeprefix("data:").removesuffix(";base64"), origin)


def recording_of(part: Mapping[str, Any], at: str) -> AudioPart:
    """Return a recording as the Responses API sends it. Raises RequestError for another shape."""
    table = part.get("input_audio")
    if not isinstance(table, Mapping) or not isinstance(table.get("data"), str):
        raise RequestError(f"{at}.input_audio", "must be a table with data and format", type(table).__name__)
    data = _decoded(table["data"], f"{at}.input_audio.data")
    return AudioPart(data, f"audio/{table.get('format', 'wav')}", origin_of(part.get("origin"), f"{at}.origin"))


def image_table(picture: ImagePart) -> dict[str, Any]:
    """Return a picture in an answer, in the shape in which pictures are sent."""
    return {"type": "image_url", "image_url": {"url": picture.url}}


def origin_of(value: Any, at: str) -> Origin | None:
    """Return the origin that a client names for a part; None = the speaker. Raises RequestError for an unknown one."""
    if value is not None and value not in get_args(Origin):
        raise RequestError(at, f"must be one of {', '.join(get_args(Origin))}", str(value)[:40], "Leave it out for the speaker's words.")
    origin: Origin | None = value
    return origin


def constraint_of(format_: ResponseFormat | None, grammar: str | None) -> Constraint | None:
    """Return the grammar of the answer. Raises RequestError if one is named but missing, or if there are two."""
    if grammar is not None:
        if format_ is not None and format_.type != "text":
            raise RequestError("grammar", "excludes response_format", format_.type, "Leave one of them out.")
        return Constraint("lark", grammar)
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return Constraint("json_object")
    if format_.type == "json_schema":
        schema = format_.json_schema.json_schema if format_.json_schema else None
        if schema is None:
            raise RequestError("response_format.json_schema.schema", "must be given", "nothing")
        return Constraint("json_schema", plain_json(schema).decode())
    source = format_.lark if format_.type == "lark" else format_.regex
    if source is None:
        raise RequestError(f"response_format.{format_.type}", "must be given", "nothing")
    return Constraint(format_.type, source)


def _decoded(data: str, at: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(at, "must be base64", error) from error


def _token_id(token: str) -> int:
    if not token.isdecimal() or len(token) > 9:
        raise RequestError("logit_bias", "must map token ids to values between -100 and 100", token[:40])
    return int(token)


def _positive(seed: int) -> int:
    """Map the negative seeds that OpenAI's clients may send to ours, which count from 0."""
    return seed if seed >= 0 else seed + 2**62
