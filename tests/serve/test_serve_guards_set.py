"""`/v1/guards`: whoever may, sets a guard, in policy.toml; it acts from the next request on, also where the file was changed elsewhere."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, error_of, serving
from tests.waiting import PATIENCE_S, wait_until

CARD = "My card is 4111 1111 1111 1111."
POLICY = """# The house of the Millers.
[guards]
control_tokens = "off"   # noise

[guards.models.other]
pii = "tell"

[guards.keys.children]
pii = "block"   # always
"""
Keys = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[tuple[Server, Keys]]:
    home = copied(kept_home, tmp_path_factory.mktemp("set") / "home")
    options: dict[str, list[str]] = {"guest": [], "children": [], "head": ["--guards"]}
    secrets = {name: json.loads(ingle(home, "key", "add", name, "--json", *more).stdout)["key"] for name, more in options.items()}
    (home / "policy.toml").write_text(POLICY)
    with serving(home) as server:
        yield server, {"owner": {}, **{name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}}


@pytest.fixture
def house(keyed: tuple[Server, Keys]) -> Iterator[tuple[Server, Keys]]:
    """The same server, with the policy as it was."""
    keyed[0].home.policy.write_text(POLICY)
    yield keyed
    keyed[0].home.policy.write_text(POLICY)


def put(server: Server, who: dict[str, str], guard: str, body: Any) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.put(
        f"{server.url}/v1/guards/{guard}", headers={"Content-Type": "application/json", **who}, content=data, timeout=PATIENCE_S
    )


def rows(server: Server, who: dict[str, str]) -> dict[str, dict[str, Any]]:
    listed = server.get("/v1/guards", who)
    assert listed.status_code == 200 and listed.json()["object"] == "list"
    return {row["guard"]: row for row in listed.json()["data"]}


def passes(server: Server, who: dict[str, str] | None = None) -> bool:
    response = server.chat(CARD, who, max_tokens=2)
    assert response.status_code in (200, 400), response.text
    return response.status_code == 200


def test_a_guard_is_set_and_acts_on_the_next_request(house: tuple[Server, Keys]) -> None:
    server, who = house
    for name, word, mode in (("owner", "stop", "block"), ("head", "off", "off"), ("owner", "block", "block"), ("head", "tell", "tell")):
        before = rows(server, who[name])["pii"]["mode"]
        done = put(server, who[name], "pii", {"mode": word})
        assert done.status_code == 200, done.text
        assert (done.json()["mode"], done.json()["before"], done.json()["changed"]) == (mode, before, True)
        assert passes(server) == passes(server, who["guest"]) == (mode != "block")
        assert not passes(server, who["children"])
        [last] = [row.values for row in server.facts("guard.set")][-1:]
        assert (last["guard"], last["mode"], last["before"], len(str(last["policy"]))) == ("pii", mode, before, 64)
        assert ("key" in last) == (name == "head")
    again = put(server, who["owner"], "pii", {"mode": "tell"}).json()
    assert (again["changed"], again["before"]) == (False, "tell")
    text = server.home.policy.read_text()
    assert [line for line in POLICY.splitlines() if line not in text.splitlines()] == []
    [told] = [row.values for row in server.facts("guard.tell")][-1:]
    assert told["policy"] == last["policy"], "the fact of a guard names the policy that it went by"


def test_the_list_says_what_holds_for_whom(house: tuple[Server, Keys]) -> None:
    server, who = house
    pii = rows(server, who["head"])["pii"]
    assert (pii["mode"], pii["word"], pii["set"], pii["words"]) == ("off", "off", False, ["off", "tell", "hide", "stop"])
    assert pii["title"] == "Personal data" and pii["about"].endswith(".")
    assert pii["others"] == [
        {"model": "other", "mode": "tell", "word": "tell"}, {"key": "children", "mode": "block", "word": "stop"}
    ]  # fmt: skip
    assert rows(server, who["owner"])["control_tokens"] | {"others": []} == rows(server, who["owner"])["control_tokens"]
    assert rows(server, who["owner"])["control_tokens"]["set"] and rows(server, who["owner"])["topics"]["idle"]
    guest, child = (rows(server, who[name])["pii"] for name in ("guest", "children"))
    assert (guest["mode"], child["mode"]) == ("off", "block")
    assert [other for other in guest["others"] + child["others"] if "key" in other] == []


def test_who_may_not_sets_nothing(house: tuple[Server, Keys]) -> None:
    server, who = house
    before, facts = server.home.policy.read_bytes(), len(server.facts("guard.set"))
    for name in ("guest", "children"):
        refused = put(server, who[name], "pii", {"mode": "off"})
        assert refused.status_code == 403 and "--guards" in error_of(refused)["message"]
    assert put(server, {"Authorization": "Bearer ingle-wrong"}, "pii", {"mode": "off"}).status_code == 401
    assert server.get("/v1/guards", {"Authorization": "Bearer ingle-wrong"}).status_code == 401
    assert put(server, {"Origin": "https://elsewhere.example"}, "pii", {"mode": "off"}).status_code == 403
    assert server.home.policy.read_bytes() == before and len(server.facts("guard.set")) == facts


@pytest.mark.parametrize(
    ("guard", "body", "status", "says"),
    [
        ("harm", {"mode": "hide"}, 400, "off, tell, stop"), ("harm", {"mode": ""}, 400, "must be one of"), ("harm", {}, 400, "mode"),
        ("harm", {"mode": None}, 400, "mode"), ("harm", {"mode": ["stop"]}, 400, "mode"), ("harm", {"mode": "\ud800"}, 400, "whole"),
        ("harm", b"{", 400, "JSON"), ("harm", {"mode": "x" * 5000}, 400, "must be one of"), ("size", {"mode": "off"}, 400, "always"),
        ("horm", {"mode": "stop"}, 404, "no such guard"), ("models", {"mode": "stop"}, 404, "no such guard"),
        ("taught", {"mode": "stop"}, 404, "no such guard"), ("%2e%2e", {"mode": "stop"}, 404, ""), ("x" * 3000, {"mode": "stop"}, 404, ""),
        ("harm%0A[use]", {"mode": "stop"}, 404, "no such guard"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_is_said_and_changes_nothing(house: tuple[Server, Keys], guard: str, body: Any, status: int, says: str) -> None:
    server, _ = house
    refused = put(server, {}, guard, body)
    assert refused.status_code == status, refused.text
    assert says in error_of(refused)["message"] and len(refused.text) < 1500
    assert server.home.policy.read_text() == POLICY


def test_a_change_by_another_process_acts_on_the_next_request(house: tuple[Server, Keys]) -> None:
    server, who = house
    assert passes(server)
    ingle(server.home.root, "guard", "set", "pii", "stop")
    assert not passes(server) and rows(server, who["owner"])["pii"]["mode"] == "block"
    server.home.policy.write_text(POLICY + '\n[use]\npurpose = "x"\n')  # by an editor, in place
    assert passes(server)
    server.home.policy.unlink()
    assert passes(server, who["children"])


@pytest.mark.parametrize("text", ["[guards\n", '[guards]\npii = "loud"\n', '[guards.keys.nobody]\npii = "off"\n', "\x00"])
def test_a_file_that_cant_be_meant_changes_nothing_and_is_told_once(house: tuple[Server, Keys], text: str) -> None:
    server, who = house
    assert put(server, {}, "pii", {"mode": "stop"}).status_code == 200
    server.home.policy.write_text(text)
    said = server.log.count('"policy"')
    for _ in range(3):
        assert not passes(server)
    wait_until(lambda: server.log.count('"policy"') > said, "the log tells of the file")
    assert server.log.count('"policy"') == said + 1, server.log[-1000:]
    assert put(server, {}, "pii", {"mode": "off"}).status_code == 400
    assert server.home.policy.read_text() == text
    if "nobody" not in text:
        for name in ("owner", "guest"):
            told = error_of(server.get("/v1/guards", who[name]))["message"]
            assert (str(server.home.root) in told or "guards.pii" in told) == (name == "owner"), told
    server.home.policy.write_text(POLICY)
    assert passes(server) and not passes(server, who["children"])


def test_an_editor_that_empties_the_file_first_opens_no_gap(house: tuple[Server, Keys]) -> None:
    server, _ = house
    assert put(server, {}, "pii", {"mode": "stop"}).status_code == 200
    whole = server.home.policy.read_text()
    assert not passes(server)
    with ThreadPoolExecutor(1) as pool:
        server.home.policy.write_text("")
        asked = pool.submit(passes, server)
        server.home.policy.write_text(whole)
        assert not asked.result()
    assert not passes(server)


def test_changes_at_once_are_all_kept(house: tuple[Server, Keys]) -> None:
    server, who = house
    names = ["pii", "harm", "attack", "injection", "leak", "topics"]
    facts = len(server.facts("guard.set"))
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(put, server, who["head"], name, {"mode": word}) for word in ("tell", "stop", "off") for name in names]
        statuses = [one.result().status_code for one in asked]
        ingle(server.home.root, "guard", "set", "output", "tell")
    assert statuses == [200] * len(statuses)
    last = {row.values["guard"]: row.values["mode"] for row in server.facts("guard.set")[facts:]}
    found = rows(server, {})
    assert {name: found[name]["mode"] for name in (*names, "output")} == last
    assert all(line in server.home.policy.read_text() for line in POLICY.splitlines())
