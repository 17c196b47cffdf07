"""Bounds of settings stand in their types, and are held by one function."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from ingle.core.config import Bounds, Count, Part, Positive, Share, check_bounds, from_table
from ingle.core.errors import ConfigError


@dataclass(frozen=True)
class Bounded:
    """Settings with bounds in their types."""

    rank: Count = 4
    share: Share = 0.5
    rate: Positive = 1e-3
    left: Part = 0.1
    most: Annotated[int, Bounds(ge=3, le=8)] | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "some.")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rank": 0}, "some.rank must be at least 1"),
        ({"share": 1.5}, "some.share must be between 0 and 1"),
        ({"rate": 0.0}, "some.rate must be above 0"),
        ({"rate": float("nan")}, "some.rate must be above 0"),
        ({"left": 1.0}, "some.left must be at least 0 and below 1"),
        ({"most": 9}, "some.most must be between 3 and 8"),
    ],
)
def test_bounds_in_types_are_held(table: dict[str, Any], said: str) -> None:
    assert from_table(Bounded, {"rank": 1, "share": 1.0, "most": 3}) == Bounded(1, 1.0, most=3)
    with pytest.raises(ConfigError, match=said):
        Bounded(**table)


@dataclass(frozen=True)
class Narrower(Bounded):
    """Settings with another default."""

    rank: int = 2


def test_a_subclass_keeps_them() -> None:
    with pytest.raises(ConfigError, match=r"some\.rank must be at least 1"):
        Narrower(rank=0)
