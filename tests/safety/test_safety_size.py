"""What is too large is refused at once, with the field that is too large; what just fits passes."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ingle.core.errors import ConfigError, ContextError, RequestError
from ingle.core.message import Constraint, Message, Request, Sampling, TextPart, ToolCall
from ingle.safety.guard import RequestLimits
from ingle.safety.guards import size
from ingle.safety.guards.size import check_size
from ingle.safety.texts import MAX_DEPTH, utf8_bytes
from tests.limited import calls
from tests.safety.scripted import user

SMALL = RequestLimits(
    max_context_tokens=1000, longest_token_bytes=8, control_names=(), max_messages=3, max_message_bytes=100, max_request_bytes=250,
    max_stop=2, max_stop_bytes=4, max_logit_bias=2, max_tool_bytes=100, max_constraint_bytes=20,
)  # fmt: skip
LARGE = RequestLimits(max_context_tokens=8192, longest_token_bytes=64, control_names=())


def conversation(*messages: Message, **options: Any) -> Request:
    return Request(messages=messages, **options)


def called(arguments: str) -> Request:
    return conversation(Message("assistant", (), (ToolCall("1", "f", arguments),)))


def bias(count: int) -> Request:
    return user("x", sampling=Sampling(logit_bias=tuple((i, 1.0) for i in range(count))))


TEN = "0123456789"
CASES = [
    (user(TEN * 10), user(TEN * 10 + "x"), "messages[0].content"),
    (user("é" * 50), user("é" * 51), "messages[0].content"),
    (user("\U0001f389" * 25), user("\U0001f389" * 26), "messages[0].content"),
    (
        conversation(Message("user", (TextPart("x" * 50),) * 2)),
        conversation(Message("user", (TextPart("x" * 51),) * 2)),
        "messages[0].content",
    ),
    (called("x" * 100), called("x" * 101), "messages[0].tool_calls[0].arguments"),
    (conversation(*[Message.of("user", "x")] * 3), conversation(*[Message.of("user", "x")] * 4), "messages"),
    (conversation(*[Message.of("user", "x" * 83)] * 3), conversation(*[Message.of("user", "x" * 84)] * 3), "messages"),
    (Request(prompt="x" * 250), Request(prompt="x" * 251), "prompt"),
    (user("x", stop=("aé", "bbbb")), user("x", stop=("a", "aéé")), "stop[1]"),
    (user("x", stop=("a", "b")), user("x", stop=("a", "b", "c")), "stop"),
    (bias(2), bias(3), "logit_bias"),
    (user("x", constraint=Constraint("regex", "a" * 20)), user("x", constraint=Constraint("regex", "a" * 21)), "response_format"),
    (user("x", tools=({"a": "x" * 45}, {"b": "y" * 35})), user("x", tools=({"a": "x" * 45}, {"b": "y" * 55})), "tools[1]"),
    (user("x", tools=({"a": [1] * 45},)), user("x", tools=({"a": [1] * 55},)), "tools[0]"),
]


@pytest.mark.parametrize(("fits", "too_large", "field"), CASES, ids=[f"{i}: {case[2]}" for i, case in enumerate(CASES)])
def test_limits_are_exact_and_named(fits: Request, too_large: Request, field: str) -> None:
    check_size(fits, SMALL)
    with pytest.raises(RequestError) as caught:
        check_size(too_large, SMALL)
    assert caught.value.field == field
    assert not isinstance(caught.value, ContextError)


@pytest.mark.parametrize("deep", [[], {}])
def test_tools_are_counted_about_as_their_json(deep: object) -> None:
    import json

    tool = {"type": "function", "function": {"name": "find", "parameters": {"a": [1, 2.5, None, True, "x", deep] * 50}}}
    size = len(json.dumps(tool, separators=(",", ":")))
    check_size(user("x", tools=(tool,)), replace(SMALL, max_tool_bytes=int(size * 1.1)))
    with pytest.raises(RequestError):
        check_size(user("x", tools=(tool,)), replace(SMALL, max_tool_bytes=int(size * 0.6)))


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_tools_that_no_json_is() -> None:
    check_size(user("x", tools=({"a": nested(MAX_DEPTH - 2)},)), LARGE)
    for value, message in ((nested(MAX_DEPTH), "nested"), (nested(100_000), "nested"), ({1, 2}, "set"), (b"x", "bytes"), ({1: 2}, "dict")):
        with pytest.raises(RequestError, match=message) as caught:
            check_size(user("x", tools=({}, {"a": value})), LARGE)
        assert caught.value.field == "tools[1]"


def test_what_fits_no_context_however_it_is_tokenised() -> None:
    small = replace(LARGE, max_context_tokens=10, longest_token_bytes=8)
    check_size(user("x" * 80), small)
    check_size(Request(prompt="é" * 40), small)
    check_size(Request(prompt=(5,) * 10), small)
    halves = conversation(Message.of("user", "x" * 41), Message.of("user", "x" * 40))
    for request, field in (
        (user("x" * 81), "messages"),
        (halves, "messages"),
        (Request(prompt="x" * 81), "prompt"),
        (Request(prompt=(5,) * 11), "prompt"),
    ):
        with pytest.raises(ContextError, match="context length of 10 tokens") as caught:
            check_size(request, small)
        assert caught.value.field == field


@pytest.mark.parametrize("text", ["x" * 10_000_000, "é" * 10_000_000], ids=["ASCII", "é"])
@pytest.mark.parametrize(
    "limits", [LARGE, replace(LARGE, max_message_bytes=1 << 30, max_request_bytes=1 << 30)], ids=["message", "context"]
)
def test_ten_million_of_one_token_are_refused_in_no_time(monkeypatch: pytest.MonkeyPatch, text: str, limits: RequestLimits) -> None:
    encoded: list[int] = []

    def counted(given: str) -> int:
        encoded.append(len(given))
        return utf8_bytes(given)

    def refuse(request: Request) -> None:
        with pytest.raises(RequestError):
            check_size(request, limits)

    monkeypatch.setattr(size, "utf8_bytes", counted)
    for request in (user(text), Request(prompt=text)):
        assert calls(partial(refuse, request)) < 1000, "nobody goes through it by characters"
    assert sum(encoded) == (0 if limits is LARGE else 2 * len(text)), "by its length, or once where all must be counted"


def test_no_limit_may_be_nothing() -> None:
    for name in ("max_context_tokens", "longest_token_bytes", "max_stop"):
        with pytest.raises(ConfigError, match=name):
            replace(LARGE, **{name: 0})
