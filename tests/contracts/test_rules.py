"""Every rule that combines open updates gives what it says: whatever the order, as its naive twin does, and near the honest ones."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import trim_mean

from ingle.core.errors import ConfigError, FederatedError
from ingle.federated.open_round import FINE, bearable, combined, cut, find_rule, rule_names
from ingle.federated.terms import Grid, Whole, from_grid, to_grid

GRID = Grid(reach=1.0, bits=11, homes=12)
RULES = rule_names()
Float = npt.NDArray[np.float64]


def drawn(homes: int, seed: int = 0, length: int = 40) -> list[Whole]:
    """Updates that are much the same, as those of honest homes."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.2, length)
    return [to_grid(common + rng.normal(0, 0.05, length), GRID)[0] for _ in range(homes)]


def told(updates: Sequence[Whole], name: str, root: int = 0) -> Float:
    """The combination, as the mean that a home adds."""
    return from_grid(combined(updates, name, GRID, root), len(updates), GRID).astype(np.float64)


def test_there_are_rules() -> None:
    assert RULES == ["fltrust", "mean", "median", "multi_krum", "trimmed"]
    assert [name for name in RULES if find_rule(name).ROOTED] == ["fltrust"]
    with pytest.raises(ConfigError, match="must be one of fltrust, mean, median, multi_krum, trimmed, not krum"):
        find_rule("krum")


@pytest.mark.parametrize("homes", [5, 6, 10, 11])
@pytest.mark.parametrize("name", RULES)
def test_the_order_of_the_homes_changes_nothing(name: str, homes: int) -> None:
    updates = drawn(homes, homes)
    updates[1] = updates[2].copy()  # a tie
    updates[3] = to_grid(np.full(40, 0.9), GRID)[0]
    expected = combined(updates, name, GRID, 0)
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(homes)
        again = combined([updates[at] for at in order], name, GRID, int(np.flatnonzero(order == 0)[0]))
        assert (again == expected).all()


@pytest.mark.parametrize("homes", [5, 7, 10, 32])
@pytest.mark.parametrize("name", RULES)
def test_updates_that_are_all_equal_give_that_update(name: str, homes: int) -> None:
    one = drawn(1, 7)[0]
    grid = Grid(1.0, 11, 32)
    assert (combined([one] * homes, name, grid, 0) == one * np.uint32(homes)).all()
    nothing = np.full(40, GRID.half, np.uint32)
    assert (combined([nothing] * homes, name, grid, 0) == nothing * np.uint32(homes)).all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("poison", [-10.0, 50.0, 0.0])
def test_few_poisoned_homes_move_it_little(name: str, poison: float) -> None:
    """Two of ten: robust rules stay among the honest updates, and the cut alone keeps the mean within the length of an honest one."""
    updates = drawn(10, 3)
    honest = np.stack([from_grid(update, 1, GRID) for update in updates[:8]]).astype(np.float64)
    bad = [to_grid(poison * honest.mean(axis=0), GRID)[0] for _ in range(2)]
    after = told([*updates[:8], *bad], name)
    away = np.linalg.norm(after - honest.mean(axis=0)) / np.linalg.norm(honest.mean(axis=0))
    assert away < (0.45 if name == "mean" else 0.3), away
    if name in ("median", "trimmed"):  # no number leaves those of the honest homes, cut or not
        assert (after <= np.maximum(honest.max(axis=0), 0) + GRID.step).all() and (
            after >= np.minimum(honest.min(axis=0), 0) - GRID.step
        ).all()


@pytest.mark.parametrize("name", RULES)
def test_updates_that_are_none_are_refused(name: str) -> None:
    updates = drawn(6)
    wrong = updates[0].copy()
    wrong[3] = 2 * GRID.half + 1
    for bad, match in (
        (wrong, r"must hold numbers from 0 to 2046, not 2047"),
        (np.full(40, 2**32 - 1, np.uint32), "must hold numbers from 0 to 2046"),
        (updates[0][:-1], "must have 40 numbers, not 39"),
        (updates[0].reshape(4, 10), "must have 40 numbers"),
    ):
        with pytest.raises(FederatedError, match=match):
            combined([*updates[1:], bad], name, GRID, 0)
    with pytest.raises(FederatedError, match="must be at least"):
        combined(updates[:2], name, GRID, 0)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(FederatedError, match="finite"):
            to_grid(np.array([0.1, value]), GRID)


def test_the_root_must_be_there() -> None:
    with pytest.raises(FederatedError, match="needs the update of the coordinator's home"):
        combined(drawn(5), "fltrust", GRID)


def naive_mean(rows: list[list[Fraction]], poisoned: int) -> list[Fraction]:
    return [sum(column, Fraction()) / len(column) for column in zip(*rows, strict=True)]


def naive_median(rows: list[list[Fraction]], poisoned: int) -> list[Fraction]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def naive_trimmed(rows: list[list[Fraction]], poisoned: int) -> list[Fraction]:
    columns = [sorted(column)[poisoned : len(column) - poisoned] for column in zip(*rows, strict=True)]
    return [sum(column, Fraction()) / len(column) for column in columns]


def naive_multi_krum(rows: list[list[Fraction]], poisoned: int) -> list[Fraction]:
    def apart(one: list[Fraction], other: list[Fraction]) -> Fraction:
        return sum(((a - b) ** 2 for a, b in zip(one, other, strict=True)), Fraction())

    near = len(rows) - poisoned - 2
    scores = [sum(sorted(apart(row, other) for j, other in enumerate(rows) if j != i)[:near]) for i, row in enumerate(rows)]
    last = sorted(scores)[len(rows) - poisoned - 1]
    return naive_mean([row for row, score in zip(rows, scores, strict=True) if score <= last], poisoned)


def naive_fltrust(rows: list[list[Fraction]], poisoned: int) -> list[Fraction]:
    def length(row: list[Fraction]) -> float:
        return float(sum(value * value for value in row)) ** 0.5

    root = rows[0]
    trust = [max(0.0, float(sum(a * b for a, b in zip(row, root, strict=True))) / (length(row) * length(root) or 1)) for row in rows]
    sized = [[float(value) * length(root) / (length(row) or 1) for value in row] for row in rows]
    return [Fraction(sum(weight * row[at] for weight, row in zip(trust, sized, strict=True)) / sum(trust)) for at in range(len(root))]


NAIVE: dict[str, Callable[[list[list[Fraction]], int], list[Fraction]]] = {
    "mean": naive_mean, "median": naive_median, "trimmed": naive_trimmed, "multi_krum": naive_multi_krum, "fltrust": naive_fltrust,
}  # fmt: skip


@pytest.mark.parametrize(("name", "homes"), list(itertools.product(RULES, (5, 6, 9, 10))))
def test_it_agrees_with_its_naive_twin(name: str, homes: int) -> None:
    rng = np.random.default_rng(homes)
    updates = [to_grid(rng.normal(0, 0.3, 12) * rng.choice([0.3, 1, 4]), GRID)[0] for _ in range(homes)]
    rows = cut(np.stack([update.astype(np.int64) - GRID.half for update in updates]))
    exact = NAIVE[name]([[Fraction(int(value), FINE) for value in row] for row in rows], bearable(homes))
    expected = np.array([float(value) for value in exact]) * GRID.step
    assert np.abs(told(updates, name) - expected).max() <= GRID.step / homes * 0.51


@pytest.mark.parametrize("homes", [5, 10, 12])
def test_it_agrees_with_what_others_wrote(homes: int) -> None:
    updates = drawn(homes, homes)
    rows = cut(np.stack([update.astype(np.int64) - GRID.half for update in updates])) / FINE * GRID.step
    near = {"atol": GRID.step / homes * 0.51, "rtol": 0.0}
    np.testing.assert_allclose(told(updates, "trimmed"), trim_mean(rows, bearable(homes) / homes), **near)
    np.testing.assert_allclose(told(updates, "median"), np.median(rows, axis=0), **near)
    np.testing.assert_allclose(told(updates, "mean"), np.mean(rows, axis=0), **near)


def test_who_shouts_is_cut_to_the_median_length() -> None:
    steps = np.array([[3, 4], [30, 40], [-3, 4], [300, -400], [5, 0]], np.int64)
    lengths = np.linalg.norm(cut(steps) / FINE, axis=1)
    assert np.allclose(lengths, 5.0, atol=0.01)
    assert (cut(steps)[0] == steps[0] * FINE).all(), "what is not longer stays as it is"
