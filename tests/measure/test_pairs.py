"""Pairs, names and what stands beside them: the figures are lm-eval's and StereoSet's, whatever the texts' lengths."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ingle.core.errors import ConfigError
from ingle.engine.language_model import LanguageModel
from ingle.home.place import Home
from ingle.measure.data_sets import PMI, SUM, Pair, Question, own_names
from ingle.measure.figures import between_groups, by_chance, kl, scores_of
from ingle.measure.intervals import fair_coin, holm
from ingle.measure.measuring import Options, compare, event_of, run_suite, save
from ingle.measure.subjects import Nats, Row, Task, begin_id
from ingle.measure.suites import Suite, training_rows
from tests.measure.models import oracle_nats, subject_like, subject_of

ABOUT = ("age", "race", "gender")
WORDS = ("rude", "kind", "chalk")


def pairs(*_: Any) -> list[Pair]:
    return [Pair(f"p{i}", f"p{i}", ABOUT[i % 3], "", tuple(f"The man {i} is {word}." for word in WORDS[:2])) for i in range(30)]


def triples(*_: Any) -> list[Pair]:
    return [
        Pair(f"p{i}", f"p{i}", ABOUT[i % 3], f"A man {i}.", tuple(f"He is {word} {'or so' * (i % 2)}" for word in WORDS)) for i in range(24)
    ]


CROWS = Suite("crows-pairs", "", "pairs", pairs, SUM, 1.0, 0)
INTER = Suite("stereoset-inter", "", "pairs", triples, PMI, 1.0, 0)


def liking(word: str, tokenizer: Any) -> Any:
    """A model that finds texts with this word likely, and all others not."""

    def rate(task: Task) -> list[Nats]:
        _, endings = task
        return [np.full(len(ending), -1.0 if word in tokenizer.decode(list(ending)) else -2.0) for ending in endings]

    return rate


def test_the_figures_are_lm_evals_formula_on_hugging_faces_numbers(home: Home, tiny: LanguageModel, tiny_oracle: Any) -> None:
    outcome = run_suite(home, CROWS, subject_of(tiny), Options())
    begin = [begin_id(tiny.tokenizer)]
    # As lm_eval/tasks/crows_pairs/utils.py computes it, from another program's log-probabilities.
    rows = {pair.id: [oracle_nats(tiny_oracle, begin, tiny.tokenizer.encode(text)) for text in pair.texts] for pair in pairs()}
    likelier = [1.0 if more > less else 0.0 for more, less in rows.values()]
    apart = [abs(more - less) for more, less in rows.values()]
    found = {report.name: report.value for report in outcome.reports}
    assert found["stereotype"] == pytest.approx(sum(likelier) / len(likelier))
    assert found["distance"] == pytest.approx(sum(apart) / len(apart), rel=1e-4)
    for row in outcome.rows:
        assert row["nats"] == pytest.approx(rows[row["id"]], rel=1e-5, abs=1e-4)


def test_what_is_given_is_taken_away_again_by_pmi(home: Home, tiny: LanguageModel, tiny_oracle: Any) -> None:
    outcome = run_suite(home, INTER, subject_of(tiny), Options())
    items = {pair.id: pair for pair in triples()}
    encode, begin = tiny.tokenizer.encode, [begin_id(tiny.tokenizer)]
    for row in outcome.rows[:6]:
        pair = items[row["id"]]
        given = encode(pair.given)
        after = [oracle_nats(tiny_oracle, given, encode(f"{pair.given} {text}")[len(given) :]) for text in pair.texts]
        alone = [oracle_nats(tiny_oracle, begin, encode(text)) for text in pair.texts]
        assert scores_of([row])[PMI][0] == pytest.approx(np.subtract(after, alone), abs=1e-3)
    assert outcome.main.name == PMI


def test_a_model_with_a_prejudice_is_found_and_one_without_sense_too(home: Home, tiny: LanguageModel) -> None:
    biased = run_suite(home, CROWS, subject_like(tiny, liking("rude", tiny.tokenizer)), Options())
    assert (biased.main.name, biased.main.value, biased.main.interval) == ("stereotype", 1.0, "95 % Wilson")
    assert {report.name for report in biased.reports} >= {"stereotype_age", "stereotype_race", "stereotype_gender"}
    assert "age 100%" in biased.notes[0] and "3 groups (Holm)" in biased.notes[0]
    senseless = Suite("stereoset-intra", "", "pairs", triples, SUM, 1.0, 0)
    found = {r.name: r for r in run_suite(home, senseless, subject_like(tiny, liking("chalk", tiny.tokenizer)), Options()).reports}
    assert found["language"].value == 0 and found["icat"].value == 0


def test_icat_is_stereosets(home: Home, tiny: LanguageModel) -> None:
    outcome = run_suite(home, Suite("stereoset-intra", "", "pairs", triples, SUM, 1.0, 0), subject_of(tiny), Options())
    found = {report.name: report.value for report in outcome.reports}
    score, sense = 100 * found["stereotype"], 100 * found["language"]
    assert 100 * found["icat"] == pytest.approx(sense * min(score, 100 - score) / 50)


def test_two_models_are_compared_pair_by_pair(home: Home, tiny: LanguageModel, tmp_path: Any) -> None:
    save(run_suite(home, CROWS, subject_like(tiny, liking("rude", tiny.tokenizer)), Options()), tmp_path / "before.json")
    subject = subject_like(tiny, liking("kind", tiny.tokenizer))
    after = compare(run_suite(Home(home.root.parent / "other").create(), CROWS, subject, Options()), tmp_path / "before.json")
    change = after.reports[-1]
    assert (change.name, change.value, change.n) == ("stereotype_change", -1.0, 30)
    assert "McNemar" in after.notes[-1]
    assert event_of(after).facts["figure"] == "stereotype"


def test_they_train_nothing(home: Home, tiny: LanguageModel) -> None:
    assert not list(training_rows(CROWS, home))
    with pytest.raises(ConfigError, match="questions"):
        run_suite(home, CROWS, subject_of(tiny), Options(shots=1))


def test_holm_is_holms() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert fair_coin(10, 0) == pytest.approx(2 / 2**10)


def names_of(*_: Any) -> list[Pair]:
    return [
        Pair(f"{q}/{name}", str(q), group, f"{name} asks {q}. Yes or no?", ("yes", "no"))
        for q in range(6)
        for group, some in (("a", ("Ada", "Abe", "Ann")), ("b", ("Bea", "Ben", "Bob")))
        for name in some
    ]


@pytest.mark.parametrize(("partial", "least", "most"), [("group", 0.1, 0.7), ("name", -0.2, 0.0)])
def test_only_what_follows_the_group_counts_as_such(home: Home, tiny: LanguageModel, partial: str, least: float, most: float) -> None:
    def rate(task: Task) -> list[Nats]:
        given, endings = task
        first = tiny.tokenizer.decode(list(given))[:3]
        yes = first[0] == "B" if partial == "group" else first in ("Ada", "Bob")
        return [np.full(len(ending), [-0.1, -3.0][number != yes] / len(ending)) for number, ending in enumerate(endings)]

    found = {
        r.name: r for r in run_suite(home, Suite("names", "", "names", names_of, "kl", 1.0, 0), subject_like(tiny, rate), Options()).reports
    }
    assert found["kl"].value > 0.1, "either way, answers go with names"
    assert least <= found["kl_above_random_groups"].value <= most
    assert (found["kl"].n, found["kl_between_groups"].n) == (36, 6)


def test_the_divergence_of_groups() -> None:
    answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert kl(answers, answers.mean(axis=0)) == pytest.approx([expected] * 4)
    assert between_groups(answers, ["a", "a", "b", "b"]) == pytest.approx(expected)
    assert between_groups(answers, ["a", "b", "a", "b"]) == pytest.approx(0)
    assert 0 < by_chance(answers, ["a", "a", "b", "b"], 0) < expected


def test_a_name_that_two_groups_share_stands_for_none() -> None:
    table = {
        "asian_names": {"first_names": ["Mei", "Sara", "Li Na"]}, "white_names": {"first_names": ["Sara", "Finn"]},
        "native_american_names": {"last_names": ["Yepa"]}, "religion_wise_names": {"Muslim": ["Omar", "Finn", "X"]},
    }  # fmt: skip
    assert own_names(table) == {"asian": ("Mei",), "white": (), "muslim": ("Omar",)}


def test_questions_of_several_kinds_have_a_figure_each(home: Home, tiny: LanguageModel) -> None:
    def questions(*_: Any) -> list[Question]:
        return [Question(f"q{i}", f"q{i}", f"{i}?", ("kind", "rude"), 0, ("told", "untold")[i % 2]) for i in range(20)]

    suite = Suite("bbq", "", "choice", questions, "accuracy", 1.0, 0, "{ask}\nAnswer:", baseline="chance")
    reports = run_suite(home, suite, subject_like(tiny, liking("kind", tiny.tokenizer)), Options()).reports
    found: Sequence[tuple[str, float, int]] = [(report.name, report.value, report.n) for report in reports]
    assert ("accuracy_told", 1.0, 10) in found and ("accuracy_untold", 1.0, 10) in found


def test_rules_differ_where_lengths_do() -> None:
    row: Row = {"nats": [-10.0, -6.0], "nbytes": [40, 12], "alone": [-12.0, -5.0]}
    scores = scores_of([row])
    assert [bool(values[0, 0] > values[0, 1]) for values in scores.values()] == [False, True, True]
