"""Guard: refuses requests that are too large before anything reads them.

It reads no contents, and refuses the longest texts by their length alone, so it is the outermost guard.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ingle.core.errors import ContextError, RequestError
from ingle.core.message import Chunk, Request
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Guard, Next
from ingle.safety.policy import GuardRule, LooksAt, Mode
from ingle.safety.texts import message_texts, nodes, utf8_bytes

NAME = "size"
ABOUT = "Requests that are too large."
LOOKS_AT: tuple[LooksAt, ...] = ("question",)
ORDER = 10
MODES: tuple[Mode, ...] = ("block",)
EDITS = False
HOLDS_BACK = 0


def make(limits: RequestLimits, _rule: GuardRule) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        check_size(request, limits)
        async for chunk in answer(request):
            yield chunk

    return guard


def check_size(request: Request, limits: RequestLimits) -> None:
    """Raise RequestError for whatever is beyond a limit, ContextError for a text that fits no context, however it is tokenised."""
    _few(len(request.messages), limits.max_messages, "messages", "messages")
    _few(len(request.stop), limits.max_stop, "stop", "strings")
    _few(len(request.sampling.logit_bias), limits.max_logit_bias, "logit_bias", "tokens")
    for i, stop in enumerate(request.stop):
        _short(stop, limits.max_stop_bytes, f"stop[{i}]")
    if request.constraint is not None:
        _short(request.constraint.source, limits.max_constraint_bytes, "response_format")
    _check_tools(request.tools, limits.max_tool_bytes)
    _check_texts(request, limits)


def _check_texts(request: Request, limits: RequestLimits) -> None:
    field = "messages" if request.prompt is None else "prompt"
    total = 0
    for place, speaker, text in message_texts(request):
        total += _short(text, limits.max_request_bytes if speaker == "prompt" else limits.max_message_bytes, place)
        if total > limits.max_request_bytes:
            raise RequestError(field, f"must be at most {limits.max_request_bytes:,} bytes together", "more", "Shorten the conversation.")
    context = limits.max_context_tokens
    if total > context * limits.longest_token_bytes:
        got = f"{total:,} bytes, of which no token holds more than {limits.longest_token_bytes}"
    elif isinstance(request.prompt, tuple) and len(request.prompt) > context:
        got = f"{len(request.prompt):,} tokens"
    else:
        return
    raise ContextError(
        field, f"must fit into the maximum context length of {context:,} tokens", got, "Shorten it, or start a new conversation."
    )


def _check_tools(tools: tuple[Mapping[str, Any], ...], limit: int) -> None:
    total = 0
    for i, tool in enumerate(tools):
        for node in nodes(tool, f"tools[{i}]"):
            total += utf8_bytes(node) + 3 if isinstance(node, str) else 2  # quotes and a comma; brackets, or a digit and a comma
            if total > limit:
                raise RequestError(
                    f"tools[{i}]", f"must be at most {limit:,} bytes together with the tools before it", "more", "Offer fewer tools."
                )


def _few(count: int, limit: int, field: str, what: str) -> None:
    if count > limit:
        raise RequestError(field, f"must be at most {limit:,} {what}", f"{count:,}")


def _short(text: str, limit: int, place: str) -> int:
    """Return the bytes of a text. A text with too many characters is not even encoded, since each has at least one byte."""
    size = len(text) if len(text) > limit else utf8_bytes(text)
    if size > limit:
        raise RequestError(place, f"must be at most {limit:,} bytes of UTF-8", f"{size:,} or more", "Shorten it.")
    return size
