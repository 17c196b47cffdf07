"""A secure sum is the plain sum of the whole numbers, bit for bit, whoever drops out; with too few homes nobody learns anything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.sealing import combine, split
from ingle.federated.secure_sum import plain_sum
from ingle.federated.terms import Grid, Terms, fewest_of, from_grid, pack, packed_bytes, to_grid, unpack
from tests.examples import examples
from tests.federated.summed import drawn, joined, signers, started, terms_of, whole_round

STEPS = ("keys", "update", "agree", "shares", "never")
KEYS = signers(10)


@given(data=st.data(), homes=st.integers(3, 10), bits=st.sampled_from([2, 8, 16, 19]), seed=st.integers(0, 2**32))
@examples(40)
def test_the_sum_is_exact_whoever_drops_out(data: st.DataObject, homes: int, bits: int, seed: int) -> None:
    keys = KEYS[:homes]
    terms = terms_of(keys, bits=bits)
    leaving = data.draw(st.lists(st.sampled_from(STEPS), min_size=homes, max_size=homes))
    updates = drawn(terms, seed, data.draw(st.integers(1, 40)))
    stays = lambda seat, step: STEPS.index(step) < STEPS.index(leaving[seat])  # noqa: E731
    at_end = [seat for seat in range(homes) if leaving[seat] == "never"]
    everyone = joined(keys, terms)
    if len(at_end) >= terms.threshold:
        done = whole_round(everyone, updates, stays)
        assert (done.open() == plain_sum(updates[seat] for seat in done.payloads)).all()
    else:
        with pytest.raises(FederatedError, match=f"at least {terms.threshold}"):
            whole_round(everyone, updates, stays).open()


@pytest.mark.parametrize("step", STEPS[:4])
def test_thirty_percent_drop_out_at_one_step_and_the_sum_is_exact(step: str) -> None:
    terms = terms_of(KEYS)
    updates = drawn(terms, 5, 1000)
    done = whole_round(joined(KEYS, terms), updates, lambda seat, now: not (seat in (0, 4, 9) and now == step))
    assert len(done.payloads) == (7 if step in ("keys", "update") else 10)
    assert (done.open() == plain_sum(updates[seat] for seat in done.payloads)).all()


def test_what_leaves_a_home_looks_like_chance_whatever_the_update_is() -> None:
    """Every bit of a masked update is even odds, for the smallest numbers as for the largest, and no two rounds give the same."""
    terms = terms_of(KEYS[:3])
    homes = joined(KEYS[:3], terms)
    seen = []
    for number, value in enumerate((0, 2 * terms.grid.half, 0), start=1):
        now = started(homes, number)
        now.hide(1, np.full(20_000, value, np.uint32))
        seen.append(unpack(now.payloads[1], 20_000, terms.grid.width))
        for bit in range(terms.grid.width):
            share = float(((seen[-1] >> bit) & 1).mean())
            assert abs(share - 0.5) < 6 * 0.5 / 20_000**0.5, (value, bit)
    assert (seen[0] != seen[2]).mean() > 0.99


@pytest.mark.parametrize("unknown", ["seed", "pair"])
def test_all_but_one_mask_leave_an_update_hidden(unknown: str) -> None:
    """Taking off every mask but one shows nothing: this is what stands between a coordinator and an update."""
    terms = terms_of(KEYS[:4])
    homes, update = joined(KEYS[:4], terms), np.zeros(5000, np.uint32)
    now = started(homes)
    part = now.parts[2]
    now.hide(2, update)
    from ingle.federated.sealing import mask
    from ingle.federated.secure_sum import pair_mask

    left = unpack(now.payloads[2], 5000, terms.grid.width)
    if unknown != "seed":
        left = left - mask(part.seed, 5000, terms.grid.width)
    for other in (0, 1, 3) if unknown == "seed" else (0, 1):
        left = left - pair_mask(terms, 1, 5000, part.private, 2, other, now.keys[other].facts["key"])
    left &= (1 << terms.grid.width) - 1
    assert len(np.unique(left >> (terms.grid.width - 8))) == 256 and (left == 0).sum() < 5, "it still looks like chance"
    if unknown == "pair":
        left = (left - pair_mask(terms, 1, 5000, part.private, 2, 3, now.keys[3].facts["key"])) & ((1 << terms.grid.width) - 1)
        assert not left.any(), "and with the last one off it lies open"


@given(secret=st.binary(min_size=32, max_size=32), homes=st.integers(1, 12), data=st.data())
@examples(40)
def test_shares_give_a_secret_back_and_fewer_do_not(secret: bytes, homes: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, homes))
    shares = split(secret, homes, threshold)
    chosen = data.draw(st.permutations(sorted(shares)))
    assert combine({x: shares[x] for x in chosen[:threshold]}) == secret
    if threshold > 1:
        assert combine({x: shares[x] for x in chosen[: threshold - 1]}) != secret


def test_shares_are_drawn_anew() -> None:
    """Each coefficient is: two polynomials of one secret have nothing else in common, and those of nothing are not nothing."""
    first, second = split(bytes(32), 6, 4), split(bytes(32), 6, 4)
    values = [int.from_bytes(share) for shares in (first, second) for share in shares.values()]
    assert len(set(values)) == 12 and all(values)
    assert len({share[1] for share in [*first.values(), *second.values()]}) > 4, "all bytes are random, not the last ones"


def test_shares_below_the_threshold_fit_every_secret() -> None:
    """Shamir's promise itself: whatever the secret, there is a last share with which these give it."""
    from ingle.federated.sealing import PRIME

    shares = split(bytes(32), 5, 3)
    weights = {1: 3, 2: -3, 3: 1}  # Lagrange at 0 for x = 1, 2, 3
    for secret in (bytes(32), b"\xff" * 32, b"another secret of thirty-two byte"[:32]):
        known = sum(weights[x] * int.from_bytes(shares[x]) for x in (1, 2))
        last = (int.from_bytes(secret) - known) % PRIME
        assert combine({1: shares[1], 2: shares[2], 3: last.to_bytes(33)}) == secret


@given(width=st.integers(1, 32), count=st.integers(0, 70), seed=st.integers(0, 9))
def test_packed_numbers_come_back(width: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << width, count, dtype=np.uint64).astype(np.uint32)
    data = pack(values, width)
    assert len(data) == packed_bytes(count, width) and (unpack(data, count, width) == values).all()
    with pytest.raises(FederatedError, match="must have"):
        unpack(data + b"x", count, width)


@given(seed=st.integers(0, 99), bits=st.integers(2, 20), homes=st.integers(1, 20))
def test_a_mean_on_the_grid_is_within_half_a_step(seed: int, bits: int, homes: int) -> None:
    grid = Grid(reach=0.3, bits=bits, homes=homes)
    updates = np.random.default_rng(seed).uniform(-0.3, 0.3, (homes, 11))
    total = plain_sum(to_grid(update, grid)[0] for update in updates)
    assert int(total.max()) < 1 << grid.width
    assert np.abs(from_grid(total, homes, grid) - updates.mean(axis=0)).max() <= grid.step * 0.5001 + 1e-7


def test_updates_that_cannot_be_summed() -> None:
    grid = Grid(reach=1.0)
    with pytest.raises(FederatedError, match="2 of 3 are NaN or infinity"):
        to_grid([0.0, float("nan"), -float("inf")], grid)
    values, cut = to_grid([5.0, -1e30, 1.0, 0.0], grid)
    assert cut == 2 and values.tolist() == [2 * grid.half, 0, 2 * grid.half, grid.half]


def test_terms_that_protect_nobody_are_refused() -> None:
    members = tuple(key.verifier.public for key in KEYS)
    grid = Grid(reach=1.0, homes=10)
    with pytest.raises(ConfigError, match="at least 3"):
        Terms("f", members[:2], 2, grid)
    with pytest.raises(ConfigError, match="from 7 to 10 for 10 homes, not 5"):
        Terms("f", members, 5, grid)
    with pytest.raises(ConfigError, match="different"):
        Terms("f", (*members[:3], members[0]), 3, grid)
    with pytest.raises(ConfigError, match="64 hex digits"):
        Terms("f", (*members[:3], "not a key"), 3, grid)
    with pytest.raises(ConfigError, match="room for 10 homes"):
        Terms("f", members, 7, Grid(reach=1.0, homes=3))
    assert [fewest_of(homes) for homes in (3, 4, 5, 6, 9, 10, 100)] == [3, 3, 4, 4, 6, 7, 67]
    assert Terms("f", members, 7, grid).traitors == 3
