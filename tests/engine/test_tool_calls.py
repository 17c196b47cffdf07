"""Tool calls: found however an answer is cut, never lost; told to models whose templates don't know them; and enforced where demanded."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from ingle.core.errors import RequestError
from ingle.core.message import ImagePart, Message, Request, Sampling, TextPart, ToolCall
from ingle.engine.decoding import Decoding
from ingle.engine.grammar import Grammar, grammar_of
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.sampling import Sampler
from ingle.engine.tools import MOST_CALLS, Piece, Style, ToolCallStream, check_tools, style_of, tool_constraint, with_tools
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.model.template import encode_chat, render
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, make_facts
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config
from tests.examples import examples
from tests.limited import each_within_cpu
from tests.model.tiny_tokenizers import byte_level

# As the templates of SmolLM2, Qwen 2.5, Qwen 3 Coder, Llama 3.1, Mistral and Gemma are, as far as tools go.
PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HERMES = (
    "{% if tools %}<|im_start|>system\n# Tools\n<tools>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools>\n<tool_call>\n"
    '{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\n</tool_call><|im_end|>\n{% endif %}' + PLAIN
)
XML = HERMES.replace('{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}', "<function=name><parameter=x>value</parameter>")
LLAMA = (
    '{% if tools %}<|im_start|>ipython\n{{ \'Respond in the format {"name": function name, "parameters": dictionary of arguments}.\' }}'
    "{% for t in tools %}{{ t | tojson(indent=4) }}{% endfor %}<|im_end|>{% endif %}" + PLAIN
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
NAMES = ["<|im_start|>", "<|im_end|>"]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "The weather at a place: 100 % true.", "strict": False,
        "parameters": {
            "type": "object", "required": ["city"],
            "properties": {"city": {"type": "string"}, "unit": {"$ref": "#/$defs/unit"}},
            "$defs": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        },
    },
}  # fmt: skip
MINUTES = {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}


def function(name: Any = "f", **changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **changes}}


TOOLS = [WEATHER, function("set_timer", parameters=MINUTES), function("now")]


def tokenizer_with(template: str | None) -> Tokenizer:
    fast = FastTokenizer.from_str(byte_level().to_str())
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES])
    return make_facts(fast, TokenizerFacts("bytes", (), chat_template=template), "test")


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    result: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and result and isinstance(result[-1], str):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def parsed(style: Style, text: str, cuts: Iterable[int] = ()) -> list[Piece]:
    stream, pieces, last = ToolCallStream(style, lambda: "id"), list[Piece](), 0
    for cut in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        pieces += stream.feed(text[last:cut])
        last = cut
    return merged(pieces + stream.flush())


def call(name: str = "f", arguments: str = "{}") -> ToolCall:
    return ToolCall("id", name, arguments)


HERMES_ANSWERS: list[tuple[str, list[Piece]]] = [
    ("", []),
    (" \n", [" \n"]),
    ("a < b, <tool> and <tool_cal", ["a < b, <tool> and <tool_cal"]),
    ('<tool_call>\n{"name": "f", "arguments": {"a": 1.50}}\n</tool_call>', [call("f", '{"a": 1.50}')]),
    ('<tool_call>{"arguments":{},"name":"f"}</tool_call>', [call()]),
    ('<tool_call>{"name": "f"}</tool_call>', [call()]),
    ('<tool_call>{"name": "f", "arguments": null}</tool_call>', [call()]),
    ('<tool_call>{"name": "f", "parameters": {"é": "\\n"}}</tool_call>', [call("f", '{"é": "\\n"}')]),
    ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [call("f", '{"a": 1}')]),
    (
        'I look.\n<tool_call>\n{"name": "f"}\n</tool_call>\n<tool_call>\n{"name": "g"}\n</tool_call>\n\nDone. ',
        ["I look.", call(), call("g"), "Done. "],
    ),
    ('<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}</tool_call>', [call("f", '{"x": "</tool_call>"}')]),
    ('<tool_call>{"name": "f", "arguments": {"x": "\\"</tool_call>"}}</tool_call>', [call("f", '{"x": "\\"</tool_call>"}')]),
    ('x <tool_call>{"name": "f"}', ["x", call()]),
    ('x <tool_call>{"name": "f"}\n</tool_c', ["x", call()]),
    ('x <tool_call>{"name": "f"', ['x <tool_call>{"name": "f"']),
    ("x <tool_call> y", ["x <tool_call> y"]),
    (' <tool_call>{"name": f}</tool_call> \n', [' <tool_call>{"name": f}</tool_call> \n']),
    ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', ['<tool_call>{"name": "f", "arguments": [1]}</tool_call>']),
    ('<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', ['<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>']),
    ('<tool_call>{"name": "f"} {}</tool_call>', ['<tool_call>{"name": "f"} {}</tool_call>']),
    ('<tool_call>{"name": "a <tool_call>{"name": "f"}</tool_call>', ['<tool_call>{"name": "a', call()]),
    ('<tool_call>{"a": "b}\n</tool_call>\n<tool_call>{"name": "f"}</tool_call>', ['<tool_call>{"a": "b}\n</tool_call>', call()]),
    ('<tool_call>{"a": "b}</tool_call><tool_call>{"name": "f"}</tool_call>', ['<tool_call>{"a": "b}</tool_call>', call()]),
]
LLAMA_ANSWERS: list[tuple[str, list[Piece]]] = [
    ("", []),
    (" \n", [" \n"]),
    ("It is {cold}.", ["It is {cold}."]),
    (' {"name": "f", "parameters": {"a": "}"}} ', [call("f", '{"a": "}"}')]),
    ('<|python_tag|>{"type": "function", "name": "f", "parameters": {}}', [call()]),
    ('{"name": "f", "parameters": {}}; {"name": "g", "arguments": {"b": {}}};\n', [call(), call("g", '{"b": {}}'), ";\n"]),
    ('{"name": "f", "parameters": {}}\n{"name": "g", "parameters": {}}', [call(), call("g")]),
    ('{"name": "f", "parameters": {}}\nSo be it.', [call(), "So be it."]),
    ('{"name": "f", "parameters": {}}; {"answer": 1} ', [call(), '; {"answer": 1} ']),
    ('{"name": "Ada", "age": 36}', ['{"name": "Ada", "age": 36}']),
    ('{"name": "Ada"}', ['{"name": "Ada"}']),
    ('{"n": 1, "name": "f", "parameters": {}}', ['{"n": 1, "name": "f", "parameters": {}}']),
    ('{"name": "f", "parameters": {"a": "', ['{"name": "f", "parameters": {"a": "']),
    ('{"name": "f", "parameters": {"a": "\\', ['{"name": "f", "parameters": {"a": "\\']),
    ('Call: {"name": "f", "parameters": {}}', ['Call: {"name": "f", "parameters": {}}']),
    ("<|python", ["<|python"]),
]
ANSWERS = [("hermes", *case) for case in HERMES_ANSWERS] + [("llama", *case) for case in LLAMA_ANSWERS]


@pytest.mark.parametrize(("style", "text", "pieces"), ANSWERS)
def test_answers_with_calls(style: Style, text: str, pieces: list[Piece]) -> None:
    assert parsed(style, text) == pieces
    assert parsed(style, text, range(len(text))) == pieces
    assert parsed("none", text) == merged([text] if text else [])


PARTS = [
    "<tool_call>", "</tool_call>", "<tool", "_call>", "</", '{"name": "f", "arguments": {"a": "b"}}', '{"name": "f", "parameters": {}}',
    '{"name": ', '"g"', '"', "\\", "{", "}", ";", ", ", "\n", " ", "é", "<|python_tag|>", "hm", '"arguments": {}',
]  # fmt: skip
ANY_ANSWER = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@examples(600)
@given(style=st.sampled_from(["hermes", "llama", "none"]), text=ANY_ANSWER, cuts=st.lists(st.integers(0, 500), max_size=12))
@example(style="hermes", text='<tool_call>{"name": "f"}</tool_call>', cuts=[11, 12, 24])
def test_cuts_change_nothing_and_nothing_is_lost(style: Style, text: str, cuts: list[int]) -> None:
    pieces = parsed(style, text, cuts)
    assert pieces == parsed(style, text)
    around = {"hermes": "<tool_call>%s(?:</tool_call>)?", "llama": r"(?:;|<\|python_tag\|>)*%s"}.get(style, "%s")
    parts = [
        re.escape(unspaced(piece)) if isinstance(piece, str) else around % rf'\{{.*?"{piece.name}".*?\}}' for piece in pieces
    ]  # fmt: skip
    assert re.fullmatch("".join(parts), unspaced(text))
    assert all(isinstance(json.loads(piece.arguments), dict) for piece in pieces if isinstance(piece, ToolCall))
    if not any(isinstance(piece, ToolCall) for piece in pieces):
        assert "".join(map(str, pieces)) == text


def unspaced(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(text=ANY_ANSWER)
def test_only_what_may_be_a_call_is_held_back(text: str) -> None:
    stream, shown = ToolCallStream("hermes"), ""
    for end, character in enumerate(text, 1):
        pieces = stream.feed(character)
        if any(isinstance(piece, ToolCall) for piece in pieces):
            return
        shown += "".join(piece for piece in pieces if isinstance(piece, str))
        assert text.startswith(shown)
        held = text[len(shown) : end].lstrip()
        assert "<tool_call>".startswith(held) or re.match(r"<tool_call>\s*(\{|$)", held)


def said(tokenizer: Tokenizer, messages: Iterable[Message], tools: Iterable[Any] = ()) -> str:
    """What the model reads, its control tokens as names."""
    told, offered = with_tools(tokenizer, tuple(messages), tuple(tools))
    return "".join(piece if isinstance(piece, str) else piece.name for piece in render(tokenizer, told, tools=offered))


CONVERSATION = [
    Message.of("system", "Be brief."),
    Message.of("user", "Weather?"),
    Message("assistant", (TextPart("I look."),), (call("get_weather", '{"city":  "Köln"}'), call("now", "not JSON"))),
    Message("tool", (TextPart("3 °C"),), tool_call_id="id"),
    Message("tool", (TextPart("noon"),), tool_call_id="id"),
    Message.of("user", "And now?"),
]


def test_styles_are_those_of_the_templates() -> None:
    templates = {HERMES: "hermes", LLAMA: "llama", PLAIN: "hermes", XML: "hermes", NO_SYSTEM: "hermes", "{% bad": "hermes"}
    for template, style in templates.items():
        assert style_of(tokenizer_with(template)) == style
    assert style_of(tokenizer_with(None)) == "hermes", "ChatML is what such a model gets"
    fast = FastTokenizer.from_str(byte_level().to_str().replace("im_start", "xm_start"))
    assert style_of(Tokenizer(fast, TokenizerFacts("bytes", ()))) == "none"


@pytest.mark.parametrize("template", [HERMES, LLAMA])
def test_templates_that_know_tools_are_left_alone(template: str) -> None:
    tokenizer = tokenizer_with(template)
    assert with_tools(tokenizer, CONVERSATION, TOOLS) == (tuple(CONVERSATION), tuple(TOOLS))
    assert "get_weather" in said(tokenizer, CONVERSATION[:2], TOOLS)


@pytest.mark.parametrize("template", [PLAIN, XML])
def test_models_that_know_none_are_told(template: str) -> None:
    text = said(tokenizer_with(template), CONVERSATION, TOOLS)
    system, user, assistant, results, last = re.findall(r"<\|im_start\|>(.*?)<\|im_end\|>\n", text, re.DOTALL)
    assert system.startswith("system\nBe brief.\n\nYou can call functions.")
    inside = re.search(r"<tools>\n(.*?)\n</tools>", system, re.DOTALL)
    assert inside
    offered = [json.loads(line) for line in inside[1].splitlines()]
    assert [tool["name"] for tool in offered] == ["get_weather", "set_timer", "now"]
    assert offered[0]["parameters"] == WEATHER["function"]["parameters"]  # type: ignore[index]
    assert user == "user\nWeather?"
    wrote = parsed("hermes", assistant.removeprefix("assistant\n"))
    assert wrote[:2] == ["I look.", call("get_weather", '{"city":  "Köln"}')]
    assert '"arguments": "not JSON"}' in str(wrote[2])
    assert results == "user\n<tool_response>\n3 °C\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
    assert last == "user\nAnd now?"
    example = parsed("hermes", system)
    assert any(isinstance(piece, ToolCall) for piece in example), "the example is one that we would read"


def test_a_description_goes_where_the_template_lets_it() -> None:
    alone = CONVERSATION[1:2]
    assert re.match(r"<\|im_start\|>system\n.*functions.*<\|im_start\|>user\nWeather", said(tokenizer_with(PLAIN), alone, TOOLS), re.DOTALL)
    assert re.match(r"<\|im_start\|>user\nYou can call.*\n\nWeather\?<", said(tokenizer_with(NO_SYSTEM), alone, TOOLS), re.DOTALL)
    assert with_tools(tokenizer_with(PLAIN), alone, []) == (tuple(alone), ())
    assert "<tool_call>" in said(tokenizer_with(PLAIN), CONVERSATION), "earlier calls stay, though nothing is offered any more"
    picture = ImagePart(b"", "image/png")
    prepared, _ = with_tools(tokenizer_with(PLAIN), [Message("tool", (picture,))], TOOLS)
    assert any(part == replace(picture, origin="tool") for message in prepared for part in message.parts), "a tool may show a picture"


@given(typed=st.lists(st.sampled_from(["<|im_end|>", "<|im_", "end|>", "</tool_response>", "\n", "é"]), max_size=6).map("".join))
@pytest.mark.parametrize("template", [PLAIN, HERMES])
@examples(60)
def test_nothing_typed_becomes_a_control_token(template: str, typed: str) -> None:
    tokenizer = tokenizer_with(template)

    def controls(text: str) -> list[int]:
        turns = [
            Message.of("user", text),
            Message("assistant", (), (call(text, text), call("f", json.dumps({text: text})))),
            Message("tool", (TextPart(text),), tool_call_id=text),
        ]
        told, tools = with_tools(tokenizer, turns, [function(description=text)])
        return [i for i in encode_chat(tokenizer, told, tools=tools) if i in tokenizer.control_ids]

    assert controls(typed) == controls("a")


REFUSED: list[tuple[Any, str]] = [
    ("f", r"tools\[0\] must be a table"),
    ({"type": "retrieval"}, r"tools\[0\] must be a table"),
    ({"type": "function", "function": "f"}, r"tools\[0\] must be a table"),
    (function(""), r"tools\[0\].function.name must be 1 to 64"),
    (function("a b"), "1 to 64"),
    (function("a\n"), "1 to 64"),
    (function("x" * 65), "1 to 64"),
    (function(3), "1 to 64"),
    (function(description=3), "description must be a text"),
    (function(parameters="x"), r"tools\[0\].function.parameters must be a JSON schema"),
    (function(parameters={"type": "string"}), "must be a JSON schema of"),
    (function(parameters={"properties": {}}), "must be a JSON schema of"),
    (function(parameters={"type": "object", "properties": 3}), "properties must be an object"),
    (function(parameters={"type": "object", "properties": {"a": {"type": "sting"}}}), "Invalid type: sting"),
    (function(parameters={"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}), "does not exist"),
    (function(parameters={"type": "object", "properties": {"a": {"enum": ["x" * 70_000]}}}), "at most 65,536 bytes"),
    (function(parameters={"type": "object", "x": object()}), "parameters must be a JSON schema"),
]


@pytest.mark.parametrize(("tool", "message"), REFUSED)
def test_what_is_no_tool(tool: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        check_tools([tool])
    assert len(str(caught.value)) < 400


def test_tools_in_order() -> None:
    check_tools([*TOOLS, function(description=None, parameters=None), function("g", parameters={})])
    check_tools([function(f"f{i}") for i in range(128)])
    with pytest.raises(RequestError, match="tools must be at most 128"):
        check_tools([function(f"f{i}") for i in range(129)])
    with pytest.raises(RequestError, match=r"tools\[1\].function.name must differ"):
        check_tools([function(), function()])


def test_what_cannot_be_enforced_matters_where_it_is() -> None:
    unique = function(parameters={"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}})
    check_tools([function("g"), unique])
    assert tool_constraint("hermes", [function("g"), unique], "auto") is None
    assert tool_constraint("hermes", [function("g"), unique], {"type": "function", "function": {"name": "g"}}) is not None
    with pytest.raises(RequestError, match=r"tools\[1\].function.parameters must .*uniqueItems"):
        tool_constraint("hermes", [function("g"), unique], "required")


def test_choices() -> None:
    assert tool_constraint("hermes", TOOLS, "none") is None
    for choice, message in [
        ("always", 'must be "none", "auto", "required" or a function'),
        ({"type": "function"}, "must name one of get_weather, set_timer, now"),
        ({"type": "function", "function": {"name": "g"}}, r"must name one of get_weather, set_timer, now, not 'g'"),
        ({"type": "retrieval", "function": {"name": "now"}}, "must be"),
        ({"type": "function", "function": "now"}, "must be"),
        (3, "must be"),
    ]:
        with pytest.raises(RequestError, match=f"tool_choice {message}"):
            tool_constraint("hermes", TOOLS, choice)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="without tools"):
        tool_constraint("hermes", [], "required")
    with pytest.raises(RequestError, match="without a chat template"):
        tool_constraint("none", TOOLS, "required")


def checked_calls(style: Style, text: str) -> list[ToolCall]:
    pieces = parsed(style, text)
    calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
    assert calls == pieces, "calls and nothing else"
    parameters = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in TOOLS}
    for made in calls:
        jsonschema_rs.validate(parameters[made.name], json.loads(made.arguments))
    return calls


@pytest.mark.parametrize("style", ["hermes", "llama"])
def test_whatever_is_drawn_is_a_call(style: Style) -> None:
    tokenizer = make_facts(byte_level(), TokenizerFacts("bytes", (2,)), "test")
    vocabulary = grammar_of(tokenizer, 710)
    closing = [i for i in range(710) if tokenizer.token_bytes(i) in (b'"', b"}", b"1") or i == 2]

    def wander(seed: int, choice: Any, parallel: bool) -> list[ToolCall]:
        constraint = tool_constraint(style, TOOLS, choice, parallel)
        assert constraint
        grammar, ids, random = Grammar(vocabulary, constraint), list[int](), np.random.default_rng(seed)
        while not grammar.finished:
            logits = np.zeros(710, np.float32)
            grammar.allow(logits)
            choices = np.flatnonzero(logits == 0)
            preferred = choices[np.isin(choices, closing)]
            ids.append(int(random.choice(preferred if len(preferred) and random.random() < 0.5 else choices)))
            grammar.take(ids[-1])
        return checked_calls(style, tokenizer.decode(ids))

    made = [wander(seed, "required", True) for seed in range(12)]
    assert max(map(len, made)) > 1
    assert max(map(len, made)) <= MOST_CALLS
    assert {one.name for calls in made for one in calls} == {"get_weather", "set_timer", "now"}
    for seed in range(4):
        assert len(wander(seed, "required", False)) == 1
        assert [one.name for one in wander(seed, {"type": "function", "function": {"name": "set_timer"}}, True)] == ["set_timer"]
    assert wander(0, {"type": "function", "name": "now"}, True) == [call("now", "{}")]


def ready(count: str) -> bool:
    """Whether so many tools can be called."""
    tools = [{**WEATHER, "function": {**WEATHER["function"], "name": f"weather_{i}"}} for i in range(int(count))]  # type: ignore[dict-item]
    tokenizer = make_facts(byte_level(), TokenizerFacts("bytes", (2,)), "test")
    check_tools(tools)
    constraint = tool_constraint("hermes", tools, "required")
    assert constraint
    return not Grammar(grammar_of(tokenizer, 710), constraint).finished


def test_many_tools_are_ready_soon() -> None:
    assert each_within_cpu(ready, ["128"]) == {"128": True}


@pytest.fixture(scope="module")
def smollm2(smollm2_home: Home) -> LanguageModel:
    return open_model(kept_source(smollm2_home, get_kept(smollm2_home, "smollm2")))


@pytest.mark.parametrize("style", ["hermes", "llama"])
def test_a_real_model_calls_where_it_must(smollm2: LanguageModel, style: Style) -> None:
    """SmolLM2-135M knows no tools, and must always give valid calls."""
    from ingle.engine.backend import prefill, step

    tokenizer, backend = smollm2.tokenizer, smollm2.backend
    assert style_of(tokenizer) == "hermes"
    vocabulary = grammar_of(tokenizer, backend.config.vocab_size)
    for question, choice, temperature in [
        ("What is the weather in Paris?", "required", 0.0),
        ("Wake me in ten minutes.", {"type": "function", "function": {"name": "set_timer"}}, 1.5),
    ]:
        told, offered = with_tools(tokenizer, [Message.of("user", question)], TOOLS)
        ids = encode_chat(tokenizer, told, tools=offered)
        constraint = tool_constraint(style, TOOLS, choice, parallel=False)  # type: ignore[arg-type]
        assert constraint
        grammar, sampler = (
            Grammar(vocabulary, constraint),
            Sampler(Sampling(temperature=temperature, top_p=0.9, seed=3), vocabulary.size, ids),
        )
        state, answer = backend.new_state(), list[int]()
        logits = prefill(backend, ids, state)
        while not grammar.finished:
            assert len(answer) < 300
            adjusted = logits.copy()
            grammar.allow(adjusted)
            answer.append(sampler.pick(adjusted))
            grammar.take(answer[-1])
            [logits] = step(backend, [(state, answer[-1])])
        [made] = checked_calls(style, tokenizer.decode(answer))
        if choice == "required":
            assert (made.name, json.loads(made.arguments)["city"]) == ("get_weather", "Paris")
        else:
            assert made.name == "set_timer"


SPARED = {  # where it begins to be spared, and the rest of it
    '<tool_call>\n{"': 'name": "f", "arguments": {"a": "aaaaaaaa"}}\n</tool_call>',
    "Look:\n```": "python\nfor a in aa:\n    aaa = aaaa\n```",
}


@pytest.mark.parametrize("window", [0, 64])
@pytest.mark.parametrize("begin", SPARED)
def test_a_penalty_over_a_window_spares_calls_and_code(tmp_path: Path, begin: str, window: int) -> None:
    config = tiny_config(vocab=260, context=4000)
    model = LanguageModel("tiny", backend_of(tmp_path, random_checkpoint(config)), byte_tokenizer())
    sampling = Sampling(repetition_penalty=1.5, repetition_window=window)
    request = Request(
        (Message.of("user", "hi"),), tools=({"type": "function", "function": {"name": "f"}},), max_tokens=80, sampling=sampling
    )
    said, decoding = "", Decoding(model, request, model.encode(request), model.backend.new_state())
    for token in model.tokenizer.encode(begin + SPARED[begin]):
        while decoding.unread > 0 and (step := decoding.next()):
            model.backend.forward([step])
        logits = np.full((1, 260), -100, np.float32)
        # What has to be said there is hardly likelier than another byte.
        logits[0, token], logits[0, 200] = 2.0, 1.9 if said.startswith(begin) else -100.0
        chunk = decoding.take(logits)
        assert chunk is not None
        said += model.tokenizer.decode(chunk.tokens)
    assert (said == begin + SPARED[begin]) == bool(window)
