"""`/v1/explain`: its owner's answers only, proved by leaving out, without a word in the ledger, and answers go on beside it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingle.app.explained import tokens_within
from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import SLOWLY, Server, dial, facts_in, request, serving
from tests.serve.test_serve_feedback import new_user, send
from tests.serve.test_serve_operation import figures
from tests.waiting import PATIENCE_S, wait_until

TEXT = "The mill of Zorblax is old. Rain falls on it all day. A cat sleeps inside. Bread is sold there.\n\nWhat is old?"
ASKED, RIGHT = "Who leads the city of Zorblax?", "Mara Quillfeather leads it."

TELLS = f"""{SLOWLY}
from pathlib import Path
from ingle.serve.beside import Beside
home = Path(os.environ["INGLE_HOME"])
def telling(work):
    def told(*given):
        (home / "at-it").touch()
        try:
            return work(*given)
        except Exception:
            (home / "stopped").touch()
            raise
    return told
Beside._check, Beside.answers = telling(Beside._check), telling(Beside.answers)
"""
"""There is a file once work for an explanation goes on, and another once it was stopped."""


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    """A server that may be taught."""
    with serving(copied(kept_home, tmp_path_factory.mktemp("explained") / "home"), before=TELLS) as running:
        yield running


def answered(server: Server, text: str = TEXT, who: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = server.chat(text, who, store=True, temperature=0, **changes).raise_for_status().json()
    return table


def why(server: Server, answer: dict[str, Any], who: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
    return server.post("/v1/explain", {"completion_id": answer["id"]} | changes, who)


def test_an_answer_is_explained_and_the_explanation_is_kept(explaining: Server) -> None:
    answer = answered(explaining)
    first, second = (why(explaining, answer).raise_for_status().json() for _ in range(2))
    took = first.pop("ingle")
    assert took["seconds"] > 0 and took["joules"] > 0 and second.pop("ingle")["event"] == took["event"] + 1
    assert json.dumps(first) == json.dumps(second)
    assert first["answer"] == answer["choices"][0]["message"]["content"] and first["complete"] and first["sentences"] == 4
    assert first["says"] and first["method"] == "leave_one_out"
    assert explaining.get(f"/v1/explain/{first['id']}").json() == first
    by_event = explaining.post("/v1/explain", {"event": answer["ingle"]["events"][0]}).json()
    assert by_event["id"] == first["id"]


def test_the_ledger_has_figures_and_no_word(explaining: Server) -> None:
    table = why(explaining, answered(explaining, TEXT.replace("mill", "quillmill"))).json()
    fact = facts_in(explaining.home, "explain")[-1]
    assert (fact.values["explanation"], fact.values["read_tokens"], fact.values["complete"]) == (table["id"], table["read_tokens"], True)
    words = json.dumps(dict(fact.values))
    assert "quillmill" not in words and "cat sleeps" not in words


def test_what_was_taught_is_named_and_without_it_is_what_no_memory_says(explaining: Server) -> None:
    who = new_user(explaining)
    taught = send(explaining, "POST", "/v1/feedback", who, {"question": ASKED, "correction": RIGHT}).json()
    answer = answered(explaining, ASKED, who, seed=4)
    assert answer["ingle"]["memories"] == [[taught["id"]]]
    table = why(explaining, answer, who).json()
    [cause] = [one for one in table["causes"] if one["cause"]["kind"] == "memory"]
    plain = explaining.chat(ASKED, who, memory=False, temperature=0, seed=4).json()
    assert cause["cause"]["id"] == taught["id"] and cause["cause"]["text"] == RIGHT
    assert cause["answer_without"] == plain["choices"][0]["message"]["content"]
    assert sum(cause["nats_by_token"]) == pytest.approx(cause["nats"])
    only = why(explaining, answer, who, what=["taught"]).json()
    assert [one["cause"]["kind"] for one in only["causes"]] == ["memory"] and only["id"] != table["id"]
    send(explaining, "DELETE", f"/v1/memory/{taught['id']}", who)
    assert send(explaining, "GET", f"/v1/explain/{table['id']}", who).status_code == 404, "forgetting takes explanations along"
    gone = why(explaining, answer, who)
    assert gone.status_code == 404 and "not kept" in gone.json()["error"]["message"]


def test_nobody_explains_an_answer_of_another_key(explaining: Server) -> None:
    mine, theirs = new_user(explaining), new_user(explaining)
    answer = answered(explaining, TEXT, mine)
    table = why(explaining, answer, mine).raise_for_status().json()
    for who in (theirs, {}):
        assert why(explaining, answer, who).status_code == 404
        assert explaining.post("/v1/explain", {"event": answer["ingle"]["events"][0]}, who).status_code == 404
        assert explaining.get(f"/v1/explain/{table['id']}", who).status_code == 404
    assert explaining.get(f"/v1/explain/{table['id']}", mine).status_code == 200


def test_bad_questions_get_a_sentence_and_nothing_is_lost(explaining: Server) -> None:
    answer = answered(explaining)
    text = answer["choices"][0]["message"]["content"]
    for body, field in [
        ({"budget_s": 0}, "budget_s"), ({"budget_s": -1}, "budget_s"), ({"span": [2, 2]}, "span"), ({"span": [0, 10**6]}, "span"),
        ({"span": "no such words"}, "span"), ({"span": ""}, "span"), ({"method": "tea leaves"}, "method"), ({"what": []}, "what"),
        ({"what": ["feelings"]}, "what"), ({"completion_id": ""}, "completion_id"),
    ]:  # fmt: skip
        reply = why(explaining, answer, **body)
        assert reply.status_code == 400 and field in reply.json()["error"]["message"], (body, reply.text)
    short = why(explaining, answer, budget_s=1e-6)
    assert short.status_code == 400 and "budget_s" in short.json()["error"]["message"]
    unstored = explaining.chat(TEXT, temperature=0).json()
    assert why(explaining, unstored).status_code == 404
    assert explaining.post("/v1/explain", {"event": 10**6}).status_code == 404
    part = why(explaining, answer, span=[0, max(1, len(text) // 2)]).raise_for_status().json()
    assert part["span"] == {"start": 0, "end": max(1, len(text) // 2)}
    assert explaining.get(f"/v1/responses/{answer['id']}").status_code == 200


def test_causes_are_streamed_and_a_client_that_goes_stops_it(explaining: Server) -> None:
    who = new_user(explaining)
    send(explaining, "POST", "/v1/feedback", who, {"question": ASKED, "correction": RIGHT})
    answer = answered(explaining, ASKED, who)
    body = {"completion_id": answer["id"], "stream": True}
    with httpx.stream("POST", explaining.url + "/v1/explain", json=body, headers=who, timeout=PATIENCE_S) as reply:
        lines = [line for line in reply.iter_lines() if line]
    tables = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]" and [table["object"] for table in tables][-1] == "explanation"
    assert tables[0]["object"] == "explanation.cause" and tables[0]["cause"]["kind"] == "memory"
    long = answered(explaining, " ".join(f"Number {i} is red." for i in range(300)) + " What is red?")
    body = {"completion_id": long["id"], "method": "leave_one_out", "budget_s": 600}
    before, root = len(facts_in(explaining.home, "explain")), explaining.home.root
    for name in ("at-it", "stopped"):
        (root / name).unlink(missing_ok=True)
    with dial(explaining) as wire:
        wire.sendall(request(explaining, json.dumps(body).encode(), "/v1/explain"))
        wait_until((root / "at-it").exists, "the work has begun")
    wait_until((root / "stopped").exists, "the work is stopped")
    assert len(facts_in(explaining.home, "explain")) == before


def test_answers_go_on_beside_an_explanation(explaining: Server) -> None:
    long = answered(explaining, " ".join(f"Number {i} is red." for i in range(120)) + " What is red?", max_tokens=4)
    outcome: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: outcome.append(why(explaining, long, method="leave_one_out", budget_s=300)))
    thread.start()
    answers = 0
    while thread.is_alive():
        explaining.chat("hi", temperature=0).raise_for_status()
        answers += thread.is_alive()
    thread.join()
    assert outcome[0].status_code == 200 and answers > 2, "answers come while it is explained"


def test_a_deleted_answer_takes_its_explanations_along(explaining: Server) -> None:
    answer = answered(explaining)
    table = why(explaining, answer).json()
    assert httpx.delete(f"{explaining.url}/v1/responses/{answer['id']}", timeout=PATIENCE_S).status_code == 200
    assert explaining.get(f"/v1/explain/{table['id']}").status_code == 404


def test_the_terminal_explains_what_the_server_stored(explaining: Server) -> None:
    answer = answered(explaining)
    table = why(explaining, answer).json()
    said = json.loads(ingle(explaining.home.root, "why", answer["id"], "--json", code=0 if table["causes"] else 1).stdout)
    said.pop("ingle"), table.pop("ingle")
    assert said.pop("predicted")["fits"], "the terminal opens the model, so it says before what that takes"
    assert said == table


def test_an_answer_that_is_given_again_stops_when_whoever_asked_has_gone(explaining: Server) -> None:
    answer, root = answered(explaining, max_tokens=3000), explaining.home.root
    hold, stopped = root / "hold", root / "stopped"
    hold.touch()
    stopped.unlink(missing_ok=True)
    before = figures(explaining)["ingle_step_rows_total"]
    with dial(explaining) as wire:
        wire.sendall(request(explaining, json.dumps({"completion_id": answer["id"]}).encode(), "/v1/explain"))
        wait_until(lambda: explaining.health()["running"] == 1, "the answer is given again")
    wait_until(stopped.exists, "it has noticed")
    hold.unlink()
    explaining.idle()
    assert figures(explaining)["ingle_step_rows_total"] - before < 1000, "it was not written to its end"


def test_only_tokens_that_were_shown_are_explained() -> None:
    pieces = ("The", " tower", " is in", " Paris", ".")
    assert tokens_within(pieces, "The tower is in Paris.") == len(pieces)
    assert tokens_within(pieces, "The tower is in \n\nI was asked not to name it.") == 3
    assert tokens_within(pieces, "The tower is in Par") == 3, "half a token would tell the other half"
    assert tokens_within(pieces, "I can't say.") == tokens_within((), "The") == 0
