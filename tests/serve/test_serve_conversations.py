"""Conversations by the API: all that the page can do, for every program; and what must not be."""

import json
import re
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingle.app.conversation import MOST_TEMPORARY
from ingle.home.database import open_database
from ingle.home.turns import MIGRATIONS
from ingle.serve.updates import MOST_STREAMS_EACH
from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, error_of, serving, settings, start
from tests.waiting import PATIENCE_S, wait_until

HARMLESS = '<b>**Bold** & "x"</b> <script>alert(1)</script>'


@dataclass
class Listener:
    """One open stream of updates, read in a thread."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # id, name, data
    ended: bool = False

    def read(self, response: httpx.Response) -> None:
        id_ = name = ""
        try:
            for line in response.iter_lines():
                if line.startswith("id: "):
                    id_ = line[4:]
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    self.events.append((id_, name, json.loads(line[6:])))
        except httpx.HTTPError:
            pass
        self.ended = True

    def named(self, name: str) -> list[dict[str, Any]]:
        return [data for _, one, data in self.events if one == name]

    def text(self, answer: str) -> str:
        return "".join(one["text"] for one in self.named("answer.delta") if one["answer"] == answer)


@contextmanager
def listening(server: Server, query: str = "", **headers: str) -> Iterator[Listener]:
    listener = Listener(f"{server.url}/v1/updates{query}", headers)
    timeout = httpx.Timeout(PATIENCE_S, read=None)
    with httpx.Client(timeout=timeout) as client, client.stream("GET", listener.url, headers=headers) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        thread = threading.Thread(target=listener.read, args=(response,), daemon=True)
        thread.start()
        wait_until(lambda: bool(listener.events), "the stream says hello")
        try:
            yield listener
        finally:
            response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # a close would wait for its reader
            thread.join(PATIENCE_S)


def begin(server: Server, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    made = server.post("/v1/conversations", body, headers)
    assert made.status_code == 200, made.text + server.log[-3000:]
    table: dict[str, Any] = made.json()
    return table


def ask(server: Server, id_: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return server.post(f"/v1/conversations/{id_}/answers", body, headers)


def read(server: Server, id_: str, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
    found = server.get(f"/v1/conversations/{id_}{query}", headers)
    assert found.status_code == 200, found.text
    table: dict[str, Any] = found.json()
    return table


def patch(server: Server, id_: str, **body: Any) -> httpx.Response:
    return httpx.patch(f"{server.url}/v1/conversations/{id_}", json=body, timeout=PATIENCE_S)


def settled(server: Server, id_: str) -> dict[str, Any]:
    """The conversation when its answer has ended."""
    wait_until(lambda: not read(server, id_)["busy"], "the answer has ended")
    return read(server, id_, "?shown=true")


SHORT = {"settings": {"max_tokens": 6, "seed": 1}}


@pytest.mark.parametrize("temporary", [False, True])
def test_a_conversation_from_its_first_question_to_its_end(server: Server, temporary: bool) -> None:
    made = begin(server, temporary=temporary, **SHORT)
    id_ = made["id"]
    assert made["temporary"] is temporary and made["settings"] == SHORT["settings"]
    before = len(server.answers())
    with listening(server, "?strokes=true") as heard:
        asked = ask(server, id_, text=HARMLESS, version=made["version"])
        assert asked.status_code == 202
        answer, question = asked.json()["id"], asked.json()["question"]
        wait_until(lambda: bool(heard.named("answer.ended")), "the end of the answer is told")
        whole = settled(server, id_)
        [fact] = server.answers()[before:]
        assert fact.values["id"] == answer
        assert [turn["role"] for turn in whole["turns"]] == ["user", "assistant"] and whole["turns"][0]["id"] == question
        assert whole["turns"][1]["text"] == heard.text(answer) != ""
        assert [one["stage"] for one in heard.named("answer.stage")] == ["reading", "writing"]
        assert [one["number"] for one in heard.named("answer.delta")] == list(range(1, len(heard.named("answer.delta")) + 1))
        assert all("strokes" in one for one in heard.named("answer.delta"))
        assert heard.events[0][1] == "hello" and set(heard.events[0][2]) == {"version", "boot"}
    shown = whole["turns"][1]["shown"]
    assert shown["html"] and "<script" not in shown["html"] and "tokens" in shown["line"] and ("good" in shown["acts"]) is not temporary
    assert whole["turns"][0]["text"] == HARMLESS and whole["turns"][0]["shown"]["html"] is None
    assert temporary or whole["title"].startswith("<b>**Bold**")

    again = ask(server, id_, again=question)
    assert again.status_code == 202
    both = settled(server, id_)["turns"][1]
    assert len(both["beside"]) == (1 if both["completion_id"] == answer else 2), "nothing is drawn twice with one seed"
    edited = ask(server, id_, edits=question, text="Something else")
    assert edited.status_code == 202
    other = settled(server, id_)
    assert next(turn["text"] for turn in other["turns"]) == "Something else" and len(other["turns"][0]["beside"]) == 2
    back = patch(server, id_, leaf=question)
    assert back.status_code == 200
    assert read(server, id_)["turns"][0]["text"] == HARMLESS and len(read(server, id_)["turns"]) == 2, "to the newest end behind it"

    gone = httpx.delete(f"{server.url}/v1/conversations/{id_}", timeout=PATIENCE_S)
    assert gone.status_code == 200 and gone.json()["deleted"] is True
    assert server.get(f"/v1/conversations/{id_}").status_code == 404


def test_lists_pins_words_and_pages(served_home: Path) -> None:
    with serving(served_home) as server:
        made = [begin(server, title=f"About {word}")["id"] for word in ("bread", "ovens", "bees")]
        begin(server, temporary=True)

        def listed(query: str = "") -> list[str]:
            return [one["id"] for one in server.get(f"/v1/conversations{query}").json()["data"]]

        assert listed() == made[::-1]
        assert patch(server, made[0], pinned=True).json()["pinned"] is True
        assert listed() == [made[0], made[2], made[1]]
        first = server.get("/v1/conversations?limit=2").json()
        assert first["has_more"] is True and [one["id"] for one in first["data"]] == [made[0], made[2]]
        assert listed(f"?limit=2&after={made[2]}") == [made[1]]
        assert listed("?words=OVENS") == [made[1]] and listed("?words=nothing") == []
        assert patch(server, made[1], title="  Ovens\n and <i>more</i> ").json()["title"] == "Ovens and <i>more</i>"
        assert error_of(patch(server, made[1], title=" \n"))["param"] == "title"
        assert error_of(server.get("/v1/conversations?limit=0"))["param"] == "limit"
        wrong = patch(server, made[1], settings={"temperature": 7})
        assert wrong.status_code == 400 and error_of(wrong)["param"] == "temperature"
        assert patch(server, made[1], settings={"model": "tiny", "top_p": 0.5}).json()["settings"] == {"model": "tiny", "top_p": 0.5}
        assert patch(server, made[1], settings={}).json()["settings"] == {}
    at_terminal = json.loads(ingle(served_home, "conversations", "list", "bread", "--json").stdout)
    assert [one["id"] for one in at_terminal] == [made[0]]
    assert "About bread" in ingle(served_home, "conversations").stdout
    assert ingle(served_home, "conversations", "delete", made[0], "--yes").returncode == 0
    assert ingle(served_home, "conversations", "show", made[0], code=3).stdout == ""


def test_what_was_changed_since_is_told_with_the_newer(server: Server) -> None:
    made = begin(server, **SHORT)
    id_, seen = made["id"], made["version"]
    assert patch(server, id_, title="First", version=seen).status_code == 200
    for late in (patch(server, id_, title="Second", version=seen), ask(server, id_, text="hi", version=seen)):
        assert late.status_code == 409 and error_of(late)["type"] == "conflict_error"
        newer = late.json()["error"]["newer"]
        assert newer["title"] == "First" and newer["version"] > seen
    assert read(server, id_)["turns"] == []


def test_two_that_ask_at_once_ask_once(server: Server) -> None:
    id_ = begin(server, settings={"max_tokens": 30_000, "temperature": 0})["id"]
    asked: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda n=n: asked.append(ask(server, id_, text=f"from tab {n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status_code for one in asked) == [202, 429, 429, 429]
    [answer] = [one.json()["id"] for one in asked if one.status_code == 202]
    assert len(read(server, id_)["turns"]) == 1 and read(server, id_)["end"]["state"] in ("opening", "reading", "writing")
    stopped = httpx.delete(f"{server.url}/v1/conversations/{id_}/answers/{answer}", timeout=PATIENCE_S)
    assert stopped.json() == {"id": answer, "object": "conversation.answer", "stopped": True}
    assert not settled(server, id_)["busy"]
    assert httpx.delete(f"{server.url}/v1/conversations/{id_}/answers/{answer}", timeout=PATIENCE_S).status_code == 404


def test_a_question_sent_twice_with_one_key_is_asked_once(server: Server) -> None:
    id_ = begin(server, **SHORT)["id"]
    first = ask(server, id_, text="hi", key="one")
    assert ask(server, id_, text="hi", key="one").json() == first.json()
    assert len(settled(server, id_)["turns"]) == 2
    assert len(ask(server, id_, text="hi", key="x" * 65).text) and ask(server, id_, text="hi", key="x" * 65).status_code == 400


def test_a_cut_stream_goes_on_and_one_from_before_a_restart_reads_anew(served_home: Path) -> None:
    with serving(served_home) as server:
        id_ = begin(server, **SHORT)["id"]
        with listening(server) as heard:
            ask(server, id_, text="hi")
            wait_until(lambda: bool(heard.named("answer.ended")), "the end of the answer is told")
        ids = [one for one, name, _ in heard.events if one and name not in ("hello",)]
        cut = len(ids) // 2
        with listening(server, **{"Last-Event-ID": ids[cut]}) as again:
            wait_until(lambda: bool(again.named("answer.ended")), "the end of the answer is told again")
            assert [one for one, name, _ in again.events if name != "hello"] == ids[cut + 1 :]
    with serving(served_home) as server, listening(server, **{"Last-Event-ID": ids[cut]}) as later:
        wait_until(lambda: len(later.events) > 1, "something follows the hello")
        assert [name for _, name, _ in later.events] == ["hello", "reset"]
        assert later.named("hello") != heard.named("hello")
        for odd in ("nonsense", "-", "a-1", ids[0].split("-")[0] + "-99999999999999", "x" * 5000):
            assert server.get("/health").status_code == 200
            with listening(server, **{"Last-Event-ID": odd}) as other:
                wait_until(lambda other=other: len(other.events) > 1, "something follows the hello")
                assert other.named("reset") == [{}]


def opens(server: Server) -> bool:
    """Whether one more stream of updates may be read."""
    with httpx.stream("GET", f"{server.url}/v1/updates", timeout=PATIENCE_S) as response:
        return response.status_code == 200


def test_streams_have_a_limit_and_end_with_the_server(served_home: Path) -> None:
    server = start(served_home)
    clients = [httpx.Client(timeout=httpx.Timeout(PATIENCE_S, read=None)) for _ in range(MOST_STREAMS_EACH)]
    opened = [client.send(client.build_request("GET", f"{server.url}/v1/updates"), stream=True) for client in clients]
    assert all(one.status_code == 200 for one in opened)
    refused = server.get("/v1/updates")
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    opened[0].close()
    wait_until(lambda: opens(server), "the place of the closed stream is free")
    assert server.stop() == 0, "silent streams hold no server up"
    for client in clients:
        client.close()


def test_an_answer_goes_on_where_nobody_listens_and_is_read_as_far_as_it_is(server: Server) -> None:
    id_ = begin(server, settings={"max_tokens": 30_000, "temperature": 0})["id"]
    answer = ask(server, id_, text="hi").json()["id"]
    with listening(server) as heard:
        wait_until(lambda: len(heard.named("answer.delta")) > 2, "some pieces have come")
        end = read(server, id_)["end"]
        wait_until(lambda: len(heard.named("answer.delta")) > end["number"] + 2, "more pieces have come")
        assert httpx.delete(f"{server.url}/v1/conversations/{id_}/answers/{answer}", timeout=PATIENCE_S).status_code == 200
        wait_until(lambda: bool(heard.named("answer.ended")), "the end of the answer is told")
        later = "".join(one["text"] for one in heard.named("answer.delta") if one["number"] > end["number"])
    assert end["answer"] == answer and end["state"] == "writing" and end["text"]
    assert settled(server, id_)["turns"][1]["text"] == end["text"] + later


def test_an_answer_that_fails_says_why(server: Server) -> None:
    id_ = begin(server, settings={"model": "no-such-model"})["id"]
    with listening(server) as heard:
        assert ask(server, id_, text="hi").status_code == 202
        wait_until(lambda: bool(heard.named("answer.failed")), "the failure is told")
    [failed] = heard.named("answer.failed")
    assert "The model can't answer" in failed["note"] and failed["cures"][0]["id"] == "settings"
    assert read(server, id_)["end"] | {"answer": ""} == read(server, id_)["end"] | {"answer": "", "state": "failed", "note": failed["note"]}


def test_bad_questions_store_nothing(server: Server) -> None:
    id_ = begin(server, **SHORT)["id"]
    picture = "data:image/png;base64,iVBORw0KGgo="
    for body, param in (
        ({}, "text"), ({"text": " "}, "text"), ({"text": "a", "again": "x"}, "text"), ({"text": "x" * 400_001}, "message"),
        ({"text": 5}, "text"), ({"pictures": ["http://192.0.2.1/x.png"]}, "pictures[0]"), ({"pictures": [picture] * 5}, "pictures"),
        ({"text": "\ud800"}, "text"),
    ):  # fmt: skip
        wrong = ask(server, id_, **body)
        assert wrong.status_code == 400 and error_of(wrong)["param"] == param, (body, wrong.text)
    for body in ({"again": "nowhere"}, {"edits": "nowhere", "text": "hi"}):
        assert ask(server, id_, **body).status_code == 404
    assert patch(server, id_, leaf="nowhere").status_code == 404
    assert read(server, id_)["turns"] == [] and read(server, id_)["title"] == ""


def test_temporary_chats_have_a_limit_and_leave_nothing(served_home: Path) -> None:
    with serving(served_home) as server:
        made = [begin(server, temporary=True, **SHORT)["id"] for _ in range(MOST_TEMPORARY)]
        full = server.post("/v1/conversations", {"temporary": True})
        assert full.status_code == 429 and "temporary chats" in error_of(full)["message"]
        ask(server, made[0], text="a secret heron")
        assert settled(server, made[0])["turns"][1]["text"]
        assert server.get("/v1/conversations").json()["data"] == []
        assert httpx.delete(f"{server.url}/v1/conversations/{made[0]}", timeout=PATIENCE_S).json()["scrubbed"] is True
        begin(server, temporary=True)
        assert patch(server, made[1], settings={"top_p": 0.5}).json()["settings"] == {"top_p": 0.5}
    assert all(b"secret heron" not in path.read_bytes() for path in served_home.glob("ingle.db*"))


def test_nobody_reaches_the_conversations_of_others(tmp_path: Path, kept_home: Path) -> None:
    home = copied(kept_home, tmp_path / "home")
    ann, bob = (
        {"Authorization": f"Bearer {json.loads(ingle(home, 'home', 'keys', 'add', name, '--json').stdout)['key']}"}
        for name in ("ann", "bob")
    )
    with serving(home, *settings(require_key=True)) as server:
        kept, brief = (begin(server, ann, temporary=temporary, **SHORT)["id"] for temporary in (False, True))
        with listening(server, **bob) as overheard:
            asked = {id_: ask(server, id_, ann, text="mine alone").json() for id_ in (kept, brief)}
            for id_ in (kept, brief):
                wait_until(lambda id_=id_: not read(server, id_, "", ann)["busy"], "the answer has ended")
                path = f"/v1/conversations/{id_}"
                for response in (
                    server.get(path, bob), httpx.patch(server.url + path, json={"title": "stolen"}, headers=bob, timeout=PATIENCE_S),
                    httpx.delete(server.url + path, headers=bob, timeout=PATIENCE_S), ask(server, id_, bob, text="hi"),
                    ask(server, id_, bob, again=asked[id_]["question"]), server.get(path, {"Authorization": "Bearer x"}),
                    httpx.delete(f"{server.url}{path}/answers/{asked[id_]['id']}", headers=bob, timeout=PATIENCE_S),
                ):  # fmt: skip
                    assert response.status_code in (401, 404) and "ann" not in response.text and "mine" not in response.text
            assert server.get(f"/v1/conversations?after={kept}", bob).status_code == 404
            assert server.get("/v1/conversations?words=mine", bob).json()["data"] == []
            assert [name for _, name, _ in overheard.events] == ["hello"]
        assert len(read(server, kept, "", ann)["turns"]) == 2
        assert server.get("/v1/updates").status_code == 401 and server.get("/v1/visitor").status_code == 401
        who = server.get("/v1/visitor", ann).json()
        assert who["name"] == "ann" and who["may"] == {"guards": False, "pull": False} and who["bounds"]["temperature"] == [0, 2]


def curled(server: Server, words: str) -> httpx.Response:
    """What an example of the docs does, without the program that it names."""
    method, headers, data, url = "", {}, None, ""
    rest = iter(shlex.split(words)[1:])
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            headers = dict([next(rest).split(": ")])
        elif word == "-d":
            data = next(rest)
        elif not word.startswith("-"):
            url = word.replace("localhost:4645", server.url)
    return httpx.request(method or ("POST" if data else "GET"), url, headers=headers, content=data, timeout=PATIENCE_S)


def test_the_examples_of_the_docs(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text("utf-8")
    id_ = begin(server, settings={"max_tokens": 30_000, "temperature": 0})["id"]
    answer = ask(server, id_, text="hi").json()["id"]
    examples = re.findall(r"`(curl [^`]*)`", page)
    assert len(examples) == 9
    for example in examples:
        if example.endswith("/updates"):
            continue  # has no end: see above
        if example.endswith("answers/ANSWER"):  # the question before it was one too many
            assert read(server, id_)["busy"]
        response = curled(server, example.replace("ANSWER", answer).replace("ID", id_))
        assert response.status_code == (429 if "bread rise" in example else 200), (example, response.text)


def test_an_older_database_gets_pins_and_versions(tmp_path: Path) -> None:
    import sqlalchemy as sa

    url = f"sqlite:///{tmp_path / 'old.db'}"
    with open_database(url, {"turns": MIGRATIONS[:3]}).begin() as connection:
        connection.execute(sa.text("INSERT INTO conversations VALUES ('conv-1', '', 'Old', '', '{}', 'a', 'b')"))
    with open_database(url, {"turns": MIGRATIONS}).connect() as connection:
        assert connection.execute(sa.text("SELECT title, pinned, version FROM conversations")).one() == ("Old", 0, 1)
