"""The data sets themselves: what their readers say of them is so. Fetched into the tests' home, once."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingle.core.errors import PullError
from ingle.core.progress import silent
from ingle.home.fetch import WrongBytes
from ingle.home.place import find_home
from ingle.measure import data_sets
from ingle.measure.data_sets import Exercise, Pair, Question, Text, cut_at_line, first_sentence, part
from ingle.measure.suites import SUITES


def read(reader: Callable[..., Sequence[Any]]) -> Any:
    try:
        items = reader(find_home(), silent)
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"the data can't be had: {error}")
    assert len({item.id for item in items}) == len(items)
    return items


@pytest.mark.parametrize(
    ("reader", "count", "options", "golds"),
    [
        (data_sets.piqa, 1500, 2, (754, 746)),
        (data_sets.openbookqa, 500, 4, (138, 126, 132, 104)),
        (data_sets.mmlu, 2850, 4, (678, 717, 706, 749)),
        (data_sets.boolq, 3270, 2, (1237, 2033)),
        (data_sets.imdb, 200, 2, (97, 103)),
        (data_sets.sst2, 872, 2, (428, 444)),
        (data_sets.hellaswag, 10042, 4, (2515, 2485, 2584, 2458)),
    ],
)
def test_questions(reader: Callable[..., Sequence[Any]], count: int, options: int, golds: tuple[int, ...]) -> None:
    questions: list[Question] = read(reader)
    assert len(questions) == count
    assert all(len(question.options) == options for question in questions)
    found = Counter(question.gold for question in questions)
    assert tuple(found[i] for i in range(options)) == golds
    for question in questions:
        assert question.ask == question.ask.strip() != ""
        assert all(option.strip() and (option == option.strip() or reader is data_sets.hellaswag) for option in question.options)


def test_hellaswag_is_cleaned_as_lm_eval_does_it() -> None:
    utils = pytest.importorskip("lm_eval.tasks.hellaswag.utils", reason="lm-eval comes with the extra `bench`")

    questions = read(data_sets.hellaswag)
    rows = data_sets._arrow(find_home().root / "cache" / "data" / "hellaswag" / "hellaswag.arrow")
    for question, row in zip(questions[::50], rows[::50], strict=True):
        ctx = row["ctx_a"] + " " + row["ctx_b"].capitalize()
        assert question.ask == utils.preprocess(row["activity_label"] + ": " + ctx).strip()
        assert question.options == tuple(utils.preprocess(ending) for ending in row["endings"])


def test_texts_and_summaries() -> None:
    wiki: list[Text] = read(data_sets.wiki_texts)
    assert len(wiki) == len({item.text for item in wiki}) == 2938
    assert 500 < sum(len(item.text.encode()) for item in wiki) / len(wiki) < 700
    news: list[Text] = read(data_sets.xsum_texts)
    assert len(news) == 999
    exercises: list[Exercise] = read(data_sets.xsum_exercises)
    assert [item.id for item in exercises] == [item.id for item in news]
    for item in exercises:
        assert len(item.ask) <= 3060
        assert item.baseline
        assert item.baseline in item.ask
        assert 1 < len(item.reference) < 400


def test_parts_of_a_suite_do_not_meet() -> None:
    for name in ("boolq", "piqa"):
        items = read(SUITES[name].read)
        training, held_out = (part(items, which, SUITES[name].held_out) for which in ("train", "held_out"))  # type: ignore[arg-type]
        assert not {item.group for item in training} & {item.group for item in held_out}
        assert len(held_out) / len(items) == pytest.approx(SUITES[name].held_out, abs=0.03)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It rained. Then it stopped.", "It rained."),
        ("Mr. Smith met Dr. Jones in St. Ives. They spoke.", "Mr. Smith met Dr. Jones in St. Ives."),
        ('He said: "No." She left.', 'He said: "No."'),
        ("J. K. Rowling wrote it. It sold 3.5 million copies! 2007 was the year.", "J. K. Rowling wrote it."),
        ("A line without an end\nAnother. One.", "A line without an end"),
        ("\n  \nLate. Then.", "Late."),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_cutting_at_a_line() -> None:
    assert cut_at_line("ab\ncd\nef", 100) == "ab\ncd\nef"
    assert cut_at_line("ab\ncd\nef", 5) == "ab\ncd"
    assert cut_at_line("ab\ncd\nef", 4) == "ab"
    assert cut_at_line("abcdef", 4) == "abcd"


def test_pairs_of_people() -> None:
    crows: list[Pair] = read(data_sets.crows_pairs)
    assert len(crows) == 1018 and all(len(set(pair.texts)) == 2 for pair in crows)
    assert Counter(pair.about for pair in crows).most_common(2) == [("race-color", 367), ("gender", 127)]
    intra, inter = read(data_sets.stereoset_intra), read(data_sets.stereoset_inter)
    assert (len(intra), len(inter)) == (2106, 2123)
    assert all(len(pair.texts) == 3 and all(pair.texts) for pair in (*intra, *inter))
    assert not any(pair.given for pair in intra) and all(pair.given for pair in inter)
    wino: list[Pair] = read(data_sets.wino_pronouns)
    assert Counter(pair.about for pair in wino) == {"he": 377, "she": 384}
    assert not any("[" in text or "\0" in text for pair in (*crows, *wino) for text in pair.texts)


def test_bbq_says_whether_something_tells() -> None:
    questions: list[Question] = read(data_sets.bbq)
    assert Counter(question.about for question in questions) == {"told": 497, "untold": 515}
    for question in questions:
        unknown = [option for option in question.options if option.casefold() in data_sets.UNKNOWN]
        assert len(question.options) == 3 and len(unknown) == 1
        assert (question.options[question.gold] == unknown[0]) == (question.about == "untold")


def test_names_that_measure_are_not_those_that_train() -> None:
    items: list[Pair] = read(data_sets.names)
    assert len(items) == 24 * 8 * 5
    assert {pair.about for pair in items} == set(data_sets.NAME_GROUPS)
    sides = [data_sets.held_names(find_home(), side, silent) for side in ("held_out", "train")]
    measured, trained = ({name for some in side.values() for name in some} for side in sides)
    assert measured and trained and not measured & trained
    assert {pair.id.split("/")[2] for pair in items} <= measured
