"""The view Account: cards and what changes did, for those who may see the page; nothing in it is run."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingle.app.house import open_rooms
from ingle.core.report import Event
from ingle.home.kept import get_kept, keep
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from tests.cli.place import ingle
from tests.cli.test_cli_card import MEASURED
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[Server]:
    home = Home(copied(kept_home, tmp_path_factory.mktemp("account") / "home"))
    home.policy.write_text('[use]\npurpose = "<script>alert(1)</script>"\n')
    engine = open_rooms(home)
    keep(home, "tiny-two", get_kept(home, "tiny").base)
    for name, value in (("tiny", 1.25), ("tiny-two", 1.5), ("tiny+mine", 1.75)):  # the last one is not kept any more
        Ledger(engine, home.keys).append(Event("measure", name, {**MEASURED, "value": value}))
    engine.dispose()
    with serving(home.root, "--page", "--set", "chat.model=tiny") as running:
        yield running


def test_the_view_shows_a_card_and_what_changes_did(accounts: Server) -> None:
    page = accounts.get("/account?as=annex-xi").text
    assert "Annex XI" in page and "1(1)(d)" in page and "What changes did" in page
    assert "<td>tiny-two<td>1.5 bits" in page and "<td>tiny<td>1.25 bits" in page and "tiny+mine" not in page
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert accounts.get("/account").status_code == 200


def test_cards_are_downloaded(accounts: Server) -> None:
    table = accounts.get("/account?model=tiny&as=energy&form=json")
    assert table.json()["kind"] == "energy" and "tiny-energy.json" in table.headers["content-disposition"]
    assert accounts.get("/account?model=tiny&form=md").text.startswith("# Model card")


def test_unknown_models_and_cards_are_said(accounts: Server) -> None:
    assert accounts.get("/account?model=none").status_code == 404
    assert accounts.get("/account?as=horoscope").status_code == 400


def test_whoever_has_not_signed_in_is_sent_to_the_door(tmp_path: Path, kept_home: Path) -> None:
    home = copied(kept_home, tmp_path / "home")
    ingle(home, "key", "add", "phone")
    with serving(home, "--page", "--set", "serve.require_key=true") as running:
        reply = httpx.get(f"{running.url}/account", follow_redirects=False, timeout=PATIENCE_S)
        assert reply.status_code == 303 and "sign-in" in reply.headers["location"]
