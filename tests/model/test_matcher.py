"""The network that tells the same question in other words from another one: right about questions."""

import numpy as np
import pytest

from ingle.model.text_encoder import (
    FOLDER,
    LONGEST,
    WEIGHTS_FILE,
    TextEncoder,
    WordTable,
    matcher,
    odds_of,
    pair_odds,
    pair_row,
    unigram_of,
)

PIECES = ["<s>", "</s>", "<unk>", "▁who", "▁runs", "▁the", "▁mill", "▁bak", "ery", "?", "▁a", "s"]
ENCODER = TextEncoder(WordTable(unigram_of([(piece, -float(number)) for number, piece in enumerate(PIECES)]), {}), {})


def test_a_pair_is_read_between_marks() -> None:
    ids, segments = pair_row(ENCODER, "Who runs the bakery?", "the mills")
    assert [PIECES[number] for number in ids] == [
        "<s>", "▁who", "▁runs", "▁the", "▁bak", "ery", "?", "</s>", "▁the", "▁mill", "s", "</s>",
    ]  # fmt: skip
    assert segments == [0] * 8 + [1] * 4


def test_of_a_long_question_the_beginning_is_read() -> None:
    ids, segments = pair_row(ENCODER, "mill " * 500, "bakery " * 500)
    assert len(ids) == len(segments) == 2 * LONGEST + 3


def test_what_is_kept_is_small() -> None:
    assert (FOLDER / WEIGHTS_FILE).stat().st_size < 6_000_000


@pytest.mark.parametrize(("one", "other"), [
    ("Who keeps the bees at Fennel Rise?", "Whose job is it to look after the hives at Fennel Rise?"),
    ("From which platform does the Ostrel train leave?", "Where do I board the Ostrel train?"),
    ("What is the fine for a book that is brought back late?", "How much do I owe if I return a book after the due date?"),
])  # fmt: skip
def test_it_knows_words_that_no_thesaurus_here_has(one: str, other: str) -> None:
    assert odds_of(one, other) > 0


@pytest.mark.parametrize(("one", "other"), [
    ("Who keeps the bees at Fennel Rise?", "How many hives stand at Fennel Rise?"),
    ("From which platform does the Ostrel train leave?", "When does the Ostrel train leave?"),
    ("What is the fine for a book that is brought back late?", "How long may I keep a book?"),
    ("When does the Ostrel swimming bath open?", "When does the Ostrel swimming bath close?"),
    ("What does a ticket cost for adults?", "What does a ticket cost for children?"),
    ("Who is the mayor of Tallwick?", "Who was the first mayor of Tallwick?"),
])  # fmt: skip
def test_it_tells_what_lies_near(one: str, other: str) -> None:
    assert odds_of(one, other) < 0


def test_nothing_beside_a_pair_changes_its_odds() -> None:
    one, other = "Who runs the mill?", "Who is in charge of the mill?"
    assert pair_odds(matcher(), one, other) == pair_odds(matcher(), one, other)
    assert odds_of(one, other) == odds_of(other, one) == (pair_odds(matcher(), one, other) + pair_odds(matcher(), other, one)) / 2


def test_whatever_is_asked_the_odds_are_a_number() -> None:
    for text in ("", "?", "誰がパン屋を経営していますか", "\x00\ud7ff", "a" * 10_000, "</s> <s>"):
        assert np.isfinite(pair_odds(matcher(), text, "Who runs the mill?"))
