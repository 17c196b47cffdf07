"""Guard: the structure of a conversation. It refuses only conversations that no model could make sense of.

As with OpenAI, turns may come in any order: several of one role in a row, an assistant first, a system message anywhere. A template
that minds says so itself (TemplateError). A conversation that ends with the assistant is a finished turn: the model begins another.
"""

from collections.abc import AsyncIterator

from ingle.core.errors import RequestError
from ingle.core.message import Chunk, Message, Request, TextPart
from ingle.safety.guard import RequestLimits
from ingle.safety.middleware import Guard, Next
from ingle.safety.policy import GuardRule, LooksAt, Mode

NAME = "roles"
ABOUT = "Requests in which the turns make no sense."
LOOKS_AT: tuple[LooksAt, ...] = ("question",)
ORDER = 30
MODES: tuple[Mode, ...] = ("block",)
EDITS = False
HOLDS_BACK = 0


def make(_limits: RequestLimits, _rule: GuardRule) -> Guard:
    async def guard(request: Request, answer: Next) -> AsyncIterator[Chunk]:
        check_roles(request.messages)
        async for chunk in answer(request):
            yield chunk

    return guard


def check_roles(messages: tuple[Message, ...]) -> None:
    """Raise RequestError for an empty user message, and for a tool result without an earlier call."""
    call_ids: set[str] = set()
    for i, message in enumerate(messages):
        if message.role == "user" and _says_nothing(message):
            raise RequestError(f"messages[{i}].content", "must not be empty", "", "Say something.")
        if message.role == "tool" and message.tool_call_id not in call_ids:
            rule = "must be the id of a tool call in an earlier assistant message"
            got = "an unknown one" if message.tool_call_id else "none"
            raise RequestError(f"messages[{i}].tool_call_id", rule, got, "Send the assistant's message with its tool_calls, too.")
        if message.role == "assistant":
            call_ids.update(call.id for call in message.tool_calls)


def _says_nothing(message: Message) -> bool:
    return all(isinstance(part, TextPart) and (not part.text or part.text.isspace()) for part in message.parts)
