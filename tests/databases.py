"""The databases that storage is tested on: SQLite, and a real PostgreSQL.

PostgreSQL is the database that INGLE_TEST_POSTGRES names (it is emptied for every test; of several processes of tests each makes one
of its own beside it), else a cluster of our own, started from the server programs that this machine has. Without either, tests that
need it are skipped; with INGLE_TEST_NEEDS_POSTGRES they fail.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.waiting import PATIENCE_S, wait_until

# Ends the server when standard input ends, so also when the tests are killed; then nothing of the cluster is left.
_GUARDED = '"$@" & read -r _; kill -INT $!; wait $!; rm -rf "$CLUSTER"'
# Nothing here must survive a power cut, and nobody but the tests may connect.
_SETTINGS = {
    "listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB",
    "max_connections": "60", "log_min_messages": "fatal",
}  # fmt: skip
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a database in PostgreSQL that may be emptied."""
    if given := os.environ.get("INGLE_TEST_POSTGRES"):
        with _beside(given, os.environ.get("PYTEST_XDIST_WORKER")) as url:
            yield url
        return
    programs = _programs()
    if os.name == "nt" or programs is None:
        _do_without("PostgreSQL's server isn't installed here (on Debian: apt install postgresql), and INGLE_TEST_POSTGRES is not set")
    with _cluster(programs) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of an empty database in PostgreSQL."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        # What a failed test left open would hold the tables.
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database: every test that uses it runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'facts.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@contextmanager
def _beside(given: str, process: str | None) -> Iterator[str]:
    """A database of this process's own on the server of `given`, gone afterwards; with one process only that database itself."""
    if process is None:
        yield given
        return
    import psycopg
    from psycopg.sql import SQL, Identifier
    from sqlalchemy import make_url

    url = make_url(given)
    name = f"{url.database or 'ingle'}_{process}"
    with psycopg.connect(given, autocommit=True) as connection:
        gone = SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name))
        connection.execute(gone)
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(gone)


@contextmanager
def _cluster(programs: Path) -> Iterator[str]:
    """A cluster that only this user can reach, through a socket in a folder of its own."""
    owner, group = _server_user()
    folder = Path(tempfile.mkdtemp(prefix="ingle-pg-"))  # not in pytest's own folder: a socket's path must be shorter than 100 characters
    if owner is not None:
        os.chown(folder, owner, group or 0)
    try:
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "ingle", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            user=owner, group=group, extra_groups=() if owner else None, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            _do_without(f"PostgreSQL's initdb failed: {made.stderr.strip()[-500:]}")
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "unix_socket_directories": str(folder)}.items()]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(
                ["sh", "-c", _GUARDED, "sh", programs / "postgres", "-D", folder / "data", *settings],
                user=owner, group=group, extra_groups=() if owner else None, cwd=folder, env={**os.environ, "CLUSTER": str(folder)},
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            ) as server,
        ):  # fmt: skip
            assert server.stdin is not None
            try:
                _await(folder, server)
                yield f"postgresql:///postgres?host={folder}&user=ingle"
            finally:
                server.stdin.close()
                server.wait(timeout=PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    import psycopg

    def there() -> bool:
        try:
            psycopg.connect(f"host={folder} user=ingle dbname=postgres").close()
        except psycopg.OperationalError as error:
            if server.poll() is not None:
                _do_without(f"PostgreSQL didn't start: {error}; {(folder / 'log').read_text()[-500:]}")
            return False
        return True

    wait_until(there, "PostgreSQL takes connections")


def _programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest first."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [folder for pattern in _FOLDERS for folder in Path("/").glob(pattern[1:]) if (folder / "postgres").exists()]
    return max(
        folders,
        key=lambda folder: [int(digits) for digits in "".join(c if c.isdigit() else " " for c in str(folder)).split()],
        default=None,
    )


def _server_user() -> tuple[int | None, int | None]:
    """(user, group) for the server, which refuses to run as the administrator; (None, None) = who we are will do."""
    if os.geteuid() != 0:
        return None, None
    import pwd

    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("INGLE_TEST_NEEDS_POSTGRES"):
        pytest.fail(reason)
    pytest.skip(reason)
