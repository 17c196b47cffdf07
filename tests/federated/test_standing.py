"""Where a home is: what it keeps comes back, and a gain that is longer than is usual is cut."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ingle.core.errors import HomeError
from ingle.core.makers import MAKERS
from ingle.federated.aggregate import A, B
from ingle.federated.secure_sum import plain_sum
from ingle.federated.standing import FACTORS, FederationStanding, folder_of, keep_said, keep_standing, read_said, read_standing
from ingle.federated.terms import filled, from_grid, mean_square, to_grid
from ingle.federated.verdict import RoundVerdict, Suspicion, suspension_event
from ingle.home.archive import KEPT, MADE_AGAIN
from ingle.home.place import Home
from tests.federated.homes import BASE, LINEAR, Learner, invited
from tests.federated.street import SIGNERS

INVITATION = invited(SIGNERS[:6])
START = Learner(0, INVITATION, lambda _: None).standing
SHAPES = {LINEAR: (6, 8)}


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    suspicion = Suspicion(((1, 2), (5, 6)), (4,), "b" * 64)
    standing = replace(START, base="c" * 64, accepted=2, settled=5, lengths=(Fraction(1, 3), Fraction(7)), suspicion=suspicion)
    keep_standing(home, standing)
    again = read_standing(home, INVITATION, SHAPES)
    assert replace(again, factors={}) == replace(standing, factors={})
    assert all((again.factors[name] == values).all() for name, values in standing.factors.items())
    path = folder_of(home, INVITATION) / FACTORS
    for what in (b"[1, 2", b'["1/3"'):
        damaged = path.read_bytes().replace(b'[\\"1/3\\"', what.ljust(9), 1)
        path.write_bytes(damaged)
        with pytest.raises(HomeError, match="must hold what was learned together"):
            read_standing(home, INVITATION, SHAPES)
        keep_standing(home, standing)


def accepted(standing: FederationStanding, size: float) -> FederationStanding:
    """What follows when every home sends a gain of this size."""
    grid = INVITATION.terms().grid
    total = plain_sum([to_grid(np.full(standing.length, size), grid)[0]] * 6)
    everybody = tuple(range(6))
    verdict = RoundVerdict("f", standing.settled + 1, standing.base, everybody, everybody, "t", everybody, ())
    return standing.after(verdict, total)


def test_a_gain_is_no_longer_than_the_median_of_those_before() -> None:
    now = START
    for number in range(6):  # three of each factor
        now = accepted(now, 0.01 * (1 + number // 2))
    assert now.names == (LINEAR + B,) and now.usual is not None
    after = accepted(now, 0.5)
    gain = after.factors[LINEAR + B] - now.factors[LINEAR + B]
    assert np.allclose(gain, 0.02, rtol=0.05), "0.01, 0.02 and 0.03 were accepted before"
    assert after.lengths[-1] == now.usual, "and as such it is remembered, not as what was asked for"
    short = accepted(now, 0.004)
    assert np.allclose(short.factors[LINEAR + B] - now.factors[LINEAR + B], 0.004, rtol=0.15), "what is shorter stays as it is"
    assert short.names == (LINEAR + A,) and short.usual == sorted(now.lengths[1::2])[1], "each factor has a usual length of its own"


def test_a_part_of_the_homes_moves_all_by_its_part() -> None:
    grid = INVITATION.terms().grid
    half = plain_sum([to_grid(np.full(START.length, 0.3), grid)[0]] * 3)
    total = filled(half, 3, grid)
    assert np.allclose(from_grid(total, 6, grid), 0.15, atol=grid.step)
    assert mean_square(total, 6, grid) == mean_square(half, 3, grid) / 4
    everybody = tuple(range(6))
    verdict = RoundVerdict("f", 1, BASE, (0, 2, 4), everybody, "t", everybody, ())
    assert np.allclose(START.after(verdict, total).factors[LINEAR + B], 0.15, atol=grid.step)


def test_a_suspension_is_a_sentence_in_the_ledger() -> None:
    verdict = RoundVerdict("f", 9, BASE, (), tuple(range(6)), "t", (), ())
    event = suspension_event(INVITATION.terms(), verdict, 4, "smollm2+street")
    assert event.kind == "federate.suspended" and event.facts["key"] == INVITATION.members[4]
    told = MAKERS["federate"].sentences[event.kind](event.facts)
    assert told == f"left out the home with the key {INVITATION.members[4][:12]} from round 9 on (only in refused groups, 7 times in a row)"


def test_who_came_out_of_a_backup_does_not_take_part_again(tmp_path: Path) -> None:
    """It would not know what it said after the backup: the same round twice, and privacy paid for once, would be somebody's gain."""
    home = Home(tmp_path / "home")
    keep_said(home, START.invitation, 7, ((BASE, (0, 1, 2)),))
    assert read_said(home, START.invitation) == (7, ((BASE, (0, 1, 2)),))
    restored = Home(tmp_path / "restored")
    shutil.copytree(home.federated, restored.federated)
    assert "federated" in KEPT and "locks" in MADE_AGAIN
    with pytest.raises(HomeError, match="came out of a backup"):
        read_said(restored, START.invitation)
