"""Contamination: found when it is there, not seen when it isn't."""

from hypothesis import given
from hypothesis import strategies as st

from ingle.measure.intervals import contamination

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_the_same_text_with_other_case_and_marks_is_the_same() -> None:
    found = contamination(["Hello, WORLD!", "else"], {"a": "hello world", "b": "hello worlds", "c": LONG})
    assert (found.exact, found.overlapping, found.n) == (("a",), ("a",), 3)
    report = found.report()
    assert (report.value, report.n, report.model_digest) == (1 / 3, 3, "")
    assert report.low < report.value < report.high
    assert len(report.data_digest) == 64


def test_thirteen_words_in_a_row_are_found_and_twelve_are_not() -> None:
    thirteen, twelve = " ".join(LONG.split()[1:]), " ".join(LONG.split()[2:])
    assert contamination([f"before {thirteen} after"], {"a": f"x {LONG}"}).overlapping == ("a",)
    assert contamination([f"before {twelve} after"], {"a": f"x {LONG}"}).overlapping == ()
    assert contamination([f"before {twelve} after"], {"a": f"x {LONG}"}, words=12).overlapping == ("a",)


def test_a_short_text_within_a_long_one_does_not_count() -> None:
    assert contamination(["this is a hello world program"], {"a": "hello world"}).overlapping == ()


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=8)


@given(training=st.lists(WORDS, max_size=5), held_out=st.lists(WORDS, min_size=1, max_size=5))
def test_it_is_what_comparing_all_stretches_finds(training: list[list[str]], held_out: list[list[str]]) -> None:
    def stretches(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    found = contamination([" ".join(words) for words in training], {str(i): " ".join(w) for i, w in enumerate(held_out)}, words=3)
    seen = set().union(*map(stretches, training)) if training else set()
    exact = {str(i) for i, words in enumerate(held_out) if words in training}
    assert set(found.exact) == exact
    assert set(found.overlapping) == exact | {str(i) for i, words in enumerate(held_out) if stretches(words) & seen}
