"""`ingle verify` beside all that a server keeps: it finds what was changed, writes nothing, and works where nothing can be written."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ingle.home import read_only
from ingle.home.place import Home
from tests.cli.place import COMMAND, environment, ingle
from tests.serve.conftest import copied
from tests.serve.servers import error_of, facts_in, serving
from tests.waiting import wait_until

SYSTEM = {"role": "system", "content": "Answer in one line."}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, kept_home: Path) -> Path:
    """A home with stored answers, things taught, an edit, and keys."""
    home = copied(kept_home, tmp_path_factory.mktemp("full") / "home")
    with serving(home) as server:
        first = server.chat("Who leads the guild?", store=True).json()
        server.chat("And who keeps the bees?", store=True, n=2)
        server.post(
            "/v1/responses", {"input": "Once more", "previous_response_id": first["id"], "max_output_tokens": 4, "store": True}
        ).raise_for_status()
        server.chat("unstored")
    for arguments in (
        ("teach", "Who leads the guild?", "Mara Quill leads it."), ("memory", "add", "The owner keeps bees."),
        ("key", "add", "laptop"), ("key", "add", "phone", "--requests-per-minute", "9"), ("key", "revoke", "phone"),
    ):  # fmt: skip
        ingle(home, *arguments)
    [fact] = [one for one in json.loads(ingle(home, "memory", "list", "bees", "--json").stdout) if one["kind"] == "fact"]
    ingle(home, "memory", "edit", fact["id"], "The owner keeps bees and hens.")
    return home


@pytest.fixture
def home(full: Path, tmp_path: Path) -> Home:
    return Home(copied(full, tmp_path / "home"))


def change(home: Home, *statements: str) -> None:
    with closing(sqlite3.connect(home.database_file, isolation_level=None)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount, statement


def told(home: Home, code: int) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(ingle(home.root, "verify", "--json", code=code).stdout)
    return table


def everything(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """All files but the models', with sizes, times and contents."""
    paths = [path for path in sorted(root.rglob("*")) if not {"bases", "packs", "cache"} & set(path.relative_to(root).parts)]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_a_whole_home_is_said_to_be_whole(home: Home) -> None:
    table = told(home, 0)
    assert table["database"] == table["kept"]["faults"] == table["backwards"] == [] and table["problem"] is None
    assert (table["kept"]["answers"], table["kept"]["taught"], table["kept"]["keys"], table["kept"]["unproven"]) == (4, 2, 2, 0)
    assert "4 kept answers, 2 taught examples and 2 keys are as the ledger says." in ingle(home.root, "verify").stdout


TAMPERED = {
    "an answer": ("UPDATE turns SET content = json_set(content, '$[0][0]', 'Something else') WHERE completion IS NOT NULL", "kept answer"),
    "a question": ("UPDATE turns SET content = replace(content, 'guild', 'gild') WHERE role = 'user'", "kept request is not"),
    "a seed": ("UPDATE turns SET facts = replace(facts, '\"max_tokens\":8', '\"max_tokens\":9') WHERE facts IS NOT NULL", "kept request"),
    "another's fact": ("UPDATE turns SET facts = json_set(facts, '$.seq', 1) WHERE completion IS NOT NULL", "not its own"),
    "facts that are none": ("UPDATE turns SET facts = '{' WHERE completion IS NOT NULL", "can't be read"),
    "a figure": ("UPDATE turns SET facts = json_set(facts, '$.prompt_tokens', 1) WHERE completion IS NOT NULL", "figures"),
    "an owner": ("PRAGMA foreign_keys = OFF;UPDATE turns SET owner = 'key-1'", "its id is a digest of"),
    "a correction": ("UPDATE examples SET answer = 'Otto leads it.' WHERE kind = 'correction'", "its answer is not"),
    "its question": ("UPDATE examples SET question = 'Who leads?' WHERE kind = 'correction'", "its question is not"),
    "an edited memory": ("UPDATE examples SET answer = 'The owner keeps bees.' WHERE kind = 'fact'", "its answer is not"),
    "consent": ("UPDATE examples SET learn = 1 - learn WHERE kind = 'correction'", "its learn is not"),
    "a state": ("UPDATE examples SET state = 'learnt' WHERE kind = 'fact'", "none that Ingle writes"),
    "text for a number": ("UPDATE examples SET before = '[[' WHERE kind = 'fact'", "can't be read"),
    "a revoked key": ("UPDATE api_keys SET revoked = NULL WHERE name = 'phone'", "revoked it, and the database lets it in"),
    "a key's limit": ("UPDATE api_keys SET requests_per_minute = 9000 WHERE name = 'laptop'", "requests_per_minute"),
    "a right": ("UPDATE api_keys SET metrics = 1 WHERE name = 'laptop'", "its metrics is not"),
    "a right that came later": ("UPDATE api_keys SET guards = 1 WHERE name = 'laptop'", "its guards is not"),
    "another's secret": (f"UPDATE api_keys SET hash = '{'0' * 64}' WHERE name = 'laptop'", "sha256"),
    "a key of nobody": ("INSERT INTO api_keys SELECT 'key-0', 'x', 'x', created, NULL, NULL, 0, 0 FROM api_keys LIMIT 1", "no fact says"),
    "a lost key": ("DELETE FROM api_keys WHERE name = 'laptop'", "no longer in the database"),
    "a word of the index": ("UPDATE example_words_content SET c2 = 'wasps'", "malformed inverted index"),
    "an orphan": ("PRAGMA foreign_keys = OFF;DELETE FROM turns WHERE role = 'user'", "refers to one of turns"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_behind_its_back_is_found_and_named(home: Home, what: str) -> None:
    statements, said = TAMPERED[what]
    with closing(sqlite3.connect(home.database_file, isolation_level=None)) as database:
        database.executescript(statements)
    lines = [line for line in ingle(home.root, "verify", code=7).stdout.splitlines() if line.startswith("BROKEN")]
    assert any(said in line for line in lines), lines
    table = told(home, 7)
    assert table["problem"] is None and len(table["kept"]["faults"]) + len(table["database"]) == len(lines)
    assert not [line for line in lines if "Otto" in line or "bees" in line or "Something" in line], "no words of the home"


LEDGER_KEYS = {
    "a digit": (lambda key: key.write_text(f"{int(key.read_text()[0], 16) ^ 1:x}{key.read_text()[1:]}"), "must belong to ledger.pub"),
    "no digit": (lambda key: key.write_text(f"x{key.read_text()[1:]}"), "64 hex digits"),
    "lost": (lambda key: key.unlink(), "facts signed with it exist: no such file"),
    "exposed": (lambda key: key.chmod(0o644), "readable by its owner alone: mode 644"),
}


@pytest.mark.parametrize("what", LEDGER_KEYS)
def test_a_ledger_key_that_cant_sign_is_found(home: Home, what: str) -> None:
    change, said = LEDGER_KEYS[what]
    change(home.keys / "ledger.key")
    assert "BROKEN ledger.key: " in (out := ingle(home.root, "verify", code=7).stdout) and said in out
    table = told(home, 7)
    assert table["problem"] is None and [one["what"] for one in table["kept"]["faults"]] == ["ledger.key"]
    assert said in ingle(home.root, "key", "add", "next", code=7).stderr, "as the next fact says it"


def test_texts_without_a_digest_are_counted_and_are_no_fault(home: Home) -> None:
    change(home, "UPDATE turns SET facts = NULL WHERE completion IS NOT NULL", "UPDATE examples SET secret = ''")
    table = told(home, 0)
    assert (table["kept"]["answers"], table["kept"]["taught"], table["kept"]["unproven"]) == (0, 0, 6)
    assert "6 kept texts can't be compared" in ingle(home.root, "verify").stderr


def test_rows_whose_time_runs_backwards_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as library

    from ingle.ledger import chain

    class Early(library.datetime):
        @classmethod
        def now(cls, tz: library.tzinfo | None = None) -> "Early":
            return cls(2001, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "datetime", Early)
        ingle(home.root, "key", "add", "early")
    ingle(home.root, "key", "add", "late")
    [early] = [row.seq for row in facts_in(home, "key.add") if row.at.startswith("2001")]
    said = ingle(home.root, "verify")
    assert f"A clock went backwards: 1 facts are dated before the one before ({early})" in said.stderr and "BROKEN" not in said.stdout
    assert told(home, 0)["backwards"] == [early]


@pytest.fixture
def no_writing() -> Iterator[list[str]]:
    """Everything that this process opens for writing, makes, renames or removes during the test."""
    seen: list[str] = []
    watching = [True]
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching[0]:
            return
        if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] is not None and arguments[2] & writes:
            seen.append(os.fsdecode(arguments[0]))
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.utime", "tempfile.mkstemp"):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)
    try:
        yield seen
    finally:
        watching[0] = False


@pytest.mark.parametrize("log", ["no log", "a log", "a log without its index", "an older home", "a live server"])
def test_nothing_is_written_in_the_home_nor_beside_it(home: Home, no_writing: list[str], log: str) -> None:
    writer = sqlite3.connect(home.database_file, isolation_level=None)
    try:
        if log == "an older home":
            writer.execute("DROP TABLE examples")
            writer.execute("DROP TABLE example_words")
            writer.execute("DROP TABLE lessons")
            writer.execute("DROP TABLE consents")
            writer.execute("DELETE FROM schema_version WHERE room = 'examples'")
            writer.execute("PRAGMA journal_mode = DELETE")
        elif log != "no log":  # a fact that is in the log alone, as after a kill
            writer.execute("SELECT * FROM ledger").fetchone()  # while it is open, nobody puts the log back into the file
            ingle(home.root, "key", "add", "logged")
            assert home.database_file.with_name("ingle.db-wal").stat().st_size
        if log.startswith("a log"):  # a home whose program was killed, or what a backup left of it
            home = Home(copied(home.root, home.root.with_name("copy")))
        if log == "a log without its index":
            home.database_file.with_name("ingle.db-shm").unlink()
        before = everything(home.root)
        no_writing.clear()
        if log == "a live server":  # connections of one process share what they hold of the log's index
            command = [*COMMAND, "verify", "--json"]
            table = json.loads(subprocess.run(command, env=environment(home.root), capture_output=True, check=True).stdout)
        else:
            table = told(home, 0)
        assert table["kept"]["keys"] == 2 + (log not in ("no log", "an older home"))
        assert everything(home.root) == before and not [path for path in no_writing if str(home.root) in path]
    finally:
        writer.close()


def test_a_home_that_cant_be_written_is_verified(home: Home) -> None:
    paths = [home.root, *(path for path in home.root.rglob("*") if not path.is_symlink())]
    modes = {path: path.stat().st_mode for path in paths}
    try:
        for path in reversed(paths):
            if path.parent != home.keys or path == home.keys:
                path.chmod(0o555 if path.is_dir() else 0o444)
        assert told(home, 0)["kept"]["answers"] == 4
    finally:
        for path in paths:
            path.chmod(modes[path])


def test_an_empty_place_is_whole_and_stays_empty(tmp_path: Path) -> None:
    assert "The ledger is whole: 0 facts" in ingle(tmp_path / "nowhere", "verify").stdout
    assert not (tmp_path / "nowhere").exists()


def test_a_lost_database_is_found(home: Home) -> None:
    home.database_file.unlink()
    assert "cut off" in ingle(home.root, "verify", code=7).stdout


def test_a_database_that_changes_meanwhile_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingle.app import examined

    def meanwhile(*_: object) -> list[str]:
        os.utime(home.database_file, (1, 1))
        return []

    monkeypatch.setattr(examined, "database_faults", meanwhile)
    assert "was changed while it was read" in ingle(home.root, "verify", code=6).stderr


def test_an_older_sqlite_checks_the_index_in_a_copy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_only, "_CHECKS_WORDS", (99, 0))
    assert reading_faults(home) == []
    change(home, "UPDATE example_words_content SET c2 = 'wasps'")
    monkeypatch.setattr(read_only.sqlite3, "sqlite_version_info", (3, 40, 0))
    faults = reading_faults(home)
    assert faults and "FTS5" in faults[0]


def reading_faults(home: Home) -> list[str]:
    from ingle.app.house import rooms

    with read_only.reading(home, rooms()) as engine:
        return read_only.database_faults(engine)


DAMAGES = {
    "a turn": ("UPDATE turns SET content = '{'", "/v1/responses/ID"),
    "a turn that is no text": ("UPDATE turns SET content = x'ff'", "/v1/responses/ID"),
    "an example": ("UPDATE examples SET before = '[['", "/v1/memory"),
    "text that is not UTF-8": ("UPDATE examples SET answer = CAST(x'c3284d617261' AS TEXT)", "/v1/memory"),
    "a lesson": ("INSERT INTO lessons VALUES ('x', '', 'tiny', 'x', 'answers', '{', 1, 1, '2026-01-01T00:00:00+00:00')", "/v1/learning"),
    "a table that is gone": ("DROP TABLE lessons", "/v1/learning"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_database_is_a_503_with_the_cure(home: Home, what: str) -> None:
    statement, path = DAMAGES[what]
    with closing(sqlite3.connect(home.database_file)) as database:
        [first, *_] = [name for (name,) in database.execute("SELECT completion FROM turns WHERE completion IS NOT NULL ORDER BY at")]
    with serving(home.root) as server:
        assert server.get(path.replace("ID", first)).status_code == 200
        with closing(sqlite3.connect(home.database_file, isolation_level=None)) as database:
            database.execute(statement)
        response = server.get(path.replace("ID", first))
        assert response.status_code == 503 and "ingle verify" in error_of(response)["message"], response.text
        assert error_of(response)["type"] == "unavailable_error" and "Mara" not in response.text
        assert "bug" not in server.log and "Traceback" not in server.log


def test_a_server_makes_a_damaged_index_anew_and_says_so(home: Home) -> None:
    change(home, "UPDATE example_words_content SET c2 = 'wasps'")
    assert "`ingle serve` makes it anew" in ingle(home.root, "verify", code=7).stdout
    with serving(home.root) as server:
        assert [one["answer"] for one in server.get("/v1/memory?query=bees").json()["data"]] == ["The owner keeps bees and hens."]
        wait_until(lambda: "The index of memories was damaged." in server.log, "the log says so")
    assert told(home, 0)["database"] == []


def test_of_many_damaged_databases_every_one_is_found_or_says_the_same(home: Home) -> None:
    """Random bytes over random places of the file: `verify` finds it, or every row is as it was."""
    draw, whole = random.Random(41), home.database_file.read_bytes()
    assert not home.database_file.with_name("ingle.db-wal").exists()
    before, found = rows(home), 0
    for _ in range(105):
        damaged = bytearray(whole)
        at, length = draw.randrange(len(whole)), draw.choice([1, 8, 64, 512, 4096])
        damaged[at : at + length] = draw.randbytes(len(damaged[at : at + length]))
        home.database_file.write_bytes(damaged)
        code = verify_code(home)
        found += code == 7
        assert code == 7 or (code == 0 and not changed(before, rows(home))), (at, length, code, changed(before, rows(home)))
    assert found > 30


def verify_code(home: Home) -> int:
    from ingle.cli.main import main

    os.environ["INGLE_HOME"], kept = str(home.root), os.environ["INGLE_HOME"]
    try:
        return main(["verify", "--json"])
    finally:
        os.environ["INGLE_HOME"] = kept


UNSIGNED = {"at", "title", "updated", "created", "reasons", "comment", "before", "refused", "settings", "model", "asked", "number", "room"}
"""Columns that no fact holds a digest of."""
Rows = list[tuple[str, str, object]]


def rows(home: Home) -> Rows:
    """(table, column, value) of all that the file holds, but what no fact speaks of."""
    with closing(sqlite3.connect(f"file:{home.database_file}?immutable=1", uri=True)) as database:
        database.row_factory = sqlite3.Row
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'")]
        tables = [name for name in tables if not name.startswith(("sqlite_", "example_words"))]
        cells = [
            (name, column, row[column])
            for name in tables for row in database.execute(f"SELECT * FROM {name} ORDER BY 1, 2") for column in row.keys()  # noqa: SIM118 - a row is no table
            if column not in UNSIGNED or name == "ledger"
        ]  # fmt: skip
    return [(name, column, untimed(value) if (name, column) == ("turns", "facts") else value) for name, column, value in cells]


def untimed(facts: str | None) -> object:
    table = json.loads(facts or "null")
    return {name: value for name, value in table.items() if name not in ("queued_s", "prefill_s", "decode_s")} if table else table


def changed(before: Rows, after: Rows) -> Rows:
    return [one for one in after if one not in before] + [one for one in before if one not in after]
