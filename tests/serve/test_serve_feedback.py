"""What users say of answers reaches the home through the API: by its owner alone, whole or not at all, without a word in the ledger."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S

ASKED, RIGHT = "Who leads the city of Zorblax?", "Mara Quillfeather leads it."


@pytest.fixture(scope="module")
def teaching(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server whose users teach it: what they say must not act on other files' tests."""
    with serving(copied(kept_home, tmp_path_factory.mktemp("taught") / "home")) as running:
        yield running


@pytest.fixture
def mine(teaching: Server) -> dict[str, str]:
    """The header of a user who is new."""
    return new_user(teaching)


def new_user(server: Server) -> dict[str, str]:
    number = len(json.loads(ingle(server.home.root, "key", "list", "--json").stdout))
    return {"Authorization": f"Bearer {ingle(server.home.root, 'key', 'add', f'user{number}').stdout.strip()}"}


def send(server: Server, method: str, path: str, who: Mapping[str, str], body: Any = None) -> httpx.Response:
    return httpx.request(method, server.url + path, headers=dict(who), json=body, timeout=PATIENCE_S)


def ledger(server: Server, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line)["facts"] for line in ingle(server.home.root, "log", "-n", "500", "--kind", kind, "--json").stdout.splitlines()]


def test_a_kept_answer_is_corrected_by_its_id_and_the_next_answer_knows(teaching: Server, mine: dict[str, str]) -> None:
    answer = teaching.chat(ASKED, mine, store=True).json()
    told = send(
        teaching, "POST", "/v1/feedback", mine, {"completion_id": answer["id"], "rating": -1, "correction": RIGHT, "comment": "No."}
    )
    assert told.status_code == 200
    made = told.json()
    assert (made["kind"], made["question"], made["answer"], made["rating"], made["state"]) == ("correction", ASKED, RIGHT, -1, "pending")
    said = answer["choices"][0]["message"]["content"]  # nonsense, with controls in it, which are not kept
    assert made["refused"] and set(made["refused"]) <= set(said) and made["model"] == "tiny"
    view = send(teaching, "GET", "/v1/learning", mine).json()
    assert view["counts"] == {"pending": 1} and view["data"] == [made] and view["learn"] and view["lessons"] == []
    acted = teaching.chat(ASKED, mine).json()["ingle"]
    assert acted["memories"] == [[made["id"]]]
    assert "memories" not in teaching.chat(ASKED, mine, memory=False).json()["ingle"]
    assert "memories" not in teaching.chat(ASKED, new_user(teaching)).json()["ingle"]
    [fact] = [fact for fact in ledger(teaching, "feedback") if fact["example"] == made["id"]]
    assert fact["superseded"] == 0 and fact["id"] == answer["id"] and "Quillfeather" not in json.dumps(ledger(teaching, "feedback"))


def test_the_same_through_the_responses_api(teaching: Server, mine: dict[str, str]) -> None:
    body = {"input": ASKED, "max_output_tokens": 4, "store": True, "learn": False}
    answer = send(teaching, "POST", "/v1/responses", mine, body).json()
    rated = send(teaching, "POST", "/v1/feedback", mine, {"completion_id": answer["id"], "rating": 1}).json()
    assert (rated["kind"], rated["state"], rated["learn"], rated["question"]) == ("rating", "kept", False, ASKED)
    made = send(teaching, "POST", "/v1/feedback", mine, {"completion_id": answer["id"], "correction": RIGHT, "learn": True}).json()
    assert made["state"] == "pending"
    send(teaching, "POST", "/v1/feedback", mine, {"question": ASKED, "correction": RIGHT})
    without = send(teaching, "POST", "/v1/responses", mine, {**body, "memory": False}).json()
    assert "memories" not in without["ingle"] and "memories" in send(teaching, "POST", "/v1/responses", mine, body).json()["ingle"]


def test_words_that_are_not_kept_are_given_and_the_latest_stands(teaching: Server, mine: dict[str, str]) -> None:
    first = send(teaching, "POST", "/v1/feedback", mine, {"question": ASKED, "correction": "Otto", "model": "tiny"}).json()
    second = send(teaching, "POST", "/v1/feedback", mine, {"question": ASKED.upper(), "answer": "Nobody", "correction": RIGHT}).json()
    items = {one["id"]: one["state"] for one in send(teaching, "GET", "/v1/learning", mine).json()["data"]}
    assert items == {first["id"]: "superseded", second["id"]: "pending"}
    assert [one["id"] for one in send(teaching, "GET", "/v1/memory", mine).json()["data"]] == [second["id"]]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "rating"),
        ({"rating": 0, "question": "q", "answer": "a"}, 400, "rating"),
        ({"rating": 1}, 400, "question"),
        ({"rating": 1, "question": "q"}, 400, "answer"),
        ({"completion_id": "chatcmpl-none", "rating": 1}, 404, "completion_id"),
        ({"question": "q", "correction": " "}, 400, "correction"),
        ({"question": "q", "correction": "x" * 9000}, 400, "correction"),
        ({"question": "q", "correction": "a\u202eb"}, 400, "correction"),
        ({"question": "q", "correction": "a", "model": "other"}, 404, "model"),
        ({"question": "q", "correction": 7}, 400, "correction"),
    ],
)
def test_what_says_nothing_is_refused_with_the_field(teaching: Server, body: dict[str, Any], status: int, param: str) -> None:
    said = teaching.post("/v1/feedback", body)
    assert said.status_code == status and said.json()["error"]["param"] == param, said.text


def test_memory_is_found_edited_and_deleted_by_its_owner_alone(teaching: Server, mine: dict[str, str]) -> None:
    kept = [send(teaching, "POST", "/v1/memory", mine, {"text": f"The {what} is green."}).json() for what in ("gate", "roof")]
    assert [one["kind"] for one in kept] == ["fact", "fact"] and kept[0]["state"] == "kept"
    found = send(teaching, "GET", "/v1/memory?query=which+colour+has+the+ROOF", mine).json()["data"]
    assert found[0]["answer"] == "The roof is green."
    path, other = f"/v1/memory/{kept[0]['id']}", new_user(teaching)
    for who in (other, {}):
        assert [
            send(teaching, method, path, who, body).status_code
            for method, body in (("GET", None), ("PATCH", {"answer": "x"}), ("DELETE", None))
        ] == [404] * 3
        assert send(teaching, "GET", "/v1/memory?query=roof", who).json()["data"] == []
    assert send(teaching, "PATCH", path, mine, {"answer": "The gate is xanthic."}).json()["answer"] == "The gate is xanthic."
    assert send(teaching, "GET", "/v1/memory?query=xanthic", mine).json()["data"][0]["id"] == kept[0]["id"]
    gone = send(teaching, "DELETE", path, mine).json()
    assert gone["deleted"] and gone["id"] == kept[0]["id"] and gone["ingle"]["lessons"] == 0
    assert send(teaching, "GET", path, mine).status_code == 404 == send(teaching, "DELETE", path, mine).status_code
    assert len(send(teaching, "GET", "/v1/memory?limit=1", mine).json()["data"]) == 1
    assert send(teaching, "GET", "/v1/memory?limit=0", mine).status_code == 400


def test_consent_is_said_once_and_stands_in_the_ledger(teaching: Server, mine: dict[str, str]) -> None:
    assert send(teaching, "PATCH", "/v1/learning", mine, {"learn": False}).json() == {"object": "learning", "learn": False}
    assert send(teaching, "POST", "/v1/feedback", mine, {"question": "Why?", "correction": "So."}).json()["state"] == "kept"
    assert send(teaching, "PATCH", "/v1/learning", mine, {"learn": True}).json()["learn"]
    assert [fact["learn"] for fact in ledger(teaching, "consent")][-2:] == [False, True]


@pytest.mark.parametrize(("path", "body", "status"), [
    ("/v1/learning/undo", {"which": "ex-none"}, 404),
    ("/v1/learning/undo", {"which": 0}, 400),
    ("/v1/learning/undo", {"which": 1.5}, 400),
    ("/v1/learning/redo", {"which": "ex-none"}, 404),
    ("/v1/learning/redo", {}, 404),
])  # fmt: skip
def test_what_is_not_there_is_not_undone(teaching: Server, mine: dict[str, str], path: str, body: dict[str, Any], status: int) -> None:
    send(teaching, "POST", "/v1/feedback", mine, {"question": ASKED, "correction": RIGHT})
    said = send(teaching, "POST", path, mine, body)
    assert said.status_code == status, said.text
    if status == 400:
        assert said.json()["error"]["param"] == "which"
    assert send(teaching, "GET", "/v1/learning", mine).json()["counts"] == {"pending": 1}


def test_what_only_waits_is_taken_back(teaching: Server, mine: dict[str, str]) -> None:
    assert send(teaching, "POST", "/v1/learning/undo", mine, {}).status_code == 404
    made = send(teaching, "POST", "/v1/feedback", mine, {"question": ASKED, "correction": RIGHT}).json()
    assert [one["id"] for one in send(teaching, "POST", "/v1/learning/undo", mine, {}).json()["data"]] == [made["id"]]
    assert send(teaching, "GET", "/v1/learning", mine).json()["counts"] == {"undone": 1}


def test_an_answer_is_taught_by_its_question(teaching: Server, mine: dict[str, str]) -> None:
    made = send(teaching, "POST", "/v1/memory/answers", mine, {"question": ASKED, "answer": RIGHT}).json()
    assert (made["kind"], made["question"], made["answer"], made["learned"]) == ("correction", ASKED, RIGHT, None)
    assert teaching.chat(ASKED, mine).json()["ingle"]["memories"] == [[made["id"]]]
    assert "memories" not in teaching.chat(ASKED, new_user(teaching)).json()["ingle"]
    assert made["id"] in [fact["example"] for fact in ledger(teaching, "feedback")]


@pytest.mark.parametrize(("body", "field"), [
    ({}, "question"),
    ({"question": ASKED}, "answer"),
    ({"question": ASKED, "answer": "x" * 9000}, "answer"),
    ({"question": ASKED, "answer": "a\x1b[2J"}, "answer"),
    ({"question": ASKED, "answer": RIGHT, "now": True}, "now"),
    ({"now": True}, "now"),
    ({"question": [ASKED], "answer": RIGHT}, "question"),
])  # fmt: skip
def test_a_wrong_lesson_leaves_nothing(teaching: Server, mine: dict[str, str], body: dict[str, Any], field: str) -> None:
    said = send(teaching, "POST", "/v1/memory/answers", mine, body)
    assert said.status_code == 400 and said.json()["error"]["param"] == field, said.text
    assert send(teaching, "GET", "/v1/learning", mine).json()["counts"] == {}


def test_an_id_is_never_guessed_at_a_server(teaching: Server, mine: dict[str, str]) -> None:
    made = send(teaching, "POST", "/v1/memory", mine, {"text": RIGHT}).json()
    for short in ("ex-", made["id"][:-1], made["id"].removeprefix("ex-")):
        assert send(teaching, "DELETE", f"/v1/memory/{short}", mine).status_code == 404
        assert send(teaching, "PATCH", f"/v1/memory/{short}", mine, {"answer": "x"}).status_code == 404
    assert send(teaching, "GET", f"/v1/memory/{made['id']}", mine).json() == made
