"""Keys are good from the moment that they are made until they are revoked, and nowhere kept as they are; on both databases."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingle.core.errors import ConfigError, NotKept
from ingle.home.api_keys import MIGRATIONS, ApiKey, add_key, any_keys, check_key, list_keys, revoke_key
from ingle.home.database import open_database


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_database(database_url, {"api_keys": MIGRATIONS})
    yield opened
    opened.dispose()


def test_a_key_is_good_until_it_is_revoked(engine: sa.Engine) -> None:
    assert not any_keys(engine) and list_keys(engine) == ()
    laptop, secret = add_key(engine, "laptop")
    phone, other = add_key(engine, "Anna's 电话", 30)
    assert re.fullmatch(r"ingle-[A-Za-z0-9_-]{43}", secret) and secret != other
    assert re.fullmatch(r"key-[0-9a-f]{12}", laptop.id) and laptop.requests_per_minute is None and phone.requests_per_minute == 30
    assert check_key(engine, secret) == laptop and check_key(engine, other) == phone
    assert list_keys(engine) == (laptop, phone) and any_keys(engine)
    revoked = revoke_key(engine, "laptop")
    assert revoked.id == laptop.id and revoked.revoked is not None and revoked.revoked >= laptop.created
    assert check_key(engine, secret) is None and check_key(engine, other) == phone
    assert list_keys(engine) == (revoked, phone) and any_keys(engine)
    assert revoke_key(engine, phone.id).id == phone.id
    assert check_key(engine, other) is None and not any_keys(engine)


def test_what_is_not_the_secret_is_refused(engine: sa.Engine) -> None:
    key, secret = add_key(engine, "k")
    with engine.connect() as connection:
        hashed = connection.execute(sa.text("SELECT hash FROM api_keys")).scalar_one()
    for wrong in (
        "",
        "ingle-",
        key.id,
        "k",
        hashed,
        secret[:-1],
        secret + "x",
        secret.upper(),
        f" {secret}",
        f"{secret}\n",
        "\0",
        "\ud83d",
        "x" * 10**6,
    ):
        assert check_key(engine, wrong) is None, wrong[:50]
    assert check_key(engine, secret) == key


def test_the_secret_is_nowhere_in_the_database(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'facts.db'}", {"api_keys": MIGRATIONS})
    _, secret = add_key(engine, "k")
    for file in tmp_path.iterdir():
        assert secret.removeprefix("ingle-").encode() not in file.read_bytes()
    engine.dispose()


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "two\nlines", "nul\0", "\x1b[31m", "half \ud83d", "x" * 101, "key-0123456789ab"])
def test_names_that_cannot_be_used(engine: sa.Engine, name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 100 printable characters"):
        add_key(engine, name)
    assert list_keys(engine) == ()


@pytest.mark.parametrize("rate", [0, -1, 1_000_001])
def test_rates_out_of_range(engine: sa.Engine, rate: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 1000000"):
        add_key(engine, "k", rate)


@pytest.mark.parametrize("name", ["laptop", "locked", "connect", "it's $HOME"])
def test_a_name_belongs_to_one_good_key(engine: sa.Engine, name: str) -> None:
    first, _ = add_key(engine, name)
    with pytest.raises(ConfigError, match="Another key is called"):
        add_key(engine, name)
    revoke_key(engine, name)
    second, secret = add_key(engine, name)
    assert check_key(engine, secret) == second and first.id != second.id
    assert revoke_key(engine, name).id == second.id


def test_revoking_what_is_no_good_key_names_those_that_are(engine: sa.Engine) -> None:
    with pytest.raises(NotKept, match="Good keys: none"):
        revoke_key(engine, "laptop")
    key, _ = add_key(engine, "laptop")
    for wrong in ("Laptop", "", "%", key.id[:-1], "' OR 1=1 --"):
        with pytest.raises(NotKept, match=rf"Good keys: laptop \({key.id}\)"):
            revoke_key(engine, wrong)
    revoke_key(engine, key.id)
    for again in ("laptop", key.id):
        with pytest.raises(NotKept):
            revoke_key(engine, again)


def test_of_many_that_want_one_name_one_gets_it(engine: sa.Engine) -> None:
    def want(_: int) -> ApiKey | None:
        try:
            return add_key(engine, "laptop")[0]
        except ConfigError:
            return None

    with ThreadPoolExecutor(8) as pool:
        got = [key for key in pool.map(want, range(16)) if key is not None]
    assert tuple(got) == list_keys(engine) and len(got) == 1


def test_a_key_is_told_before_it_is_good(engine: sa.Engine) -> None:
    """A kill, or a full disk, between the two leaves a fact without a key, never a good key that no fact names."""
    good = list[bool]()
    add_key(engine, "laptop", tell=lambda key, _secret: good.append(key in list_keys(engine)))
    assert good == [False]

    def fail(_key: ApiKey, _secret: str) -> None:
        raise OSError

    with pytest.raises(OSError):
        add_key(engine, "phone", tell=fail)
    assert [key.name for key in list_keys(engine)] == ["laptop"]
    with pytest.raises(ConfigError, match="already"):
        add_key(engine, "laptop", tell=fail)  # nothing is told
