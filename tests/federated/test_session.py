"""A coordinator leads real homes through all rounds; homes drop out, miss verdicts and come back, and another home takes over."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, HomeError
from ingle.core.report import Event
from ingle.federated.at_home import Taking, audit, node_of, shapes_of
from ingle.federated.consent import (
    check_unchanged,
    federation_status,
    federations,
    find_federation,
    keep_consent,
    lent,
    read_consent,
    withdraw,
)
from ingle.federated.coordinator import FAILURES, SessionWatch, coordinate
from ingle.federated.home_node import responder
from ingle.federated.invitation import Invitation, invite
from ingle.federated.standing import FACTORS, ROUNDS, folder_of, missed
from ingle.federated.statement import Letter, from_bytes, to_bytes
from ingle.federated.transport import LEFT, TO_COORDINATOR, Ask, beside, local, logged_answers, logged_requests, what_left
from ingle.gate.check import Policy, names
from ingle.home.database import open_database
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.ledger.chain import Ledger
from ingle.ledger.keys import Signer, load_ring
from ingle.ledger.table import MIGRATIONS
from tests.cli.place import write_model
from tests.federated.test_at_home import made_up
from tests.waiting import PATIENCE_S

HOMES, ROUNDS_ASKED = 4, 4


@dataclass
class Street:
    """Homes that answer, and a switch for each."""

    takings: list[Taking]
    ledgers: list[Ledger]
    signers: list[Signer]

    def ask(self, by: int, away: Callable[[int, str], bool] = lambda _seat, _kind: False) -> Ask:
        """Reach all homes from home `by`; a home for which `away` is true with a kind of letter doesn't answer it."""

        def answering(seat: int) -> Callable[[bytes], bytes | None]:
            taking = self.takings[seat]
            respond = logged_answers(responder(node_of(taking, self.signers[seat])), folder_of(taking.home, taking.invitation))
            return lambda data: None if away(seat, from_bytes(data).kind) else respond(data)

        homes = {seat: answering(seat) for seat in range(HOMES)}
        own = homes.pop(by)
        taking = self.takings[by]
        return beside(logged_requests(local(homes), folder_of(taking.home, taking.invitation)), by, own)

    def bases(self) -> list[str]:
        return [taking.standing.base for taking in self.takings]


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    model = write_model(tmp_path / "tiny")
    with ExitStack() as stack:
        homes, ledgers, signers = [], [], []
        for seat in range(HOMES):
            home = Home(tmp_path / f"home{seat}")
            pull(home, str(model), lambda _: None, "tiny")
            engine = open_database(home.database_url, {"ledger": MIGRATIONS})
            stack.callback(engine.dispose)
            ledgers.append(Ledger(engine, home.keys))
            ledgers[-1].append(Event("pull", "tiny"))
            homes.append(home)
            signers.append(load_ring(home.keys).signers[-1])
        kept = [get_kept(home, "tiny") for home in homes]
        members = tuple(signer.verifier.public for signer in signers)
        asked = Invitation("street", kept[0].digest, "", members, 3, ROUNDS_ASKED, "2100-01-01T00:00:00Z", rank=2, seed=5, reach=4.0)
        invitation = invite(asked, signers[0])
        off = Policy({name: {"on": False} for name in names()})
        yield Street(
            [Taking(homes[i], kept[i], invitation, made_up(i, 0.01), off, ledgers[i].append) for i in range(HOMES)], ledgers, signers
        )


def never() -> bool:
    return False


def test_rounds_go_on_until_all_are_done_and_every_home_can_count_them_again(street: Street) -> None:
    heard: list[tuple[int, int]] = []
    standing = coordinate(street.takings[0], street.ask(0), 60.0, never, SessionWatch(began=lambda *told: heard.append(told)))
    assert (standing.accepted, heard) == (ROUNDS_ASKED, [(number, number - 1) for number in range(1, ROUNDS_ASKED + 1)])
    assert len(set(street.bases())) == 1
    for taking, ledger in zip(street.takings, street.ledgers, strict=True):
        found = audit(taking.home, taking.invitation, ledger)
        assert found.problems == () and [one.number for one in found.verdicts] == [1, 2, 3, 4] and found.base == standing.base
        messages = what_left(folder_of(taking.home, taking.invitation))
        assert {"join", "keys", "update", "agree", "shares", "vote", "ended"} <= {one.kind for one in messages}
        assert all(one.kind in TO_COORDINATOR for one in messages if one.to == "coordinator")
    assert coordinate(street.takings[0], street.ask(0), 60.0, never) is not None, "all done: nobody is asked"


def test_nobody_is_waited_for_once_it_is_stopped(street: Street) -> None:
    asked, go, waited = threading.Event(), threading.Event(), list[str]()

    def away(seat: int, kind: str) -> bool:
        if seat == 2 and kind == "keys":
            asked.set()
            if not go.wait(PATIENCE_S):
                waited.append("in vain")
        return False

    leading = street.takings[0]
    ask = beside(street.ask(0, away), 9, lambda data: data, asked.is_set)
    assert coordinate(leading, ask, 2 * PATIENCE_S, asked.is_set).accepted < ROUNDS_ASKED
    assert not waited, "its deadline is far away"
    go.set()
    assert coordinate(leading, street.ask(0), 60.0, never).accepted == ROUNDS_ASKED


def test_the_list_of_what_left_is_what_went_over_the_wire(street: Street) -> None:
    """A recorder between transport and homes sees the same messages, byte for byte, in both directions."""
    seen: dict[str, list[tuple[int, str]]] = {f"seat {seat}": [] for seat in range(HOMES)} | {f"from {seat}": [] for seat in range(HOMES)}
    homes = {}
    for seat, taking in enumerate(street.takings):
        respond = logged_answers(responder(node_of(taking, street.signers[seat])), folder_of(taking.home, taking.invitation))

        def recorded(data: bytes, seat: int = seat, respond: Callable[[bytes], bytes] = respond) -> bytes:
            reply = respond(data)
            seen[f"seat {seat}"].append((len(data), digest_bytes(data)))
            seen[f"from {seat}"].append((len(reply), digest_bytes(reply)))
            return reply

        homes[seat] = recorded
    leading = street.takings[0]
    coordinate(leading, logged_requests(local(homes), folder_of(leading.home, leading.invitation)), 60.0, never)
    for seat, taking in enumerate(street.takings):
        told = what_left(folder_of(taking.home, taking.invitation))
        assert [(one.bytes, one.sha256) for one in told if one.to == "coordinator"] == seen[f"from {seat}"]
    led = what_left(folder_of(leading.home, leading.invitation))
    for seat in range(HOMES):
        assert [(one.bytes, one.sha256) for one in led if one.to == f"seat {seat}"] == seen[f"seat {seat}"]


def test_a_home_that_was_away_is_told_what_it_missed(street: Street) -> None:
    rounds: list[int] = []

    def away(seat: int, kind: str) -> bool:
        return seat == 3 and len(rounds) in (1, 2) and (len(rounds) == 2 or kind == "end")

    done = coordinate(street.takings[0], street.ask(0, away), 60.0, never, SessionWatch(ended=lambda end: rounds.append(end.round.number)))
    assert done.accepted == ROUNDS_ASKED
    assert len(set(street.bases())) == 1, "it caught up, and was in the last round again"
    assert audit(street.takings[3].home, street.takings[3].invitation, street.ledgers[3]).problems == ()


def test_another_home_takes_the_place_of_a_coordinator_that_is_gone(street: Street) -> None:
    rounds: list[int] = []
    coordinate(
        street.takings[0], street.ask(0), 60.0, lambda: len(rounds) == 2, SessionWatch(ended=lambda end: rounds.append(end.round.number))
    )
    assert street.takings[2].standing.accepted == 2
    gone = street.ask(2, lambda seat, _: seat == 0)
    assert coordinate(street.takings[2], gone, 60.0, never).accepted == ROUNDS_ASKED
    assert len(set(street.bases()[1:])) == 1 != len(set(street.bases()))
    back = replace(street.takings[0])
    base = street.takings[2].standing.base
    letters = missed(street.takings[2].home, back.invitation, back.standing.base)
    assert len(letters) == 2
    respond = responder(node_of(back, street.signers[0]))
    assert [from_bytes(respond(to_bytes(letter))).kind for letter in letters] == ["ended", "ended"]
    assert street.takings[0].standing.base == base
    assert missed(back.home, back.invitation, base) == [] == missed(back.home, back.invitation, "f" * 64)


def test_too_few_homes_and_rounds_that_come_to_nothing(street: Street) -> None:
    with pytest.raises(FederatedError, match="homes must be at least 3 to begin"):
        coordinate(street.takings[0], street.ask(0, lambda seat, _: seat in (1, 2)), 5.0, never)
    ended: list[str] = []
    with pytest.raises(FederatedError, match=f"{FAILURES} rounds in a row came to nothing"):
        coordinate(
            street.takings[0], street.ask(0, lambda seat, kind: kind == "shares" and seat > 1), 5.0, never,
            SessionWatch(ended=lambda end: ended.append(end.round.failure)),
        )  # fmt: skip
    assert len(ended) == FAILURES and all("2 homes of 4 answered (shares)" in text for text in ended)
    assert set(street.bases()) == {street.takings[0].kept.digest}, "nothing of it is known"
    assert coordinate(street.takings[0], street.ask(0), 60.0, never).accepted == ROUNDS_ASKED, "the same call goes on"


def test_an_audit_finds_what_was_altered(street: Street) -> None:
    coordinate(street.takings[0], street.ask(0), 60.0, never)
    taking, ledger = street.takings[1], street.ledgers[1]
    rounds = folder_of(taking.home, taking.invitation) / ROUNDS
    paths = sorted(rounds.iterdir())
    whole = paths[1].read_bytes()

    def problem() -> str:
        return audit(taking.home, taking.invitation, ledger).sentence

    letter = from_bytes(whole)
    changes: Mapping[str, bytes | None] = {
        "must be as the homes signed it": to_bytes(replace(letter, body=letter.body[:-1] + bytes([letter.body[-1] ^ 1]))),
        "It was cut on the way": whole[:-1],
        "and follow from": None,
    }
    for told, data in changes.items():
        paths[1].unlink() if data is None else paths[1].write_bytes(data)
        assert told in problem(), told
        paths[1].write_bytes(whole)
    assert "Compare with other homes" in problem()
    factors = folder_of(taking.home, taking.invitation) / FACTORS
    kept = factors.read_bytes()
    factors.write_bytes(kept[:-4] + b"\0\0\0@")
    assert "is not the sum of its rounds" in problem()
    factors.write_bytes(kept)
    empty = Ledger(open_database(f"sqlite:///{taking.home.root / 'other.db'}", {"ledger": MIGRATIONS}), taking.home.root / "other_keys")
    assert "has no row of round 1, 2, 3, 4" in audit(taking.home, taking.invitation, empty).sentence


def test_consent_is_kept_found_checked_and_withdrawn(street: Street, tmp_path: Path) -> None:
    taking = street.takings[0]
    home, invitation = taking.home, taking.invitation
    data = tmp_path / "letters.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    assert federations(home) == [] and read_consent(home, invitation) is None
    consent = lent({data: 1})
    fact = keep_consent(home, invitation, consent)
    assert fact.kind == "federate.join" and fact.facts["examples"] == 1 and "letters" not in str(fact.facts)
    assert read_consent(home, invitation) == consent and find_federation(home, "") == invitation == find_federation(home, "street")
    assert federation_status(home, invitation).lent == 1
    check_unchanged(consent)
    data.write_text('{"prompt": "a", "completion": "something else"}\n')
    with pytest.raises(FederatedError, match=r"letters\.jsonl has changed since you agreed to lend it"):
        check_unchanged(consent)
    assert withdraw(home, invitation).kind == "federate.leave"
    assert read_consent(home, invitation) is None and federation_status(home, invitation).lent is None


def test_the_list_of_what_left_survives_a_crash_and_refuses_what_is_no_message(tmp_path: Path) -> None:
    sent = to_bytes(Letter("met"))
    respond = logged_answers(lambda data: data, tmp_path)
    respond(sent)
    whole = (tmp_path / LEFT).read_bytes()
    (tmp_path / LEFT).write_bytes(whole + whole[:20])
    assert [one.kind for one in what_left(tmp_path)] == ["met"]
    respond(sent)
    assert (tmp_path / LEFT).read_bytes().count(b"\n") == 2 and [one.bytes for one in what_left(tmp_path)] == [len(sent)] * 2
    with pytest.raises(FederatedError, match="It was not sent"):
        respond(to_bytes(Letter("gossip")))
    assert len(what_left(tmp_path)) == 2
    (tmp_path / LEFT).write_bytes(b"nonsense\n")
    with pytest.raises(HomeError, match="must list what left this machine"):
        what_left(tmp_path)


def test_the_model_must_be_there(street: Street) -> None:
    assert shapes_of(street.takings[0].home, street.takings[0].kept, street.takings[0].invitation)
    other = invite(replace(street.takings[0].invitation, base="c" * 64), street.signers[0])
    with pytest.raises(HomeError, match="is not kept here"):
        audit(street.takings[0].home, other, street.ledgers[0])


def test_threads_that_send_at_once_lose_no_line(tmp_path: Path) -> None:
    respond = logged_answers(lambda data: data, tmp_path)
    threads = [threading.Thread(target=lambda: [respond(to_bytes(Letter("vote"))) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(what_left(tmp_path)) == 80
