"""`ingle home keys`: the secret alone on standard output, a fact in the ledger for each change, and no key without one."""

import json
import os
from pathlib import Path

import pytest

from ingle.home.api_keys import MIGRATIONS, check_key
from ingle.home.database import open_database
from tests.cli.place import ingle


def good(home: Path, secret: str) -> bool:
    engine = open_database(f"sqlite:///{home / 'ingle.db'}", {"api_keys": MIGRATIONS})
    try:
        return check_key(engine, secret) is not None
    finally:
        engine.dispose()


def facts(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in ingle(home, "log", "--json").stdout.splitlines()]


def test_add_list_revoke(tmp_path: Path) -> None:
    told = ingle(tmp_path, "key", "add", "laptop")
    secret = told.stdout.removesuffix("\n")
    assert len(secret) == 49 and secret.startswith("ingle-") and good(tmp_path, secret)
    assert "laptop" in told.stderr and secret not in told.stderr
    other = json.loads(ingle(tmp_path, "key", "add", "Anna's phone", "--requests-per-minute", "30", "--json").stdout)
    assert good(tmp_path, other["key"]) and other["requests_per_minute"] == 30 and other["name"] == "Anna's phone"
    listed = json.loads(ingle(tmp_path, "key", "list", "--json").stdout)
    assert [(key["name"], key["requests_per_minute"], key["revoked"]) for key in listed] == [
        ("laptop", None, None),
        ("Anna's phone", 30, None),
    ]
    assert all("key" not in key and "hash" not in key for key in listed)
    assert ingle(tmp_path, "key", "revoke", "laptop").stdout == f"laptop ({listed[0]['id']}) is revoked.\n"
    assert not good(tmp_path, secret) and good(tmp_path, other["key"])
    assert json.loads(ingle(tmp_path, "key", "revoke", other["id"], "--json").stdout)["revoked"] is not None
    assert not good(tmp_path, other["key"])
    table = ingle(tmp_path, "key").stdout
    assert (
        table.splitlines()[0].split() == ["NAME", "ID", "SINCE", "PER", "MINUTE", "METRICS", "GUARDS", "REVOKED"]
        and "Anna's phone" in table
    )
    assert [(fact["kind"], fact["subject"]) for fact in facts(tmp_path)] == [
        ("key.add", listed[0]["id"]), ("key.add", other["id"]), ("key.revoke", listed[0]["id"]), ("key.revoke", other["id"]),
    ]  # fmt: skip
    everything = ingle(tmp_path, "log").stdout + ingle(tmp_path, "key", "list", "--json").stdout + table
    assert secret not in everything and other["key"] not in everything


def test_a_home_without_keys(tmp_path: Path) -> None:
    assert "ingle home keys add NAME" in ingle(tmp_path, "key", "list").stderr
    assert ingle(tmp_path, "key", "list", "--json").stdout == "[]\n"
    assert not any(tmp_path.iterdir()), "listing makes no database"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add",), 2, "Missing argument 'NAME'. See `ingle key add --help`"),
        (("revoke",), 2, "Missing argument 'NAME'"),
        (("list", "laptop"), 2, "unexpected extra argument"),
        (("lend", "laptop"), 2, "No such command 'lend'"),
        (("list", "--requests-per-minute", "3"), 2, "No such option"),
        (("add", "x", "--requests-per-minute", "0"), 2, "between 1 and 1,000,000"),
        (("add", "two\nlines"), 2, "printable characters"),
        (("revoke", "laptop"), 3, "Good keys: none"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    told = ingle(tmp_path, "key", *arguments, code=code)
    assert words in told.stderr and len(told.stderr.splitlines()) == 1 and told.stdout == ""
    assert facts(tmp_path) == []


def test_a_taken_name(tmp_path: Path) -> None:
    ingle(tmp_path, "key", "add", "Anna's phone")
    told = ingle(tmp_path, "key", "add", "Anna's phone", code=2)
    assert """`ingle home keys revoke 'Anna'"'"'s phone'`""" in told.stderr
    assert len(facts(tmp_path)) == 1


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_no_key_without_its_fact_but_revoking_does_not_wait_for_one(tmp_path: Path) -> None:
    secret = ingle(tmp_path, "key", "add", "laptop").stdout.strip()
    (tmp_path / "keys" / "ledger.key").chmod(0o644)
    told = ingle(tmp_path, "key", "add", "phone", code=7)
    assert told.stdout == "" and "chmod 600" in told.stderr
    keys = {key["name"]: key for key in json.loads(ingle(tmp_path, "key", "list", "--json").stdout)}
    assert list(keys) == ["laptop"]
    assert "chmod 600" in ingle(tmp_path, "key", "revoke", "laptop", code=7).stderr
    assert not good(tmp_path, secret)
    (tmp_path / "keys" / "ledger.key").chmod(0o600)
    ingle(tmp_path, "key", "revoke", "laptop")  # it is revoked, and the fact is made good
    assert [fact["kind"] for fact in facts(tmp_path)] == ["key.add", "key.revoke"]
    assert "no key laptop" in ingle(tmp_path, "key", "revoke", "laptop", code=3).stderr
