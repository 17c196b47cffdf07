"""The view *Learned together* and `/v1/federations`: what left this machine, for its owner and for keys that see the whole server."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingle.federated.consent import keep_consent, lent
from ingle.federated.invitation import Invitation, invite
from ingle.federated.standing import folder_of
from ingle.federated.statement import Letter, to_bytes
from ingle.federated.transport import logged_answers
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.ledger.keys import new_signer
from tests.cli.place import ingle
from tests.serve.conftest import copied
from tests.serve.servers import Server, serving
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[tuple[Server, dict[str, dict[str, str]]]]:
    folder = tmp_path_factory.mktemp("together")
    home = Home(copied(kept_home, folder / "home"))
    signers = [new_signer() for _ in range(3)]
    members = tuple(signer.verifier.public for signer in signers)
    asked = Invitation("<b>street", get_kept(home, "tiny").digest, "", members, 3, 4, "2100-01-01T00:00:00Z")
    invitation = invite(asked, signers[0])
    data = folder / "letters.jsonl"
    data.write_text('{"prompt": "my secret", "completion": "told"}\n' * 3)
    keep_consent(home, invitation, lent({data: 3}))
    answer = logged_answers(lambda data: data, folder_of(home, invitation))
    for _ in range(2):
        answer(to_bytes(Letter("vote")))
    keys = {
        name: json.loads(ingle(home.root, "key", "add", name, "--json", *more).stdout)["key"]
        for name, more in (("guest", []), ("eye", ["--metrics"]))
    }
    with serving(home.root, "--page") as server:
        yield server, {"owner": {}, **{name: {"Authorization": f"Bearer {secret}"} for name, secret in keys.items()}}


def test_the_view_lists_what_left(together: tuple[Server, dict[str, dict[str, str]]]) -> None:
    page = together[0].get("/federated").text
    assert "3 examples, which stay here" in page and "0 of 4 taken over" in page and "2 messages" in page
    assert page.count("<td>coordinator<td>vote") == 2
    assert "<b>street" not in page and "&lt;b&gt;street" in page and "secret" not in page and "letters" not in page
    assert "/federated" in together[0].get("/account").text


def test_by_api_it_is_for_the_owner_and_for_keys_that_see_all(together: tuple[Server, dict[str, dict[str, str]]]) -> None:
    server, who = together
    for name in ("owner", "eye"):
        [one] = httpx.get(server.url + "/v1/federations", headers=who[name], timeout=PATIENCE_S).json()["data"]
        assert (one["lent"], one["messages"], one["rounds"]) == (3, 2, 4)
        left = httpx.get(server.url + "/v1/federations/<b>street/left", headers=who[name], timeout=PATIENCE_S)
        assert [row["kind"] for row in left.json()["data"]] == ["vote", "vote"]
    for path in ("/v1/federations", "/v1/federations/street/left"):
        assert httpx.get(server.url + path, headers=who["guest"], timeout=PATIENCE_S).status_code == 403
    assert server.get("/v1/federations/none/left").status_code == 400


def test_a_home_that_learns_alone_says_so(tmp_path: Path, kept_home: Path) -> None:
    home = copied(kept_home, tmp_path / "home")
    with serving(home, "--page") as server:
        assert "learns together with nobody" in server.get("/federated").text
        assert server.get("/v1/federations").json() == {"object": "list", "data": []}


def test_who_is_not_the_owner_sees_nothing_of_it(tmp_path: Path, kept_home: Path) -> None:
    home = copied(kept_home, tmp_path / "home")
    ingle(home, "key", "add", "phone")
    with serving(home, "--page", "--set", "serve.require_key=true") as server:
        reply = httpx.get(f"{server.url}/federated", follow_redirects=False, timeout=PATIENCE_S)
        assert reply.status_code == 303 and "sign-in" in reply.headers["location"]
