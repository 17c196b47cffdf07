"""Functions that a model may ask for: OpenAI's own package as the caller, a model of words as the one who asks."""

import json
from typing import Any

import openai
import pytest

from tests.serve.servers import Server, error_of

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
ASKED: Any = [{"role": "user", "content": "How warm is it in Rome, in Celsius?"}]
TOOLS: Any = [WEATHER, CLOCK]


def the_call(call: Any) -> dict[str, Any]:
    """Arguments of a call of the weather, which must fit its schema."""
    assert call.type == "function" and call.id.startswith("call_") and call.function.name == "get_weather"
    table: dict[str, Any] = json.loads(call.function.arguments)
    assert set(table) == {"city", "unit"} and table["city"] in ("Paris", "Rome", "Oslo") and table["unit"] in ("C", "F")
    return table


def test_a_named_function_is_called_once_as_its_schema_says(smollm2_server: Server) -> None:
    answer = smollm2_server.openai().chat.completions.create(
        model="smollm2", messages=ASKED, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_weather"}}, temperature=0
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None and choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert the_call(call)["unit"] == "C"


def test_a_call_may_be_demanded_and_one_at_a_time(smollm2_server: Server) -> None:
    answer = smollm2_server.openai().chat.completions.create(
        model="smollm2", messages=ASKED, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    assert answer.choices[0].message.tool_calls is not None and len(answer.choices[0].message.tool_calls) == 1


@pytest.mark.parametrize("asked", ["How warm is it in Rome, in Celsius?", "What time is it?", "Call something."])
def test_no_call_comes_twice(smollm2_server: Server, asked: str) -> None:
    response = smollm2_server.chat(asked, tools=TOOLS, tool_choice="required", temperature=0, max_tokens=400).json()
    [choice] = response["choices"]
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]]
    assert len(calls) == len(set(calls)) >= 1
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert response["usage"]["completion_tokens"] < 200, "it ends where it begins to repeat itself"


@pytest.mark.parametrize("most", [32, 36, 44, 56])  # within its end, at it, and within the same call once more
def test_a_whole_call_is_whole_however_few_tokens_were_left(smollm2_server: Server, most: int) -> None:
    asked = {"tools": TOOLS, "tool_choice": "required", "temperature": 0}
    response = smollm2_server.chat(ASKED[0]["content"], **asked, max_tokens=most).json()
    [choice] = response["choices"]
    assert response["usage"]["completion_tokens"] == most, "it was cut"
    [call] = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] == "Rome"
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    streamed = smollm2_server.openai().chat.completions.create(model="smollm2", messages=ASKED, stream=True, max_tokens=most, **asked)
    choices = [choice for chunk in streamed for choice in chunk.choices]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]
    assert not any(choice.delta.content for choice in choices)


def test_a_kept_whole_call_is_complete_when_it_is_read_again(smollm2_server: Server) -> None:
    tools = [{"type": "function", **tool["function"]} for tool in TOOLS]
    asked = {"input": ASKED[0]["content"], "tools": tools, "tool_choice": "required", "temperature": 0, "max_output_tokens": 44}
    made = smollm2_server.post("/v1/responses", {**asked, "store": True}).json()
    again = smollm2_server.get(f"/v1/responses/{made['id']}").json()
    for told in (made, again):
        assert told["status"] == "completed"
        assert [item["type"] for item in told["output"]] == ["function_call"]


def test_half_a_call_is_cut(smollm2_server: Server) -> None:
    response = smollm2_server.chat(ASKED[0]["content"], tools=TOOLS, tool_choice="required", temperature=0, max_tokens=20).json()
    assert response["choices"][0]["finish_reason"] == "length"
    assert "tool_calls" not in response["choices"][0]["message"]


@pytest.mark.parametrize("asked", ["What is the population of China?", "How many people live in Rome?"])
def test_whole_numbers_end(smollm2_server: Server, asked: str) -> None:
    schema = {
        "type": "object",
        "properties": {"population": {"type": "integer"}},
        "required": ["population"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    [choice] = smollm2_server.chat(asked, response_format=format_, temperature=0, max_tokens=200).json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert len(str(json.loads(choice["message"]["content"])["population"])) <= 19


def test_what_was_called_and_what_came_of_it_is_told_to_the_model(smollm2_server: Server) -> None:
    client = smollm2_server.openai()
    first = client.chat.completions.create(
        model="smollm2", messages=ASKED, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_weather"}}, temperature=0
    )
    said = first.choices[0].message
    assert said.tool_calls
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "It is 31 degrees Celsius and sunny."}
    history: Any = [*ASKED, said.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(model="smollm2", messages=history, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=60)
    assert "31" in (last.choices[0].message.content or "")
    assert last.choices[0].message.tool_calls is None and last.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match=r"messages\[1\].tool_call_id"):
        client.chat.completions.create(model="smollm2", messages=[ASKED[0], result])  # type: ignore[list-item]


def test_calls_that_are_streamed_come_together_as_clients_put_them(server: Server) -> None:
    names, arguments, ids, finish = {}, {}, {}, ""
    stream = server.openai().chat.completions.create(
        model="tiny", messages=ASKED, tools=TOOLS, tool_choice="required", temperature=0.8, seed=4, max_tokens=1500, stream=True
    )
    for chunk in stream:
        for choice in chunk.choices:
            assert not choice.delta.content
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                ids[call.index] = call.id or ids[call.index]
                names[call.index] = names.get(call.index, "") + (call.function.name or "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    whole = server.openai().chat.completions.create(
        model="tiny", messages=ASKED, tools=TOOLS, tool_choice="required", temperature=0.8, seed=4, max_tokens=1500
    )
    calls = whole.choices[0].message.tool_calls or []
    assert finish == whole.choices[0].finish_reason
    assert sorted(names) == list(range(len(calls))) and len(set(ids.values())) == len(calls) > 0
    assert [(names[i], arguments[i]) for i in sorted(names)] == [(call.function.name, call.function.arguments) for call in calls]  # type: ignore[union-attr]


def test_a_model_that_may_call_can_also_just_answer(smollm2_server: Server) -> None:
    client = smollm2_server.openai()
    for choice in ("auto", "none"):
        answer = client.chat.completions.create(
            model="smollm2", messages=ASKED, tools=TOOLS, tool_choice=choice, temperature=0, max_tokens=40  # type: ignore[arg-type]
        )  # fmt: skip
        said = answer.choices[0].message
        assert said.content or said.tool_calls
        assert choice == "auto" or not said.tool_calls


def test_the_helper_of_the_package_reads_calls_too(smollm2_server: Server) -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    with smollm2_server.openai().chat.completions.stream(
        model="smollm2", messages=ASKED, tools=[strict], tool_choice="required", parallel_tool_calls=False, temperature=0  # type: ignore[list-item]
    ) as stream:  # fmt: skip
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.tool_calls
    assert the_call(final.choices[0].message.tool_calls[0]) == final.choices[0].message.tool_calls[0].function.parsed_arguments


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tools": [{}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "two words", "parameters": {"type": "object"}}}]}, "tools[0].function.name"),
        ({"tools": [CLOCK, CLOCK]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools[0].function.parameters"),
        ({"tools": [{**CLOCK, "function": {"name": f"f{i}", "parameters": {"type": "object"}}} for i in range(129)]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": "perhaps"}, "tool_choice"),
    ],
)
def test_tools_that_are_none_are_refused(server: Server, changes: dict[str, Any], field: str) -> None:
    response = server.chat(**changes)
    assert response.status_code == 400
    assert error_of(response)["param"] == field
