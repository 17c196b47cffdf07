"""Open mode: updates are signed and seen by all, combined by a rule, checked and voted on by every home; never by accident."""

from dataclasses import replace

import numpy as np
import pytest

from ingle.core.digest import digest_bytes
from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.invitation import MODES, check_invitation, from_text, invite, to_text
from ingle.federated.open_round import combine_shown, combined, rule_names
from ingle.federated.rounds import OPEN_STAGES, Round, close, hear, requests
from ingle.federated.statement import Letter, Statement, from_bytes, state, to_bytes
from ingle.federated.terms import pack, unpack
from tests.federated.homes import BASE, KINDS, Learner, invited
from tests.federated.poison import ATTACKS
from tests.federated.street import SIGNERS, Street


@pytest.mark.parametrize("rule", rule_names())
def test_homes_learn_together_in_the_open(rule: str) -> None:
    street = Street(7, rule=rule, task=KINDS)
    ends = [street.round() for _ in range(4)]
    assert all(ended.followed == tuple(range(7)) for ended in ends)
    assert sum(ended.verdict is not None and ended.verdict.accepted for ended in ends) >= 2
    fresh = Learner(0, street.invitation, lambda _: None, task=KINDS)
    home = street.learners[0]
    assert home.loss(home.factors, home.held_out) < 0.9 * home.loss(fresh.factors, home.held_out)
    assert not street.complaints
    bits = {digest_bytes(b"".join(one.factors[name].tobytes() for name in sorted(one.factors))) for one in street.learners}
    assert len(bits) == 1, "all homes have the same, to the bit"


def test_what_goes_in_is_the_rule_over_what_the_homes_showed() -> None:
    street = Street(5, rule="trimmed")
    fresh = [Learner(seat, street.invitation, lambda _: None).train(1) for seat in range(5)]
    ended = street.round()
    grid = street.terms.grid
    total = unpack(ended.round.total, ended.round.length, grid.width)
    assert (total == combined(fresh, "trimmed", grid)).all()


@pytest.mark.parametrize("stage", OPEN_STAGES)
def test_a_home_that_drops_out_costs_nothing_else(stage: str) -> None:
    street = Street(5, rule="median", task=KINDS)
    ended = street.round(lambda now, seat, data: None if seat == 2 and now == stage else data)
    assert ended.verdict is not None and ended.verdict.accepted
    assert ended.verdict.survivors == ((0, 1, 3, 4) if stage == "show" else (0, 1, 2, 3, 4))
    failed = street.round(lambda now, seat, data: None if seat in (1, 2) and now == "show" else data).round
    assert "3 homes of 5 answered (show), and 4 is the fewest" in failed.failure


def test_fltrust_does_nothing_without_its_root() -> None:
    street = Street(5, rule="fltrust", task=KINDS)
    failed = street.round(lambda now, seat, data: None if seat == 0 and now == "show" else data).round
    assert "needs the update of the coordinator's home, and it isn't there" in failed.failure


def test_the_modes_are_never_mixed() -> None:
    secure, shown = Street(4), Street(4, rule="median")
    asked = to_bytes(Letter("show", {"round": 1, "base": BASE}))
    reply = from_bytes(secure.responders[0](asked))
    assert reply.kind == "refused" and "This federation is secure: no home shows its update" in reply.head["rule"]
    assert not secure.learners[0].remembered, "nothing was learned for it"
    for kind in ("keys", "update", "agree", "shares", "judge", "union"):
        reply = from_bytes(shown.responders[0](to_bytes(Letter(kind, {"round": 1, "base": BASE}))))
        assert reply.kind == "refused" and "must be one of join, meet, show, vote, end" in str(reply.head)
    with pytest.raises(AssertionError, match="no update is ever shown"):
        from ingle.federated.open_round import show

        show(secure.learners[0].node(SIGNERS[0]).member, 1, BASE, np.zeros(3, np.uint32))
    for change, match in (
        ({"mode": "open"}, "rule is for open updates"),
        ({"rule": "median"}, "rule is for open updates"),
        ({"mode": "half"}, "mode must be one of secure, open, not half"),
        ({"mode": "open", "rule": "krum"}, "rule must be one of fltrust, mean, median, multi_krum, trimmed"),
        ({"mode": "open", "rule": "multi_krum"}, "needs a threshold of at least 5 homes"),
        ({"mode": "open", "rule": "median", "aggregation": "stack"}, "which no round does yet"),
        ({"aggregation": "stack"}, "which no round does yet"),
        ({"mode": "open", "rule": "fltrust", "members": tuple(one.verifier.public for one in SIGNERS[1:5])}, "it is no member"),
    ):
        with pytest.raises(ConfigError, match=match):
            invite(replace(secure.invitation, **change), SIGNERS[0])  # type: ignore[arg-type]
    for street, mode in ((secure, "secure"), (shown, "open")):
        again = from_text(to_text(street.invitation))
        check_invitation(again)
        assert again.mode == mode in MODES and bool(again.terms().rule) == (mode == "open")
    assert invited(SIGNERS[:4]).digest != invited(SIGNERS[:4], rule="median").digest


def voting(street: Street) -> Round:
    """A round that has come to the vote."""
    now = Round(street.terms, 1, BASE, street.learners[0].length(1), street.joined)
    for seat, letter in requests(now).items():
        now = hear(now, seat, from_bytes(street.responders[seat](to_bytes(letter))))
    return close(now)


def test_a_home_believes_no_coordinator() -> None:
    """It votes only on what it works out itself, of updates that the homes signed, its own among them."""
    street = Street(5, rule="median", task=KINDS)
    now = voting(street)
    letter = requests(now)[0]
    each = len(now.bodies[0])
    shown = letter.head["show"]
    own = state(SIGNERS[1], 1, "show", {**shown[1]["facts"], "round": 2})
    for head, body, rule in (
        (shown, letter.body[:-1] + bytes([letter.body[-1] ^ 1]), "speaks of another numbers"),
        (shown, letter.body[:-1], "bytes for these homes"),
        (shown[1:], letter.body[each:], "own update is not among them"),
        (shown[:3], letter.body[: 3 * each], "homes must be at least 4 to go on"),
        ([shown[0], own.plain(), *shown[2:]], letter.body, "speaks of another round"),
        ([shown[0], {**shown[1], "seat": 2}, *shown[2:]], letter.body, ""),
        (7, letter.body, "must be a list of statements"),
    ):
        reply = from_bytes(street.responders[0](to_bytes(replace(letter, head={"show": head}, body=body))))
        told = f"{reply.head.get('field')} {reply.head.get('rule')}"
        assert reply.kind == "refused" and rule in told, told
    assert from_bytes(street.responders[0](to_bytes(letter))).kind == "vote"
    again = from_bytes(street.responders[0](to_bytes(letter)))
    assert "has shown nothing, or has voted" in again.head["rule"], "each home votes once"
    asked = from_bytes(street.responders[0](to_bytes(Letter("show", {"round": 1, "base": BASE}))))
    assert "Round 1 was begun before" in asked.head["rule"], "and shows one update a round"


def test_updates_that_nobody_could_have_are_left_out() -> None:
    street = Street(6, rule="mean", task=KINDS, attack=ATTACKS["huge"], poisoned=1)
    ended = street.round()
    assert ended.verdict is not None and ended.verdict.survivors == (0, 1, 2, 3, 4) and ended.verdict.accepted
    assert any(seat == 5 and "must hold numbers from 0 to 2046, not 2047" in text for seat, text in street.complaints)
    street = Street(5, rule="mean", task=KINDS)
    now = Round(street.terms, 1, BASE, street.learners[0].length(1), street.joined)
    reply = from_bytes(street.responders[3](to_bytes(requests(now)[3])))
    with pytest.raises(FederatedError, match=r"update must have \d+ bytes"):
        hear(now, 3, replace(reply, body=reply.body[:-2]))
    stale = state(SIGNERS[3], 3, "show", {**Statement.read(reply.head["statement"]).facts, "base": "b" * 64})
    with pytest.raises(FederatedError, match="speaks of another base"):
        hear(now, 3, replace(reply, head={"statement": stale.plain()}))
    with pytest.raises(FederatedError, match="must be at least 4"):
        combine_shown(street.terms, 1, BASE, now.length, {}, {})
    assert pack(np.zeros(0, np.uint32), 11) == b""
