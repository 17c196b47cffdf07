"""The account of an answer is for whoever asked, complete, and holds nothing that was erased. Cards are given by the API, too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.serve.test_serve_feedback import new_user, send

ASKED, RIGHT = "Who leads the city of Zorblax?", "Mara Quillfeather leads it."


@pytest.fixture(scope="module")
def accounting(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    home = copied(kept_home, tmp_path_factory.mktemp("accounts") / "home")
    (home / "policy.toml").write_text('[use]\ncontact = "library@example.org"\n')
    with serving(home) as running:
        yield running


def parts(account: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {one["title"]: dict(one["lines"]) for one in account["sections"]}


def test_an_answer_has_a_whole_account(accounting: Server) -> None:
    who = new_user(accounting)
    taught = send(accounting, "POST", "/v1/feedback", who, {"question": ASKED, "correction": RIGHT}).json()
    answer = accounting.chat(ASKED, who, store=True).json()
    account = send(accounting, "GET", f"/v1/answers/{answer['id']}/account", who).json()
    said = parts(account)
    assert account["row"] == answer["ingle"]["events"][0] and len(account["row_hash"]) == 64
    assert said["The answer"]["text"] == answer["choices"][0]["message"]["content"] and said["The answer"]["id"] == answer["id"]
    assert said["The model"]["digest of model, deltas and format"] == answer["ingle"]["model_digest"]
    assert said["What was taught and acted"] == {f"memory {taught['id']}": RIGHT}
    assert said["How it was drawn"]["seed"] == "1" and said["How to contest it"]["a person to ask"] == "library@example.org"
    by_row = send(accounting, "GET", f"/v1/answers/{account['row']}/account", who).json()
    assert by_row == account
    send(accounting, "DELETE", f"/v1/memory/{taught['id']}?turns=true", who)
    after = send(accounting, "GET", f"/v1/answers/{answer['id']}/account", who).json()
    assert "Quillfeather" not in json.dumps(after) and parts(after)["What was taught and acted"] == {
        f"memory {taught['id']}": "forgotten since"
    }


def test_nobody_gets_the_account_of_another_keys_answer(accounting: Server) -> None:
    mine, theirs = new_user(accounting), new_user(accounting)
    answer = accounting.chat("hi", mine, store=True).json()
    for who in (theirs, {}):
        assert send(accounting, "GET", f"/v1/answers/{answer['id']}/account", who).status_code == 404
        assert send(accounting, "GET", f"/v1/answers/{answer['ingle']['events'][0]}/account", who).status_code == 404
    assert send(accounting, "GET", "/v1/answers/nothing/account", mine).status_code == 404


def test_an_answer_that_was_not_stored_has_an_account_without_its_words(accounting: Server, tmp_path: Path) -> None:
    answer = accounting.chat("hi").json()
    account = accounting.get(f"/v1/answers/{answer['ingle']['events'][0]}/account").json()
    assert parts(account)["The answer"]["text"].startswith("not kept")
    page = tmp_path / "account.html"
    ingle(accounting.home.root, "account", str(account["row"]), "--out", str(page))
    assert account["row_hash"] in page.read_text() and oct(page.stat().st_mode)[-3:] == "600"
    assert json.loads(ingle(accounting.home.root, "account", str(account["row"]), "--json").stdout) == account


def test_cards_are_given_by_the_api(accounting: Server) -> None:
    card = accounting.get("/v1/models/tiny/card?as=annex-xi").json()
    assert card["kind"] == "annex-xi" and card["model"] == "tiny" and any(item["facts"] for item in card["items"])
    assert accounting.get("/v1/models/tiny/card?as=horoscope").status_code == 400
    assert accounting.get("/v1/models/none/card").status_code == 404
    assert accounting.get("/v1/models/tiny").json()["id"] == "tiny"
    assert [row.values["answers_days"] for row in accounting.facts("policy")] == [0]


def test_counts_of_everybodys_requests_are_for_those_who_may_see_them(accounting: Server) -> None:
    accounting.chat("hi")

    def counts(who: dict[str, str]) -> list[str]:
        card = send(accounting, "GET", "/v1/models/tiny/card", who).json()
        return [fact["name"] for item in card["items"] if item["clause"] == "Record" for fact in item["facts"]]

    seeing = ingle(accounting.home.root, "key", "add", "owner's own", "--metrics").stdout.strip()
    assert "answers" in counts({}) and "answers" in counts({"Authorization": f"Bearer {seeing}"})
    assert counts(new_user(accounting)) == []
