"""Bodies become the words of the house."""

from typing import Any

import pytest

from ingle.app.settings import SamplingSettings
from ingle.core.errors import RequestError
from ingle.core.message import AudioPart, Constraint, ImagePart
from ingle.serve.convert import constraint_of, message_of, sampling_of, stops_of
from ingle.serve.schema import ChatMessage, Drawing, ResponseFormat


def drawing(**wishes: Any) -> Drawing:
    return Drawing.model_validate(wishes)


def test_what_a_body_doesnt_say_is_the_servers_setting() -> None:
    defaults = SamplingSettings(temperature=0.7, top_p=0.8, top_k=9, min_p=0.1, repetition_penalty=1.1)
    plain = sampling_of(drawing(), defaults)
    assert (plain.temperature, plain.top_p, plain.top_k, plain.min_p, plain.repetition_penalty, plain.seed) == (0.7, 0.8, 9, 0.1, 1.1, None)
    said = sampling_of(drawing(temperature=0, top_p=1, presence_penalty=-2, logit_bias={"5": -100, "7": 1.5}, seed=3), defaults, choice=2)
    assert (said.temperature, said.top_p, said.presence_penalty, said.seed, said.top_k) == (0, 1, -2, 5, 9)
    assert said.logit_bias == ((5, -100.0), (7, 1.5))
    assert sampling_of(drawing(), SamplingSettings(seed=40), choice=2).seed == 42
    assert (sampling_of(drawing(seed=-1), defaults).seed or 0) > 0
    with pytest.raises(RequestError, match="logit_bias"):
        sampling_of(drawing(logit_bias={"²": 1}), defaults)


def test_temperature_0_stays_exact_unless_a_penalty_is_asked_for() -> None:
    drawn, greedy = sampling_of(drawing(), SamplingSettings()), sampling_of(drawing(temperature=0), SamplingSettings())
    assert (drawn.repetition_penalty, drawn.repetition_window, drawn.repeat_limit) == (1.1, 128, 160)
    assert (greedy.repetition_penalty, greedy.repeat_limit) == (1.0, 0)
    wished = drawing(temperature=0, repetition_penalty=1.3, repetition_window=9, repeat_limit=50)
    asked = sampling_of(wished, SamplingSettings())
    assert (asked.repetition_penalty, asked.repetition_window, asked.repeat_limit) == (1.3, 9, 50)
    home = SamplingSettings(temperature=0, repetition_penalty=1.2, repeat_limit=80)
    assert (home.sampling(0).repetition_penalty, home.sampling(0).repeat_limit) == (1.2, 80)
    assert SamplingSettings(temperature=0).sampling(0, 0.5).repetition_penalty == 1.1
    with pytest.raises(RequestError, match="repetition_window"):
        sampling_of(drawing(repetition_window=10**6), SamplingSettings())


def test_stops_are_one_or_many() -> None:
    assert [stops_of(drawing(stop=stop)) for stop in (None, "a", ["a", "b"], [])] == [(), ("a",), ("a", "b"), ()]


def test_messages_become_turns_with_their_parts() -> None:
    given: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "3"}, {"type": "text", "text": "1"}]},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        ]},
    ]  # fmt: skip
    system, asking, result, user = (message_of(ChatMessage.model_validate(table), "messages[0]") for table in given)
    assert (system.role, system.text) == ("system", "Be brief.")
    assert asking.parts == () and [(call.id, call.name, call.arguments) for call in asking.tool_calls] == [("c", "f", "{}")]
    assert (result.role, result.tool_call_id, result.text) == ("tool", "c", "31")
    assert user.parts == (ImagePart(b"hi", "image/png"), AudioPart(b"hi", "audio/wav"))


@pytest.mark.parametrize(
    ("wanted", "grammar", "expected"),
    [
        (None, None, None), ({"type": "text"}, None, None), ({"type": "json_object"}, None, Constraint("json_object")),
        ({"type": "json_schema", "json_schema": {"schema": {"b": 1, "a": 2}}}, None, Constraint("json_schema", '{"b":1,"a":2}')),
        ({"type": "regex", "regex": "a+"}, None, Constraint("regex", "a+")),
        ({"type": "lark", "lark": "start: A"}, None, Constraint("lark", "start: A")),
        (None, "start: A", Constraint("lark", "start: A")), ({"type": "text"}, "start: A", Constraint("lark", "start: A")),
    ],
)  # fmt: skip
def test_a_language_is_named_in_several_ways(wanted: dict[str, Any] | None, grammar: str | None, expected: Constraint | None) -> None:
    assert constraint_of(wanted and ResponseFormat.model_validate(wanted), grammar) == expected
