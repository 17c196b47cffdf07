"""Attacks of a coordinator, or of a home that helps it, on a secure sum: each is refused by the honest homes themselves."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import FederatedError
from ingle.federated.sealing import PRIME, SHARE_BYTES, common_key, mask, new_private, public_of, seal, unseal
from ingle.federated.secure_sum import _channel, _letter, agree, begin, check_apart, greet, hide, meet, plain_sum, reveal, take_seat
from ingle.federated.statement import Statement, believe, state, text_of
from tests.federated.summed import BASE, Round, drawn, joined, signers, started, terms_of, whole_round

KEYS = signers(10)
TERMS = terms_of(KEYS[:4])
UPDATES = drawn(TERMS, 1)


def ready(number: int = 1) -> Round:
    return started(joined(KEYS[:4], TERMS), number)


def hidden(number: int = 1) -> Round:
    now = ready(number)
    for seat in range(4):
        now.hide(seat, UPDATES[seat])
    return now


def test_no_second_update_under_the_same_masks() -> None:
    """The difference of two updates under one mask lies open; so does an update under two lists of partners."""
    now = hidden()
    with pytest.raises(FederatedError, match=r"asked for something to be said twice \(update\)"):
        now.hide(0, UPDATES[1])
    with pytest.raises(FederatedError, match="said twice"):
        now.hide(0, UPDATES[0], [now.keys[seat] for seat in (0, 1, 2)])


def test_no_round_is_begun_twice_and_none_before_the_last() -> None:
    now = hidden(number=5)
    member = now.parts[0].member
    for number in (5, 4, 0, -1):
        with pytest.raises(FederatedError, match=f"Round {number} was begun before"):
            begin(member, number, BASE)
    part, _ = begin(member, 6, BASE)
    assert part.private != now.parts[0].private and part.seed != now.parts[0].seed, "each round has secrets of its own"


def agreed_list(agreed: Sequence[Statement], threshold: int) -> tuple[int, ...] | None:
    """The list of updates that at least `threshold` homes signed; None if there is none."""
    counts: dict[tuple[str, tuple[int, ...]], int] = {}
    for statement in agreed:
        survivors = statement.facts.get("survivors")
        if not isinstance(survivors, list) or not all(type(seat) is int for seat in survivors):
            continue
        signed = text_of(statement, "roster"), tuple(survivors)
        counts[signed] = counts.get(signed, 0) + 1
    return next((survivors for (_, survivors), homes in counts.items() if homes >= threshold), None)


def test_a_coordinator_that_tells_two_stories_of_who_dropped_out_opens_nothing() -> None:
    now = hidden()
    lists = {0: (0, 1, 2), 1: (0, 1, 2), 2: (0, 2, 3), 3: (0, 2, 3)}
    for seat, told in lists.items():
        now.agree(seat, [now.said[other] for other in told])
    assert agreed_list(list(now.agreed.values()), TERMS.threshold) is None
    for seat in range(4):
        with pytest.raises(FederatedError, match=r"speaks of another survivors|own word is not in the list"):
            now.reveal(seat)
        with pytest.raises(FederatedError, match="at least 3 to go on"):
            now.reveal(seat, [said for said in now.agreed.values() if said.facts["survivors"] == list(lists[seat])])
    with pytest.raises(FederatedError, match=r"said twice \(agree\)"):
        now.agree(0, [now.said[other] for other in (0, 2, 3)])


@pytest.mark.parametrize("homes", range(3, 11))
def test_no_two_lists_of_one_round_are_signed_by_enough_homes(homes: int) -> None:
    """However the honest homes are split over two lists, and though traitors sign both: at most one list reaches the threshold."""
    terms = terms_of(KEYS[:homes])
    honest = homes - terms.traitors
    for first in range(honest + 1):
        reached = [first + terms.traitors >= terms.threshold, honest - first + terms.traitors >= terms.threshold]
        assert not all(reached), (homes, first)


def test_two_sums_of_overlapping_sets_cannot_be_had_in_one_round() -> None:
    """Seven homes, one of them the coordinator's, which signs whatever it is asked. Every way to tell the others two lists is tried."""
    keys = KEYS[:7]
    terms = terms_of(keys)
    assert terms.threshold == 5 and terms.traitors == 2
    homes, updates = joined(keys, terms), drawn(terms, 3)
    whole, without = tuple(range(7)), tuple(range(1, 7))
    opened = set()
    for story in product((0, 1), repeat=5):  # honest homes 1 to 5; 0 is who should be singled out, 6 is the traitor
        now = started(homes)
        for seat in range(7):
            now.hide(seat, updates[seat])
        agreed: dict[int, list[Statement]] = {0: [], 1: []}
        for seat, which in zip(range(1, 6), story, strict=True):
            now.agree(seat, [now.said[other] for other in (whole, without)[which]])
            agreed[which].append(now.agreed[seat])
        for which, told in enumerate((whole, without)):
            facts = {**now.said[6].facts, "survivors": list(told)}
            del facts["numbers"]
            agreed[which].append(state(keys[6], 6, "agree", facts))
        got = set()
        for seat, which in zip(range(1, 6), story, strict=True):
            try:
                now.reveal(seat, agreed[which])
            except FederatedError:
                continue
            got.add(which)
        assert len(got) <= 1, story
        opened |= got
    assert opened == {0, 1}, "each of the two alone can be had: the test has power"


def test_two_sums_of_two_rounds_from_one_base_do_not_show_one_home() -> None:
    """The second round is begun because the first one failed, so its coordinator says; without home 0, whose update is the difference."""
    keys = KEYS[:7]
    terms = terms_of(keys)
    updates = drawn(terms, 3)
    first = whole_round(joined(keys, terms), updates, lambda _seat, _step: True)
    members = [first.done[seat].member for seat in range(7)]
    for left, shows in (((0,), "1 home"), ((0, 3), "2 homes")):
        second = started(members, 2)
        for seat in set(range(7)) - set(left):
            second.hide(seat, updates[seat])
        for seat in set(range(7)) - set(left):
            with pytest.raises(FederatedError, match=f"would show the updates of {shows} alone"):
                second.agree(seat)
    again = whole_round(members, updates, lambda _seat, _step: True, number=3)
    assert (again.open() == first.open()).all(), "the same homes may do it again"
    other = {seat: begin(member, 4, "c" * 64)[0] for seat, member in enumerate(members)}
    assert all(part.base == "c" * 64 for part in other.values())


@given(data=st.data(), homes=st.integers(3, 9), sums=st.integers(1, 4))
def test_what_can_be_worked_out_from_all_sums_is_of_three_homes_at_least(data: st.DataObject, homes: int, sums: int) -> None:
    """Against linear algebra: no combination of the sums that were let through holds one or two homes alone."""
    opened: list[list[int]] = []
    for _ in range(sums):
        chosen = sorted(data.draw(st.sets(st.integers(0, homes - 1), min_size=3, max_size=homes)))
        try:
            check_apart(opened, chosen)
        except FederatedError:
            continue
        opened.append(chosen)
    matrix = np.array([[seat in one for seat in range(homes)] for one in opened], float)
    rank = np.linalg.matrix_rank(matrix)
    for pair in combinations(range(homes), 2):
        rest = np.delete(matrix, pair, axis=1)  # a combination that vanishes on all others is one of these two alone
        assert np.linalg.matrix_rank(rest) == rank if rest.size else not matrix.any(), (opened, pair)


def test_a_home_never_tells_both_secrets_of_one_home() -> None:
    now = hidden()
    for seat in (0, 1, 2):  # home 3's update never arrived, says the coordinator
        now.agree(seat, [now.said[other] for other in (0, 1, 2)])
    with pytest.raises(FederatedError, match="before agree"):
        reveal(now.parts[3], list(now.agreed.values()))
    for seat in (0, 1, 2):
        now.reveal(seat)
        of_key, of_seed = now.parts[seat].shares[3]
        told = now.told[seat].facts["of"]
        assert told["3"] == of_key.hex() and of_seed.hex() not in told.values()
        assert told["0"] == now.parts[seat].shares[0][1].hex(), "of one that stayed, its seed alone"
    now.payloads.pop(3)
    assert (now.open() == plain_sum(UPDATES[:3])).all()


def test_a_home_that_is_called_dropped_but_sent_stays_hidden() -> None:
    """Its key is opened to take its masks off the others'; its own seed is not, and that hides what it sent."""
    now = hidden()
    late = now.payloads.pop(3)
    for seat in (0, 1, 2):
        now.agree(seat, [now.said[other] for other in (0, 1, 2)])
    for seat in (0, 1, 2):
        now.reveal(seat)
    now.payloads[3] = late
    with pytest.raises(FederatedError, match="shares of the seed of the home in seat 3 don't fit together"):
        now.open()


def test_keys_of_another_round_federation_or_base_are_refused() -> None:
    old = ready(1)
    homes = [part.member for part in old.parts.values()]
    now = started(homes, 2)
    with pytest.raises(FederatedError, match="seat 1 speaks of another round: 1 instead of 2"):
        now.hide(0, UPDATES[0], [now.keys[0], old.keys[1], now.keys[2]])
    now.parts[1], message = begin(now.parts[1].member, 3, BASE)
    foreign = state(KEYS[1], 1, "keys", {**now.keys[1].facts, "federation": "e" * 64})
    with pytest.raises(FederatedError, match="another federation"):
        now.hide(0, UPDATES[0], [now.keys[0], foreign, now.keys[2]])
    based = state(KEYS[1], 1, "keys", {**now.keys[1].facts, "base": "c" * 64})
    with pytest.raises(FederatedError, match="seat 1 speaks of another base: cccccccccccc instead of bbbbbbbbbbbb"):
        now.hide(0, UPDATES[0], [now.keys[0], based, now.keys[2]])
    assert message["statement"].facts["round"] == 3


def test_shares_of_another_round_or_for_another_home_are_refused() -> None:
    old = ready(1)
    now = started([part.member for part in old.parts.values()], 2)
    for wrong in (old.sealed[1][0], now.sealed[1][2], now.sealed[2][0], "", "no hex", now.sealed[1][0][:-2], 7):
        now.sealed[1] = {**now.sealed[1], 0: wrong}  # type: ignore[dict-item]
        with pytest.raises(FederatedError, match="must be what the home in seat 1 sealed for this round"):
            now.hide(0, UPDATES[0])


def test_a_coordinator_in_the_middle_is_refused() -> None:
    """It exchanges keys with its own: the signature isn't the member's, or the member's own key is another."""
    seated = [take_seat(TERMS, key) for key in KEYS[:4]]
    joins = [greet(member) for member in seated]
    facts = {**joins[1].facts, "channel": public_of(new_private())}
    for forged in (replace(joins[1], facts=facts), state(KEYS[9], 1, "join", facts)):
        with pytest.raises(FederatedError, match=r"seat 1 did not sign this \(join\)"):
            meet(seated[0], [joins[0], forged, *joins[2:]])
    with pytest.raises(FederatedError, match="joined twice with different keys"):
        meet(seated[0], [*joins, greet(take_seat(TERMS, KEYS[1]))])
    again = greet(take_seat(TERMS, KEYS[1]))
    assert meet(meet(seated[0], joins), [joins[0], again, *joins[2:]]).channels[1] == again.facts["channel"], "by itself it may"
    with pytest.raises(FederatedError, match="this home's own"):
        meet(seated[0], [greet(take_seat(TERMS, KEYS[0])), *joins[1:]])
    with pytest.raises(FederatedError, match="at least 3"):
        meet(seated[0], joins[:2])
    with pytest.raises(FederatedError, match="not in the invitation"):
        take_seat(TERMS, KEYS[9])
    now = ready()
    swapped = {**now.keys[1].facts, "key": public_of(new_private())}
    for forged in (replace(now.keys[1], facts=swapped), state(KEYS[9], 1, "keys", swapped), replace(now.keys[1], seat=2)):
        with pytest.raises(FederatedError, match="did not sign this"):
            now.hide(0, UPDATES[0], [now.keys[0], forged, now.keys[3]])
    with pytest.raises(FederatedError, match="seat 7 is not in the invitation"):
        now.hide(0, UPDATES[0], [now.keys[0], replace(now.keys[1], seat=7), now.keys[3]])


def test_words_that_lack_what_they_must_say() -> None:
    now = ready()
    facts = {name: value for name, value in now.keys[1].facts.items() if name != "key"}
    seated = [take_seat(TERMS, key) for key in KEYS[:4]]
    joins = [greet(member) for member in seated]
    nothing = state(KEYS[1], 1, "join", {"federation": TERMS.federation, "channel": 7})
    with pytest.raises(FederatedError, match="seat 1 gave no channel"):
        meet(seated[0], [joins[0], nothing, joins[2]])
    bare = state(KEYS[1], 1, "keys", facts)
    now.sealed[1] = {0: seal(_channel(now.parts[0].member, 1), bytes(66), _letter(bare, 0)).hex()}
    with pytest.raises(FederatedError, match="seat 1 gave no key"):
        now.hide(0, UPDATES[0], [now.keys[0], bare, now.keys[2]])
    for plain in (None, [], {}, {"seat": 1}, {**now.keys[1].plain(), "more": 1}, {**now.keys[1].plain(), "seat": "1"}):
        with pytest.raises(FederatedError, match="must have a seat"):
            Statement.read(plain)
    assert Statement.read(now.keys[1].plain()) == now.keys[1]


def test_a_home_that_joined_anew_gets_no_old_channel() -> None:
    now = ready()
    stranger = replace(now.parts[0], member=replace(now.parts[0].member, channels={0: now.parts[0].member.channels[0]}))
    with pytest.raises(FederatedError, match="has not joined"):
        hide(stranger, list(now.keys.values()), now.shares_for(0), UPDATES[0])


def test_lists_that_are_short_double_or_without_oneself() -> None:
    now = ready()
    for roster, match in (
        ([now.keys[0], now.keys[1]], "at least 3 to go on"),
        ([now.keys[0], now.keys[1], now.keys[1], now.keys[2]], "in the list twice"),
        ([now.keys[1], now.keys[2], now.keys[3]], "own word is not in the list"),
        ([begin(now.parts[0].member, 2, BASE)[0].said["keys"], now.keys[1], now.keys[2]], "another round"),
        ([state(KEYS[0], 0, "keys", {**now.keys[0].facts, "key": now.keys[1].facts["key"]}), *list(now.keys.values())[1:]], "own word"),
        ([], "own word is not in the list"),
    ):
        with pytest.raises(FederatedError, match=match):
            now.hide(0, UPDATES[0], roster)
    with pytest.raises(FederatedError, match="before update"):
        agree(now.parts[0], [])
    now = hidden()
    with pytest.raises(FederatedError, match="at least 3 to go on"):
        now.agree(0, [now.said[0], now.said[2]])
    with pytest.raises(FederatedError, match="own word is not in the list"):
        now.agree(0, [now.said[1], now.said[2], now.said[3]])


def test_homes_with_different_lists_of_partners_are_not_summed() -> None:
    """A home whose partners are others than the rest's could be left alone with its own mask."""
    now = ready()
    now.hide(0, UPDATES[0], [now.keys[seat] for seat in (0, 1, 2)])
    for seat in (1, 2, 3):
        now.hide(seat, UPDATES[seat])
    with pytest.raises(FederatedError, match="seat 0 speaks of another roster"):
        now.agree(1)
    with pytest.raises(FederatedError, match="speaks of another roster"):
        now.agree(0)


def test_a_word_of_one_step_is_none_of_another() -> None:
    now = hidden()
    with pytest.raises(FederatedError, match=r"did not sign this \(agree\)"):
        now.agree(0)
        now.reveal(0, [now.agreed[0], replace(now.said[1], kind="agree"), now.said[2]])
    with pytest.raises(FederatedError, match=r"did not sign this \(agree\)"):
        believe(state(KEYS[0], 0, "keys", {}), "agree", TERMS.members, {})


def test_wrong_shares_are_found_and_the_sum_is_opened_without_them() -> None:
    now = hidden()
    for seat in range(4):
        now.agree(seat)
    for seat in range(4):
        now.reveal(seat)
    good = now.told[2]
    for lie in ((PRIME - 5).to_bytes(SHARE_BYTES).hex(), "00", "no hex", None, 7):
        now.told[2] = replace(good, facts={**good.facts, "of": {str(seat): lie for seat in range(4)}})
        assert (now.open() == plain_sum(UPDATES)).all(), "three true ones are enough"
    now.told.pop(3)
    with pytest.raises(FederatedError, match="don't fit together"):
        now.open()


def test_seeds_are_used_whole() -> None:
    """Flower 1.42 folds a seed into 32 bits by XOR, which an hour of one core goes through: seeds that fold to the same must differ."""
    rng = np.random.default_rng(0)
    seed = bytearray(rng.bytes(32))
    twin = bytearray(seed)
    twin[0] ^= 0x5A
    twin[4] ^= 0x5A  # the same 32 bits by XOR of 4-byte words
    assert (mask(bytes(seed), 1000, 32) == mask(bytes(twin), 1000, 32)).sum() < 5
    for at in range(256):
        other = bytearray(seed)
        other[at // 8] ^= 1 << at % 8
        assert (mask(bytes(seed), 64, 32) != mask(bytes(other), 64, 32)).sum() > 60


def test_keys_that_everybody_can_work_out_are_refused() -> None:
    for public in ("00" * 32, "01" + "00" * 31, "no hex", "ab"):
        with pytest.raises(FederatedError, match="X25519 public key"):
            common_key(new_private(), public, {})


def test_a_key_is_of_one_context() -> None:
    private, public = new_private(), public_of(new_private())
    keys = {common_key(private, public, {"round": number, "use": use}) for number in (1, 2) for use in ("mask", "channel")}
    assert len(keys) == 4


def test_a_letter_is_bound_to_its_context() -> None:
    key = common_key(new_private(), public_of(new_private()), {"use": "test"})
    sealed = seal(key, b"secret", {"to": 1})
    assert unseal(key, sealed, {"to": 1}) == b"secret"
    assert unseal(key, sealed, {"to": 2}) is None and unseal(bytes(32), sealed, {"to": 1}) is None
    assert unseal(key, sealed[:-1], {"to": 1}) is None and unseal(key, b"", {"to": 1}) is None


def test_secrets_are_not_in_what_is_printed() -> None:
    now = hidden()
    text = repr(now.parts[0])
    for secret in (now.parts[0].private, now.parts[0].seed, now.parts[0].member.channel):
        assert repr(secret) not in text and secret.hex() not in text
