"""`ingle federate`: keys, invitations, consent, and what is said about a federation. Rounds themselves: tests/federated."""

import json
from pathlib import Path

import pytest

from ingle.federated.consent import read_consent
from ingle.federated.invitation import check_invitation, from_text
from ingle.federated.standing import folder_of
from ingle.federated.statement import Letter, to_bytes
from ingle.federated.transport import logged_answers
from ingle.home.place import Home
from tests.cli.place import ingle, write_model


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("homes")
    model = write_model(folder / "tiny")
    for name in "abc":
        ingle(folder / name, "pull", str(model), "--name", "tiny")
    return [folder / name for name in "abc"]


@pytest.fixture(scope="module")
def invitation(homes: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = [ingle(home, "federate", "key").stdout.strip() for home in homes]
    assert len(set(keys)) == 3 and all(len(key) == 64 for key in keys)
    path = tmp_path_factory.mktemp("invited") / "street.toml"
    told = ingle(
        homes[0], "federate", "invite", "street", "--model", "tiny", "--member", keys[1], "--member", keys[2], "--rounds", "2",
        "--set", "learning.steps=3", "--out", str(path),
    )  # fmt: skip
    assert "3 homes, 2 rounds" in told.stdout and "Nobody ever sees your home's own update" in told.stderr
    return path


def test_an_invitation_says_what_was_asked_for_and_is_signed(invitation: Path, homes: list[Path]) -> None:
    found = from_text(invitation.read_text())
    check_invitation(found)
    assert (found.rounds, found.threshold, found.learning.steps, found.link) == (2, 3, 3, "127.0.0.1:9400")
    noisy = ingle(homes[0], "federate", "invite", "loud", "--model", "tiny", "--member", found.members[1], "--member", found.members[2],
                  "--epsilon", "8", "--records", "90000", "--set", "rank=2", "--out", str(invitation.with_name("loud.toml")))  # fmt: skip
    assert "ε 8" in noisy.stderr and from_text(invitation.with_name("loud.toml").read_text()).privacy.numbers > 0
    drowned = ingle(homes[0], "federate", "invite", "loud", "--model", "tiny", "--member", found.members[1], "--member", found.members[2],
                    "--epsilon", "1", "--records", "20", code=2)  # fmt: skip
    assert "times the signal" in drowned.stderr
    assert "how many examples" in ingle(homes[0], "federate", "invite", "x", "--model", "tiny", "--epsilon", "8", code=2).stderr
    assert "at least 3" in ingle(homes[0], "federate", "invite", "two", "--model", "tiny", "--member", found.members[1], code=2).stderr
    twice = ["--member", found.members[1], "--member", found.members[1]]
    assert "the same key twice" in ingle(homes[0], "federate", "invite", "two", "--model", "tiny", *twice, code=2).stderr


def test_nothing_is_sent_without_a_yes(invitation: Path, homes: list[Path], tmp_path: Path) -> None:
    data = tmp_path / "notes.jsonl"
    data.write_text('{"prompt": "say", "completion": "it"}\n')
    home, found = Home(homes[1]), from_text(invitation.read_text())
    asked = ingle(homes[1], "federate", "join", str(invitation), "--data", str(data), code=2)
    assert "1 example" in asked.stderr and "consent is needed" in asked.stderr
    assert read_consent(home, found) is None
    assert "--data must name examples" in ingle(homes[1], "federate", "join", str(invitation), code=2).stderr
    assert "must name files" in ingle(homes[1], "federate", "join", str(invitation), "--data", str(tmp_path), "--yes", code=2).stderr
    leading = ingle(homes[1], "federate", "start", str(invitation), "--data", str(data), "--yes", code=2)
    assert "is for the home that invited" in leading.stderr and "--resume" in leading.stderr
    altered = tmp_path / "altered.toml"
    altered.write_text(invitation.read_text().replace("rounds = 2", "rounds = 9"))
    assert "was altered" in ingle(homes[1], "federate", "join", str(altered), "--data", str(data), "--yes", code=14).stderr
    altered.write_text("rounds = ")
    assert "can't be read" in ingle(homes[1], "federate", "join", str(altered), "--data", str(data), "--yes", code=14).stderr


def test_status_left_audit_and_leave(invitation: Path, homes: list[Path], tmp_path: Path) -> None:
    assert "is in no federation" in ingle(homes[2], "federate").stderr
    assert "There are: none" in ingle(homes[2], "federate", "left", "street", code=2).stderr
    from ingle.federated.consent import keep_consent, lent

    data = tmp_path / "mails.jsonl"
    data.write_text('{"prompt": "say", "completion": "it"}\n')
    home, found = Home(homes[2]), from_text(invitation.read_text())
    keep_consent(home, found, lent({data: 1}))
    logged_answers(lambda data: data, folder_of(home, found))(to_bytes(Letter("met")))
    [status] = json.loads(ingle(homes[2], "federate", "status", "--json").stdout)
    assert (status["name"], status["lent"], status["messages"], status["accepted"]) == ("street", 1, 1, 0)
    assert "1 examples" in ingle(homes[2], "federate", "status").stdout
    [left] = json.loads(ingle(homes[2], "federate", "left", "--json").stdout)
    assert (left["to"], left["kind"]) == ("coordinator", "met")
    assert "coordinator" in ingle(homes[2], "federate", "left", "street").stdout
    assert "agree. Compare with other homes" in ingle(homes[2], "federate", "audit", "street").stdout
    assert "lends nothing any more" in ingle(homes[2], "federate", "leave", "street").stdout
    assert "lends its examples no more" in ingle(homes[2], "log").stdout
    assert "lent nothing" in ingle(homes[2], "federate", "leave", "street").stdout
