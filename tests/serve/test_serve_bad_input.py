"""Requests that can't be answered: each gets the right status, in OpenAI's shape, naming the field, and nobody else notices."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.limited import cpu_s
from tests.serve.conftest import copied
from tests.serve.servers import CONTEXT, Server, error_of, memory, serving, settings
from tests.serve.test_serve_operation import figures
from tests.waiting import PATIENCE_S

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "seed": 1}
DEEP = 100_000
NAN, INFINITY = float("nan"), float("inf")
HALF = "\ud800"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server that may be ended by a limit."""
    home = copied(kept_home, tmp_path_factory.mktemp("limited") / "home")
    with serving(home, *settings(body_bytes=32 << 20)) as server:
        yield server


@contextmanager
def most_cpu(server: Server, seconds: int) -> Iterator[None]:
    """The system ends the server where the block costs it more processor time."""
    pid, usual = server.process.pid, resource.prlimit(server.process.pid, resource.RLIMIT_CPU)
    resource.prlimit(pid, resource.RLIMIT_CPU, (int(cpu_s(pid)) + seconds, usual[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_CPU, usual)


def schema(of: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": of}}}


def said(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def image(url: str) -> dict[str, Any]:
    return said({"type": "image_url", "image_url": {"url": url}})


BAD: list[tuple[dict[str, Any], str]] = [
    # wrong types: nothing is guessed
    *(({name: "1"}, name) for name in ("temperature", "top_p", "max_tokens", "seed", "n", "logprobs", "stream", "store", "top_k", "min_p")),
    *(({name: True}, name) for name in ("temperature", "top_p", "max_tokens", "seed", "n", "presence_penalty", "top_logprobs")),
    *(({name: 1.5}, name) for name in ("max_tokens", "seed", "n", "top_k", "top_logprobs")),
    *(({name: []}, name) for name in ("temperature", "max_tokens", "logit_bias", "stream_options", "response_format", "grammar", "model")),
    ({"stop": 5}, "stop"), ({"stop": ["a", 1]}, "stop[1]"), ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ({"messages": "hi"}, "messages"), ({"messages": None}, "messages"), ({"messages": {}}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"logit_bias": {"5": "much"}}, "logit_bias.5"), ({"tools": "all"}, "tools"), ({"tools": [1]}, "tools[0]"),
    ({"tool_choice": 3}, "tool_choice"),
    # out of range
    *(({"temperature": value}, "temperature") for value in (-0.1, 101, 1e308, -1e308, 10**400)),
    *(({name: value}, name) for name in ("top_p", "min_p") for value in (-0.01, 1.01)),
    *(({name: value}, name) for name in ("presence_penalty", "frequency_penalty") for value in (-2.1, 2.1)),
    *(({"max_tokens": value}, "max_tokens") for value in (0, -1, -(10**30))),
    ({"max_completion_tokens": 0}, "max_completion_tokens"), ({"repetition_penalty": 0}, "repetition_penalty"), ({"top_k": -1}, "top_k"),
    ({"n": 0}, "n"), ({"n": 17}, "n"), ({"n": 10**30}, "n"), ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"seed": 10**30}, "seed"), ({"seed": -(10**30)}, "seed"),
    ({"logit_bias": {"a": 1}}, "logit_bias"), ({"logit_bias": {"1": 101}}, "logit_bias"), ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999999999999999": 1}}, "logit_bias"), ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"stop": ""}, "stop"), ({"stop": ["a"] * 17}, "stop"), ({"stop": "a" * 1000}, "stop[0]"),
    # neither numbers nor text
    *(({name: value}, name) for name in ("temperature", "top_p", "frequency_penalty") for value in (NAN, INFINITY, -INFINITY)),
    ({"logit_bias": {"1": NAN}}, "logit_bias.1"), (schema({"type": "number", "minimum": NAN}), "response_format"),
    ({"model": HALF}, "model"), ({"stop": HALF}, "stop"), (said({"type": "text", "text": HALF}), "messages"),
    ({"messages": [{"role": "user", "content": f"a{HALF}b"}]}, "messages"), (schema({"description": HALF}), "response_format"),
    ({"grammar": HALF}, "grammar"), ({"tools": [{"type": "function", "function": {"name": "f", "description": HALF}}]}, "tools"),
    # conversations that are none
    ({"messages": []}, "messages"), ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
    ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"), (said(), "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "31", "tool_call_id": "c"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "31"}]}, "messages[1].tool_call_id"),
    ({"messages": [{"role": "user", "content": "hi"}] * 1025}, "messages"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]}, "messages[0].tool_calls[0].function.name"),
    # what the media room will take, well and badly formed
    (image("data:image/png;base64,iVBORw0KGgo="), "messages"), (image("data:image/png;base64,@@@"), "messages[0].content[0].image_url.url"),
    (image("https://example.com/cat.png"), "messages[0].content[0].image_url.url"),
    (image("file:///etc/passwd"), "messages[0].content[0].image_url.url"),
    (said({"type": "image_url"}), "messages[0].content[0].image_url"),
    (said({"type": "image_url", "image_url": "x"}), "messages[0].content[0].image_url"),
    (said({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}), "messages[0].content[0].input_audio"),
    (said({"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}), "messages[0].content[0].input_audio.data"),
    (said({"type": "input_audio", "input_audio": {"format": "wav"}}), "messages[0].content[0].input_audio.data"),
    (said({"type": "text", "text": "hi"}, {"type": "file", "file": {}}), "messages[0].content[1]"), (said("hi"), "messages[0].content[0]"),
    # languages that are none
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    (schema({"type": "nonsense"}), "response_format"), (schema({"$ref": "#/nowhere"}), "response_format"),
    (schema({"pattern": "(", "type": "string"}), "response_format"),
    (schema({"type": "string", "enum": []}), "response_format"), (schema({"$ref": "https://example.com/schema.json"}), "response_format"),
    ({"grammar": "start: ("}, "grammar"), ({"grammar": ""}, "grammar"), ({"grammar": "begin: /a/"}, "grammar"),
    ({"grammar": "start: <[0]>"}, "grammar"),
    ({"response_format": {"type": "regex", "regex": "("}}, "grammar"), ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"response_format": {"type": "json_object"}, "grammar": "start: /a/"}, "grammar"),
    ({"response_format": {"type": "regex", "regex": "a" * 70_000}}, "grammar"), ({"grammar": "start: " + "(" * 50_000}, "grammar"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), BAD, ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else value[:40])
def test_a_bad_request_is_told_which_field_is_wrong(server: Server, changes: dict[str, Any], field: str) -> None:
    response = server.post("/v1/chat/completions", json.dumps(ASKED | changes).encode())
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert (error["param"], error["type"]) == (field, "invalid_request_error"), error


OTHER_DOORS: list[tuple[str, dict[str, Any], int, str]] = [
    *(("completions", {"prompt": value}, 400, field) for value, field in (
        ("", "prompt"), ([], "prompt"), ([[]], "prompt"), (["a", ""], "prompt"), ([-1], "prompt[0]"), ([259], "prompt[0]"),
        ([10**30], "prompt[0]"),
        ([[1], [10**9]], "prompt[1]"), (5, "prompt"), (None, "prompt"), (["a"] * 129, "prompt"), (HALF, "prompt"),
        ("x" * 2 * CONTEXT, "prompt"),
    )),
    ("completions", {}, 400, "prompt"), ("completions", {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ("completions", {"prompt": "a", "logprobs": 21}, 400, "logprobs"), ("completions", {"prompt": "a", "logprobs": True}, 400, "logprobs"),
    ("completions", {"prompt": ["a"] * 100, "n": 2}, 400, "prompt"), ("completions", {"prompt": "a", "grammar": "("}, 400, "grammar"),
    ("completions", {"prompt": "a", "model": "other"}, 404, "model"),
    *(("responses", {"input": value}, 400, field) for value, field in (
        ("", "input"), ([], "input"), (5, "input"), (HALF, "input"), ([{"role": "user"}], "input[0]"), ([{"content": "hi"}], "input[0]"),
        ([{"role": "king", "content": "hi"}], "input[0].role"), ([{"type": "reasoning", "id": "r", "summary": []}], "input[0].type"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}], "input[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": HALF}]}], "input"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0]"),
        ([{"type": "function_call_output", "call_id": "c", "output": "o"}], "messages[0].tool_call_id"),
    )),
    ("responses", {}, 400, "input"), ("responses", {"input": "a", "max_output_tokens": 0}, 400, "max_output_tokens"),
    ("responses", {"input": "a", "previous_response_id": "resp_none"}, 404, "previous_response_id"),
    ("responses", {"input": "a", "previous_response_id": "a\x00b"}, 404, "previous_response_id"),
    ("responses", {"input": "a", "tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
    ("responses", {"input": "a", "tools": [{"type": "function", "name": "f", "strict": NAN}]}, 400, "tools"),
    ("responses", {"input": "a", "tools": [], "tool_choice": {"type": "function", "name": "f"}}, 400, "tool_choice"),
    ("responses", {"input": "a", "text": {"format": {"type": "xml"}}}, 400, "text.format.type"),
    ("responses", {"input": "a", "model": "other"}, 404, "model"), ("chat/completions", ASKED | {"model": "../tiny"}, 404, "model"),
]  # fmt: skip


@pytest.mark.parametrize(("door", "body", "status", "field"), OTHER_DOORS, ids=lambda value: json.dumps(value)[:50])
def test_the_other_doors_tell_it_too(server: Server, door: str, body: dict[str, Any], status: int, field: str) -> None:
    response = server.post(f"/v1/{door}", json.dumps(body).encode())
    assert response.status_code == status, response.text
    assert error_of(response)["param"] == field


NO_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half of it": b'{"messages": [{"role": "us',
    "another language": b"messages: hi",
    "a list": b"[]",
    "null": b"null",
    "a number": b"5",
    "no UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "a list without end": b'{"messages": ' + b"[" * DEEP,
    "deep lists": b'{"messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep tables": b'{"tools": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "depth where nobody looks": json.dumps(ASKED).encode()[:-1] + b', "unknown": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number of 5,000 digits": json.dumps(ASKED).encode()[:-1] + b', "seed": ' + b"1" * 5000 + b"}",
    "a deep schema": json.dumps(ASKED | schema("HERE")).encode().replace(b'"HERE"', b'{"items":' * 800 + b"{}" + b"}" * 800),
    "a NUL": b"\0",
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_request_at_all_is_refused(server: Server, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        response = server.post(path, body)
        assert response.status_code == 400, (path, response.text)
        assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json", "*/*"]
)
def test_only_json_is_read_because_any_web_page_can_send_the_rest(server: Server, kind: str) -> None:
    before = len(server.answers())
    response = server.post("/v1/chat/completions", json.dumps(ASKED).encode(), {"Content-Type": kind})
    assert response.status_code == 400 and error_of(response)["param"] == "Content-Type"
    assert len(server.answers()) == before


def test_json_in_its_other_spellings_is_read(server: Server) -> None:
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON"):
        assert server.post("/v1/chat/completions", json.dumps(ASKED).encode(), {"Content-Type": kind}).status_code == 200
    for encoding in ("utf-8-sig", "utf-16"):
        assert server.post("/v1/chat/completions", json.dumps(ASKED).encode(encoding)).status_code == 200


def test_what_openai_ignores_is_ignored(server: Server) -> None:
    extra = {
        "user": "me",
        "metadata": {"a": ["b"]},
        "service_tier": "auto",
        "no_such_field": {"deep": [1]},
        "temperature": None,
        "stop": None,
        "n": None,
    }
    plain, odd = server.chat("the same"), server.chat("the same", **extra)
    assert plain.json()["choices"] == odd.json()["choices"]
    assert server.chat(seed=-5).status_code == 200
    assert server.chat(max_tokens=10**30, grammar="start: /[a-z]{3}/").json()["choices"][0]["finish_reason"] == "stop"


def test_roles_may_come_in_any_order(server: Server) -> None:
    for roles in (["assistant", "user"], ["user", "system"], ["user", "user", "developer", "assistant"], ["system"], ["assistant"]):
        messages = [{"role": role, "content": f"number {i}"} for i, role in enumerate(roles)]
        assert server.chat(messages=messages).status_code == 200, roles


def test_stop_strings_and_grammars_that_are_made_to_take_long_do_not(limited: Server) -> None:
    hard: list[dict[str, Any]] = [
        {"stop": ["\x01" * 255 + "\x02"] * 16},
        {"stop": [("ab" * 127) + str(i % 10) for i in range(16)]},
        {"response_format": {"type": "regex", "regex": "(a|a)*(a|a)*(a|a)*b{0,50}"}},
        {"response_format": {"type": "regex", "regex": "((a{1,100}){1,100}){1,100}"}},
        {"response_format": {"type": "regex", "regex": "((((a{1,999}){1,999}){1,999}){1,999}){1,999}"}},
        {"response_format": {"type": "regex", "regex": "(.*a){25}"}},
        {"grammar": "start: a\na: a a | /x/"},
        schema({"type": "string", "pattern": "^(x+x+)+y$"}),
        schema({"type": "array", "items": {"type": "integer"}, "minItems": 5000}),
    ]  # fmt: skip
    for changes in hard:
        with most_cpu(limited, 20):
            response = limited.chat(max_tokens=40, **changes)
        assert response.status_code in (200, 400), (changes, response.text)


@pytest.mark.parametrize(
    ("path", "before", "item", "after"),
    [
        ("completions", '"prompt": ', "{}", ""), ("completions", '"prompt": ', "1", ""), ("completions", '"prompt": ', '""', ""),
        ("completions", '"prompt": ', "[]", ""), ("chat/completions", '"messages": ', "{}", ""),
        ("chat/completions", '"messages": ', "1", ""),
        ("chat/completions", '"messages": ', '{"role": "user", "content": "hi"}', ""), ("responses", '"input": ', "{}", ""),
        ("chat/completions", '"messages": [{"role": "user", "content": "hi"}], "stop": ', "1", ""),
        ("chat/completions", '"messages": [{"role": "user", "content": "hi"}], "tools": ', "{}", ""),
        ("chat/completions", '"messages": [{"role": "user", "content": ', "{}", "}]"),
        ("chat/completions", '"messages": [{"role": "assistant", "tool_calls": ', "{}", "}]"),
        ("responses", '"input": [{"role": "user", "content": ', "1", "}]"),
    ],
)  # fmt: skip
def test_a_million_wrong_items_take_no_minutes_and_no_gigabytes(limited: Server, path: str, before: str, item: str, after: str) -> None:
    count = 3_000_000 // (len(item) + 1)
    least = memory(limited)
    Path(f"/proc/{limited.process.pid}/clear_refs").write_text("5")  # forgets the most that it held so far
    with most_cpu(limited, 20):
        response = limited.post(f"/v1/{path}", f"{{{before}[{(item + ',') * count}{item}]{after}}}".encode())
    assert response.status_code == 400 and len(response.content) < 2000
    error_of(response)
    assert memory(limited, most=True) - least < 256 << 20


def test_ten_megabytes_of_one_token_are_refused_before_anybody_reads_them(limited: Server) -> None:
    server, rows = limited, figures(limited)["ingle_step_rows_total"]
    with most_cpu(server, 60):
        for text in ("a" * (10 << 20), " a" * (5 << 20), "\u00e9" * (5 << 20)):
            response = server.chat(text)
            assert response.status_code == 400 and error_of(response)["param"] == "messages[0].content"
            response = server.post("/v1/completions", {"prompt": text})
            assert response.status_code == 400 and error_of(response)["param"] == "prompt"
        ids = server.post("/v1/completions", {"prompt": [65] * 2_000_000})
        assert ids.status_code == 400 and error_of(ids)["param"] == "prompt"
        ids = server.post("/v1/completions", {"prompt": [65] * 1_000_000})
        assert ids.status_code == 400 and error_of(ids)["code"] == "context_length_exceeded"
        many = server.chat(messages=[{"role": "user", "content": "a" * (1 << 20)}] * 10)
        assert many.status_code == 400 and error_of(many)["param"] == "messages"
    assert figures(server)["ingle_step_rows_total"] == rows, "the model has read none of it"
    assert server.chat().status_code == 200


def test_paths_and_methods_that_are_not_there(server: Server) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("PUT", "/v1/models", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("GET", "/v1/models/other", 404), ("GET", "/v1/models/%00", 404), ("GET", "/v1/models/..%2F..%2Fkeys", 404),
        ("GET", "/v1/responses/%00", 404),
        ("GET", "/v1/responses/%ff", 404), ("DELETE", "/v1/responses/none", 404), ("GET", "/docs", 404), ("GET", "/" + "x" * 20_000, 404),
    ):  # fmt: skip
        response = httpx.request(method, server.url + path, timeout=PATIENCE_S)
        assert response.status_code == status, (method, path)
        error_of(response)
