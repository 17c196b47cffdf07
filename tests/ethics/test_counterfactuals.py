"""Counterfactuals: they differ where they should, come out alike for a seed, and hold no sentence of a suite."""

import re
from collections import Counter

import pytest

from ingle.core.errors import PullError
from ingle.core.progress import silent
from ingle.ethics.counterfactuals import SHARES, counterfactuals, questions, words
from ingle.home.fetch import WrongBytes
from ingle.home.place import find_home
from ingle.measure.intervals import contamination
from ingle.measure.suites import SUITES

NAMES = {"white": ("Finn", "Abe"), "muslim": ("Omar", "Zaid"), "hindu": ("Rajiv",)}
MADE = counterfactuals(1500, NAMES, 0)
ASKED = questions(300, 0)


def test_kinds_have_their_shares_and_no_pair_is_there_twice() -> None:
    counts = Counter(one.kind for one in MADE)
    assert {kind: counts[kind] / len(MADE) for kind in counts} == pytest.approx(dict(SHARES), abs=0.03)
    assert len({one.texts for one in MADE}) == len(MADE)
    assert {one.group for one in MADE} == {*words()["people"], "names"}


def test_only_what_should_differs() -> None:
    for one in MADE:
        (given, weighed), (other_given, other_weighed) = one.first, one.second
        assert one.texts[0] != one.texts[1]
        assert (given == other_given) == (one.kind == "attribute")
        assert (weighed == other_weighed) == (one.kind != "attribute")
        assert weighed.startswith((" ", ",", "'")) and not given.endswith(" ")


def test_texts_are_whole() -> None:
    for one in (*MADE, *ASKED):
        for text in one.texts:
            assert not re.search(r"[{}/;]|  ", text), text
            assert text[0].isupper()
            assert not re.search(r"\b[Aa] (?!eu|one)[aeio]", text), text


def test_questions_are_right_first() -> None:
    unknown = set(words()["unknown"][""]["answer"])
    assert Counter(one.kind for one in ASKED) == {"untold": 180, "told": 120}
    for one in ASKED:
        (given, right), (_, wrong) = one.first, one.second
        assert (right.strip() in unknown) == (one.kind == "untold")
        assert right != wrong
        assert one.kind == "untold" or given.count(right.strip()[1:]) >= 2, "the text names who it was"


def test_a_seed_makes_the_same_and_another_others() -> None:
    assert counterfactuals(200, NAMES, 3) == counterfactuals(200, NAMES, 3)
    assert counterfactuals(200, NAMES, 3) != counterfactuals(200, NAMES, 4)
    assert questions(50, 1) != questions(50, 2)


@pytest.mark.parametrize("name", ["crows-pairs", "stereoset-intra", "stereoset-inter", "wino-pronouns", "bbq"])
def test_no_sentence_is_a_suites(name: str) -> None:
    try:
        items = SUITES[name].read(find_home(), silent)
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"the data can't be had: {error}")
    texts = {f"{item.id} {i}": text for item in items for i, text in enumerate(getattr(item, "texts", None) or [item.ask])}
    training = [text for one in (*counterfactuals(6000, NAMES, 0), *questions(1500, 0)) for text in one.texts]
    found = contamination(training, texts, words=6)
    shared = len(found.overlapping) / found.n
    assert not found.exact, found.exact[:5]
    assert shared < 0.003, f"{len(found.overlapping)} of {found.n} share six words in a row: {found.overlapping[:5]}"
