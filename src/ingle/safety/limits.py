"""Limits of a request, and facts about the model that guards need."""

from dataclasses import dataclass, fields

from ingle.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The input of every guard's `make`. Raises ConfigError for a limit below 1."""

    max_context_tokens: int  # tokens of the model's context, prompt and answer together
    # Most bytes of UTF-8 that one token can stand for. A text longer than this times the context can't fit, so it is not tokenised.
    #
    # Where the tokenizer makes text shorter before it cuts it (Unicode normalisation), the caller multiplies by as much. A text of
    # characters that the tokenizer leaves out, or a template trims away, is refused, too.
    longest_token_bytes: int
    control_names: tuple[str, ...]  # names of the model's control tokens: `<|im_end|>`, …
    max_messages: int = 1024  # messages of a conversation: more than any context holds, few enough that guards stay fast
    max_message_bytes: int = 1 << 20  # bytes of UTF-8 of one message's text, or of one call's arguments
    max_request_bytes: int = 4 << 20  # bytes of UTF-8 of all messages, or of a plain prompt
    # Stop strings. OpenAI allows 4.
    max_stop: int = 16
    max_stop_bytes: int = 256  # bytes of UTF-8 of one stop string; each is searched for at every token
    max_logit_bias: int = 1024  # biased tokens of a request; their logits change at every token
    max_tool_bytes: int = 256 << 10  # bytes of all tools together, about as in JSON
    max_constraint_bytes: int = 256 << 10  # bytes of UTF-8 of a schema, grammar or regular expression

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "control_names" and value < 1:
                raise ConfigError(field.name, "must be at least 1", value)
