"""Conversations that make sense pass in whatever order, and those that don't are refused where they don't."""

import pytest

from ingle.core.errors import RequestError
from ingle.core.message import ImagePart, Message, TextPart, ToolCall
from ingle.safety.guards.roles import check_roles

SYSTEM, USER, ASSISTANT = Message.of("system", "s"), Message.of("user", "u"), Message.of("assistant", "a")
CALLS = Message("assistant", (), (ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")))


def result(call: str) -> Message:
    return Message("tool", (TextPart("r"),), tool_call_id=call)


@pytest.mark.parametrize(
    "messages",
    [
        (USER,),
        (ASSISTANT, USER),
        (USER, USER),
        (USER, SYSTEM, USER),
        (USER, ASSISTANT),
        (SYSTEM,),
        (USER, CALLS, result("c2"), result("c1"), ASSISTANT, USER),
        (USER, CALLS, result("c1"), USER, result("c2")),
        (Message("assistant", ()), Message.of("system", ""), USER),
        (Message("user", (ImagePart(b"x", "image/png"),)),),
        (Message("user", (TextPart(" "), ImagePart(b"x", "image/png"))),),
        (Message("user", (TextPart(" "), TextPart("x"))),),
    ],
)
def test_conversations_that_make_sense(messages: tuple[Message, ...]) -> None:
    check_roles(messages)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ((USER, Message.of("user", "")), "messages[1].content"),
        ((Message.of("user", " \n\t\u3000"),), "messages[0].content"),
        ((Message("user", ()),), "messages[0].content"),
        ((Message("user", (TextPart(" "), TextPart("\n"))),), "messages[0].content"),
        ((USER, result("c1")), "messages[1].tool_call_id"),
        ((USER, CALLS, result("c3")), "messages[2].tool_call_id"),
        ((USER, CALLS, result("")), "messages[2].tool_call_id"),
        ((USER, result("c1"), CALLS), "messages[1].tool_call_id"),
        ((Message("user", (TextPart("u"),), CALLS.tool_calls), result("c1")), "messages[1].tool_call_id"),
    ],
)
def test_conversations_that_make_none(messages: tuple[Message, ...], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_roles(messages)
    assert caught.value.field == field
