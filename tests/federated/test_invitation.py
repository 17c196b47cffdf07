"""An invitation is read as it was written, and one that was altered, is too old, or protects nobody is refused."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError, FederatedError, IngleError
from ingle.federated.invitation import Invitation, Privacy, check_invitation, from_text, invite, to_text
from ingle.federated.statement import MARK, Letter, from_bytes, to_bytes
from ingle.ledger.keys import new_signer
from ingle.tuning.homework import Learning
from tests.examples import examples
from tests.federated.homes import invited

SIGNERS = [new_signer() for _ in range(4)]
GOOD = invited(SIGNERS)
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def test_it_comes_back_from_its_page_and_is_good() -> None:
    named = invite(replace(GOOD, name='Straße "am Ofen"\n\\ 7'), SIGNERS[0])
    for invitation in (GOOD, named):
        again = from_text(to_text(invitation))
        assert again == invitation and again.digest == invitation.digest
        check_invitation(again, NOW)
    assert GOOD.terms().threshold == 3 and GOOD.terms().federation == GOOD.digest != named.digest


@pytest.mark.parametrize("name", [field.name for field in fields(Invitation)])
def test_whatever_is_altered_is_found(name: str) -> None:
    value = getattr(GOOD, name)
    texts = {"coordinator": SIGNERS[1].verifier.public, "expires": "2101-01-01T00:00:00Z"}
    if isinstance(value, Learning | Privacy):
        other: object = replace(value, **{"steps" if name == "learning" else "records": 7})
    elif isinstance(value, str):
        other = texts.get(name, value[:-1] + ("1" if value.endswith("0") else "0"))
    else:
        other = value[::-1] if isinstance(value, tuple) else value * 2 + 1
    with pytest.raises(FederatedError, match="was altered after it was signed"):
        check_invitation(replace(GOOD, **{name: other}), NOW)


def test_who_invites_must_not_be_able_to_lower_the_terms() -> None:
    for change, match in (
        ({"threshold": 2}, "threshold must be from 3 to 4 for 4 homes, not 2"),
        ({"members": GOOD.members[:2]}, "at least 3"),
        ({"members": (*GOOD.members[:3], GOOD.members[0])}, "must be different"),
        ({"aggregation": "stack"}, "which no round does yet"),
        ({"aggregation": "average"}, "must be one of"),
        ({"reach": 0.0}, "reach"),
        ({"bits": 30}, "bits"),
        ({"rounds": 0}, "rounds"),
        ({"expires": "2100-01-01T00:00:00"}, "time zone"),
        ({"expires": "soon"}, "a date"),
        ({"learning": Learning(precision="auto")}, "learning.precision must be fp32 or bf16"),
        ({"learning": Learning(rate=0.0)}, "learning.rate"),
        ({"privacy": Privacy(epsilon=8.0)}, "privacy.unit must be record or home if anything is promised"),
    ):
        with pytest.raises(ConfigError, match=match):
            invite(replace(GOOD, **change), SIGNERS[0])  # type: ignore[arg-type]


def test_it_expires_in_every_time_zone_at_once() -> None:
    short = invite(replace(GOOD, expires="2026-11-30T00:00:00Z"), SIGNERS[0])
    east = timezone(timedelta(hours=9))
    check_invitation(short, (NOW - timedelta(seconds=1)).astimezone(east))
    check_invitation(short)
    with pytest.raises(FederatedError, match=r"good until 2026-11-30T00:00:00Z, and it is 2026-11-30 00:00Z.*clock"):
        check_invitation(short, NOW.astimezone(east))


def test_pages_that_are_none() -> None:
    page = to_text(GOOD)
    for text, match in (
        ("", "missing"),
        ("no = toml =", "can't be read"),
        (page[: len(page) // 2], "can't be read"),
        (page + "surprise = 1\n", "surprise is unknown"),
        (page.replace("rank = 2", 'rank = "2"'), "rank is a str"),
        (page.replace("reach = 1.0", "reach = 1"), "reach is a int"),
        (page.replace("[learning]\n", "[learning]\nhaste = 1\n"), "haste is unknown"),
        (page.replace("reach = 1.0", "reach = nan"), "reach is no number"),
        (page.replace("clip = 0.0", "clip = inf"), "clip is no number"),
        (page.replace("[privacy]", "[secrecy]"), "privacy is missing"),
        (page.replace("steps = 8", "steps = 8.5"), "steps is a float"),
        (page.split("[learning]")[0] + "learning = 3\nprivacy = 4\n", "learning is a int"),
        (page.replace('members = ["', 'members = [1, "'), "members are keys"),
    ):
        with pytest.raises(FederatedError, match=match):
            from_text(text)


PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


@given(kind=st.text(max_size=9), body=st.binary(max_size=50), head=st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
def test_letters_come_back(kind: str, body: bytes, head: dict[str, object]) -> None:
    letter = Letter(kind, head, body)
    data = to_bytes(letter)
    assert from_bytes(data) == letter and to_bytes(from_bytes(data)) == data


@given(at=st.integers(0, 200), length=st.integers(0, 200), junk=st.binary(max_size=20))
@examples(200)
def test_damaged_letters_are_a_clear_error_or_another_letter(at: int, length: int, junk: bytes) -> None:
    data = to_bytes(Letter("keys", {"round": 3, "base": "b" * 64}, b"some bytes"))
    damaged = data[:at] + junk + data[at + length :]
    try:
        from_bytes(damaged)
    except IngleError as error:
        assert isinstance(error, FederatedError) and error.cure


@pytest.mark.parametrize("head", [b'{"kind":"a","head":NaN}', b'{"kind":1,"head":{}}', b"[]", b'{"kind":"a"}', b"\xff", b"[" * 5000])
def test_heads_that_are_none(head: bytes) -> None:
    sizes = len(head).to_bytes(8, "little") + bytes(8)
    with pytest.raises(FederatedError):
        from_bytes(MARK + sizes + head)
