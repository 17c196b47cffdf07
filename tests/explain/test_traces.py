"""Runs of words that stand in another text, too: as a search word by word finds them, in whatever case, with whatever between."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingle.explain.traces import TaughtText, traces

POEM = "The fox waits\nbeside the old ladder. Nobody knows why — it “never” sings,\nand the candle burns."
_WORDS = re.compile(r"[a-z0-9éß]+")


def naive(answer: str, text: str, least: int) -> list[tuple[int, int]]:
    """Runs as (place of the first word, words): the longest from each place that none before it holds."""
    said, there = (_WORDS.findall(one.lower()) for one in (answer, text))
    found, reached = [], 0
    for at in range(len(said)):
        best = 0
        for place in range(len(there)):
            length = 0
            while at + length < len(said) and place + length < len(there) and said[at + length] == there[place + length]:
                length += 1
            best = max(best, length)
        if best >= least and at + best > reached:
            reached = at + best
            found.append((at, best))
    return found


words = st.lists(
    st.sampled_from(["a", "bb", "the", "The", "fox,", "fox", "é", "straße", "longerthaneight", "longerthannine", "7", "—", "\n"])
)


@given(words, words, st.integers(3, 5))
@example(["a"] * 9, ["a"] * 5, 3)
@example(["longerthaneight"] * 3, ["longerthannine"] * 3, 3)
def test_it_finds_what_a_search_word_by_word_finds(said: list[str], there: list[str], least: int) -> None:
    answer, text = " ".join(said), " ".join(there)
    found = sorted(traces(answer, [TaughtText("t", text)], least, most=100), key=lambda one: one.start)
    places = [match.start() for match in _WORDS.finditer(answer.lower())]
    assert [(places.index(one.start), one.words) for one in found] == naive(answer, text, least)
    for one in found:
        assert answer[one.start : one.end] == one.text
        run = _WORDS.findall(one.text.lower())
        lines = text.split("\n")
        assert _WORDS.findall("\n".join(lines[one.line - 1 :]).lower())[: len(run)] != [] or not run


def test_a_run_is_named_with_its_line_whatever_stands_between() -> None:
    answer = "Well: beside the OLD ladder nobody knows why: it 'never' sings. Really."
    [found] = traces(answer, [TaughtText("other.txt", "nothing of it"), TaughtText("poem.txt", POEM)])
    assert (found.source, found.line, found.words) == ("poem.txt", 2, 10)
    assert found.text == "beside the OLD ladder nobody knows why: it 'never' sings"


def test_the_first_text_of_several_is_named_and_a_longer_run_wins() -> None:
    texts = [TaughtText("one", "the fox waits beside the"), TaughtText("two", POEM), TaughtText("three", POEM)]
    [found] = traces("The fox waits beside the old ladder", texts)
    assert (found.source, found.words) == ("two", 7)


def test_short_runs_are_left_out_and_the_longest_come_first() -> None:
    answer = "the candle burns. Then the fox waits beside the. And it never sings and the candle burns"
    found = traces(answer, [TaughtText("poem", POEM)])
    assert [one.words for one in found] == [7, 5]
    assert len(traces(answer, [TaughtText("poem", POEM)], most=1)) == 1


@pytest.mark.parametrize("text", ["", " \n ", "!", "\ud800 a b c d e", "one two"])
def test_texts_without_words_are_no_matter(text: str) -> None:
    assert traces("a b c d e", [TaughtText("x", text)]) == traces("a b c d e", [TaughtText("x", text)])
    assert traces(text, [TaughtText("x", POEM)]) == ()
    assert traces("words that stand nowhere else", []) == ()


def test_fewer_than_three_words_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 3 words"):
        traces("a b", [TaughtText("x", "a b")], 2)
