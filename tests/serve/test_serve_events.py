"""Proofs of facts through the API: for whom the fact is, and for nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingle.home.place import Home
from ingle.ledger.head import Head
from ingle.ledger.keys import load_verifiers, read_verifier
from ingle.ledger.proof import consistency_problem, inclusion_problem
from ingle.ledger.row import Row, row_hash
from tests.serve.conftest import copied
from tests.serve.servers import Server, error_of, events_of, facts_in, serving, settings
from tests.serve.test_serve_keys import add, bearer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Iterator[tuple[Server, Path, str, str]]:
    """A server with two keys."""
    home = copied(kept_home, tmp_path_factory.mktemp("events") / "home")
    keys = add(home, "ann"), add(home, "bob")
    with serving(home, *settings(require_key=False)) as server:
        yield server, home, *keys


def problem(table: dict[str, object], home: Path) -> str:
    """Findings of a client that has the ledger's public key."""
    fact = dict(table["fact"])  # type: ignore[call-overload]
    path = fact.pop("path")
    hashed = row_hash(*(fact[name] for name in ("seq", "at", "kind", "subject", "facts", "prev")))
    [stored] = [row for row in facts_in(Home(home), fact["kind"]) if row.seq == fact["seq"]]
    assert stored.hash == hashed
    verifier = read_verifier(str(table["key"]))
    assert verifier.fingerprint in {one.fingerprint for one in load_verifiers(home / "keys")}
    return inclusion_problem(Row(**fact, hash=hashed, signature=stored.signature), path, Head(**table["head"]), [verifier])  # type: ignore[arg-type]


def test_each_key_proves_its_own_facts_and_the_user_here_all(shared: tuple[Server, Path, str, str]) -> None:
    server, home, ann, bob = shared
    [seq] = events_of(server.chat(headers=bearer(ann), max_tokens=2))
    path = f"/v1/events/{seq}/proof"
    for who in (bearer(ann), None):
        response = server.get(path, who)
        assert response.status_code == 200
        table = response.json()
        assert table["object"] == "ledger.proof" and table["fact"]["seq"] == seq and problem(table, home) == ""
    hidden, absent = server.get(path, bearer(bob)), server.get("/v1/events/99999/proof", bearer(bob))
    assert hidden.status_code == absent.status_code == 404
    assert error_of(hidden)["message"].replace(str(seq), "N") == error_of(absent)["message"].replace("99999", "N")
    assert server.get("/v1/events/1/proof", bearer(ann)).status_code == 404, "what the home did is its user's"
    assert problem(server.get("/v1/events/1/proof").json(), home) == ""
    for bad, code in (("0", 404), ("-3", 404), ("1" * 40, 404), ("x", 400)):
        assert server.get(f"/v1/events/{bad}/proof").status_code == code


def test_a_later_head_is_shown_to_continue_an_earlier_one(shared: tuple[Server, Path, str, str]) -> None:
    server, home, ann, _ = shared
    [seq] = events_of(server.chat(headers=bearer(ann), max_tokens=2))
    early = server.get(f"/v1/events/{seq}/proof", bearer(ann)).json()
    for _ in range(3):
        server.chat(headers=bearer(ann), max_tokens=2)
    late = server.get(f"/v1/events/{seq}/proof?since={early['head']['seq']}", bearer(ann)).json()
    old, new = Head(**early["head"]), Head(**late["since"]["head"])
    assert new.seq > old.seq and problem(late, home) == ""
    assert consistency_problem(old, new, late["since"]["path"], load_verifiers(home / "keys")) == ""
    assert consistency_problem(old, new, late["since"]["path"][:-1], load_verifiers(home / "keys"))
    for bad, code in (("0", 400), ("x", 400), ("99999", 404)):
        assert server.get(f"/v1/events/{seq}/proof?since={bad}", bearer(ann)).status_code == code
