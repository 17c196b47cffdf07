"""The database opens, brings its tables up to date once, and says in words what is wrong with it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingle.core.errors import HomeError, RequestError
from ingle.home.database import open_database, writing

ONE = (1, ("CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",))
TWO = (2, ("ALTER TABLE thing ADD COLUMN size INTEGER", "INSERT INTO thing (id, name, size) VALUES (1, 'a', 2)"))


def test_migrations_run_once_and_in_order(database_url: str) -> None:
    url = database_url
    open_database(url, {"things": (ONE,)}).dispose()
    for _ in range(2):
        engine = open_database(url, {"things": (ONE, TWO), "other": ((1, ("CREATE TABLE other (id INTEGER)",)),)})
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT * FROM thing")).all() == [(1, "a", 2)]
            versions = connection.execute(sa.text("SELECT room, number FROM schema_version ORDER BY room, number")).all()
            assert versions == [("other", 1), ("things", 1), ("things", 2)]
        engine.dispose()
    with pytest.raises(HomeError, match=r"version 1 at most.*Update Ingle"):
        open_database(url, {"things": (ONE,)})


def test_a_migration_that_fails_leaves_nothing(database_url: str) -> None:
    broken = (2, ("CREATE TABLE second (id INTEGER)", "CREATE TABLE nonsense ("))
    with pytest.raises(sa.exc.DBAPIError, match=r"syntax error|incomplete input"):
        open_database(database_url, {"things": (ONE, broken)})
    engine = open_database(database_url, {"things": (ONE, TWO)})
    assert "second" not in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_two_processes_may_open_it_first(database_url: str) -> None:
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                open_database(database_url, {"things": (ONE, TWO)}).dispose()
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 4


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_it_is_safe_against_power_cuts_and_checks_references(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS]
    assert pragmas == list(PRAGMAS.values())
    engine.dispose()


def test_a_write_that_fails_changes_nothing(database_url: str) -> None:
    engine = open_database(database_url, {"things": (ONE,)})
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        connection.execute(sa.text("INSERT INTO thing (id, name) VALUES (7, 'x')"))
        raise ZeroDivisionError
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT COUNT(*) FROM thing")).scalar_one() == 0
    engine.dispose()


def test_odd_characters_in_the_path_and_folders_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "what? 100% #1 é" / "sub" / "x.db"
    open_database(f"sqlite:///{path}", {"things": (ONE,)}).dispose()
    assert path.exists()


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.database.BUSY_TIMEOUT_S", 0.1)
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"this is no database" * 100)
    with pytest.raises(HomeError, match=r"not a database.*Move the file away"):
        open_database(f"sqlite:///{noise}", {"things": (ONE,)})
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(HomeError, match=r"unable to open.*INGLE_HOME"):
        open_database(f"sqlite:///{tmp_path / 'folder.db'}", {"things": (ONE,)})
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="INGLE_HOME"):
        open_database(f"sqlite:///{tmp_path / 'file' / 'x.db'}", {"things": (ONE,)})
    for url in ("nonsense", "madeupdb://host/x"):
        with pytest.raises(HomeError, match="INGLE_DATABASE_URL"):
            open_database(url)
    locked = tmp_path / "locked.db"
    other = sqlite3.connect(locked)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HomeError, match=r"locked.*Another process"):
        open_database(f"sqlite:///{locked}", {"things": (ONE,)})
    other.close()


def test_a_lock_in_postgresql_that_stays_is_said(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingle.home.database.BUSY_TIMEOUT_S", 0.1)
    engine = open_database(postgres_url, {"things": (ONE,)})
    statement = sa.text("LOCK TABLE thing IN EXCLUSIVE MODE")
    with writing(engine) as first:
        first.execute(statement)
        with pytest.raises(HomeError, match=r"lock timeout.*Another process"), writing(engine) as second:
            second.execute(statement)
    with writing(engine) as again:
        again.execute(statement)
    engine.dispose()


def test_a_postgresql_that_is_not_there_or_not_installed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HomeError, match=r"does not exist.*INGLE_DATABASE_URL"):
        open_database(sa.make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False))
    for url in ("postgresql://user:secret@127.0.0.1:9/x", "postgres://user:secret@127.0.0.1:9/x"):
        with pytest.raises(HomeError, match=r"Check that the server runs and that INGLE_DATABASE_URL") as error:
            open_database(url)
        assert "secret" not in str(error.value)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(HomeError, match=r"-m pip install 'psycopg\[binary\]"):
        open_database(postgres_url)


def test_connections_that_the_server_ended_are_replaced(postgres_url: str) -> None:
    engine = open_database(postgres_url, {"things": (ONE,)})
    other = open_database(postgres_url)
    with writing(other) as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'")
        )
    with writing(engine) as connection:
        connection.execute(sa.text("INSERT INTO thing (id, name) VALUES (1, 'a')"))
    for each in (engine, other):
        each.dispose()


def test_text_that_no_database_can_hold_is_the_requests_fault(database_url: str) -> None:
    engine = open_database(database_url, {"things": (ONE,)})
    insert = sa.text("INSERT INTO thing (id, name) VALUES (:id, :name)")
    with pytest.raises(RequestError, match="whole Unicode characters"), writing(engine) as connection:
        connection.execute(insert, {"id": 1, "name": "half \ud83d"})
    if engine.dialect.name == "postgresql":
        with pytest.raises(RequestError, match="other than NUL"), writing(engine) as connection:
            connection.execute(insert, {"id": 1, "name": "nul \0"})
    with writing(engine) as connection:
        connection.execute(insert, {"id": 1, "name": "模型 🙂"})
    engine.dispose()


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes there")
def test_the_file_is_for_its_owner_alone_whatever_the_folder_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o022)
    try:
        engine = open_database(f"sqlite:///{tmp_path / 'x.db'}", {"things": (ONE,)})
        with engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("x.db*")} == {0o600}
        engine.dispose()
    finally:
        os.umask(before)


def test_opening_it_again_leaves_the_locks_that_this_process_holds(tmp_path: Path) -> None:
    """Whoever closes a file takes from the process all locks on it (POSIX), SQLite's own too: then another process that leaves takes itself
    for the last one, and clears the log away that this one goes on writing to.
    """
    url, path = f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "x.db"
    first = open_database(url, {"things": (ONE,)})
    with first.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM sqlite_master")
        open_database(url, {"things": (ONE,)}).dispose()
        script = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('SELECT * FROM sqlite_master').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert (tmp_path / "x.db-wal").exists()
    first.dispose()
