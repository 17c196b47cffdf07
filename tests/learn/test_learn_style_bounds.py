"""What liked answers have in common is found by counting, and other answers lend the beginnings that have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.learn.practice import beginning, common_bounds
from tests.examples import examples

LONG = "Bread keeps in a cloth. It is best cut late; a cut loaf dries. Then there is the freezer.\n1. Slice it.\n2. Wrap it."
SHORT = ["Keep it in a cloth.", "Use a box, a dry one please.", "In a cloth. Not in the cold!"]


def found(liked: list[str], others: list[str]) -> list[tuple[str, bool, int]]:
    return [(one.count.name, one.most, one.value) for one in common_bounds(liked, others)]


@pytest.mark.parametrize(
    ("liked", "others", "bounds"),
    [
        (SHORT, [LONG, LONG.replace("\n", " ")], [("words", True, 15)]),
        (
            ["A word or two.", "One thing.\nAnd more. " * 9],
            ["- One thing.\n- And more. " * 4, "1. One.\n2. Two."],
            [("marked lines", True, 0)],
        ),
        (["One. " * 30, "Two of it. " * 20], ["One. " * 10 + "\n\n" + "Two. " * 20, "Two of it.\n" * 20], [("lines", True, 1)]),
        (["I am so. " * 9, "They do. " * 20], ["I'm so. " * 9, "They don't. " * 15], [("contractions", True, 0)]),
        (["- One thing.\n- And more.", "* This."], ["One thing and more.", "That one."], [("marked lines", False, 1)]),
        (["So it is!", "Oh! Well."], ["So it is.", "Oh. Well."], [("mark !", False, 1)]),
    ],
)
def test_the_bounds_that_tell_liked_from_others(liked: list[str], others: list[str], bounds: list[tuple[str, bool, int]]) -> None:
    assert found(liked, others) == bounds


def test_two_bounds_where_one_is_not_enough() -> None:
    others = ["They're so. It is good. " * 3] * 3 + ["It is so. It is good! " * 3] * 2
    assert {name for name, _, _ in found(["They are so. It is good. " * n for n in range(1, 6)], others)} == {"contractions", "mark !"}


def test_a_slip_of_the_thumb_changes_nothing() -> None:
    liked, others = ["I am so. " * n for n in range(8, 17)], ["I'm so. " * n for n in range(8, 17)]
    assert found([*liked, others[-1]], [*others, liked[-1]]) == [("contractions", True, 0)]


def test_what_the_one_furthest_out_was_forgiven_is_not_what_was_liked() -> None:
    liked = [*["I am so. " * n for n in range(8, 14)], *["I am so. They're so. " * n for n in (1, 2)]]
    assert found(liked, ["They're so, they're so. " * n for n in range(8, 14)]) == [("contractions", True, 0)]


def test_nothing_in_common_is_no_bound() -> None:
    assert found([LONG], [LONG]) == []
    assert found([], [LONG]) == found([LONG], []) == []
    assert beginning(LONG, []) is None


@pytest.mark.parametrize(
    ("liked", "others", "text", "ends"),
    [
        (SHORT, [LONG, LONG], LONG[: LONG.index(" Then")], True),
        (["It is so. " * 30] * 2, ["It is so.\n1. It is.\n" * 15] * 2, LONG[: LONG.index("\n")], True),
        (["It is so if it is. " * 5] * 2, ["It is so; if it is. " * 5] * 2, "Bread keeps in a cloth.", False),
    ],
)  # fmt: skip
def test_a_beginning_ends_where_more_would_be_too_much_and_else_only_goes_on_otherwise(
    liked: list[str], others: list[str], text: str, ends: bool
) -> None:
    begun = beginning(LONG, common_bounds(liked, others))
    assert begun is not None
    assert (begun.text, begun.ends) == (text, ends)


def test_a_beginning_that_lacks_what_is_liked_is_none() -> None:
    assert beginning("So it is. Oh, well.", common_bounds(["So it is!", "Oh! Well."], ["So it is.", "Oh. Well."])) is None


@examples(60)
@given(liked=st.lists(st.text(max_size=40), min_size=1, max_size=3), other=st.text(alphabet="ab .!?\n-1'", max_size=60))
def test_a_beginning_is_one_and_is_within(liked: list[str], other: str) -> None:
    bounds = common_bounds(liked, [other])
    begun = beginning(other, bounds)
    assert begun is None or (begun.text in other and begun.text and all(one.holds(begun.text) for one in bounds))
