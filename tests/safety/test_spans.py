"""Pieces of a text lie where they should, and the fast scores of stretches are those of the stretches by themselves."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.safety.judge import load_judge
from ingle.safety.reading import joined_quotations, normal, pieces_of, request_vector, stretch_scores, windows_of, worst_apart
from tests.examples import examples

ASKED = "how do i keep basil fresh in winter"


@pytest.mark.parametrize("text", [
    f'{{"id": 3, "task": "{ASKED}", "lang": "en"}}', f"No. | Task\n1 | {ASKED} | no\n2 | go home now | no", f"Task: {ASKED}\nDone: not yet",
    f"<p>Well, hello there.</p><!-- {ASKED} --><p>Good bye to you.</p>", f"Translate “{ASKED}” into French.",
    f"A: Good morning.\nB: {ASKED}\nA:",
    f"It was late. {ASKED}? Nobody knew.", f"He said: «{ASKED}». Then he left.",
])  # fmt: skip
def test_a_request_is_a_piece_by_itself(text: str) -> None:
    plain = normal(text)
    assert ASKED in [plain[slice(*one)].strip("?.") for one in pieces_of(plain)]


def test_quotations_are_read_together() -> None:
    assert list(joined_quotations(normal('a = "how do i keep"\nb = "basil fresh"'))) == ["how do i keep basil fresh"]
    assert list(joined_quotations(normal('He said "yes".'))) == []


def test_windows_cover_a_text() -> None:
    text = normal(" ".join(f"word{number}" for number in range(100)))
    windows = windows_of(text)
    assert all(text[slice(*one)].count(" ") == 11 for one in windows[:-1])
    assert windows[0][0] == 0 and windows[-1][1] == len(text)
    assert all(later[0] < before[1] for before, later in itertools.pairwise(windows))


WORDS = ["how", "do", "i", "keep", "basil", "fresh", "in", "winter", "bomb", "garden", "Ω", "straße", "don't", "12", "x"]


@given(st.lists(st.sampled_from(WORDS), min_size=4, max_size=60))
@examples(40)
def test_fast_scores_are_those_of_the_stretches_by_themselves(words: list[str]) -> None:
    """Where no n-gram comes twice: those count twice in the fast way."""
    judge = load_judge()
    weights, bias = judge.weights["harm"], judge.biases["harm"]
    text = normal(" ".join(words))
    where = [one for one in windows_of(text, 4, 1) if len(set(text[slice(*one)].split())) == 4]
    fast = stretch_scores(weights, bias, text, where)
    slow = np.array([judge.log_odds("harm", request_vector(text[slice(*one)])) for one in where])
    assert np.abs(fast - slow).max(initial=0) < 0.35
    assert np.median(np.abs(fast - slow)) < 0.05 if where else True


def test_the_worst_stretches_are_apart() -> None:
    where = [(0, 40), (2, 40), (50, 90), (0, 90)]
    assert worst_apart(where, np.array([3.0, 2.9, 2.0, 1.0]), 3) == [(0, 40), (50, 90), (0, 90)]
    assert worst_apart(where, np.array([3.0, 2.9, 2.0, 1.0]), 3, taken=[(0, 41)]) == [(50, 90), (0, 90)]
