"""What liked answers have in common is seen, and disliked answers lend the beginnings that have it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.adapt.forms import beginning, common_forms

LONG = "Bread keeps in a cloth. It is best cut late, for a cut loaf dries. Then there is the freezer.\n1. Slice it.\n2. Wrap it."


@pytest.mark.parametrize(
    ("liked", "kept"),
    [
        (
            ["Keep it in a cloth.", "Use a box, a dry one please."],
            "Bread keeps in a cloth. It is best cut late, for a cut loaf dries.",
        ),  # short
        (["One thing and another; " * 12], "Bread keeps in a cloth. It is best cut late, for a cut loaf dries. Then there is the freezer."),
    ],
)
def test_a_disliked_answer_lends_the_beginning_that_has_the_form(liked: list[str], kept: str) -> None:
    assert beginning(LONG, common_forms(liked, [LONG, LONG])) == kept


def test_nothing_is_lent_where_nothing_is_in_common() -> None:
    assert common_forms([LONG], [LONG]) == []
    assert common_forms([], [LONG]) == []
    assert beginning(LONG, []) == ""
    assert beginning("It's all good! Really.", common_forms(["It is good. " * 3], ["It's fine! Sure."])) == ""


@settings(deadline=None, max_examples=60)
@given(liked=st.lists(st.text(max_size=40), min_size=1, max_size=3), other=st.text(alphabet="ab .!?\n-1'", max_size=60))
def test_a_beginning_is_one_and_has_the_forms(liked: list[str], other: str) -> None:
    forms = common_forms(liked, [other])
    kept = beginning(other, forms)
    assert kept in other
    assert all(form(kept) for form in forms) or not kept
