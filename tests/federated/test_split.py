"""After a refused round: how its homes are split, what may be opened, who votes on what, and what is believed of a coordinator."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import FederatedError
from ingle.federated.home_node import read_end
from ingle.federated.open_round import bearable
from ingle.federated.rounds import Round, close, gather, hear, requests
from ingle.federated.secure_sum import check_apart
from ingle.federated.split import Split, believe_split, draw_split, group_terms, may_split, sign_split
from ingle.federated.statement import Letter, Statement, from_bytes, state, to_bytes
from ingle.federated.terms import FEWEST
from ingle.federated.verdict import MISTAKE, RoundVerdict, Suspicion, bad_company, rounds_needed
from tests.federated.homes import BASE, KINDS
from tests.federated.poison import ATTACKS
from tests.federated.street import SIGNERS, Street
from tests.waiting import PATIENCE_S


def poisoned() -> Street:
    """Nine homes, of which the last is poisoned."""
    return Street(9, task=KINDS, attack=ATTACKS["sign"], poisoned=1, reach=8.0)


def split_of(homes: int, seed: str = "s") -> Split:
    return Split("f" * 64, 1, BASE, tuple(range(homes)), seed)


@given(homes=st.integers(6, 60), seed=st.text(max_size=4))
def test_halves_have_three_homes_or_more_and_no_sums_of_them_show_fewer(homes: int, seed: str) -> None:
    split = split_of(homes, seed)
    opened: list[tuple[int, ...]] = []
    for group, halves in split.halves.items():
        assert len(group) >= FEWEST and list(group) == sorted(group)
        assert not halves or sorted(itertools.chain(*halves)) == list(group)
        check_apart(opened, group)
        opened.append(group)
    sizes = [len(leaf) for leaf in split.leaves]
    assert len(sizes) == homes // FEWEST and max(sizes) < 2 * FEWEST and max(sizes) - min(sizes) <= 1
    assert sorted(itertools.chain(*split.leaves)) == list(range(homes))
    if bearable(homes) < len(sizes):
        assert len(sizes) > bearable(homes), "with no more poisoned homes than are reckoned with, one group is clean"


def test_ten_homes_are_split_into_three_three_and_four() -> None:
    assert sorted(len(leaf) for leaf in split_of(10).leaves) == [3, 3, 4]
    mates = Counter(pair for seed in range(2000) for leaf in split_of(10, str(seed)).leaves for pair in itertools.combinations(leaf, 2))
    share = np.array([mates[pair] for pair in itertools.combinations(range(10), 2)]) / 2000
    assert abs(share - 12 / 45).max() < 0.05, "every pair of homes is together as often as any other"


def test_the_good_groups_go_in_and_the_bad_one_does_not() -> None:
    street = poisoned()
    ended = street.round()
    assert ended.round.verdict is not None and not ended.round.verdict.accepted, "all together it was refused"
    verdict = ended.verdict
    assert verdict is not None and verdict.accepted and 8 not in verdict.survivors and len(verdict.survivors) in (3, 6)
    assert ended.followed == tuple(range(9)) and not street.complaints
    assert verdict.voters == tuple(range(9)), "all judge, those of other groups too"
    first = street.learners[0].factors
    assert all((home.factors[name] == first[name]).all() for home in street.learners for name in first), "all have the same, to the bit"
    assert all(home.standing.accepted == 1 for home in street.learners)
    assert [home.verdicts[-1].digest for home in street.learners] == [verdict.digest] * 9
    assert street.round().followed == tuple(range(9)), "and all go on from there"


def test_a_group_sums_the_updates_of_the_refused_round() -> None:
    """The parts make the whole: a home sends in its group what it sent before."""
    street = poisoned()
    learned: Counter[int] = Counter()
    for home in street.learners:
        train = home.train
        home.train = lambda number, home=home, train=train: learned.update([home.seat]) or train(number)  # type: ignore[method-assign, misc]
        street.responders[home.seat] = home.responder(street.signers[home.seat])
    gather(street.terms, street.ask(), PATIENCE_S, street.complain)
    ended = street.round()
    assert ended.verdict is not None and ended.verdict.groups
    assert set(learned.values()) == {1}, "nobody learns twice for one round"


def test_the_poisoned_home_is_suspended_and_no_other() -> None:
    street = poisoned()
    for home in street.learners:  # all but the last of the rounds that are needed lie behind them
        home.standing = replace(home.standing, suspicion=Suspicion(((3, 1), (8, rounds_needed(9) - 1))))
        street.responders[home.seat] = home.responder(street.signers[home.seat])
    gather(street.terms, street.ask(), PATIENCE_S, street.complain)
    street.round()
    suspicions = {home.standing.suspicion for home in street.learners}
    assert len(suspicions) == 1 and suspicions.pop().suspended == (8,)
    suspicion = street.learners[0].standing.suspicion
    street.learners[0].standing = replace(street.learners[0].standing, suspicion=Suspicion())  # a coordinator that doesn't care
    failed = street.round()
    assert "0 homes of 9 answered (update)" in failed.round.failure
    assert all("The home in seat 8 was suspended by the votes on its groups" in text for _, text in street.complaints)
    street.learners[0].standing = replace(street.learners[0].standing, suspicion=suspicion)
    after = street.round().round
    assert not after.failure and sorted(after.bodies) == list(range(8)), "the others go on without it"


def test_a_home_that_drops_out_of_its_group_closes_that_group_only() -> None:
    street = poisoned()
    seen: list[str] = []

    def between(stage: str, seat: int, data: bytes) -> bytes | None:
        seen.append(stage)
        return None if seat == 0 and stage == "update" and "end" in seen else data

    ended = street.round(between)
    assert ended.verdict is not None and 0 not in ended.verdict.survivors
    group = next((one for one in ended.verdict.groups if 0 in one.survivors), None)
    assert group is None, "its group has no sum"
    assert dict(street.learners[0].standing.suspicion.refused).get(0) is None, "and nothing is held against those in it"


def refused(street: Street) -> Letter:
    """A round that was refused: the letter that ends it, which no home has yet."""
    now = Round(street.terms, 1, BASE, street.learners[0].length(1), street.joined)
    while not now.over:
        for seat, letter in requests(now).items():
            now = hear(now, seat, from_bytes(street.responders[seat](to_bytes(letter))))
        now = close(now)
    return requests(now)[0]


def signatures(street: Street) -> list[Statement]:
    """What the homes signed when they were told of it."""
    letter = to_bytes(refused(street))
    return [Statement.read(from_bytes(respond(letter)).head["split"]) for respond in street.responders.values()]


def test_seeds_that_nobody_committed_to_are_refused() -> None:
    street = poisoned()
    letter = refused(street)
    seeds = dict(letter.head["seeds"])
    for wrong in ({**seeds, "3": "00" * 32}, {seat: seed for seat, seed in seeds.items() if seat != "3"}, {**seeds, "3": "x"}):
        reply = from_bytes(street.responders[0](to_bytes(replace(letter, head={**letter.head, "seeds": wrong}))))
        assert reply.kind == "refused" and "the one that the home in seat 3 committed itself to" in reply.head["rule"]
    assert from_bytes(street.responders[0](to_bytes(letter))).head["split"]["kind"] == "split"
    again = from_bytes(street.responders[0](to_bytes(letter)))
    assert again.kind == "refused" and "was followed before" in again.head["rule"], "it signs once"


def test_a_home_keeps_what_may_be_opened_before_it_signs() -> None:
    street = poisoned()
    split = believe_split(street.terms, signatures(street))
    for home in street.learners:
        assert home.opened == ((BASE, tuple(range(9))), *((BASE, leaf) for leaf in split.leaves))
    member = street.learners[0].node(SIGNERS[0], 5).member
    assert member.opened == street.learners[0].opened, "also after it was killed"
    assert may_split(member, split) and not may_split(member, replace(split, seed="another")), "from one base there is one split"
    assert sign_split(member, split)[0].opened == member.opened, "the same one may be told again"


def test_a_split_needs_the_signatures_of_two_thirds() -> None:
    street = poisoned()
    signed = signatures(street)
    assert believe_split(street.terms, signed[:6]).homes == tuple(range(9))
    other = {**signed[0].facts, "seed": "0" * 64}
    for wrong, match in (
        (signed[:5], "at least 6 that signed one split"),
        ([signed[0]] * 6, "at least 6 that signed one split"),
        ([], "must be signed"),
        ([*signed[:5], state(SIGNERS[5], 5, "split", other)], "speaks of another seed"),
        ([*signed[:5], replace(signed[5], seat=6)], "did not sign this"),
        ([state(SIGNERS[seat], seat, "split", {**signed[0].facts, "homes": list(range(5))}) for seat in range(6)], "at least 6"),
        ([state(SIGNERS[seat], seat, "split", {**signed[0].facts, "homes": "all"}) for seat in range(6)], "must be signed"),
    ):
        with pytest.raises(FederatedError, match=match):
            believe_split(street.terms, wrong)
    # A coordinator that asks for the sum of another group, or under another split, is told no.
    plain = [one.plain() for one in signed]
    group = believe_split(street.terms, signed).halves[tuple(range(9))][0]
    seat = group[0]
    for head, rule in (
        ({"group": sorted({seat, *range(6)}), "split": plain}, "must be one of the split"),
        ({"group": list(next(one for one in split_halves(street, signed) if seat not in one)), "split": plain}, "must be one of the split"),
        ({"group": list(group), "split": plain[:5]}, "at least 6 that signed one split"),
        ({"group": list(group), "split": []}, "must be signed"),
        ({"group": "all", "split": plain}, "must be a list of seats"),
    ):
        reply = from_bytes(street.responders[seat](to_bytes(Letter("keys", {"round": 2, "base": BASE, **head}))))
        assert reply.kind == "refused" and rule in str(reply.head), reply.head


def split_halves(street: Street, signed: list[Statement]) -> tuple[tuple[int, ...], ...]:
    return believe_split(street.terms, signed).halves[tuple(range(9))]


def test_homes_work_out_the_sums_of_groups_themselves() -> None:
    """A coordinator that announces another sum, or leaves out what it follows from, gets no vote on it."""
    for change, rule in (
        (lambda body, groups: (bytes([body[0] ^ 1]) + body[1:], groups), "speaks of another numbers"),
        (lambda body, groups: (body, [{**groups[0], "shares": groups[0]["shares"][:2]}, *groups[1:]]), "must be said by every home"),
        (lambda body, groups: (body, [{**groups[0], "homes": groups[1]["homes"]}, *groups[1:]]), ""),
        (lambda body, groups: (body + b"more", groups), "bytes for these groups"),
        (lambda body, groups: (body[:-1], groups), "speaks of another numbers"),
        (lambda body, groups: (body, 7), "must be a list of groups"),
    ):
        street = poisoned()
        answers: list[str] = []

        def respond(data: bytes, change=change, street=street, answers=answers, old=street.responders[0]) -> bytes:  # type: ignore[no-untyped-def]
            letter = from_bytes(data)
            if letter.kind == "judge":
                body, groups = change(letter.body, letter.head["groups"])
                answers.append(str(from_bytes(old(to_bytes(replace(letter, head={**letter.head, "groups": groups}, body=body)))).head))
            return old(data)

        street.responders[0] = respond
        street.round()
        assert answers and all(rule in one and "votes" not in one for one in answers), answers


def test_votes_are_counted_by_each_home() -> None:
    street = poisoned()
    letters: list[Letter] = []
    old = street.responders[0]
    street.responders[0] = lambda data: letters.append(from_bytes(data)) or old(data)  # type: ignore[func-returns-value]
    ended = street.round()
    end = letters[-1]
    assert end.kind == "end" and read_end(street.terms, BASE, end) == ended.verdict
    with pytest.raises(FederatedError, match="goes on from bbbbbbbbbbbb, and the split round from aaaaaaaaaaaa"):
        read_end(street.terms, "b" * 64, end)
    silent = read_end(street.terms, BASE, replace(end, head={**end.head, "votes": []}, body=b""))
    assert not silent.accepted and not Suspicion().after(street.terms, silent).refused, "votes that are held back blame nobody"
    with pytest.raises(FederatedError, match="must be the one that the homes voted on"):
        read_end(street.terms, BASE, replace(end, body=end.body[:-1] + bytes([end.body[-1] ^ 1])))
    forged = {**end.head["votes"][0], "facts": {**end.head["votes"][0]["facts"], "yes": not end.head["votes"][0]["facts"]["yes"]}}
    with pytest.raises(FederatedError, match="did not sign this"):
        read_end(street.terms, BASE, replace(end, head={**end.head, "votes": [forged, *end.head["votes"][1:]]}))


def test_a_round_of_five_homes_is_not_split() -> None:
    street = Street(5, poison=(1.0, 1.0, 1.0, -8.0, -8.0), reach=8.0)
    ended = street.round()
    assert ended.verdict is ended.round.verdict is not None and not ended.verdict.accepted and not ended.verdict.groups
    with pytest.raises(FederatedError, match="must be at least 6 to be split, not 5"):
        draw_split(street.terms, 1, BASE, range(5), {}, {})


def test_groups_of_two_splits_are_strangers() -> None:
    street = Street(9)
    one, other = split_of(9), split_of(9, "another")
    group = one.halves[one.homes][0]
    names = {group_terms(street.terms, split, group).federation for split in (one, other)}
    assert len(names) == 2 and group_terms(street.terms, one, group).threshold == len(group)


def judged(base: str, groups: list[tuple[tuple[int, ...], int, int]], homes: int = 10) -> RoundVerdict:
    everybody = tuple(range(homes))
    one = [RoundVerdict("f", 1, base, group, everybody, "t", everybody[:yes], everybody[homes - no :]) for group, yes, no in groups]
    return RoundVerdict("f", 1, base, (), everybody, "t", (), (), tuple(one))


def test_what_counts_against_a_home() -> None:
    terms = Street(10).terms
    good, bad, unknown, half = ((0, 1, 2), 8, 2), ((3, 4, 5), 2, 8), ((6, 7, 8, 9), 5, 3), ((3, 4, 5, 6, 7, 8, 9), 2, 8)
    after = Suspicion().after(terms, judged("a", [good, bad, unknown, half]))
    assert dict(after.refused) == {3: 1, 4: 1, 5: 1}, "a group that could be halved, or isn't refused for certain, blames nobody"
    next_round = judged("b", [((3, 1, 2), 8, 2), ((0, 4, 5), 2, 8), ((6, 7, 8, 9), 8, 2)])
    cleared = after.after(terms, next_round)
    assert dict(cleared.refused) == {0: 1, 4: 2, 5: 2}
    assert cleared.after(terms, next_round) == cleared, "from one base all are split alike: once more tells nothing"
    assert cleared.after(terms, judged("c", [])) == cleared, "nor does a round that wasn't split"
    everything = judged("c", [((0, 1, 2), 2, 8), ((3, 4, 5), 2, 8), ((6, 7, 8, 9), 2, 8)])
    assert cleared.after(terms, everything) == cleared, "with two poisoned homes one group of three is clean: whoever refused it was wrong"
    needed = rounds_needed(10)
    for number in range(needed - 2):
        assert not cleared.suspended
        cleared = cleared.after(terms, judged(f"d{number}", [((0, 1, 2, 3), 8, 2), ((4, 5, 9), 2, 8), ((6, 7, 8), 8, 2)]))
    assert cleared.suspended == (4, 5)
    third = replace(cleared, refused=((6, needed - 1),)).after(terms, judged("e", [((6, 7, 8), 2, 8)]))
    assert third.suspended == (4, 5), "a third of ten was not reckoned with: nobody is blamed by a reckoning that is wrong"


@pytest.mark.parametrize("homes", [6, 9, 10, 12, 20, 30])
def test_honest_homes_are_suspended_once_in_a_hundred_federations_at_most(homes: int) -> None:
    rng = np.random.default_rng(homes)
    bad = set(range(homes - bearable(homes), homes))
    together = [not bad.isdisjoint(leaf) for _ in range(4000) for leaf in split_of(homes, str(rng.integers(1 << 60))).leaves if 0 in leaf]
    assert abs(np.mean(together) - bad_company(homes)) < 0.03, "the chance is what splits really give"
    assert homes * bad_company(homes) ** rounds_needed(homes) <= MISTAKE < homes * bad_company(homes) ** (rounds_needed(homes) - 1)
