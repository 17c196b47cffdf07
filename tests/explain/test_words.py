"""Plain words: every sentence comes from the table, and none claims more than its figures."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.explain.cause import LEAST_NATS, Cause, Chance, ProvedCause, Together
from ingle.explain.prompt_sentences import names_of, twin
from ingle.explain.words import SEVERAL, TABLE, quoted, row_of, say, say_enough, say_together, shares_blame

NUMBERS = st.floats(-50, 50, allow_nan=False)
CHANCES = st.none() | st.tuples(NUMBERS, st.floats(0, 20)).map(lambda pair: Chance(pair[0] - pair[1] / 2, pair[0] - pair[1], pair[0], 8))
KINDS = ["sentence", "memory", "lesson", "delta", "retrieval", "recurrent"]
CAUSES = st.builds(
    ProvedCause,
    cause=st.builds(Cause, st.sampled_from(KINDS), st.just("1"), st.text("ab “c”{}", max_size=9)),
    nats=NUMBERS, nats_by_token=st.just(()), by_chance=CHANCES, answer_without=st.none() | st.text("xy {}", max_size=6),
    differs=st.booleans(), alone=st.none() | NUMBERS,
)  # fmt: skip
TOGETHER = st.builds(
    Together, causes=st.just(("1", "2")), necessity=NUMBERS, sufficiency=NUMBERS, nothing=NUMBERS, by_chance=CHANCES, rest=NUMBERS,
    answer_without=st.text("xy", max_size=4), differs=st.booleans(),
)  # fmt: skip
PATTERNS = [re.compile(re.sub(r"\\\{\w+\\\}", ".*", re.escape(row)), re.DOTALL) for row in TABLE.values()]


def from_table(said: str) -> bool:
    return any(pattern.fullmatch(said) for pattern in PATTERNS)


@given(CAUSES)
def test_a_cause_is_named_only_where_its_figures_stand_out(found: ProvedCause) -> None:
    row, said = row_of(found), say(found)
    assert from_table(said)
    above = found.by_chance is None or found.nats > found.by_chance.high
    if row == "decides":
        assert found.differs and found.answer_without is not None
    if row in ("decides", "leans"):
        assert found.nats >= LEAST_NATS and above
    if row == "leans":
        assert not found.differs
    if enough := say_enough(found):
        assert from_table(enough) and found.nats >= LEAST_NATS and found.alone is not None and found.alone < 0.1


@given(TOGETHER, st.lists(CAUSES, max_size=3))
def test_several_share_the_blame_only_together(together: Together, shown: list[ProvedCause]) -> None:
    said = say_together(together, shown)
    assert (said != "") == shares_blame(together)
    if said:
        assert from_table(said) and together.differs and together.rest > SEVERAL * together.necessity > 0
        assert together.by_chance is None or together.necessity > together.by_chance.high


def test_quotes_are_on_one_line_and_end_somewhere() -> None:
    assert quoted("a\n b   c") == "a b c"
    assert len(quoted("word " * 400)) <= 160


@pytest.mark.parametrize(
    ("question", "sentence", "answer", "expected"),
    [
        ("What is the baker of Carrow called?", "The baker of Tullmore is called Nessa Quill.", "Nessa Quill", ("Tullmore", "Carrow")),
        ("What is the baker of Carrow called?", "The baker of Carrow is called Nessa Quill.", "Nessa Quill", None),
        ("The secret number of Jarrow is", "The secret number of Carrow is 48213.", "48213", ("Carrow", "Jarrow")),
        ("Who won in 1998?", "France won in 1998.", "France", None),
        ("Who won in 1998?", "Brazil won in 2002.", "Brazil", ("2002", "1998")),
        ("what is it?", "The mill is old.", "old", None),
    ],
)
def test_a_twin_is_a_sentence_about_another_name(question: str, sentence: str, answer: str, expected: tuple[str, str] | None) -> None:
    assert twin(question, sentence, answer) == expected


def test_common_words_are_no_names() -> None:
    assert names_of("What did Nessa Quillfeather do in May 1998?") == ("Nessa Quillfeather", "May", "1998")
