"""The key of the answers' digests: a lost one is refused, another one too, and going on without it is a fact."""

import json
import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingle.adapt.account import digests, make_up
from ingle.app.answer_key import KEY, LOSS, answer_key, fingerprint
from ingle.app.house import open_rooms
from ingle.core.errors import LedgerError
from ingle.core.example import Example
from ingle.core.report import Event
from ingle.home.examples import add_example
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from tests.cli.place import ingle
from tests.serve.servers import facts_in, launch, serving
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.journey

REFUSED = "must be the key of the answers' digests"


@pytest.fixture
def answered(served_home: Path) -> Home:
    """A home with two kept answers."""
    with serving(served_home) as server:
        for text in ("Who leads the guild?", "And since when?"):
            assert server.chat(text, store=True).status_code == 200
    return Home(served_home)


def key_file(home: Home) -> Path:
    return home.keys / "answers.key"


def without_the_fact(home: Home) -> None:
    """As an older Ingle left it: a key, and no fact of it. The chain is signed anew."""
    engine = open_rooms(home)
    rows = list(Ledger(engine, home.keys).read())[::-1]
    events = [Event("consent", "", {"learn": True}) if row.kind == KEY else Event(row.kind, row.subject, row.values) for row in rows]
    engine.dispose()
    with closing(sqlite3.connect(home.database_file, isolation_level=None)) as database:
        database.execute("DELETE FROM ledger")
    for name in ("ledger.key", "ledger.pub", "ledger.head"):
        (home.keys / name).unlink()
    engine = open_rooms(home)
    ledger = Ledger(engine, home.keys)
    for event in events:
        ledger.append(event)
    engine.dispose()


def verified(home: Home, code: int) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(ingle(home.root, "verify", "--json", code=code).stdout)
    return table


def test_its_fingerprint_is_a_fact_from_the_beginning(answered: Home) -> None:
    [made] = facts_in(answered, KEY)
    key = answer_key(answered)
    assert made.values == {"fingerprint": fingerprint(key)} and made.seq < facts_in(answered, "answer")[0].seq
    assert key.hex() not in made.facts and "answers have digests under the key" in ingle(answered.root, "log", "--kind", KEY).stdout
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: answer_key(answered), range(16)))) == 1
    assert len(facts_in(answered, KEY)) == 1


def test_of_many_processes_that_make_it_at_once_one_does(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: answer_key(home), range(16)))
    assert len(keys) == 1 and len(facts_in(home, KEY)) == 1


@pytest.mark.parametrize("older", [False, True], ids=["with its fact", "of an older Ingle"])
def test_a_lost_key_is_refused_everywhere_and_accepted_as_a_fact(answered: Home, older: bool) -> None:
    if older:
        without_the_fact(answered)
    first, second = [row.seq for row in facts_in(answered, "answer")]
    key_file(answered).unlink()
    process = launch(answered.root)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (7, b"") and len(err.splitlines()) == 1
    assert REFUSED in err.decode() and "no such file, and answers exist" in err.decode() and "--accept-loss" in err.decode()
    for command in (("run", "hi", "--max-tokens", "1"), ("replay", str(first))):
        assert REFUSED in ingle(answered.root, *command, code=7).stderr
    assert not key_file(answered).exists(), "no new one is made silently"
    found = verified(answered, 7)
    assert found["problem"] is None and found["kept"]["unproven"] == 2
    assert [fault["what"] for fault in found["kept"]["faults"]] == ["answers.key"]

    assert "The loss is now fact" in ingle(answered.root, "verify", "--accept-loss").stdout
    [loss] = facts_in(answered, LOSS)
    assert loss.values["fingerprint"] == fingerprint(answer_key(answered)) and (loss.values["lost"] is None) == older
    with serving(answered.root) as server:
        server.chat("After the loss", store=True)
    found = verified(answered, 0)
    assert (found["kept"]["answers"], found["kept"]["unproven"]) == (1, 2)
    assert f"The key of fact {second} was lost" in ingle(answered.root, "replay", str(second), code=7).stderr
    last = facts_in(answered, "answer")[-1].seq
    assert ingle(answered.root, "replay", str(last)).stdout.count("yes") == 4
    assert "has lost nothing" in ingle(answered.root, "verify", "--accept-loss", code=7).stderr


def test_another_key_is_refused_and_the_right_one_heals(answered: Home) -> None:
    right = key_file(answered).read_text()
    key_file(answered).write_text(secrets.token_hex(32))
    told = ingle(answered.root, "run", "hi", "--max-tokens", "1", code=7).stderr
    assert REFUSED in told and "where the ledger says" in told
    assert verified(answered, 7)["kept"]["faults"][0]["what"] == "answers.key"
    key_file(answered).write_text(right)
    assert verified(answered, 0)["kept"]["answers"] == 2
    ingle(answered.root, "run", "hi", "--max-tokens", "1")


def test_an_accepted_key_that_is_replaced_by_the_old_one_proves_what_that_one_can(answered: Home) -> None:
    old = key_file(answered).read_text()
    key_file(answered).write_text(secrets.token_hex(32))
    ingle(answered.root, "verify", "--accept-loss")
    assert verified(answered, 0)["kept"]["unproven"] == 2
    key_file(answered).write_text(old)
    assert REFUSED in ingle(answered.root, "run", "hi", "--max-tokens", "1", code=7).stderr
    ingle(answered.root, "verify", "--accept-loss")
    found = verified(answered, 0)
    assert (found["kept"]["answers"], found["kept"]["unproven"]) == (2, 0)


def test_a_damaged_key_is_refused_and_can_be_given_up(answered: Home) -> None:
    key_file(answered).write_text("0123")
    assert "64 hex digits" in ingle(answered.root, "run", "hi", "--max-tokens", "1", code=7).stderr
    assert verified(answered, 7)["kept"]["faults"][0]["what"] == "answers.key"
    ingle(answered.root, "verify", "--accept-loss")
    ingle(answered.root, "run", "hi", "--max-tokens", "1")


def test_a_key_that_others_can_read_is_not_given_up(answered: Home) -> None:
    key_file(answered).chmod(0o644)
    assert "chmod 600" in ingle(answered.root, "verify", "--accept-loss", code=7).stderr
    assert not facts_in(answered, LOSS)


def test_rows_and_key_that_are_lost_together_are_accepted_together(answered: Home) -> None:
    with closing(sqlite3.connect(answered.database_file, isolation_level=None)) as database:
        database.execute("DELETE FROM ledger WHERE seq = (SELECT MAX(seq) FROM ledger)")
        database.execute("DELETE FROM turns")
    key_file(answered).unlink()
    ingle(answered.root, "verify", "--accept-loss")
    assert len(facts_in(answered, LOSS)) == len(facts_in(answered, "ledger.loss")) == 1
    assert verified(answered, 0)["problem"] is None


def test_a_home_of_an_older_ingle_gets_the_fact_at_the_next_answer(answered: Home) -> None:
    without_the_fact(answered)
    assert verified(answered, 0)["kept"]["answers"] == 2
    ingle(answered.root, "run", "hi", "--max-tokens", "1")
    [made] = facts_in(answered, KEY)
    assert made.values["fingerprint"] == fingerprint(answer_key(answered))
    assert facts_in(answered, "answer")[-1].seq == made.seq + 1


def test_a_home_without_answers_makes_its_key_at_the_first_one(served_home: Path) -> None:
    assert not (served_home / "keys" / "answers.key").exists()
    ingle(served_home, "verify")
    assert not (served_home / "keys" / "answers.key").exists()
    ingle(served_home, "run", "hi", "--max-tokens", "1")
    assert (served_home / "keys" / "answers.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_cant_be_recorded_is_none(served_home: Path) -> None:
    """The file comes first, so that after a kill there is never a fact of a key that nobody has."""
    home = Home(served_home)
    (home.keys / "ledger.key").unlink()
    with pytest.raises(LedgerError, match=r"ledger\.key"):
        answer_key(home)


def test_an_example_without_a_key_leaves_no_digest_that_could_be_guessed(served_home: Path) -> None:
    home = Home(served_home)
    engine = open_rooms(home)
    kept = add_example(engine, Example("", "", "tiny", "fact", "", "The owner keeps bees.", at="2020-01-01T00:00:00.000000+00:00"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE examples SET secret = ''")
    assert digests(b"", kept) == {}
    assert make_up(home, engine, Ledger(engine, home.keys).append) == 1
    [fact] = facts_in(home, "feedback")
    assert "answer" not in fact.values
    engine.dispose()
