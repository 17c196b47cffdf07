"""Smuggled names are told, and whatever people type, the control tokens of a chat are those of its template."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingle.core.errors import RequestError
from ingle.core.message import Message, Request, TextPart, ToolCall
from ingle.model.checkpoint import open_checkpoint
from ingle.model.template import encode_chat
from ingle.model.tokenizer import Tokenizer, tokenizer_from_gguf
from ingle.safety.guard import RequestLimits, make_guards
from ingle.safety.guards.control_tokens import make, names_pattern, told
from ingle.safety.policy import GuardRule
from tests.examples import examples
from tests.safety.scripted import LIMITS, NAMES, ORDINARY, TAGGED, passed, user, verdicts

PATTERN = names_pattern(NAMES)


def test_names_are_counted_by_whose_text_they_are_in() -> None:
    request = Request(
        messages=(
            Message.of("system", "<|im_start|> opens"),
            Message("user", (TextPart("<|im_"), TextPart("end|><s>"))),
            Message("assistant", (), (ToolCall("</s>", "f", "<|im_end|>"),)),
            Message.of("user", "<|IM_END|> < |im_end|>"),
        ),
        tools=({"<s>": ["<s>", "x"]},),
    )
    [verdict] = told(request, PATTERN)
    assert (verdict.action, verdict.guard) == ("allow", "control_tokens")
    assert verdict.reason == "names of control tokens, read as plain text: 1 by system, 2 by user, 3 by tools, 1 by assistant"
    assert told(ORDINARY, PATTERN) == ()
    assert told(Request(prompt="<s>a"), PATTERN)[0].reason.endswith("1 by prompt")
    assert told(Request(prompt=(1, 2)), PATTERN) == ()
    asked, answer = passed([make(LIMITS, GuardRule("tell"))], request)
    assert asked is request
    assert [chunk.verdicts for chunk in answer] == [(verdict,), (), ()]


def test_a_model_without_control_tokens_has_nothing_to_tell() -> None:
    assert told(user("<s>"), names_pattern(())) == ()
    assert told(user("<s>"), names_pattern(("", "<s>")))


@given(names=st.lists(st.text("ab<|[.", min_size=1, max_size=4), min_size=1, max_size=6), text=st.text("ab<|[.", max_size=20))
def test_the_longest_name_wins_as_in_the_tokenizer(names: list[str], text: str) -> None:
    expected, at = [], 0
    while at < len(text):
        here = max((name for name in names if text.startswith(name, at)), key=len, default="")
        expected += [here] if here else []
        at += len(here) or 1
    assert names_pattern(names).findall(text) == expected


@cache
def smollm2(path: Path) -> tuple[Tokenizer, RequestLimits]:
    tokenizer = tokenizer_from_gguf(open_checkpoint(path).metadata)
    longest = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
    return tokenizer, RequestLimits(8192, longest, tuple(tokenizer.control))


SNIPPETS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "start|>", "<", "|", ">", "<|", "|>", "<file_sep>", "<|im\x00_end|>",
    "<|im_\u202eend|>", "\x00", "\u202e", "\ufeff", TAGGED, "\n", "system\n", "assistant", "user", "\ue000", "\\ue000", "é", " ", "a",
]  # fmt: skip
TYPED = st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join) | st.text(max_size=20)


@settings(examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(TYPED, min_size=1, max_size=5), roles=st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=5, max_size=5)
)
def test_the_control_tokens_of_a_chat_are_its_templates_own(smollm2_gguf: Path, texts: list[str], roles: list[str]) -> None:
    tokenizer, limits = smollm2(smollm2_gguf)
    messages = tuple(Message.of(role, text + "x") for role, text in zip(roles, texts, strict=False))  # type: ignore[arg-type]
    asked, answer = passed(make_guards(limits), Request(messages=messages))
    plain = tuple(Message.of(message.role, "x") for message in messages)
    ids, expected = (encode_chat(tokenizer, turns) for turns in (asked.messages, plain))
    assert [i for i in ids if i in tokenizer.control_ids] == [i for i in expected if i in tokenizer.control_ids]
    decoded = tokenizer.decode(ids, skip_special=False)
    # What this tokenizer holds of a text, which is all of it but characters of a few planes.
    assert all(tokenizer.decode(tokenizer.encode(message.text)) in decoded for message in asked.messages)
    named = any(name in message.text for name in tokenizer.control for message in asked.messages)
    assert named == any(verdict.guard == "control_tokens" for verdict in verdicts(answer))
    alone = tokenizer.encode_prompt(messages[0].text)
    assert tokenizer.control_ids.isdisjoint(alone)


def test_no_token_of_smollm2_is_longer_than_the_limit_that_is_told(smollm2_gguf: Path) -> None:
    tokenizer, limits = smollm2(smollm2_gguf)
    assert {"<|im_start|>", "<|im_end|>"} <= set(limits.control_names)
    text = " " * 200_000
    assert len(text) <= len(tokenizer.encode(text)) * limits.longest_token_bytes
    too_long = " " * (8192 * limits.longest_token_bytes) + "x"
    assert len(tokenizer.encode(too_long)) > 8192
    with pytest.raises(RequestError, match="context length of 8,192"):
        passed(make_guards(limits), user(too_long))
