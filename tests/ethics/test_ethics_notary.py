"""The key that signs what leaves the home: born as a fact, and never replaced in silence."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from ingle.core.errors import LedgerError
from ingle.ethics.notary import KEY, Notary, accept_lost_notary, named, notary, notary_fault
from ingle.home.database import open_database
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS
from tests.ethics.place import bundle, fingerprint, make_home, run

T = TypeVar("T")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home", 3)


def on(home: Home, act: Callable[[Home, Ledger], T]) -> T:
    engine = open_database(home.database_url, {"ledger": MIGRATIONS})
    try:
        return act(home, Ledger(engine, home.keys))
    finally:
        engine.dispose()


def fact(home: Home) -> dict[str, object]:
    row = on(home, lambda _home, ledger: named(ledger))
    assert row is not None
    return dict(row.values)


def test_it_is_made_once_for_its_owner_alone_and_its_birth_is_a_fact(home: Home) -> None:
    made: Notary = on(home, notary)
    assert on(home, notary).public == made.public
    assert fact(home) == {"fingerprint": made.fingerprint}
    if os.name != "nt":
        assert stat.S_IMODE((home.keys / KEY).stat().st_mode) == 0o600


def test_a_key_whose_fact_was_cut_off_gets_it(home: Home) -> None:
    other = make_home(home.root.parent / "other", 3)
    on(other, notary)
    (home.keys / KEY).write_bytes((other.keys / KEY).read_bytes())  # as after a kill between the file and its fact
    (home.keys / KEY).chmod(0o600)
    assert fact(other) == {"fingerprint": on(home, notary).fingerprint} == fact(home)


def test_a_lost_exchanged_exposed_or_damaged_key_is_refused(home: Home) -> None:
    made = on(home, notary)
    path = home.keys / KEY
    whole = path.read_bytes()
    if os.name != "nt":
        path.chmod(0o644)
        with pytest.raises(LedgerError, match=r"owner alone.*mode 644.*chmod 600"):
            on(home, notary)
        with pytest.raises(LedgerError, match="owner alone"):
            on(home, accept_lost_notary)
        path.chmod(0o600)
    path.write_bytes(b"-----BEGIN")
    with pytest.raises(LedgerError, match=r"private key as PEM.*accept-loss"):
        on(home, notary)
    other = make_home(home.root.parent / "other", 1)
    on(other, notary)
    path.write_bytes((other.keys / KEY).read_bytes())
    with pytest.raises(LedgerError, match=f"where fact 4 says {made.fingerprint[:12]}"):
        on(home, notary)
    path.unlink()
    with pytest.raises(LedgerError, match=r"no such file, and fact 4 says.*accept-loss"):
        on(home, notary)
    assert on(home, notary_fault)
    path.write_bytes(whole)
    path.chmod(0o600)
    assert not on(home, notary_fault)
    with pytest.raises(LedgerError, match="not lost"):
        on(home, accept_lost_notary)


def test_after_a_loss_a_new_key_goes_on_and_what_was_signed_stays_good(home: Home, tmp_path: Path) -> None:
    made = on(home, notary)
    bundle(home, tmp_path / "before", (1, 2))
    (home.keys / KEY).unlink()
    on(home, accept_lost_notary)
    again = on(home, notary)
    assert again.public != made.public
    assert fact(home) == {"fingerprint": again.fingerprint, "lost": made.fingerprint}
    bundle(home, tmp_path / "after", (1, 2))
    for folder in ("before", "after"):
        assert run(tmp_path / folder, fingerprint(home)).returncode == 0
