"""Rounds of homes that learn, over a transport: what they come to, who may drop out or lie on the way, and what stands in their ledgers."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ingle.core.digest import digest_bytes
from ingle.core.errors import FederatedError, raised
from ingle.federated.home_node import responder
from ingle.federated.rounds import STAGES, Round, close, gather, hear, requests
from ingle.federated.secure_sum import plain_sum
from ingle.federated.statement import Letter, Statement, from_bytes, state, to_bytes
from ingle.federated.terms import unpack
from ingle.federated.verdict import believe_agreed, count
from ingle.home.database import open_database
from ingle.ledger.chain import Ledger
from ingle.ledger.table import MIGRATIONS
from tests.federated.homes import BASE, Learner
from tests.federated.street import SIGNERS, Street
from tests.waiting import PATIENCE_S


def test_homes_learn_together_what_none_learns_alone() -> None:
    street = Street()
    alone = [Learner(seat, street.invitation, lambda _: None) for seat in range(4)]
    everything = [tuple(map(np.concatenate, zip(*(home.held_out for home in alone), strict=True)))]
    for _ in range(8):
        assert street.round().followed == (0, 1, 2, 3)
        for home in alone:
            home.alone(0)
    together = street.learners[0].loss(street.learners[0].factors, everything[0])
    by_itself = [home.loss(home.factors, everything[0]) for home in alone]
    assert together < 0.5 * min(by_itself), (together, by_itself)
    digests = {digest_bytes(b"".join(home.factors[name].tobytes() for name in sorted(home.factors))) for home in street.learners}
    assert len(digests) == 1, "all homes have the same, to the bit"
    assert not street.complaints


def test_ledgers_of_all_homes_have_one_digest_a_round(tmp_path_factory: pytest.TempPathFactory) -> None:
    folders = [tmp_path_factory.mktemp(f"home{seat}") for seat in range(3)]
    engines = [open_database(f"sqlite:///{folder / 'facts.db'}", {"ledger": MIGRATIONS}) for folder in folders]
    try:
        ledgers = [Ledger(engine, folder / "keys") for engine, folder in zip(engines, folders, strict=True)]
        street = Street(3, [ledger.append for ledger in ledgers])
        for _ in range(2):
            street.round()
        rows = [[row for row in ledger.read("federate")] for ledger in ledgers]
        facts = [[(row.values["round"], row.values["digest"], row.values["accepted"]) for row in one] for one in rows]
        assert facts[0] == facts[1] == facts[2] and [number for number, _, _ in facts[0]] == [2, 1]
        assert rows[0][0].values["base"] == rows[0][1].values["digest"], "a round begins where the last accepted one ended"
        for ledger in ledgers:
            ledger.verify()
    finally:
        for engine in engines:
            engine.dispose()


@pytest.mark.parametrize("stage", STAGES[:4])
def test_a_home_that_drops_out_at_a_stage_costs_nothing_else(stage: str) -> None:
    street = Street()
    ended = street.round(lambda now, seat, data: None if seat == 2 and now == stage else data)
    verdict = ended.round.verdict
    assert verdict is not None and verdict.accepted and not ended.round.failure
    assert verdict.survivors == ((0, 1, 3) if stage in ("keys", "update") else (0, 1, 2, 3))
    assert ended.followed == (0, 1, 2, 3), "who dropped out is told of the verdict too"
    own = [street.learners[seat].invitation for seat in verdict.survivors]
    fresh = [Learner(seat, own[0], lambda _: None).train(1) for seat in verdict.survivors]
    assert (unpack(ended.round.total, ended.round.length, street.terms.grid.width) == plain_sum(fresh)).all()
    assert street.round().followed == (0, 1, 2, 3), "and all go on"


@pytest.mark.parametrize("stage", STAGES[:4])
def test_too_few_homes_end_the_round_and_nobody_changes(stage: str) -> None:
    street = Street()
    before = [dict(home.factors) for home in street.learners]
    ended = street.round(lambda now, seat, data: None if seat in (1, 2) and now == stage else data)
    assert f"2 homes of 4 answered ({stage}), and 3 is the fewest. Nothing is known of any update" in ended.round.failure
    assert ended.round.verdict is None and ended.followed == () and not ended.round.total
    assert all(home.factors == old for home, old in zip(street.learners, before, strict=True)) and not any(street.events)
    assert street.round().followed == (0, 1, 2, 3), "the next number begins anew"


def test_a_poisoned_round_is_refused_by_the_votes() -> None:
    street = Street(5, poison=(1.0,) * 3 + (-8.0,) * 2, reach=8.0)
    before = dict(street.learners[0].factors)
    verdict = street.round().verdict
    assert verdict is not None and not verdict.accepted and len(verdict.no) >= 3
    assert all((street.learners[0].factors[name] == before[name]).all() for name in before)
    assert street.base == BASE and verdict.next_base == BASE
    assert [events[0].facts["accepted"] for events in street.events] == [False] * 5
    street.joined = tuple(range(4))
    failed = street.round().round
    assert "0 homes of 5 answered (agree)" in failed.failure, "without one of them: the difference would be its update"
    assert all("would show the updates of 1 home alone" in text for _, text in street.complaints)


def test_answers_that_are_wrong_count_as_none() -> None:
    def changed(now: str, seat: int, data: bytes) -> bytes:
        if seat != 3:
            return data
        letter = from_bytes(data)
        match now:
            case "keys":
                return to_bytes(letter)
            case "update":
                return to_bytes(replace(letter, body=letter.body[:-1] + bytes([letter.body[-1] ^ 1])))
        return data

    street = Street()
    verdict = street.round(changed).round.verdict
    assert verdict is not None and verdict.survivors == (0, 1, 2) and verdict.accepted
    assert any(seat == 3 and "numbers" in text for seat, text in street.complaints)
    for lie in (b"", b"nonsense", to_bytes(Letter("update")), to_bytes(Letter("update", {"statement": 7}))):
        assert street.round(lambda _, seat, data, lie=lie: lie if seat == 3 else data).round.verdict is not None
    assert all(seat == 3 for seat, _ in street.complaints)


def test_a_home_that_was_started_anew_joins_again() -> None:
    """It was killed in the middle of a round: it has forgotten that round's secrets, says nothing more in it, and is there for the next."""
    street = Street()

    def killed(now: str, seat: int, data: bytes) -> bytes | None:
        if seat == 2 and now == "update":
            home = street.learners[2]
            street.responders[2] = responder(home.node(street.signers[2], last_round=home.remembered[-1]))
        return data if seat != 2 or now in ("keys", "update") else street.responders[2](to_bytes(Letter("shares", {"heard": []})))

    verdict = street.round(killed).round.verdict
    assert verdict is not None and verdict.survivors == (0, 1, 2, 3) and verdict.accepted
    assert any(seat == 2 and "This home is in no round" in text for seat, text in street.complaints)
    street.complaints.clear()
    before = Letter("keys", {"round": 1, "base": street.base})
    assert "Round 1 was begun before" in from_bytes(street.responders[2](to_bytes(before))).head["rule"]
    assert tuple(gather(street.terms, street.ask(), PATIENCE_S, street.complain)) == (0, 1, 2, 3) and not street.complaints


def test_a_home_with_another_base_is_left_out_and_says_why() -> None:
    street = Street()
    street.round()
    behind = Learner(3, street.invitation, lambda _: None)
    street.responders[3] = behind.responder(street.signers[3])
    assert tuple(gather(street.terms, street.ask(), PATIENCE_S, street.complain)) == (0, 1, 2, 3)
    ended = street.round()
    assert ended.round.verdict is not None and ended.round.verdict.survivors == (0, 1, 2)
    assert any(seat == 3 and "This home goes on from aaaaaaaaaaaa, and the round from" in text for seat, text in street.complaints)
    assert ended.followed == (0, 1, 2), "nor does it follow a verdict on what it hasn't got"


def test_a_home_that_missed_a_verdict_follows_when_it_is_told() -> None:
    street = Street()
    first = street.round(lambda now, seat, data: None if seat == 3 and now == "keys" else data)
    late = Learner(3, street.invitation, lambda _: None)
    street.responders[3] = late.responder(street.signers[3])
    gather(street.terms, street.ask(), PATIENCE_S, street.complain)
    assert from_bytes(street.responders[3](to_bytes(requests(first.round)[3]))).kind == "ended"
    assert street.round().followed == (0, 1, 2, 3)
    assert [one.number for one in late.verdicts] == [1, 2]


def test_a_verdict_is_followed_once_and_only_if_the_homes_voted_so() -> None:
    street = Street()
    ended = street.round()
    now = ended.round
    letter = requests(now)[0]
    again = from_bytes(street.responders[0](to_bytes(letter)))
    assert again.kind == "refused" and "speaks of another base" in again.head["rule"]
    fresh = Street()  # keys, invitation and base are the same: it may be told the verdict
    forged = {**letter.head["votes"][0], "facts": {**letter.head["votes"][0]["facts"], "yes": False}}
    for change, answer in (
        ({"agree": letter.head["agree"][:2]}, "must be at least 3"),
        ({"votes": [forged]}, "did not sign this"),
        ({"votes": letter.head["votes"][:2]}, "ended"),
        ({"votes": []}, "was followed before"),
        ({}, "ended"),
        ({"votes": []}, "was followed before"),
    ):
        reply = from_bytes(fresh.responders[1](to_bytes(replace(letter, head={**letter.head, **change}))))
        told = str(raised(reply.head)) if reply.kind == "refused" else reply.kind
        assert re.search(answer, told), (change, told)
    assert [one.accepted for one in fresh.learners[1].verdicts] == [False, True], "votes that were held back come late, and count"
    agreed, votes = list(now.said("agree").values()), sorted(now.said("vote").values(), key=lambda vote: not vote.facts["yes"])
    homes, total = believe_agreed(now.terms, 1, agreed), digest_bytes(now.total)
    assert count(now.terms, 1, BASE, homes, [], total).accepted is False, "who is silent says no"
    assert count(now.terms, 1, BASE, homes, votes[:3], total).accepted and not count(now.terms, 1, BASE, homes, votes[:2], total).accepted
    with pytest.raises(FederatedError, match="another total"):
        count(now.terms, 1, BASE, homes, votes, "0" * 64)
    with pytest.raises(FederatedError, match="another base"):
        count(now.terms, 1, "c" * 64, homes, votes, total)
    with pytest.raises(FederatedError, match="at least 3 that signed one list"):
        believe_agreed(now.terms, 1, agreed[:2])
    other = state(SIGNERS[0], 0, "vote", {**votes[0].facts, "yes": False})
    with pytest.raises(FederatedError, match="said yes and no"):
        count(now.terms, 1, BASE, homes, [*votes, other], total)
    with pytest.raises(FederatedError, match="neither yes nor no"):
        count(now.terms, 1, BASE, homes, [state(SIGNERS[0], 0, "vote", {**votes[0].facts, "yes": 1})], total)


def test_a_home_keeps_the_number_of_a_round_before_it_says_anything() -> None:
    street = Street()
    order: list[str] = []
    street.learners[0].remembered.clear()
    street.round(lambda now, seat, data: order.append(f"{now} {street.learners[0].remembered}") or data if seat == 0 else data)
    assert order[0] == "keys [1]" and [one.split()[0] for one in order[:4]] == ["keys", "update", "agree", "shares"]
    assert order[3].endswith("[1, 1]") and street.learners[0].opened == ((BASE, (0, 1, 2, 3)),), "and the sums that it helps to open"


@pytest.mark.parametrize("kind", ["keys", "update", "agree", "shares", "vote", "end", "meet", "", "format the disk"])
def test_letters_at_the_wrong_time_or_of_the_wrong_form_are_refused(kind: str) -> None:
    street = Street()
    for head in (
        {},
        {"round": True},
        {"round": -1},
        {"heard": 3, "keys": {}, "joined": [1], "agree": [{}], "split": 3, "groups": [1], "votes": None},
        {"base": "x", "round": 1},
    ):
        reply = from_bytes(street.responders[0](to_bytes(Letter(kind, head, b"body"))))
        assert reply.kind == "refused" and reply.head["rule"]
    assert street.round().followed == (0, 1, 2, 3), "nothing of it did any harm"


def test_a_round_is_a_value() -> None:
    """Hearing and closing give new rounds; the old ones stay as they were, and a bad answer changes nothing."""
    street = Street()
    now = Round(street.terms, 1, BASE, street.learners[0].length(1), street.joined)
    letter = to_bytes(requests(now)[0])
    reply = from_bytes(street.responders[0](letter))
    heard = hear(now, 0, reply)
    assert not now.heard and list(heard.said("keys")) == [0] and heard.stage == "keys"
    for seat, wrong in ((1, reply), (0, Letter("keys", {})), (0, Letter("keys", {"statement": reply.head["statement"]})), (9, reply)):
        with pytest.raises(FederatedError):
            hear(now, seat, wrong)
    with pytest.raises(FederatedError, match="The home in seat 0 refused"):
        hear(now, 0, Letter("refused", {"rule": "no"}))
    assert close(heard).failure and not heard.failure
    assert Statement.read(reply.head["statement"]).kind == "keys"
