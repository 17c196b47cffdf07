"""Every refusal is a fact, by whichever door; a flood of them fills no ledger; and no fact holds a word of a request."""

from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ingle.app.facts import field_fact
from ingle.core.errors import RequestError
from ingle.core.report import Event
from ingle.serve import refusals as module
from ingle.serve.refusals import FREE, Refusals
from tests.cli.place import ingle
from tests.clocks import HandClock
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S, wait_until


def test_a_flood_is_counted_and_told_in_one_fact_for_each_asker() -> None:
    told, hand = list[Event](), HandClock()
    refusals = Refusals(told.append, hand.clock)
    for _ in range(2236):
        refusals.answered({}, "/v1/x", 400, "a")
    refusals.answered({}, "/v1/x", 403, "b")
    assert len(told) == FREE + 1 and told[-1].facts == {"status": 403, "key": "b"}
    hand.move(module.BURST_S + 1)
    refusals.sweep()
    assert told[-1].facts == {"times": 2236 - FREE, "key": "a"}
    refusals.answered({}, "/v1/x", 400, "a")
    assert told[-1].facts == {"status": 400, "key": "a"}, "later ones have facts of their own again"


def test_many_askers_share_a_count() -> None:
    told = list[Event]()
    refusals = Refusals(told.append, HandClock().clock)
    for number in range(module.MOST_ASKERS + 1000):
        refusals.answered({}, "/v1/x", 400, f"key-{number}")
    assert len(told) <= module.MOST_ASKERS + FREE
    refusals.sweep(now=True)
    assert told[-1].facts == {"times": 1000 - FREE, "key": "others"}


def test_what_is_told_elsewhere_or_no_refusal_is_not_told() -> None:
    told = list[Event]()
    refusals = Refusals(told.append, HandClock().clock)
    for status in (200, 101, 304, 499, 500):
        refusals.answered({}, "/v1/x", status, "")
    refusals.answered({}, "", 404, "")
    error = RequestError("messages", "must be kind")
    error.told = True
    refusals.refused("/v1/x", error, "")
    assert told == []
    assert field_fact("messages[0].content") == "messages[0].content" and field_fact("my secret") == ""


@pytest.fixture
def keyed(served_home: Path) -> "tuple[Path, str, str]":
    first, second = (ingle(served_home, "key", "add", name).stdout.strip() for name in ("first", "second"))
    return served_home, first, second


def test_each_door_tells_of_what_it_refuses(keyed: "tuple[Path, str, str]") -> None:
    home, first, second = keyed
    with serving(home, "--set", "serve.require_key=true", "--set", "serve.body_bytes=100000") as server:
        bearer, sounds = {"Authorization": f"Bearer {first}"}, server.url + "/v1/audio/transcriptions"
        stored = server.chat(headers={"Authorization": f"Bearer {second}"}, store=True).json()["id"]
        doors: list[tuple[str, int, httpx.Response]] = [
            ("a right", 403, server.get("/metrics", bearer)),
            ("another's id", 404, server.get(f"/v1/responses/{stored}", bearer)),
            ("another's fact", 404, server.get("/v1/events/1/proof", bearer)),
            ("a sound", 400, httpx.post(sounds, files={"file": ("a", b"no sound")}, headers=bearer, timeout=PATIENCE_S)),
            ("a picture", 400, server.chat(bearer, bearer, messages=picture())),
            ("a body", 400, server.post("/v1/chat/completions", b"{", bearer)),
            ("a type", 400, server.chat("a-secret-word", bearer, temperature="secret")),
            ("a model", 404, server.chat("hi", bearer, model="nobody")),
            ("too much", 413, server.post("/v1/chat/completions", bytes(100_001), bearer)),
            ("a wrong key", 401, server.chat("hi", {"Authorization": "Bearer ingle-wrong"})),
            ("no key", 401, server.chat("hi")),
            ("an origin", 403, server.chat("hi", {**bearer, "Origin": "https://elsewhere.example"})),
            ("a host", 403, server.get("/v1/models", {**bearer, "Host": "elsewhere.example"})),
        ]  # fmt: skip
        for name, status, response in doors:
            assert response.status_code == status, (name, response.text)
        for headers in ({"Origin": "https://elsewhere.example"}, {"Authorization": "Bearer ingle-wrong"}):
            with (
                pytest.raises(InvalidStatus),
                connect(server.url.replace("http", "ws") + "/v1/realtime", additional_headers=headers, open_timeout=PATIENCE_S),
            ):
                pass
        wait_until(lambda: len(server.facts("refuse")) >= len(doors) + 2, "each refusal is a fact")
        facts = server.facts("refuse")
        assert len(facts) == len(doors) + 2, "one for each, none twice"
        said = str([(row.subject, dict(row.values)) for row in facts])
        assert "secret" not in said and "elsewhere" not in said and stored not in said
        known = [row for row in facts if row.values.get("key")]
        assert len(known) == 8, "those that a known key asked for name it; bodies are refused before a key is looked at"
        assert {row.values.get("status") for row in facts if "status" in row.values} == {400, 401, 403, 404, 413}
        assert "refused a request" in ingle(home, "log", "--kind", "refuse").stdout


def picture() -> list[object]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]}]


def test_a_flood_leaves_few_facts(served_home: Path) -> None:
    with serving(served_home) as server:
        for _ in range(FREE + 25):
            assert server.post("/v1/chat/completions", b"{").status_code == 400
    facts = Server.facts(server, "refuse")
    assert len(facts) == FREE + 1 and facts[-1].values["times"] == 25, "what was only counted is told at the end"
