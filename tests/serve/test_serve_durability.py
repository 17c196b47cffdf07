"""Whatever happens to the process, the disk, the database or the model: what a client was told stands, and the server comes back."""

import json
import random
import resource
import shutil
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ingle.app.answer_key import answer_key
from ingle.app.facts import answer_digest
from ingle.app.house import open_rooms
from ingle.home.place import Home
from ingle.home.turns import find_completion
from ingle.ledger.chain import Ledger
from tests.cli.place import ingle
from tests.serve.servers import Server, dial, error_of, facts_in, request, serving, settings, start, write_long_model
from tests.serve.test_serve_operation import figures
from tests.waiting import PATIENCE_S, for_a_while, wait_until

pytestmark = pytest.mark.journey

LONG: dict[str, Any] = {"repeat_limit": 0, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 30_000, "seed": 1}
GRACE = settings(grace_s=3600, deadline_s=86400)
OVER = "grace-is-over"
BY_HAND = f"""
import os, time, types, ingle.engine.scheduler as scheduler
over = os.environ["INGLE_HOME"] + "/{OVER}"
scheduler.time = types.SimpleNamespace(perf_counter=lambda: time.perf_counter() + 3600 * os.path.exists(over))
"""
"""An hour of grace, which is over when there is such a file in the home."""


@dataclass
class Told:
    """What clients were told before the connection broke."""

    finished: dict[str, str] = field(default_factory=dict)
    """By id: the whole text of answers whose end was seen."""
    refused: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, server: Server, number: int, rest: threading.Event) -> None:
        """Asks again and again, streaming or not, until the server is gone."""
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not rest.is_set():
                number += 1000
                body = {
                    "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": number % 60 + 1, "seed": number,
                    "store": number % 2 == 0, "stream": number % 3 == 0,
                }  # fmt: skip
                try:
                    response = client.post(f"{server.url}/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                if response.status_code != 200:
                    self.refused.append(response.status_code)
                elif not body["stream"]:
                    table = response.json()
                    self._tell(table["id"], table["choices"][0]["message"]["content"])
                elif response.text.endswith("data: [DONE]\n\n"):
                    tables = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
                    self._tell(tables[0]["id"], "".join(choice["delta"].get("content", "") for t in tables for choice in t["choices"]))

    def _tell(self, name: str, text: str) -> None:
        with self.lock:
            self.finished[name] = text


def check_nothing_is_lost(home: Home, told: Told) -> None:
    """The chain is whole, and every answer that a client saw finished is in it; kept ones with their words."""
    key, engine = answer_key(home), open_rooms(home)
    try:
        result = Ledger(engine, home.keys).verify()
        assert result.problem is None
        facts = {row.values.get("id"): row.values for row in facts_in(home, "answer")}
        for name, text in told.finished.items():
            assert facts[name]["answer"] == answer_digest(key, text)
            turn = find_completion(engine, "", name)
            assert turn is None or turn.message.text == text
    finally:
        engine.dispose()


def test_killed_at_any_moment_it_loses_nothing_that_was_told(served_home: Path) -> None:
    draw, home = random.Random(4), Home(served_home)
    told = Told()
    for _ in range(8):
        server = start(served_home)
        rest = threading.Event()
        with ThreadPoolExecutor(6) as pool:
            asking = [pool.submit(told.ask, server, number, rest) for number in range(6)]
            enough = len(told.finished) + draw.randrange(1, 20)
            wait_until(lambda: len(told.finished) >= enough, "enough were told")  # noqa: B023
            for_a_while(draw.uniform(0, 0.05))  # killed at any moment
            server.kill()
            rest.set()
        for one in asking:
            one.result()
        check_nothing_is_lost(home, told)
    assert not told.refused
    with serving(served_home) as server:
        assert server.chat().status_code == 200
        kept = [name for name in told.finished if server.get(f"/v1/responses/{name}").status_code == 200]
        assert len(kept) == len([row for row in server.answers() if row.values["id"] in kept])
        assert kept


def test_told_to_stop_it_lets_short_answers_finish_and_ends_long_ones_cleanly(served_home: Path) -> None:
    server = start(served_home, *GRACE, before=BY_HAND)
    with ThreadPoolExecutor(8) as pool:
        long = [pool.submit(server.post, "/v1/chat/completions", LONG | {"stream": True, "seed": seed}) for seed in range(2)]
        whole = pool.submit(server.post, "/v1/chat/completions", LONG)
        short = pool.submit(server.post, "/v1/chat/completions", LONG | {"stream": True, "max_tokens": 2000})
        wait_until(lambda: server.health()["running"] >= (3 if short.done() else 4), "all four have come in")
        server.process.send_signal(signal.SIGTERM)  # told once: told twice, it waits for nobody
        assert short.result().status_code == 200
        (served_home / OVER).touch()
        assert server.process.wait(PATIENCE_S) == server.stop() == 0
        for one in (*long, short):
            lines = [line[6:] for line in one.result().text.splitlines() if line.startswith("data: ")]
            assert lines[-1] == "[DONE]" and json.loads(lines[-2])["choices"][0]["finish_reason"] == "length"
        assert whole.result().json()["choices"][0]["finish_reason"] == "length"
    assert "Traceback" not in server.log and "ERROR" not in server.log
    facts = [row.values for row in facts_in(Home(served_home), "answer")]
    assert sorted(fact["finish"] for fact in facts) == ["cancelled"] * 3 + ["length"]


def test_while_it_stops_newcomers_are_sent_away(served_home: Path) -> None:
    server = start(served_home, *GRACE, before=BY_HAND)
    stays_open = httpx.Limits(keepalive_expiry=None)
    with httpx.Client(timeout=PATIENCE_S, limits=stays_open) as client, ThreadPoolExecutor(1) as pool:
        assert client.get(f"{server.url}/health").status_code == 200
        running = pool.submit(server.post, "/v1/chat/completions", LONG)
        wait_until(lambda: server.health()["running"] == 1, "an answer is being written")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not listens(server), "nobody can connect any more")

        def sent_away() -> httpx.Response | None:
            response = client.post(f"{server.url}/v1/chat/completions", json=LONG | {"max_tokens": 1})
            return response if response.status_code != 200 else None

        response = wait_until(sent_away, "who is connected is sent away")
        assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
        assert error_of(response)["type"] == "unavailable_error"
        assert not listens(server) and not running.done()
        (served_home / OVER).touch()
        assert running.result().status_code == 200
        assert server.process.wait(PATIENCE_S) == server.stop() == 0


def listens(server: Server) -> bool:
    """Whether a new connection is answered."""
    try:
        return server.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_told_twice_it_waits_for_nobody(served_home: Path) -> None:
    server = start(served_home, *GRACE)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.post, "/v1/chat/completions", LONG | {"stream": True})
        wait_until(lambda: server.health()["running"] == 1, "an answer is being written")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: not listens(server), "it has heard the first")
        assert server.stop(signal.SIGINT) == 0
        assert running.result().text.endswith("data: [DONE]\n\n")
    assert "Traceback" not in server.log
    assert [row.values["finish"] for row in facts_in(Home(served_home), "answer")] == ["cancelled"]


def test_sixty_at_once_are_answered_or_sent_away_and_none_is_lost(served_home: Path) -> None:
    """Of four places one client has three, and of eight in the queue six."""
    import openai

    with serving(served_home, *settings(places=4, queue=8)) as server, ThreadPoolExecutor(63) as pool:
        leave = threading.Event()
        ahead = [pool.submit(read_until, leave, server, LONG | {"stream": True, "seed": seed}) for seed in range(3)]
        wait_until(lambda: server.health()["running"] == 3, "all places of one client are taken")
        asked = [pool.submit(server.chat, f"number {i}", max_tokens=80, seed=i) for i in range(60)]
        wait_until(lambda: sum(one.done() for one in asked) + server.health()["queued"] == 60, "all have come in")
        with pytest.raises(openai.RateLimitError) as refused:
            server.openai().completions.create(model="tiny", prompt="x", max_tokens=300)
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert not any(one.done() for one in ahead)
        leave.set()
        responses = [one.result() for one in asked]
        codes = [response.status_code for response in responses]
        assert codes.count(200) == 6 and codes.count(429) == 54
        for response in responses:
            if response.status_code == 429:
                assert int(response.headers["retry-after"]) >= 1 and error_of(response)["type"] == "rate_limit_error"
            else:
                assert response.json()["usage"]["completion_tokens"] == 80
        server.idle()
        wait_until(lambda: len(server.answers()) >= 9, "those who left are recorded, too")
        assert sorted(row.values["finish"] for row in server.answers()) == ["cancelled"] * 3 + ["length"] * 6
        patient = server.openai(retries=1000)
        waiting = [pool.submit(patient.chat.completions.create, model="tiny", messages=LONG["messages"], max_tokens=20) for _ in range(15)]
        assert all(one.result().usage for one in waiting)


def read_until(leave: threading.Event, server: Server, body: dict[str, Any]) -> None:
    """Reads an answer as it is written, and hangs up when `leave` is set."""
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S) as response:
        for _ in response.iter_lines():
            if leave.is_set():
                return


BUSY = "import ingle.home.database as database; database.BUSY_TIMEOUT_S = {}"


def written(server: Server) -> float:
    """How many whole answers it has counted; their facts come then."""
    return figures(server).get("ingle_answers_total length", 0)


@contextmanager
def locked(home: Path) -> Any:
    """Another process' lock on the database, as a backup or a shell would hold it."""
    connection = sqlite3.connect(home / "ingle.db", PATIENCE_S, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_database_that_is_locked_is_waited_for_then_said_then_used_again(served_home: Path) -> None:
    with serving(served_home, before=BUSY.format(600)) as server, ThreadPoolExecutor(1) as pool:
        with locked(served_home):
            waiting = pool.submit(server.chat)
            wait_until(lambda: written(server) == 1, "the answer is written, but for its fact")
            for_a_while(0.3)
            assert not waiting.done() and server.health()["status"] == "ok"
        assert waiting.result().status_code == 200
        assert server.stop() == 0
    with serving(served_home, before=BUSY.format(0.7)) as server, ThreadPoolExecutor(3) as pool:
        assert server.chat().status_code == 200
        with locked(served_home):
            plain, streamed, kept = pool.submit(server.chat), pool.submit(server.chat, stream=True), pool.submit(server.chat, store=True)
            for one in (plain, kept):
                assert one.result().status_code == 503 and "locked" in error_of(one.result())["message"]
            assert "[DONE]" not in streamed.result().text and '"finish_reason":"length"' not in streamed.result().text
            assert json.loads(streamed.result().text.strip().splitlines()[-1][6:])["error"]["type"] == "unavailable_error"
        before = len(server.answers())
        assert server.chat().status_code == 200 and len(server.answers()) == before + 1
        assert server.stop() == 0
    assert ingle(served_home, "verify").stdout.startswith("The ledger is whole")


def test_a_full_disk_is_said_and_nothing_is_told_that_does_not_stand(served_home: Path) -> None:
    with serving(served_home) as server:
        first = server.chat("before", store=True).json()
        pid, limit = server.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        largest = max(path.stat().st_size for path in served_home.glob("ingle.db*"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limit))  # the database's log can't grow, as on a full disk
        try:
            told = [server.chat(f"number {i}", store=i % 2 == 0, stream=i == 3) for i in range(4)]
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
        assert largest > 4096
        for response in told[:3]:
            assert response.status_code == 503 and error_of(response)["type"] == "unavailable_error", response.text
        assert "[DONE]" not in told[3].text and "unavailable_error" in told[3].text
        assert server.chat("after", store=True).status_code == 200
        assert server.openai().responses.retrieve(first["id"]).output_text
        assert len(server.answers()) == 2
        assert server.stop() == 0
    assert ingle(served_home, "verify").stdout.startswith("The ledger is whole")


def test_a_client_that_goes_while_its_fact_is_written_stops_nobody(served_home: Path) -> None:
    with serving(served_home, before=BUSY.format(600)) as server, ThreadPoolExecutor(3) as pool:
        with locked(served_home):
            hasty = [dial(server) for _ in range(5)]
            for wire in hasty:
                wire.sendall(request(server, json.dumps(LONG | {"max_tokens": 3}).encode()))
            wait_until(lambda: written(server) == 5, "their answers are written, but for the facts")
            for wire in hasty:
                wire.close()
            patient = [pool.submit(server.chat) for _ in range(3)]
            wait_until(lambda: written(server) == 8, "so are those of others")
            assert not any(one.done() for one in patient)
        assert [one.result().status_code for one in patient] == [200] * 3
        assert server.chat().status_code == 200
        assert [row.values["finish"] for row in server.answers()] == ["length"] * 9


def test_a_model_whose_files_vanish_answers_on(served_home: Path) -> None:
    with serving(served_home) as server, ThreadPoolExecutor(1) as pool:
        alone = server.chat(max_tokens=2000).json()["choices"]
        running = pool.submit(server.chat, max_tokens=2000)
        wait_until(lambda: server.health()["running"] == 1 or running.done(), "an answer is being written")
        shutil.rmtree(served_home / "packs")
        shutil.rmtree(served_home / "bases")
        assert running.result().json()["choices"] == alone
        assert server.chat(max_tokens=2000).json()["choices"] == alone
        assert server.stop() == 0


def test_a_model_that_is_let_go_or_pulled_anew_changes_between_two_answers(served_home: Path, tmp_path: Path) -> None:
    other = write_long_model(tmp_path / "models" / "other")
    weights = load_file(other / "model.safetensors")
    save_file(weights | {"model.norm.weight": weights["model.norm.weight"] * np.float32(2)}, other / "model.safetensors")
    with serving(served_home) as server, ThreadPoolExecutor(1) as pool:
        before = server.chat(max_tokens=3000).json()
        running = pool.submit(server.chat, max_tokens=3000)
        wait_until(lambda: server.health()["running"] == 1 or running.done(), "an answer is being written")
        ingle(served_home, "rm", "tiny")
        assert running.result().json()["choices"] == before["choices"]
        gone = server.chat(model="tiny")
        assert gone.status_code == 404 and error_of(gone)["code"] == "model_not_found"
        assert server.get("/v1/models").json()["data"] == [] and server.chat().status_code == 404
        ingle(served_home, "pull", str(other), "--name", "tiny")
        after = server.chat(max_tokens=100).json()
        assert after["ingle"]["model_digest"] != before["ingle"]["model_digest"]
        assert server.answers()[-1].values["model"] == after["ingle"]["model_digest"]
        ingle(served_home, "pull", str(other), "--name", "second")
        assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["tiny", "second"]
        assert server.chat(model="second").status_code == 200
