"""The same ledger in PostgreSQL, where there is one: set INGLE_TEST_POSTGRES to the URL of a database that may be emptied."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from ledger_place import Place

from ingle.core.errors import HomeError, LedgerError
from ingle.core.event import Event
from ingle.home.database import open_database
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS

URL = os.environ.get("INGLE_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(not URL, reason="INGLE_TEST_POSTGRES is not set")


@pytest.fixture(autouse=True)
def _empty() -> None:
    engine = sa.create_engine(URL)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS ledger, schema_version"))
    engine.dispose()


def child(keys: Path, count: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ledger = Ledger(open_database(URL, {"ledger": MIGRATIONS}), keys)
        for number in range(count):
            ledger.append(Event("answer", "m", {"n": number}))
        status = 0
    finally:
        os._exit(status)


def test_processes_at_once_make_one_chain_and_tampering_is_found(place: Place) -> None:
    pids = [child(place.keys, 30) for _ in range(3)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    engine = open_database(URL, {"ledger": MIGRATIONS})
    ledger = Ledger(engine, place.keys)
    found = ledger.verify()
    assert found.problem is None and found.count == 90
    assert [row.seq for row in ledger.read(kind="answer", subject="m", last=2)] == [90, 89]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE ledger SET subject = 'x' WHERE seq = 7"))
    problem = ledger.verify().problem
    assert problem is not None and problem.seq == 7
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM ledger WHERE seq > 80"))
    with pytest.raises(LedgerError, match="80 rows where the signed head says 90"):
        ledger.append(Event("pull"))
    engine.dispose()


def test_a_server_that_is_not_there() -> None:
    url = sa.make_url(URL).set(host="127.0.0.1", port=9).render_as_string(hide_password=False)
    with pytest.raises(HomeError, match=r"connection.*INGLE_DATABASE_URL"):
        open_database(url, {"ledger": MIGRATIONS})
