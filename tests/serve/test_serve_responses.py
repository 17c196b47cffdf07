"""The Responses API, with OpenAI's own package: answers that are kept, gone on from, read again and deleted."""

import json
from typing import Any

import openai
import pytest

from ingle.app.house import open_rooms
from ingle.home.turns import find_text
from tests.serve.servers import Server
from tests.serve.test_serve_tools import WEATHER

FLAT: Any = {"type": "function", "strict": True, **WEATHER["function"]}


def test_a_whole_answer_has_all_that_the_client_reads(server: Server) -> None:
    answer = server.openai().responses.create(model="tiny", input="hello", max_output_tokens=9, instructions="Be brief.")
    assert answer.object == "response" and answer.status == "incomplete" and answer.error is None and answer.id.startswith("resp_")
    assert answer.incomplete_details is not None and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text and answer.usage is not None and answer.usage.output_tokens == 9
    assert answer.usage.total_tokens == answer.usage.input_tokens + 9 and answer.usage.input_tokens_details.cached_tokens is not None


def test_events_come_in_the_order_that_clients_expect(server: Server) -> None:
    asked: Any = {"model": "tiny", "input": "hello", "max_output_tokens": 9, "temperature": 0}
    events = list(server.openai().responses.create(stream=True, **asked))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete"
    ]  # fmt: skip
    assert kinds[4:-4] == ["response.output_text.delta"] * len(deltas)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = server.openai().responses.create(**asked)
    assert "".join(event.delta for event in deltas) == whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete" and last.response.output_text == whole.output_text and last.response.usage is not None


def test_the_streaming_helper_of_the_package_puts_the_answer_together(server: Server) -> None:
    with server.openai().responses.stream(model="tiny", input="hello", max_output_tokens=9, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == server.openai().responses.create(model="tiny", input="hello", max_output_tokens=9, temperature=0).output_text


def test_a_kept_answer_is_read_again_gone_on_from_and_deleted(server: Server) -> None:
    client = server.openai()
    first = client.responses.create(model="tiny", input="the first question", max_output_tokens=6, store=True, temperature=0)
    again = client.responses.retrieve(first.id)
    assert (again.output_text, again.model, again.status, again.usage) == (first.output_text, "tiny", "incomplete", first.usage)
    assert abs(again.created_at - first.created_at) <= 2
    second = client.responses.create(
        model="tiny", input="the second", max_output_tokens=6, store=True, temperature=0, previous_response_id=first.id
    )
    assert second.previous_response_id == first.id and second.usage and first.usage
    # What was said before is read before: exactly as if the client had sent it.
    spelled: Any = [
        {"role": "user", "content": "the first question"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "the second"},
    ]
    same = client.responses.create(model="tiny", input=spelled, max_output_tokens=6, temperature=0)
    assert (same.output_text, same.usage and same.usage.input_tokens) == (second.output_text, second.usage.input_tokens)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(second.id).output_text == second.output_text  # it is kept for itself, with what was before
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(model="tiny", input="on", previous_response_id=first.id)
    assert unknown.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(first.id)


def test_what_is_not_to_be_kept_is_not(server: Server) -> None:
    client = server.openai()
    for store in (None, openai.omit, True):  # as OpenAI's does, it keeps what is not said to be gone
        answer = client.responses.create(model="tiny", input="no secret", max_output_tokens=3, store=store)
        assert answer.model_extra is not None and client.responses.retrieve(answer.id).id == answer.id
        client.responses.delete(answer.id)
    answer = client.responses.create(model="tiny", input="secret", max_output_tokens=3, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


def test_a_chat_that_was_kept_can_be_deleted_by_its_id(server: Server) -> None:
    kept = server.chat("please keep this", store=True).json()["id"]
    client = server.openai()
    assert client.responses.retrieve(kept).output_text
    client.responses.delete(kept)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept)


def test_functions_are_called_and_their_results_told(smollm2_server: Server) -> None:
    client = smollm2_server.openai()
    asked: Any = {"model": "smollm2", "tools": [FLAT], "temperature": 0}
    first = client.responses.create(input="How warm is it in Rome?", tool_choice={"type": "function", "name": "get_weather"}, **asked)
    [call] = first.output
    assert call.type == "function_call" and call.name == "get_weather" and json.loads(call.arguments)["city"] in ("Paris", "Rome", "Oslo")
    told: Any = [
        {"role": "user", "content": "How warm is it in Rome?"},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is 31 degrees Celsius."},
    ]
    last = client.responses.create(input=told, tool_choice="none", max_output_tokens=60, **asked)
    assert "31" in last.output_text
    named: Any = {"type": "function", "name": "get_weather"}
    events = list(client.responses.create(input="How warm is it in Rome?", tool_choice=named, stream=True, **asked))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done and all(json.loads(event.arguments)["city"] for event in done)
    final = events[-1]
    assert final.type == "response.completed"
    assert [item.arguments for item in final.response.output if item.type == "function_call"] == [event.arguments for event in done]


def test_a_kept_call_is_answered_by_its_id(smollm2_server: Server) -> None:
    client = smollm2_server.openai()
    asked: Any = {"model": "smollm2", "tools": [FLAT], "temperature": 0, "store": True}
    first = client.responses.create(input="How warm is it in Rome?", tool_choice={"type": "function", "name": "get_weather"}, **asked)
    [call] = first.output
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "It is 31 degrees Celsius."}]
    last = client.responses.create(input=result, previous_response_id=first.id, tool_choice="none", max_output_tokens=60, **asked)
    assert "31" in last.output_text
    [again] = client.responses.retrieve(first.id).output
    assert again.type == "function_call" and (again.name, again.arguments, again.call_id) == (call.name, call.arguments, call.call_id)


def test_text_is_held_to_a_schema(server: Server) -> None:
    shape = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    schema: Any = {"type": "json_schema", "name": "d", "schema": shape}
    answer = server.openai().responses.create(model="tiny", input="hello", text={"format": schema}, max_output_tokens=60)
    assert answer.status == "completed" and json.loads(answer.output_text)["a"] in (1, 2)


def test_an_answer_has_its_keys_in_the_order_of_the_schema(server: Server) -> None:
    """Whoever asks for reasons before the verdict wants the model to think first."""
    names = ["why", "verdict", "a"]
    shape = {"type": "object", "properties": {name: {"enum": [1, 2]} for name in names}, "required": names, "additionalProperties": False}
    schema: Any = {"type": "json_schema", "name": "d", "schema": shape}
    answer = server.openai().responses.create(model="tiny", input="hello", text={"format": schema}, max_output_tokens=90)
    assert list(json.loads(answer.output_text)) == names


def test_all_choices_of_a_chat_are_deleted_with_it(server: Server) -> None:
    kept = server.chat("please keep all of these", store=True, n=3).json()["id"]
    client = server.openai()
    assert client.responses.retrieve(f"{kept}-2").output_text
    client.responses.delete(kept)
    for name in (kept, f"{kept}-1", f"{kept}-2"):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(name)
    engine = open_rooms(server.home)
    assert not find_text(engine, "", ["please keep all of these"])
    engine.dispose()
