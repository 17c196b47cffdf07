"""An answer as it grows: however it is cut, and whether it is told in pieces or whole, it is the same answer."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.app.answer_words import line
from ingle.app.answering import Ask
from ingle.core.message import Chunk, Request, TokenLogprob, Usage
from ingle.engine.language_model import LanguageModel
from ingle.serve.chat import ChatReply
from ingle.serve.reply import calls_in
from ingle.serve.responses import ResponsesReply
from ingle.serve.schema import ChatBody, ResponsesBody
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.examples import examples

USAGE = Usage(7, 3, 5, 0.1, 0.2, 4096, 0.0, "d" * 64, 11)
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    config = tiny_config(vocab=260, context=300)
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(config)), byte_tokenizer())


def pieces_of(text: str, cuts: Sequence[int]) -> list[Chunk]:
    """The text in pieces, the last with the end."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    words = [text[a:b] for a, b in pairwise(places)] or [""]
    *before, last = words
    return [*(Chunk(word, (1,), (TokenLogprob(1, word, -0.5),)) for word in before), Chunk(last, (1,), (), "stop", USAGE)]


async def numbered(answers: Sequence[Sequence[Chunk]]) -> AsyncGenerator[tuple[int, Chunk], None]:
    for at in range(max(map(len, answers))):
        for number, chunks in enumerate(answers):
            if at < len(chunks):
                yield number, chunks[at]


async def listed(tables: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [table async for table in tables]


CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "%s"}}\n</tool_call>'
TEXTS = st.one_of(
    st.text("abc <>{}\n", max_size=30),
    st.lists(st.sampled_from([CALL % "sky", CALL % "sea", "Let me look.\n", "\n", "<tool_call>", "{", "well"]), max_size=4).map("".join),
)
RESPONSE_TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object"}}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@examples(150)
@given(st.lists(st.tuples(TEXTS, st.lists(st.integers(0, 120), max_size=12)), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_what_is_streamed_is_what_comes_whole(
    model: LanguageModel, answers: list[tuple[str, list[int]]], tools: bool, logprobs: bool
) -> None:
    wishes: dict[str, Any] = {"messages": USER, "tools": TOOLS if tools else None, "logprobs": logprobs, "n": len(answers)}
    body = ChatBody.model_validate(wishes | {"stream_options": {"include_usage": True}})
    asks = [Ask(Request(prompt="x"), "tiny", id=f"chatcmpl-{i}") for i in range(len(answers))]
    chunks = [pieces_of(text, cuts) for text, cuts in answers]
    response = asyncio.run(ChatReply(asks, model, body).whole(numbered(chunks)))
    whole = json.loads(bytes(response.body))
    tables = asyncio.run(listed(ChatReply(asks, model, body).events(numbered(chunks))))
    for choice in whole["choices"]:
        mine = [piece for table in tables for piece in table["choices"] if piece["index"] == choice["index"]]
        assert "".join(piece["delta"].get("content") or "" for piece in mine) == (choice["message"]["content"] or "")
        calls = [call for piece in mine for call in piece["delta"].get("tool_calls", [])]
        assert [call.pop("index") for call in calls] == list(range(len(calls)))
        assert calls == choice["message"].get("tool_calls", [])
        assert [piece["delta"].get("role") for piece in mine[:-1]] == ["assistant"] + [None] * (len(mine) - 2)
        assert [piece["finish_reason"] for piece in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]] and mine[-1][
            "delta"
        ] == {}
        assert choice["finish_reason"] == ("tool_calls" if calls else "stop")
        told = [entry for piece in mine if piece["logprobs"] for entry in piece["logprobs"]["content"]]
        assert told == (choice["logprobs"]["content"] if logprobs else [])
    assert tables[-1]["usage"] == whole["usage"] and tables[-1]["ingle"] == whole["ingle"] and tables[-1]["choices"] == []


@examples(150)
@given(TEXTS, st.lists(st.integers(0, 120), max_size=12))
def test_events_of_a_response_add_up_to_it(model: LanguageModel, text: str, cuts: list[int]) -> None:
    body = ResponsesBody.model_validate({"input": "hi", "tools": RESPONSE_TOOLS})
    ask = Ask(Request(prompt="x"), "tiny", id="resp_1")
    whole = json.loads(bytes(asyncio.run(ResponsesReply(ask, model, body).whole(numbered([pieces_of(text, cuts)]))).body))
    events = asyncio.run(listed(ResponsesReply(ask, model, body).events(numbered([pieces_of(text, cuts)]))))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert {k: v for k, v in events[-1]["response"].items() if k != "created_at"} == {k: v for k, v in whole.items() if k != "created_at"}
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == whole["output"]
    assert [event["output_index"] for event in done] == list(range(len(done)))
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(done)))
    words = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert words == "".join(part["text"] for item in whole["output"] if item["type"] == "message" for part in item["content"])


def test_the_calls_of_an_answer_have_the_same_ids_whenever_it_is_read() -> None:
    def ids(completion: str, *pieces: str) -> list[str]:
        stream = calls_in("hermes", completion)
        found = [piece for text in pieces for piece in stream.feed(text)] + stream.flush()
        return [piece.id for piece in found if not isinstance(piece, str)]

    text = CALL % "sky" + CALL % "sea"
    assert ids("resp_1", text) == ids("resp_1", *text) and len(set(ids("resp_1", text))) == 2
    assert not set(ids("resp_1", text)) & set(ids("resp_2", text))


def test_one_call_at_a_time_where_the_request_says_so(model: LanguageModel) -> None:
    text = CALL % "sky" + "\n" + CALL % "sea"
    for parallel, count in ((None, 2), (True, 2), (False, 1)):
        wishes: dict[str, Any] = {"messages": USER, "tools": TOOLS, "parallel_tool_calls": parallel}
        asks = [Ask(Request(prompt="x"), "tiny", id="chatcmpl-1")]
        response = asyncio.run(ChatReply(asks, model, ChatBody.model_validate(wishes)).whole(numbered([pieces_of(text, [9, 50, 80])])))
        assert len(json.loads(bytes(response.body))["choices"][0]["message"]["tool_calls"]) == count
        body = ResponsesBody.model_validate({"input": "hi", "tools": RESPONSE_TOOLS, "parallel_tool_calls": parallel})
        reply = ResponsesReply(Ask(Request(prompt="x"), "tiny", id="resp_1"), model, body)
        told = json.loads(bytes(asyncio.run(reply.whole(numbered([pieces_of(text, [9, 50, 80])]))).body))
        assert [item["type"] for item in told["output"]] == ["function_call"] * count
        assert (told["parallel_tool_calls"], told["tool_choice"]) == (parallel is not False, "auto")


def test_an_answer_that_was_stopped_in_a_circle_says_so(model: LanguageModel) -> None:
    chunks = [Chunk("and so on " * 9, (1,), (), "repetition", USAGE)]
    replies = ChatReply([Ask(Request(prompt="x"), "tiny", id="c")], model, ChatBody.model_validate({"messages": USER}))
    told = json.loads(bytes(asyncio.run(replies.whole(numbered([chunks]))).body))
    assert (told["choices"][0]["finish_reason"], told["ingle"]["ended"]) == ("length", ["repetition"])
    body = ResponsesBody.model_validate({"input": "hi"})
    told = json.loads(
        bytes(asyncio.run(ResponsesReply(Ask(Request(prompt="x"), "tiny", id="r"), model, body).whole(numbered([chunks]))).body)
    )
    assert (told["status"], told["ingle"]["ended"]) == ("incomplete", ["repetition"])
    assert "stopped because it only repeated itself" in line({"finish": "repetition"})


def test_the_token_that_ends_an_answer_is_none_of_its_log_probabilities(model: LanguageModel) -> None:
    end = next(iter(model.tokenizer.eos_ids))
    chunks = [Chunk("a", (1,), (TokenLogprob(1, "a", -0.5),)), Chunk("", (end,), (TokenLogprob(end, "<end>", -0.1),), "stop", USAGE)]
    body = ChatBody.model_validate({"messages": USER, "logprobs": True})
    response = asyncio.run(ChatReply([Ask(Request(prompt="x"), "tiny", id="c")], model, body).whole(numbered([chunks])))
    entries = json.loads(bytes(response.body))["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in entries] == ["a"]
