"""Every answer leaves one fact, whichever way it was asked for; the fact holds no words, and proves those that the client has."""

import ast
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingle.app.answer_key import answer_key
from ingle.app.facts import answer_digest, request_digest
from ingle.app.house import open_rooms
from ingle.app.replay import kept_request
from ingle.app.settings import SamplingSettings
from ingle.core.message import Message, Request
from ingle.home.place import Home
from tests.cli.place import ingle
from tests.serve.servers import Server, events_of, serving
from tests.waiting import wait_until

SERVE = Path(__file__).parent.parent.parent / "src" / "ingle" / "serve"
# Every POST route of the API: what to send to get how many answers, or None where it answers nothing. A new route must be added here.
ANSWERS: dict[str, list[tuple[dict[str, Any], int]]] = {
    "/v1/chat/completions": [
        ({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}, 1),
        ({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "n": 4}, 4),
    ],
    "/v1/completions": [({"prompt": "hi", "max_tokens": 3}, 1), ({"prompt": ["a", "b", "c"], "max_tokens": 2, "n": 2}, 6),
                        ({"prompt": "hi", "max_tokens": 0, "echo": True, "logprobs": 1}, 1)],
    "/v1/responses": [({"input": "hi", "max_output_tokens": 3}, 1)],
}  # fmt: skip
# Those that answer nothing, but keep what they are told.
TOLD = {
    "/v1/feedback", "/v1/memory", "/v1/memory/answers", "/v1/memory/{id}", "/v1/learning", "/v1/learning/undo", "/v1/learning/redo",
    "/v1/moderations", "/v1/guards/teach", "/v1/guards/{name}", "/v1/guards/question",
}  # fmt: skip
# Gives stored answers again, and leaves a fact of its own kind: tests/serve/test_serve_explain.py; the other reads one that is kept.
EXPLAINS = {"/v1/explain", "/v1/explain/kept"}
QUESTION, ANSWER = "Xylophonquixotry", "zyzzogeton"


# Hears or speaks, and leaves facts of these kinds: tests/serve/test_serve_audio.py.
SOUNDS = {"/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"}
# Draw, where a model can: tests/serve/test_serve_images.py.
DRAWS = {"/v1/images/generations", "/v1/images/edits"}
# Brings a model in a process of its own, which leaves the fact of `ingle pull`: tests/serve/test_serve_catalogue.py. The others choose.
PULLS = {"/v1/catalogue/pull", "/v1/catalogue/measure", "/v1/models/default"}
# Asks in a conversation, where each answer leaves its fact too: tests/serve/test_serve_conversations.py.
TALKS = {"/v1/conversations", "/v1/conversations/{id}", "/v1/conversations/{id_}/answers"}


def fact(server: Server, number: int) -> dict[str, Any]:
    [row] = [row for row in server.answers() if row.seq == number]
    return dict(row.values)


def test_every_route_that_answers_is_known_to_these_tests(server: Server) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    posts = {path for path, methods in paths.items() for method in methods if method in ("post", "put", "patch")}
    assert posts == set(ANSWERS) | TOLD | EXPLAINS | SOUNDS | DRAWS | PULLS | TALKS, "a new route: say in ANSWERS how many facts it leaves"


DOOR = {"status", "error", "field", "key"}
"""What a fact tells of a request that was none."""


@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_leaves_exactly_one_fact(server: Server, stream: bool) -> None:
    for path, cases in ANSWERS.items():
        for body, count in cases:
            before = {row.seq for row in server.answers()}
            response = server.post(path, body | {"stream": stream, "stream_options": {"include_usage": True}})
            assert response.status_code == 200
            facts = [row for row in server.answers() if row.seq not in before]
            assert len(facts) == count, path
            lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
            last = json.loads(lines[-1]) if stream else response.json()
            named = last["response"]["ingle"] if path == "/v1/responses" and stream else last["ingle"]
            assert sorted(named["events"]) == sorted(row.seq for row in facts)
            assert {row.values["model"] for row in facts} == {named["model_digest"]}


def test_what_is_no_request_leaves_its_refusal_alone(server: Server) -> None:
    """A fact of each, or of none where many were refused lately (serve/refusals.py): never an answer, and no request to point at."""
    before = len(server.answers()), len(refusals(server))
    for changes in ({"temperature": -1}, {"model": "other"}, {"messages": []}):
        assert server.chat(**changes).status_code in (400, 404)
    assert len(server.answers()) == before[0]
    assert all(fact.keys() <= DOOR for fact in refusals(server)[before[1] :])


def refusals(server: Server) -> list[dict[str, Any]]:
    return [dict(row.values) for row in server.facts("refuse")]


@pytest.mark.parametrize(
    ("changes", "guard", "field"),
    [
        ({"messages": [{"role": "user", "content": "  "}]}, "roles", "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a \ud800 secret"}]}, None, None),
        ({"stop": ["x" * 300]}, "size", "stop[0]"),
        ({"messages": [{"role": "user", "content": "secret " * 40_000}]}, "", "prompt"),
        ({"grammar": "secret ("}, "", "grammar"),
        ({"modalities": ["text", "image"]}, "", "modalities"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}]},
         "", "messages"),
    ],
)  # fmt: skip
def test_every_refused_request_is_a_fact_without_its_words(
    server: Server, changes: dict[str, Any], guard: str | None, field: str | None
) -> None:
    before = refusals(server)
    response = server.chat(**changes)
    assert response.status_code == 400
    new = refusals(server)[len(before) :]
    if guard is None:  # what no JSON can hold is no request
        assert all(fact.keys() <= DOOR for fact in new)
        return
    [fact] = new
    assert fact.get("guard", "") == guard
    assert fact["field"] == field == response.json()["error"]["param"]
    assert len(str(fact["request"])) == 64
    assert str(fact["id"]).startswith("chatcmpl-")
    assert "secret" not in json.dumps(fact)


def test_a_policy_says_what_guards_do(served_home: Path) -> None:
    spelt = [{"role": "user", "content": "what does <|im_end|> mean?"}]
    with serving(served_home) as running:
        assert running.chat(messages=spelt, max_tokens=2).status_code == 200
    (served_home / "policy.toml").write_text('[guards]\ncontrol_tokens = "block"\n')
    with serving(served_home) as running:
        response = running.chat(messages=spelt, max_tokens=2)
        assert response.status_code == 400
        [fact] = refusals(running)
        assert fact["guard"] == "control_tokens"
        assert running.chat(max_tokens=2).status_code == 200
    (served_home / "policy.toml").write_text('[guards]\nsize = "off"\n')
    assert "size" in ingle(served_home, "serve", code=2).stderr


def test_where_words_come_from_is_told_and_kept(served_home: Path) -> None:
    content = [{"type": "text", "text": "Sum it up: "}, {"type": "text", "text": "a <|im_end|> b", "origin": "document"}]
    with serving(served_home) as running:
        told = running.chat(messages=[{"role": "user", "content": content}], max_tokens=2, store=True).json()
        [event] = told["ingle"]["events"]
        wrong = [{"role": "user", "content": [{"type": "text", "text": "x", "origin": "system"}]}]
        assert running.chat(messages=wrong).status_code == 400
        [seen] = [row.values["verdicts"] for row in running.answers() if row.seq == event]
        assert "control_tokens: allow" in str(seen)
    assert ingle(served_home, "replay", str(event)).returncode == 0
    engine = open_rooms(Home(served_home))
    request, _ = kept_request(engine, told["id"])
    engine.dispose()
    assert [part.origin for part in request.messages[0].parts] == [None, "document"]


def test_an_answer_that_fails_on_the_way_leaves_one_fact(served_home: Path) -> None:
    """Its words were read by then."""
    breaking = """
import ingle.engine.decoding as decoding
from ingle.core.errors import KernelError
take = decoding.Decoding.take
def broken(self, rows):
    if self.request.max_tokens == 77 and self.written >= 9:
        raise KernelError("engine", "broke")
    return take(self, rows)
decoding.Decoding.take = broken
"""
    with serving(served_home, before=breaking) as server:
        told = server.chat(max_tokens=77, stream=True, seed=1, temperature=2.0, logit_bias={"2": -100}).text
        assert '"content"' in told and "broke" in told
        wait_until(server.answers, "the broken answer is recorded")
        [row] = server.answers()
        assert (row.values["finish"], row.values["completion_tokens"]) == ("cancelled", 9)
        assert server.chat().status_code == 200
        assert len(server.answers()) == 2


def calls_in(path: Path) -> list[tuple[str, int]]:
    """What a file calls, by the last part of its name, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
            found.append((name, node.lineno))
    return found


def test_only_the_service_gives_work_to_the_engine() -> None:
    files = sorted(SERVE.glob("*.py"))
    assert len(files) > 15
    asking = {
        (path.name, name) for path in files for name, _ in calls_in(path) if name in ("submit", "Job", "Scheduler", "Decoding", "forward")
    }
    answering = {("service.py", "submit"), ("service.py", "Job"), ("service.py", "Scheduler")}
    explaining = {("beside.py", "submit"), ("beside.py", "Job")}  # behind the same guards; its fact is of the explanation
    ahead = {("ahead.py", "submit"), ("ahead.py", "Job")}  # reads and never answers; its energy is in the fact of what was heard
    assert asking == answering | explaining | ahead
    # `answer` of the engine, under whatever name; replaying is no answer to anybody.
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("ingle.engine.answer", "ingle.engine.decoding"):
                assert path.name == "replay.py", f"{path.name}:{node.lineno} answers behind the ledger's back"
            if isinstance(node, ast.Import):
                assert not [
                    alias for alias in node.names if alias.name in ("ingle.engine.answer", "ingle.engine.scheduler", "ingle.engine.job")
                ]


def test_a_fact_proves_the_request_and_the_answer_that_the_client_has(server: Server) -> None:
    key = answer_key(server.home)
    table = server.chat(QUESTION, temperature=0.7, top_p=0.8, max_tokens=11, seed=77, stop=["never there"]).json()
    facts = fact(server, events_of_table(table))
    text = table["choices"][0]["message"]["content"]
    assert facts["answer"] == answer_digest(key, text) != answer_digest(key, text + " ")
    sampling = replace(SamplingSettings().sampling(77, 0.7), top_p=0.8)
    request = Request((Message.of("user", QUESTION),), max_tokens=11, stop=("never there",), sampling=sampling)
    assert facts["request"] == request_digest(key, request)
    assert facts["request"] != request_digest(key, replace(request, stop=())) != request_digest(bytes(32), request)
    assert (facts["seed"], facts["temperature"], facts["top_p"], facts["max_tokens"], facts["finish"]) == (77, 0.7, 0.8, 11, "length")
    usage = table["usage"]
    assert facts["prompt_tokens"] == usage["prompt_tokens"] and facts["completion_tokens"] == usage["completion_tokens"] == 11
    assert (facts["id"], facts["model"]) == (table["id"], table["ingle"]["model_digest"])


def events_of_table(table: dict[str, Any]) -> int:
    [number] = table["ingle"]["events"]
    return int(number)


def test_what_guards_said_stands_in_the_fact(server: Server) -> None:
    response = server.chat("Say <|im_end|> and nothing else.")
    assert "control_tokens: allow" in fact(server, events_of(response)[0])["verdicts"]
    said = {"guard": "control_tokens", "action": "allow", "rule": None, "score": None, "mode": "tell"}
    assert response.json()["ingle"]["verdicts"] == [[said]]
    hidden = server.chat("plain\U000e0041\U000e0042 text")
    assert "unicode: edit" in fact(server, events_of(hidden)[0])["verdicts"]


def test_no_words_are_left_on_the_disk_unless_they_are_kept(served_home: Path) -> None:
    with serving(served_home) as server:
        for door, body in (
            ("chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 20, "grammar": f'start: "{ANSWER}"'}),
            ("completions", {"prompt": QUESTION, "grammar": f'start: "{ANSWER}"'}),
            ("responses", {"input": QUESTION, "instructions": QUESTION, "max_output_tokens": 9, "store": False}),
        ):
            assert server.post(f"/v1/{door}", body).status_code == 200
        server.stop()
        for word in (QUESTION, ANSWER):
            assert not files_with(served_home, word)
            assert word not in server.log
    with serving(served_home) as server:
        kept = server.chat(QUESTION, max_tokens=20, grammar=f'start: "{ANSWER}"', store=True).json()
        assert kept["choices"][0]["message"]["content"] == ANSWER
        server.idle()
        assert files_with(served_home, QUESTION) and files_with(served_home, ANSWER)  # so this search would have found them
        server.openai().responses.delete(kept["id"])
        server.stop()
        for word in (QUESTION, ANSWER):
            assert not files_with(served_home, word)
            assert word not in server.log


def files_with(home: Path, word: str) -> list[Path]:
    """Files of a home, models aside, in which a word stands, by its bytes in the encodings that matter."""
    spelled = [word.encode(), word.encode("utf-16-le"), json.dumps(list(word.encode()))[1:-1].encode()]
    files = [path for path in home.rglob("*") if path.is_file() and not {"bases", "packs"} & set(path.parts)]
    return [path for path in files if any(one in path.read_bytes() for one in spelled)]


RESULTS: list[dict[str, Any]] = [
    {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "odd."}]},
    {"role": "user", "content": QUESTION, "name": "me"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": '{"at": "sky"}'}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "Grey."},
    {"role": "system", "content": "Be brief."},
]


def kept_ids(server: Server) -> dict[str, str]:
    """Answers of every kind that are kept, by what they are: their ids."""
    tool = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"enum": ["sky", "sea"]}}, "required": ["at"]}}
    flat: dict[str, Any] = {"type": "function", **tool}
    first = server.post("/v1/responses", {"input": QUESTION, "max_output_tokens": 9, "store": True, "instructions": "Be odd."}).json()
    after = {
        "input": "And more?",
        "previous_response_id": first["id"],
        "max_output_tokens": 9,
        "store": True,
        "temperature": 1.5,
        "seed": 9,
    }
    return {
        "chat": server.chat(QUESTION, store=True).json()["id"],
        "sampled": server.chat(QUESTION, store=True, temperature=1.8, top_p=0.95, top_k=40, max_tokens=60, frequency_penalty=0.5).json()[
            "id"
        ],
        "unseeded": server.chat(QUESTION, store=True, temperature=1.8, seed=None).json()["id"],
        "system": server.chat(
            messages=[{"role": "system", "content": "Be odd."}, {"role": "user", "content": QUESTION}], store=True
        ).json()["id"],
        "schema": server.chat(store=True, response_format={"type": "regex", "regex": "[a-f]{8}"}, logit_bias={"70": 5}).json()["id"],
        "tools": server.chat(store=True, tools=[{"type": "function", "function": tool}], tool_choice="required", max_tokens=900).json()[
            "id"
        ],
        "results": server.chat(messages=RESULTS, store=True, temperature=1.5).json()["id"],
        "stopped": server.chat(store=True, max_tokens=90, stop=["a", "e", "i"], temperature=1.5).json()["id"],
        "hidden": server.chat("plain\U000e0041 <|im_end|> text", store=True).json()["id"],
        "second choice": f"{server.chat(store=True, n=2, temperature=1.5).json()['id']}-1",
        "responses": first["id"],
        "second turn": server.post("/v1/responses", after).json()["id"],
        "responses with a call": server.post(
            "/v1/responses", {"input": "x", "store": True, "tools": [flat], "tool_choice": "required"}
        ).json()["id"],
    }


def kept_tools(server: Server, name: str) -> Any:
    """The only tool that a kept answer was offered."""
    engine = open_rooms(server.home)
    try:
        [tool] = kept_request(engine, name)[0].tools
    finally:
        engine.dispose()
    return tool


def test_a_kept_answer_can_be_proven(served_home: Path) -> None:
    with serving(served_home) as server:
        ids = kept_ids(server)
        for what, name in ids.items():
            result = json.loads(ingle(served_home, "replay", name, "--json").stdout)
            assert result["proven"] and result["kept"] == result["now"], (what, result)
        assert list(kept_tools(server, ids["responses with a call"])) == ["type", "function"]  # a model reads keys in order
        [number] = [row.seq for row in server.answers() if row.values["id"] == ids["sampled"]]
        said = ingle(served_home, "replay", str(number)).stdout.splitlines()
        assert [line[:3] for line in said] == ["yes"] * 4
        server.stop()


TAMPERED: dict[str, tuple[Callable[[str], str], str]] = {
    "answer": (lambda content: content.replace(ANSWER, "zyzzogetoN"), "the kept answer"),
    "question": (lambda content: content.replace(QUESTION, "Xylophonquixotrx"), "the kept question"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_kept_answer_that_was_tampered_with_is_found_out(served_home: Path, what: str) -> None:
    change, complaint = TAMPERED[what]
    with serving(served_home) as server:
        name = server.chat(QUESTION, store=True, grammar=f'start: "{ANSWER}"', max_tokens=30).json()["id"]
        server.stop()
    with sqlite3.connect(served_home / "ingle.db") as connection:
        rows = connection.execute("SELECT id, content FROM turns").fetchall()
        changed = [(change(content), turn) for turn, content in rows if change(content) != content]
        assert changed
        connection.executemany("UPDATE turns SET content = ? WHERE id = ?", changed)
    connection.close()
    result = ingle(served_home, "replay", name, code=1)
    assert [line for line in result.stdout.splitlines() if line.startswith("NO") and complaint in line]
    table = json.loads(ingle(served_home, "replay", name, "--json", code=1).stdout)
    assert (
        not table["proven"]
        and table["model_same"]
        and (table["kept_same"], table["request_same"]) == (what != "answer", what != "question")
    )


def test_what_cant_be_proven_is_said(served_home: Path) -> None:
    with serving(served_home) as server:
        unkept = server.chat(QUESTION).json()
        server.stop()
    assert "store: true" in ingle(served_home, "replay", unkept["id"], code=3).stderr
    assert "store: true" in ingle(served_home, "replay", str(unkept["ingle"]["events"][0]), code=3).stderr
    for unknown in ("999", "chatcmpl-unknown", "", "-1", "1"):  # 1 is the pull
        assert "ingle log --kind answer" in ingle(served_home, "replay", "--", unknown, code=3).stderr


def test_facts_and_words_go_to_postgresql_as_well(served_home: Path, postgres_url: str) -> None:
    changes = {"INGLE_DATABASE_URL": postgres_url}
    (served_home / "ingle.db").unlink()
    shutil.rmtree(served_home / "keys")  # a new database begins a new ledger
    with serving(served_home, changes=changes) as server:
        kept = server.chat(QUESTION, store=True, temperature=1.5).json()
        assert fact(server, kept["ingle"]["events"][0])["id"] == kept["id"]
        assert server.openai().responses.retrieve(kept["id"]).output_text == kept["choices"][0]["message"]["content"]
        assert server.get("/v1/responses/%00").status_code in (400, 404)
        assert server.post("/v1/responses", {"input": "a", "previous_response_id": "a\0b"}).status_code in (400, 404)
        assert server.chat("a\0b", store=True).status_code == 200
        server.stop()
    assert json.loads(ingle(served_home, "replay", kept["id"], "--json", changes=changes).stdout)["proven"]
    assert "The ledger is whole" in ingle(served_home, "verify", changes=changes).stdout
