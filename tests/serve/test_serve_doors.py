"""The doors of a server: who sees its figures, what wrong keys cost, whether it says that it can't answer, and what its log looks like."""

import asyncio
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from ingle.core.errors import Busy
from ingle.core.report import Event
from ingle.serve import wrong_keys
from ingle.serve.health import PATIENCE_S, Health
from ingle.serve.service import Service
from ingle.serve.wrong_keys import WrongKeys
from tests.cli.place import ingle
from tests.clocks import HandClock
from tests.serve.conftest import copied
from tests.serve.servers import Server, answer_on, dial, error_of, head, serving, settings
from tests.serve.test_serve_keys import add, bearer
from tests.waiting import wait_until

NEEDS = settings(require_key=True)
WEBSOCKET = "/v1/voice?tab=x"
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
WRONG = bearer("ingle-" + "x" * 43)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[tuple[Server, str]]:
    """A server with a page that wants keys, and one of them."""
    home = copied(kept_home, tmp_path_factory.mktemp("doors") / "home")
    key = add(home, "ann")
    with serving(home, "--page", *NEEDS) as server:
        yield server, key


def test_figures_of_the_whole_server_are_for_its_owner_and_keys_with_that_right(keyed: tuple[Server, str], server: Server) -> None:
    running, key = keyed
    refused = running.get("/metrics", bearer(key))
    assert refused.status_code == 403 and error_of(refused)["type"] == "permission_error"
    assert "ingle home keys add NAME --metrics" in error_of(refused)["message"]
    assert running.get("/metrics").status_code == 401
    seer = add(running.home.root, "prometheus", "--metrics")
    assert "ingle_requests_total" in running.get("/metrics", bearer(seer)).text
    assert running.chat(headers=bearer(key)).status_code == 200
    assert server.get("/metrics").status_code == 200, "where no key is needed, whoever is on this machine owns it"
    assert server.get("/metrics", bearer(add(server.home.root, "guest"))).status_code == 403


def test_a_right_stands_in_the_list_and_in_the_ledger(served_home: Path) -> None:
    add(served_home, "prometheus", "--metrics")
    add(served_home, "plain")
    assert [key["metrics"] for key in json.loads(ingle(served_home, "key", "list", "--json").stdout)] == [True, False]
    facts = [json.loads(line) for line in ingle(served_home, "log", "--json", "--kind", "key.add").stdout.splitlines()]
    assert [fact["facts"]["metrics"] for fact in facts] == [True, False]
    told = ingle(served_home, "key", "list", "--metrics", code=2)
    assert "No such option: --metrics" in told.stderr, "only a new key can be given it"


def test_keys_made_before_there_was_that_right_lack_it(served_home: Path) -> None:
    import sqlite3

    secret = add(served_home, "old")
    with sqlite3.connect(served_home / "ingle.db") as database:
        for column in ("metrics", "guards"):
            database.execute(f"ALTER TABLE api_keys DROP COLUMN {column}")
        database.execute("DELETE FROM schema_version WHERE room = 'api_keys' AND number >= 2")
    database.close()
    with serving(served_home, *NEEDS) as server:
        assert server.chat(headers=bearer(secret)).status_code == 200
        assert server.get("/metrics", bearer(secret)).status_code == 403


def test_two_hosts_are_refused(server: Server) -> None:
    host, port = server.address
    for hosts in ([f"{host}:{port}", "evil.example"], ["evil.example", f"{host}:{port}"], [f"{host}:{port}"] * 2):
        with dial(server) as wire:
            wire.sendall(head(server, "/health", "GET", [f"Host: {one}" for one in hosts]) + b"\r\n")
            status, _, body = answer_on(wire)
            assert status == 400 and json.loads(body)["error"]["message"] == "Host: must be given once."


def upgraded(server: Server, headers: list[str]) -> int:
    """The status of a handshake."""
    with dial(server) as wire:
        wire.sendall(head(server, WEBSOCKET, "GET", [*UPGRADE, f"Origin: {server.url}", *headers]) + b"\r\n")
        return int(wire.recv(100).split()[1])


def test_a_tabs_connection_needs_the_sign_in_before_it_is_opened(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        assert client.post("/sign-in", data={"key": key}).status_code == 303
        cookie = client.cookies["ingle_sign_in"]
        mine = f"Cookie: ingle_sign_in={cookie}"
        for stranger in ([], ["Cookie: ingle_sign_in=x"], [f"{mine}x"], [f"Authorization: Bearer {key}"]):
            assert upgraded(server, stranger) == 403, stranger
        assert server.get("/v1/updates").status_code == 401
        assert upgraded(server, [mine]) == 101
        client.post("/sign-out")
        assert upgraded(server, [mine]) == 403


def test_wrong_keys_are_slowed_and_told_once_and_good_ones_are_not(served_home: Path) -> None:
    """Three are answered at once; the fourth waits for a thousand seconds; whoever would wait for two thousand is sent away."""
    key = add(served_home, "ann")
    slow = "import ingle.serve.wrong_keys as keys; keys.FREE, keys.PAUSE_S, keys.MOST_WAIT_S = 3, 1000, 1500"
    with serving(served_home, "--page", *NEEDS, before=slow) as server:
        codes = [httpx.post(f"{server.url}/sign-in", data={"key": f"ingle-{i}"}, timeout=PATIENCE_S).status_code for i in range(2)]
        assert [*codes, server.get("/v1/models", WRONG).status_code] == [401] * 3, "the page's form and the API are counted together"
        with dial(server) as waiting:
            waiting.sendall(head(server, "/v1/models", "GET", [f"{name}: {value}" for name, value in WRONG.items()]) + b"\r\n")
            wait_until(lambda: server.facts("key.wrong"), "the fourth is slowed, and told")
            sent_away = server.get("/v1/models", WRONG)
            assert sent_away.status_code == 429 and int(sent_away.headers["retry-after"]) > 1000
            assert "Too many wrong keys" in error_of(sent_away)["message"]
            assert "Too many wrong keys" in httpx.post(f"{server.url}/sign-in", data={"key": "x"}, timeout=PATIENCE_S).text
            assert server.get("/v1/models", bearer(key)).status_code == 200
            assert httpx.post(f"{server.url}/sign-in", data={"key": key}, timeout=PATIENCE_S).status_code == 303
            waiting.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)
        assert len(server.facts("key.wrong")) == 1
        assert set(server.facts("key.wrong")[0].values) == {"tries", "addresses"}
        assert json.loads(next(line for line in server.log.splitlines() if '"wrong keys"' in line))["address"] == "127.0.0.1"
    assert "wrong API keys were tried" in ingle(served_home, "log", "--kind", "key.wrong").stdout


def test_slowed_keys_are_answered_one_in_a_pause() -> None:
    async def run() -> None:
        hand = HandClock()
        keys, answered = WrongKeys(lambda _: None, clock=hand.clock), list[float]()

        async def tried() -> None:
            await keys.slow("192.0.2.1")
            answered.append(hand.time)

        at_once = [asyncio.create_task(tried()) for _ in range(wrong_keys.FREE)]
        await asyncio.gather(*at_once)
        slowed = [asyncio.create_task(tried()) for _ in range(5)]
        await hand.settle()
        for _ in slowed:
            hand.move(wrong_keys.PAUSE_S)
            await hand.settle()
        assert answered == [0.0] * wrong_keys.FREE + [wrong_keys.PAUSE_S * n for n in range(1, 6)]

    asyncio.run(run())


def test_a_flood_of_wrong_keys_fills_neither_memory_nor_ledger_nor_stops_others() -> None:
    facts: list[Event] = []
    hand = HandClock()
    keys = WrongKeys(facts.append, clock=hand.clock)
    waits = [keys.wrong("192.0.2.1") for _ in range(1000)]
    assert waits[: wrong_keys.FREE] == [0.0] * wrong_keys.FREE and waits[wrong_keys.FREE] == wrong_keys.PAUSE_S
    assert max(waits) <= wrong_keys.MOST_WAIT_S + wrong_keys.PAUSE_S, "who is sent away makes nobody wait longer"
    assert keys.wrong("192.0.2.2") == 0.0
    for number in range(20_000):
        for _ in range(2):
            keys.wrong(f"2001:db8:{number:x}::1")
    assert len(keys._due) <= wrong_keys.MOST_ADDRESSES and len(keys._slowed) <= wrong_keys.MOST_ADDRESSES
    assert len(facts) == 1
    house = [keys.wrong(f"2001:db8:ffff:1::{number:x}") for number in range(100)]
    assert house[-1] > 0, "one house has one network, and 2^64 addresses"
    hand.move(wrong_keys.FACT_S)
    for _ in range(100):
        keys.wrong("192.0.2.9")
    assert [fact.kind for fact in facts] == ["key.wrong"] * 2 and facts[1].facts["tries"] > 41_000
    hand.move(wrong_keys.MOST_WAIT_S + wrong_keys.FREE)
    assert keys.wrong("192.0.2.9") == 0.0, "after a while all is as it was"
    assert [keys.wrong(odd) for odd in ("", "testclient", "fe80::1%eth0", "::ffff:192.0.2.77")] == [0.0] * 4


def test_whoever_would_wait_too_long_is_sent_away() -> None:
    keys = WrongKeys(lambda _: None, clock=HandClock().clock)
    while keys.wrong("192.0.2.1") <= wrong_keys.MOST_WAIT_S:
        pass
    with pytest.raises(Busy, match="Too many wrong keys"):
        asyncio.run(keys.slow("192.0.2.1"))


def health(server: Server) -> tuple[int, str]:
    response = server.get("/health")
    return response.status_code, response.json()["status"]


def test_health_says_that_nothing_can_be_recorded_and_when_it_can_again(served_home: Path) -> None:
    with serving(served_home) as server:
        assert server.chat().status_code == 200 and health(server) == (200, "ok")
        pid, limit = server.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limit))  # the database's log can't grow, as on a full disk
        assert server.chat().status_code == 503
        assert [health(server) for _ in range(3)] == [(503, "can't record")] * 3
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
        # Without an answer in between: nobody sends requests to a sick server.
        wait_until(lambda: health(server) == (200, "ok"), "it can be recorded again")
        before = len(server.answers())
        assert server.chat().status_code == 200 and len(server.answers()) == before + 1
    assert "The ledger is whole" in ingle(served_home, "verify").stdout


def test_health_says_that_a_ledger_has_lost_rows(served_home: Path) -> None:
    import sqlite3

    with serving(served_home) as server:
        server.chat()
        with sqlite3.connect(served_home / "ingle.db") as database:
            database.execute("DELETE FROM ledger WHERE kind = 'answer'")
        database.close()
        assert server.chat().status_code == 500 and health(server) == (503, "can't record")
        ingle(served_home, "verify", "--accept-loss")
        wait_until(lambda: health(server) == (200, "ok"), "it can be recorded again")
        assert server.chat().status_code == 200


def test_health_looks_before_anybody_asks_where_space_is_scarce(served_home: Path) -> None:
    scarce = "import ingle.serve.health as health; health.SCARCE_BYTES = 1 << 62"
    with serving(served_home, before=scarce) as server:
        assert health(server) == (200, "ok")
        pid, limit = server.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limit))
        wait_until(lambda: health(server) == (503, "can't record"), "the trial's good result is too old")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))


def test_without_memory_an_answer_is_a_503_and_health_says_so(served_home: Path) -> None:
    """The engine asks for what no machine has, as where other programs left nothing."""
    lacking = """
import numpy as np, ingle.engine.scheduler as scheduler
start = scheduler.Scheduler._start
def starving(self, job):
    import os
    if not os.path.exists(os.environ["INGLE_HOME"] + "/starving"): return start(self, job)
    job.needed_bytes = 1 << 55
    np.empty(job.needed_bytes, np.uint8)
scheduler.Scheduler._start = starving
"""
    with serving(served_home, before=lacking) as server:
        assert server.chat().status_code == 200 and health(server) == (200, "ok")
        (served_home / "starving").touch()
        response = server.chat()
        assert response.status_code == 503 and "no memory left" in error_of(response)["message"], response.text
        assert health(server) == (503, "no memory")
        assert "bug" not in response.text and "Traceback" not in server.log


def test_health_is_not_held_up_by_a_database_that_is_locked(served_home: Path) -> None:
    import sqlite3

    shorter = "import ingle.home.database as database; database.BUSY_TIMEOUT_S = 1"
    with serving(served_home, before=shorter) as server:
        connection = sqlite3.connect(served_home / "ingle.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        assert server.chat().status_code == 503
        assert health(server) == (503, "can't record")
        threads = [threading.Thread(target=server.get, args=("/health",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        connection.execute("ROLLBACK")
        connection.close()
        for thread in threads:
            thread.join()
        wait_until(lambda: health(server) == (200, "ok"), "the lock is gone")


def test_health_waits_for_a_trial_as_long_as_its_patience_and_no_longer() -> None:
    async def run() -> None:
        hand, gate = HandClock(), asyncio.Event()

        async def do(_asker: str, _work: object) -> bool:
            await gate.wait()
            return True

        doors = SimpleNamespace(do=do)
        health = Health(cast(Service, SimpleNamespace(clock=hand.clock, slow=SimpleNamespace(doors=doors))))
        first = asyncio.create_task(health._can_record())
        await hand.settle()
        assert hand.waits == [PATIENCE_S] and not first.done()
        hand.move(PATIENCE_S)
        assert not await first, "a trial that takes too long has failed"
        gate.set()
        await hand.settle()
        assert await health._can_record(), "it went on for those who ask next"

    asyncio.run(run())


def test_lines_of_the_log_stay_whole_when_threads_write_at_once() -> None:
    writing = (
        "import sys, threading; from ingle.serve.logs import log; sys.setswitchinterval(1e-6)\n"
        "def write(n):\n    for i in range(500): log('line', {'n': n, 'i': i})\n"
        "threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]"
    )
    said = subprocess.run([sys.executable, "-c", writing], capture_output=True, text=True, check=True).stderr
    lines = [json.loads(line) for line in said.splitlines()]
    assert sorted((line["n"], line["i"]) for line in lines) == [(n, i) for n in range(4) for i in range(500)]


def test_every_line_of_the_log_is_json_whatever_breaks_and_holds_no_words(served_home: Path) -> None:
    """Errors in routes, tasks, threads and the engine; warnings; what libraries log."""
    breaking = """
import logging, threading, warnings
def breaks(where):
    raise RuntimeError("Zyzzogeton was said " + where)
import ingle.serve.models as models
@models.router.get("/break/{how}")
async def broken(how: str):
    import asyncio
    if how == "thread": threading.Thread(target=breaks, args=("in a thread",)).start()
    elif how == "task": asyncio.get_running_loop().call_soon(breaks, "in a call")
    elif how == "warning": warnings.warn("two\\nlines")
    elif how == "library": logging.getLogger("elsewhere").warning("something with\\nlines")
    else: breaks("in a route")
"""
    with serving(served_home, "--page", before=breaking) as server:
        for how in ("thread", "task", "warning", "library", "route"):
            assert server.get(f"/break/{how}").status_code == (500 if how == "route" else 200)
        with dial(server) as wire:
            wire.sendall(b"nonsense\r\n\r\n")
        wait_until(lambda: server.log.count("RuntimeError") == 3 and "elsewhere" in server.log, "the log has all errors")
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines()]
    assert all({"at", "event"} <= set(line) for line in lines) and "Zyzzogeton" not in server.log
    errors = [line for line in lines if line.get("error") == "RuntimeError"]
    assert len(errors) == 3 and all("<string>:" in line["place"] and "breaks" in line["place"] for line in errors)
    assert [line["message"] for line in lines if line.get("from") == "elsewhere"] == ["something with"]
